/**
 * The worker on a host with cgroup v2: each machine in a cgroup of its own, its limits, and what
 * becomes of both when workers and VMMs die.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { makeTestGuest } from "../../../scripts/test-guest.ts";
import { hashPath } from "../../../src/image/nar.ts";
import type {
  VmDetail,
  VmMetrics,
  VmSpec,
  VmSummary,
  WorkerStatus,
} from "../../../src/vm/protocol.ts";
import { type Program, runProgram, startProgram } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import { hostlerPath, patienceMilliseconds } from "./stage.ts";
import { type Case, requireEqual, tellCases } from "./tell.ts";
import type { CgroupCase } from "./vm-cgroup-cases.ts";

type Limits = NonNullable<VmSpec["limits"]>;

const parent = "/sys/fs/cgroup/machines";
const folder = "/scenario";
const socket = "/run/vm.sock";
const configuration = join(folder, "vm.toml");
/** Of the guest, which does not say how much it has: its image does. */
const guestMebibytes = 32;

let worker: Program | undefined;
let image: { readonly imagePath: string; readonly hash: string } | undefined;

async function vm(...words: string[]): Promise<string> {
  const result = await runProgram([hostlerPath, "vm", ...words, "--control-socket", socket], {
    deadlineMilliseconds: patienceMilliseconds,
  });
  if (result.exitCode === 0) return result.stdout;
  throw new Error(`vm ${words.join(" ")}: ${result.stderr}\n${worker?.output.stderr}`);
}

const json = async <T>(...words: string[]) => JSON.parse(await vm(...words, "--json")) as T;

async function start(binary = hostlerPath, environment: Record<string, string> = {}) {
  worker = startProgram([binary, "vm", "worker", "--config", configuration, "-v"], { environment });
  await worker.said(/takes requests at/, patienceMilliseconds);
}

async function kill(): Promise<void> {
  if (worker === undefined) throw new Error("No worker runs");
  process.kill(worker.processId, "SIGKILL");
  await worker.ended();
}

async function makeImage(): Promise<void> {
  const imagePath = join(folder, "image");
  mkdirSync(imagePath);
  writeFileSync(join(imagePath, "vmlinux"), makeTestGuest({ pause: 100_000 }));
  const vmConfig = {
    payload: { kernel: "vmlinux", cmdline: "" },
    cpus: { boot_vcpus: 1 },
    memory: { size: guestMebibytes * 1024 ** 2, shared: true },
    serial: { mode: "Socket" },
  };
  writeFileSync(join(imagePath, "vm-config.json"), JSON.stringify(vmConfig));
  image = { imagePath, hash: await hashPath(imagePath) };
}

/** Declares these machines, with these limits, and no others. */
async function apply(machines: Readonly<Record<string, Limits>>): Promise<void> {
  const machine = Object.entries(machines).map(([name, limits]) => ({ name, ...image, limits }));
  const file = "/run/machines.json";
  writeFileSync(file, JSON.stringify({ machine }));
  await vm("apply", file);
}

const summary = async (name: string) => (await json<VmDetail>("show", name)).summary;
const cgroupOf = async (name: string) => (await json<VmDetail>("show", name)).cgroup ?? "none";

async function runs(name: string, isOther: (one: VmSummary) => boolean = () => true) {
  const look = async () => {
    const found = await summary(name);
    return found.phase === "running" && isOther(found) && found;
  };
  return await waitFor(`${name} to run (${worker?.output.stderr})`, look, patienceMilliseconds);
}

const read = (path: string, file: string) => readFileSync(join(path, file), "utf8").trim();
const groups = () => readdirSync(parent).filter((name) => /^[0-9a-f]{32}$/.test(name));

/** Of the disk that the artifacts are on: the second one. */
const device = () => readFileSync("/sys/block/vdb/dev", "utf8").trim();

const limits: Limits = {
  ...{ cpuWeight: 50, cpuMaxPercent: 90, memoryMaxMb: 300, ioWeight: 30, pidsMax: 80 },
  ioMax: { readBytesPerSecond: 1_000_000 },
};

