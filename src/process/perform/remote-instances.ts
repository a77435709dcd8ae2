import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Ending } from "../../units/ending.ts";
import { keptNames } from "../protocol-kept.ts";
import type { CarriedInstance } from "../protocol-state.ts";
import { type Keeper, keepsNothing } from "./keeping.ts";
import type { Luggage, Unpacking } from "./luggage.ts";
import type { Emit } from "./partition.ts";
import { RemoteInstance, type RemoteInstanceHandlers } from "./remote-instance.ts";
import { UntoldEndings } from "./untold-endings.ts";

type Identity = ConstructorParameters<typeof RemoteInstance>[1];

/**
 * Processes that somebody else is the parent of, by invocation: all that runs behind one agent,
 * instances of processes and their checks; or what an orchestrator that was killed left running.
 */
export class RemoteInstances {
  readonly #loop: EventLoop;
  readonly #emit: Emit;
  readonly #onTrouble: (message: string) => void;
  readonly #onGone: (invocation: string) => void;
  readonly #keeper: Keeper;
  readonly #instances = new Map<string, RemoteInstance>();
  /** Names of the processes whose instances these are; a check's has none. */
  readonly #names = new Map<string, string>();
  readonly #untold: UntoldEndings;

  constructor(
    loop: EventLoop,
    handlers: {
      readonly emit: Emit;
      readonly onTrouble: (message: string) => void;
      /** Nothing more comes of one. */
      readonly onGone?: (invocation: string) => void;
      /** Keeps their pidfds. */
      readonly keeper?: Keeper;
    },
  ) {
    this.#loop = loop;
    this.#emit = handlers.emit;
    this.#onTrouble = handlers.onTrouble;
    this.#onGone = handlers.onGone ?? (() => {});
    this.#keeper = handlers.keeper ?? keepsNothing;
    this.#untold = new UntoldEndings(handlers.onTrouble);
  }

  get(invocation: string): RemoteInstance | undefined {
    return this.#instances.get(invocation);
  }

  /** The pidfd of one, which stays ours. */
  processOf(invocation: string): OwnedDescriptor | undefined {
    const process = this.#instances.get(invocation)?.process;
    return process?.isOpen === true ? process : undefined;
  }

  /** Watches an instance of a process, and emits its death and its ending. */
  watch(name: string, identity: Identity): void {
    const { invocation } = identity;
    this.#names.set(invocation, name);
    this.#keeper.keep(keptNames.instance(invocation), identity.process);
    this.#add(name, identity, {
      onDeath: (ending) => this.#emit(name, { kind: "died", invocation, ending }),
      onEnding: (ending) => this.#emit(name, { kind: "ending-known", invocation, ending }),
      onRefused: (message) => this.#onTrouble(`${name}: ${message}`),
    });
  }

  /** Watches a check of a process, whose ending alone is told. */
  watchCheck(name: string, identity: Identity, onEnding: (ending: Ending) => void): void {
    // Its checks are counted apart from the process itself, whose name has no space.
    this.#add(`${name} check`, identity, {
      onDeath: (ending) => {
        if (ending !== undefined) onEnding(ending);
      },
      onEnding,
      onRefused: (message) => this.#onTrouble(`a check: ${message}`),
    });
  }

  #add(
    counted: string,
    identity: Identity,
    handlers: Pick<RemoteInstanceHandlers, "onDeath" | "onEnding" | "onRefused">,
  ): void {
    const { invocation } = identity;
    const instance: RemoteInstance = new RemoteInstance(this.#loop, identity, {
      ...handlers,
      onDeath: (ending) => {
        handlers.onDeath(ending);
        if (ending === undefined) this.#untold.add(counted, instance);
      },
      onDone: () => {
        this.#untold.delete(counted, instance);
        this.#keeper.forget(keptNames.instance(invocation));
        this.#names.delete(invocation);
        this.#instances.delete(invocation);
        this.#onGone(invocation);
      },
    });
    this.#instances.set(invocation, instance);
    if (identity.past?.dead === true) this.#untold.add(counted, instance);
  }

  /** Those of processes, for another program to go on with. */
  pack(luggage: Luggage): CarriedInstance[] {
    return [...this.#names].flatMap(([invocation, name]) => {
      const instance = this.#instances.get(invocation);
      return instance === undefined ? [] : [{ ...instance.pack(luggage), name }];
    });
  }

  /** Watches what the program before this one watched. @throws WrongLuggage */
  unpack(carried: readonly CarriedInstance[], unpacking: Unpacking): void {
    for (const { name, process, dead, notice, ...identity } of carried) {
      const taken = unpacking.takeProcess(process, identity.processId);
      this.watch(name, { ...identity, process: taken, past: { dead, notice } });
    }
  }

  /** Looks at none of them any more; they go on. */
  close(): void {
    for (const [invocation, instance] of this.#instances) {
      instance.close();
      this.#keeper.forget(keptNames.instance(invocation));
    }
    this.#instances.clear();
  }
}
