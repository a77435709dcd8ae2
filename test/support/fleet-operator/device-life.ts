/** One device under a step function of its operator; events are made from where it stands. */

import {
  type DeviceOutcome,
  newDevice,
  phaseOf,
  type stepDevice,
} from "../../../src/fleet/operator/lifecycle-device.ts";
import { meant } from "../../../src/fleet/operator/lifecycle-slot.ts";
import type { DeviceEvent, DeviceState } from "../../../src/fleet/operator/lifecycle-state.ts";
import type { DeviceStatus, Heartbeat, Marker, UpgradePhase } from "../../../src/fleet/protocol.ts";
import type { DevicePhase } from "../../../src/fleet/protocol-operator.ts";

export type StepDevice = typeof stepDevice;

export const settings = { silentAfter: 35_000, probation: 15_000 } as const;
export const hex = (digit: string, length: number): string => digit.repeat(length);

export const builds = {
  old: { version: "1.0.0", digest: hex("a", 64) },
  new: { version: "1.1.0", digest: hex("b", 64) },
} as const;
const boot = "00000000-0000-4000-8000-000000000001";

export function markerOf(change: Partial<Marker> = {}): Marker {
  return {
    protocol: 1,
    transaction: hex("1", 32),
    rollout: { name: "spring", round: 1, attempt: 1 },
    build: builds.new,
    manifest: "signed",
    sources: ["https://artifacts.example/hostler"],
    rate: null,
    limits: { staging_ms: 600_000, commit_ms: 120_000, canonical_ms: 60_000 },
    observed: null,
    commit: null,
    withdrawn: null,
    ...change,
  };
}

export function statusOf(change: Partial<DeviceStatus> = {}): DeviceStatus {
  return {
    protocol: 1,
    transaction: null,
    phase: "idle",
    reason: null,
    current: builds.old,
    previous: null,
    candidate: null,
    progress: null,
    last_words: null,
    step: 1,
    boot,
    architecture: "x64",
    libc: "glibc",
    floor: null,
    executor: "systemd",
    ...change,
  };
}

export function heartbeatOf(change: Partial<Heartbeat> = {}): Heartbeat {
  return {
    protocol: 1,
    instance: hex("0", 32),
    ...builds.old,
    transaction: null,
    boot,
    sequence: 1,
    roles: [{ role: "agent", digest: builds.old.digest, healthy: true, reason: null }],
    ...change,
  };
}

/** The instance of a candidate, as a device has started it. */
export const candidateInstance = hex("c", 32);

export class DeviceLife {
  now = 100_000;
  device: DeviceState = newDevice("box", 100_000);
  mayCommit = true;
  /** What the last event had written. */
  write: DeviceOutcome["write"];
  revision = 100;
  readonly #step: StepDevice;

  constructor(step: StepDevice) {
    this.#step = step;
  }

  fork(step = this.#step): DeviceLife {
    const copy = new DeviceLife(step);
    Object.assign(copy, {
      now: this.now,
      device: this.device,
      mayCommit: this.mayCommit,
      revision: this.revision,
    });
    return copy;
  }

  get phase(): DevicePhase {
    return phaseOf(this.device);
  }

  get marker(): Marker {
    const marker = meant(this.device.marker);
    if (marker === undefined) throw new Error("There is no marker");
    return marker;
  }

  tell(event: DeviceEvent): this {
    const { now, mayCommit } = this;
    const { device, write } = this.#step(this.device, event, { now, settings, mayCommit });
    this.device = device;
    this.write = write;
    return this;
  }

  pass(time: number): this {
    this.now += time;
    return this;
  }

  nextRevision(): number {
    this.revision += 1;
    return this.revision;
  }

  // Events.

