/** Which hypervisor a host uses, over everything that may be observed. */
import { describe, expect, test } from "bun:test";
import { chmodSync, readdirSync, writeFileSync } from "node:fs";
import { askKvm, type KvmAnswer } from "../../../ffi/kvm.ts";
import {
  chooseHypervisor,
  type HypervisorObservations,
  kvmRefusal,
  newestMachineType,
  noWish,
  type ProcessorObservation,
  type Wish,
} from "../../../src/hypervisor/choose.ts";
import {
  type ObservationLimits,
  observationLimits,
  observeHypervisors,
  observeProcessor,
  readMachineTypes,
  readProcessor,
  readProcessorModels,
} from "../../../src/hypervisor/observe.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

const absent = { kind: "absent", reason: "there is none" } as const;
const cloudHypervisor = {
  kind: "found",
  program: { hypervisor: "cloud-hypervisor", path: "/usr/bin/cloud-hypervisor", version: "51.1" },
} as const;
const qemu = {
  kind: "found",
  program: {
    hypervisor: "qemu",
    path: "/usr/bin/qemu-system-x86_64",
    version: "10.0.2",
    machineTypes: ["microvm", "pc-q35-9.2", "pc-q35-10.0", "pc-q35-2.12"],
    processorModels: ["qemu64-v1", "kvm64-v1", "EPYC-v1", "Nehalem-v1", "max"],
  },
} as const;
const intel: ProcessorObservation = {
  vendor: "GenuineIntel",
  flags: ["vmx", "sse4_2", "popcnt", "ssse3", "cx16"],
  kvm: {
    kind: "answered",
    apiVersion: 12,
    userMemory: true,
    splitIrqchip: true,
    machineRefusal: undefined,
  },
};
const pvm: ProcessorObservation = { ...intel, flags: ["sse4_2"] };
/** KVM of a processor that has what it needs, with this answer. */
const withKvm = (kvm: KvmAnswer): ProcessorObservation => ({ ...intel, kvm });
const differing = (changed: Partial<Extract<KvmAnswer, { kind: "answered" }>>) =>
  withKvm({
    ...{ kind: "answered", apiVersion: 12, userMemory: true, splitIrqchip: true },
    machineRefusal: undefined,
    ...changed,
  });
const noDevice = withKvm({ kind: "not-opened", error: "ENOENT" });
const noMachine = differing({ machineRefusal: "EBUSY" });
const noIrqchip = differing({ splitIrqchip: false });

const choose = (observed: Partial<HypervisorObservations>, wish: Partial<Wish> = {}) =>
  chooseHypervisor(
    { cloudHypervisor: absent, qemu: absent, processor: intel, ...observed },
    { ...noWish, ...wish },
  );

