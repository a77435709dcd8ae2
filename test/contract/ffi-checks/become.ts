/** What a process can do to itself only once; checks start it as `ffi-main.ts --become=NAME`. */
import { readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { libc } from "../../../ffi/c-library.ts";
import { capabilities, setCapabilities } from "../../../ffi/capabilities.ts";
import { loadKernel, rebootInto, unloadKernel } from "../../../ffi/kexec.ts";
import { layouts } from "../../../ffi/layouts.ts";
import { NativeMemory, nullAddress } from "../../../ffi/memory.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import {
  bindMount,
  makeDeviceNode,
  mountDeviceFolder,
  openPlace,
  separateMounts,
  setMountAttributes,
  unmount,
} from "../../../ffi/mount.ts";
import {
  becomeUser,
  changeDirectory,
  clearAmbientCapabilities,
  dropBoundingCapability,
  execute,
  forbidNewPrivileges,
  keepCapabilities,
  raiseAmbientCapability,
  resetSignals,
  scheduleOrdinarily,
  setFileModeMask,
  setNiceValue,
} from "../../../ffi/process.ts";
import { errnoName, SystemCallError } from "../../../ffi/system-call-error.ts";
import { outputOf } from "./check.ts";

const CAP_NET_BIND_SERVICE = 10;
const bindOnly = 1n << BigInt(CAP_NET_BIND_SERVICE);
/** CAP_SYS_BOOT */
const rebootOnly = 1n << 22n;

/** The two that remain: one of the lower half, and our highest, of the upper half where we can. */
export function keptCapabilities(): number[] {
  return [CAP_NET_BIND_SERVICE, capabilities().permitted.toString(2).length - 1];
}

/** @returns only when it cannot become that */
export async function become(name: string): Promise<void> {
  switch (name) {
    case "constrained":
      return becomeConstrained();
    case "nobody":
      return becomeNobody();
    case "nobody-who-reboots":
      return becomeNobodyWhoReboots();
    case "mounting":
      return becomeMounting();
    case "ordinary":
      return await becomeOrdinary();
    default:
      throw new Error(`Nothing is called ${name}`);
  }
}

function becomeConstrained(): void {
  blockSignals();
  const kept = keptCapabilities();
  const last = Number(readFileSync("/proc/sys/kernel/cap_last_cap", "utf8"));
  for (let capability = 0; capability <= last; capability++) {
    if (!kept.includes(capability)) dropBoundingCapability(capability);
  }
  setFileModeMask(0o027);
  changeDirectory("/");
  clearAmbientCapabilities();
  keepCapabilities();
  becomeUser({ user: 65_533, group: 65_532, groups: [1_000_001, 1_000_002] });
  const mask = kept.reduce((sum, capability) => sum | (1n << BigInt(capability)), 0n);
  setCapabilities({ effective: mask, permitted: mask, inheritable: mask });
  for (const capability of kept) raiseAmbientCapability(capability);
  forbidNewPrivileges();
  resetSignals();
  const errno = execute("/bin/cat", ["cat", "/proc/self/status"], []);
  throw new SystemCallError("execve", errno);
}

function becomeNobody(): void {
  becomeUser({ user: 65_534, group: 65_534, groups: [] });
  console.log(
    refusalOf(() => setCapabilities({ effective: 0n, permitted: bindOnly, inheritable: 0n })),
  );
  console.log(refusalOf(() => raiseAmbientCapability(CAP_NET_BIND_SERVICE)));
  console.log(refusalOf(() => becomeUser({ user: 0, group: 0, groups: [] })));
  console.log(`${setNiceValue(-5)} nice`);
  console.log(`${errnoName(execute("/none", ["none"], []))} execve`);
}

/**
 * Only after the kernel says that we may not: what follows would end the machine. Loading comes
 * first, because a mistake there does no harm.
 */
function becomeNobodyWhoReboots(): void {
  becomeUser({ user: 65_534, group: 65_534, groups: [] });
  if ((capabilities().permitted & rebootOnly) !== 0n) throw new Error("We could truly reboot.");
  const say = (result: number, what: string) => console.log(`${errnoName(-result)} ${what}`);
  using kernel = makeMemoryFile("kernel");
  say(loadKernel({ kernel, initrd: undefined, commandLine: "" }), "load");
  say(loadKernel({ kernel, initrd: kernel, commandLine: "kho=on" }), "load-with-initrd");
  say(unloadKernel(), "unload");
  const targets = ["kexec", "restart", "power-off", "halt"] as const;
  for (const target of targets) say(rebootInto(target), target);
}

/** Mounts of its own, which end with it: what each call has made, and what it refuses. */
function becomeMounting(): void {
  const folder = "/tmp";
  const place = openPlace("/dev/zero");
  separateMounts();
  mountDeviceFolder(folder, { inodes: 8 });
  setFileModeMask(0);
  const zero = statSync("/dev/zero").rdev;
  makeDeviceNode(`${folder}/zero`, { kind: "character", device: zero, mode: 0o640 });
  makeDeviceNode(`${folder}/block`, { kind: "block", device: 0x700, mode: 0o600 });
  const tell = (name: string) => {
    const { mode, rdev } = statSync(`${folder}/${name}`);
    console.log(`${name} ${mode.toString(8)} ${rdev.toString(16)}`);
  };
  tell("zero");
  tell("block");
  writeFileSync(`${folder}/bound`, "");
  bindMount("/dev/zero", `${folder}/bound`);
  tell("bound");
  unmount(`${folder}/bound`);
  tell("bound");
  const options = () => {
    const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
    const found = mounts.findLast((line) => line.startsWith(`tmpfs ${folder} `));
    return found?.split(" ")[3]?.split(",").slice(0, 4).join(",");
  };
  console.log(options());
  setMountAttributes(folder, { readOnly: true, noDevices: true, noPrograms: false }, "this");
  console.log(options());
  setMountAttributes(folder, { readOnly: false, noSetUser: false }, "recursive");
  console.log(options());
  console.log(refusalOf(() => setMountAttributes("/tmp/zero", { readOnly: true }, "this")));
  console.log(refusalOf(() => unmount("/tmp/zero")));
  console.log(refusalOf(() => openPlace("/none")));
  console.log(`${readlinkSync(`/proc/self/fd/${place.number}`)} open`);
}

/** As a launcher may have been started with. */
function blockSignals(): void {
  const SIG_BLOCK = 0;
  const set = new NativeMemory(layouts.sigset_t.size);
  // Signals 1 to 24: those that the C library needs for changing the user of all threads are not.
  set.bytes.fill(0xff, 0, 3);
  libc.pthread_sigmask(SIG_BLOCK, set.address, nullAddress);
}

function refusalOf(attempt: () => void): string {
  try {
    attempt();
    return "done";
  } catch (error) {
    return error instanceof SystemCallError ? `${error.code} ${error.call}` : String(error);
  }
}

/** The class of this process: 0 is ordinary, 1 is first in, first out. */
function schedulingClass(stat: string): string | undefined {
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[41 - 3];
}

async function becomeOrdinary(): Promise<void> {
  console.log(`own class ${schedulingClass(readFileSync("/proc/thread-self/stat", "utf8"))}`);
  const { output } = await outputOf(["/bin/cat", "/proc/self/stat"]);
  console.log(`child's class ${schedulingClass(output)}`);
  scheduleOrdinarily();
  console.log(`own class ${schedulingClass(readFileSync("/proc/thread-self/stat", "utf8"))}`);
}