const cases: Readonly<Record<CgroupCase, Case>> = {
  "the worker divides its cgroup": async () => {
    // KVM has a story of its own; here QEMU translates, which takes what can be held back.
    rmSync("/dev/kvm", { force: true });
    const lines = [
      ...[`vm_artifacts_dir = "${folder}/artifacts"`, 'run_dir = "/run/vms"'],
      ...[`control_socket = "${socket}"`, 'hypervisor = "qemu"'],
    ];
    writeFileSync(configuration, `${lines.join("\n")}\n`);
    await makeImage();
    await start();
    const status = await json<WorkerStatus>("status");
    const told = [status.cgroup, status.cgroup_controllers, status.cgroup_lacking];
    return requireEqual(told, [parent, ["cpu", "io", "memory", "pids"], null]);
  },

  "a machine is in a cgroup of its own, with its limits": async () => {
    await apply({ web: limits });
    const { pid, invocation } = await runs("web");
    const path = await cgroupOf("web");
    requireEqual(path, join(parent, invocation ?? ""));
    requireEqual(read(path, "cgroup.procs"), `${pid}`);
    const files = ["cpu.weight", "cpu.max", "memory.max", "io.weight", "pids.max", "io.max"];
    return requireEqual(
      files.map((file) => read(path, file)),
      [
        ...["50", "90000 100000", `${300 * 1024 ** 2}`, "default 30", "80"],
        `${device()} rbps=1000000 wbps=max riops=max wiops=max`,
      ],
    );
  },

  "what it uses is told by its cgroup, and it is held back": async () => {
    const look = async () => {
      const [measured] = await json<VmMetrics[]>("metrics", "web");
      const isHeldBack = (measured?.cpu_throttled_seconds ?? 0) > 0;
      return isHeldBack && measured;
    };
    const measured = await waitFor("it to be held back", look, patienceMilliseconds);
    requireEqual(measured.oom_kills, 0);
    requireEqual((measured.cgroup_memory_bytes ?? 0) > 0, true);
    requireEqual((measured.cpu_seconds ?? 0) > 0, true);
    return `${measured.cpu_throttled_seconds} s, ${measured.cgroup_memory_bytes} bytes`;
  },

  "limits are changed while it runs": async () => {
    const before = await runs("web");
    await apply({ web: { cpuMaxPercent: 300 } });
    const path = await cgroupOf("web");
    await waitFor("the change", () => read(path, "cpu.max") === "300000 100000");
    requireEqual((await runs("web")).pid, before.pid);
    const files = ["cpu.weight", "memory.max", "pids.max", "io.max"];
    return requireEqual(
      files.map((file) => read(path, file)),
      ["100", "max", "max", ""],
    );
  },

  "a worker that was killed adopts it where it is, with what was declared last": async () => {
    const before = await runs("web");
    const path = await cgroupOf("web");
    await kill();
    // As if it had been killed between its record and the cgroup.
    writeFileSync(join(path, "cpu.max"), "max 100000");
    await start();
    requireEqual((await runs("web")).pid, before.pid);
    requireEqual(await cgroupOf("web"), path);
    return requireEqual(read(path, "cpu.max"), "300000 100000");
  },

  "its VMM is replaced: a new cgroup, and the old one is gone": async () => {
    const path = await cgroupOf("web");
    await vm("replace-vmm", "web", "--wait");
    const next = await cgroupOf("web");
    requireEqual([existsSync(path), existsSync(next), next === path], [false, true, false]);
    return requireEqual(read(next, "cpu.max"), "300000 100000");
  },

  "its VMM dies: who was left in its cgroup is ended, and the next one has another": async () => {
    const before = await runs("web");
    const path = await cgroupOf("web");
    await using stray = startProgram(["sleep", "100000"]);
    writeFileSync(join(path, "cgroup.procs"), `${stray.processId}`);
    process.kill(before.pid ?? 0, "SIGKILL");
    await runs("web", ({ pid }) => pid !== before.pid);
    const { signal } = await stray.ended();
    requireEqual(signal, "SIGKILL");
    requireEqual(existsSync(path), false);
    return requireEqual(groups().length, 1);
  },

  "limits that cannot be meant are refused": async () => {
    await apply({ web: { cpuMaxPercent: 300 }, small: { memoryMaxMb: guestMebibytes + 127 } });
    const failed = async () => {
      const found = await summary("small");
      return found.phase === "failed" && found;
    };
    const { reason } = await waitFor("it to fail", failed, patienceMilliseconds);
    requireEqual(reason?.startsWith("limits.memoryMaxMb: expected at least 160"), true);
    requireEqual(groups().length, 1);
    return reason ?? "";
  },

  "a worker that is killed before the spawn leaves an empty cgroup, which goes": async () => {
    await apply({ web: { cpuMaxPercent: 300 } });
    await kill();
    await start("/usr/bin/hostler-faults", { HOSTLER_KILL_AT: "vm:spawn:cgroup" });
    await apply({ web: { cpuMaxPercent: 300 }, next: {} });
    await worker?.ended();
    requireEqual(groups().length, 2);
    await start();
    await runs("next");
    await runs("web");
    const paths = [await cgroupOf("web"), await cgroupOf("next")];
    return requireEqual(groups().toSorted(), paths.map((path) => basename(path)).toSorted());
  },

  "at the limit of memory the VMM alone is ended, and restarted": async () => {
    const before = await runs("next");
    const { restarts } = await runs("web");
    const path = await cgroupOf("next");
    // What no declaration may say: less than it has already, and no room to give anything back.
    const swap = join(path, "memory.swap.max");
    if (existsSync(swap)) writeFileSync(swap, "0");
    writeFileSync(join(path, "memory.max"), "4096");
    await runs("next", ({ pid }) => pid !== before.pid);
    requireEqual(existsSync(path), false);
    return requireEqual((await runs("web")).restarts, restarts);
  },

  "all is deleted, and no cgroup is left": async () => {
    await apply({});
    // Its guest hears no power button: each is ended when its grace is over.
    const isEmpty = async () => (await json<VmSummary[]>("list")).length === 0;
    await waitFor("the end of all", isEmpty, patienceMilliseconds);
    requireEqual(groups(), []);
    worker?.kill("SIGTERM");
    await worker?.ended(patienceMilliseconds);
    return requireEqual(existsSync(parent), false);
  },
};

const failures = await tellCases(cases);
if (failures > 0) console.log(worker?.output.stderr ?? "");
await worker?.[Symbol.asyncDispose]();
process.exitCode = failures === 0 ? 0 : 1;
