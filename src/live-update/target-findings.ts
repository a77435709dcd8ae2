/**
 * Whether a kernel can be loaded, and keeps what is preserved. Pure: what was read of the target
 * and of this host comes in. A target that boots without live update has lost everything by the
 * time anybody sees it, so that what is not known has to be forced.
 */
import { formatBytes } from "../units/bytes.ts";
import {
  effectiveCommandLine,
  isBuiltIn,
  isReleaseAtLeast,
  type KernelConfiguration,
  kernelSwitch,
  splitKernelCommandLine,
} from "../units/linux-kernel.ts";
import type { Bytes } from "../units/units.ts";
import {
  type ArmImage,
  type BzImage,
  type FileLength,
  type KernelImage,
  leastBootProtocol,
  type Packing,
  packingOf,
} from "./kernel-image.ts";

/** All that is known of what shall be loaded, and of the host that loads it. */
export interface Target {
  readonly image: KernelImage | { readonly kind: "unreadable"; readonly reason: string };
  readonly configuration: TargetConfiguration;
  readonly initrd: Initrd;
  readonly commandLine: string;
  readonly host: HostPolicy;
}

export type TargetConfiguration =
  | {
      readonly kind: "known";
      readonly options: KernelConfiguration;
      /** Where it was read: "the kernel itself", or a path. */
      readonly source: string;
    }
  | { readonly kind: "unknown"; readonly reason: string };

export type Initrd =
  | { readonly kind: "none" }
  | { readonly kind: "unreadable"; readonly reason: string }
  | { readonly kind: "read"; readonly size: Bytes; readonly begin: Uint8Array };

/** What the running kernel lets load; undefined where it does not tell. */
export interface HostPolicy {
  readonly architecture: "x64" | "arm64";
  /** As /proc/version has it, from the release on. */
  readonly version: string | undefined;
  readonly lockdown: string | undefined;
  readonly isLoadDisabled: boolean | undefined;
  /** How often a kernel may still be loaded or unloaded; -1 for no limit. */
  readonly loadLimit: number | undefined;
  /** CONFIG_KEXEC_SIG and CONFIG_KEXEC_SIG_FORCE of the running kernel. */
  readonly signatures: "required" | "checked" | "not checked" | undefined;
}

export type TargetStatus = "ok" | "warning" | "fatal" | "unknown";

export interface TargetFinding {
  readonly check: string;
  readonly status: TargetStatus;
  readonly found: string;
  readonly expected: string;
  /** What to change; null when nothing needs to be. */
  readonly mend: string | null;
  /** Whether `--force` overrides it; false where the kernel would refuse all the same. */
  readonly force: boolean;
}

/** Every finding, ok ones as well, in the order in which they are mended best. */
export function judgeTarget(target: Target): TargetFinding[] {
  const { image, commandLine, configuration } = target;
  const format = judgeFormat(target);
  if (image.kind !== "bzImage" && image.kind !== "Image") {
    // What is no kernel has nothing more to tell.
    return [format, judgeInitrd(target), judgeAllowed(target.host)];
  }
  const ofImage = image.kind === "bzImage" ? judgeHeader(image) : [];
  return [
    format,
    judgeLength(image.length),
    ...ofImage,
    judgeVersion(target, image),
    judgeCommandLineLength(image, commandLine),
    ...judgeSwitches(target),
    ...judgeConfiguration(configuration, releaseOf(image.version)),
    judgeInitrd(target),
    judgeAllowed(target.host),
    judgeSignature(image, target.host),
  ];
}

/** Whether a load may go on: as it is, or when it is forced. */
export function summarize(findings: readonly TargetFinding[]): {
  readonly loads: boolean;
  readonly forceable: boolean;
} {
  const hindering = findings.filter(isHindering);
  return {
    loads: hindering.length === 0,
    forceable: hindering.every(({ force }) => force),
  };
}

/** Whether the target is not loaded because of it, unless it is forced. */
export function isHindering({ status }: Pick<TargetFinding, "status">): boolean {
  return status === "fatal" || status === "unknown";
}

