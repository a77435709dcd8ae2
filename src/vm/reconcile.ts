import type { MachineEvent, Phase, Wanted } from "./lifecycle-state.ts";
import type { Assigned, Given } from "./machine-record.ts";
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
  /** What a master gave it with; undefined for one that a file of this host declares. */
  readonly assigned?: Assigned;
}

/** Why a machine may not run now. ends: its VMM is ended. waits: it gets none. */
export interface Hold {
  readonly kind: "ends" | "waits";
  readonly reason: string;
}

/** All that is declared for one worker, under the number of its version. */
export interface Desired {
  readonly generation: number;
  readonly machines: readonly DesiredMachine[];
  /**
   * Machines that are to go, when they are held under this owner generation or a lower one: all
   * others stay. undefined: what is declared no more goes.
   */
  readonly removals?: ReadonlyMap<string, number>;
  /** Machines that were given to another host while they were declared here: not made anew. */
  readonly given?: ReadonlyMap<string, Given>;
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
  readonly owner: "declared" | "operator" | "received" | "unknown";
  /** Under which a master gave it; undefined for one that none gave. */
  readonly ownerGeneration?: number | undefined;
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
  /** It came from another host, and is declared as it is: it is the declaration's from now on. */
  | { readonly kind: "adopt"; readonly name: string; readonly machine: DesiredMachine }
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
      /** It has failed as it was declared before: it is booted with what it has now. */
      readonly boots?: true;
      readonly drift: readonly Drift[];
    }
  /** Given under a higher owner generation: it is ended, and created anew when it is removed. */
  | { readonly kind: "delete"; readonly name: string; readonly reason: "given-anew" }
  /** It may not run now: its VMM is ended, and its guest is not asked. */
  | { readonly kind: "end"; readonly name: string; readonly reason: string }
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
export function reconcile(
  desired: Desired,
  observed: readonly ObservedMachine[],
  holds: ReadonlyMap<string, Hold> = new Map(),
): Reconciliation {
  const known = new Map(observed.map((machine) => [machine.name, machine]));
  const declared = new Set(desired.machines.map(({ spec }) => spec.name));
  const held = observed.flatMap(
    (machine) => decideHeld(machine, holds.get(machine.name), desired.removals) ?? [],
  );
  const isHeld = new Set(held.map(({ standing }) => standing.name));
  const extra = observed.filter(({ name }) => !declared.has(name) && !isHeld.has(name));
  const decisions = [
    // What may not run is ended before anything else is done.
    ...held,
    ...desired.machines
      .filter(({ spec }) => !isHeld.has(spec.name))
      .map((machine) =>
        decideDeclared(
          machine,
          known.get(machine.spec.name),
          desired.given?.get(machine.spec.name),
        ),
      ),
    ...extra.map((machine) => decideExtra(machine, desired.removals)),
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
  if (machine.phase === "given") return "it was given to another host";
  if (machine.phase === "receiving" || machine.phase === "arrived") return "another host sends it";
  if (machine.owner === "unknown") return "nobody knows who made it";
  if (machine.spec === undefined) return "nobody knows what it was made of";
  return undefined;
}

/** Phases in which a machine has no VMM, and none is being made. */
const withoutVmm: ReadonlySet<Phase> = new Set<Phase>([
  ...(["absent", "preparing", "preparing-network", "clearing", "off"] as const),
  ...(["failed", "backing-off", "removing", "removed"] as const),
]);

/** Whether a machine may have a VMM, as far as anybody knows. */
export const mayHaveVmm = (phase: Phase): boolean => !withoutVmm.has(phase);

/** undefined: it is treated as any other. A removal goes on, and ends a VMM as well. */
function decideHeld(
  observed: ObservedMachine,
  hold: Hold | undefined,
  removals: Desired["removals"],
): Decision | undefined {
  if (hold === undefined || isGone(observed)) return undefined;
  const { name, phase, wanted } = observed;
  const { kind, reason } = hold;
  const hasVmm = mayHaveVmm(phase);
  if (kind === "waits" && hasVmm) return undefined;
  const standing = pending(name, reason);
  const isMeant = wanted !== "off" && wanted !== "absent";
  // One that is stopping, or being removed, has a guest that takes its time.
  if (hasVmm || isMeant) return { standing, command: { kind: "end", name, reason } };
  return isToGo(observed, removals) ? undefined : { standing };
}

const isToGo = ({ name, ownerGeneration }: ObservedMachine, removals: Desired["removals"]) =>
  (removals?.get(name) ?? 0) >= (ownerGeneration ?? Number.POSITIVE_INFINITY);

function decideDeclared(
  machine: DesiredMachine,
  observed: ObservedMachine | undefined,
  given: Given | undefined,
): Decision {
  const { name } = machine.spec;
  if (isGone(observed)) {
    if (given !== undefined) return { standing: stand(name, "left-alone", givenText(name, given)) };
    return { standing: pending(name, "it is missing"), command: { kind: "create", name, machine } };
  }
  const leftAlone = whyLeftAlone(observed);
  if (leftAlone !== undefined) return { standing: stand(name, "left-alone", leftAlone) };
  if (observed.owner === "operator") {
    return { standing: stand(name, "left-alone", "an operator made it by hand") };
  }
  if (observed.owner === "received") return decideReceived(machine, observed);
  if (observed.wanted === "absent") return { standing: pending(name, "it is being removed") };
  const owned = decideOwner(machine, observed);
  if (owned !== undefined) return owned;
  const drift = findDrift(machine.spec, observed.spec);
  if (drift.length > 0) {
    const standing = { ...stand(name, "drifted", undefined), drift };
    if (drift.every(({ key }) => adjustable.has(key))) {
      const boots = observed.phase === "failed" && machine.power === "running";
      const mended = boots ? ({ boots: true } as const) : {};
      const command = { kind: "adjust", name, spec: machine.spec, drift, ...mended } as const;
      return { standing, command };
    }
    return { standing, command: { kind: "delete", name, reason: "changed", drift } };
  }
  return decidePower(machine, observed);
}

const givenText = (name: string, { to, time }: Given) =>
  `it was given to ${to} at ${time}: take it out of the file here, or, to make it anew here, ` +
  `hostler vm forget-migrated ${name}`;

/** One that came from another host, whose file declared it as this one's does now. */
function decideReceived(machine: DesiredMachine, observed: ObservedMachine): Decision {
  const { name } = machine.spec;
  if (machine.assigned !== undefined) {
    return { standing: stand(name, "left-alone", "it came from another host, by an operator") };
  }
  if (observed.wanted === "absent") return { standing: pending(name, "it is being removed") };
  const drift = findDrift(machine.spec, observed.spec).filter(({ key }) => !adjustable.has(key));
  if (drift.length === 0) {
    const standing = pending(name, "it came from another host");
    return { standing, command: { kind: "adopt", name, machine } };
  }
  const keys = drift.map(({ key }) => key).join(", ");
  const reason =
    `it came from another host, and is declared here with another ${keys}: declare it as it is, ` +
    `by hostler vm show ${name}, or delete it`;
  return { standing: { ...stand(name, "left-alone", reason), drift } };
}

/** Keys of what is around a machine, and not of what it is made of. */
const adjustable: ReadonlySet<string> = new Set<keyof VmSpec>(["health", "limits"]);

/** Whether a machine goes on while this is changed, and is not created anew. */
export const isAdjustable = (key: string): boolean => adjustable.has(key);

/** undefined: it is held under the owner generation under which it is declared. */
function decideOwner(
  { assigned }: DesiredMachine,
  { name, ownerGeneration }: ObservedMachine,
): Decision | undefined {
  const given = assigned?.owner_generation;
  if (given === ownerGeneration) return undefined;
  if (given === undefined) {
    return { standing: stand(name, "left-alone", "a master gave it") };
  }
  if (ownerGeneration === undefined) {
    return { standing: stand(name, "left-alone", "it was declared here, and no master gave it") };
  }
  if (given < ownerGeneration) {
    const reason = `it is held under owner generation ${ownerGeneration}, after ${given}`;
    return { standing: stand(name, "left-alone", reason) };
  }
  const standing = pending(name, "it is given anew");
  return { standing, command: { kind: "delete", name, reason: "given-anew" } };
}

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
  if (event === undefined) return { standing: stand(name, "drifted", whyNotLed(observed)) };
  const drift = [{ key: "power", desired: power, observed: wanted }];
  const standing = { ...stand(name, "drifted", undefined), drift };
  return { standing, command: { kind: "power", name, event } };
}

