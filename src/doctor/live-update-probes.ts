/**
 * Looks for live update on this host. Of all that is done here only the device's opening is seen
 * by others: for that moment nobody else can open it, for which luod and systemd are prepared.
 */
import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
} from "node:fs";
import { release } from "node:os";
import { gunzipSync } from "node:zlib";
import { parseKernelConfiguration } from "../units/linux-kernel.ts";
import type {
  DeviceFindings,
  DeviceNode,
  DeviceOpening,
  FoundConfiguration,
  HolderSearch,
  InitFindings,
  KexecFindings,
  LiveUpdateFindings,
} from "./live-update-findings.ts";
import { probeOwnStatus, readNumber, readText } from "./probes.ts";

const devicePath = "/dev/liveupdate";

/** Largest .config that is unpacked; Debian's have 260 KiB. */
const configurationBytesLimit = 8 * 1024 * 1024;

/** So many descriptors of others are looked at for who holds the device. */
export const holderSearchLimit = 1_000_000;

/** PROC_PID_INIT_INO of include/linux/proc_ns.h. */
const initialPidNamespace = "pid:[4026531836]";

/** What is absent, or not ours to read, is a finding and no error. */
export function probeLiveUpdate(): LiveUpdateFindings {
  const namespace = attempt(() => readlinkSync("/proc/self/ns/pid"));
  return {
    kernelRelease: release(),
    configuration: probeConfiguration(),
    commandLine: readText("/proc/cmdline"),
    device: probeDevice(),
    kernelMessages: attempt(probeKernelMessages),
    kexec: probeKexec(),
    ownStatus: probeOwnStatus(),
    isInitialPidNamespace: namespace === undefined ? undefined : namespace === initialPidNamespace,
    init: probeInit(),
  };
}

function attempt<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

function probeConfiguration(): FoundConfiguration | undefined {
  const limit = { maxOutputLength: configurationBytesLimit };
  const own = "/proc/config.gz";
  const packed = attempt(() => gunzipSync(readFileSync(own), limit).toString("latin1"));
  const beside = `/boot/config-${release()}`;
  const text = packed ?? readText(beside);
  if (text === undefined) return undefined;
  const options = parseKernelConfiguration(text);
  if (options.size === 0) return undefined;
  return { options, source: packed === undefined ? beside : own };
}

function probeDevice(): DeviceFindings {
  const list = readText("/proc/misc");
  const listed = /^\s*(\d+) liveupdate$/m.exec(list ?? "")?.[1];
  const absent = list === undefined ? undefined : "absent";
  const minor = listed === undefined ? absent : Number(listed);
  const node = probeNode();
  // What bears the name and is another device stays closed: who knows what its opening does.
  const isOurs = node.kind === "device" && node.major === miscMajor && node.minor === minor;
  return { minor, node, opening: isOurs ? tryOpening() : { outcome: "untried" } };
}

/** The major number of what /proc/misc lists: include/uapi/linux/major.h, MISC_MAJOR. */
const miscMajor = 10;

function probeNode(): DeviceNode {
  const status = attempt(() => lstatSync(devicePath));
  if (status === undefined) return { kind: "absent" };
  if (!status.isCharacterDevice()) return { kind: "no device" };
  const { rdev, mode, uid } = status;
  return { kind: "device", ...splitDevice(rdev), mode: mode & 0o7777, user: uid };
}

/** makedev(3): 12 bits of the major number stand between the two parts of the minor one. */
function splitDevice(device: number): { readonly major: number; readonly minor: number } {
  return { major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00) };
}

/** Others hold it for a call: who holds it longer holds it still after all of /proc was read. */
function tryOpening(): DeviceOpening {
  const first = openDevice();
  if (first.outcome !== "refused" || first.code !== "EBUSY") return first;
  const holders = findHolders(devicePath);
  const second = openDevice();
  return second.outcome === "refused" ? { ...second, holders } : second;
}

