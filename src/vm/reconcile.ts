import type { MachineEvent, Phase, Wanted } from "./lifecycle-state.ts";
import type { VmSpec } from "./protocol.ts";
import { cardRequestsOf } from "./protocol-network.ts";

/**
 * What is declared against what there is: the commands that lead from one to the other. Pure, and
 * asked anew after everything that happens: what is under way already is no command.
 */

/** Power states that somebody can declare. */
export type DeclaredPower = Exclude<Wanted, "absent">;

/** A machine as it is declared. */
export interface DesiredMachine {
  readonly spec: VmSpec;
  readonly power: DeclaredPower;
}

/** All that is declared for one worker, under the number of its version. */
export interface Desired {
  readonly generation: number;
  readonly machines: readonly DesiredMachine[];
}

/** A machine as the worker knows it. */
export interface ObservedMachine {
  readonly name: string;
  readonly phase: Phase;
  readonly wanted: Wanted;
  /** What it was declared to be when it was last told; a later wish of its guest stands then. */
  readonly declaredPower: DeclaredPower | undefined;
  /** What it was made of; undefined where nobody knows, and then it is left alone. */
  readonly spec: VmSpec | undefined;
  /** Whoever declares it. A machine that an operator made by hand is nobody's to remove. */
  readonly owner: "declared" | "operator" | "unknown";
  readonly reason: string | undefined;
}

/** One key of a machine that is not as it is declared. */
export interface Drift {
  readonly key: string;
  readonly desired: unknown;
  readonly observed: unknown;
}

export type Command =
  | { readonly kind: "create"; readonly name: string; readonly machine: DesiredMachine }
  /** Declared no more. */
  | { readonly kind: "delete"; readonly name: string; readonly reason: "extra" }
  /** Declared otherwise: it is deleted, and created anew when it is removed. */
  | {
      readonly kind: "delete";
      readonly name: string;
      readonly reason: "changed";
      readonly drift: readonly Drift[];
    }
  /** Declared otherwise in what can be changed while it runs. */
  | {
      readonly kind: "adjust";
      readonly name: string;
      readonly spec: VmSpec;
      readonly drift: readonly Drift[];
    }
  | {
      readonly kind: "power";
      readonly name: string;
      readonly event: "boot" | "pause" | "resume" | "shutdown";
    };

/** How one machine stands to its declaration. */
export interface Standing {
  readonly name: string;
  readonly status: "converged" | "pending" | "drifted" | "failed" | "left-alone";
  readonly drift: readonly Drift[];
  /** Why it is not converged, or left alone. */
  readonly reason: string | undefined;
}

export interface Reconciliation {
  readonly generation: number;
  readonly commands: readonly Command[];
  readonly standings: readonly Standing[];
  /** Of the machines that are declared or to be removed; 100 where there are none. */
  readonly convergencePercent: number;
}

/** @param observed every machine that the worker knows, each name once */
export function reconcile(desired: Desired, observed: readonly ObservedMachine[]): Reconciliation {
  const known = new Map(observed.map((machine) => [machine.name, machine]));
  const declared = new Set(desired.machines.map(({ spec }) => spec.name));
  const decisions = [
    ...desired.machines.map((machine) => decideDeclared(machine, known.get(machine.spec.name))),
    ...observed.filter(({ name }) => !declared.has(name)).map(decideExtra),
  ].filter((decision) => decision !== undefined);
  const standings = decisions.map(({ standing }) => standing);
  return {
    generation: desired.generation,
    commands: decisions.flatMap(({ command }) => command ?? []),
    standings,
    convergencePercent: percentOf(standings),
  };
}

interface Decision {
  readonly standing: Standing;
  readonly command?: Command;
}

const isGone = (machine: ObservedMachine | undefined): machine is undefined =>
  machine === undefined || machine.phase === "absent" || machine.phase === "removed";

/** Nobody can say now how it is: whatever were done to it could be wrong. */
function whyLeftAlone(machine: ObservedMachine): string | undefined {
  if (machine.phase === "detached") return machine.reason ?? "its VMM does not answer";
  if (machine.phase === "uncertain") return "it is looked for";
  if (machine.owner === "unknown") return "nobody knows who made it";
  if (machine.spec === undefined) return "nobody knows what it was made of";
  return undefined;
}

function decideDeclared(machine: DesiredMachine, observed: ObservedMachine | undefined): Decision {
  const { name } = machine.spec;
  if (isGone(observed)) {
    return { standing: pending(name, "it is missing"), command: { kind: "create", name, machine } };
  }
  const leftAlone = whyLeftAlone(observed);
  if (leftAlone !== undefined) return { standing: stand(name, "left-alone", leftAlone) };
  if (observed.owner === "operator") {
    return { standing: stand(name, "left-alone", "an operator made it by hand") };
  }
  if (observed.wanted === "absent") return { standing: pending(name, "it is being removed") };
  const drift = findDrift(machine.spec, observed.spec);
  if (drift.length > 0) {
    const standing = { ...stand(name, "drifted", undefined), drift };
    if (drift.every(({ key }) => adjustable.has(key))) {
      return { standing, command: { kind: "adjust", name, spec: machine.spec, drift } };
    }
    return { standing, command: { kind: "delete", name, reason: "changed", drift } };
  }
  return decidePower(machine, observed);
}

