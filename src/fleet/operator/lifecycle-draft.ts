import { formatBytes } from "../../units/bytes.ts";
import type { Marker } from "../protocol.ts";
import type { Labels } from "../protocol-operator.ts";
import {
  type DeviceContext,
  driftWords,
  newDevice,
  phaseOf,
  stepDevice,
} from "./lifecycle-device.ts";
import type { DeviceMap } from "./lifecycle-device-map.ts";
import { meant, type Written } from "./lifecycle-slot.ts";
import type {
  DeviceEvent,
  DeviceState,
  FleetEffect,
  FleetState,
  Happening,
  OperatorContext,
  RolloutRecord,
  RolloutState,
} from "./lifecycle-state.ts";
import { isWindowOpen } from "./lifecycle-window.ts";

/** A state that is being changed by one event; the one that it began with is not touched. */
export class Draft {
  readonly context: OperatorContext;
  #state: FleetState;
  readonly #effects: FleetEffect[] = [];
  #isTold = true;

  constructor(state: FleetState, context: OperatorContext) {
    this.#state = state;
    this.context = context;
  }

  get now(): number {
    return this.context.now;
  }

  get state(): FleetState {
    return this.#state;
  }

  get effects(): readonly FleetEffect[] {
    return this.#effects;
  }

  get devices(): DeviceMap {
    return this.#state.devices;
  }

  /** Rollouts are looked at soon: something of theirs has changed. */
  planSoon(): void {
    this.planAt(this.now + this.context.settings.planDelay);
  }

  planAt(time: number): void {
    const { planAt } = this.#state;
    if (planAt === undefined || time < planAt) this.#state = { ...this.#state, planAt: time };
  }

  open(): void {
    this.#state = { ...this.#state, isOpen: true };
    this.planSoon();
  }

  /** The plan is being made. */
  planned(): void {
    this.#state = { ...this.#state, planAt: undefined };
  }

  setDevice(device: DeviceState): void {
    this.#state = { ...this.#state, devices: this.#state.devices.with(device) };
  }

  forget(name: string): void {
    this.#state = { ...this.#state, devices: this.#state.devices.without(name) };
    this.#effects.push({ kind: "delete-device", device: name });
  }

  /** It is known from now on. */
  meet(name: string): DeviceState {
    const device = newDevice(name, this.now);
    this.setDevice(device);
    this.tell({ what: "device-new", device: name, rollout: null, message: `${name} is known` });
    this.planSoon();
    return device;
  }

  /** Has one device decide, and takes note of what comes of it. */
  tellDevice(before: DeviceState, event: DeviceEvent): void {
    const { device, write } = stepDevice(before, event, this.#deviceContext(before));
    if (device === before && write === undefined) return;
    const isMoved = phaseOf(device) !== phaseOf(before);
    this.setDevice(isMoved ? { ...device, since: this.now } : device);
    if (write !== undefined)
      this.#effects.push({ kind: "write-marker", device: device.name, write });
    if (event.kind === "found" && write !== undefined) this.#sayLost(device.name, "its marker");
    const isBack = before.canonical?.at !== device.canonical?.at && this.#wasAway(before);
    // What has landed may have given a place back.
    if (isBack || event.kind === "written") this.planSoon();
    this.#tellPhase(before, device);
  }

  setLabels(device: DeviceState, { slot, write }: Written<Labels>): void {
    this.setDevice({ ...device, labels: slot });
    if (write !== undefined)
      this.#effects.push({ kind: "write-labels", device: device.name, write });
    this.planSoon();
  }

  setRollout(rollout: RolloutState): void {
    const rollouts = new Map(this.#state.rollouts);
    rollouts.set(rollout.name, rollout);
    this.#state = { ...this.#state, rollouts };
  }

  dropRollout(name: string): void {
    const rollouts = new Map(this.#state.rollouts);
    rollouts.delete(name);
    this.#state = { ...this.#state, rollouts };
  }

  /** What is kept of it is another; it counts from now on. */
  writeRollout(rollout: RolloutState, { slot, write }: Written<RolloutRecord>): void {
    this.setRollout({ ...rollout, record: slot });
    if (write !== undefined) {
      this.#effects.push({ kind: "write-rollout", rollout: rollout.name, write });
    }
    this.planSoon();
  }

  /** What is read from the store for the first time is no news, whenever it happened. */
  tell(happening: Happening): void {
    if (this.#isTold && this.#state.isOpen) this.#effects.push({ kind: "tell", happening });
  }

  /** Takes note of what was so before this process looked. */
  quietly(change: () => void): void {
    this.#isTold = false;
    change();
    this.#isTold = true;
  }

  lost(what: string, rollout: string): void {
    const message = `the store has lost ${what}: it is written again`;
    this.tell({ what: "store-lost", device: null, rollout, message });
  }

  /** Whether something may be begun or committed by this rollout now. */
  mayGoOn(name: string | undefined): boolean {
    const record = name === undefined ? undefined : this.#state.rollouts.get(name)?.record;
    // Written down at least once: what nobody remembers after a restart moves nothing.
    const kept = record?.stored;
    const wanted = record === undefined ? undefined : meant(record);
    if (kept === undefined || wanted === undefined) return false;
    if (wanted.phase !== "running" && wanted.phase !== "complete") return false;
    const { settlesAt } = this.#state;
    if (settlesAt !== undefined && this.now < settlesAt) return false;
    return isWindowOpen(wanted.spec.windows, this.context.wall);
  }

  #deviceContext(device: DeviceState): DeviceContext {
    const { now, settings } = this.context;
    return { now, settings, mayCommit: this.mayGoOn(meant(device.marker)?.rollout?.name) };
  }

  #wasAway({ canonical }: DeviceState): boolean {
    return canonical === undefined || this.now - canonical.at > this.context.settings.silentAfter;
  }

  #sayLost(device: string, what: string): void {
    const message = `the store has lost ${what}: it is written again`;
    this.tell({ what: "store-lost", device, rollout: null, message });
  }

  #tellPhase(before: DeviceState, device: DeviceState): void {
    const { name } = device;
    const [old, phase] = [phaseOf(before), phaseOf(device)];
    const rollout = meant(device.marker)?.rollout?.name ?? null;
    if (device.trouble !== undefined && device.trouble !== before.trouble) {
      const message = `${name}: ${device.trouble}`;
      this.tell({ what: "device-unreadable", device: name, rollout, message });
    }
    if (old === phase) return;
    this.tell({ what: phase, device: name, rollout, message: messageOf(device) });
    this.planSoon();
  }
}

function messageOf(device: DeviceState): string {
  const marker = meant(device.marker);
  const { reason = null, phase = "idle" } = device.status?.value ?? {};
  const version = versionOf(marker);
  const why = driftWords(device) ?? reason ?? marker?.withdrawn?.reason ?? null;
  const told = why === null ? phase : `${phase}: ${why}`;
  return `${device.name}: ${version}${phaseOf(device)}, it says ${told}${fetchedText(device)}`;
}

/** Once it has all of it: so many bytes came over the wire for so many. */
function fetchedText(device: DeviceState): string {
  const progress = device.status?.value.progress ?? null;
  if (phaseOf(device) !== "ready" || progress === null) return "";
  const { of_bytes: all, fetched_bytes: fetched, again_bytes: again } = progress;
  const twice = again === 0 ? "" : `, ${formatBytes(again)} of them again`;
  return `; ${formatBytes(fetched)} fetched for ${formatBytes(all)}${twice}`;
}

const versionOf = (marker: Marker | undefined): string =>
  marker === undefined ? "" : `${marker.build.version} `;