function openDevice(): DeviceOpening {
  try {
    closeSync(openSync(devicePath, constants.O_RDWR | constants.O_NONBLOCK));
    return { outcome: "opened" };
  } catch (error) {
    const { code } = error as { code?: string };
    return { outcome: "refused", code: code ?? String(error), holders: undefined };
  }
}

/** @returns the processes that have a file of this path open, as far as we may see them */
export function findHolders(path: string, limit = holderSearchLimit): HolderSearch {
  const holders: HolderSearch["holders"][number][] = [];
  let isComplete = true;
  let looked = 0;
  const numbers = attempt(() => readdirSync("/proc").filter((name) => /^\d+$/.test(name)));
  for (const number of numbers ?? []) {
    const folder = `/proc/${number}/fd`;
    const descriptors = attempt(() => readdirSync(folder));
    // It has ended, or it is another user's: the latter may well be the holder.
    if (descriptors === undefined) isComplete &&= attempt(() => lstatSync(folder)) === undefined;
    for (const descriptor of descriptors ?? []) {
      looked += 1;
      if (looked > limit) return { holders, isComplete: false };
      // In another root it has a longer path.
      if (!attempt(() => readlinkSync(`${folder}/${descriptor}`))?.endsWith(path)) continue;
      const name = readText(`/proc/${number}/comm`) ?? "ended meanwhile";
      holders.push({ process: Number(number), name });
      break;
    }
  }
  return { holders, isComplete: isComplete && numbers !== undefined };
}

/** So many records of the kernel's log are looked at, and so many that are told. */
const messageSearchLimit = 100_000;
const messagesTold = 3;
const messageLettersTold = 200;
/** A record of /dev/kmsg that is longer is an error of the kernel's (EINVAL). */
const recordBytesLimit = 8_192;

/** Each read of /dev/kmsg gives one record, "6,339,5140900,-;text", and at the end EAGAIN. */
function probeKernelMessages(): string[] {
  const log = openSync("/dev/kmsg", constants.O_RDONLY | constants.O_NONBLOCK);
  const record = Buffer.alloc(recordBytesLimit);
  const found: string[] = [];
  try {
    for (let count = 0; count < messageSearchLimit; count += 1) {
      const length = readRecord(log, record);
      if (length === 0) break;
      const text = /^[^;]*;(.*)/.exec(record.toString("utf8", 0, length))?.[1] ?? "";
      if (/^(kho|luo|liveupdate|disabling liveupdate)\b/i.test(text)) {
        found.push(text.slice(0, messageLettersTold));
      }
    }
  } finally {
    closeSync(log);
  }
  return found.slice(-messagesTold);
}

/** @returns 0 at the end, and wherever it cannot be read on */
function readRecord(log: number, record: Buffer): number {
  try {
    return readSync(log, record);
  } catch (error) {
    // What was not read yet has been overwritten: the next read goes on behind it.
    if ((error as { code?: string }).code !== "EPIPE") return 0;
    return attempt(() => readSync(log, record)) ?? 0;
  }
}

function probeKexec(): KexecFindings {
  const disabled = readNumber("/proc/sys/kernel/kexec_load_disabled");
  const lockdown = readText("/sys/kernel/security/lockdown");
  return {
    isLoadDisabled: disabled === undefined ? undefined : disabled !== 0,
    loadLimit: readNumber("/proc/sys/kernel/kexec_load_limit_reboot"),
    lockdown: /\[(\w+)\]/.exec(lockdown ?? "")?.[1],
  };
}

/** The version of the systemd that runs stands in the name of the library that it has mapped. */
function probeInit(): InitFindings {
  const library = /\/libsystemd-(?:core|shared)-(\d+)/.exec(readText("/proc/1/maps") ?? "")?.[1];
  return {
    name: readText("/proc/1/comm"),
    systemdVersion: library === undefined ? undefined : Number(library),
  };
}
