/** posix_spawn: what a child gets, and the error number of every start that is refused. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import {
  chmodSync,
  fstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { libc } from "../../../ffi/c-library.ts";
import { makePipe } from "../../../ffi/descriptor.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { PreparedSpawn, type SpawnPlan } from "../../../ffi/posix-spawn.ts";
import { descriptorLimit, setDescriptorLimit } from "../../../ffi/process.ts";
import { Errno, errnoName } from "../../../ffi/system-call-error.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import {
  type Check,
  ending,
  lowestFreeDescriptor,
  openedFrom,
  outputOf,
  readToEnd,
  start,
  statusField,
  statusMask,
} from "./check.ts";

const SIGPIPE_MASK = 1n << 12n;

/** Children of this process that nobody has reaped, whoever of its threads started them. */
function ownChildren(): string[] {
  return readdirSync("/proc/self/task").flatMap((thread) => {
    const children = readFileSync(`/proc/self/task/${thread}/children`, "utf8").trim();
    return children === "" ? [] : children.split(" ");
  });
}

async function signalsAreDefault(): Promise<void> {
  ok((statusMask("SigIgn") & SIGPIPE_MASK) !== 0n, "Bun ignores SIGPIPE, which we rely on");
  const { output } = await outputOf(["/bin/cat", "/proc/self/status"]);
  strictEqual(statusMask("SigIgn", output), 0n);
  strictEqual(statusMask("SigBlk", output), 0n);
  strictEqual(statusMask("SigCgt", output), 0n);
}

async function onlyNamedDescriptors(): Promise<void> {
  const F_DUPFD = 0;
  const pipe = makePipe();
  using read = pipe.read;
  using write = pipe.write;
  // Inherited by any exec, as somebody else's code may have made it.
  using _inheritable = new OwnedDescriptor(libc.fcntl(write.number, F_DUPFD, 50));
  const descriptors = [{ source: read.number, target: 9 }];
  const { output } = await outputOf(["/bin/ls", "-l", "/proc/self/fd"], { descriptors });
  const links = [...output.matchAll(/ (\d+) -> (\S+)/g)].map(([, number, to]) => [number, to]);
  const numbers = links.map(([number]) => number);
  // ls opens the folder itself, as 3.
  deepStrictEqual(numbers, ["0", "1", "2", "3", "9"]);
  deepStrictEqual(links[0], ["0", "/dev/null"]);
  deepStrictEqual(links[2], ["2", "/dev/null"]);
  deepStrictEqual(links[4], ["9", `pipe:[${fstatSync(read.number).ino}]`]);
}

/** Each source is the other's target: neither may be overwritten before it is used. */
async function descriptorsAreExchanged(): Promise<void> {
  const one = makePipe();
  const other = makePipe();
  const [first, second] = [one.write.number, other.write.number];
  const script = `echo first >/proc/self/fd/${first}; echo second >/proc/self/fd/${second}`;
  using spawn = new PreparedSpawn({
    path: "/bin/sh",
    argv: ["sh", "-c", script],
    environment: [],
    descriptors: [
      { source: first, target: second },
      { source: second, target: first },
    ],
  });
  const child = start(spawn);
  using process = child.process;
  one.write.close();
  other.write.close();
  spawn[Symbol.dispose]();
  deepStrictEqual(await ending(process), { kind: "exited", status: 0 });
  strictEqual(await readToEnd(one.read), "second\n");
  strictEqual(await readToEnd(other.read), "first\n");
  one.read.close();
  other.read.close();
}

async function leadsASession(): Promise<void> {
  const { output, processId } = await outputOf(["/bin/cat", "/proc/self/stat"]);
  const [, group, session] = output.slice(output.lastIndexOf(")") + 4).split(" ");
  deepStrictEqual([group, session], [String(processId), String(processId)]);
}

const childChecks: readonly Check[] = [
  { name: "a child has every signal at its default, and an empty mask", run: signalsAreDefault },
  { name: "a child has the descriptors of its plan and no other", run: onlyNamedDescriptors },
  { name: "descriptors may change places", run: descriptorsAreExchanged },
  { name: "a child leads a session and a process group", run: leadsASession },
  {
    name: "a child has the plan's environment and nothing else",
    run: async () => {
      const environment = ["ONE=1", "EMPTY=", "LONG=ä b=c"];
      const { output } = await outputOf(["/usr/bin/env"], { environment });
      strictEqual(output, `${environment.join("\n")}\n`);
    },
  },
  {
    name: "a child has the plan's working directory and argv[0]",
    run: async () => {
      using folder = temporaryFolder();
      const path = realpathSync(folder.path);
      const plan = { path: "/bin/sh", workingDirectory: path };
      const { output } = await outputOf(["-brake", "-c", 'pwd; echo "$0"'], plan);
      strictEqual(output, `${path}\n-brake\n`);
    },
  },
  {
    name: "a child has the ordinary scheduling class and nice value",
    run: async () => {
      const { output } = await outputOf(["/bin/cat", "/proc/self/stat"]);
      const fields = output.slice(output.lastIndexOf(")") + 2).split(" ");
      // proc_pid_stat(5): field 41 is the class; the first one after ")" is field 3.
      strictEqual(fields[41 - 3], "0");
    },
  },
];

