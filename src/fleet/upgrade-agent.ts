import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";
import { deadlineOf, step } from "./lifecycle.ts";
import type { DecodedJournal, Journal } from "./lifecycle-journal.ts";
import { type Links, recover } from "./lifecycle-recovery.ts";
import type {
  AgentEffect,
  AgentEvent,
  AgentState,
  BootTime,
  Context,
  Outcome,
} from "./lifecycle-state.ts";
import { statusOf } from "./lifecycle-status.ts";
import type {
  Build,
  DeviceStatus,
  EndingCause,
  LastWords,
  Marker,
  RoleHealth,
} from "./protocol.ts";
import { type Pace, paceOf, usualPace } from "./protocol-pace.ts";

/** The disk of a device: its journal, and its two links. All of it is durable when it returns. */
export interface AgentInstallation {
  readJournal(): DecodedJournal;
  /** @throws Error: the former one is untouched */
  writeJournal(journal: Journal): void;
  /** @throws Error where `current` leads to no version */
  readLinks(): Links;
  /** First `previous`, then `current`. @throws Error */
  swap(links: { readonly current: Build; readonly previous: Build }): void;
  /** First `current`, then `previous`. @throws Error */
  swapBack(links: Links): void;
  /** Removes other versions, but none that is linked or runs. @throws Error */
  collect(keep: readonly Build[]): void;
}

/** What is known of versions. Each refuses by OrderRefused; another error is the host's fault. */
export interface AgentVersions {
  /** Whether the manifest is to be believed, and there is room for what it names. */
  check(
    marker: Marker,
    known: {
      readonly floor: string | null;
      readonly metadataVersion: number;
      readonly signal: AbortSignal;
    },
  ): Promise<{ readonly floor: string | null; readonly metadataVersion: number }>;
  fetch(
    marker: Marker,
    options: {
      readonly signal: AbortSignal;
      readonly onProgress: (progress: NonNullable<DeviceStatus["progress"]>) => void;
    },
  ): Promise<void>;
  /** Hashes it, and has it test itself. */
  prove(marker: Marker, signal: AbortSignal): Promise<void>;
  hash(build: Build): Promise<void>;
  /** Hashes it, and fetches it again where it is damaged. */
  findWayBack(build: Build, marker: Marker): Promise<void>;
}

/** Who starts and ends agents on this host. */
export interface AgentCandidates {
  /**
   * Hashes the file, ends whatever is left of another one, and waits until it is ready.
   * @returns its last words where it ended before
   */
  start(candidate: {
    readonly marker: Marker;
    readonly instance: string;
    readonly endsAfter: Milliseconds;
  }): Promise<"ready" | LastWords>;
  isThere(instance: string): Promise<boolean>;
  /** Resolves when it has ended. */
  ended(instance: string): Promise<LastWords | null>;
  stop(instance: string): Promise<LastWords | null>;
  /** This process ends for it. */
  restartCanonical(): Promise<void>;
}

/** The roles of this host. */
export interface AgentRoles {
  /**
   * Has each go on from this version's file, and looks at all of them again and again, until it is
   * disposed of.
   */
  handOver(build: Build, onLook: (roles: readonly RoleHealth[]) => void): Disposable;
}

export interface AgentParts {
  readonly device: Pick<DeviceStatus, "architecture" | "libc"> & Pick<Context, "executor">;
  /** The file that this process runs, and /proc/sys/kernel/random/boot_id. */
  readonly self: Build;
  readonly boot: string;
  readonly installation: AgentInstallation;
  readonly versions: AgentVersions;
  readonly candidates: AgentCandidates;
  readonly roles: AgentRoles;
  /** CLOCK_BOOTTIME. */
  now(): BootTime;
  /** May be late where the host is suspended. */
  wakeAfter(wait: Milliseconds, call: () => void): Disposable;
  /** 128 random bits in hexadecimal. */
  nextInstance(): string;
  /** After the journal has it. */
  onStatus(status: DeviceStatus): void;
  /** Survived: something could not be tidied. */
  onTrouble(message: string, cause: unknown): void;
}

/** What an order about a version or a candidate is refused with. */
export class OrderRefused extends Error {
  override readonly name = "OrderRefused";
  readonly endingCause: EndingCause;
  readonly lastWords: LastWords | null;

  constructor(
    message: string,
    { cause, lastWords = null }: { cause: EndingCause; lastWords?: LastWords | null },
  ) {
    super(message);
    this.endingCause = cause;
    this.lastWords = lastWords;
  }
}

/** This process has no say in the installation. */
export class AgentRefused extends Error {
  override readonly name = "AgentRefused";
  readonly exitCode = ExitCode.refused;
}

/** On the way back only the former version has roles go on: until then they stay as they are. */
function areRolesLookedAt({ life }: AgentState): boolean {
  if (life.phase === "reverting") return life.stage === "proving";
  return life.phase === "swapped" || life.phase === "canonical";
}

