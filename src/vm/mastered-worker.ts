import { totalmem } from "node:os";
import type { EventLoop } from "../event-loop/event-loop.ts";
import type { LimitedLogger } from "../logging/limited-logger.ts";
import type { UnmadeMachine } from "./desired-state.ts";
import type { MasteredWorker } from "./mastered.ts";
import type { Machine } from "./perform/machine.ts";
import { measureMachine } from "./perform/measure.ts";
import type { VmMetrics } from "./protocol.ts";
import type { MachineFacts } from "./report.ts";
import type { Entry, MachineWorker } from "./worker.ts";

const MEBIBYTE = 1024 ** 2;

/** What following a master needs, of the worker that there is. */
export function masteredWorker(
  worker: MachineWorker,
  loop: EventLoop,
  logger: LimitedLogger,
): MasteredWorker {
  const { artifactsFolder, runFolder } = worker.configuration;
  /** What each machine used when it was looked at last. */
  const measured = new Map<string, VmMetrics>();
  let isMeasuring = false;
  const measure = async (time: string) => {
    const links = worker.linkCounters();
    const all = [...worker.machines.values()];
    const found = await Promise.all(all.map(({ machine }) => measureMachine(machine, links, time)));
    measured.clear();
    for (const metrics of found) measured.set(metrics.name, metrics);
  };
  return {
    loop,
    desired: worker.desired,
    artifactsFolder,
    runFolder,
    boot: worker.boot,
    resources: { processors: navigator.hardwareConcurrency, memory_bytes: totalmem() },
    holdings: () =>
      [...worker.machines.values()].map((entry) => ({
        name: entry.machine.name,
        assigned: entry.machine.record.assigned,
        phase: phaseOf(entry),
      })),
    get hasUnknown() {
      return worker.unreadable.length > 0;
    },
    assign: (name, assigned) => worker.machines.get(name)?.machine.assign(assigned),
    kill: (name) => worker.machines.get(name)?.machine.kill(),
    facts: () => {
      const { standings, unmade } = worker.desired;
      const made = [...worker.machines.values()].map((entry) => ({
        ...factsOf(entry),
        standing: standings.get(entry.machine.name),
        metrics: measured.get(entry.machine.name),
      }));
      return [...made, ...unmade.map(unmadeFacts)];
    },
    // A VMM that does not answer keeps the next look from beginning, and no report from going out.
    measure: (time) => {
      if (isMeasuring) return;
      isMeasuring = true;
      void measure(time).finally(() => {
        isMeasuring = false;
      });
    },
    onTurn: (call) => worker.onTurn(call),
    say: (level, message) => logger.say(level, `master: ${message}`, `master: ${message}`),
  };
}

/** Its master is told why there is none. */
function unmadeFacts({ name, reason, assigned }: UnmadeMachine): MachineFacts {
  return {
    name,
    phase: "absent",
    reason,
    ownerGeneration: assigned?.owner_generation,
    standing: { name, status: "failed", drift: [], reason },
    ...{ processors: undefined, memory: undefined, metrics: undefined },
  };
}

/** Of one that was not taken up yet nobody knows how it is. */
const phaseOf = ({ state, doubt }: Entry) => (doubt === undefined ? state.phase : "uncertain");

function factsOf(entry: Entry): Omit<MachineFacts, "standing" | "metrics"> {
  const { machine, state, doubt } = entry;
  const { spec, assigned } = machine.record;
  const parts = partsOf(machine);
  const { cpu, memoryMb } = spec;
  return {
    name: machine.name,
    phase: phaseOf(entry),
    reason: doubt ?? state.reason,
    ownerGeneration: assigned?.owner_generation,
    processors: parts?.processors ?? cpu,
    memory: parts?.memory ?? (memoryMb === undefined ? undefined : memoryMb * MEBIBYTE),
  };
}

/** undefined before its image was verified. */
function partsOf(machine: Machine) {
  if (machine.knownParts !== undefined || machine.record.image === null) return machine.knownParts;
  try {
    return machine.parts();
  } catch {
    // It is told where the machine is started.
    return undefined;
  }
}
