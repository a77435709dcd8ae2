/** Random processes in random partitions. */
import type { Configuration, ProcessSpecification } from "../../../src/process/specification.ts";
import { defaultBackoff } from "../../../src/units/restarts.ts";
import type { SeededChance } from "../chance.ts";
import { makeSpecification, watchdog } from "../lifecycle/life.ts";

export const partitionNames = ["qm", "radio"] as const;

export function makeConfiguration(chance: SeededChance): Configuration {
  const count = 1 + chance.below(6);
  const processes: ProcessSpecification[] = [];
  for (let index = 0; index < count; index += 1) {
    processes.push(makeProcess(chance, `process-${index}`, processes));
  }
  const concurrentStarts = chance.pick([undefined, undefined, 2]);
  return { holder: true, concurrentStarts, partitions: [], processes };
}

function makeProcess(
  chance: SeededChance,
  name: string,
  earlier: readonly ProcessSpecification[],
): ProcessSpecification {
  return makeSpecification({
    name,
    partition: chance.pick([undefined, ...partitionNames, ...partitionNames]),
    after: afterSomeOf(chance, earlier),
    onDependencyFailure: chance.pick(["ignore", "restart"]),
    restart: chance.pick(["always", "always", "on-failure", "never"]),
    backoff: chance.pick([defaultBackoff, "none", { ...defaultBackoff, cap: 2_000 }]),
    startLimit: chance.pick(["none", "none", "none", { starts: 10, within: 5_000 }]),
    readiness: chance.pick([{ kind: "started" }, { kind: "notify" }]),
    readyTimeout: 1_000,
    liveness: chance.pick([undefined, watchdog]),
    stopGrace: 500,
    leftovers: chance.pick(["kill", "kill", "kill", "keep"]),
    autostart: chance.happens(0.9),
  });
}

function afterSomeOf(chance: SeededChance, earlier: readonly ProcessSpecification[]): string[] {
  return earlier.map(({ name }) => name).filter(() => chance.happens(0.25));
}

/** As after an operator's editor: some are gone, some are others, some are new. */
export function editConfiguration(
  chance: SeededChance,
  { processes: former, ...rest }: Configuration,
): Configuration {
  const names = Array.from({ length: 7 }, (_value, index) => `process-${index}`);
  const processes: ProcessSpecification[] = [];
  for (const name of names) {
    const known = former.find((one) => one.name === name);
    if (!chance.happens(known === undefined ? 0.3 : 0.85)) continue;
    if (known === undefined || chance.happens(0.3)) {
      processes.push(makeProcess(chance, name, processes));
      continue;
    }
    // Nothing of it is another but its rules, where anything is.
    const after = known.after.filter((one) => processes.some((other) => other.name === one));
    const rules = chance.happens(0.3)
      ? { restart: chance.pick(["always", "on-failure", "never"] as const), stopGrace: 400 }
      : {};
    processes.push({ ...known, after, ...rules });
  }
  if (processes.length === 0) processes.push(makeProcess(chance, names[0] ?? "", []));
  return { ...rest, processes };
}
