import { fleetLimits } from "../protocol.ts";
import { fallingWave, operatorLimits, type RolloutSpec } from "../protocol-operator.ts";
import { isAlive, silence } from "./lifecycle-device.ts";
import { DeviceMap } from "./lifecycle-device-map.ts";
import { Draft } from "./lifecycle-draft.ts";
import { activeRollouts, claimsOn } from "./lifecycle-member.ts";
import { keepAll, noPast, whatIsKept } from "./lifecycle-past.ts";
import { plan, tellRollout } from "./lifecycle-plan.ts";
import { withChange } from "./lifecycle-rollout.ts";
import { emptySlot, found, landed, meant, put } from "./lifecycle-slot.ts";
import {
  type FleetEvent,
  type FleetState,
  isOpen,
  type OperatorContext,
  type Refusal,
  type RolloutCounts,
  type RolloutRecord,
  type RolloutState,
  type Step,
} from "./lifecycle-state.ts";

/**
 * What a fleet's operator decides: the next state, and what is written for it. Pure. A device is
 * decided about by its own table; rollouts are looked at together, a moment after something has
 * changed. What a write has brought comes back as an event, and until then no other write of the
 * same entry is begun.
 */
export function step(state: FleetState, event: FleetEvent, context: OperatorContext): Step {
  const draft = new Draft(state, context);
  const refusal = decide(draft, event);
  if (refusal !== undefined) {
    return { state, effects: [], refusal, wakeAt: state.planAt };
  }
  const { planAt } = draft.state;
  const isDue = planAt !== undefined && planAt <= draft.now;
  if (isDue && draft.state.isOpen) plan(draft);
  const wakeAt = draft.state.isOpen ? draft.state.planAt : undefined;
  return { state: draft.state, effects: draft.effects, wakeAt };
}

/** @param settlesAt undefined where the store is the one that this operator's last process left */
export function newFleet(now: number, settlesAt?: number): FleetState {
  return {
    devices: DeviceMap.empty,
    rollouts: new Map(),
    started: now,
    isOpen: false,
    settlesAt,
    planAt: now,
  };
}

export const noCounts: RolloutCounts = {
  members: 0,
  done: 0,
  failed: 0,
  hindered: 0,
  flight: 0,
  waiting: 0,
  away: 0,
  unfit: 0,
};

function decide(draft: Draft, event: FleetEvent): Refusal | undefined {
  switch (event.kind) {
    case "device":
      return deviceEvent(draft, event);
    case "label":
    case "labels-written":
    case "labels-found":
      return labelsEvent(draft, event);
    case "forget":
      return forget(draft, event);
    case "create":
      return create(draft, event);
    case "pause":
    case "resume":
    case "abort":
      return change(draft, event);
    case "rollout-written":
      return rolloutWritten(draft, event);
    case "rollout-found":
      return rolloutFound(draft, event);
    case "opened":
      draft.open();
      return undefined;
    case "time":
      return undefined;
  }
}

type Of<Kind extends FleetEvent["kind"]> = Extract<FleetEvent, { readonly kind: Kind }>;

function deviceEvent(
  draft: Draft,
  { device: name, event, isOfBefore = false }: Of<"device">,
): Refusal | undefined {
  const known = draft.devices.get(name);
  if (known === undefined) {
    // Nothing is there of one that was forgotten meanwhile, and no write of its is waited for.
    if (event.kind === "written" || event.kind === "assign" || event.kind === "withdraw") {
      return undefined;
    }
    if (event.kind === "found" && event.value === undefined) return undefined;
    if (draft.devices.size >= fleetLimits.devices) return tooManyDevices(name);
  }
  const take = () => draft.tellDevice(known ?? draft.meet(name), event);
  if (isOfBefore) draft.quietly(take);
  else take();
  return undefined;
}

