/** pidfds, signals, limits, and what a process can do to itself before an exec. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { existsSync, fstatSync, openSync, readFileSync, statSync } from "node:fs";
import { capabilities } from "../../../ffi/capabilities.ts";
import { makePipe, readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import { parentNamespace } from "../../../ffi/namespace.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import {
  decodeWaitStatus,
  type Ending,
  hasEnded,
  openProcess,
  processInformation,
  signalProcess,
  signalProcessGroup,
  waitForChild,
} from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import {
  descriptorLimit,
  kill,
  monotonicNanoseconds,
  niceValue,
  resourceLimit,
  setDescriptorLimit,
  setFileModeMask,
  setNiceValue,
} from "../../../ffi/process.ts";
import { Signal } from "../../../src/units/signals.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { waitFor } from "../../support/wait-for.ts";
import { keptCapabilities } from "./become.ts";
import {
  type Check,
  ending,
  outputOf,
  readToEnd,
  start,
  statusField,
  statusMask,
  withoutRoot,
} from "./check.ts";

/** Above the highest process number that a kernel can be told to give. */
const NO_PROCESS = 0x3fff_ffff;

function shell(script: string, workingDirectory = "/"): PreparedSpawn {
  return new PreparedSpawn({
    path: "/bin/sh",
    argv: ["sh", "-c", script],
    environment: [],
    workingDirectory,
    descriptors: [],
  });
}

async function endsAs(script: string, expected: Ending): Promise<void> {
  using spawn = shell(script);
  const child = start(spawn);
  using process = child.process;
  await waitFor("a zombie", () => waitForChild(process, "leave"));
  deepStrictEqual(waitForChild(process, "leave"), expected);
  strictEqual(signalProcess(process, 0), "sent", "a zombie is still there");
  strictEqual(hasEnded(process), true, "a zombie has ended");
  deepStrictEqual(waitForChild(process, "reap"), expected);
  strictEqual(waitForChild(process, "reap"), "not-a-child");
  strictEqual(signalProcess(process, Signal.SIGTERM), "gone");
  strictEqual(openProcess(child.processId), undefined);
  strictEqual(hasEnded(process), true);
  const information = processInformation(process);
  if (typeof information === "object") deepStrictEqual(information.ending, expected);
}

async function dumpsCore(): Promise<void> {
  using folder = temporaryFolder();
  using spawn = shell("ulimit -c unlimited; kill -ABRT $$", folder.path);
  using child = start(spawn).process;
  const end = await ending(child);
  ok(end.kind === "signalled");
  strictEqual(end.signal, Signal.SIGABRT);
  // Where cores go to a program or a folder of the host's, that decides.
  if (readFileSync("/proc/sys/kernel/core_pattern", "utf8").trim() !== "core") return;
  const written = existsSync(folder.file("core"));
  strictEqual(end.coreDumped, written);
  const information = processInformation(child);
  if (typeof information === "object") deepStrictEqual(information.ending, end);
}

async function signalsAGroup(): Promise<void> {
  const pipe = makePipe();
  using read = pipe.read;
  using spawn = new PreparedSpawn({
    path: "/bin/sh",
    argv: ["sh", "-c", "echo; sleep 1000 & sleep 1000"],
    environment: [],
    descriptors: [{ source: pipe.write.number, target: 1 }],
  });
  using child = start(spawn).process;
  pipe.write.close();
  spawn[Symbol.dispose]();
  // An emulator's posix_spawn returns before the child leads its group.
  await waitFor("the child's first word", () => readInto(read, new NativeMemory(1)) === 1);
  const sent = signalProcessGroup(child, Signal.SIGKILL);
  if (sent === "unsupported") {
    signalProcess(child, Signal.SIGKILL);
    await ending(child);
    return;
  }
  strictEqual(sent, "sent");
  deepStrictEqual(await ending(child), { kind: "signalled", signal: 9, coreDumped: false });
  // All writers are gone: nobody of the group is left.
  strictEqual(await readToEnd(read), "");
  const again = await waitFor("the group to be gone", () => {
    return signalProcessGroup(child, Signal.SIGTERM) === "gone";
  });
  ok(again);
}