/** Longest time between two looks at the clock: a timer may be late after a suspend. */
const LONGEST_WAIT: Milliseconds = 60_000;

/**
 * The canonical agent's driver: it has what is decided written down, carried out and told, one
 * event after the other. It decides nothing itself.
 */
export class UpgradeAgent implements Disposable {
  readonly #parts: AgentParts;
  readonly #waiting: AgentEvent[] = [];
  #state: AgentState;
  #isBusy = false;
  #isStopped = false;
  #told = "";
  #wake: Disposable | undefined;
  #roles: Disposable | undefined;
  /** Of whatever check, download or proof is under way. */
  #work = new AbortController();

  private constructor(parts: AgentParts, state: AgentState) {
    this.#parts = parts;
    this.#state = state;
  }

  /**
   * Goes on from the journal.
   * @throws AgentRefused where `current` leads to another file; Error where it leads nowhere
   */
  static open(parts: AgentParts): UpgradeAgent {
    const { installation, self, boot } = parts;
    const journal = installation.readJournal();
    const recovered = recover(
      { journal, links: installation.readLinks(), self, boot },
      contextOf(parts),
    );
    if (recovered.kind === "refused") {
      throw new AgentRefused(
        `Cannot be this host's agent: ${recovered.reason}. Start what current leads to.`,
      );
    }
    if (journal.kind === "refused") {
      parts.onTrouble("the journal is not understood, and is begun anew, ignoring", journal.reason);
    }
    const agent = new UpgradeAgent(parts, recovered.state);
    agent.#settle(() => agent.#perform(recovered.effects));
    return agent;
  }

  get state(): AgentState {
    return this.#state;
  }