type Judged = Omit<TargetFinding, "mend" | "force"> & {
  readonly mend: string;
  readonly force?: boolean;
};

/** What is unknown may always be forced; what is fatal only where it says so. */
function finding(judged: Judged): TargetFinding {
  const { check, status, found, expected, mend } = judged;
  const force = judged.force ?? (status === "unknown" || status === "warning");
  return { check, status, found, expected, mend: status === "ok" ? null : mend, force };
}

function judgeFormat({ image, host }: Target): TargetFinding {
  const isX86 = host.architecture === "x64";
  const expected = isX86 ? "a bzImage" : "an arm64 Image";
  const mend = isX86
    ? "Name a bzImage, such as /boot/vmlinuz or arch/x86/boot/bzImage."
    : "Name an arm64 Image, such as arch/arm64/boot/Image.";
  const judged = (status: TargetStatus, found: string, other = mend) =>
    finding({ check: "format", status, found, expected, mend: other });
  switch (image.kind) {
    case "unreadable":
      return judged("fatal", `cannot be read: ${image.reason}`);
    case "none":
      return judged("fatal", image.found);
    case "gzip":
      return judged("fatal", "a file packed by gzip, without a kernel in it");
    case "zboot":
      return isX86
        ? judged("fatal", "an arm64 kernel in an EFI program (zboot)")
        : judged(
            "unknown",
            `an EFI program that unpacks a kernel (zboot, ${image.packing}): it is not looked into`,
            "Load the Image that it was made of; kexec_file_load(2) takes no zboot.",
          );
    case "bzImage":
      return isX86 ? judged("ok", "a bzImage") : judged("fatal", "an x86 kernel (bzImage)");
    case "Image":
      return judgeArmFormat(image, isX86, judged);
  }
}

function judgeArmFormat(
  image: ArmImage,
  isX86: boolean,
  judged: (status: TargetStatus, found: string, mend?: string) => TargetFinding,
): TargetFinding {
  if (isX86) return judged("fatal", "an arm64 kernel (Image)");
  if (image.memoryBytes === 0n) return judged("fatal", "an arm64 Image older than Linux 3.17");
  if (!image.isPacked) return judged("ok", "an arm64 Image");
  const mend = "Unpack it (gzip -d), and load the Image; kexec_file_load(2) unpacks none.";
  return judged("unknown", "an arm64 Image packed by gzip", mend);
}

function judgeLength({ actual, least }: FileLength): TargetFinding {
  const found = `${actual} bytes`;
  const mend = "The file is cut off: copy it again, and compare its checksum.";
  if (least === undefined) {
    // Without the EFI stub an Image tells what it takes of memory, which is more than its file.
    return finding({ check: "complete", status: "warning", found, expected: "not told", mend });
  }
  const status = actual < least ? "fatal" : "ok";
  return finding({ check: "complete", status, found, expected: `${least} bytes or more`, mend });
}

/** What bzImage64_probe() of the running kernel asks for, which no force changes. */
function judgeHeader(image: BzImage): TargetFinding[] {
  const { bootProtocol, is64Bit, isLoadableAbove4GiB, isLoadedHigh } = image;
  const isRecent = bootProtocol >= leastBootProtocol && isLoadedHigh;
  const flag = (isSet: boolean) => (isSet ? "yes" : "no");
  return [
    finding({
      check: "boot_protocol",
      status: isRecent ? "ok" : "fatal",
      found: `${bootProtocol >> 8}.${bootProtocol & 0xff}${isLoadedHigh ? "" : ", a zImage"}`,
      expected: "2.12 or later",
      mend: "Take a kernel of 6.19 or later; this one is from before 3.8.",
    }),
    finding({
      check: "64_bit",
      status: is64Bit ? "ok" : "fatal",
      found: flag(is64Bit),
      expected: "yes",
      mend: "Take a kernel for x86-64 (CONFIG_64BIT).",
    }),
    finding({
      check: "above_4g",
      status: isLoadableAbove4GiB ? "ok" : "fatal",
      found: flag(isLoadableAbove4GiB),
      expected: "yes",
      mend: "Build the kernel with CONFIG_RELOCATABLE=y; kexec_file_load(2) takes no other.",
    }),
  ];
}

