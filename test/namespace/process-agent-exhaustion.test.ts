/** The compiled agent without descriptors, under floods, and after many starts. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { encodeFrame } from "../../src/messaging/frame.ts";
import { limits } from "../../src/process/protocol.ts";
import { AgentClient, clientHello, newInvocation, RawClient } from "../support/agent-client.ts";
import { goldenPing } from "../support/holden-frames.ts";
import { anonymousMemoryOf, descriptorsOf } from "../support/malformed.ts";
import { isAlive, startAgent } from "../support/partition.ts";
import { program, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const MEMORY_BOUND = 160 * 1024;
const times = (count: number, bytes: Uint8Array) =>
  new Uint8Array(Buffer.concat(Array<Uint8Array>(count).fill(bytes)));

skipUnless("without a descriptor left", program("prlimit", "util-linux"), () => {
  test("a start is refused with EMFILE, nobody is let down, and later all is well", async () => {
    using folder = temporaryFolder();
    await using agent = await startAgent(folder, { before: ["prlimit", "--nofile=64:64"] });
    using client = await AgentClient.connect(agent.socket);
    const others: RawClient[] = [];
    while (descriptorsOf(agent.processId) < 64) {
      others.push(await RawClient.connect(agent.socket));
    }
    await agent.program.said(/cannot take a connection: .*Too many open files/);
    for (const constraints of [undefined, { no_new_privileges: true }]) {
      const refusal = await client.refusal({ argv: ["/bin/sleep", "1000"], constraints });
      expect(refusal.code).toBe("EMFILE");
    }
    const prepare = { kind: "prepare", invocation: newInvocation(), argv: ["/bin/true"] };
    const fields = { environment: [], descriptors: [], leftovers: "kill" };
    const prepared = await client.request({ ...prepare, ...fields });
    // It may need no descriptor; what it must not do is end the agent.
    expect(["prepared", "error"]).toContain(prepared.reply.kind);
    const socket = await client.request({ kind: "socket", family: "ipv4" });
    expect(socket.reply).toMatchObject({ kind: "error", error: { code: "EMFILE" } });
    for (const other of others) other[Symbol.dispose]();
    using late = await AgentClient.connect(agent.socket);
    const child = await late.start({ argv: ["/bin/true"] });
    expect(await child.told()).toEqual({ kind: "exited", status: 0 });
    expect(isAlive(agent.processId)).toBe(true);
  });
});

test("starts are prepared up to a limit, made in any order, and forgotten", async () => {
  using folder = temporaryFolder();
  await using agent = await startAgent(folder);
  using client = await AgentClient.connect(agent.socket);
  const before = descriptorsOf(agent.processId);
  const prepare = async (invocation: string, argv: readonly string[]) => {
    const fields = { environment: [], descriptors: [], leftovers: "kill" };
    return (await client.request({ kind: "prepare", invocation, argv, ...fields })).reply;
  };
  const large = ["/bin/true", "x".repeat(limits.preparedBytes)];
  expect(await prepare(newInvocation(), large)).toMatchObject({ error: { kind: "limit" } });
  const invocations = Array.from({ length: limits.preparedStarts }, newInvocation);
  const all = invocations.map((invocation) => prepare(invocation, ["/bin/true"]));
  for (const reply of await Promise.all(all)) expect(reply.kind).toBe("prepared");
  expect((await prepare(newInvocation(), ["/bin/true"])).kind).toBe("error");
  const go = { kind: "go", invocation: invocations[7] };
  const { reply, descriptors } = await client.request(go);
  expect(reply.kind).toBe("started");
  for (const descriptor of descriptors) descriptor.close();
  // Made once, it is prepared no more.
  expect((await client.request(go)).reply.kind).toBe("error");
  const absent = await client.request({ kind: "go", invocation: newInvocation() });
  expect(absent.reply).toMatchObject({ error: { kind: "not-prepared" } });
  client.socket.close();
  await waitFor("all to be forgotten", () => descriptorsOf(agent.processId) < before);
});

const floods: readonly [string, readonly Uint8Array[]][] = [
  ["our pings", [encodeFrame(clientHello), times(50_000, encodeFrame({ kind: "ping", id: 1 }))]],
  ["Holden's pings", [times(400_000, goldenPing())]],
  ["wrong requests", [encodeFrame(clientHello), times(50_000, encodeFrame({ kind: "dance" }))]],
];

for (const [name, pieces] of floods) {
  test(`a flood of ${name}, whose answers nobody reads, ends and delays no other`, async () => {
    using folder = temporaryFolder();
    await using agent = await startAgent(folder);
    using quick = await AgentClient.connect(agent.socket);
    const memory = anonymousMemoryOf(agent.processId);
    using client = await RawClient.connect(agent.socket);
    let sent = 0;
    const bytes = new Uint8Array(Buffer.concat([...pieces]));
    let highest = 0;
    await waitFor(
      "the agent to let it go",
      async () => {
        for (let count = 0; count < 8; count++) {
          const more = client.trySend(bytes.subarray(sent));
          if (more < 0) return true;
          sent = Math.min(more + sent, bytes.length);
          if (sent === bytes.length) sent = pieces.length > 1 ? (pieces[0]?.length ?? 0) : 0;
        }
        await quick.ping(5_000);
        highest = Math.max(highest, anonymousMemoryOf(agent.processId));
        return false;
      },
      60_000,
    );
    await agent.program.said(new RegExp(`more than ${limits.queuedBytes} bytes wait for it`));
    expect(highest - memory).toBeLessThan(MEMORY_BOUND);
    await quick.ping();
  });
}

test("two thousand starts leave neither a descriptor nor memory behind", async () => {
  using folder = temporaryFolder();
  await using agent = await startAgent(folder);
  using client = await AgentClient.connect(agent.socket);
  const startSome = async (count: number) => {
    for (let done = 0; done < count; done += 50) {
      const some = Array.from({ length: 50 }, () => client.start({ argv: ["/bin/true"] }));
      for (const child of await Promise.all(some)) {
        expect(await child.told()).toEqual({ kind: "exited", status: 0 });
        child.process.close();
      }
    }
  };
  await startSome(200);
  const descriptors = descriptorsOf(agent.processId);
  const memory = anonymousMemoryOf(agent.processId);
  await startSome(2_000);
  await waitFor("no more descriptors", () => descriptorsOf(agent.processId) <= descriptors);
  expect(anonymousMemoryOf(agent.processId) - memory).toBeLessThan(MEMORY_BOUND / 2);
});