  get status(): DeviceStatus {
    return statusOf(this.#state, this.#parts.device);
  }

  /** Of the upgrade under way; the usual one where there is none. */
  get pace(): Pace {
    const { life } = this.#state;
    return "marker" in life ? paceOf(life.marker) : usualPace;
  }

  /** What has happened; it is decided, noted and begun when this returns. */
  tell(event: AgentEvent): void {
    if (this.#isStopped) return;
    this.#waiting.push(event);
    // An effect that answers at once is heard when the others of its step are carried out.
    if (!this.#isBusy) this.#settle(() => {});
  }

  /** Nothing is told or begun any more; what runs beside goes on. */
  [Symbol.dispose](): void {
    this.#isStopped = true;
    this.#work.abort(new Error("the agent ends"));
    this.#wake?.[Symbol.dispose]();
    this.#roles?.[Symbol.dispose]();
  }

  #settle(begin: () => void): void {
    this.#isBusy = true;
    try {
      begin();
      for (let event = this.#waiting.shift(); event !== undefined; event = this.#waiting.shift()) {
        this.#take(step(this.#state, event, contextOf(this.#parts)));
      }
    } finally {
      this.#isBusy = false;
    }
    if (!areRolesLookedAt(this.#state)) this.#roles?.[Symbol.dispose]();
    this.#tellStatus();
    this.#watchTime();
  }

  #take({ state, effects }: Outcome): void {
    this.#state = state;
    this.#perform(effects);
  }

  #perform(effects: readonly AgentEffect[]): void {
    for (const effect of effects) {
      if (this.#isStopped) return;
      if (effect.kind !== "note") {
        this.#carryOut(effect);
        continue;
      }
      try {
        this.#parts.installation.writeJournal(effect.journal);
      } catch (error) {
        const { message } = error as Error;
        const event = { kind: "note-failed", reason: message } as const;
        this.#take(step(this.#state, event, contextOf(this.#parts)));
        return;
      }
    }
  }

  #carryOut(effect: Exclude<AgentEffect, { kind: "note" }>): void {
    const { versions, candidates, roles } = this.#parts;
    switch (effect.kind) {
      case "abandon":
        this.#work.abort(new Error("the upgrade is over"));
        this.#work = new AbortController();
        return;
      case "check":
      case "fetch":
      case "prove":
        this.#work = new AbortController();
        this.#order(effect.ticket, () => this.#prepare(effect, this.#work.signal));
        return;
      case "hash":
        this.#order(effect.ticket, async () => {
          await versions.hash(effect.build);
          await versions.hash(effect.wayBack);
          return { kind: "intact", ticket: effect.ticket };
        });
        return;
      case "find-way-back":
        this.#order(effect.ticket, async () => {
          await versions.findWayBack(effect.build, effect.marker);
          return { kind: "way-back", ticket: effect.ticket };
        });
        return;
      case "swap":
      case "swap-back":
        this.#changeLinks(effect);
        return;
      case "restart-canonical":
        this.#order(effect.ticket, async () => {
          await candidates.restartCanonical();
          return undefined;
        });
        return;
      case "start-candidate":
        void this.#startCandidate(effect);
        return;
      case "find-candidate":
        void this.#findCandidate(effect.instance);
        return;
      case "stop-candidate":
        void this.#stopCandidate(effect.instance);
        return;
      case "hand-over":
        this.#roles?.[Symbol.dispose]();
        this.#roles = roles.handOver(effect.build, (looked) =>
          this.tell({ kind: "roles", roles: looked }),
        );
        return;
      case "collect":
        this.#collect(effect.keep);
    }
  }

  async #prepare(
    effect: Extract<AgentEffect, { kind: "check" | "fetch" | "prove" }>,
    signal: AbortSignal,
  ): Promise<AgentEvent> {
    const { versions } = this.#parts;
    const { ticket, marker } = effect;
    switch (effect.kind) {
      case "check": {
        const { floor, metadataVersion } = effect;
        const known = await versions.check(marker, { floor, metadataVersion, signal });
        return { kind: "accepted", ticket, ...known };
      }
      case "fetch":
        await versions.fetch(marker, {
          signal,
          onProgress: (progress) => this.tell({ kind: "progress", ticket, progress }),
        });
        return { kind: "fetched", ticket };
      case "prove":
        await versions.prove(marker, signal);
        return { kind: "proved", ticket };
    }
  }

  /** What it gives is told; what it throws is told as `failed`. */
  #order(ticket: number, carryOut: () => Promise<AgentEvent | undefined>): void {
    void carryOut().then(
      (event) => event !== undefined && this.tell(event),
      (error: Error) => this.tell(failureOf(ticket, error)),
    );
  }

  #changeLinks(effect: Extract<AgentEffect, { kind: "swap" | "swap-back" }>): void {
    const { installation } = this.#parts;
    const { ticket, current } = effect;
    try {
      if (effect.kind === "swap") installation.swap(effect);
      else installation.swapBack(effect);
      this.tell({ kind: "swapped", ticket });
    } catch (error) {
      // It may have failed after the link was there: what is there decides.
      const isThere = installation.readLinks().current.digest === current.digest;
      this.tell(isThere ? { kind: "swapped", ticket } : failureOf(ticket, error as Error));
    }
  }

  async #startCandidate(effect: Extract<AgentEffect, { kind: "start-candidate" }>): Promise<void> {
    const { instance, ticket } = effect;
    let answer: "ready" | LastWords;
    try {
      answer = await this.#parts.candidates.start(effect);
    } catch (error) {
      this.tell(failureOf(ticket, error as Error));
      return;
    }
    if (answer !== "ready") this.#tellEnded(instance, answer);
    else {
      this.tell({ kind: "candidate-ready", instance });
      await this.#awaitEnd(instance);
    }
  }

  async #findCandidate(instance: string): Promise<void> {
    try {
      if (await this.#parts.candidates.isThere(instance)) await this.#awaitEnd(instance);
      else this.#tellEnded(instance, null);
    } catch (error) {
      this.#parts.onTrouble(`the candidate ${instance} cannot be asked for, ignoring`, error);
    }
  }

  async #awaitEnd(instance: string): Promise<void> {
    try {
      this.#tellEnded(instance, await this.#parts.candidates.ended(instance));
    } catch (error) {
      // Its heartbeats tell whether it lives: it is not taken for dead for this.
      this.#parts.onTrouble(`nobody tells of the end of ${instance}, ignoring`, error);
    }
  }

  async #stopCandidate(instance: string): Promise<void> {
    try {
      this.#tellEnded(instance, await this.#parts.candidates.stop(instance));
    } catch (error) {
      // It is told to stop again in a while.
      this.#parts.onTrouble(`the candidate ${instance} cannot be stopped, ignoring`, error);
    }
  }

  #tellEnded(instance: string, lastWords: LastWords | null): void {
    this.tell({ kind: "candidate-ended", instance, lastWords });
  }

  #collect(keep: readonly Build[]): void {
    try {
      this.#parts.installation.collect(keep);
    } catch (error) {
      this.#parts.onTrouble("old versions cannot be removed, ignoring", error);
    }
  }

  #tellStatus(): void {
    if (this.#isStopped) return;
    const { status } = this;
    const text = JSON.stringify(status);
    if (text === this.#told) return;
    this.#told = text;
    this.#parts.onStatus(status);
  }

  #watchTime(): void {
    this.#wake?.[Symbol.dispose]();
    this.#wake = undefined;
    const deadline = deadlineOf(this.#state);
    if (deadline === undefined || this.#isStopped) return;
    const wait = Math.min(Math.max(0, deadline - this.#parts.now()), LONGEST_WAIT);
    this.#wake = this.#parts.wakeAfter(wait, () => this.tell({ kind: "time" }));
  }
}

function contextOf(parts: AgentParts): Context {
  return {
    now: parts.now(),
    executor: parts.device.executor,
    get nextInstance() {
      return parts.nextInstance();
    },
  };
}

function failureOf(ticket: number, error: Error): AgentEvent {
  const isRefusal = error instanceof OrderRefused;
  const cause = isRefusal ? error.endingCause : "host";
  const lastWords = isRefusal ? error.lastWords : null;
  return { kind: "failed", ticket, reason: error.message, cause, lastWords };
}
