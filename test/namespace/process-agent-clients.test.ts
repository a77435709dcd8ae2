/** Who may speak to the compiled agent, how many at once, where it listens, whom it dials. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { NativeMemory } from "../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { setFileModeMask } from "../../ffi/process.ts";
import {
  acceptConnection,
  bindUnix,
  listen,
  makeUnixSocket,
  receiveMessage,
} from "../../ffi/unix-socket.ts";
import { encodeFrame } from "../../src/messaging/frame.ts";
import { givesLabels } from "../../src/messaging/peer.ts";
import { limits } from "../../src/process/protocol.ts";
import { AgentClient, clientHello, RawClient } from "../support/agent-client.ts";
import { hostler } from "../support/binary.ts";
import { type Agent, compilePrograms, isAlive, startAgent } from "../support/partition.ts";
import { runProgram, startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { program, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

/** Connects as another user, tells what comes, and ends when the agent closes. */
const connectAs = async (path: string, words: readonly string[]) => {
  const script =
    '$SIG{PIPE} = "IGNORE"; ' +
    'my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "cannot connect: $!"; ' +
    '$s->autoflush; print $s $ARGV[1]; print "received ", scalar(<$s>) // "nothing", "\\n"';
  const hello = new TextDecoder().decode(encodeFrame(clientHello));
  const perl = ["perl", "-MIO::Socket::UNIX", "-e", script, path, hello];
  const { stdout, stderr } = await runProgram(["setpriv", ...words, "--", ...perl]);
  return stdout + stderr;
};