describe("the choice", () => {
  test("is cloud-hypervisor where it is and KVM is real", () => {
    expect(choose({ cloudHypervisor, qemu })).toMatchObject({
      kind: "chosen",
      program: { hypervisor: "cloud-hypervisor", version: "51.1" },
      accelerator: "kvm",
      machineType: undefined,
      warning: undefined,
    });
  });

  test("is QEMU with KVM where that is real and cloud-hypervisor is not there", () => {
    const choice = choose({ qemu });
    expect(choice).toMatchObject({
      kind: "chosen",
      program: { hypervisor: "qemu", version: "10.0.2" },
      accelerator: "kvm",
      machineType: "pc-q35-10.0",
      processorModel: "Nehalem-v1",
      warning: undefined,
    });
    expect(choice.reason).toBe("QEMU with KVM; cloud-hypervisor: there is none");
  });

  test.each([
    [pvm, "neither vmx nor svm"],
    [noDevice, "/dev/kvm does not open: ENOENT"],
    [noMachine, "/dev/kvm makes no machine: KVM_CREATE_VM was refused with EBUSY"],
    [noIrqchip, "/dev/kvm lacks KVM_CAP_SPLIT_IRQCHIP"],
  ])("is QEMU without KVM where there is no real one, and loud", (processor, why) => {
    const choice = choose({ cloudHypervisor, qemu, processor });
    expect(choice).toMatchObject({
      kind: "chosen",
      program: { hypervisor: "qemu" },
      accelerator: "tcg",
      machineType: "pc-q35-10.0",
      processorModel: "Nehalem-v1",
    });
    if (choice.kind === "refused") throw new Error(choice.reason);
    expect(choice.warning).toContain("WITHOUT KVM");
    expect(choice.warning).toContain(why);
    expect(choice.reason).toContain("cloud-hypervisor: it needs KVM");
  });

  test("is none where neither program is there, with both reasons", () => {
    expect(choose({})).toEqual({
      kind: "refused",
      reason: "cloud-hypervisor: there is none; QEMU: there is none",
    });
  });

  test.each<[Partial<Wish>, object]>([
    [{ hypervisor: "qemu" }, { program: { hypervisor: "qemu" }, accelerator: "kvm" }],
    [{ accelerator: "tcg" }, { program: { hypervisor: "qemu" }, accelerator: "tcg" }],
    [{ machineType: "microvm" }, { program: { hypervisor: "qemu" }, machineType: "microvm" }],
    [{ processorModel: "host" }, { program: { hypervisor: "qemu" }, processorModel: "host" }],
    [{ processorModel: "max" }, { program: { hypervisor: "qemu" }, processorModel: "max" }],
  ])("follows the wish %j", (wish, wanted) => {
    expect(choose({ cloudHypervisor, qemu }, wish)).toMatchObject({ kind: "chosen", ...wanted });
  });

  test.each<[Partial<HypervisorObservations>, Partial<Wish>, string]>([
    [{ qemu, processor: pvm }, { accelerator: "kvm" }, "KVM was asked for"],
    [{ qemu }, { hypervisor: "cloud-hypervisor" }, "there is none"],
    [{ cloudHypervisor }, { hypervisor: "qemu" }, "there is none"],
    [
      { cloudHypervisor, processor: pvm },
      { hypervisor: "cloud-hypervisor" },
      "it needs KVM, and the processor shows neither",
    ],
    [{ qemu }, { machineType: "pc-q35-11.1" }, "it has not pc-q35-11.1, but pc-q35-9.2"],
    [{ qemu }, { processorModel: "Pentium-v9" }, "no processor model Pentium-v9"],
  ])("of %j is refused to the wish %j", (observed, wish, reason) => {
    const choice = choose(observed, wish);
    expect(choice.kind).toBe("refused");
    expect(choice.reason).toContain(reason);
  });

  test("of a model fits the processor that is there", () => {
    const amd = { ...intel, vendor: "AuthenticAMD" };
    const zen = { ...amd, flags: ["svm", "avx2", "bmi2", "clzero", "sha_ni"] };
    expect(choose({ qemu, processor: zen })).toMatchObject({ processorModel: "EPYC-v1" });
    // Such as an emulated one, or one before Zen: an agent of ours still runs in its guests.
    const older = { ...amd, flags: ["svm", "sse4_2", "popcnt", "ssse3", "cx16"] };
    expect(choose({ qemu, processor: older })).toMatchObject({ processorModel: "Nehalem-v1" });
    expect(choose({ qemu, processor: { ...amd, flags: ["svm"] } })).toMatchObject({
      processorModel: "kvm64-v1",
    });
  });
});

test("KVM is real with the processor's own word alone", () => {
  expect(kvmRefusal(intel)).toBeUndefined();
  expect(kvmRefusal({ ...intel, flags: ["svm"] })).toBeUndefined();
  expect(kvmRefusal(pvm)).toContain("neither vmx nor svm");
  // A word is a whole one.
  expect(kvmRefusal({ ...intel, flags: ["svm_lock"] })).toContain("neither vmx nor svm");
});

test.each<[ProcessorObservation, string]>([
  [withKvm({ kind: "not-asked", error: "ENOTTY" }), "KVM_GET_API_VERSION was refused with ENOTTY"],
  [differing({ apiVersion: 11 }), "has version 11 of its interface, expected 12"],
  [differing({ apiVersion: 13 }), "has version 13 of its interface, expected 12"],
  [noMachine, "KVM_CREATE_VM was refused with EBUSY"],
  [noIrqchip, "/dev/kvm lacks KVM_CAP_SPLIT_IRQCHIP"],
  [differing({ userMemory: false }), "/dev/kvm lacks KVM_CAP_USER_MEMORY"],
  [
    differing({ userMemory: false, splitIrqchip: false }),
    "/dev/kvm lacks KVM_CAP_USER_MEMORY and KVM_CAP_SPLIT_IRQCHIP",
  ],
])("KVM that cannot run a machine is told by what it lacks: %j", (processor, reason) => {
  expect(kvmRefusal(processor)).toContain(reason);
});

describe("/dev/kvm is asked", () => {
  test("what is not there, and what is something else", () => {
    expect(askKvm("/dev/nowhere")).toEqual({ kind: "not-opened", error: "ENOENT" });
    expect(askKvm("/dev/null")).toEqual({ kind: "not-asked", error: "ENOTTY" });
  });

  test("and leaves no descriptor, whatever it says", () => {
    const count = () => readdirSync("/proc/self/fd").length;
    const before = count();
    const answer = askKvm();
    expect(count()).toBe(before);
    if (answer.kind === "answered") expect(answer.apiVersion).toBe(12);
  });
});