const endingChecks: readonly Check[] = [
  {
    name: "a child that exits is seen as a zombie, reaped, and then gone",
    run: () => endsAs("exit 7", { kind: "exited", status: 7 }),
  },
  {
    name: "a child that a signal ends tells which",
    run: () => endsAs("kill -TERM $$", { kind: "signalled", signal: 15, coreDumped: false }),
  },
  { name: "a child that dumps core tells so", run: dumpsCore },
  {
    name: "a running child has no ending, and takes signals",
    run: async () => {
      using spawn = shell("exec sleep 1000");
      const child = start(spawn);
      using process = child.process;
      strictEqual(waitForChild(process, "reap"), undefined);
      strictEqual(hasEnded(process), false);
      const information = processInformation(process);
      if (typeof information === "object") {
        const { processId, parentId } = information;
        deepStrictEqual([processId, parentId], [child.processId, globalThis.process.pid]);
        strictEqual(information.ending, undefined);
      }
      throws(() => signalProcess(process, 65), { code: "EINVAL" });
      strictEqual(signalProcess(process, Signal.SIGKILL), "sent");
      deepStrictEqual(await ending(process), { kind: "signalled", signal: 9, coreDumped: false });
    },
  },
  { name: "a process group is signalled through its leader, Linux 6.9", run: signalsAGroup },
  {
    name: "a process that is no child of ours cannot be waited for",
    run: () => {
      using self = openProcess(process.pid);
      ok(self !== undefined);
      strictEqual(waitForChild(self, "reap"), "not-a-child");
      strictEqual(openProcess(NO_PROCESS), undefined);
      throws(() => openProcess(-1), { code: "EINVAL", call: "pidfd_open" });
    },
  },
  {
    name: "a wait status is read as wait(2) encodes it",
    run: () => {
      deepStrictEqual(decodeWaitStatus(0), { kind: "exited", status: 0 });
      deepStrictEqual(decodeWaitStatus(0x700), { kind: "exited", status: 7 });
      deepStrictEqual(decodeWaitStatus(0xff00), { kind: "exited", status: 255 });
      deepStrictEqual(decodeWaitStatus(0xf), { kind: "signalled", signal: 15, coreDumped: false });
      deepStrictEqual(decodeWaitStatus(0x86), { kind: "signalled", signal: 6, coreDumped: true });
    },
  },
];

async function limitsAreReadAndSet(): Promise<void> {
  const RLIMIT_CORE = 4;
  const limit = descriptorLimit();
  ok(limit !== undefined && limit.soft > 64);
  setDescriptorLimit({ soft: limit.soft - 1, hard: limit.hard });
  deepStrictEqual(descriptorLimit(), { soft: limit.soft - 1, hard: limit.hard });
  const { output } = await outputOf(["/bin/sh", "-c", "ulimit -n; ulimit -c unlimited; ulimit -c"]);
  strictEqual(output.split("\n")[0], String(limit.soft - 1));
  setDescriptorLimit(limit);
  deepStrictEqual(descriptorLimit(process.pid), limit);
  strictEqual(resourceLimit(NO_PROCESS, RLIMIT_CORE), undefined);
  throws(() => resourceLimit(0, 99), { code: "EINVAL" });
  const core = resourceLimit(0, RLIMIT_CORE);
  if (output.split("\n")[1] === "unlimited") strictEqual(core?.hard, Number.POSITIVE_INFINITY);
}

const ownChecks: readonly Check[] = [
  { name: "resource limits are read, set and inherited", run: limitsAreReadAndSet },
  {
    name: "the nice value is read and set",
    absence: withoutRoot,
    run: async () => {
      const before = niceValue();
      strictEqual(setNiceValue(-1), true);
      strictEqual(niceValue(), -1);
      strictEqual(setNiceValue(5), true);
      const { output } = await outputOf(["/usr/bin/nice"]);
      strictEqual(setNiceValue(before), true);
      strictEqual(output, "5\n");
    },
  },
  {
    name: "kill tells who is there",
    run: () => {
      strictEqual(kill(process.pid, 0), "sent");
      strictEqual(kill(NO_PROCESS, 0), "gone");
      throws(() => kill(process.pid, 65), { code: "EINVAL" });
    },
  },
  {
    name: "the monotonic clock is that of /proc/uptime, and does not go back",
    run: () => {
      const first = monotonicNanoseconds();
      const uptime = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]);
      const second = monotonicNanoseconds();
      ok(second > first);
      // Both leave out no time but that of suspension, which the uptime counts.
      ok(uptime + 0.02 >= first / 1e9, `${uptime} s, ${first} ns`);
    },
  },
  {
    name: "the file mode mask is set",
    run: () => {
      const before = process.umask(0o022);
      setFileModeMask(0o137);
      strictEqual(process.umask(before), 0o137);
    },
  },
  {
    name: "capabilities are those of /proc/self/status",
    run: () => {
      deepStrictEqual(capabilities(), {
        effective: statusMask("CapEff"),
        permitted: statusMask("CapPrm"),
        inheritable: statusMask("CapInh"),
      });
    },
  },
];

