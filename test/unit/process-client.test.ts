/** The client of the control socket against servers that answer well, wrongly, or not at all. */
import { describe, expect, test } from "bun:test";
import { encodeFrame, FrameReader } from "../../src/messaging/frame.ts";
import { OrchestratorClient, OrchestratorError } from "../../src/process/client.ts";
import { eventText, logText } from "../../src/process/commands/follow.ts";
import { renderList } from "../../src/process/commands/list.ts";
import { renderDetail } from "../../src/process/commands/show.ts";
import type {
  ProcessDetail,
  ProcessEventRecord,
  ProcessSummary,
} from "../../src/process/protocol.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf } from "../support/wait-for.ts";

const media: ProcessSummary = {
  name: "media",
  partition: "qm",
  phase: "ready",
  pid: 4711,
  restarts: 3,
  refused_starts: 0,
  last_exit: { kind: "signalled", signal: 9, core_dumped: false },
  uptime_ms: 1_500,
  invocation: "0".repeat(32),
  reason: null,
};

const idle: ProcessSummary = {
  name: "idle",
  partition: null,
  phase: "waiting",
  pid: null,
  restarts: 0,
  refused_starts: 0,
  last_exit: null,
  uptime_ms: null,
  invocation: null,
  reason: "waits for media",
};

const died: ProcessEventRecord = {
  sequence: 8,
  time: "2026-11-21T04:39:08.170020Z",
  monotonic_us: 4_403_960_133,
  name: "media",
  what: "ended",
  pid: 4711,
  ending: { kind: "exited", status: 0 },
  detail: "exit 0",
};

interface Asked {
  readonly id: number;
  readonly verb: string;
}

/** A control socket that answers each request with these bodies; "close" ends the connection. */
async function withServer(
  answer: (request: Asked) => readonly (object | "close")[],
  use: (client: OrchestratorClient) => Promise<void>,
): Promise<void> {
  using folder = temporaryFolder();
  const path = folder.file("control.sock");
  const reader = new FrameReader({ frameBytes: 4096, frameDescriptors: 0 });
  const server = Bun.listen({
    unix: path,
    socket: {
      data: (socket, bytes) => {
        reader.push(bytes);
        for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
          if ("refusal" in frame) throw new Error(frame.refusal.received);
          for (const body of answer(frame.body as Asked)) {
            if (body === "close") socket.end();
            else socket.write(encodeFrame(body));
          }
        }
      },
    },
  });
  try {
    using client = await OrchestratorClient.connect(path);
    await use(client);
  } finally {
    server.stop(true);
  }
}

describe("answers", () => {
  test("that are right are given on", async () => {
    await withServer(
      ({ id, verb }) => [{ id, ok: verb === "list" ? [media, idle] : media }],
      async (client) => {
        expect(await client.list()).toEqual([media, idle]);
        expect(await client.wait("media", "ready")).toEqual(media);
      },
    );
  });

  test("to a change are one for each name, and a refusal has its mend", async () => {
    const refused = { kind: "unknown-process", message: "There is no process idel" };
    const error = { ...refused, expected: "media, idle", received: "idel" };
    const asked: Asked[] = [];
    await withServer(
      (request) => {
        asked.push(request);
        return [
          {
            id: request.id,
            ok: {
              since: 7,
              outcomes: [
                { name: "media", summary: media },
                { name: "idel", error },
              ],
            },
          },
        ];
      },
      async (client) => {
        const names = ["media", "idel"];
        const { since, outcomes } = await client.change("stop", names, { now: true });
        const [changed, other] = outcomes;
        expect(since).toBe(7);
        expect(changed).toEqual({ name: "media", summary: media });
        const message = "There is no process idel. Did you mean idle?";
        expect(other).toMatchObject({ name: "idel", error: { message, exitCode: 111 } });
      },
    );
    expect(asked.at(-1)).toMatchObject({ what: "stop", names: ["media", "idel"], now: true });
  });

  test("come as a stream", async () => {
    await withServer(
      ({ id }) => [
        { id, item: died },
        { id, item: { ...died, sequence: 9 } },
        { id, ok: null },
      ],
      async (client) => {
        const sequences: number[] = [];
        for await (const { sequence } of client.events({ after: 7 })) sequences.push(sequence);
        expect(sequences).toEqual([8, 9]);
      },
    );
  });

  const wrong: unknown[] = [null, {}, [{ ...media, restarts: "3" }], [media, 1]];
  test.each(wrong)("that are wrong are refused: %j", async (ok) => {
    await withServer(
      ({ id }) => [{ id, ok }],
      async (client) => {
        const error = await rejectionOf(client.list());
        expect(error).toBeInstanceOf(OrchestratorError);
        expect(error.message).toContain("Are both of the same version?");
      },
    );
  });

  test("that refuse are told with their mend", async () => {
    const error = {
      kind: "unknown-process",
      message: "There is no process medai in the configuration",
      expected: "media, idle",
      received: "medai",
      hint: "hostler process list shows all",
    };
    await withServer(
      ({ id }) => [{ id, error }],
      async (client) => {
        const refusal = await rejectionOf(client.show("medai"));
        expect(refusal).toMatchObject({ name: "OrchestratorError", exitCode: 111 });
        expect(refusal.message).toBe(`${error.message}. Did you mean media?`);
      },
    );
    await withServer(
      ({ id }) => [{ id, error: { ...error, received: "x" } }],
      async (client) => {
        const refusal = await rejectionOf(client.show("x"));
        expect(refusal.message).toBe(`${error.message}. ${error.hint}`);
      },
    );
  });

  test("that never come: the daemon went away", async () => {
    await withServer(
      () => ["close"],
      async (client) => {
        const error = await rejectionOf(client.list());
        expect(error).toBeInstanceOf(OrchestratorError);
        expect(error.message).toContain("closed the connection");
      },
    );
  });
});

