import { readFileSync } from "node:fs";
import type { KvmAnswer } from "../../ffi/kvm.ts";
import { formatDuration, type Milliseconds } from "../units/units.ts";
import type {
  CloudHypervisorProgram,
  HypervisorObservations,
  Observed,
  ProcessorObservation,
  QemuProgram,
} from "./choose.ts";

/** For what a program is asked; one that goes over a limit counts as absent, with that reason. */
export const observationLimits = {
  /**
   * Milliseconds for one answer. A program that is read from a busy disk for the first time, with
   * its hundred libraries, takes seconds; one that is given up is absent until the next start.
   */
  answerTime: 60_000 as Milliseconds,
  /** Milliseconds after which whoever waits for the answers should say so. */
  slowTime: 5_000 as Milliseconds,
  /** Bytes of one answer: QEMU's list of processors has 10 KB. */
  answerBytes: 256 * 1024,
};
export type ObservationLimits = typeof observationLimits;

export interface ObservationOptions {
  /** Absolute paths, where the configuration names them; else the first of PATH. */
  readonly programs: {
    readonly cloudHypervisor: string | undefined;
    readonly qemu: string | undefined;
  };
  readonly limits?: ObservationLimits;
}

/** Asks the programs of this host, and looks at its processor. Starts no machine. */
export async function observeHypervisors(
  options: ObservationOptions,
): Promise<HypervisorObservations> {
  const { programs, limits = observationLimits } = options;
  const [cloudHypervisor, qemu, processor] = await Promise.all([
    observeCloudHypervisor(programs.cloudHypervisor, limits),
    observeQemu(programs.qemu, limits),
    observeProcessor(),
  ]);
  return { cloudHypervisor, qemu, processor };
}

async function observeCloudHypervisor(
  named: string | undefined,
  limits: ObservationLimits,
): Promise<Observed<CloudHypervisorProgram>> {
  const path = named ?? Bun.which("cloud-hypervisor");
  if (path === null) return absent("there is no cloud-hypervisor in PATH");
  const answer = await ask([path, "--version"], limits);
  if (answer.kind === "failed") return absent(answer.reason);
  // "cloud-hypervisor v51.1" or "v51.1.0-dirty".
  const version = /^cloud-hypervisor v?(\S+)/.exec(answer.text)?.[1];
  if (version === undefined) return absent(`${path} --version names no cloud-hypervisor`);
  return { kind: "found", program: { hypervisor: "cloud-hypervisor", path, version } };
}

async function observeQemu(
  named: string | undefined,
  limits: ObservationLimits,
): Promise<Observed<QemuProgram>> {
  const path = named ?? Bun.which("qemu-system-x86_64");
  if (path === null) {
    return absent("there is no qemu-system-x86_64 in PATH (Debian: qemu-system-x86)");
  }
  const [told, machines, models] = await Promise.all([
    ask([path, "--version"], limits),
    ask([path, "-machine", "help"], limits),
    ask([path, "-cpu", "help"], limits),
  ]);
  for (const answer of [told, machines, models]) {
    if (answer.kind === "failed") return absent(answer.reason);
  }
  const version = /^QEMU emulator version (\d+\.\d+\.\d+)/.exec(textOf(told))?.[1];
  if (version === undefined) return absent(`${path} --version names no QEMU`);
  return {
    kind: "found",
    program: {
      hypervisor: "qemu",
      path,
      version,
      machineTypes: readMachineTypes(textOf(machines)),
      processorModels: readProcessorModels(textOf(models)),
    },
  };
}

const textOf = (answer: Answer) => (answer.kind === "told" ? answer.text : "");

/** The first word of each line that describes one. Exported for its tests. */
export function readMachineTypes(text: string): string[] {
  return [...text.matchAll(/^([A-Za-z0-9][\w.-]*) {2,}\S/gm)].map(([, type = ""]) => type);
}

/** The words after "x86" at the beginning of a line, or those of newer lists, which indent. */
export function readProcessorModels(text: string): string[] {
  const list = text.split(/^Recognized /m)[0] ?? "";
  return [...list.matchAll(/^(?:x86|) +([A-Za-z0-9][\w.-]*)(?: |$)/gm)].map(
    ([, model = ""]) => model,
  );
}

type Answer =
  | { readonly kind: "told"; readonly text: string }
  | { readonly kind: "failed"; readonly reason: string };

/** Runs a program that only says something. */
async function ask(words: readonly string[], limits: ObservationLimits): Promise<Answer> {
  const line = words.join(" ");
  try {
    const child = Bun.spawn([...words], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
      timeout: limits.answerTime,
      maxBuffer: limits.answerBytes,
      killSignal: "SIGKILL",
    });
    const [text, status] = await Promise.all([child.stdout.text(), child.exited]);
    if (status === 0) return { kind: "told", text };
    const wasKilled = child.signalCode === "SIGKILL";
    const limit = `${formatDuration(limits.answerTime)} or ${limits.answerBytes} bytes`;
    const how = wasKilled ? `did not end within ${limit}` : `ended with ${status}`;
    return { kind: "failed", reason: `${line} ${how}` };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { kind: "failed", reason: `${line} cannot be started: ${why}` };
  }
}

const absent = (reason: string) => ({ kind: "absent", reason }) as const;

/** /proc/cpuinfo of the first processor, and what /dev/kvm says when it is asked for a machine. */
export async function observeProcessor(): Promise<ProcessorObservation> {
  return { ...readProcessor(readFileSync("/proc/cpuinfo", "utf8")), kvm: await observeKvm() };
}

/** What /proc/cpuinfo says of the first processor: proc_cpuinfo(5). */
export function readProcessor(text: string): Pick<ProcessorObservation, "vendor" | "flags"> {
  const value = (key: string) => new RegExp(`^${key}\\s*: (.*)$`, "m").exec(text)?.[1] ?? "";
  return { vendor: value("vendor_id"), flags: value("flags").split(" ").filter(Boolean) };
}

/** It is imported here and not above: where memory may not be executable, ffi/ throws. */
async function observeKvm(): Promise<KvmAnswer> {
  try {
    const { askKvm } = await import("../../ffi/kvm.ts");
    return askKvm();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { kind: "not-asked", error: why };
  }
}