async function startsAgain(): Promise<void> {
  const opened = openedFrom();
  {
    const pipe = makePipe();
    using read = pipe.read;
    using spawn = new PreparedSpawn({
      path: "/bin/sh",
      argv: ["sh", "-c", 'echo "$RUN"; exit 3'],
      environment: ["A=b", "RUN=0000"],
      descriptors: [{ source: pipe.write.number, target: 1 }],
    });
    for (let run = 1; run <= 20; run++) {
      spawn.replaceVariable(1, `RUN=${String(run).padStart(4, "0")}`);
      using child = start(spawn).process;
      deepStrictEqual(await ending(child), { kind: "exited", status: 3 });
    }
    throws(() => spawn.replaceVariable(1, "RUN=12345"), /Bug: the new variable differs in length/);
    throws(() => spawn.replaceVariable(2, "X"), /Bug: no variable 2/);
    spawn.setPath("/bin/true");
    using silent = start(spawn).process;
    deepStrictEqual(await ending(silent), { kind: "exited", status: 0 });
    pipe.write.close();
    spawn[Symbol.dispose]();
    const runs = (await readToEnd(read)).trim().split("\n");
    deepStrictEqual(
      runs.map(Number),
      Array.from({ length: 20 }, (_, index) => index + 1),
    );
  }
  deepStrictEqual(opened(), []);
}

/** What exec refuses, each with the number that the kernel gives. */
function refusals(folder: TemporaryFolder): [keyof typeof Errno, Partial<SpawnPlan>][] {
  writeFileSync(folder.file("plain"), "text");
  writeFileSync(folder.file("garbage"), "neither ELF nor #!");
  writeFileSync(folder.file("script"), "#!/none/interpreter\n");
  chmodSync(folder.file("garbage"), 0o755);
  chmodSync(folder.file("script"), 0o755);
  symlinkSync(folder.file("loop"), folder.file("loop"));
  mkdirSync(folder.file("folder"));
  const path = "/bin/true";
  return [
    ["ENOENT", { path: folder.file("none") }],
    ["ENOENT", { path: folder.file("script") }],
    ["ENOENT", { path: "" }],
    ["ENOENT", { path, workingDirectory: folder.file("none") }],
    ["EACCES", { path: folder.file("plain") }],
    ["EACCES", { path: folder.file("folder") }],
    ["ENOEXEC", { path: folder.file("garbage") }],
    ["ELOOP", { path: folder.file("loop") }],
    ["ENOTDIR", { path: folder.file("plain/x") }],
    ["ENOTDIR", { path, workingDirectory: folder.file("plain") }],
    ["ENAMETOOLONG", { path: folder.file("x".repeat(256)) }],
    ["E2BIG", { path, argv: ["true", "x".repeat(200_000)] }],
  ];
}

function refusalsHaveTheirNumber(): void {
  using folder = temporaryFolder();
  const opened = openedFrom();
  for (const [expected, plan] of refusals(folder)) {
    using spawn = new PreparedSpawn({
      path: "/bin/true",
      argv: ["true"],
      environment: [],
      descriptors: [],
      ...plan,
    });
    const result = spawn.spawn();
    ok(result.kind === "refused", `${expected} of ${JSON.stringify(plan).slice(0, 80)}`);
    strictEqual(errnoName(result.errno), expected, JSON.stringify(plan).slice(0, 200));
  }
  deepStrictEqual(ownChildren(), []);
  deepStrictEqual(opened(), []);
}

function childWithoutDescriptor(): void {
  using spawn = new PreparedSpawn({
    path: "/bin/sleep",
    argv: ["sleep", "1000"],
    environment: [],
    descriptors: [],
  });
  const limit = descriptorLimit();
  ok(limit !== undefined);
  setDescriptorLimit({ soft: lowestFreeDescriptor(), hard: limit.hard });
  const result = spawn.spawn();
  setDescriptorLimit(limit);
  deepStrictEqual(result, { kind: "refused", errno: Errno.EMFILE });
  deepStrictEqual(ownChildren(), []);
}

const startChecks: readonly Check[] = [
  { name: "one plan starts many children, and leaves nothing open", run: startsAgain },
  {
    name: "a start that exec refuses gives exec's error number, and no child",
    run: refusalsHaveTheirNumber,
    unlikeEmulator:
      "forks where a kernel would share memory until exec, so the child exits 127 instead",
  },
  {
    name: "a child that we cannot get a descriptor for does not stay",
    run: childWithoutDescriptor,
  },
  {
    name: "a plan that C would misread is refused, and leaves nothing open",
    run: () => {
      const opened = openedFrom();
      const plan = { path: "/bin/true", argv: ["true"], environment: [], descriptors: [] };
      throws(() => new PreparedSpawn({ ...plan, path: "/bin/true\0" }), RangeError);
      throws(() => new PreparedSpawn({ ...plan, argv: ["a\0"] }), RangeError);
      const closed = [
        { source: 0, target: 4 },
        { source: -1, target: 5 },
      ];
      throws(() => new PreparedSpawn({ ...plan, descriptors: closed }), { code: "EBADF" });
      deepStrictEqual(opened(), []);
    },
  },
  {
    name: "the children of many starts are all reaped",
    run: async () => {
      using spawn = new PreparedSpawn({
        path: "/bin/true",
        argv: ["true"],
        environment: [],
        descriptors: [],
      });
      const children = Array.from({ length: 50 }, () => start(spawn).process);
      for (const child of children) {
        deepStrictEqual(await ending(child), { kind: "exited", status: 0 });
        child.close();
      }
      deepStrictEqual(ownChildren(), []);
      strictEqual(statusField(readFileSync("/proc/self/status", "utf8"), "SigIgn").length, 16);
    },
  },
];

export const spawnChecks: readonly Check[] = [...childChecks, ...startChecks];
