import type { KvmAnswer } from "../../ffi/kvm.ts";
import { nearest } from "../units/nearest.ts";
import type { Accelerator, HypervisorName, HypervisorProgram } from "./driver.ts";

/**
 * Which hypervisor a host is to use: pure, over what was observed. cloud-hypervisor where it is and
 * the processor helps; QEMU where it is, with the processor or without.
 */

/** A program as it was asked; `reason` says why it cannot be used. */
export type Observed<Program> =
  | { readonly kind: "found"; readonly program: Program }
  | { readonly kind: "absent"; readonly reason: string };

export interface QemuProgram extends HypervisorProgram {
  readonly hypervisor: "qemu";
  /** As `-machine help` lists them. */
  readonly machineTypes: readonly string[];
  /** As `-cpu help` lists them. */
  readonly processorModels: readonly string[];
}

export interface CloudHypervisorProgram extends HypervisorProgram {
  readonly hypervisor: "cloud-hypervisor";
}

/** What the processor and the kernel offer to a hypervisor. */
export interface ProcessorObservation {
  /** "GenuineIntel", "AuthenticAMD": /proc/cpuinfo. */
  readonly vendor: string;
  readonly flags: readonly string[];
  readonly kvm: KvmAnswer;
}

/** The only version of KVM's interface that there is to be: Documentation/virt/kvm/api.rst. */
export const KVM_API_VERSION = 12;

export interface HypervisorObservations {
  readonly cloudHypervisor: Observed<CloudHypervisorProgram>;
  readonly qemu: Observed<QemuProgram>;
  readonly processor: ProcessorObservation;
}

/** What an operator asks for; undefined where the host is to decide. */
export interface Wish {
  readonly hypervisor: HypervisorName | undefined;
  readonly accelerator: Accelerator | undefined;
  readonly machineType: string | undefined;
  readonly processorModel: string | undefined;
}

export const noWish: Wish = {
  hypervisor: undefined,
  accelerator: undefined,
  machineType: undefined,
  processorModel: undefined,
};

export type Choice =
  | {
      readonly kind: "chosen";
      readonly program: HypervisorProgram;
      readonly accelerator: Accelerator;
      /** To be recorded with each machine: a newer program would choose otherwise. */
      readonly machineType: string | undefined;
      readonly processorModel: string | undefined;
      /** Why this one. */
      readonly reason: string;
      /** What everybody who looks at the host's state is told. */
      readonly warning: string | undefined;
    }
  | { readonly kind: "refused"; readonly reason: string };

/** Why KVM cannot be used; undefined where it can. */
export function kvmRefusal(processor: ProcessorObservation): string | undefined {
  const { flags, kvm } = processor;
  if (kvm.kind === "not-opened") return `/dev/kvm does not open: ${kvm.error}`;
  // A device without either is no real one (PVM): it opens, and makes machines in which ordinary
  // kernels die.
  if (!flags.includes("vmx") && !flags.includes("svm")) {
    return "the processor shows neither vmx nor svm, so that /dev/kvm is no real one";
  }
  if (kvm.kind === "not-asked") {
    return `/dev/kvm is none: KVM_GET_API_VERSION was refused with ${kvm.error}`;
  }
  if (kvm.apiVersion !== KVM_API_VERSION) {
    return `/dev/kvm has version ${kvm.apiVersion} of its interface, expected ${KVM_API_VERSION}`;
  }
  if (kvm.machineRefusal !== undefined) {
    return `/dev/kvm makes no machine: KVM_CREATE_VM was refused with ${kvm.machineRefusal}`;
  }
  return capabilityRefusal(kvm);
}

/** Both hypervisors have KVM do the local APICs alone, which Linux can since 4.4. */
function capabilityRefusal(kvm: Extract<KvmAnswer, { kind: "answered" }>): string | undefined {
  const lacking = [
    ...(kvm.userMemory ? [] : ["KVM_CAP_USER_MEMORY"]),
    ...(kvm.splitIrqchip ? [] : ["KVM_CAP_SPLIT_IRQCHIP"]),
  ];
  return lacking.length === 0 ? undefined : `/dev/kvm lacks ${lacking.join(" and ")}`;
}

/** @returns what to use, or why nothing can be used */
export function chooseHypervisor(observed: HypervisorObservations, wish: Wish): Choice {
  const refusal = kvmRefusal(observed.processor);
  if (wish.accelerator === "kvm" && refusal !== undefined) {
    return { kind: "refused", reason: `KVM was asked for, and ${refusal}` };
  }
  const accelerator = wish.accelerator ?? (refusal === undefined ? "kvm" : "tcg");
  const cloudHypervisor = chooseCloudHypervisor(observed, wish, accelerator);
  if (cloudHypervisor.kind === "chosen") return cloudHypervisor;
  if (wish.hypervisor === "cloud-hypervisor") return cloudHypervisor;
  const qemu = chooseQemu(observed, wish, accelerator);
  if (qemu.kind === "chosen") {
    return { ...qemu, reason: `${qemu.reason}; cloud-hypervisor: ${cloudHypervisor.reason}` };
  }
  if (wish.hypervisor === "qemu") return qemu;
  return {
    kind: "refused",
    reason: `cloud-hypervisor: ${cloudHypervisor.reason}; QEMU: ${qemu.reason}`,
  };
}

