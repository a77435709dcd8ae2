/**
 * The worker on a host whose processor has svm and whose kernel has KVM: both are real to it,
 * although they are emulated. This kernel's KVM has no interrupt controllers but the local ones.
 */
import { readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { makeTestGuest } from "../../../scripts/test-guest.ts";
import type { VmSummary } from "../../../src/vm/protocol.ts";
import { runProgram } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import { hostlerPath, patienceMilliseconds } from "./stage.ts";
import { type Case, requireEqual, tellCases } from "./tell.ts";
import type { KvmCase } from "./vm-kvm-cases.ts";
import { argumentsOf, exitsOf, makeImage, openFilesOf, VmStage } from "./vm-stage.ts";

/** Turns of the guest between two lines: some tens of lines a second. */
const GUEST_PAUSE = 1_000_000;
const name = "web";
const stage = new VmStage();
let image: Awaited<ReturnType<typeof makeImage>> | undefined;

/** The process of its VMM. @throws Error when it is none, or has no machine of KVM */
function processOf({ pid }: VmSummary): number {
  if (pid === null) throw new Error(`${name} has no VMM: ${stage.said}`);
  const open = openFilesOf(pid);
  for (const wanted of ["/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"]) {
    if (!open.includes(wanted)) throw new Error(`expected ${wanted} in ${open.join(" ")}`);
  }
  return pid;
}

const cases: Readonly<Record<KvmCase, Case>> = {
  "KVM is real, and QEMU with it is chosen": async () => {
    stage.configure([]);
    image = await makeImage(
      { vmlinux: makeTestGuest({ pause: GUEST_PAUSE }) },
      {
        payload: { kernel: "vmlinux", cmdline: "" },
        cpus: { boot_vcpus: 1 },
        memory: { size: 32 * 1024 ** 2, shared: true },
        serial: { mode: "Socket" },
      },
    );
    await stage.start();
    const { hypervisors, warnings } = await stage.client.status();
    requireEqual(warnings, []);
    const chosen = hypervisors.map(({ hypervisor, accelerator, chosen: isChosen }) => {
      return [hypervisor, accelerator, isChosen];
    });
    return requireEqual(chosen, [["qemu", "kvm", true]]);
  },

  "a machine runs by KVM, and its guest counts": async () => {
    await stage.client.create({ name, ...image }, "created");
    const processId = processOf(await stage.boot(name));
    const words = argumentsOf(processId);
    requireEqual(words[words.indexOf("-accel") + 1], "kvm,kernel-irqchip=split");
    await stage.countsOn(name);
    const { processor_model: model } = await stage.client.show(name);
    return `${model}: ${await stage.countsOn(name)}`;
  },

  "its VMM has a node of KVM in a /dev of its own": async () => {
    const processId = processOf(await stage.become(name, "running"));
    const status = readFileSync(`/proc/${processId}/status`, "latin1");
    const user = Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
    requireEqual(user >= 2_100_000_000, true);
    requireEqual(/^CapEff:\t(\S+)/m.exec(status)?.[1], "0".repeat(16));
    const folder = `/proc/${processId}/root/dev`;
    requireEqual(readdirSync(folder).toSorted(), ["kvm", "net", "null", "urandom"]);
    const [own, host] = [statSync(`${folder}/kvm`), statSync("/dev/kvm")];
    requireEqual([own.rdev, own.mode & 0o777], [host.rdev, 0o666]);
    // The host's own one is as it was: root's alone, so that it was not the one that was opened.
    requireEqual([host.uid, host.mode & 0o006], [0, 0]);
    return `user ${user}`;
  },

  "it stands still while it is paused, and counts on": async () => {
    const { pid } = await stage.become(name, "running");
    await stage.client.change("pause", name);
    await stage.become(name, "paused");
    const before = exitsOf(pid ?? 0);
    const begin = performance.now();
    // A guest that ran would tell its numbers meanwhile, and leave its processor for each letter.
    for (let ask = 0; ask < 20; ask += 1) await stage.client.status();
    const meanwhile = Math.round(performance.now() - begin);
    requireEqual(exitsOf(pid ?? 0), before);
    await stage.client.change("resume", name);
    await stage.become(name, "running");
    const counted = await stage.countsOn(name);
    requireEqual(exitsOf(pid ?? 0) > before, true);
    return `${counted}, and none for ${meanwhile} ms`;
  },

  "its VMM is replaced under it, with KVM as well": async () => {
    const before = processOf(await stage.become(name, "running"));
    requireEqual((await stage.client.survivable(name)).survivable, true);
    await stage.client.change("replace-vmm", name);
    const look = async () => {
      const summary = (await stage.client.show(name)).summary;
      return summary.phase === "running" && summary.pid !== before && summary;
    };
    const after = await waitFor(`another VMM: ${stage.said}`, look, patienceMilliseconds);
    processOf(after);
    const counted = await stage.countsOn(name);
    requireEqual(stage.left()["vmms"], [`${after.pid}`]);
    return counted;
  },

  "a worker that was killed adopts it where it is": async () => {
    const before = processOf(await stage.become(name, "running"));
    await stage.kill();
    const seen = stage.numbers(name).length;
    await stage.start();
    requireEqual(processOf(await stage.become(name, "running")), before);
    // What it told while no worker listened is lost, from the middle of a line to the middle of
    // another; its counter knows nothing of that.
    const after = await stage.countsOn(name, seen + 1);
    const [last = 0, , next = 0] = stage.numbers(name).slice(seen - 1);
    if (next <= last) throw new Error(`${last} is followed by ${next}`);
    return `${last}, then ${after}`;
  },

  "a snapshot of it is restored, and counts on from there": async () => {
    const before = await stage.counts(name);
    await stage.client.takeSnapshot(name, "first");
    await stage.become(name, "running");
    const last = await stage.counts(name);
    await stage.client.change("delete", name, { now: true });
    await stage.client.wait(name, "removed");
    await stage.client.restore(name, "first");
    processOf(await stage.become(name, "running"));
    const counted = await stage.countsOn(name);
    const [first = 0] = stage.numbers(name);
    // As it was when it was taken, and not from the beginning.
    if (first < before || first > last + 1) {
      throw new Error(`expected ${before} to ${last + 1}, received ${first}`);
    }
    return counted;
  },

  "its VMM dies: the next one has KVM too": async () => {
    const before = processOf(await stage.become(name, "running"));
    process.kill(before, "SIGKILL");
    const look = async () => {
      const { summary } = await stage.client.show(name);
      return summary.phase === "running" && summary.pid !== before && summary;
    };
    processOf(await waitFor(`another VMM: ${stage.said}`, look, patienceMilliseconds));
    const isAnew = () => stage.numbers(name).lastIndexOf(1) > 0;
    await waitFor("a count from the beginning", isAnew, patienceMilliseconds);
    return `${await stage.counts(name)}`;
  },

  "nothing is left of it": async () => {
    await stage.client.change("delete", name, { now: true });
    await stage.client.wait(name, "removed");
    await stage.client.deleteSnapshot(name, "first");
    // The kernel has a folder for each machine, beside its counters.
    const machines = readdirSync("/sys/kernel/debug/kvm", { withFileTypes: true });
    requireEqual(
      machines.filter((entry) => entry.isDirectory()).map((entry) => entry.name),
      [],
    );
    return requireEqual(stage.left(), { machines: [], run: [], vmms: [], links: [] });
  },

  "a KVM that makes no machines is not taken, and that is loud": async () => {
    await stage.stop();
    // Another device under its name, as an operator's mistake, or a container's, could have it.
    renameSync("/dev/kvm", "/dev/kvm-of-host");
    await runProgram(["mknod", "/dev/kvm", "c", "1", "3"]);
    await stage.start();
    const { hypervisors, warnings } = await stage.client.status();
    requireEqual(
      hypervisors.map(({ accelerator }) => accelerator),
      ["tcg"],
    );
    const told = "/dev/kvm is none: KVM_GET_API_VERSION was refused with ENOTTY";
    requireEqual(warnings.filter((one) => one.includes(told)).length, 1);
    requireEqual(stage.said.includes(told), true);
    const doctor = await runProgram([hostlerPath, "doctor", "vm", "--json"], {
      deadlineMilliseconds: patienceMilliseconds,
    });
    const lines = JSON.parse(doctor.stdout) as { check: string; status: string; found: string }[];
    const line = lines.find(({ check }) => check === "kvm");
    return requireEqual([line?.status, line?.found], ["warning", told]);
  },
};

const failures = await tellCases(cases);
if (failures > 0) console.log(stage.said);
await stage[Symbol.asyncDispose]();
process.exitCode = failures === 0 ? 0 : 1;
