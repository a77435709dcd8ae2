/**
 * One device and an operator that follows the rules of the protocol, under a false clock. The same
 * seed, and the same cut, give the same run. After some time of trouble the world becomes kind;
 * then the device has to come to rest on the last good version, alone.
 */
import type { Table } from "../../../src/fleet/lifecycle.ts";
import {
  type Commit,
  type DeviceStatus,
  type Marker,
  SILENT_AFTER,
} from "../../../src/fleet/protocol.ts";
import { SeededChance } from "../chance.ts";
import { Agenda } from "../simulation/agenda.ts";
import { type Beat, type CutPlan, Device, type DeviceFaults, InvariantBroken } from "./device.ts";
import { isGood, makeRelease, type Release, type ReleaseKind, releaseOf } from "./releases.ts";

export interface SimulationOptions {
  readonly seed: number;
  /** One after the other, each until the device is done with it. */
  readonly releases: readonly ReleaseKind[];
  readonly cuts?: readonly CutPlan[];
  /** Power cuts, deaths, outages and more, drawn from the seed, for so long. */
  readonly troubleTime?: number;
  readonly faults?: DeviceFaults;
  readonly table?: Table;
}

export interface SimulationResult {
  readonly writes: number;
  readonly starts: number;
  readonly boots: number;
  readonly swaps: number;
  readonly reverts: number;
  readonly holds: number;
  readonly aborts: number;
  readonly upgrades: number;
  /** How each upgrade ended, in order. */
  readonly endings: readonly string[];
  readonly current: string;
}

const restingPhases = ["idle", "done", "aborted", "rolled-back"];
const DEAF_AFTER = 60_000;
const MOST_EVENTS = 200_000;
const LONGEST = 48 * 3_600_000;
const limits = { staging_ms: 600_000, commit_ms: 120_000, canonical_ms: 60_000 } as const;

export function simulate(options: SimulationOptions): SimulationResult {
  const world = new World(options);
  try {
    return world.run();
  } catch (cause) {
    const { seed, releases, cuts = [] } = options;
    const what = JSON.stringify({ seed, releases, cuts });
    throw new Error(`${what} at ${world.now} ms: ${(cause as Error).message}`, { cause });
  }
}

class World {
  readonly #agenda = new Agenda(5_000);
  readonly #chance: SeededChance;
  readonly #device: Device;
  readonly #targets: readonly Release[];
  readonly #cuts: CutPlan[];
  readonly #troubleTime: number;
  readonly #commits = new Set<string>();
  readonly #committedDigests = new Set<string>();
  readonly #endings: string[] = [];
  readonly #history: Marker[] = [];
  #marker: Marker | undefined;
  #status: DeviceStatus | undefined;
  #beat: (Beat & { readonly at: number }) | undefined;
  #isLinked = true;
  #isOperatorUp = true;
  #isTroubled: boolean;
  #asleepUntil = 0;
  #target = 0;
  #transactions = 0;
  #revision = 0;
  #revisionTold = 0;
  #writtenAt = 0;
  #canonicalHeard = 0;

  constructor({ seed, releases, cuts = [], troubleTime = 0, faults, table }: SimulationOptions) {
    this.#chance = new SeededChance(seed);
    this.#cuts = [...cuts];
    this.#troubleTime = troubleTime;
    this.#isTroubled = troubleTime > 0;
    this.#targets = releases.map((kind, index) => makeRelease(index + 1, kind));
    const around = {
      now: () => this.now,
      at: (delay: number, run: () => void) => this.#agenda.after(delay, () => this.#awake(run)),
      chance: this.#chance,
      isLinked: () => this.#isLinked,
      onHeartbeat: (who: "canonical" | "candidate", beat: Beat) => this.#heard(who, beat),
      onStatus: (status: DeviceStatus) => this.#told(status),
      onListening: () => this.#deliver(),
      isCommitted: (digest: string) => this.#committedDigests.has(digest),
      hasCommitted: (commit: Commit | null) => this.#commits.has(keyOf(commit)),
    };
    this.#device = new Device(around, { first: makeRelease(0, "good"), faults, table });
  }

  get now(): number {
    return this.#agenda.now;
  }

