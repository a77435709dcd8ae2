import { nextTurn } from "../../store/files.ts";
import type { BucketDefinition } from "../../store/store.ts";
import type { Bytes, Milliseconds } from "../../units/units.ts";
import { vettingLimits } from "../protocol.ts";
import { type KeptName, keptNames, type VettingRecords } from "./records.ts";

const days = (count: number): Milliseconds => count * 24 * 3_600_000;

/**
 * What an orchestrator keeps in its own database, with the usual bounds: over one the oldest goes.
 * They are told as buckets are, so that `--retain` sets them.
 */
export const vettingBuckets: readonly BucketDefinition[] = [
  { name: "vetting-runs", age: days(3_650), size: 8 * 1024 ** 3 },
  { name: "vetting-logs", age: days(90), size: 4 * 1024 ** 3 },
  { name: "vetting-sensors", age: days(90), size: 4 * 1024 ** 3 },
].map((bucket) => ({ ...bucket, expendable: true, volatile: false }));

/** Transactions of one look, of each name. */
const ROUNDS = 64;
/** Runs that go in one transaction. */
const RUNS_AT_ONCE = 16;

type Bound = Pick<BucketDefinition, "age" | "size">;

/** Has what is too old or too much go, a piece at a time, so that agents are answered meanwhile. */
export async function tendRecords(
  records: VettingRecords,
  options: { readonly bounds: readonly BucketDefinition[]; readonly now: Milliseconds },
): Promise<void> {
  const { bounds, now } = options;
  for (const name of keptNames) {
    const bound = bounds.find((bucket) => bucket.name === name);
    for (let round = 0; round < ROUNDS; round += 1) {
      if (bound === undefined || !forgetSome(records, { name, bound, now })) break;
      await nextTurn();
    }
  }
  records.giveBack();
}

function forgetSome(
  records: VettingRecords,
  { name, bound, now }: { readonly name: KeptName; readonly bound: Bound; readonly now: number },
): boolean {
  let isMore = false;
  records.transaction(() => {
    const before = bound.age === "forever" ? undefined : now - bound.age;
    isMore = before !== undefined && forget(records, name, before);
    if (!isMore && isOver(records, name, bound.size)) isMore = forget(records, name, undefined);
  });
  return isMore;
}

function isOver(records: VettingRecords, name: KeptName, size: Bytes): boolean {
  if (records.total(name) > size) return true;
  return name === "vetting-runs" && records.countRuns({}) > vettingLimits.runs;
}

function forget(records: VettingRecords, name: KeptName, before: number | undefined): boolean {
  switch (name) {
    case "vetting-runs":
      return records.forgetRuns({ before, limit: RUNS_AT_ONCE }).length > 0;
    case "vetting-logs":
      return records.forgetLines(before);
    case "vetting-sensors":
      return records.forgetReadings(before);
  }
}
