/** A confiner that was started before anybody needs it: as one that starts when it is needed. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, openSync, readFileSync, readlinkSync } from "node:fs";
import { readInto } from "../../ffi/descriptor.ts";
import { NativeMemory } from "../../ffi/memory.ts";
import { makeMemoryFile } from "../../ffi/memory-file.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { waitForChild } from "../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../ffi/posix-spawn.ts";
import { makeSocketPair, sendMessage } from "../../ffi/unix-socket.ts";
import { ExitCode } from "../../src/units/exit-code.ts";
import {
  AHEAD,
  AHEAD_SOCKET,
  LONGEST_ORDER,
  MOST_AHEAD_DESCRIPTORS,
  NAMED,
  NO_INVOCATION,
} from "../../src/vm/confine-plan.ts";
import { ConfinersAhead } from "../../src/vm/perform/confiners-ahead.ts";
import { findVmm } from "../../src/vm/perform/vmm-identity.ts";
import { confinePlanOf, type VmmStart } from "../../src/vm/perform/vmm-process.ts";
import { hostler } from "../support/binary.ts";
import { cgroupFolder, writableCgroup } from "../support/cgroup.ts";
import {
  ConfinedHost,
  compiled,
  confinedUser,
  newInvocation,
  startOf,
} from "../support/confined.ts";
import { isAlive } from "../support/partition.ts";
import { runProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const SIGKILL = 9;
const SIGSTOP = 19;

let host: ConfinedHost;
const troubles: string[] = [];

function confinersAhead(cgroup?: string): ConfinersAhead {
  troubles.splice(0);
  return new ConfinersAhead(host.loop, {
    own: compiled(),
    cgroup,
    onTrouble: (message) => troubles.push(message),
  });
}

/** Who waits. */
function waitingIn(confiners: ConfinersAhead): number {
  const { processId } = confiners;
  if (processId === undefined) throw new Error("no confiner waits");
  return processId;
}

/** One that waits, by its bare socket. */
function startByHand() {
  const [socket, other] = makeSocketPair();
  using theirs = other;
  using nothing = new OwnedDescriptor(openSync("/dev/null", "r"));
  const variable = `INVOCATION_ID=${NO_INVOCATION}`;
  const places = Array.from({ length: MOST_AHEAD_DESCRIPTORS }, (_, index) => 3 + index);
  using prepared = new PreparedSpawn({
    path: hostler(),
    argv: [hostler(), "--confine", AHEAD, variable],
    environment: [variable],
    descriptors: [
      ...places.map((target) => ({ source: nothing.number, target })),
      { source: theirs.number, target: AHEAD_SOCKET },
    ],
  });
  const result = prepared.spawn();
  if (result.kind === "refused") throw new Error(`errno ${result.errno}`);
  return { ...result, socket };
}

function say(socket: OwnedDescriptor, text: string): void {
  const bytes = new TextEncoder().encode(text);
  const memory = new NativeMemory(bytes.length);
  memory.bytes.set(bytes);
  expect(sendMessage(socket, memory, { offset: 0, length: bytes.length }, [])).toBe(bytes.length);
}

function orderOf(start: VmmStart): string {
  const { invocation, plan } = start;
  const order = {
    invocation,
    plan: { ...confinePlanOf(start), report: AHEAD_SOCKET },
    program: plan.program,
    words: [plan.program, ...plan.arguments],
    targets: [],
  };
  return `${JSON.stringify(order)}\n`;
}

