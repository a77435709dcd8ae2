import {
  type ClusterChange,
  type ClusterRequest,
  masterLimits,
  type Placement,
} from "../protocol-master.ts";
import { findDrift, isAdjustable } from "../reconcile.ts";
import type { Draft } from "./lifecycle-draft.ts";
import type {
  ClusterDesired,
  ClusterState,
  Declaration,
  MasterEvent,
  Placed,
  Refusal,
} from "./lifecycle-state.ts";

/** What is declared for the whole cluster: taken whole, or not at all. Pure. */

export function applyStep(
  draft: Draft,
  { desired, expectGeneration }: Extract<MasterEvent, { kind: "apply" }>,
): Refusal | undefined {
  const present = draft.state.desired;
  const refusal = refuseWhole(desired) ?? refuseGeneration(present, desired, expectGeneration);
  if (refusal !== undefined) return refusal;
  const next = nextDeclaration(present, desired);
  if (next.generation === present.generation) return undefined;
  for (const { name } of draft.workers()) keepFromMoving(draft, name, next);
  draft.setDesired(next);
  return undefined;
}

/** Whoever is told that a machine may not move starts it after a boot without a word. */
function keepFromMoving(draft: Draft, name: string, next: Declaration): void {
  const record = draft.worker(name)?.record;
  if (record === undefined) return;
  const fixed = Object.entries(record.machines).filter(([machine, { movable }]) => {
    const desired = next.machines.get(machine);
    return movable && desired !== undefined && desired.placement.movable !== true;
  });
  if (fixed.length === 0) return;
  const changed = fixed.map(([machine, placed]): [string, Placed] => [
    machine,
    { ...placed, movable: false, watchdog_ms: null },
  ]);
  draft.assign(name, {
    ...record,
    machines: { ...record.machines, ...Object.fromEntries(changed) },
  });
}

/** The declaration as it is to be; the present one where nothing differs and no number is given. */
export function nextDeclaration(present: Declaration, request: ClusterRequest): Declaration {
  const machines = machinesOf(request);
  const isSame = isSameDeclared(present.machines, machines);
  if (request.generation === undefined && isSame && present.generation > 0) return present;
  const generation = request.generation ?? present.generation + 1;
  return generation === present.generation ? present : { generation, machines };
}

export function machinesOf(request: ClusterRequest): ReadonlyMap<string, ClusterDesired> {
  return new Map(
    request.machine.map(({ power = "running", placement = {}, ...spec }) => [
      spec.name,
      { spec, power, placement },
    ]),
  );
}

/** As a file would declare it. */
export function requestOf({ generation, machines }: Declaration): ClusterRequest {
  return {
    generation,
    machine: [...machines.values()].map(({ spec, power, placement }) => ({
      ...spec,
      power,
      ...(Object.keys(placement).length > 0 && { placement }),
    })),
  };
}

function refuseWhole(request: ClusterRequest): Refusal | undefined {
  const seen = new Set<string>();
  for (const { name } of request.machine) {
    if (seen.has(name)) {
      return {
        kind: "request",
        message: "Nothing was applied: two machines have one name",
        expected: "each name once",
        received: `${name} twice`,
      };
    }
    seen.add(name);
  }
  const bytes = new TextEncoder().encode(JSON.stringify(request)).length;
  if (bytes <= masterLimits.declarationBytes) return undefined;
  return {
    kind: "too-large",
    message: "Nothing was applied: the declaration is too large",
    expected: `at most ${masterLimits.declarationBytes} bytes as JSON`,
    received: `${bytes}`,
  };
}

function refuseGeneration(
  present: Declaration,
  request: ClusterRequest,
  expectGeneration: number | undefined,
): Refusal | undefined {
  if (expectGeneration !== undefined && expectGeneration !== present.generation) {
    return {
      kind: "conflict",
      message: "Nothing was applied: another declaration was applied meanwhile",
      expected: `generation ${expectGeneration}`,
      received: `generation ${present.generation}`,
      hint: "Look at it by hostler vm diff FILE --master",
    };
  }
  const { generation } = request;
  if (generation === undefined || generation > present.generation) return undefined;
  const isSame = isSameDeclared(present.machines, machinesOf(request));
  if (generation === present.generation && isSame) return undefined;
  return {
    kind: "conflict",
    message:
      generation === present.generation
        ? `Nothing was applied: generation ${generation} is another declaration`
        : "Nothing was applied: a later declaration was applied before",
    expected: `a generation above ${present.generation}`,
    received: `${generation}`,
    hint: "Raise it, or leave it out",
  };
}

function isSameDeclared(
  left: ReadonlyMap<string, ClusterDesired>,
  right: ReadonlyMap<string, ClusterDesired>,
): boolean {
  if (left.size !== right.size) return false;
  return [...left].every(([name, machine]) => {
    const other = right.get(name);
    return other !== undefined && changedKeys(machine, other).length === 0;
  });
}

function changedKeys(before: ClusterDesired, after: ClusterDesired): readonly string[] {
  const drift = findDrift(after.spec, before.spec).map(({ key }) => key);
  const power = before.power === after.power ? [] : ["power"];
  const isPlaced = placementText(before.placement) === placementText(after.placement);
  return [...drift, ...power, ...(isPlaced ? [] : ["placement"])];
}

function placementText({ labels = {}, spread, movable = false }: Placement): string {
  return JSON.stringify([Object.entries(labels).sort(), spread?.group, spread?.by, movable]);
}

const RECREATED = "it is deleted with its disks, and made anew";

/** Power and placement change nothing of what a machine is made of. */
const isRecreating = (key: string): boolean =>
  key !== "power" && key !== "placement" && !isAdjustable(key);

/** What lies between two states, machine by machine. */
export function changesBetween(before: ClusterState, after: ClusterState): ClusterChange {
  const names = new Set([...before.desired.machines.keys(), ...after.desired.machines.keys()]);
  const changes = [...names].sort().flatMap((name): ClusterChange["changes"] => {
    const [old, next] = [before.desired.machines.get(name), after.desired.machines.get(name)];
    const worker = after.placed.get(name) ?? null;
    if (next === undefined) return [{ name, kind: "remove", worker, detail: "declared no more" }];
    if (old === undefined) {
      const detail = after.unplaced.get(name) ?? `to be ${next.power}`;
      return [{ name, kind: "add", worker, detail }];
    }
    const keys = changedKeys(old, next);
    if (keys.length === 0) return [];
    const detail = keys.join(", ");
    const isMade = before.placed.has(name);
    return isMade && keys.some(isRecreating)
      ? [{ name, kind: "recreate", worker, detail: `${detail}: ${RECREATED}` }]
      : [{ name, kind: "change", worker, detail }];
  });
  const { generation } = after.desired;
  return { generation, unchanged: generation === before.desired.generation, changes };
}