  run(): SimulationResult {
    this.#planCut();
    this.#device.startLater(1);
    this.#agenda.after(1_000, () => this.#operate());
    if (this.#troubleTime > 0) this.#agenda.after(5_000, () => this.#trouble());
    for (let events = 0; !this.#isOver(); events += 1) {
      if (this.now > LONGEST || events > MOST_EVENTS)
        throw new InvariantBroken(`stuck: ${this.#describe()}`);
      if (!this.#agenda.advance()) throw new InvariantBroken("nothing happens any more");
      this.#device.check();
      this.#planCut();
    }
    return this.#result();
  }

  #planCut(): void {
    const device = this.#device;
    if (device.cut !== undefined && device.cut.write >= device.counts.writes + 1) return;
    device.cut = this.#cuts.shift();
  }

  /** What falls due while the host is suspended comes when it wakes. */
  #awake(run: () => void): void {
    const wait = this.#asleepUntil - this.now;
    if (wait > 0) this.#agenda.after(wait, () => this.#awake(run));
    else run();
  }

  #isOver(): boolean {
    const { canonical, candidate } = this.#device;
    if (this.#target < this.#targets.length || this.#isTroubled) return false;
    if (canonical === undefined || candidate !== undefined) return false;
    return restingPhases.includes(canonical.state.life.phase);
  }

  #result(): SimulationResult {
    const { counts, canonical, disk, proven } = this.#device;
    const current = disk.current ?? "";
    if (canonical?.release.build.digest !== current || !proven.has(current)) {
      throw new InvariantBroken(`what runs in the end is not proven: ${this.#describe()}`);
    }
    const last = this.#targets.findLast(isGood);
    if (last !== undefined && last.build.digest !== current) {
      throw new InvariantBroken(`not the last good version: ${this.#describe()}`);
    }
    const endings = [...this.#endings];
    return { ...counts, upgrades: this.#transactions, endings, current };
  }

  #describe(): string {
    const { canonical, disk } = this.#device;
    const version = disk.current === null ? "nothing" : releaseOf(disk.current).build.version;
    return `${canonical?.state.life.phase ?? "no agent"} on ${version}, ${this.#target} done`;
  }

  // The operator: it sees the store alone.

  #operate(): void {
    this.#agenda.after(5_000, () => this.#operate());
    if (!this.#isOperatorUp) return;
    const marker = this.#marker;
    const status = this.#status;
    const isTold = status?.transaction === marker?.transaction;
    const isOver = isTold && status !== undefined && restingPhases.includes(status.phase);
    if (isOver) this.#conclude(status);
    else if (marker === undefined || (!isTold && this.#isDeaf(status))) this.#begin();
    else this.#commit(marker);
  }

  /** First that it has seen the candidate, then the commit. */
  #commit(marker: Marker): void {
    const beat = this.#beat;
    if (beat === undefined || marker.commit !== null) return;
    const isRight =
      beat.transaction === marker.transaction &&
      beat.digest === marker.build.digest &&
      this.now - beat.at < SILENT_AFTER;
    if (!isRight) return;
    const { instance } = beat;
    if (marker.observed !== instance) {
      this.#write({ ...marker, observed: instance });
      return;
    }
    const commit = { transaction: marker.transaction, instance };
    this.#commits.add(keyOf(commit));
    this.#committedDigests.add(marker.build.digest);
    this.#write({ ...marker, commit });
  }

  /** It is heard, and has had a minute for a marker that it may know from before. */
  #isDeaf(status: DeviceStatus | undefined): boolean {
    const isResting = status !== undefined && restingPhases.includes(status.phase);
    return isResting && this.#canonicalHeard > this.#writtenAt + DEAF_AFTER;
  }

