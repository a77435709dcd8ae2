/** The compiled agent under Holden's name, byte for byte, beside clients of our own protocol. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { signalProcess } from "../../ffi/pidfd.ts";
import { AgentClient, hostProcessIdOf, RawClient } from "../support/agent-client.ts";
import { hostler } from "../support/binary.ts";
import {
  goldenError,
  goldenHeader,
  goldenPing,
  goldenPong,
  goldenStart,
  goldenStarted,
} from "../support/holden-frames.ts";
import {
  type Agent,
  compilePrograms,
  isAlive,
  makePartition,
  type TestPartition,
} from "../support/partition.ts";
import { startProgram } from "../support/program.ts";
import { program, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

/** STARTED, then the byte with the pidfd. @returns the agent's number for it, and the pidfd */
async function readStarted(
  client: RawClient,
): Promise<{ processId: number; process: OwnedDescriptor }> {
  const bytes = await client.read(16);
  const processId = new DataView(bytes.buffer, bytes.byteOffset).getInt32(8, true);
  expect(new Uint8Array(bytes)).toEqual(goldenStarted(processId));
  expect(Array.from(await client.read(1))).toEqual(["x".charCodeAt(0)]);
  const process = client.descriptors.shift();
  if (process === undefined) throw new Error("No descriptor came with the byte");
  return { processId, process };
}

skipUnless("Holden v0.2", program("gcc", "gcc"), () => {
  let folder: TemporaryFolder;
  let partition: TestPartition;
  let agent: Agent;

  beforeAll(async () => {
    folder = temporaryFolder();
    partition = await makePartition(folder, compilePrograms(folder).reaper);
    agent = await partition.startAgent({ environment: { FOO: "bar", BUN_X: "1", HOLDEN_X: "1" } });
  });

  afterAll(async () => {
    await partition[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  test("START is answered by STARTED, then by a byte that carries the pidfd", async () => {
    using client = await RawClient.connect(agent.socket);
    await client.sendBytes(goldenStart(["/bin/sleep", "1000"]));
    const { processId, process } = await readStarted(client);
    const host = hostProcessIdOf(process);
    expect(isAlive(host)).toBe(true);
    expect(processId).not.toBe(host);
    expect(client.received).toHaveLength(0);
    await client.sendBytes(goldenPing());
    expect(await client.read(8)).toEqual(goldenPong());
    // The connection's end leaves the child alone, as all of Holden's children.
    client.socket.close();
    expect(signalProcess(process, 9)).toBe("sent");
    await waitFor("the agent to reap it", () => hostProcessIdOf(process) === -1);
    process.close();
  });

  test("a child has the agent's environment, less what is its own, and an invocation", async () => {
    using client = await RawClient.connect(agent.socket);
    const script = "tr '\\0' ' ' < /proc/self/environ > $0";
    const file = folder.file("environment");
    await client.sendBytes(goldenStart(["sh", "-c", script, file]));
    const { process } = await readStarted(client);
    await waitFor("its end", () => hostProcessIdOf(process) === -1);
    const text = await Bun.file(file).text();
    expect(text).toContain("FOO=bar");
    expect(text).toMatch(/INVOCATION_ID=[0-9a-f]{32}/);
    expect(text).not.toMatch(/BUN_|HOLDEN_|HOSTLER_/);
    process.close();
  });

  test("what cannot be started is an ERROR, and never STARTED", async () => {
    using client = await RawClient.connect(agent.socket);
    await client.sendBytes(goldenStart(["/no/such/program", "x"]));
    const message = "Cannot start /no/such/program: No such file or directory";
    expect(await client.read(520)).toEqual(goldenError(message));
    await client.sendBytes(goldenPing());
    expect(await client.read(8)).toEqual(goldenPong());
  });

  test("the messages of v0.1 get the ERROR that v0.2 gives, and the connection stays", async () => {
    using client = await RawClient.connect(agent.socket);
    const lengths = [
      [4, 4],
      [5, 0],
      [5, 16_900],
      [7, 4],
      [9, 24],
      [42, 0],
    ] as const;
    for (const [type, length] of lengths) {
      await client.sendBytes(
        new Uint8Array(Buffer.concat([goldenHeader(type, length), Buffer.alloc(length)])),
      );
      expect(await client.read(520)).toEqual(goldenError(`Unknown message type: ${type}`));
    }
    await client.sendBytes(goldenHeader(0xffff_fffe, 0));
    expect(await client.read(520)).toEqual(goldenError("Unknown message type: -2"));
  });

  const start = goldenStart(["/bin/true", "x"]);
  const changed = (change: (bytes: Uint8Array, view: DataView) => void) => () => {
    const bytes = start.slice();
    change(bytes, new DataView(bytes.buffer));
    return bytes;
  };
  const lies: readonly [string, () => Uint8Array][] = [
    ["too long a body", () => goldenHeader(1, 16_901)],
    ["a body of 4 GiB", () => goldenHeader(11, 0xffff_ffff)],
    ["33 arguments", changed((_bytes, view) => view.setInt32(8 + 8448, 33, true))],
    ["-1 arguments", changed((_bytes, view) => view.setInt32(8 + 8448, -1, true))],
    ["a name without an end", changed((bytes) => bytes.fill(0x78, 8, 8 + 256))],
    ["an argument without an end", changed((bytes) => bytes.fill(0x78, 264, 264 + 256))],
  ];
  for (const [name, make] of lies) {
    test(`${name} is an ERROR, and the connection's end`, async () => {
      using client = await RawClient.connect(agent.socket);
      await client.sendBytes(make());
      const answer = await client.read(520);
      expect(Array.from(answer.subarray(0, 8))).toEqual(Array.from(goldenHeader(3, 512)));
      expect(new TextDecoder().decode(answer.subarray(8, 17))).toBe("Expected ");
      await client.closed();
    });
  }

  test("idle and slow clients of both protocols delay none, in any order", async () => {
    using silent = await RawClient.connect(agent.socket);
    using half = await RawClient.connect(agent.socket);
    half.trySend(start.subarray(0, 4_000));
    using ours = await AgentClient.connect(agent.socket);
    using theirs = await RawClient.connect(agent.socket);
    for (let count = 0; count < 20; count++) {
      await theirs.sendBytes(goldenStart(["/bin/sleep", "1000"]));
      const child = await ours.start({ argv: ["/bin/sleep", "1000"] });
      const { process } = await readStarted(theirs);
      signalProcess(process, 9);
      child.signal(9);
      await child.told();
      await waitFor("its end", () => hostProcessIdOf(process) === -1);
      process.close();
      child.process.close();
    }
    half.trySend(start.subarray(4_000));
    const { process } = await readStarted(half);
    process.close();
    expect(ours.unread).toEqual([]);
    expect(silent.ended).toBe(false);
  });
});

describe("called as holden-agent", () => {
  test("it listens where HOLDEN_SOCKET_PATH says", async () => {
    using folder = temporaryFolder();
    const name = folder.file("holden-agent");
    symlinkSync(hostler(), name);
    const path = folder.file("holden.sock");
    await using agent = startProgram([name], { environment: { HOLDEN_SOCKET_PATH: path } });
    await agent.said(/holden-agent.*listening at/);
    using client = await RawClient.connect(path);
    await client.sendBytes(goldenPing());
    expect(await client.read(8)).toEqual(goldenPong());
  });
});