function releaseOf(version: string | undefined): string | undefined {
  return version?.split(" ", 1)[0];
}

function judgeVersion({ configuration, host }: Target, image: BzImage | ArmImage): TargetFinding {
  const { version } = image;
  const expected = "6.19 or later";
  const common = { check: "version", expected };
  const release = releaseOf(version);
  if (release === undefined || version === undefined) {
    const mend = "The file names no version: make sure of it by its name.";
    return finding({ ...common, status: "warning", found: "not told", mend });
  }
  const found = `${release}; ${compareVersions(version, host.version)}`;
  const hasLiveUpdate =
    configuration.kind === "known" && isBuiltIn(configuration.options, "CONFIG_LIVEUPDATE");
  const isOld = !isReleaseAtLeast(release, "6.19") && !hasLiveUpdate;
  const mend = "Take a kernel of 6.19 or later: those before have no live update.";
  return finding({ ...common, status: isOld ? "fatal" : "ok", found, mend, force: true });
}

/** Whether two kernels understand each other's memory, only they know: this is information. */
function compareVersions(version: string, running: string | undefined): string {
  if (running === undefined) return "the running kernel does not tell its own";
  if (isSameBuild(version, running)) return "the very kernel that runs";
  const release = releaseOf(running);
  if (release === releaseOf(version)) return "another build than the one that runs";
  return `${release} runs`;
}

/** @param running as /proc/version has it: with the compiler, which a bzImage does not name */
export function isSameBuild(version: string, running: string): boolean {
  const build = /#\d.*$/.exec(version)?.[0].replace(/,.*$/, "").trim();
  const isSameRelease = releaseOf(version) === releaseOf(running);
  return isSameRelease && build !== undefined && running.trimEnd().endsWith(build);
}

/** arch/arm64/include/uapi/asm/setup.h; what is longer is cut off there without a word. */
const armCommandLineLimit = 2048;

function judgeCommandLineLength(image: BzImage | ArmImage, commandLine: string): TargetFinding {
  const limit = image.kind === "bzImage" ? image.commandLineLimit : armCommandLineLimit;
  const length = Buffer.byteLength(commandLine) + 1;
  const hasEnd = commandLine.includes("\0");
  return finding({
    check: "command_line_length",
    status: length > limit || hasEnd ? "fatal" : "ok",
    found: hasEnd ? "a NUL within it" : `${length} bytes with the NUL that ends it`,
    expected: `${limit} bytes or less`,
    mend: hasEnd ? "Take the NUL out of the command line." : "Shorten the command line.",
  });
}

function judgeSwitches({ commandLine, configuration }: Target): TargetFinding[] {
  const options = configuration.kind === "known" ? configuration.options : undefined;
  const effective = effectiveCommandLine(options, commandLine);
  return [
    judgeSwitch("liveupdate", effective, false),
    judgeSwitch(
      "kho",
      effective,
      options && isBuiltIn(options, "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT"),
    ),
  ];
}

