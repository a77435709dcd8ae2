import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import {
  isThere,
  processInformation,
  signalProcess,
  signalProcessGroup,
} from "../../../ffi/pidfd.ts";
import { kill } from "../../../ffi/process.ts";
import type { EventLoop, Readiness, Watch } from "../../event-loop/event-loop.ts";
import type { Ending } from "../../units/ending.ts";
import type { CarriedInstance } from "../protocol-state.ts";
import type { Luggage } from "./luggage.ts";
import { describeRefusedSignal } from "./partition.ts";

const SIGKILL = 9;

export interface RemoteInstanceHandlers {
  onDeath(ending: Ending | undefined): void;
  /** Only when the death was told without one. */
  onEnding(ending: Ending): void;
  /** Nothing more is to come. */
  onDone(): void;
  /** We may not signal it. */
  onRefused(message: string): void;
}

/**
 * A process that somebody else is the parent of, held by its pidfd. Its death is told at once; its
 * ending is what the kernel says after the reaping (Linux 6.15), else what the agent says, else
 * unknown.
 */
export class RemoteInstance {
  readonly invocation: string;
  readonly processId: number;
  /** Its pidfd, closed when nothing more is to come. */
  readonly process: OwnedDescriptor;
  readonly #handlers: RemoteInstanceHandlers;
  readonly #watch: Watch;
  /** PIDFD_GET_INFO is there; below Linux 6.15 it may still have nothing to tell. */
  readonly #kernelTells: boolean;
  /** Who started it. */
  readonly #starter: "agent" | "orchestrator";
  #parentTells: boolean;
  #notice: Ending | undefined;
  #dead = false;
  #told = false;

  constructor(
    loop: EventLoop,
    identity: {
      readonly invocation: string;
      readonly processId: number;
      readonly process: OwnedDescriptor;
      /** The agent that is its parent is connected, and will tell how it ended. */
      readonly parentTells: boolean;
      /** Who started it and is gone, where that is not an agent. */
      readonly orphanOf?: "orchestrator";
      /** What the program before this one knew of it. */
      readonly past?: Pick<CarriedInstance, "dead" | "notice">;
    },
    handlers: RemoteInstanceHandlers,
  ) {
    this.invocation = identity.invocation;
    this.processId = identity.processId;
    this.process = identity.process;
    this.#parentTells = identity.parentTells;
    this.#handlers = handlers;
    this.#starter = identity.orphanOf ?? "agent";
    this.#kernelTells = processInformation(this.process) !== "unsupported";
    this.#dead = identity.past?.dead ?? false;
    this.#notice = identity.past?.notice;
    const interest = this.#dead ? "hangup" : "readable";
    this.#watch = loop.watch(this.process, interest, (ready) => this.#onReady(ready));
  }

  /** For another program to go on with it. */
  pack(luggage: Luggage): Omit<CarriedInstance, "name"> {
    return {
      invocation: this.invocation,
      processId: this.processId,
      process: luggage.pack(this.process),
      parentTells: this.#parentTells,
      dead: this.#dead,
      notice: this.#notice,
    };
  }

  get isDead(): boolean {
    return this.#dead;
  }

  /** True once the process has been reaped, or is just about to be told as dead. */
  get isReaped(): boolean {
    return this.#dead || !this.process.isOpen || !isThere(this.process);
  }

  signal(signal: number): void {
    if (!this.process.isOpen || signalProcess(this.process, signal) !== "refused") return;
    this.#handlers.onRefused(describeRefusedSignal(this.processId, signal));
  }

  /** SIGKILL to the process and the group that it leads. */
  kill(): void {
    if (!this.process.isOpen) return;
    this.killGroup();
    this.signal(SIGKILL);
  }

  /** SIGKILL to the group that it leads, whether it lives or not. */
  killGroup(): void {
    if (!this.process.isOpen) return;
    const result = signalProcessGroup(this.process, SIGKILL);
    // Alive or a zombie, it still owns its number, which is that of its group. One that was reaped
    // before we saw it has the number 0, which would mean our own group.
    if (result === "unsupported" && !this.#dead && this.processId > 0) {
      kill(-this.processId, SIGKILL);
    }
  }

  #onReady(ready: Readiness): void {
    if (!this.#dead) this.#onDeath();
    if (ready.hungUp) this.#onReaped();
    // Readable for good: from now on only the reaping is of interest.
    if (this.process.isOpen) this.#watch.change("hangup");
  }

  #onDeath(): void {
    this.#dead = true;
    // Where the kernel tells, it does so after the reaping; asking now would only cost time.
    const ending = this.#kernelTells ? undefined : this.#notice;
    if (ending !== undefined) this.#told = true;
    this.#handlers.onDeath(ending);
    if (ending !== undefined) this.#finish();
    else if (!this.#kernelTells && !this.#parentTells) this.#tell(this.#unknown());
  }

  /** The parent has reaped it: now the kernel can say how it ended, if it ever can. */
  #onReaped(): void {
    if (this.#told) return;
    const information = processInformation(this.process);
    const ending = typeof information === "object" ? information.ending : undefined;
    if (ending !== undefined) this.#tell(ending);
    else if (this.#notice !== undefined) this.#tell(this.#notice);
    else if (!this.#parentTells) this.#tell(this.#unknown());
  }

  /** What the agent says of the end, used where the kernel cannot say. */
  notice(ending: Ending): void {
    this.#notice = ending;
    if (!this.#dead || this.#told) return;
    const information = processInformation(this.process);
    const kernel = typeof information === "object" ? information.ending : undefined;
    this.#tell(kernel ?? ending);
  }

  /** The agent that is its parent is gone; the partition's first process will reap it. */
  orphan(): void {
    this.#parentTells = false;
    if (!this.#dead || this.#told) return;
    if (processInformation(this.process) === "unsupported") this.#tell(this.#unknown());
  }

  /** True when it is dead, and whoever inherited it from its agent has not reaped it. */
  get isLeftUnreaped(): boolean {
    return this.#dead && !this.#parentTells && this.process.isOpen && isThere(this.process);
  }

  /** Others have died since, and nobody has told how this one ended: it is not kept any longer. */
  giveUp(): void {
    if (!this.#dead) return;
    const reason = this.isLeftUnreaped
      ? `nobody reaped it: its ${this.#starter} is gone, and whoever inherited it does not wait`
      : "nobody told, and later ones have ended as well";
    this.#tell({ kind: "unknown", reason });
  }

  #unknown(): Ending {
    const reason =
      "this kernel tells only the parent (Linux 6.15 tells others), and " +
      `its ${this.#starter} is gone`;
    return { kind: "unknown", reason };
  }

  #tell(ending: Ending): void {
    if (this.#told) return;
    this.#told = true;
    this.#handlers.onEnding(ending);
    this.#finish();
  }

  #finish(): void {
    this.close();
    this.#handlers.onDone();
  }

  close(): void {
    this.#watch[Symbol.dispose]();
    this.process.close();
  }
}
