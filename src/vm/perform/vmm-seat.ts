import { rmSync } from "node:fs";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openProcess, takeDescriptor } from "../../../ffi/pidfd.ts";
import { errnoName } from "../../../ffi/system-call-error.ts";
import {
  type HypervisorDriver,
  type MachineFiles,
  type MachineSpecification,
  type VmmConnection,
  type VmmEvent,
  VmmUnreachable,
} from "../../hypervisor/driver.ts";
import type { Ending } from "../../units/ending.ts";
import { Signal } from "../../units/signals.ts";
import { type MachineEvent, orderLimits } from "../lifecycle-state.ts";
import type { MachineTools } from "./machine-tools.ts";
import { refusalOf } from "./refusal.ts";
import type { VmmIdentity } from "./vmm-identity.ts";
import { readVmmOutput } from "./vmm-output.ts";
import { VmmProcess } from "./vmm-process.ts";

/** Guest memory, where a VMM inherited it: the first after standard input and output. */
const MEMORY_DESCRIPTOR = 3;

/** A VMM that answers. */
export interface AttachedVmm {
  readonly connection: VmmConnection;
  readonly driver: HypervisorDriver;
  readonly machine: MachineSpecification;
  readonly invocation: string;
}

export interface SeatOptions {
  readonly identity: VmmIdentity;
  /** A pidfd, the seat's from now on. */
  readonly process: OwnedDescriptor;
  /** What it says; undefined where it could not be taken from one that was adopted. */
  readonly output: OwnedDescriptor | undefined;
  /** Its sockets are there, and nothing else. */
  readonly folder: string;
  readonly onEvent: (event: MachineEvent) => void;
  /** Its connection stands: before its guest is asked for. */
  readonly onConnected: (seat: VmmSeat) => void;
  /** Nobody in its guest serves the agent's port any more. */
  readonly onAgentLeft: (seat: VmmSeat) => void;
  /** It is dead, before that is told as an event. */
  readonly onEnd: (seat: VmmSeat) => void;
}

/** One VMM of a machine: its process, its sockets, and the connection to it. */
export class VmmSeat implements Disposable {
  readonly identity: VmmIdentity;
  readonly folder: string;
  readonly #tools: MachineTools;
  readonly #options: SeatOptions;
  readonly #process: VmmProcess;
  /** Fulfilled when it is dead. */
  readonly ended: Promise<void>;
  #attached: AttachedVmm | undefined;
  /** Of the attempt under way, and of the connection that it gave. */
  #attaching: AbortController | undefined;
  /** Of the snapshot being written: once its VMM is doubted, the machine may run on. */
  #saving: AbortController | undefined;
  #isDisposed = false;