/** @param isOnByDefault undefined where the configuration is not known */
function judgeSwitch(
  name: "liveupdate" | "kho",
  commandLine: string,
  isOnByDefault: boolean | undefined,
): TargetFinding {
  const { kernel, init } = splitKernelCommandLine(commandLine);
  const setting = kernelSwitch(kernel, name);
  const words = kernel.filter((parameter) => parameter.name === name);
  const written = words
    .map(({ value }) => (value === undefined ? name : `${name}=${value}`))
    .join(" ");
  const isLost = init.some((parameter) => parameter.name === name);
  const common = { check: `${name}_on`, expected: `${name}=on`, force: true };
  const behind = isLost ? `; what stands behind "--" is PID 1's` : "";
  if (setting === true) return finding({ ...common, status: "ok", found: written, mend: "" });
  if (setting === false) {
    const mend = `Take ${name}=off out of the command line: the last word wins.`;
    return finding({ ...common, status: "fatal", found: written, mend });
  }
  const isMalformed = words.length > 0;
  const said = isMalformed ? `${written}, which the kernel does not understand` : "not there";
  const found = `${said}${behind}`;
  const mend = isLost
    ? `Move ${name}=on in front of "--".`
    : `Add ${name}=on to the command line; without it everything that is preserved is lost.`;
  if (isOnByDefault === true) {
    const byDefault = "on by default (CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT)";
    return finding({ ...common, status: "ok", found: byDefault, mend });
  }
  if (isOnByDefault === undefined) {
    const unknown = `${found}; whether it is on by default is not known`;
    return finding({ ...common, status: "unknown", found: unknown, mend });
  }
  return finding({ ...common, status: "fatal", found, mend });
}

/** Options of the target without which live update ends with it. */
const wantedOptions: readonly {
  readonly option: string;
  /** The first release that has the option. */
  readonly since: string;
  readonly lacking: TargetStatus;
  readonly mend: string;
}[] = [
  {
    option: "CONFIG_LIVEUPDATE",
    since: "6.19",
    lacking: "fatal",
    mend: "Build the kernel with CONFIG_LIVEUPDATE=y.",
  },
  {
    option: "CONFIG_KEXEC_HANDOVER",
    since: "6.16",
    lacking: "fatal",
    mend:
      "Build the kernel with CONFIG_KEXEC_HANDOVER=y, which needs " +
      "CONFIG_DEFERRED_STRUCT_PAGE_INIT to be off; Debian's stock kernels have that on.",
  },
  {
    option: "CONFIG_LIVEUPDATE_MEMFD",
    since: "7.2",
    lacking: "fatal",
    mend: "Build the kernel with CONFIG_LIVEUPDATE_MEMFD=y: without it no memfd comes back.",
  },
  {
    option: "CONFIG_KEXEC_FILE",
    since: "3.17",
    lacking: "warning",
    mend: "Build the kernel with CONFIG_KEXEC_FILE=y, or there is no live update after this one.",
  },
];

function judgeConfiguration(
  configuration: TargetConfiguration,
  release: string | undefined,
): TargetFinding[] {
  const common = { check: "configuration", expected: "readable" };
  if (configuration.kind === "unknown") {
    const mend =
      "Build the kernel with CONFIG_IKCONFIG=y, or put its configuration beside it as " +
      "config-RELEASE.";
    return [finding({ ...common, status: "unknown", found: configuration.reason, mend })];
  }
  const { options, source } = configuration;
  const found = `${options.size} options, from ${source}`;
  const known = finding({ ...common, status: "ok", found, mend: "" });
  const judged = wantedOptions.map(({ option, since, lacking, mend }) => {
    const isThere = isBuiltIn(options, option);
    // Before it had an option of its own, it was a part of the others.
    const isYounger = release !== undefined && !isReleaseAtLeast(release, since);
    const isPart = !isThere && isYounger && option === "CONFIG_LIVEUPDATE_MEMFD";
    return finding({
      check: option.toLowerCase(),
      status: isThere || isPart ? "ok" : lacking,
      found: isPart ? `a part of CONFIG_LIVEUPDATE before ${since}` : (options.get(option) ?? "n"),
      expected: "y",
      mend,
      force: true,
    });
  });
  return [known, ...judged];
}

/** What unpacks an initrd in the kernel, by how it is packed. */
const initrdOptions: Readonly<Record<Packing, string>> = {
  gzip: "CONFIG_RD_GZIP",
  zstd: "CONFIG_RD_ZSTD",
  xz: "CONFIG_RD_XZ",
  lz4: "CONFIG_RD_LZ4",
  lzma: "CONFIG_RD_LZMA",
  bzip2: "CONFIG_RD_BZIP2",
  lzop: "CONFIG_RD_LZO",
};