skipUnless("a confiner ahead", [root, program("gcc", "gcc")], () => {
  beforeAll(() => {
    host = new ConfinedHost();
  });

  afterAll(() => host[Symbol.dispose]());

  test("becomes a VMM that has what one of a new confiner has, and nothing else", async () => {
    using memory = makeMemoryFile("guest");
    using last = makeMemoryFile("last");
    const fields = {
      invocation: newInvocation(),
      environment: ["A=1", "BUN_BE_BUN=1"],
      descriptors: [
        { source: memory.number, target: 3 },
        { source: last.number, target: AHEAD_SOCKET - 1 },
      ],
      limits: { core: { soft: 0, hard: 0 }, nofile: { soft: 77, hard: 99 } },
    };
    using confiners = confinersAhead();
    confiners.prepare();
    const waits = waitingIn(confiners);
    const ahead = await host.probe({ ...fields, waiting: confiners });
    expect(ahead.identity.processId).toBe(waits);
    const later = await host.probe(fields);
    expect(later.identity.processId).not.toBe(waits);
    const { report } = ahead;
    for (const name of ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      expect(`${name} ${report.status(name)}`).toBe(`${name} ${later.report.status(name)}`);
    }
    expect(report.status("NoNewPrivs")).toBe("1");
    expect(report.session).toBe(report.processId);
    expect([report.signals, report.mask, report.umask]).toEqual([[], "0", "77"]);
    expect(report.variables).toEqual([...fields.environment, `INVOCATION_ID=${fields.invocation}`]);
    expect(report.words).toEqual([host.probeProgram, "word"]);
    expect([...report.descriptors]).toEqual([...later.report.descriptors]);
    expect([...report.descriptors.keys()].map(Number)).toEqual([0, 1, 2, 3, AHEAD_SOCKET - 1]);
    expect(troubles).toEqual([]);
  });

  test("goes through an order before one comes, and changes nothing by that", async () => {
    using confiners = confinersAhead();
    confiners.prepare();
    const waits = waitingIn(confiners);
    const read = (file: string, of: number | "self") =>
      readFileSync(`/proc/${of}/${file}`, "latin1");
    // poll(2), or ppoll(2) on arm64.
    await waitFor("it to wait for its order", () => /^(7|73) /.test(read("syscall", waits)));
    for (const file of ["oom_score_adj", "limits"]) {
      expect(read(file, waits)).toBe(read(file, "self"));
    }
    for (const name of ["Umask", "Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      const line = new RegExp(`^${name}:.*$`, "m");
      expect(line.exec(read("status", waits))?.[0]).toBe(line.exec(read("status", "self"))?.[0]);
    }
    expect(readlinkSync(`/proc/${waits}/ns/mnt`)).toBe(readlinkSync("/proc/self/ns/mnt"));
    expect(readlinkSync(`/proc/${waits}/cwd`)).toBe("/");
    expect(read("environ", waits)).toBe(`INVOCATION_ID=${NO_INVOCATION}\0`);
    expect(troubles).toEqual([]);
  });

  test("tells what it refuses as a new one does", async () => {
    for (const waiting of [confinersAhead(), undefined]) {
      waiting?.prepare();
      const fields = waiting === undefined ? {} : { waiting };
      const refusal = await host.refusal(["/no/such/vmm"], fields);
      expect([refusal.stage, refusal.code]).toEqual(["exec", "ENOENT"]);
      waiting?.[Symbol.dispose]();
    }
  });

  test("is followed by another one when it was used", async () => {
    using confiners = confinersAhead();
    confiners.prepare();
    const first = waitingIn(confiners);
    await host.probe({ waiting: confiners });
    const next = await waitFor("the next one", () => confiners.processId);
    expect(next).not.toBe(first);
    expect((await host.probe({ waiting: confiners })).identity.processId).toBe(next);
  });

  test("that was killed is told of, and a start has a new one", async () => {
    using confiners = confinersAhead();
    confiners.prepare();
    process.kill(waitingIn(confiners), SIGKILL);
    await waitFor("its end to be seen", () => confiners.processId === undefined);
    expect(troubles).toEqual(["the confiner that waited for the next machine has ended"]);
    await host.probe({ waiting: confiners });
  });

  test("that is killed while it has its order is replaced, and the start is done", async () => {
    using confiners = confinersAhead();
    confiners.prepare();
    const waits = waitingIn(confiners);
    // It says nothing, and so it is not told to go on.
    process.kill(waits, SIGSTOP);
    const started = host.probe({ waiting: confiners });
    process.kill(waits, SIGKILL);
    expect((await started).identity.processId).not.toBe(waits);
    expect(troubles.join()).toContain("did not take its order");
  });

  test("has no room for more than its limits: then a start has a new one", async () => {
    using confiners = confinersAhead();
    confiners.prepare();
    const waits = waitingIn(confiners);
    using memory = makeMemoryFile("guest");
    const descriptors = [{ source: memory.number, target: AHEAD_SOCKET }];
    await host.probe({ waiting: confiners, descriptors });
    const words = Array.from({ length: LONGEST_ORDER / 4096 }, (_, index) => {
      return `A${index}=${"x".repeat(4096)}`;
    });
    await host.probe({ waiting: confiners, environment: words });
    expect(waitingIn(confiners)).toBe(waits);
  });

  test("ends with who started it", async () => {
    const confiners = confinersAhead();
    confiners.prepare();
    const waits = waitingIn(confiners);
    confiners[Symbol.dispose]();
    await waitFor("its end", () => !isAlive(waits));
  });

  skipUnless("that anticipates its start", writableCgroup, () => {
    const groupOf = (processId: number) => readFileSync(`/proc/${processId}/cgroup`, "latin1");

    test("joins its worker's cgroup, and then its VMM's, whatever is still under way", async () => {
      using groups = cgroupFolder();
      const [worker, machine] = [groups.file("worker"), groups.file("machine")];
      using confiners = confinersAhead(worker);
      confiners.prepare();
      const waits = waitingIn(confiners);
      confiners.anticipate();
      await waitFor("it to be there", () => /\/worker$/m.test(groupOf(waits)));
      // This one is under way when the order comes.
      confiners.anticipate();
      const { lines, started } = await host.shell("cat /proc/self/cgroup", {
        waiting: confiners,
        cgroup: machine,
      });
      expect(started.identity.processId).toBe(waits);
      expect(lines.join("\n")).toMatch(/^0::.*\/machine$/m);
    });

    test("starts as any does where that is refused, or nobody waits", async () => {
      using confiners = confinersAhead("/no/such/cgroup");
      confiners.anticipate();
      confiners.prepare();
      const waits = waitingIn(confiners);
      confiners.anticipate();
      expect((await host.probe({ waiting: confiners })).identity.processId).toBe(waits);
      expect(troubles).toEqual([]);
    });

    test("is reaped when it is killed meanwhile", async () => {
      using groups = cgroupFolder();
      using confiners = confinersAhead(groups.file("worker"));
      confiners.prepare();
      const waits = waitingIn(confiners);
      confiners.anticipate();
      process.kill(waits, SIGKILL);
      await waitFor("its end", () => !existsSync(`/proc/${waits}`));
    });
  });

  describe("by hand", () => {
    test("has the name of its start before it goes on, and without a word ends", async () => {
      const { socket, process: child, processId } = startByHand();
      using _child = child;
      const path = `${host.runFolder}/never-${newInvocation()}`;
      const start = startOf(["/bin/touch", path], { writable: [host.runFolder] });
      const found = () => findVmm(start.invocation, confinedUser).found;
      expect(found()).toEqual([]);
      say(socket, orderOf(start));
      const memory = new NativeMemory(64);
      const length = await waitFor("its word", () => {
        const read = readInto(socket, memory);
        return read > 0 ? read : undefined;
      });
      expect(new TextDecoder().decode(memory.bytes.subarray(0, length))).toBe(NAMED);
      expect(found().map((one) => one.processId)).toEqual([processId]);
      expect(readFileSync(`/proc/${processId}/cmdline`, "latin1")).toContain(start.invocation);
      // As when its worker dies.
      socket.close();
      const ending = await waitFor("its end", () => waitForChild(child, "reap"));
      expect(ending).toEqual({ kind: "exited", status: ExitCode.done });
      expect(existsSync(path)).toBe(false);
      expect(found()).toEqual([]);
    });

    test.each([
      ["no order", "{}\n"],
      ["no JSON", "order\n"],
      ["a longer order than there may be", `${"x".repeat(LONGEST_ORDER + 2)}`],
    ])("refuses %s", async (_name, text) => {
      const { socket, process: child } = startByHand();
      using _child = child;
      using _socket = socket;
      say(socket, text);
      const ending = await waitFor("its end", () => waitForChild(child, "reap"));
      expect(ending).toEqual({ kind: "exited", status: ExitCode.usage });
    });

    test("without a socket it tells what it is for", async () => {
      const { exitCode, stderr } = await runProgram([hostler(), "--confine", AHEAD]);
      expect(exitCode).toBe(ExitCode.usage);
      expect(stderr).toContain("hostler --confine is for hostler's own use");
    });
  });
});
