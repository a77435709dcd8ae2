/** Random processes in random partitions. */
import type { Configuration, ProcessSpecification } from "../../../src/process/specification.ts";
import { defaultBackoff } from "../../../src/units/restarts.ts";
import type { SeededChance } from "../chance.ts";
import { makeSpecification } from "../lifecycle/life.ts";

export const partitionNames = ["qm", "radio"] as const;

export function makeConfiguration(chance: SeededChance): Configuration {
  const count = 1 + chance.below(6);
  const processes: ProcessSpecification[] = [];
  for (let index = 0; index < count; index += 1) {
    const earlier = processes.map(({ name }) => name);
    processes.push(
      makeSpecification({
        name: `process-${index}`,
        partition: chance.pick([undefined, ...partitionNames, ...partitionNames]),
        after: earlier.filter(() => chance.happens(0.25)),
        restart: chance.pick(["always", "always", "on-failure", "never"]),
        backoff: chance.pick([defaultBackoff, "none", { ...defaultBackoff, cap: 2_000 }]),
        startLimit: chance.pick(["none", "none", "none", { starts: 10, within: 5_000 }]),
        readiness: chance.pick([{ kind: "started" }, { kind: "notify" }]),
        readyTimeout: 1_000,
        stopGrace: 500,
        leftovers: chance.pick(["kill", "kill", "kill", "keep"]),
        autostart: chance.happens(0.9),
      }),
    );
  }
  return { holder: true, partitions: [], processes };
}