/** Keys of what is around a machine, and not of what it is made of. */
const adjustable: ReadonlySet<string> = new Set<keyof VmSpec>(["health"]);

/** A machine that failed, or whose guest shut itself down, is the rule's of restarts. */
function decidePower(machine: DesiredMachine, observed: ObservedMachine): Decision {
  const { name, phase, wanted, reason } = observed;
  const { power } = machine;
  if (phase === power) return { standing: stand(name, "converged", undefined) };
  if (phase === "failed" && power !== "off") {
    return { standing: stand(name, "failed", reason ?? "it failed") };
  }
  if (wanted === power) return { standing: pending(name, `it is ${phase}`) };
  const event = eventTowards(power, observed);
  if (event === undefined) return { standing: stand(name, "drifted", reason ?? `it is ${phase}`) };
  const drift = [{ key: "power", desired: power, observed: wanted }];
  const standing = { ...stand(name, "drifted", undefined), drift };
  return { standing, command: { kind: "power", name, event } };
}

/** The order that leads there, where one does now: else it is on its way, or is left as it is. */
function eventTowards(
  power: DeclaredPower,
  { phase, wanted, declaredPower }: ObservedMachine,
): Extract<Command, { kind: "power" }>["event"] | undefined {
  if (power === "off") return "shutdown";
  // A machine that has run is not ended to be as new.
  if (power === "created") return undefined;
  if (wanted === "off") {
    // Its guest turned itself off, or somebody did: to declare the same again is no wish.
    if (declaredPower === power) return undefined;
    return phase === "off" || phase === "stopping" || phase === "clearing" ? "boot" : undefined;
  }
  if (phase === "created") return "boot";
  if (power === "paused") return phase === "running" ? "pause" : undefined;
  return phase === "paused" ? "resume" : undefined;
}

function decideExtra(observed: ObservedMachine): Decision | undefined {
  if (isGone(observed)) return undefined;
  const { name } = observed;
  const leftAlone = whyLeftAlone(observed);
  if (leftAlone !== undefined) return { standing: stand(name, "left-alone", leftAlone) };
  if (observed.owner === "operator") return undefined;
  const standing = pending(name, "it is declared no more");
  if (observed.wanted === "absent") return { standing };
  return { standing, command: { kind: "delete", name, reason: "extra" } };
}

const stand = (name: string, status: Standing["status"], reason: string | undefined): Standing => ({
  name,
  status,
  drift: [],
  reason,
});
const pending = (name: string, reason: string) => stand(name, "pending", reason);

/** Every key that differs; one that is left out stands for nothing. */
export function findDrift(desired: VmSpec, observed: VmSpec | undefined): readonly Drift[] {
  if (observed === undefined) return [];
  const keys = new Set([...Object.keys(desired), ...Object.keys(observed)]) as Set<keyof VmSpec>;
  return [...keys].sort().flatMap((key) => {
    const [wanted, found] = [comparable(desired, key), comparable(observed, key)];
    if (JSON.stringify(wanted) === JSON.stringify(found)) return [];
    return [{ key, desired: wanted, observed: found }];
  });
}

/** Domains and forwards are sets, cards are in order, however written; the rest is a value. */
function comparable(spec: VmSpec, key: keyof VmSpec): unknown {
  switch (key) {
    case "networkAllowedDomains":
    case "forwards": {
      const values = spec[key];
      return values === undefined || (values.length === 0 && key === "forwards")
        ? undefined
        : [...new Set(values)].sort();
    }
    case "networks":
      return cardRequestsOf(spec).map(({ network, address }) =>
        address === undefined ? network : `${network} ${address}`,
      );
    default:
      return sortKeys(spec[key]);
  }
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, one]) => one !== undefined);
  return Object.fromEntries(entries.sort().map(([key, one]) => [key, sortKeys(one)]));
}

function percentOf(standings: readonly Standing[]): number {
  if (standings.length === 0) return 100;
  const converged = standings.filter(({ status }) => status === "converged").length;
  // 99.9 % of many is not all of them.
  return Math.floor((100 * converged) / standings.length);
}

/** What a command is to the machine's life. */
export function eventOf(command: Exclude<Command, { kind: "adjust" }>): MachineEvent {
  switch (command.kind) {
    case "create":
      return { kind: "create", wanted: command.machine.power };
    case "delete":
      return { kind: "delete", hurry: false };
    case "power":
      return command.event === "shutdown"
        ? { kind: "shutdown", hurry: false }
        : { kind: command.event };
  }
}