  constructor(tools: MachineTools, options: SeatOptions) {
    const { identity, process, folder } = options;
    this.identity = identity;
    this.folder = folder;
    this.#tools = tools;
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#process = new VmmProcess(tools.loop, { identity, process }, (ending: Ending) => {
      options.onEnd(this);
      this[Symbol.dispose]();
      options.onEvent({ kind: "died", invocation: identity.invocation, ending });
      resolve();
    });
  }

  get invocation(): string {
    return this.identity.invocation;
  }

  get attached(): AttachedVmm | undefined {
    return this.#attached;
  }

  get files(): MachineFiles {
    return filesIn(this.folder);
  }

  /** What it has said so far. */
  get output(): string | undefined {
    const { output } = this.#options;
    return output?.isOpen === true ? readVmmOutput(output) : undefined;
  }

  kill(): void {
    this.#process.signal(Signal.SIGKILL);
  }

  /** Another descriptor of the memory that it inherited. @throws Error when it has none */
  takeMemory(): OwnedDescriptor {
    const { processId } = this.identity;
    using process = openProcess(processId);
    const taken = process === undefined ? undefined : takeDescriptor(process, MEMORY_DESCRIPTOR);
    if (taken instanceof OwnedDescriptor) return taken;
    const why = taken === undefined ? "it has ended" : errnoName(taken);
    throw new Error(`Cannot take the memory of process ${processId}: ${why}`);
  }

  /** While a snapshot is written; ended when the VMM is asked anew. */
  beginSaving(): AbortSignal {
    this.#saving = new AbortController();
    return this.#saving.signal;
  }

  /** Leaves the connection that there is, makes a new one, and tells how the guest is. */
  async attach(
    { ticket, capture }: { readonly ticket: number; readonly capture: string | undefined },
    chosen: () => { readonly driver: HypervisorDriver; readonly machine: MachineSpecification },
  ): Promise<void> {
    this.detach();
    const { invocation } = this;
    const controller = new AbortController();
    this.#attaching = controller;
    try {
      const connection = await this.#connect(chosen(), controller.signal);
      if (connection === undefined) return;
      const guest = await connection.guestState();
      // What a worker began that is no more, or was given up: nobody listens at the other end.
      if (guest === "running" || guest === "paused") await connection.migration.abandon();
      const captured = capture !== undefined && this.#tools.captures.isWhole(capture);
      this.#tell({ kind: "attached", invocation, ticket, guest, captured });
    } catch (error) {
      if (controller.signal.aborted) return;
      this.detach();
      this.#tell({ kind: "attach-refused", invocation, ticket, refusal: refusalOf(error) });
    }
  }

  /** @returns undefined when nobody waits for it any more */
  async #connect(
    { driver, machine }: { driver: HypervisorDriver; machine: MachineSpecification },
    signal: AbortSignal,
  ): Promise<VmmConnection | undefined> {
    // It may be lost before this function has it.
    let found: VmmConnection | undefined;
    let lost: string | undefined;
    const connection = await driver.connect(this.files, {
      loop: this.#tools.loop,
      machine,
      signal: AbortSignal.any([signal, AbortSignal.timeout(orderLimits.attach)]),
      onEvent: (event) => this.#hear(event),
      onLost: (reason) => {
        if (found === undefined) lost = reason;
        else this.#lose(found, reason);
      },
    });
    found = connection;
    if (signal.aborted || lost !== undefined) {
      connection[Symbol.dispose]();
      if (lost !== undefined) throw new VmmUnreachable(`Its VMM is gone again: ${lost}`);
      return undefined;
    }
    this.#attached = { connection, driver, machine, invocation: this.invocation };
    this.#options.onConnected(this);
    return connection;
  }

  #hear(event: VmmEvent): void {
    if (event.kind === "agent-left") {
      this.#options.onAgentLeft(this);
      return;
    }
    if (event.kind === "disk-error") {
      const { disk, reason, pauses } = event;
      const then = pauses ? "; it is paused until it is resumed" : "";
      const name = this.#attached?.machine.name ?? "a machine";
      this.#tools.onTrouble(`${name}: disk ${disk}: ${reason}${then}`);
      return;
    }
    this.#tell({ ...event, invocation: this.invocation });
  }

  #lose(connection: VmmConnection, reason: string): void {
    if (this.#attached?.connection !== connection) return;
    this.#attached = undefined;
    connection[Symbol.dispose]();
    this.#tell({ kind: "connection-lost", invocation: this.invocation, reason });
  }

  detach(): void {
    this.#saving?.abort(new Error("Its VMM is asked anew, and may run on"));
    this.#saving = undefined;
    this.#attaching?.abort();
    this.#attaching = undefined;
    this.#attached?.connection[Symbol.dispose]();
    this.#attached = undefined;
  }

  /** One that does not answer is told by its connection. */
  async observe(): Promise<void> {
    const attached = this.#attached;
    if (attached === undefined) return;
    const { connection, invocation } = attached;
    try {
      const guest = await connection.guestState();
      if (this.#attached === attached) this.#tell({ kind: "observed", invocation, guest });
    } catch (error) {
      if (this.#attached === attached) this.#lose(connection, refusalOf(error).message);
    }
  }

  /** Its sockets, which nobody serves any more. */
  removeFolder(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  #tell(event: MachineEvent): void {
    if (!this.#isDisposed) this.#options.onEvent(event);
  }

  /** Lets go of everything; the VMM lives on. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.detach();
    this.#process[Symbol.dispose]();
    if (this.#options.output?.isOpen === true) this.#options.output.close();
  }
}

/** Sockets and files of a VMM in its folder. */
export function filesIn(folder: string): MachineFiles {
  return {
    control: `${folder}/control`,
    console: `${folder}/console`,
    agent: `${folder}/agent`,
    events: `${folder}/events`,
  };
}