function chooseCloudHypervisor(
  { cloudHypervisor, processor }: HypervisorObservations,
  wish: Wish,
  accelerator: Accelerator,
): Choice {
  if (wish.hypervisor === "qemu") return { kind: "refused", reason: "QEMU was asked for" };
  if (cloudHypervisor.kind === "absent") return refused(cloudHypervisor.reason);
  if (accelerator === "tcg") {
    const why = wish.accelerator === "tcg" ? "TCG was asked for" : kvmRefusal(processor);
    return refused(`it needs KVM, and ${why}`);
  }
  if (wish.machineType !== undefined || wish.processorModel !== undefined) {
    return refused("it has one machine type and one processor model, and another was asked for");
  }
  return {
    kind: "chosen",
    program: cloudHypervisor.program,
    accelerator: "kvm",
    machineType: undefined,
    processorModel: undefined,
    reason: "its program is there, and KVM is real",
    warning: undefined,
  };
}

const refused = (reason: string): Choice => ({ kind: "refused", reason });

function chooseQemu(
  { qemu, processor }: HypervisorObservations,
  wish: Wish,
  accelerator: Accelerator,
): Choice {
  if (qemu.kind === "absent") return refused(qemu.reason);
  const { machineTypes, processorModels } = qemu.program;
  const machineType = wish.machineType ?? newestMachineType(machineTypes);
  if (machineType === undefined || !machineTypes.includes(machineType)) {
    const offered = machineTypes.filter((type) => type.startsWith("pc-q35-")).slice(0, 3);
    const wanted = machineType ?? "a machine type pc-q35-N.M";
    return refused(`it has not ${wanted}, but ${offered.join(", ") || "no q35 at all"}`);
  }
  const processorModel = wish.processorModel ?? usualModel(processor, accelerator);
  // "host" is offered with KVM alone, whether it is listed or not.
  if (processorModel !== "host" && !processorModels.includes(processorModel)) {
    const meant = nearest(processorModel, processorModels);
    const mend = meant === undefined ? "see -cpu help" : `did you mean ${meant}?`;
    return refused(`it has no processor model ${processorModel}: ${mend}`);
  }
  const { program } = qemu;
  const common = { kind: "chosen", program, accelerator, machineType, processorModel } as const;
  if (accelerator === "kvm") {
    return { ...common, reason: "QEMU with KVM", warning: undefined };
  }
  const why = wish.accelerator === "tcg" ? "TCG was asked for" : kvmRefusal(processor);
  return {
    ...common,
    reason: "QEMU with TCG",
    warning:
      `Virtual machines run WITHOUT KVM, translated by QEMU (TCG), ten times slower and more: ` +
      `${why}`,
  };
}

/** The newest of pc-q35-N.M; undefined where there is none. */
export function newestMachineType(types: readonly string[]): string | undefined {
  const versioned = types.flatMap((type) => {
    const [, major, minor] = /^pc-q35-(\d+)\.(\d+)$/.exec(type) ?? [];
    return major === undefined ? [] : [{ type, major: Number(major), minor: Number(minor) }];
  });
  return versioned.toSorted((a, b) => b.major - a.major || b.minor - a.minor)[0]?.type;
}

/**
 * What each model needs of the processor: those of its kind that came before have less. The last
 * one is for all that have SSE4.2 and POPCNT, which our own file needs as a guest's agent, whoever
 * made them: with KVM a guest sees the maker of its host, whatever the model says.
 */
const modelsOfKvm = [
  { model: "EPYC-v1", vendor: "AuthenticAMD", needs: ["avx2", "bmi2", "clzero", "sha_ni"] },
  { model: "Nehalem-v1", vendor: undefined, needs: ["sse4_2", "popcnt", "ssse3", "cx16"] },
] as const;

/**
 * A model that is the same on the next host and after the next update: the oldest of its maker's
 * that ordinary distributions still start on; what every processor has, where that is not offered.
 */
function usualModel(processor: ProcessorObservation, accelerator: Accelerator): string {
  // The oldest that our own file runs on, as a guest's agent: qemu64 lacks SSE4.2 and POPCNT.
  if (accelerator === "tcg") return "Nehalem-v1";
  const { vendor, flags } = processor;
  const fits = modelsOfKvm.find(
    (one) => (one.vendor ?? vendor) === vendor && one.needs.every((flag) => flags.includes(flag)),
  );
  return fits?.model ?? "kvm64-v1";
}