/** One that is off stays so, whoever switched it off: what is declared was not said again. */
function whyNotLed({ name, phase, wanted, reason = `it is ${phase}` }: ObservedMachine): string {
  if (wanted !== "off") return reason;
  return `${reason}; hostler vm boot ${name} starts it, and so does another power that is declared`;
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

function decideExtra(
  observed: ObservedMachine,
  removals: Desired["removals"],
): Decision | undefined {
  if (isGone(observed)) return undefined;
  const { name, ownerGeneration } = observed;
  if (removals === undefined && ownerGeneration !== undefined) return undefined;
  // Nobody has said that it may go.
  if (removals !== undefined && !isToGo(observed, removals)) return undefined;
  const leftAlone = whyLeftAlone(observed);
  if (leftAlone !== undefined) return { standing: stand(name, "left-alone", leftAlone) };
  if (observed.owner === "operator" || observed.owner === "received") return undefined;
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

/**
 * Every key that differs; one that is left out stands for nothing. With the same hash it is the
 * same image, wherever it is read.
 */
export function findDrift(desired: VmSpec, observed: VmSpec | undefined): readonly Drift[] {
  if (observed === undefined) return [];
  const isSameImage = desired.hash !== undefined && desired.hash === observed.hash;
  const keys = new Set([...Object.keys(desired), ...Object.keys(observed)]) as Set<keyof VmSpec>;
  return [...keys].sort().flatMap((key) => {
    const [wanted, found] = [comparable(desired, key), comparable(observed, key)];
    if (JSON.stringify(wanted) === JSON.stringify(found)) return [];
    if (key === "imagePath" && isSameImage && wanted !== undefined) return [];
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
export function eventOf(command: Exclude<Command, { kind: "adjust" | "adopt" }>): MachineEvent {
  switch (command.kind) {
    case "create":
      return { kind: "create", wanted: command.machine.power };
    case "delete":
      return { kind: "delete", hurry: command.reason === "given-anew" };
    case "end":
      return { kind: "shutdown", hurry: true };
    case "power":
      return command.event === "shutdown"
        ? { kind: "shutdown", hurry: false }
        : { kind: command.event };
  }
}
