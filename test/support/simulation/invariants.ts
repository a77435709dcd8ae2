/** What must be so after every event. */
import { AWAITED_ENDINGS_LIMIT, type ProcessState } from "../../../src/process/lifecycle.ts";
import {
  isActive,
  type OrchestrationState,
  type Plan,
} from "../../../src/process/orchestration.ts";
import type { ProcessSpecification } from "../../../src/process/specification.ts";
import type { World } from "./world.ts";

export interface Invariants {
  /** As it is at the moment. */
  readonly plan: Plan;
  readonly world: World;
}

export function requireInvariants({ plan, world }: Invariants, state: OrchestrationState): void {
  for (const [name, specification] of plan.specifications) {
    const process = state.processes.get(name);
    if (process === undefined) throw new Error(`${name} is lost`);
    const living = world.countLiving(name);
    if (living > 1) throw new Error(`${living} instances of ${name} live`);
    if (living > 0 && !isActive(process)) {
      throw new Error(`an instance of ${name} lives, and it is ${process.phase}`);
    }
    requireBounds(specification, process);
  }
  for (const { name, isAlive } of world.processes) {
    if (isAlive && !plan.specifications.has(name)) throw new Error(`${name} is gone, and lives`);
  }
}

function requireBounds(specification: ProcessSpecification, process: ProcessState): void {
  const { name, startLimit } = specification;
  const mostStarts = startLimit === "none" ? 0 : startLimit.starts;
  if (process.recentStarts.length > mostStarts) throw new Error(`${name} counts too many starts`);
  if (process.awaitedEndings.length > AWAITED_ENDINGS_LIMIT) {
    throw new Error(`${name} awaits too many endings`);
  }
}
