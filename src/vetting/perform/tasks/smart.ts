import { makeEventCounter } from "../../../../ffi/descriptor.ts";
import { nvmeAdmin, scsiCommand } from "../../../../ffi/disk-commands.ts";
import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { pollDescriptor } from "../../../../ffi/poll.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { NvmeDisk } from "../../../hardware/disk/ask-nvme.ts";
import { notAsked, scsiOrAtaDisk } from "../../../hardware/disk/ask-scsi.ts";
import type { AskedDisk } from "../../../hardware/disk/asked-disk.ts";
import { type DiskHealth, withUnseen } from "../../../hardware/disk/health.ts";
import { HostTree } from "../../../hardware/host-tree.ts";
import { nextTurn } from "../../../store/files.ts";
import { hostlerVersion } from "../../../units/version.ts";
import { diskTaskLimits } from "../../tasks/disk.ts";
import {
  SMART_TASK,
  type SmartInput,
  type SmartReport,
  smartInputSchema,
  smartReportSchema,
} from "../../tasks/smart.ts";
import { askSmartctl } from "../disks/ask-smartctl.ts";
import { openPlanned } from "../disks/planned-disk.ts";
import { defineTask, type TaskContext } from "../task.ts";

/** Asks a disk how it is: by smartctl where it is there and has an answer, else by ourselves. */
export const smartTask = defineTask({
  name: SMART_TASK,
  input: smartInputSchema,
  report: smartReportSchema,
  run: (input, context) => askDisk(input, context, new HostTree()),
});

const own = { name: "hostler", version: hostlerVersion };

/** Milliseconds between two looks at a self-test. */
const LOOK_EVERY = 1_000;

/** @throws TaskRefused where the disk is not there, or not the planned one */
export async function askDisk(
  input: SmartInput,
  context: TaskContext,
  tree: HostTree,
): Promise<SmartReport> {
  const silent = silence(input);
  // What is never opened for it is still looked at: another disk may have its name by now.
  using opened = openPlanned(tree, input.disk, "commands");
  if (silent !== undefined) return { engine: own, health: notAsked(silent), passed_over: [] };
  const disk = askedDisk(input.disk.name, opened.descriptor);
  const selfTest = typeof disk === "string" ? undefined : await runSelfTest(disk, input, context);
  const passedOver: string[] = [];
  const isOwn = input.engine === "own";
  const device = tree.path(`dev/${input.disk.name}`);
  const theirs = isOwn ? undefined : await askSmartctl(device, context.signal);
  if (theirs?.kind === "no-answer") passedOver.push(cut(`smartctl: ${theirs.reason}`));
  const smartctl = theirs?.kind === "health" ? theirs : undefined;
  if (smartctl !== undefined && smartctl.health.healthy !== null) {
    const engine = { name: "smartctl", version: smartctl.version };
    const health = withUnseen(withSelfTest(smartctl.health, selfTest), "smartctl does not tell it");
    return { engine, health, passed_over: passedOver };
  }
  if (smartctl !== undefined) passedOver.push("smartctl: it tells no verdict");
  if (input.engine === "tool") {
    const why = passedOver[0] ?? "smartctl is not installed";
    const engine = { name: "smartctl", version: smartctl?.version ?? null };
    return { engine, health: notAsked(why), passed_over: passedOver };
  }
  const health = typeof disk === "string" ? notAsked(disk) : disk.health();
  return { engine: own, health: withSelfTest(health, selfTest), passed_over: passedOver };
}

const cut = (text: string): string => text.slice(0, diskTaskLimits.text);

/** Why a disk of this kind is asked nothing. */
function silence({ transport, disk: { name } }: SmartInput): string | undefined {
  if (transport === "virtio") return "virtio disks have no SMART";
  if (transport === "mmc") return "cards have no SMART";
  if (/^(nvme|sd)/.test(name)) return undefined;
  return `nobody knows how to ask a disk that is called ${name}`;
}

function askedDisk(name: string, descriptor: OwnedDescriptor): AskedDisk | string {
  if (name.startsWith("nvme")) return new NvmeDisk((command) => nvmeAdmin(descriptor, command));
  return scsiOrAtaDisk((command) => scsiCommand(descriptor, command));
}

/**
 * A reason that a self-test was not run stands where its result would; an earlier one that failed
 * is still one that failed.
 */
function withSelfTest(health: DiskHealth, reason: string | undefined): DiskHealth {
  if (reason === undefined || health.self_test?.result === "failed") return health;
  return {
    ...health,
    self_test: null,
    unseen: [
      { property: "disk.self-test", reason: cut(reason) },
      ...health.unseen.filter(({ property }) => property !== "disk.self-test"),
    ],
  };
}

/**
 * Runs it to its end, or as long as there is time; the disk goes on by itself after that.
 * @returns why there is no result of it
 */
export async function runSelfTest(
  disk: AskedDisk,
  { self_test: kind, self_test_most_s: most }: Pick<SmartInput, "self_test" | "self_test_most_s">,
  context: TaskContext,
): Promise<string | undefined> {
  if (kind === "none") return undefined;
  const refusal = disk.start(kind);
  if (refusal !== undefined) return `it cannot be run: ${refusal}`;
  using never = makeEventCounter();
  const until = monotonicNow() + most * 1_000;
  for (;;) {
    const state = disk.state();
    if (state.kind === "unknown") return `it was begun, and is not told of: ${state.reason}`;
    if (state.kind === "ended") return undefined;
    context.tell({ kind: "progress", done: state.percent, total: 100 });
    const left = until - monotonicNow();
    if (left <= 0) return `it is at ${state.percent} %, and the time is over`;
    pollDescriptor(never, "readable", Math.min(left, LOOK_EVERY));
    await nextTurn();
    if (context.signal.aborted) return "it was left to itself";
  }
}
