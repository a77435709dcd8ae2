/**
 * A device as the agent finds it: a disk that survives power cuts, two links, processes that do
 * not, and the executors in between. The pure lifecycle, its recovery and the boot guard run in it
 * as the real agent runs them.
 */
import { deadlineOf, step, type Table } from "../../../src/fleet/lifecycle.ts";
import { guard } from "../../../src/fleet/lifecycle-guard.ts";
import {
  decodeJournal,
  encodeJournal,
  type Journal,
} from "../../../src/fleet/lifecycle-journal.ts";
import { recover } from "../../../src/fleet/lifecycle-recovery.ts";
import type {
  AgentEffect,
  AgentEvent,
  AgentState,
  Context,
} from "../../../src/fleet/lifecycle-state.ts";
import { statusOf } from "../../../src/fleet/lifecycle-status.ts";
import {
  type Build,
  type Commit,
  type DeviceStatus,
  HEARTBEAT_EVERY,
  type LastWords,
} from "../../../src/fleet/protocol.ts";
import type { SeededChance } from "../chance.ts";
import { type Release, releaseOf } from "./releases.ts";

export class InvariantBroken extends Error {
  override readonly name = "InvariantBroken";
}

/** The power went in the middle of something, or the agent was killed there. */
export class Cut extends Error {
  readonly how: "power" | "kill";
  constructor(how: "power" | "kill") {
    super(how);
    this.how = how;
  }
}

export interface CutPlan {
  /** Of all writes to the disk, from 1. */
  readonly write: number;
  readonly when: "before" | "after";
  readonly how: "power" | "kill";
}

/** What is broken on purpose, to prove that the simulation notices. */
export interface DeviceFaults {
  /** Nobody asks the boot guard. */
  readonly unguarded?: boolean;
  /** The links are changed when the candidate starts, as others do it. */
  readonly swapsEarly?: boolean;
  /** An agent that starts does not read what the one before it wrote. */
  readonly forgetsJournal?: boolean;
  /** A note is written after what it speaks of. */
  readonly notesLate?: boolean;
}

/** What is around the device. */
export interface Surroundings {
  readonly now: () => number;
  readonly at: (delay: number, run: () => void) => void;
  readonly chance: SeededChance;
  readonly isLinked: () => boolean;
  /** The store has heard. */
  readonly onHeartbeat: (who: "canonical" | "candidate", beat: Beat) => void;
  readonly onStatus: (status: DeviceStatus) => void;
  /** What the store has, told to an agent that listens. */
  readonly onListening: () => void;
  /** Whether the operator has committed this version here, ever. */
  readonly isCommitted: (digest: string) => boolean;
  /** Whether it has written this very commit. */
  readonly hasCommitted: (commit: Commit | null) => boolean;
}

export interface Beat {
  readonly instance: string;
  readonly digest: string;
  readonly version: string;
  readonly transaction: string | null;
}

interface Canonical {
  state: AgentState;
  readonly release: Release;
  readonly instance: string;
  /** Check, download and proof that were ordered before the last `abandon` answer no more. */
  work: number;
}

interface Candidate {
  readonly instance: string;
  readonly release: Release;
  readonly transaction: string;
}

const DELAY = 200;

export class Device {
  readonly disk: {
    journal: string | undefined;
    current: string | null;
    previous: string | null;
    /** By digest: whether the file is as the digest says. */
    readonly versions: Map<string, boolean>;
    isFull: boolean;
  };
  canonical: Canonical | undefined;
  candidate: Candidate | undefined;
  /** Versions that have passed their own proof as the canonical one. */
  readonly proven: Set<string>;
  readonly counts = { writes: 0, starts: 0, boots: 1, swaps: 0, reverts: 0, holds: 0, aborts: 0 };
  cut: CutPlan | undefined;
  readonly #around: Surroundings;
  readonly #faults: DeviceFaults;
  readonly #table: Table | undefined;
  #bootedAt = 0;
  #highest = { step: 0, metadataVersion: 0 };

