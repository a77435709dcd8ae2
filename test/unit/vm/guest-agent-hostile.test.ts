/** Guests that lie, flood, or say nothing lose the connection, and the worker loses nothing. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import {
  AgentRefused,
  AgentUnreachable,
  GuestAgentClient,
  GuestBrokeRules,
  type GuestCommand,
} from "../../../src/vm/guest-agent/client.ts";
import { limits } from "../../../src/vm/guest-agent/protocol.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { hostileGuest } from "../../support/guest-channel.ts";
import { rejectionOf, waitFor } from "../../support/wait-for.ts";

type Say = (bytes: string | Uint8Array) => boolean;
interface Heard {
  readonly verb: string;
  readonly session: string;
  readonly id: number;
}

let loop: EventLoop;
beforeEach(() => {
  loop = testEventLoop();
});
afterEach(() => loop[Symbol.dispose]());

const message = (body: unknown) => `\u001e${JSON.stringify(body)}\n`;
const hello = (session: string, version = 1) =>
  message({ kind: "hello", session, version, agent: "0.1.0" });
const other = "0".repeat(32);

/** Says hello as it should, and to anything else what the test wants. */
async function guest(onRequest: (heard: Heard, say: Say) => void) {
  return await hostileGuest((text, say) => {
    for (const part of text.split("\u001e").filter((piece) => piece.startsWith("{"))) {
      const heard = JSON.parse(part) as Heard;
      if (heard.verb === "hello") say(hello(heard.session));
      else onRequest(heard, say);
    }
  });
}

/** Where silence is the matter; what comes is waited for as ever. */
const times = { hello: 300, helloAgain: 50, answer: 300, programGrace: 300 };
const clientOf = (path: string, within: Partial<typeof times> = times) =>
  new GuestAgentClient(loop, { path }, within);

describe("a guest that says", () => {
  const lies: readonly (readonly [string, (heard: Heard) => string, RegExp])[] = [
    ["what is no answer", () => message({ kind: "dance" }), /received another message/],
    ["no object at all", () => message(7), /received another message/],
    [
      "the answer to another request",
      ({ session }) => message({ kind: "done", session, id: 99 }),
      /received one to 99/,
    ],
    [
      "an answer of another kind",
      ({ session, id }) => message({ kind: "output", session, id, stream: "stdout", data: "AAAA" }),
      /expected "done", received "output"/,
    ],
    [
      "more than the fields of the wire",
      ({ session, id }) => message({ kind: "done", session, id, more: 1 }),
      /received another message/,
    ],
    ["a longer message than the limit", () => `\u001e${"x".repeat(2 ** 21)}`, /no answer/],
    ["garbage without end", () => "y".repeat(limits.strayBytes + 1), /no answer, received more/],
    [
      "much for an earlier asker",
      () => message({ kind: "done", session: other, id: 1 }).repeat(20_000),
      /no answer, received more/,
    ],
    [
      "a number that no computer has",
      ({ session, id }) => message({ kind: "done", session, id: id + 0.5 }),
      /received another message/,
    ],
  ];

  test.each(lies)("%s is refused and its connection ends", async (_name, lie, why) => {
    await using lying = await guest((heard, say) => say(lie(heard)));
    using client = clientOf(lying.path, {});
    const error = await rejectionOf(client.ping());
    expect(error).toBeInstanceOf(GuestBrokeRules);
    expect(error.message).toMatch(why);
    await waitFor("the end of the connection", () => lying.closes === 1);
    expect(client.isConnected).toBe(false);
  });

  test("a kernel's name of a megabyte, or a boot id that is none, is refused", async () => {
    const information = {
      ...{ kernel: "x", boot_id: "7a0c1ad5-2c1f-4e9c-8b53-08ad27d5e2a9", agent: "1" },
      ...{ host_name: "h", architecture: "x64" },
    };
    for (const wrong of [{ kernel: "x".repeat(300) }, { boot_id: "none" }]) {
      await using lying = await guest(({ session, id }, say) =>
        say(message({ kind: "info", session, id, information: { ...information, ...wrong } })),
      );
      using client = clientOf(lying.path, {});
      expect(await rejectionOf(client.info())).toBeInstanceOf(GuestBrokeRules);
    }
  });

  test("nothing is unreachable, after the time of the hello and not later", async () => {
    let hellos = 0;
    await using silent = await hostileGuest((text) => {
      hellos += text.split("hello").length - 1;
    });
    using client = clientOf(silent.path);
    const begin = performance.now();
    const error = await rejectionOf(client.ping());
    expect(error).toBeInstanceOf(AgentUnreachable);
    expect(error.message).toContain("did not answer within 300 ms");
    expect(performance.now() - begin).toBeGreaterThan(290);
    // An agent that was started meanwhile may have lost the first.
    expect(hellos).toBeGreaterThan(1);
  });

  test("no answer is unreachable, and its late answer harms no other", async () => {
    let late: (() => void) | undefined;
    await using slow = await guest(({ session, id }, say) => {
      const answer = message({ kind: "done", session, id });
      if (late === undefined) late = () => say(answer);
      else {
        late();
        say(answer);
      }
    });
    using client = clientOf(slow.path);
    expect(await rejectionOf(client.ping())).toBeInstanceOf(AgentUnreachable);
    expect(await client.ping()).toBeGreaterThan(0);
  });

  test("another version is told so", async () => {
    await using old = await hostileGuest((text, say) => {
      const [, session = ""] = /"session":"(\w+)"/.exec(text) ?? [];
      say(hello(session, 2));
    });
    using client = clientOf(old.path);
    const error = await rejectionOf(client.ping());
    expect(error).toBeInstanceOf(AgentRefused);
    expect(error.message).toContain("speaks version 2");
  });

  test("what was for an earlier asker, and half of it, is skipped", async () => {
    await using stale = await hostileGuest((text, say) => {
      const [, session = ""] = /"session":"(\w+)"/.exec(text) ?? [];
      const [, id = "0"] = /"id":(\d+)/.exec(text) ?? [];
      say('tail of output"}\n');
      say(message({ kind: "done", session: other, id: 1 }));
      say('\u001e{"kind":"outp');
      const isHello = text.includes('"hello"');
      say(isHello ? hello(session) : message({ kind: "done", session, id: Number(id) }));
    });
    using client = clientOf(stale.path);
    expect(await client.ping()).toBeGreaterThan(0);
    expect(await client.ping()).toBeGreaterThan(0);
  });
});

