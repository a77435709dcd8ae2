/** The compiled agent, told before an end what follows it: made, taken back, or never made. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { encodeFrame } from "../../src/messaging/frame.ts";
import { findInvocation, livingGroupMembers } from "../../src/process/perform/process-table.ts";
import type { AgentReply } from "../../src/process/protocol.ts";
import { AgentClient, newInvocation, TestChild } from "../support/agent-client.ts";
import {
  type Agent,
  compilePrograms,
  isAlive,
  makePartition,
  type TestPartition,
} from "../support/partition.ts";
import { program, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

const sleeper = ["/bin/sleep", "1000"];

/** A start that is prepared for an instance that runs, and may be armed for its end. */
class Next {
  static #ids = 1_000_000;
  readonly invocation = newInvocation();
  readonly client: AgentClient;
  readonly #replaces: string;

  constructor(client: AgentClient, replaces: string) {
    this.client = client;
    this.#replaces = replaces;
  }

  async prepare(argv: readonly string[] = sleeper): Promise<void> {
    const { invocation } = this;
    const environment = [`INVOCATION_ID=${invocation}`];
    const fields = { kind: "prepare", invocation, argv, environment };
    const all = { ...fields, leftovers: "kill", descriptors: [] };
    expect((await this.client.request(all)).reply.kind).toBe("prepared");
  }

  async #send(fields: Readonly<Record<string, unknown>>): Promise<number> {
    const id = Next.#ids++;
    await this.client.sendBytes(encodeFrame({ ...fields, id, invocation: this.invocation }));
    return id;
  }

  /** Arms it; the number that the answer will carry. */
  async arm(): Promise<number> {
    return await this.#send({ kind: "arm", replaces: this.#replaces });
  }

  async disarm(): Promise<void> {
    await this.#send({ kind: "disarm" });
  }

  async go(): Promise<number> {
    return await this.#send({ kind: "go", replaces: this.#replaces });
  }

  /** What was started for this number; it has been looked at. */
  async started(id: number): Promise<TestChild> {
    const isAnswer = (reply: AgentReply) => "id" in reply && reply.id === id;
    const received = await this.client.next("the answer to an armed start", isAnswer);
    const child = new TestChild(this.client, this.invocation, received);
    await this.#send({ kind: "seen" });
    return child;
  }

  async refusal(id: number): Promise<string> {
    const isAnswer = (reply: AgentReply) => "id" in reply && reply.id === id;
    const { reply } = await this.client.next("the refusal of an armed start", isAnswer);
    return reply.kind === "error" ? reply.error.kind : reply.kind;
  }

  /** Living processes of this start. */
  get living(): number {
    return findInvocation(this.invocation).found.length;
  }
}