  assigned = (change: Partial<Marker> = {}): DeviceEvent => ({
    kind: "assign",
    marker: markerOf(change),
  });
  withdrawn = (): DeviceEvent => ({ kind: "withdraw", reason: "not heard for 130 s" });
  landed = (): DeviceEvent => ({ kind: "written", revision: this.nextRevision() });
  status = (
    change: Partial<DeviceStatus> = {},
    listed = false,
  ): Extract<DeviceEvent, { readonly kind: "status" }> => ({
    kind: "status",
    status: statusOf({ step: (this.device.status?.value.step ?? 0) + 1, ...change }),
    revision: this.nextRevision(),
    listed,
  });
  /** What the device says of the marker that it follows. */
  says = (phase: UpgradePhase, change: Partial<DeviceStatus> = {}): DeviceEvent => {
    const { transaction, build } = meant(this.device.marker) ?? markerOf();
    const hasCandidate = !["staging", "verifying"].includes(phase);
    return this.status({
      phase,
      transaction,
      candidate: hasCandidate ? { ...build, instance: candidateInstance } : null,
      ...(phase === "done" && { current: build, previous: builds.old }),
      ...change,
    });
  };
  canonical = (change: Partial<Heartbeat> = {}, listed = false): DeviceEvent => {
    const sequence = (this.device.canonical?.heartbeat.sequence ?? 0) + 1;
    const heartbeat = heartbeatOf({ sequence, ...change });
    return { kind: "canonical", heartbeat, revision: this.nextRevision(), listed };
  };
  candidate = (change: Partial<Heartbeat> = {}, listed = false): DeviceEvent => {
    const { transaction, build } = meant(this.device.marker) ?? markerOf();
    const sequence = (this.device.candidate?.heartbeat.sequence ?? 0) + 1;
    const own = { instance: candidateInstance, transaction, ...build, sequence };
    const heartbeat = heartbeatOf({ ...own, ...change });
    return { kind: "candidate", heartbeat, revision: this.nextRevision(), listed };
  };

  // Ways.

  told(): this {
    this.tell(this.status()).tell(this.canonical());
    return this.tell(this.assigned()).tell(this.landed());
  }

  ready(): this {
    return this.told().tell(this.says("staging")).tell(this.says("cutover-ready"));
  }

  observed(): this {
    return this.ready().tell(this.candidate()).tell(this.landed());
  }

  committed(): this {
    return this.observed().pass(settings.probation).tell(this.candidate());
  }

  swapping(): this {
    return this.committed().tell(this.landed()).tell(this.says("commit-seen"));
  }

  // What must be.

  is(phase: DevicePhase): this {
    return this.requires("phase", this.phase, phase);
  }

  /** The last event wrote a marker that has this. */
  wrote(part: Partial<Marker>): this {
    const written = this.write?.value ?? {};
    for (const [key, value] of Object.entries(part)) {
      this.requires(`${key} that was written`, Reflect.get(written, key), value);
    }
    return this.requires("a write", this.write !== undefined, true);
  }

  wroteNothing(): this {
    return this.requires("a write", this.write, undefined);
  }

  requires(what: string, received: unknown, expected: unknown): this {
    if (Bun.deepEquals(received, expected)) return this;
    const show = (value: unknown) => JSON.stringify(value) ?? "undefined";
    throw new Error(`${what}\n  expected ${show(expected)}\n  received ${show(received)}`);
  }
}

/** Lives in every phase, and in several ways in some. */
export function makeDeviceLives(
  step: StepDevice,
): readonly { readonly name: string; readonly life: DeviceLife }[] {
  const life = () => new DeviceLife(step);
  const lives: [string, DeviceLife][] = [
    ["free, never heard", life()],
    ["free", free(life())],
    ["foreign, without a marker", foreign(life())],
    ["foreign, and told", assigned(foreign(life()))],
    ["foreign, by a marker", foreign(life().told())],
    ["told, on its way", withoutLanding(life())],
    ["told", life().told()],
    ["told, its candidate heard before its word", heardEarly(life())],
    ["preparing", preparing(life())],
    ["preparing, its candidate heard before its word", heardWhilePreparing(life())],
    ["ready", life().ready()],
    ["ready, the sight of it on its way", seen(life())],
    ["ready again, by another instance", readyAgain(life())],
    ["observed", life().observed()],
    ["observed, and may not be committed", mayNotCommit(life().observed())],
    ["observed, about to be proven", life().observed().pass(settings.probation)],
    ["held, unheard", held(life().ready())],
    ["held", held(life().observed())],
    ["committed, on its way", life().committed()],
    ["committed", landing(life().committed())],
    ["swapping", life().swapping()],
    ["swapping, as canonical", asCanonical(life())],
    ["withdrawn, on its way", taken(life().observed())],
    ["withdrawn", landing(taken(life().observed()))],
    ["returned, never taken up", landing(taken(life().told()))],
    ["returned", ended(landing(taken(life().observed())), { cause: "withdrawn" })],
    ["returned, uncommitted", ended(life().observed(), {})],
    ["failed", ended(life().observed(), { cause: "candidate" })],
    ["failed after the commit", rolledBack(life())],
    ["done", done(life())],
    ["done, long ago", done(life()).pass(settings.silentAfter)],
    ["failed, drifted since it was done", drifted(life())],
  ];
  const again = lives
    .filter(([, one]) => one.device.marker.revision > 0 && one.device.marker.pending === undefined)
    .map(([name, one]): [string, DeviceLife] => [`${name}, its marker lost`, losing(one.fork())]);
  return [...lives, ...again].map(([name, one]) => ({ name, life: one }));
}

