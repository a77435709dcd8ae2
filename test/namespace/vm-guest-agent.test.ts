/** The compiled file as the agent in a guest, at a Unix socket that stands for its port. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import {
  AgentRefused,
  AgentUnreachable,
  GuestAgentClient,
  type GuestCommand,
} from "../../src/vm/guest-agent/client.ts";
import { hostler } from "../support/binary.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { type GuestChannel, guestChannel } from "../support/guest-channel.ts";
import { type Program, runProgram, startProgram } from "../support/program.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

let loop: EventLoop;
let channel: GuestChannel;
let agent: Program;
let client: GuestAgentClient;

const startAgent = (...words: string[]) =>
  startProgram([hostler(), "vm", "guest-agent", "--port", channel.guestPath, ...words]);

beforeEach(async () => {
  loop = testEventLoop();
  channel = await guestChannel();
  agent = startAgent();
  client = new GuestAgentClient(loop, { path: channel.hostPath });
});

afterEach(async () => {
  client.close();
  await agent[Symbol.asyncDispose]();
  await channel[Symbol.asyncDispose]();
  loop[Symbol.dispose]();
});

const sleep: GuestCommand = {
  ...{ argv: ["sleep", "1000"], timeLimit: 600_000, outputLimit: 0 },
  ...{ streams: "apart", outlives: false },
};

/** A program that runs for the asker. */
async function begin(options: Partial<GuestCommand> = {}) {
  const started = Promise.withResolvers<number>();
  const running = client.exec(
    { ...sleep, ...options },
    { onStarted: started.resolve, onOutput: () => {} },
  );
  running.ended.catch(started.reject);
  return { processId: await started.promise, running };
}

function isAlive(processId: number): boolean {
  try {
    return !/\) Z/.test(readFileSync(`/proc/${processId}/stat`, "latin1"));
  } catch {
    return false;
  }
}

describe("the compiled agent", () => {
  test("answers a hello that was said before it was started", async () => {
    const answered = client.ping();
    expect(await answered).toBeGreaterThan(0);
    const information = await client.info();
    expect(information.boot_id).toBe(
      readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    );
    expect(information.agent).toMatch(/^\d+\.\d+\.\d+/);
    expect((await client.memory()).total).toBeGreaterThan(0);
  });

  test("runs programs with input, output and their ending", async () => {
    let said = "";
    const running = client.exec(
      {
        ...{ ...sleep, argv: ["sh", "-c", "cat; echo err >&2; kill -HUP $$"] },
        ...{ input: Buffer.from("in\n"), outputLimit: 100, streams: "together" },
      },
      {
        onOutput: (_stream, bytes) => {
          said += String(Buffer.from(bytes));
        },
      },
    );
    expect(await running.ended).toMatchObject({ ending: { kind: "signalled", signal: 1 } });
    expect(said).toBe("in\nerr\n");
  });

  test("programs get no descriptor of the agent's, and signals as usual", async () => {
    let said = "";
    const script = "ls /proc/self/fd | wc -l; grep -E 'Sig(Ign|Blk)' /proc/self/status; ulimit -n";
    const running = client.exec(
      { ...sleep, argv: ["sh", "-c", script], outputLimit: 1_000 },
      {
        onOutput: (_stream, bytes) => {
          said += String(Buffer.from(bytes));
        },
      },
    );
    await running.ended;
    // Of ls: 0, 1, 2 and the folder that it reads.
    expect(said).toMatch(/^4\nSigBlk:\t0+\nSigIgn:\t0+\n\d+\n$/);
    expect(Number(said.trim().split("\n").at(-1))).toBeLessThanOrEqual(1024);
  });

  test("killed, it is asked anew once another is there", async () => {
    await client.ping();
    agent.kill("SIGKILL");
    await agent.ended();
    agent = startAgent();
    const error = await rejectionOf(client.ping());
    expect(error).toBeInstanceOf(AgentUnreachable);
    expect(await client.ping()).toBeGreaterThan(0);
  });

  test("ends with a signal, and takes along what runs", async () => {
    const { processId, running } = await begin();
    const ended = rejectionOf(running.ended);
    agent.kill("SIGTERM");
    expect(await agent.ended()).toMatchObject({ exitCode: 0 });
    await waitFor("the end of the program", () => !isAlive(processId));
    client.close();
    await ended;
  });

  test("an asker that is cut off takes along what it began, but for what outlives it", async () => {
    const { processId, running } = await begin();
    const other = await begin({ outlives: true });
    const ended = [rejectionOf(running.ended), rejectionOf(other.running.ended)];
    channel.cutHost();
    await Promise.all(ended);
    await waitFor("the end of the program", () => !isAlive(processId));
    expect(await client.ping()).toBeGreaterThan(0);
    expect(isAlive(other.processId)).toBe(true);
    process.kill(other.processId, "SIGKILL");
  });

  test("never shuts down the machine of whoever gave it a socket", async () => {
    expect(await rejectionOf(client.shutdown("reboot"))).toBeInstanceOf(AgentRefused);
  });
});

test.each([
  ["/no/such", "nothing there"],
  ["/etc/passwd", "a file of another kind"],
  ["/dev/ptmx", "a terminal"],
])("--port %s is refused, with the mend", async (port, received) => {
  const outcome = await runProgram([hostler(), "vm", "guest-agent", "--port", port]);
  expect(outcome.exitCode).toBe(111);
  expect(outcome.stderr).toContain(received);
});