skipUnless("an armed start", program("gcc", "gcc"), () => {
  let folder: TemporaryFolder;
  let partition: TestPartition;
  let agent: Agent;

  beforeAll(async () => {
    folder = temporaryFolder();
    partition = await makePartition(folder, compilePrograms(folder).reaper);
    agent = await partition.startAgent();
  });

  afterAll(async () => {
    await partition[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const connect = () => AgentClient.connect(agent.socket);

  /** An instance that runs, and the start that is prepared for its end. */
  async function runs(client: AgentClient, argv?: readonly string[]) {
    const child = await client.start({ argv: sleeper });
    const next = new Next(client, child.invocation);
    await next.prepare(argv);
    return { child, next };
  }

  /** What the agent does at an end is done when it answers after having told it. */
  async function ends(client: AgentClient, child: TestChild): Promise<void> {
    child.signal(9);
    await child.told();
    await client.ping();
  }

  test("is made at the death, and answered with its pidfd", async () => {
    using client = await connect();
    const { child, next } = await runs(client);
    const id = await next.arm();
    await client.ping();
    expect([next.living, client.unread]).toEqual([0, []]);
    child.signal(9);
    const second = await next.started(id);
    expect(isAlive(second.hostProcessId)).toBe(true);
    expect(await child.told()).toEqual({ kind: "signalled", signal: 9, core_dumped: false });
    expect(next.living).toBe(1);
    await ends(client, second);
    expect(client.unread).toEqual([]);
  });

  test("comes after the end of all that the instance left behind", async () => {
    using client = await connect();
    const lock = folder.file("lock");
    const result = folder.file("result");
    const script = `exec 9>${lock}; /usr/bin/flock 9; sleep 1000 & sleep 1000 & exec sleep 1000`;
    const child = await client.start({ argv: ["/bin/sh", "-c", script] });
    const group = await waitFor("three of a group", () => {
      const members = livingGroupMembers(child.hostProcessId);
      return members.length === 3 && members;
    });
    const next = new Next(client, child.invocation);
    const take = `exec 9>${lock}; /usr/bin/flock -n 9`;
    const look = `${take} && echo alone >${result} || echo two >${result}`;
    await next.prepare(["/bin/sh", "-c", look]);
    const id = await next.arm();
    child.signal(9);
    const second = await next.started(id);
    expect(group.filter(isAlive)).toEqual([]);
    expect(await second.told()).toEqual({ kind: "exited", status: 0 });
    expect(readFileSync(result, "utf8")).toBe("alone\n");
  });

  test("that is taken back is answered so, and the death starts nothing", async () => {
    using client = await connect();
    const { child, next } = await runs(client);
    const id = await next.arm();
    await next.disarm();
    expect(await next.refusal(id)).toBe("disarmed");
    await ends(client, child);
    expect([next.living, client.unread]).toEqual([0, []]);
    // It is prepared still.
    const second = await next.started(await next.go());
    await ends(client, second);
  });

  test("can be armed once more after that, and is made once", async () => {
    using client = await connect();
    const { child, next } = await runs(client);
    for (let count = 0; count < 20; count++) {
      const id = await next.arm();
      await next.disarm();
      expect(await next.refusal(id)).toBe("disarmed");
    }
    const id = await next.arm();
    child.signal(9);
    const second = await next.started(id);
    await child.told();
    await ends(client, second);
    expect(client.unread).toEqual([]);
  });

  test("that is taken back when it is made: it was started, and nothing else is said", async () => {
    using client = await connect();
    const { child, next } = await runs(client);
    const id = await next.arm();
    child.signal(9);
    await waitFor("the next one", () => next.living === 1);
    await next.disarm();
    const second = await next.started(id);
    await child.told();
    await client.ping();
    expect(client.unread).toEqual([]);
    await ends(client, second);
  });

  test("that is not prepared is refused", async () => {
    using client = await connect();
    const child = await client.start({ argv: sleeper });
    const next = new Next(client, child.invocation);
    expect(await next.refusal(await next.arm())).toBe("not-prepared");
    await next.disarm();
    await ends(client, child);
    expect(client.unread).toEqual([]);
  });

  test("that is armed already is refused, and made once", async () => {
    using client = await connect();
    const { child, next } = await runs(client);
    const id = await next.arm();
    expect(await next.refusal(await next.arm())).toBe("double");
    child.signal(9);
    const second = await next.started(id);
    await child.told();
    expect(next.living).toBe(1);
    await ends(client, second);
    expect(client.unread).toEqual([]);
  });

  test("whose connection has ended is never made", async () => {
    using client = await connect();
    using other = await connect();
    const { child, next } = await runs(client);
    await next.arm();
    await client.ping();
    client.socket.close();
    child.signal(9);
    await child.reaped();
    await other.ping();
    expect(next.living).toBe(0);
  });

  test("whose connection has ended after the death, but before the agent saw that", async () => {
    using client = await connect();
    using other = await connect();
    const { child, next } = await runs(client);
    await next.arm();
    await client.ping();
    suspend(agent.processId);
    try {
      child.signal(9);
      await waitFor("its death", () => !isAlive(child.hostProcessId));
      client.socket.close();
    } finally {
      process.kill(agent.processId, "SIGCONT");
    }
    await child.reaped();
    await other.ping();
    expect(next.living).toBe(0);
  });

  test("whose instance is dead already is made at once", async () => {
    using client = await connect();
    const { child, next } = await runs(client);
    await ends(client, child);
    const second = await next.started(await next.arm());
    await ends(client, second);
  });

  test("of a program that is gone by then is refused as any start", async () => {
    using client = await connect();
    const { child, next } = await runs(client, [folder.file("absent")]);
    const id = await next.arm();
    child.signal(9);
    expect(await next.refusal(id)).toBe("start");
    await child.told();
    await client.ping();
    expect(client.unread).toEqual([]);
  });
});