describe("many clients at once", () => {
  let folder: TemporaryFolder;
  let agent: Agent;
  const clients: RawClient[] = [];
  const descriptorCount = () => readdirSync(`/proc/${agent.processId}/fd`).length;

  beforeAll(async () => {
    folder = temporaryFolder();
    agent = await startAgent(folder);
  });

  afterAll(async () => {
    for (const client of clients) client[Symbol.dispose]();
    await agent[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  test("1,000 idle ones, and some that send a byte at a time, delay no other", async () => {
    for (let count = 0; count < 1_000; count++) {
      const client = await RawClient.connect(agent.socket);
      clients.push(client);
      // Some have said nothing, some half a hello, some half a Holden header.
      if (count % 3 === 1) client.trySend(encodeFrame(clientHello).subarray(0, 1 + (count % 60)));
      if (count % 3 === 2) client.trySend(new Uint8Array([1, 0, 0]));
    }
    const slow = await RawClient.connect(agent.socket);
    clients.push(slow);
    using quick = await AgentClient.connect(agent.socket);
    for (const byte of encodeFrame(clientHello)) {
      slow.trySend(new Uint8Array([byte]));
      await quick.ping(2_000);
    }
    const child = await quick.start({ argv: ["/bin/true"] });
    expect(await child.told()).toEqual({ kind: "exited", status: 0 });
    await slow.read(1);
  });

  test("that two orchestrators are connected at once is said", async () => {
    using _first = await AgentClient.connect(agent.socket);
    using _second = await AgentClient.connect(agent.socket);
    await agent.program.said(/\d orchestrators are connected/);
  });

  test("one more than the limit is refused, and served when another has gone", async () => {
    using first = await AgentClient.connect(agent.socket);
    const room = limits.connections - clients.length - 1;
    for (let count = 0; count < room; count++) {
      clients.push(await RawClient.connect(agent.socket));
    }
    using refused = await RawClient.connect(agent.socket);
    await refused.closed();
    await agent.program.said(/at most 1024 connections, received one more/);
    // With more descriptors than a child may have, children are started all the same.
    expect(descriptorCount()).toBeGreaterThan(1_024);
    for (const constraints of [undefined, { no_new_privileges: true }]) {
      const child = await first.start({ argv: ["/bin/sh", "-c", "ulimit -n >&2"], constraints });
      expect(await child.told()).toEqual({ kind: "exited", status: 0 });
    }
    clients.pop()?.[Symbol.dispose]();
    const served = await waitFor("the agent to take another", async () => {
      const client = await RawClient.connect(agent.socket);
      await client.sendBytes(encodeFrame(clientHello));
      await waitFor("an answer or an end", () => {
        client.look();
        return client.ended || client.received.length > 0;
      });
      const { ended } = client;
      client[Symbol.dispose]();
      return !ended;
    });
    expect(served).toBe(true);
  });

  test("when they are gone, nothing of them is left", async () => {
    for (const client of clients.splice(0)) client[Symbol.dispose]();
    await waitFor("their descriptors to be closed", () => descriptorCount() < 100);
  });

  onlyInAll(() => {
    test("one that says no hello, or half of one, is dropped after its time", async () => {
      using silent = await RawClient.connect(agent.socket);
      using half = await RawClient.connect(agent.socket);
      half.trySend(encodeFrame(clientHello).subarray(0, 40));
      using header = await RawClient.connect(agent.socket);
      header.trySend(new Uint8Array([1, 0, 0]));
      const deadline = limits.helloTime + 10_000;
      await silent.closed(deadline);
      await half.closed(deadline);
      await header.closed(deadline);
    }, 60_000);
  });
});

describe("a wrong hello ends the connection", () => {
  let folder: TemporaryFolder;
  let agent: Agent;

  beforeAll(async () => {
    folder = temporaryFolder();
    agent = await startAgent(folder);
  });

  afterAll(async () => {
    await agent[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const wrong: readonly [string, unknown][] = [
    ["of another version", { ...clientHello, protocol: 2 }],
    ["of an unknown role", { ...clientHello, role: "king" }],
    ["that is a request", { kind: "ping", id: 1 }],
    ["of null", null],
    ["with more than it should say", { ...clientHello, more: 1 }],
    ["longer than 4 KiB", { ...clientHello, version: "x".repeat(limits.helloBytes) }],
  ];

  for (const [name, hello] of wrong) {
    test(name, async () => {
      using client = await RawClient.connect(agent.socket);
      await client.sendBytes(encodeFrame(hello));
      await client.closed();
      expect(client.received).toHaveLength(0);
    });
  }
});

skipUnless("who may ask", program("setpriv", "util-linux"), () => {
  const other = ["--reuid=1234", "--regid=1234", "--clear-groups"];

  async function ask(flags: readonly string[], words: readonly string[]): Promise<string> {
    using folder = temporaryFolder();
    const socket = folder.file("agent.sock");
    await using agent = await startAgent(folder, { words: ["--socket", socket, ...flags] });
    // The folder and the socket are root's alone; the test is about the credentials behind them.
    await runProgram(["chmod", "0711", folder.path]);
    await runProgram(["chmod", "0666", agent.socket]);
    return await connectAs(agent.socket, words);
  }

  test("the socket is its owner's alone", async () => {
    using folder = temporaryFolder();
    const before = setFileModeMask(0);
    await using agent = await startAgent(folder);
    setFileModeMask(before);
    expect(lstatSync(agent.socket).mode & 0o777).toBe(0o600);
  });

  test("root when nothing is said", async () => {
    expect(await ask([], [])).toContain('"role":"agent"');
    expect(await ask([], other)).toContain("received nothing");
  });

  test("--allow-uid and --allow-gid name who else; then root is not among them", async () => {
    expect(await ask(["--allow-uid", "1234"], other)).toContain('"role":"agent"');
    expect(await ask(["--allow-uid", "1234"], [])).toContain("received nothing");
    expect(await ask(["--allow-gid", "1234"], other)).toContain('"role":"agent"');
    expect(await ask(["--allow-uid", "1,2", "--allow-gid", "3"], other)).toContain("nothing");
  });

  test("--allow-label refuses everybody who has another label, or none", async () => {
    expect(await ask(["--allow-label", "system_u:system_r:x_t:s0"], [])).toContain("nothing");
  });
});

describe("a path to listen on that cannot be", () => {
  let folder: TemporaryFolder;

  beforeAll(() => {
    folder = temporaryFolder();
    writeFileSync(folder.file("file"), "x");
    mkdirSync(folder.file("folder"));
  });

  afterAll(() => folder[Symbol.dispose]());

  const refusal = async (path: string) =>
    await runProgram([hostler(), "process", "agent", "--socket", path]);

  test("a file, and it is left alone", async () => {
    const { exitCode, stderr } = await refusal(folder.file("file"));
    expect(stderr).toContain("expected a socket or nothing there, received a file");
    expect(exitCode).toBe(111);
    expect(existsSync(folder.file("file"))).toBe(true);
  });

  test("a folder", async () => {
    const { exitCode, stderr } = await refusal(folder.file("folder"));
    expect(stderr).toContain("received a directory");
    expect(exitCode).toBe(111);
  });

  test("below a file", async () => {
    const { exitCode, stderr } = await refusal(folder.file("file/x"));
    expect(stderr).toContain(folder.file("file"));
    expect(exitCode).toBe(111);
  });

  test("too long", async () => {
    const { exitCode, stderr } = await refusal(folder.file("x".repeat(108)));
    expect(stderr).toContain("107 bytes");
    expect(exitCode).toBe(100);
  });

  test("another user's", async () => {
    const path = folder.file("others.sock");
    using socket = makeUnixSocket("stream");
    bindUnix(socket, path);
    await runProgram(["chown", "1234", path]);
    const { exitCode, stderr } = await refusal(path);
    expect(stderr).toContain("received one of user 1234");
    expect(exitCode).toBe(111);
    expect(existsSync(path)).toBe(true);
  });

  test("a living agent's; it serves on", async () => {
    await using agent = await startAgent(folder);
    const { exitCode, stderr } = await refusal(agent.socket);
    expect(stderr).toContain("somebody listens there already");
    expect(exitCode).toBe(111);
    using client = await AgentClient.connect(agent.socket);
    await client.ping();
  });

  test("a dead agent's is taken over", async () => {
    const first = await startAgent(folder);
    first.program.kill("SIGKILL");
    await first.program.ended();
    expect(existsSync(first.socket)).toBe(true);
    await using second = await startAgent(folder);
    using client = await AgentClient.connect(second.socket);
    await client.ping();
  });

  test("a cgroup that is no absolute path", async () => {
    const agent = [hostler(), "process", "agent", "--socket", folder.file("c.sock")];
    for (const path of ["services", "/services/../other", ""]) {
      const { exitCode, stderr } = await runProgram([...agent, "--allow-cgroup", path]);
      const message = `Expected an absolute path without "." and ".." after --allow-cgroup`;
      expect([exitCode, stderr]).toEqual([100, expect.stringContaining(message)]);
    }
  });

  test("a label where the kernel tells none is warned of, and no label is not", async () => {
    using own = temporaryFolder();
    const agent = [hostler(), "process", "agent", "--socket", own.file("agent.sock")];
    for (const words of [["--allow-label", "system_u:system_r:qm_t:s0"], []]) {
      await using program = startProgram([...agent, ...words]);
      await program.said(/listening at/);
      program.kill("SIGTERM");
      const { stderr } = await program.ended();
      const isWarned = stderr.includes("--allow-label: this kernel tells no security label");
      expect(isWarned).toBe(words.length > 0 && !givesLabels());
    }
  });

  test("both --socket and --connect, or a flag that there is not", async () => {
    const agent = [hostler(), "process", "agent"];
    const both = await runProgram([...agent, "--socket", "/a", "--connect", "/b"]);
    expect([both.exitCode, both.stderr]).toEqual([100, expect.stringContaining("received both")]);
    const unknown = await runProgram([...agent, "--sockets", "/a"]);
    expect(unknown.exitCode).toBe(100);
  });
});

describe("an agent that dials out", () => {
  /** Who listens, as an orchestrator does. */
  async function acceptFrom(listener: OwnedDescriptor): Promise<AgentClient> {
    const socket = await waitFor("the agent to connect", () => acceptConnection(listener));
    const client = new AgentClient(socket);
    await client.heardHello();
    await client.sendBytes(encodeFrame(clientHello));
    return client;
  }

  function listenAtPath(path: string): OwnedDescriptor {
    const listener = makeUnixSocket("stream");
    expect(bindUnix(listener, path)).toBe(0);
    listen(listener, 16);
    return listener;
  }

  test("comes first, finds who comes later, and comes again after a loss", async () => {
    using folder = temporaryFolder();
    const path = folder.file("orchestrator.sock");
    await using agent = await startAgent(folder, { words: ["--connect", path] });
    await agent.program.said(/cannot connect to .*: No such file or directory; again in/);
    const listener = listenAtPath(path);
    const first = await acceptFrom(listener);
    const child = await first.start({ argv: ["/bin/sleep", "1000"] });
    first[Symbol.dispose]();
    using second = await acceptFrom(listener);
    expect(isAlive(child.hostProcessId)).toBe(true);
    child.signal(9);
    await second.ping();
    listener.close();
    await runProgram(["rm", path]);
    using again = listenAtPath(path);
    second.socket.close();
    using third = await acceptFrom(again);
    await third.ping();
    child.process.close();
  });

  test("says how it stands, once for each state", async () => {
    using folder = temporaryFolder();
    const path = folder.file("orchestrator.sock");
    const words = [hostler(), "process", "agent", "--connect", path];
    await using agent = startProgram(words);
    const cannot = `cannot connect to ${path}: `;
    await agent.said(new RegExp(`${cannot}No such file or directory; again in`));
    {
      const listener = listenAtPath(path);
      const refused = { kind: "refused", expected: "user 7", received: "user 0" };
      for (let count = 1; count <= 4; count += 1) {
        const socket = await waitFor("the agent", () => acceptConnection(listener));
        using client = new AgentClient(socket);
        await client.heardHello();
        await client.sendBytes(encodeFrame(refused));
        await client.closed();
      }
      using client = await acceptFrom(listener);
      await client.ping();
      listener.close();
    }
    await agent.said(new RegExp(`${cannot}Connection refused`));
    agent.kill("SIGTERM");
    const { stderr } = await agent.ended();
    const said = stderr
      .split("\n")
      .map((line) => line.replace("hostler process agent: ", "").replace(/; again in .*/, ""))
      .filter((line) => line.includes(path));
    expect(said).toEqual([
      `connecting to ${path}`,
      `${cannot}No such file or directory`,
      `not connected to ${path}: it refused this agent: expected user 7; received user 0`,
      `connected to ${path}`,
      `the connection to ${path} ended: the peer closed the connection`,
      `${cannot}Connection refused`,
    ]);
  });

  test("refuses who listens there as a wrong user, and goes on trying", async () => {
    using folder = temporaryFolder();
    const path = folder.file("orchestrator.sock");
    using _listener = listenAtPath(path);
    const words = ["--connect", path, "--allow-uid", "1234"];
    await using agent = await startAgent(folder, { words });
    await agent.program.said(/refused a connection: expected user 1234; received user 0/);
    await agent.program.said(/(refused a connection[\s\S]*){3}/);
    expect(isAlive(agent.processId)).toBe(true);
  });
});

skipUnless("under a service manager", program("gcc", "gcc"), () => {
  test("tells READY=1, WATCHDOG=1 in half of its time, and STOPPING=1", async () => {
    using folder = temporaryFolder();
    const path = folder.file("notify.sock");
    using socket = makeUnixSocket("datagram");
    expect(bindUnix(socket, path)).toBe(0);
    const memory = new NativeMemory(4096);
    const next = async (wanted: RegExp) =>
      await waitFor(`${wanted}`, () => {
        const message = receiveMessage(socket, memory);
        if (message.length <= 0) return undefined;
        const text = new TextDecoder().decode(memory.bytes.slice(0, message.length));
        return wanted.test(text) && text;
      });
    const environment = { NOTIFY_SOCKET: path, WATCHDOG_USEC: "200000" };
    await using agent = await startAgent(folder, { environment });
    expect(await next(/^READY=1/)).toContain("STATUS=listening at");
    await next(/^WATCHDOG=1$/);
    await next(/^WATCHDOG=1$/);
    using client = await AgentClient.connect(agent.socket);
    const { lines } = await client.output({ argv: ["/usr/bin/env"] });
    expect(lines).toEqual([]);
    agent.program.kill("SIGTERM");
    await next(/^STOPPING=1$/);
    expect((await agent.program.ended()).exitCode).toBe(0);
  });

  test("takes the socket that the manager opened, and leaves it there", async () => {
    using folder = temporaryFolder();
    const { activate } = compilePrograms(folder);
    const path = folder.file("activated.sock");
    const argv = [activate, path, hostler(), "process", "agent", "--socket", folder.file("no")];
    await using agent = startProgram(argv);
    using client = await AgentClient.connect(path);
    const script = "ls -l /proc/self/fd; echo $LISTEN_FDS$LISTEN_PID";
    const { lines } = await client.output({ argv: ["/bin/sh", "-c", script] });
    expect(lines.join("\n")).not.toContain("socket:");
    expect(lines.at(-1)).toBe("");
    expect(existsSync(folder.file("no"))).toBe(false);
    agent.kill("SIGTERM");
    await agent.ended();
    expect(existsSync(path)).toBe(true);
  });

  test("ends by SIGTERM or SIGINT at once, and its children live on", async () => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      using folder = temporaryFolder();
      await using agent = await startAgent(folder);
      using client = await AgentClient.connect(agent.socket);
      const child = await client.start({ argv: ["/bin/sleep", "1000"] });
      agent.program.kill(signal);
      expect((await agent.program.ended()).exitCode).toBe(0);
      expect(isAlive(child.hostProcessId)).toBe(true);
      expect(existsSync(agent.socket)).toBe(false);
      child.signal(9);
      child.process.close();
    }
  });
});