describe("a guest whose programs", () => {
  const command: GuestCommand = {
    ...{ argv: ["x"], timeLimit: 300, outputLimit: 10, streams: "apart", outlives: false },
  };
  const started = ({ session, id }: Heard) =>
    message({ kind: "started", session, id, process_id: 7 });
  const output = ({ session, id }: Heard, data: string) =>
    message({ kind: "output", session, id, stream: "stdout", data });
  const ending = { kind: "exited", status: 0 };
  const ended = ({ session, id }: Heard) =>
    message({ kind: "ended", session, id, ending, left_out: 0 });

  const lies: readonly (readonly [string, (heard: Heard) => string, RegExp])[] = [
    [
      "say more than was asked for",
      (heard) => started(heard) + output(heard, "AAAAAAAAAAAAAAAA"),
      /more/,
    ],
    ["say nothing, for ever", (heard) => started(heard) + output(heard, ""), /received none/],
    ["speak before they begin", (heard) => output(heard, "AAAA"), /a start before output/],
    ["end before they begin", ended, /a start before an end/],
    ["begin twice", (heard) => started(heard) + started(heard), /received another/],
    ["answer with memory", ({ session, id }) => message({ kind: "done", session, id }), /"done"/],
    ["say no base64", (heard) => started(heard) + output(heard, "$$$$"), /another message/],
    [
      "say a longer piece than the limit",
      (heard) => started(heard) + output(heard, "AAAA".repeat(limits.outputPieceBytes / 3 + 1)),
      /another message/,
    ],
  ];

  test.each(lies)("%s is refused", async (_name, lie, why) => {
    await using lying = await guest((heard, say) => say(lie(heard)));
    using client = clientOf(lying.path, {});
    const running = client.exec(command, { onOutput: () => {} });
    const error = await rejectionOf(running.ended);
    expect(error).toBeInstanceOf(GuestBrokeRules);
    expect(error.message).toMatch(why);
  });

  test("never end are given up after their time, and the guest is told", async () => {
    const verbs: string[] = [];
    await using hanging = await guest((heard, say) => {
      verbs.push(heard.verb);
      if (heard.verb === "exec") say(started(heard));
    });
    using client = clientOf(hanging.path);
    const error = await rejectionOf(client.exec(command, { onOutput: () => {} }).ended);
    expect(error).toBeInstanceOf(AgentUnreachable);
    await waitFor("the end to be told", () => verbs.includes("end"));
  });

  test("end well are told well", async () => {
    await using fine = await guest((heard, say) =>
      say(started(heard) + output(heard, "AAAA") + ended(heard)),
    );
    using client = clientOf(fine.path);
    const running = client.exec(command, { onOutput: () => {} });
    expect(await running.ended).toMatchObject({ ending, leftOut: 0 });
  });
});

test("a path that nobody listens at, or that is none, is unreachable", async () => {
  for (const path of ["/no/such/socket", `/${"x".repeat(200)}`]) {
    expect(await rejectionOf(clientOf(path).ping())).toBeInstanceOf(AgentUnreachable);
  }
});

test("a vsock of a VMM is told the port first, and its answer is skipped", async () => {
  let first = "";
  await using vmm = await hostileGuest((text, say) => {
    if (first === "") first = text;
    const [, session = ""] = /"session":"(\w+)"/.exec(text) ?? [];
    const [, id] = /"id":(\d+)/.exec(text) ?? [];
    if (id === undefined) say(`OK 1073741824\n${hello(session)}`);
    else say(message({ kind: "done", session, id: Number(id) }));
  });
  using client = new GuestAgentClient(loop, { path: vmm.path, vsockPort: 26_735 }, times);
  expect(await client.ping()).toBeGreaterThan(0);
  expect(first).toStartWith("CONNECT 26735\n");
});