test("nobody answers", async () => {
  using folder = temporaryFolder();
  const error = await rejectionOf(OrchestratorClient.connect(folder.file("x.sock")));
  expect(error).toMatchObject({ name: "OrchestratorError", exitCode: 111 });
  expect(error.message).toContain("Start it by hostler process orchestrator --config FILE");
});

describe("for people", () => {
  test("list", () => {
    expect(renderList([media])).toBe(
      "NAME   PARTITION  PHASE  PID   RESTARTS  LAST EXIT  UPTIME\n" +
        "media  qm         ready  4711  3         SIGKILL    1.50 s\n",
    );
    expect(renderList([media, idle])).toEndWith(
      "idle   -          waiting  -     0         -          -       waits for media\n",
    );
    expect(renderList([{ ...media, refused_starts: 2 }])).toBe(
      "NAME   PARTITION  PHASE  PID   RESTARTS  REFUSED  LAST EXIT  UPTIME\n" +
        "media  qm         ready  4711  3         2        SIGKILL    1.50 s\n",
    );
  });

  const detail: ProcessDetail = {
    summary: media,
    command: ["/usr/bin/media", "a b", "it's", ""],
    restart: "always",
    readiness: "notify",
    on_dependency_failure: "ignore",
    after: ["brake-monitor"],
    stop: { signal: "SIGTERM", grace_ms: 10_000 },
    start_limit: { starts: 20, within_ms: 60_000 },
    backoff_schedule_ms: [0, 100, 200],
    fails_after_schedule: false,
    log: { lines: 2, bytes: 2_048, dropped_lines: 1, file: null },
    history: [died],
  };

  test("show says only what can come", () => {
    const waits = (change: Partial<ProcessDetail>) =>
      renderDetail({ ...detail, ...change })
        .split("\n")
        .filter((line) => line.startsWith("coming"));
    expect(waits({ backoff_schedule_ms: [] })).toEqual([]);
    expect(waits({ backoff_schedule_ms: [0, 0] })).toEqual([
      "coming waits  none: it restarts at once",
    ]);
    expect(waits({ fails_after_schedule: true })).toEqual([
      "coming waits  at once, 100 ms, 200 ms, then the start limit",
    ]);
    expect(waits({ backoff_schedule_ms: [], fails_after_schedule: true })).toEqual([
      "coming waits  none: the start limit is reached",
    ]);
  });

  test("show tells refused starts where there are any", () => {
    const summary = { ...media, refused_starts: 4 };
    expect(renderDetail({ ...detail, summary })).toContain("\nrefused starts  4\n");
    expect(renderDetail(detail)).not.toContain("refused");
  });

  test("show tells the file of lines where there is one", () => {
    const file = { path: "/l/media.log", bytes: 2_048, dropped_lines: 3 };
    const log = { ...detail.log, file };
    const row = "\nlog file      /l/media.log, 2 KiB; 3 lines dropped\n";
    expect(renderDetail({ ...detail, log })).toContain(row);
    expect(renderDetail(detail)).not.toContain("log file");
  });

  test("show", () => {
    expect(renderDetail(detail).split("\n")).toEqual([
      "name          media",
      "partition     qm",
      "phase         ready, process 4711",
      "uptime        1.50 s",
      `invocation    ${"0".repeat(32)}`,
      "command       /usr/bin/media 'a b' 'it'\\''s' ''",
      "after         brake-monitor",
      "ready         notify",
      "restart       always; at most 20 starts within 1 min 0 s",
      "restarts      3; the last exit: SIGKILL",
      "coming waits  at once, 100 ms, 200 ms …",
      "stop          SIGTERM, SIGKILL after 10.00 s",
      "log           2 lines, 2 KiB; 1 lines dropped",
      "",
      "WHEN                         WHAT   HOW",
      "2026-11-21T04:39:08.170020Z  ended  process 4711, exit 0",
      "",
    ]);
  });

  test("events and lines, in which nothing drives the terminal", () => {
    expect(eventText(died)).toBe("2026-11-21T04:39:08.170020Z media ended process 4711, exit 0\n");
    const line = { name: "media", time: "T", stream: "stderr" as const, line: "\u001b[2Ja\rb" };
    expect(logText(line)).toBe("T media stderr \\u001b[2Ja\\u000db\n");
    expect(logText({ ...line, line: "x", dropped: 7 })).toBe(
      "T media (7 lines dropped: memory is bounded)\nT media stderr x\n",
    );
  });
});