const free = (life: DeviceLife) => life.tell(life.status()).tell(life.canonical());
const assigned = (life: DeviceLife) => life.tell(life.assigned());
const foreign = (life: DeviceLife) =>
  life.tell(life.status({ phase: "staging", transaction: hex("f", 32) }));
const withoutLanding = (life: DeviceLife) => life.tell(life.status()).tell(life.assigned());
const preparing = (life: DeviceLife) => life.told().tell(life.says("staging"));
const heardEarly = (life: DeviceLife) => life.told().tell(life.candidate());
const heardWhilePreparing = (life: DeviceLife) => preparing(life).tell(life.candidate());
const seen = (life: DeviceLife) => life.ready().tell(life.candidate());
const readyAgain = (life: DeviceLife) =>
  life
    .observed()
    .tell(life.says("cutover-ready", { candidate: { ...builds.new, instance: hex("d", 32) } }));
const mayNotCommit = (life: DeviceLife) => {
  life.mayCommit = false;
  return life.pass(settings.probation);
};
const held = (life: DeviceLife) => life.tell(life.says("held", { reason: "no commit came" }));
/** The store has forgotten the marker, and it is on its way again. */
const losing = (life: DeviceLife) => life.tell({ kind: "found", value: undefined, revision: 0 });
const landing = (life: DeviceLife) => life.tell(life.landed());
const asCanonical = (life: DeviceLife) => life.swapping().tell(life.says("canonical"));
const taken = (life: DeviceLife) => life.tell(life.withdrawn());
const ended = (life: DeviceLife, change: Partial<DeviceStatus>) =>
  life.tell(life.says("aborted", { reason: "it ended", candidate: null, ...change }));
const rolledBack = (life: DeviceLife) =>
  life.swapping().tell(life.says("rolled-back", { reason: "silent", cause: "canonical" }));
const done = (life: DeviceLife) =>
  life.swapping().tell(life.says("canonical")).tell(life.says("done"));

const drifted = (life: DeviceLife) =>
  done(life).pass(settings.silentAfter).tell(life.canonical()).pass(1_000);

/** All shapes of all events, as they may come in this life. */
export function makeDeviceEvents(
  life: DeviceLife,
): Record<DeviceEvent["kind"], readonly DeviceEvent[]> {
  const { device, revision } = life;
  const foreignMarker = markerOf({ transaction: hex("e", 32) });
  const next = life.fork();
  const known = device.status;
  const own: UpgradePhase[] = [
    ...(["staging", "cutover-ready", "held", "commit-seen", "done"] as const),
    ...(["rolled-back", "idle"] as const),
  ];
  return {
    status: [
      ...own.map((phase) => next.says(phase)),
      next.says("aborted", { cause: "candidate", reason: "it crashed" }),
      next.says("aborted", { cause: "uncommitted", reason: "no commit" }),
      next.status({ transaction: hex("f", 32), phase: "verifying" }),
      next.status({ step: 0 }, true),
      ...(known === undefined
        ? []
        : [
            {
              kind: "status",
              status: known.value,
              revision: known.revision,
              listed: false,
            } as const,
          ]),
    ],
    canonical: [
      next.canonical(),
      next.canonical({}, true),
      next.canonical({ sequence: 1 }),
      next.canonical(builds.new),
    ],
    candidate: [
      next.candidate(),
      next.candidate({}, true),
      next.candidate({ instance: hex("9", 32) }),
      next.candidate({ transaction: hex("e", 32) }),
      next.candidate({ digest: builds.old.digest }),
      next.candidate({ roles: [{ role: "vm", digest: null, healthy: false, reason: "gone" }] }),
    ],
    unreadable: [{ kind: "unreadable", reason: "protocol: expected 1, received 2" }],
    written: [{ kind: "written", revision: revision + 1 }],
    found: [
      { kind: "found", value: undefined, revision: 0 },
      { kind: "found", value: foreignMarker, revision: revision + 5 },
      { kind: "found", value: foreignMarker, revision: 1 },
      { kind: "found", value: device.marker.stored, revision: device.marker.revision },
    ],
    assign: [life.assigned({ transaction: hex("2", 32) })],
    withdraw: [life.withdrawn()],
  };
}