  constructor(
    around: Surroundings,
    {
      first,
      faults = {},
      table,
    }: {
      readonly first: Release;
      readonly faults?: DeviceFaults | undefined;
      readonly table?: Table | undefined;
    },
  ) {
    const { digest } = first.build;
    this.disk = {
      ...{ journal: undefined, current: digest, previous: null, isFull: false },
      versions: new Map([[digest, true]]),
    };
    this.proven = new Set([digest]);
    this.#around = around;
    this.#faults = faults;
    this.#table = table;
  }

  get boot(): string {
    return `${this.counts.boots.toString(16).padStart(8, "0")}-0000-0000-0000-000000000000`;
  }

  get #clock(): number {
    return this.#around.now() - this.#bootedAt;
  }

  get #context(): Context {
    const device = this;
    return {
      now: this.#clock,
      executor: "systemd",
      get nextInstance() {
        return device.#draw();
      },
    };
  }

  #draw(): string {
    const part = () =>
      this.#around.chance
        .below(2 ** 32)
        .toString(16)
        .padStart(8, "0");
    return part() + part() + part() + part();
  }

  /** Runs what may be cut in the middle. */
  attempt(run: () => void): void {
    try {
      run();
    } catch (error) {
      if (!(error instanceof Cut)) throw error;
      if (error.how === "power") this.cutPower();
      else this.endCanonical(1_000);
    }
  }

  cutPower(): void {
    this.canonical = undefined;
    this.candidate = undefined;
    this.counts.boots += 1;
    this.#bootedAt = this.#around.now();
    this.startLater(3_000);
  }

  /** The canonical agent dies, and whoever watches it starts `current` again. */
  endCanonical(after: number): void {
    this.canonical = undefined;
    this.startLater(after);
  }

  startLater(delay: number): void {
    const { boots } = this.counts;
    this.#around.at(delay, () => {
      if (boots === this.counts.boots && this.canonical === undefined) {
        this.attempt(() => this.#start());
      }
    });
  }

  /** One write to the disk, before or after which the power may go. */
  #write(apply: () => void): void {
    this.counts.writes += 1;
    const { cut } = this;
    const isNow = cut?.write === this.counts.writes;
    if (isNow && cut.when === "before") throw new Cut(cut.how);
    apply();
    if (isNow) throw new Cut(cut.how);
  }

  #start(): void {
    const run = this.#faults.unguarded === true ? this.disk.current : this.#guarded();
    if (run === null || this.disk.versions.get(run) === undefined) {
      throw new InvariantBroken("nothing on this device can run");
    }
    this.#mayRun(run);
    this.counts.starts += 1;
    const release = releaseOf(run);
    // It dies before it has read its journal.
    if (release.canonical === "crashes") {
      this.endCanonical(1_000);
      return;
    }
    const recovered = recover(
      {
        ...{ self: release.build, boot: this.boot },
        links: { current: this.#linked("current"), previous: this.#previous() },
        journal: this.#readJournal(),
      },
      this.#context,
    );
    if (recovered.kind === "refused") throw new InvariantBroken(recovered.reason);
    const instance = this.#draw();
    this.canonical = { state: recovered.state, release, instance, work: 0 };
    this.#perform(recovered.effects);
    this.#beat("canonical", instance);
    this.#around.onListening();
    this.#watchDeadline();
  }

  #guarded(): string | null {
    const { disk } = this;
    const intact = new Set(
      [...disk.versions].filter(([, isIntact]) => isIntact).map(([one]) => one),
    );
    const place = (digest: string | null) =>
      digest !== null && disk.versions.has(digest) ? releaseOf(digest).build : null;
    const decision = guard({
      links: { current: place(disk.current), previous: place(disk.previous) },
      ...{ journal: this.#readJournal(), intact, proven: [] },
      ...{ boot: this.boot, now: this.#clock },
    });
    const { journal, links } = decision;
    if (journal !== undefined) this.#write(() => this.#writeJournal(journal));
    if (links !== undefined) {
      this.#link("current", links.current.digest);
      this.#link("previous", links.previous?.digest ?? null);
    }
    return decision.run?.digest ?? null;
  }

  #readJournal() {
    if (this.disk.journal === undefined || this.#faults.forgetsJournal === true) {
      return { kind: "absent" } as const;
    }
    return decodeJournal(this.disk.journal);
  }

  #writeJournal(journal: Journal): void {
    if (journal.step <= this.#highest.step && this.#faults.forgetsJournal !== true) {
      throw new InvariantBroken(`step ${journal.step} after ${this.#highest.step}`);
    }
    if (journal.metadataVersion < this.#highest.metadataVersion) {
      throw new InvariantBroken("the version of the metadata went back");
    }
    this.#highest = { step: journal.step, metadataVersion: journal.metadataVersion };
    this.disk.journal = encodeJournal(journal);
  }

  #linked(name: "current" | "previous") {
    const digest = this.disk[name];
    if (digest === null) throw new InvariantBroken(`${name} leads nowhere`);
    return releaseOf(digest).build;
  }

  #previous() {
    return this.disk.previous === null ? null : releaseOf(this.disk.previous).build;
  }

  #link(name: "current" | "previous", digest: string | null): void {
    if (this.disk[name] !== digest) {
      this.#write(() => {
        this.disk[name] = digest;
      });
    }
  }

  /** Nobody is canonical that is neither proven nor committed, and what runs is intact. */
  #mayRun(digest: string): void {
    if (this.disk.versions.get(digest) !== true) {
      throw new InvariantBroken("a damaged version runs");
    }
    if (this.disk.current !== digest) throw new InvariantBroken("current does not run");
    if (this.proven.has(digest) || this.#around.isCommitted(digest)) return;
    throw new InvariantBroken(`${releaseOf(digest).build.version} runs, and is not committed`);
  }

  /** @param to the process that it is for; another one is not told */
  tell(event: AgentEvent, to = this.canonical): void {
    if (to === undefined || to !== this.canonical) return;
    const before = to.state.life.phase;
    const { state, effects } = step(to.state, event, this.#context, this.#table);
    to.state = state;
    this.#count(before, state);
    this.#perform(effects);
    this.#watchDeadline();
  }

  #count(before: string, { life }: AgentState): void {
    if (life.phase === before) return;
    if (life.phase === "held") this.counts.holds += 1;
    if (life.phase === "aborted") this.counts.aborts += 1;
    if (life.phase === "reverting") this.counts.reverts += 1;
  }

  #watchDeadline(): void {
    const agent = this.canonical;
    const deadline = agent === undefined ? undefined : deadlineOf(agent.state);
    if (agent === undefined || deadline === undefined) return;
    this.#around.at(Math.max(1, deadline - this.#clock), () => {
      if (agent !== this.canonical || deadlineOf(agent.state) !== deadline) return;
      this.attempt(() => this.tell({ kind: "time" }, agent));
    });
  }

  #perform(effects: readonly AgentEffect[]): void {
    const agent = this.canonical;
    const isLate = this.#faults.notesLate === true;
    const isNote = ({ kind }: AgentEffect) => kind === "note";
    const inOrder = isLate
      ? [...effects.filter((one) => !isNote(one)), ...effects.filter(isNote)]
      : effects;
    for (const effect of inOrder) {
      if (agent === undefined || agent !== this.canonical) return;
      if (effect.kind === "note") {
        if (this.disk.isFull) {
          this.tell({ kind: "note-failed", reason: "no space left on device" }, agent);
          return;
        }
        this.#write(() => this.#writeJournal(effect.journal));
        this.#told(agent);
      } else this.#carryOut(effect, agent);
    }
  }

  /** After the journal has it; what it could not take is told with the step before. */
  #told({ state }: Canonical): void {
    const { life, current } = state;
    if (life.phase === "done" || life.phase === "rolled-back") {
      if (life.ending === null) this.proven.add(current.digest);
    }
    if (!this.#around.isLinked()) return;
    const device = { architecture: "x64", libc: "glibc", executor: "systemd" } as const;
    this.#around.onStatus(statusOf(state, device));
  }

  /** Told again, as when the connection comes back. */
  tellStatus(): void {
    if (this.canonical !== undefined) this.#told(this.canonical);
  }

  #later(agent: Canonical, delay: number, event: AgentEvent): void {
    this.#around.at(delay, () => this.attempt(() => this.tell(event, agent)));
  }

  #carryOut(effect: Exclude<AgentEffect, { kind: "note" }>, agent: Canonical): void {
    switch (effect.kind) {
      case "check":
      case "prove":
      case "hash":
      case "find-way-back":
        this.#later(agent, this.#delay(), this.#answerTo(effect));
        return;
      case "abandon":
        agent.work += 1;
        return;
      case "fetch":
        this.#fetch(effect, agent, agent.work);
        return;
      case "start-candidate":
        this.#startCandidate(effect, agent);
        return;
      case "find-candidate":
        if (this.candidate?.instance !== effect.instance) this.#gone(effect.instance, null);
        return;
      case "stop-candidate":
        if (this.candidate?.instance === effect.instance) this.candidate = undefined;
        this.#gone(effect.instance, null);
        return;
      case "swap":
        this.#maySwap(agent);
        this.#link("previous", effect.previous.digest);
        this.#link("current", effect.current.digest);
        this.counts.swaps += 1;
        this.#later(agent, 1, { kind: "swapped", ticket: effect.ticket });
        return;
      case "swap-back":
        this.#link("current", effect.current.digest);
        this.#link("previous", effect.previous?.digest ?? null);
        this.#later(agent, 1, { kind: "swapped", ticket: effect.ticket });
        return;
      case "restart-canonical":
        this.endCanonical(this.#delay());
        return;
      case "hand-over":
        this.#lookAtRoles(agent);
        return;
      case "collect":
        this.#collect(effect.keep.map(({ digest }) => digest));
    }
  }

  #delay(): number {
    return DELAY + this.#around.chance.below(DELAY);
  }

  #answerTo(
    effect: Extract<AgentEffect, { kind: "check" | "prove" | "hash" | "find-way-back" }>,
  ): AgentEvent {
    const { ticket } = effect;
    const isIntact = ({ digest }: Build) => this.disk.versions.get(digest) === true;
    const unless = (isRight: boolean, event: AgentEvent): AgentEvent =>
      isRight
        ? event
        : { kind: "failed", ticket, reason: "it is damaged", cause: "artifact", lastWords: null };
    switch (effect.kind) {
      case "check": {
        const { floor } = releaseOf(effect.marker.build.digest);
        const metadataVersion = effect.metadataVersion + 1;
        return { kind: "accepted", ticket, floor, metadataVersion };
      }
      case "prove": {
        const { build } = effect.marker;
        const isRight = isIntact(build) && releaseOf(build.digest).provesItself;
        return unless(isRight, { kind: "proved", ticket });
      }
      case "hash": {
        const areRight = isIntact(effect.build) && isIntact(effect.wayBack);
        return unless(areRight, { kind: "intact", ticket });
      }
      case "find-way-back":
        if (!isIntact(effect.build) && this.#around.isLinked()) {
          this.#write(() => this.disk.versions.set(effect.build.digest, true));
        }
        return unless(isIntact(effect.build), { kind: "way-back", ticket });
    }
  }

  #maySwap({ state: { life } }: Canonical): void {
    const commit = "marker" in life ? life.marker.commit : null;
    if (this.#around.hasCommitted(commit)) return;
    throw new InvariantBroken("links are changed for a commit that nobody has written");
  }

  #fetch(effect: Extract<AgentEffect, { kind: "fetch" }>, agent: Canonical, work: number): void {
    this.#around.at(2_000, () => {
      if (agent !== this.canonical || agent.work !== work) return;
      if (!this.#around.isLinked()) {
        this.#fetch(effect, agent, work);
        return;
      }
      const { ticket, marker } = effect;
      this.attempt(() => {
        this.#write(() => this.disk.versions.set(marker.build.digest, true));
        this.tell({ kind: "fetched", ticket }, agent);
      });
    });
  }

  #startCandidate(
    { marker, instance }: Extract<AgentEffect, { kind: "start-candidate" }>,
    agent: Canonical,
  ): void {
    const release = releaseOf(marker.build.digest);
    const { digest } = marker.build;
    this.candidate = { instance, release, transaction: marker.transaction };
    if (this.#faults.swapsEarly === true) this.#link("current", digest);
    if (release.candidate === "hangs") return;
    const words = { ending: "exited with 1", log: "x", processor_seconds: 1 } as const;
    const lastWords: LastWords = { ...words, memory_peak_bytes: 1 };
    const { boots } = this.counts;
    this.#around.at(1_000, () => {
      if (this.candidate?.instance !== instance || boots !== this.counts.boots) return;
      if (release.candidate === "crashes") {
        this.candidate = undefined;
        this.#gone(instance, lastWords);
        return;
      }
      this.attempt(() => this.tell({ kind: "candidate-ready", instance }, agent));
      if (release.candidate === "serves") this.#beat("candidate", instance);
    });
  }

  #gone(instance: string, lastWords: LastWords | null): void {
    this.#around.at(this.#delay(), () => {
      this.attempt(() => this.tell({ kind: "candidate-ended", instance, lastWords }));
    });
  }

  /** Whoever hears of a heartbeat in the store hears of it as it was sent. */
  #beat(who: "canonical" | "candidate", instance: string): void {
    const one = who === "canonical" ? this.canonical : this.candidate;
    if (one?.instance !== instance) return;
    if (this.#around.isLinked()) {
      const transaction = this.candidate?.instance === instance ? this.candidate.transaction : null;
      const { build } = one.release;
      this.#around.onHeartbeat(who, { instance, ...build, transaction });
      const event: AgentEvent =
        who === "canonical" ? { kind: "heard", who } : { kind: "heard", who, instance };
      this.attempt(() => this.tell(event));
    }
    this.#around.at(HEARTBEAT_EVERY, () => this.#beat(who, instance));
  }

  #lookAtRoles(agent: Canonical): void {
    this.#around.at(1_000, () => {
      if (agent !== this.canonical) return;
      const { release } = agent;
      const healthy = release.canonical !== "mute";
      const { digest } = release.build;
      const role = { digest: healthy ? digest : null, healthy, reason: null };
      const roles = [
        { ...role, role: "agent", digest, healthy: true },
        { ...role, role: "vm-worker" },
      ];
      this.attempt(() => this.tell({ kind: "roles", roles }, agent));
      const { phase } = agent.state.life;
      const isAsked = phase === "swapped" || phase === "canonical" || phase === "reverting";
      if (isAsked) this.#lookAtRoles(agent);
    });
  }

  #collect(keep: readonly string[]): void {
    const { current, previous, versions } = this.disk;
    const running = [this.canonical?.release.build.digest, this.candidate?.release.build.digest];
    const needed = new Set([...keep, current, previous, ...running]);
    for (const digest of [...versions.keys()]) {
      if (!needed.has(digest)) this.#write(() => versions.delete(digest));
    }
  }

  /** What has to be true at any time. */
  check(): void {
    const { current } = this.disk;
    if (current === null) throw new InvariantBroken("current leads nowhere");
    if (!this.proven.has(current) && !this.#around.isCommitted(current)) {
      throw new InvariantBroken("current leads to a version that nobody has committed");
    }
    if (!this.disk.versions.has(current)) throw new InvariantBroken("current dangles");
    const instance = this.candidate?.instance;
    if (instance !== undefined && this.disk.journal?.includes(instance) !== true) {
      throw new InvariantBroken("a candidate runs that no journal knows");
    }
  }
}