function tooManyDevices(name: string): Refusal {
  return {
    kind: "too-many",
    message: `${name} is not taken into the fleet`,
    expected: `at most ${fleetLimits.devices} devices`,
    received: "one more",
    hint: "hostler fleet forget removes those that never come back",
  };
}

function labelsEvent(
  draft: Draft,
  event: Of<"label" | "labels-written" | "labels-found">,
): Refusal | undefined {
  const device = draft.devices.get(event.device);
  switch (event.kind) {
    case "label":
      if (device === undefined) return noDevice(event.device);
      draft.setLabels(device, put(device.labels, event.labels));
      return undefined;
    case "labels-written":
      if (device !== undefined) draft.setLabels(device, landed(device.labels, event.revision));
      return undefined;
    case "labels-found": {
      if (device === undefined && event.value === undefined) return undefined;
      const known = device ?? draft.meet(event.device);
      draft.setLabels(known, found(known.labels, event));
      return undefined;
    }
  }
}

const noDevice = (name: string): Refusal => ({
  kind: "not-found",
  message: `There is no device ${name}`,
  expected: "a device that was heard once",
  received: name,
  hint: "hostler fleet devices lists them",
});

function forget(
  draft: Draft,
  { device: name, isRevoked = false }: Of<"forget">,
): Refusal | undefined {
  const device = draft.devices.get(name);
  if (device === undefined) return noDevice(name);
  const { lostAfter } = draft.context.settings;
  const silent = silence(device, draft.now);
  if (!isRevoked && (isAlive(device, draft.context) || silent <= lostAfter)) {
    const left = Math.floor((lostAfter - silent) / 1_000) + 1;
    return {
      kind: "conflict",
      message: `${name} is not forgotten: it may be there`,
      expected: `a device that was not heard for ${lostAfter / 1_000} s`,
      received: `one that was heard ${Math.round(silent / 1_000)} s ago`,
      hint:
        `Revoke its host first: hostler identity host revoke ${name}; then it is forgotten at ` +
        `once. Or forget it when it was silent for ${left} s more`,
    };
  }
  const claims = claimsOn(device, activeRollouts(draft.state.rollouts));
  keepAll(draft, whatIsKept(device, claims, { by: null, look: draft }));
  draft.forget(name);
  const message = `${name} is forgotten`;
  draft.tell({ what: "device-forgotten", device: name, rollout: null, message });
  draft.planSoon();
  return undefined;
}

function create(draft: Draft, event: Of<"create">): Refusal | undefined {
  const { name, spec } = event;
  if (draft.state.rollouts.has(name)) {
    return {
      kind: "conflict",
      message: `There is a rollout ${name} already`,
      expected: "a name that no rollout has",
      received: name,
      hint: `hostler fleet history ${name} says what it is; another one takes another --name`,
    };
  }
  const refusal = badSpec(draft, event) ?? makeRoom(draft);
  if (refusal !== undefined) return refusal;
  const numbers = [...draft.state.rollouts.values()].map(
    ({ record }) => meant(record)?.number ?? 0,
  );
  const record: RolloutRecord = {
    name,
    number: Math.max(0, ...numbers) + 1,
    phase: "running",
    reason: null,
    spec,
    wave: 0,
    forgiven: 0,
    forgivenHosts: 0,
    round: 1,
    result: null,
    past: noPast,
    changes: [],
  };
  const begun = { time: draft.context.wall, what: "begun", by: event.by ?? null } as const;
  const written = withChange(record, { ...begun, reason: null });
  draft.writeRollout(newRollout(name), put(emptySlot, written));
  const message = `rollout ${name} of ${spec.version} is running`;
  draft.tell({ what: "rollout-created", device: null, rollout: name, message });
  return undefined;
}