  #begin(): void {
    const target = this.#targets[this.#target];
    if (target === undefined) return;
    this.#transactions += 1;
    this.#write({
      protocol: 1,
      transaction: this.#transactions.toString(16).padStart(32, "0"),
      build: target.build,
      manifest: "signed",
      sources: ["https://versions.example/"],
      rate: null,
      limits,
      ...{ observed: null, commit: null, withdrawn: null },
    });
  }

  /** A good version is tried until it is there; a bad one once. */
  #conclude({ phase, reason }: DeviceStatus): void {
    const target = this.#targets[this.#target];
    if (target === undefined) return;
    // Of a store that went back.
    if (this.#marker?.build.digest !== target.build.digest) {
      this.#begin();
      return;
    }
    this.#endings.push(phase);
    if (phase === "done" && !isGood(target)) {
      throw new InvariantBroken("a bad version is done");
    }
    const isBlamed = reason?.includes("nothing was heard") === true;
    if (isBlamed && target.candidate === "serves") {
      throw new InvariantBroken("a version is blamed for its environment");
    }
    if (phase === "done" || !isGood(target)) this.#target += 1;
    this.#begin();
  }

  #write(marker: Marker): void {
    this.#marker = marker;
    this.#writtenAt = this.now;
    this.#history.push(marker);
    this.#revision += 1;
    this.#deliver();
    // Watches tell twice, and late.
    if (this.#chance.happens(0.2)) this.#deliver(20_000);
  }

  #deliver(late = 0): void {
    const marker = this.#marker;
    const revision = this.#revision;
    if (marker === undefined) return;
    this.#agenda.after(100 + this.#chance.below(400) + late, () => {
      this.#awake(() => {
        // Whoever watches a key hears of it in order.
        if (!this.#isLinked || revision < this.#revisionTold) return;
        this.#revisionTold = revision;
        this.#device.attempt(() => this.#device.tell({ kind: "marker", marker }));
      });
    });
  }

  #heard(who: "canonical" | "candidate", beat: Beat): void {
    if (who === "canonical") this.#canonicalHeard = this.now;
    if (who === "candidate") this.#beat = { ...beat, at: this.now };
  }

  #told(status: DeviceStatus): void {
    const former = this.#status?.step ?? 0;
    if (status.step < former) throw new InvariantBroken("a status of before is told");
    this.#status = status;
  }

  // Trouble.

  #trouble(): void {
    if (this.now >= this.#troubleTime) {
      this.#makePeace();
      return;
    }
    this.#agenda.after(2_000 + this.#chance.below(40_000), () => this.#trouble());
    const { disk } = this.#device;
    const troubles: readonly (() => void)[] = [
      () => this.#awake(() => this.#device.cutPower()),
      () => this.#awake(() => this.#device.endCanonical(1_000)),
      () => this.#cutLink(this.#chance.pick([5_000, 25_000, 60_000, 400_000])),
      () => this.#cutLink(this.#chance.pick([5_000, 15_000, 60_000])),
      () => {
        this.#isOperatorUp = !this.#isOperatorUp;
      },
      () => {
        disk.isFull = true;
        this.#agenda.after(this.#chance.below(90_000), () => this.#makeRoom());
      },
      () => this.#damage(),
      () => {
        // Who sleeps already sleeps on: what was put off is not to come in another order.
        const duration = this.#chance.pick([20_000, 300_000, 8 * 3_600_000]);
        if (this.#asleepUntil <= this.now) this.#asleepUntil = this.now + duration;
      },
      () => this.#rewind(),
      () => this.#supersede(),
      () => this.#endCandidate(),
      () => this.#cutSoon(),
      () => this.#cutSoon(),
    ];
    this.#chance.pick(troubles)();
  }

  #makePeace(): void {
    this.#isTroubled = false;
    this.#isOperatorUp = true;
    this.#makeRoom();
    this.#linkUp();
    this.#wantAgain();
  }

  /** In the middle of what is done next. */
  #cutSoon(): void {
    const { counts } = this.#device;
    this.#device.cut = {
      write: counts.writes + 1 + this.#chance.below(4),
      when: this.#chance.pick(["before", "after"]),
      how: this.#chance.pick(["power", "kill"]),
    };
  }

  #makeRoom(): void {
    this.#device.disk.isFull = false;
  }

  #cutLink(duration: number): void {
    this.#isLinked = false;
    this.#agenda.after(duration, () => this.#linkUp());
  }

  #linkUp(): void {
    this.#isLinked = true;
    this.#device.tellStatus();
    this.#deliver();
  }

  /** One file that is not the only way, and never two at a time. */
  #damage(): void {
    const { proven } = this.#device;
    const { versions, current } = this.#device.disk;
    if (current === null || !proven.has(current)) return;
    if (versions.size < 2 || [...versions.values()].includes(false)) return;
    const others = [...versions.keys()].filter((digest) => digest !== current);
    versions.set(this.#chance.pick(others), false);
  }

  #rewind(): void {
    if (this.#history.length === 0) return;
    this.#marker = this.#chance.pick(this.#history);
    this.#revision += 1;
    this.#deliver();
    this.#agenda.after(30_000, () => this.#wantAgain());
  }

  /** The operator reads what is in its store, and writes what it wants there. */
  #wantAgain(): void {
    const lastGood = this.#targets.findLastIndex(
      (target, index) => index < this.#target && isGood(target),
    );
    if (lastGood >= 0) this.#target = lastGood;
    this.#begin();
  }

  #supersede(): void {
    if (this.#isOperatorUp) this.#begin();
  }

  #endCandidate(): void {
    const { candidate } = this.#device;
    if (candidate === undefined) return;
    const { instance } = candidate;
    this.#device.candidate = undefined;
    this.#device.attempt(() =>
      this.#device.tell({ kind: "candidate-ended", instance, lastWords: null }),
    );
  }
}

const keyOf = (commit: Commit | null) => `${commit?.transaction} ${commit?.instance}`;
