import type { DiskHealth } from "../../hardware/disk/health.ts";
import type { Delta, Finding } from "../protocol-result.ts";
import type { TaskEngine } from "../tasks/disk.ts";
import { type Done, isFinding, type NamedDisk, smartReportOf } from "./disks.ts";
import { finding, notSeen } from "./findings.ts";

/** What a disk said of itself before and after it was gone over, and the kernel meanwhile. */

export interface Looks {
  readonly before: Done | undefined;
  readonly after: Done | undefined;
  /** Of all that changed while the stage ran. */
  readonly deltas: readonly Delta[];
}

export interface Changed {
  readonly findings: Finding[];
  readonly engines: readonly TaskEngine[];
}

export function judgeChange(
  named: NamedDisk,
  looks: Looks,
  readErrors: number,
  required: readonly string[],
): Changed {
  const { component } = named;
  const findings = [...kernelErrors(named, looks.deltas, readErrors)];
  const engines: TaskEngine[] = [];
  const seen: DiskHealth[] = [];
  for (const look of [looks.before, looks.after]) {
    if (look === undefined) continue;
    const report = smartReportOf(look);
    if (isFinding(report)) {
      findings.push(report);
      continue;
    }
    engines.push(report.engine);
    seen.push(report.health);
  }
  const [before, after] = seen;
  if (before === undefined || after === undefined) {
    const reason = "the disk was not asked both before and after";
    findings.push(notSeen("disk.change", component, reason, required));
  } else if (before.protocol === "none" || after.protocol === "none") {
    const reason = after.unseen[0]?.reason ?? "the disk tells nothing";
    findings.push(notSeen("disk.change", component, reason, required));
  } else {
    findings.push(...compare(before, after, component, required));
  }
  return { findings, engines };
}

/** Counts that must not rise while a disk is gone over, and what it is when they do. */
const counts = [
  { code: "media-errors-rose", outcome: "FAIL", of: (health) => health.media_errors },
  { code: "pending-rose", outcome: "FAIL", of: (health) => health.pending_sectors },
  { code: "uncorrectable-rose", outcome: "FAIL", of: (health) => health.uncorrectable_sectors },
  { code: "reallocated-rose", outcome: "WARN", of: (health) => health.reallocated_sectors },
  { code: "link-errors-rose", outcome: "WARN", of: (health) => health.link_errors },
] as const satisfies readonly {
  code: string;
  outcome: "FAIL" | "WARN";
  of: (health: DiskHealth) => number | null;
}[];

function* compare(
  before: DiskHealth,
  after: DiskHealth,
  component: string,
  required: readonly string[],
): Generator<Finding> {
  if (before.serial !== after.serial) {
    yield finding("FAIL", "disk-changed", component, "Another disk answers than before", {
      expected: before.serial ?? "no serial",
      found: after.serial ?? "no serial",
    });
    return;
  }
  if (before.healthy !== false && after.healthy === false) {
    const message = "The disk says of itself that it is failing, since it was gone over";
    yield finding("FAIL", "smart-failing", component, message);
  }
  let compared = 0;
  for (const { code, outcome, of } of counts) {
    const from = of(before);
    const to = of(after);
    if (from === null || to === null) continue;
    compared += 1;
    if (to <= from) continue;
    const words = code.replace(/-rose$/, "").replaceAll("-", " ");
    yield finding(outcome, code, component, `The disk's ${words} rose while it was gone over`, {
      expected: `${from}`,
      found: `${to}`,
    });
  }
  if (compared === 0) {
    yield notSeen("disk.change", component, "it tells nothing that could rise", required);
  }
}

/** What the kernel's log had to say of this disk: "sda", "nvme0n1", or the controller "nvme0". */
function* kernelErrors(
  { disk, component }: NamedDisk,
  deltas: readonly Delta[],
  most: number,
): Generator<Finding> {
  const names = namesOf(disk.name);
  const lines = deltas
    .filter(({ source, component: of }) => source === "kernel-log" && names.has(lastWord(of)))
    .reduce((sum, { before, after }) => sum + Math.max(0, after - before), 0);
  if (lines <= most) return;
  const message = `The kernel's log has ${lines} lines about faults of ${disk.name}`;
  yield finding("FAIL", "kernel-errors", component, message, {
    expected: `at most ${most}`,
    found: `${lines}`,
  });
}

/** "medium-error sda": the fault, and what it names. */
const lastWord = (text: string): string => text.slice(text.lastIndexOf(" ") + 1);

function namesOf(name: string): ReadonlySet<string> {
  const controller = /^(nvme\d+)(c\d+)?n\d+$/.exec(name)?.[1];
  return new Set(controller === undefined ? [name] : [name, controller]);
}