/** unshare(1) keeps its own namespace and gives its child, which speaks, a new one. */
async function knowsTheParentNamespace(): Promise<void> {
  const pipe = makePipe();
  using read = pipe.read;
  using spawn = new PreparedSpawn({
    path: Bun.which("unshare") ?? "",
    argv: ["unshare", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", "echo; exec sleep 1000"],
    environment: [],
    descriptors: [{ source: pipe.write.number, target: 1 }],
  });
  const child = start(spawn);
  using parent = child.process;
  pipe.write.close();
  await waitFor("the child's first word", () => readInto(read, new NativeMemory(1)) === 1);
  const path = `/proc/${child.processId}/ns/pid_for_children`;
  using namespace = new OwnedDescriptor(openSync(path, "r"));
  using found = parentNamespace(namespace);
  signalProcess(parent, Signal.SIGKILL);
  await ending(parent);
  strictEqual(found && fstatSync(found.number).ino, statSync("/proc/self/ns/pid").ino);
  strictEqual(parentNamespace(read), undefined);
}

/** Another user with two capabilities, no new privileges, and signals that Bun had ignored. */
async function becomesAnother(self: readonly string[]): Promise<void> {
  const [path = "", ...rest] = self;
  const { output, ending } = await outputOf([path, ...rest, "--become=constrained"]);
  deepStrictEqual(ending, { kind: "exited", status: 0 });
  const ids = (name: string) => statusField(output, name).split(/\s+/).map(Number);
  deepStrictEqual(ids("Uid"), [65_533, 65_533, 65_533, 65_533]);
  deepStrictEqual(ids("Gid"), [65_532, 65_532, 65_532, 65_532]);
  deepStrictEqual(ids("Groups"), [1_000_001, 1_000_002]);
  strictEqual(statusField(output, "Umask"), "0027");
  strictEqual(statusField(output, "NoNewPrivs"), "1");
  const kept = keptCapabilities().reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"]) {
    strictEqual(statusMask(set, output), kept, set);
  }
  strictEqual(statusMask("SigIgn", output), 0n);
  strictEqual(statusMask("SigBlk", output), 0n);
}

const becomingChecks: readonly Check[] = [
  {
    name: "a process becomes another user with two capabilities, and executes",
    absence: withoutRoot,
    run: ({ self }) => becomesAnother(self),
  },
  {
    name: "a namespace tells its parent",
    absence: () => withoutRoot() ?? (Bun.which("unshare") === null ? "no unshare" : undefined),
    unlikeEmulator: "knows no ioctl of namespaces",
    run: knowsTheParentNamespace,
  },
  {
    name: "a process has mounts of its own, with nodes and attributes",
    absence: withoutRoot,
    unlikeEmulator: "knows no mount_setattr",
    run: async ({ self }) => {
      const [path = "", ...rest] = self;
      const { output } = await outputOf([path, ...rest, "--become=mounting"]);
      const lines = [
        "zero 20640 105",
        "block 60600 700",
        "bound 20666 105",
        "bound 100666 0",
        "rw,nosuid,noexec,relatime",
        "ro,nosuid,nodev,relatime",
        "rw,nodev,relatime,size=64k",
        "EINVAL mount_setattr",
        "EINVAL umount2",
        "ENOENT open",
        "/dev/zero open",
      ];
      deepStrictEqual(output.trim().split("\n"), lines);
    },
  },
  {
    name: "a process without capabilities is refused more",
    absence: withoutRoot,
    run: async ({ self }) => {
      const [path = "", ...rest] = self;
      const { output } = await outputOf([path, ...rest, "--become=nobody"]);
      strictEqual(
        output,
        "EPERM capset\nEPERM prctl\nEPERM setgroups\nfalse nice\nENOENT execve\n",
      );
    },
  },
  {
    name: "scheduling ends up ordinary, our own and that of children",
    absence: () => withoutRoot() ?? (Bun.which("chrt") === null ? "no chrt" : undefined),
    run: async ({ self }) => {
      const chrt = Bun.which("chrt") ?? "";
      const words = ["--fifo", "10", ...self, "--become=ordinary"];
      const { output } = await outputOf([chrt, ...words], { environment: ["PATH=/usr/bin:/bin"] });
      strictEqual(output, "own class 1\nchild's class 0\nown class 0\n");
    },
  },
];

export const processChecks: readonly Check[] = [...endingChecks, ...ownChecks, ...becomingChecks];