test("the newest machine type is newest by number, and none is none", () => {
  expect(newestMachineType(["pc-q35-9.2", "pc-q35-10.0", "pc-q35-2.12"])).toBe("pc-q35-10.0");
  expect(newestMachineType(["pc-q35-2.9", "pc-q35-2.12"])).toBe("pc-q35-2.12");
  expect(newestMachineType(["q35", "microvm", "pc-i440fx-9.9"])).toBeUndefined();
});

const machineHelp = `Supported machines are:
microvm              microvm (i386)
pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)
pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)
pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)
isapc                ISA-only PC
none                 empty machine
`;
const modelHelp = `Available CPUs:
x86 486                   (alias configured by machine type)
x86 486-v1
x86 EPYC-v1               AMD EPYC Processor
x86 max                   Enables all features supported by the accelerator in the current host

Recognized CPUID flags:
  3dnow 3dnowext 3dnowprefetch abm ace2 ace2-en acpi adx aes amd-no-ssb
`;
const newModelHelp = `Available CPUs:
  486                   (alias configured by machine type)
  EPYC-v1               AMD EPYC Processor

Recognized CPUID flags:
  3dnow 3dnowext
`;

describe("what programs say", () => {
  test("of machine types", () => {
    expect(readMachineTypes(machineHelp)).toEqual([
      "microvm",
      "pc",
      "pc-i440fx-7.2",
      "q35",
      "pc-q35-7.2",
      "isapc",
      "none",
    ]);
  });

  test("of processor models, without flags", () => {
    expect(readProcessorModels(modelHelp)).toEqual(["486", "486-v1", "EPYC-v1", "max"]);
    expect(readProcessorModels(newModelHelp)).toEqual(["486", "EPYC-v1"]);
  });

  test("of the processor is that of the first", async () => {
    const text =
      "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu svm\n\nprocessor\t: 1\n";
    expect(readProcessor(text)).toEqual({ vendor: "AuthenticAMD", flags: ["fpu", "svm"] });
    expect(readProcessor("")).toEqual({ vendor: "", flags: [] });
    expect((await observeProcessor()).flags.length).toBeGreaterThan(0);
  });

  const script = (folder: TemporaryFolder, name: string, text: string) => {
    const path = folder.file(name);
    writeFileSync(path, `#!/bin/sh\n${text}\n`);
    chmodSync(path, 0o755);
    return path;
  };
  const observe = async (
    named: { readonly cloudHypervisor?: string; readonly qemu?: string },
    limits: ObservationLimits = observationLimits,
  ) => {
    const nowhere = "/nowhere/program";
    const programs = { cloudHypervisor: nowhere, qemu: nowhere, ...named };
    return await observeHypervisors({ programs, limits });
  };

  test("is taken from programs that answer", async () => {
    using folder = temporaryFolder();
    const answers = `case "$1" in
      --version) echo 'QEMU emulator version 7.2.22 (Debian 1:7.2)';;
      -machine) printf '%s' '${machineHelp}';;
      -cpu) printf '%s' '${modelHelp}';;
    esac`;
    const found = await observe({
      cloudHypervisor: script(folder, "cloud", "echo cloud-hypervisor v51.1.0-dirty"),
      qemu: script(folder, "qemu", answers),
    });
    expect(found.cloudHypervisor).toMatchObject({
      kind: "found",
      program: { version: "51.1.0-dirty" },
    });
    expect(found.qemu).toMatchObject({
      kind: "found",
      program: { version: "7.2.22", processorModels: ["486", "486-v1", "EPYC-v1", "max"] },
    });
  });

  test.each([
    ["is not there", undefined, "cannot be started"],
    ["fails", "exit 3", "ended with 3"],
    ["is another", "echo hello", "names no"],
    ["hangs", "exec sleep 1000", "did not end within"],
    ["never ends", "exec cat /dev/zero", "did not end within"],
  ])("a program that %s is absent, and told why", async (_name, text, reason) => {
    using folder = temporaryFolder();
    const path = text === undefined ? folder.file("none") : script(folder, "program", text);
    const limits = { ...observationLimits, answerTime: 300, answerBytes: 65_536 };
    const found = await observe({ cloudHypervisor: path, qemu: path }, limits);
    for (const one of [found.cloudHypervisor, found.qemu]) {
      if (one.kind === "found") throw new Error("Expected it to be absent");
      expect(one.reason).toContain(path);
      expect(one.reason).toContain(reason);
    }
  });
});
