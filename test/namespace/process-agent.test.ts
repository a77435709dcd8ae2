/** The compiled agent in a partition: starts, endings, sockets, and how each can be refused. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { makePipe } from "../../ffi/descriptor.ts";
import { NativeMemory } from "../../ffi/memory.ts";
import { connectTcp, receiveMessage } from "../../ffi/unix-socket.ts";
import { encodeFrame } from "../../src/messaging/frame.ts";
import { livingGroupMembers, statusOf } from "../../src/process/perform/process-table.ts";
import { limits } from "../../src/process/protocol.ts";
import {
  AgentClient,
  hostProcessIdOf,
  isAtEnd,
  newInvocation,
  RawClient,
} from "../support/agent-client.ts";
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
import { rejectionOf, waitFor } from "../support/wait-for.ts";

skipUnless("the agent", program("gcc", "gcc"), () => {
  let folder: TemporaryFolder;
  let programs: ReturnType<typeof compilePrograms>;
  let partition: TestPartition;
  let agent: Agent;

  beforeAll(async () => {
    folder = temporaryFolder();
    programs = compilePrograms(folder);
    partition = await makePartition(folder, programs.reaper);
    agent = await partition.startAgent();
  });

  afterAll(async () => {
    await partition[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const connect = () => AgentClient.connect(agent.socket);

  describe("a start", () => {
    test("gives a pidfd that signals; the end is told by the kernel and by the agent", async () => {
      using client = await connect();
      const child = await client.start({ argv: ["/bin/sleep", "1000"] });
      expect(child.processId).not.toBe(child.hostProcessId);
      expect(isAlive(child.hostProcessId)).toBe(true);
      expect(child.signal(15)).toBe(true);
      expect(await child.told()).toEqual({ kind: "signalled", signal: 15, core_dumped: false });
      expect(await child.reaped()).not.toBe("gone");
      const second = await client.start({ argv: ["/bin/sh", "-c", "exit 7"] });
      expect(await second.told()).toEqual({ kind: "exited", status: 7 });
    });

    test("leaves a dead child unreaped until it was seen, or its asker is gone", async () => {
      using client = await connect();
      const { descriptors } = await client.requestStart({ argv: ["/bin/true"] });
      const [process] = descriptors;
      if (process === undefined) throw new Error("no pidfd");
      const number = () => hostProcessIdOf(process);
      const dead = await waitFor("a zombie", () => {
        const found = statusOf(number());
        return found?.state === "Z" && found;
      });
      await client.ping();
      expect(number()).toBe(dead.processId);
      client.socket.close();
      await waitFor("it to be reaped", () => number() === -1);
      process.close();
    });

    test("of an invocation that is there is refused, also through the launcher", async () => {
      using client = await connect();
      const argv = ["/bin/sleep", "1000"];
      const invocation = newInvocation();
      const first = await client.start({ argv, invocation });
      expect((await client.refusal({ argv, invocation })).kind).toBe("double");
      const twice = { argv, invocation: newInvocation(), constraints: { no_new_privileges: true } };
      const both = await Promise.all([client.requestStart(twice), client.requestStart(twice)]);
      const kinds = both.map(({ reply }) => reply.kind).toSorted();
      expect(kinds).toEqual(["error", "started"]);
      for (const { descriptors } of both) for (const descriptor of descriptors) descriptor.close();
      const replaces = twice.invocation;
      expect((await client.refusal({ argv, replaces })).kind).toBe("alive");
      first.signal(9);
    });

    test("waits until what it replaces is gone with all its rest", async () => {
      using client = await connect();
      const script = "sleep 1000 & sleep 1000 & exec sleep 1000";
      const first = await client.start({ argv: ["/bin/sh", "-c", script] });
      const group = await waitFor("three of a group", () => {
        const members = livingGroupMembers(first.hostProcessId);
        return members.length === 3 && members;
      });
      first.signal(9);
      await first.told();
      const argv = ["/bin/sleep", "1000"];
      const second = await client.start({ argv, replaces: first.invocation });
      expect(group.filter(isAlive)).toEqual([]);
      second.signal(9);
      await second.told();
    });

    test("may let its rest stay", async () => {
      using client = await connect();
      const argv = ["/bin/sh", "-c", "sleep 1000 & echo end; exec sleep 1001"];
      const { child } = await client.output({ argv, leftovers: "keep" });
      const group = child.hostProcessId;
      child.signal(9);
      await child.told();
      const rest = livingGroupMembers(group);
      expect(rest).toHaveLength(1);
      for (const processId of rest) process.kill(processId, "SIGKILL");
    });

    test("is told how it ended on the connection that asked, and on no other", async () => {
      using client = await connect();
      using other = await connect();
      const child = await client.start({ argv: ["/bin/sleep", "1000"] });
      child.signal(9);
      await child.told();
      await other.ping();
      expect(other.unread).toEqual([]);
    });
  });

  describe("an exec that fails is an error with its number, never a child", () => {
    const failures: readonly [string, (file: (name: string) => string) => string[], string][] = [
      ["no such file", (file) => [file("absent")], "ENOENT"],
      ["no such name in PATH", () => ["no-such-program"], "ENOENT"],
      ["a file that is not executable", (file) => [file("plain")], "EACCES"],
      ["a folder", (file) => [file("folder")], "EACCES"],
      ["no program at all", (file) => [file("text")], "ENOEXEC"],
      ["a file as a folder", (file) => [file("plain/x")], "ENOTDIR"],
      ["links in a circle", (file) => [file("circle")], "ELOOP"],
      ["an interpreter that is missing", (file) => [file("script")], "ENOENT"],
      ["an argument that is too long", () => ["/bin/true", "x".repeat(131_072)], "E2BIG"],
      ["a name that is too long", () => [`/${"x".repeat(300)}`], "ENAMETOOLONG"],
    ];

    beforeAll(() => {
      writeFileSync(folder.file("plain"), "x", { mode: 0o644 });
      writeFileSync(folder.file("text"), "x", { mode: 0o755 });
      writeFileSync(folder.file("script"), "#!/no/such/interpreter\n", { mode: 0o755 });
      chmodSync(folder.file("text"), 0o755);
      mkdirSync(folder.file("folder"));
      symlinkSync("circle", folder.file("circle"));
    });

    for (const [name, argv, code] of failures) {
      test(name, async () => {
        using client = await connect();
        const plain = await client.refusal({ argv: argv(folder.file) });
        expect(plain.code).toBe(code);
        const constraints = { no_new_privileges: true };
        const launched = await client.refusal({ argv: argv(folder.file), constraints });
        expect(launched.code).toBe(code);
        // A notice of an end would have come before the answer to this.
        await client.ping();
        expect(client.unread).toEqual([]);
      });
    }

    test("a working directory that is not there", async () => {
      using client = await connect();
      const fields = { argv: ["/bin/true"], working_directory: folder.file("absent") };
      expect((await client.refusal(fields)).code).toBe("ENOENT");
    });
  });

  describe("a socket", () => {
    test("for a Unix path is connected by the path of the partition", async () => {
      const path = folder.file("service.sock");
      await using service = startProgram([
        ...partition.enter,
        "perl",
        "-MIO::Socket::UNIX",
        "-e",
        'mkdir "/mnt/x"; system("mount", "-t", "tmpfs", "none", "/mnt") == 0 or die; ' +
          'my $s = IO::Socket::UNIX->new(Local => "/mnt/s", Listen => 5) or die; ' +
          '$| = 1; print "ready\\n"; while (my $c = $s->accept) { print $c "hello\\n"; }',
      ]);
      await service.said(/ready/);
      using client = await connect();
      const { reply, descriptors } = await client.request({
        kind: "socket",
        family: "unix",
        path: "/mnt/s",
      });
      expect(reply).toMatchObject({ kind: "socket", connected: true });
      const [socket] = descriptors;
      if (socket === undefined) throw new Error("no socket");
      using connected = new RawClient(socket);
      expect(new TextDecoder().decode(await connected.read(6))).toBe("hello\n");
      const absent = await client.request({ kind: "socket", family: "unix", path });
      expect(absent.reply).toMatchObject({ kind: "error", error: { code: "ENOENT" } });
      const long = { kind: "socket", family: "unix", path: `/${"x".repeat(200)}` };
      expect((await client.request(long)).reply).toMatchObject({ error: { kind: "request" } });
    });

    test("for TCP is in the network of the partition", async () => {
      await using service = startProgram([
        ...partition.enter,
        "perl",
        "-MIO::Socket::INET",
        "-e",
        'my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 5) or die; ' +
          '$| = 1; print "port ", $s->sockport, "\\n"; ' +
          'while (my $c = $s->accept) { print $c "hello\\n"; }',
      ]);
      const port = Number((await service.said(/port (\d+)/))[1]);
      using client = await connect();
      const { descriptors } = await client.request({ kind: "socket", family: "ipv4" });
      const [socket] = descriptors;
      if (socket === undefined) throw new Error("no socket");
      using connected = new RawClient(socket);
      const address = new Uint8Array([127, 0, 0, 1]);
      connectTcp(socket, { family: "ipv4", address, port });
      expect(new TextDecoder().decode(await connected.read(6))).toBe("hello\n");
      const six = await client.request({ kind: "socket", family: "ipv6" });
      expect(six.descriptors).toHaveLength(1);
      six.descriptors[0]?.close();
    });

    test("for notices has an abstract name in the partition and tells who wrote", async () => {
      using client = await connect();
      const name = `@hostler-test-${newInvocation()}`;
      const { reply, descriptors } = await client.request({ kind: "notify", name });
      expect(reply.kind).toBe("notify");
      const [socket] = descriptors;
      if (socket === undefined) throw new Error("no socket");
      const script =
        "use Socket; socket(S, PF_UNIX, SOCK_DGRAM, 0); my $n = $ENV{NOTIFY_SOCKET}; " +
        '$n =~ s/^@/\\0/; send(S, "READY=1", 0, pack("S a*", 1, $n)) or die $!; sleep 1000';
      const environment = [`NOTIFY_SOCKET=${name}`];
      const child = await client.start({ argv: ["/usr/bin/perl", "-e", script], environment });
      const memory = new NativeMemory(64);
      const message = await waitFor("the notice", () => {
        const found = receiveMessage(socket, memory);
        return found.length > 0 && found;
      });
      expect(new TextDecoder().decode(memory.bytes.subarray(0, message.length))).toBe("READY=1");
      expect(message.credentials?.processId).toBe(child.hostProcessId);
      const again = await client.request({ kind: "notify", name });
      expect(again.reply).toMatchObject({ error: { code: "EADDRINUSE" } });
      const path = await client.request({ kind: "notify", name: "/tmp/x" });
      expect(path.reply).toMatchObject({ error: { expected: "@…" } });
      child.signal(9);
      socket.close();
    });
  });

  describe("the limits of a request", () => {
    /** A start of exactly so many bytes. */
    const startOfSize = (size: number, invocation: string) => {
      const frame = (padding: number[]) =>
        encodeFrame({
          kind: "start",
          id: 77,
          invocation,
          argv: ["/bin/true"],
          environment: padding.map((length) => "x".repeat(length)),
          descriptors: [],
          leftovers: "kill",
        });
      const most = 100_000;
      let padding: number[] = [];
      for (let left = size - frame([]).length; left > 0; ) {
        const length = Math.min(most, left);
        padding = [...padding, length];
        left = size - frame(padding).length;
        if (left >= 0) continue;
        padding = [...padding.slice(0, -1), length + left];
        break;
      }
      return frame(padding);
    };

    test("a frame of 4 MiB is taken, and one byte more ends the connection", async () => {
      using client = await connect();
      const frame = startOfSize(limits.frameBytes, newInvocation());
      expect(frame.length).toBe(limits.frameBytes);
      expect(await client.sendBytes(frame)).toBe(true);
      const { reply, descriptors } = await client.next("an answer", (found) => "id" in found);
      // The kernel's own limit on arguments and environment is lower in many places.
      if (reply.kind === "error") expect(reply.error.code).toBe("E2BIG");
      for (const descriptor of descriptors) descriptor.close();
      using other = await connect();
      await other.sendBytes(startOfSize(limits.frameBytes + 1, newInvocation()));
      await other.closed();
    });

    test("64 descriptors are taken, and 65 end the connection", async () => {
      using client = await connect();
      using pipe = makePipes();
      const pairs = (count: number) =>
        Array.from({ length: count }, (_value, index) => [pipe.write, index + 3] as const);
      const script = "exec ls /proc/self/fd >&3";
      const child = await client.start({
        argv: ["/bin/sh", "-c", script],
        descriptors: pairs(limits.frameDescriptors),
      });
      expect(await child.told()).toEqual({ kind: "exited", status: 0 });
      const error = await rejectionOf(
        client.requestStart({ argv: ["/bin/true"], descriptors: pairs(65) }),
      );
      expect(error.message).toContain("closed the connection before the answer to start");
      expect(client.ended).toBe(true);
    });

    test("descriptors that were announced and did not come end the connection", async () => {
      using client = await connect();
      await client.sendBytes(encodeFrame({ kind: "ping", id: 1 }, 1));
      await client.closed();
    });

    test("descriptors that nobody announced end the connection", async () => {
      using client = await connect();
      using pipe = makePipes();
      await client.sendBytes(encodeFrame({ kind: "ping", id: 1 }), [pipe.write]);
      await client.closed();
    });

    test("descriptors of another number than the start names are refused, and closed", async () => {
      using client = await connect();
      const { read, write } = makePipe();
      const fields = { argv: ["/bin/true"], invocation: newInvocation(), environment: [] };
      const start = { kind: "start", leftovers: "kill", descriptors: [1, 2], ...fields };
      const { reply } = await client.request(start, [write.number]);
      expect(reply).toMatchObject({ error: { kind: "descriptors", expected: "2" } });
      const none = await client.request({ kind: "ping" }, [write.number]);
      expect(none.reply).toMatchObject({ error: { kind: "descriptors", expected: "0" } });
      write.close();
      await waitFor("nobody to hold the pipe", () => isAtEnd(read));
      read.close();
    });

    test("a request that is none is answered with what is wrong", async () => {
      using client = await connect();
      const { reply } = await client.request({ kind: "start", argv: [] });
      expect(reply).toMatchObject({ kind: "error", error: { kind: "request" } });
      const unknown = await client.request({ kind: "dance" });
      expect(unknown.reply).toMatchObject({ kind: "error", error: { kind: "request" } });
      await client.ping();
    });
  });

  function makePipes(): { readonly write: number } & Disposable {
    const { read, write } = makePipe();
    const close = () => {
      read.close();
      write.close();
    };
    return { write: write.number, [Symbol.dispose]: close };
  }
});