function badSpec(draft: Draft, { spec, mayBeUnknown }: Of<"create">): Refusal | undefined {
  const fallen = fallingWave(spec.waves);
  if (fallen !== undefined) {
    return {
      kind: "request",
      message: "The rollout is not created",
      expected: "waves that rise: each one says how many devices in all",
      received: fallen,
    };
  }
  const { devices } = spec.select;
  const unknown = devices?.find((device) => draft.devices.get(device) === undefined);
  if (unknown !== undefined && mayBeUnknown === false) {
    return {
      ...noDevice(unknown),
      hint: "hostler fleet devices lists them; --allow-unknown is for one that will come",
    };
  }
  return tooLong(spec);
}

function tooLong(spec: RolloutSpec): Refusal | undefined {
  const { length } = JSON.stringify(spec);
  if (length <= operatorLimits.specCharacters) return undefined;
  return {
    kind: "request",
    message: "The rollout is not created",
    expected: `at most ${operatorLimits.specCharacters} characters, with its manifest and names`,
    received: `${length}`,
    hint: "Name fewer devices, or give them a label and say --label",
  };
}

const newRollout = (name: string): RolloutState => ({
  name,
  record: emptySlot,
  soaking: undefined,
  counts: undefined,
  shown: undefined,
  troubled: [],
  waitsFor: "",
});

/** Over the limit the oldest that has ended goes. */
function makeRoom(draft: Draft): Refusal | undefined {
  const { rollouts } = draft.state;
  if (rollouts.size < operatorLimits.rollouts) return undefined;
  const ended = [...rollouts.values()].flatMap((rollout) => {
    const record = meant(rollout.record);
    const isEnded = record !== undefined && !isOpen(record.phase);
    return isEnded && (rollout.counts?.flight ?? 0) === 0 ? [{ rollout, record }] : [];
  });
  const [oldest] = ended.sort((left, right) => left.record.number - right.record.number);
  if (oldest === undefined) {
    return {
      kind: "too-many",
      message: "The rollout is not created",
      expected: `at most ${operatorLimits.rollouts} rollouts that have not ended`,
      received: "one more",
      hint: "hostler fleet abort ends one",
    };
  }
  draft.writeRollout(oldest.rollout, put(oldest.rollout.record, undefined));
  return undefined;
}

function change(draft: Draft, event: Of<"pause" | "resume" | "abort">): Refusal | undefined {
  const rollout = draft.state.rollouts.get(event.rollout);
  if (rollout === undefined) {
    return {
      kind: "not-found",
      message: `There is no rollout ${event.rollout}`,
      expected: "the name of a rollout",
      received: event.rollout,
      hint: "hostler fleet history lists them",
    };
  }
  const counts = rollout.counts ?? noCounts;
  const why = tellRollout(draft, event.rollout, { ...event, counts }, event.by);
  if (why === undefined) return undefined;
  const phase = meant(rollout.record)?.phase ?? "about to be removed";
  return {
    kind: "conflict",
    message: `Rollout ${event.rollout} is left as it is: ${why}`,
    expected: `a rollout to ${event.kind}`,
    received: `one that is ${phase}`,
  };
}

function rolloutWritten(draft: Draft, event: Of<"rollout-written">): Refusal | undefined {
  const rollout = draft.state.rollouts.get(event.rollout);
  if (rollout === undefined) return undefined;
  const written = landed(rollout.record, event.revision);
  if (meant(written.slot) === undefined && written.slot.pending === undefined) {
    draft.dropRollout(rollout.name);
  } else draft.writeRollout(rollout, written);
  return undefined;
}

function rolloutFound(draft: Draft, event: Of<"rollout-found">): Refusal | undefined {
  const rollout = draft.state.rollouts.get(event.rollout);
  if (rollout === undefined && event.value === undefined) return undefined;
  const known = rollout ?? newRollout(event.rollout);
  const written = found(known.record, event);
  if (meant(written.slot) === undefined && written.slot.pending === undefined) {
    draft.dropRollout(known.name);
    return undefined;
  }
  draft.writeRollout(known, written);
  if (written.write !== undefined) draft.lost("a rollout", known.name);
  return undefined;
}