function judgeInitrd({ initrd, configuration }: Target): TargetFinding {
  const common = { check: "initrd", expected: "none, or a packed or plain cpio archive" };
  if (initrd.kind === "none") return finding({ ...common, status: "ok", found: "none", mend: "" });
  if (initrd.kind === "unreadable") {
    const mend = "Name a file that can be read, or leave --initrd out.";
    return finding({ ...common, status: "fatal", found: `cannot be read: ${initrd.reason}`, mend });
  }
  if (initrd.size === 0) {
    const mend = "Make it anew (update-initramfs -u, dracut), or leave --initrd out.";
    return finding({ ...common, status: "warning", found: "an empty file", mend });
  }
  const size = formatBytes(initrd.size);
  const packing = packingOf(initrd.begin);
  const isPlain = /^07070[12]$/.test(Buffer.from(initrd.begin.subarray(0, 6)).toString("latin1"));
  if (packing === undefined && !isPlain) {
    const isNewer = Buffer.from(initrd.begin.subarray(0, 4)).toString("hex") === "04224d18";
    const mend = isNewer
      ? "Pack it in the older format, which the kernel knows alone: lz4 -l."
      : "Make sure that the kernel knows what this is: it begins neither as cpio nor as packed.";
    const found = `${size} of ${isNewer ? "lz4's newer format" : "something unknown"}`;
    return finding({ ...common, status: "warning", found, mend });
  }
  const found = `${size}, ${packing ?? "cpio"}`;
  const needed = packing === undefined ? "CONFIG_BLK_DEV_INITRD" : initrdOptions[packing];
  const isUnpacked = configuration.kind !== "known" || isBuiltIn(configuration.options, needed);
  const mend = `Pack the initrd otherwise: the kernel lacks ${needed}.`;
  return finding({ ...common, status: isUnpacked ? "ok" : "warning", found, mend });
}

/** Neither setting goes back before the next boot. */
function judgeAllowed({ isLoadDisabled, loadLimit }: HostPolicy): TargetFinding {
  const common = { check: "kexec_allowed", expected: "yes" };
  const until = "Nothing but a reboot undoes it; take the setting out of /etc/sysctl.d.";
  if (isLoadDisabled === true) {
    const found = "no: kernel.kexec_load_disabled is 1";
    return finding({ ...common, status: "fatal", found, mend: until });
  }
  if (loadLimit === 0) {
    const found = "no: kernel.kexec_load_limit_reboot is used up";
    return finding({ ...common, status: "fatal", found, mend: until });
  }
  if (isLoadDisabled === undefined) {
    const mend = "See hostler doctor live-update: the running kernel may know no kexec.";
    return finding({ ...common, status: "warning", found: "not told by /proc/sys/kernel", mend });
  }
  const isLimited = loadLimit !== undefined && loadLimit > 0;
  const found = isLimited ? `yes, ${loadLimit} more times` : "yes";
  return finding({ ...common, status: "ok", found, mend: "" });
}

function judgeSignature({ isSigned }: BzImage | ArmImage, host: HostPolicy): TargetFinding {
  const isLocked = host.lockdown !== undefined && host.lockdown !== "none";
  const said = isSigned ? "signed" : "not signed";
  const common = { check: "signature" };
  if (host.signatures === "required") {
    const mend = "Take a kernel that is signed by a key of this host (sbsign).";
    const expected = "signed: CONFIG_KEXEC_SIG_FORCE of the running kernel";
    const status = isSigned ? "ok" : "fatal";
    return finding({ ...common, expected, status, found: said, mend });
  }
  if (isLocked) {
    const mend =
      "Take a kernel that is signed by a key of this host, or boot without lockdown. Where IMA " +
      "appraises kernels, its signature is in the file's attributes: then force it.";
    const expected = `signed: the running kernel is locked down (${host.lockdown})`;
    return finding({ ...common, expected, status: isSigned ? "ok" : "unknown", found: said, mend });
  }
  const expected = host.signatures === undefined ? "not known to be asked for" : "not asked for";
  return finding({ ...common, expected, status: "ok", found: said, mend: "" });
}
