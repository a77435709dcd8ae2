import { constants, openSync } from "node:fs";
import { isKernelLoaded, loadKernel, unloadKernel } from "../../../ffi/kexec.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { errnoMessage, errnoName } from "../../../ffi/system-call-error.ts";
import type { LoadedKernel, LoadReport } from "../protocol.ts";
import { judgeTarget, summarize, type Target, type TargetFinding } from "../target-findings.ts";
import { inspectTarget } from "./inspect-target.ts";

export interface LoadOrder {
  readonly kernel: string;
  readonly initrd: string | undefined;
  readonly commandLine: string;
  readonly force: boolean;
}

type WireFinding = LoadReport["findings"][number];

/** Looks at the target, and loads it when nothing speaks against it, or when that is overridden. */
export async function loadTarget(order: LoadOrder): Promise<LoadReport> {
  const kernel = openFile(order.kernel);
  if (!(kernel instanceof OwnedDescriptor)) return refused([kernel]);
  using file = kernel;
  const opened = order.initrd === undefined ? undefined : openFile(order.initrd);
  if (opened !== undefined && !(opened instanceof OwnedDescriptor)) return refused([opened]);
  using initrd = opened;
  // What is looked at is what is loaded: the paths may be other files a moment later.
  const target = await inspectTarget(
    {
      kernel: `/proc/self/fd/${file.number}`,
      initrd: initrd === undefined ? undefined : `/proc/self/fd/${initrd.number}`,
      commandLine: order.commandLine,
    },
    { kernelName: order.kernel },
  );
  const findings = judgeTarget(target);
  const { loads, forceable } = summarize(findings);
  if (!loads && !(order.force && forceable)) return refused(findings.map(encode));
  const result = loadKernel({ kernel: file, initrd, commandLine: order.commandLine });
  if (result < 0) return refused([...findings.map(encode), kernelSaidNo(result)]);
  return { loaded: true, kernel: describe(order, target), findings: findings.map(encode) };
}

const refused = (findings: WireFinding[]): LoadReport => ({
  loaded: false,
  kernel: null,
  findings,
});

function encode({ force, ...finding }: TargetFinding): WireFinding {
  return { ...finding, forceable: force };
}

function describe(order: LoadOrder, { image }: Target): LoadedKernel {
  const version = "version" in image ? (image.version ?? null) : null;
  return {
    path: order.kernel,
    initrd: order.initrd ?? null,
    command_line: order.commandLine,
    version,
    foreign: false,
  };
}

/** The file, or the finding that it cannot be opened. A named pipe does not keep us waiting. */
function openFile(path: string): OwnedDescriptor | WireFinding {
  try {
    return new OwnedDescriptor(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  } catch (error) {
    const { code = "error" } = error as { code?: string };
    return {
      check: "file",
      status: "fatal",
      found: `${path}: ${code}`,
      expected: "a file that luod can read",
      mend: "Give the path as luod sees it.",
      forceable: false,
    };
  }
}

function kernelSaidNo(result: number): WireFinding {
  return {
    check: "kexec_file_load",
    status: "fatal",
    found: `${errnoMessage(-result)} (${errnoName(-result)})`,
    expected: "a kernel that takes it",
    mend: mends[errnoName(-result)] ?? "See hostler doctor live-update.",
    forceable: false,
  };
}

const mends: Readonly<Record<string, string>> = {
  EPERM: "luod needs CAP_SYS_BOOT, and kernel.kexec_load_disabled must be 0.",
  EBUSY: "Another load is under way: try again.",
  ENOEXEC: "Give a bzImage (x86-64) or an Image (arm64).",
  EKEYREJECTED: "Sign the kernel with a key that this kernel trusts.",
  ENOKEY: "Sign the kernel with a key that this kernel trusts.",
};

const unloadMends: Readonly<Record<string, string>> = {
  EPERM: "luod needs CAP_SYS_BOOT, and kernel.kexec_load_disabled must be 0.",
  EBUSY: "A kernel is being loaded: try again.",
};

/** Why it cannot be unloaded, and the mend; undefined when nothing is loaded any more. */
export function unloadTarget(): { readonly why: string; readonly mend: string } | undefined {
  const result = unloadKernel();
  if (result >= 0) return undefined;
  const code = errnoName(-result);
  const mend = unloadMends[code] ?? "hostler doctor live-update says what this kernel lacks.";
  return { why: `${errnoMessage(-result)} (${code})`, mend };
}

/** What is loaded: as we loaded it, or by somebody else; undefined for nothing. */
export function currentlyLoaded(known: LoadedKernel | undefined): LoadedKernel | undefined {
  if (!isKernelLoaded()) return undefined;
  const unknown = { path: "(unknown)", initrd: null, command_line: "", version: null };
  return known ?? { ...unknown, foreign: true };
}
