import { faultHooks, killPoint } from "../../../ffi/fault-hooks.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type {
  DaemonEffect,
  DaemonEvent,
  EffectKind,
  HistoryEntry,
  Outcome,
  Update,
} from "../lifecycle-state.ts";
import { OWN_SESSION } from "../protocol.ts";
import type { Registry } from "../registry.ts";
import type { ClientConnections } from "./client-connections.ts";
import { enterByReboot, enterBySystemd, runHooks, writeOut } from "./enter-kernel.ts";
import type { Sessions } from "./sessions.ts";

/** Where a fault test can kill the daemon: before and after each effect. */
export type DaemonKillPoint = `live-update:${EffectKind}:${"before" | "after"}`;

export interface PerformerHandlers {
  onEvent(event: DaemonEvent): void;
  onRecord(entry: HistoryEntry): void;
  onEnd(update: Update, outcome: Outcome, reason: string): void;
  onTrouble(message: string): void;
  /** A session was handed to a client. */
  onClaimed(): void;
  /** The registry of the update that is being committed; `entered`: the kernel is entered now. */
  registry(entered: boolean): Registry;
  /** How the kernel is to be entered. */
  way(): "reboot" | "systemctl";
  hooks(): readonly string[];
  /** Processes that stay until the very end: the holder. */
  keep(): readonly number[];
}

/** Milliseconds until a session that could not be retrieved is finished after all. */
const FINISH_AGAIN_AFTER = 5_000;

/** Does what was decided; what comes of it becomes events. */
export class Performer {
  readonly #loop: EventLoop;
  readonly #sessions: Sessions;
  /** Undefined until it is known what came over a kexec. */
  readonly #clients: () => ClientConnections | undefined;
  readonly #handlers: PerformerHandlers;

  constructor(
    loop: EventLoop,
    parts: { readonly sessions: Sessions; readonly clients: () => ClientConnections | undefined },
    handlers: PerformerHandlers,
  ) {
    this.#loop = loop;
    this.#sessions = parts.sessions;
    this.#clients = parts.clients;
    this.#handlers = handlers;
  }

  perform(effect: DaemonEffect): void {
    if (faultHooks) killPoint(`live-update:${effect.kind}:before` satisfies DaemonKillPoint);
    this.#perform(effect);
    if (faultHooks) killPoint(`live-update:${effect.kind}:after` satisfies DaemonKillPoint);
  }

  #perform(effect: DaemonEffect): void {
    const { onEvent, onRecord, onEnd } = this.#handlers;
    switch (effect.kind) {
      case "create-session":
        this.#create(effect.session);
        break;
      case "drop-session": {
        const { session } = effect;
        this.#clients()?.revoke("outgoing", session);
        this.#sessions.drop(session, () => onEvent({ kind: "session-dropped", session }));
        break;
      }
      case "preserve-registry":
        this.#preserveRegistry();
        break;
      case "prepare-kexec":
        void this.#prepare(effect.update);
        break;
      case "enter-kernel":
        this.#enter();
        break;
      case "retrieve-session":
        this.#retrieve(effect.session);
        break;
      case "finish-session":
        this.#finish(effect.session);
        break;
      case "release-registry":
        this.#releaseRegistry();
        break;
      case "send":
        this.#send(effect);
        break;
      case "hang-up":
        this.#clients()?.hangUp(effect.connection);
        break;
      case "end-update":
        onEnd(effect.update, effect.outcome, effect.reason);
        break;
      case "record":
        onRecord(effect.entry);
        break;
    }
  }

  #create(session: string): void {
    const { onEvent } = this.#handlers;
    this.#sessions.create(session, (refusal) => {
      if (refusal === undefined) onEvent({ kind: "session-created", session });
      else onEvent({ kind: "session-refused", session, refusal });
    });
  }

  #preserveRegistry(): void {
    const { onEvent } = this.#handlers;
    this.#sessions.create(OWN_SESSION, (refusal) => {
      if (refusal !== undefined) {
        onEvent({ kind: "registry-refused", refusal });
        return;
      }
      onEvent({ kind: "session-created", session: OWN_SESSION });
      // It was dropped again, if the update was aborted meanwhile.
      if (this.#sessions.of("outgoing", OWN_SESSION) === undefined) return;
      const problem = this.#sessions.preserveRegistry(this.#handlers.registry(false));
      if (problem === undefined) onEvent({ kind: "registry-preserved" });
      else onEvent({ kind: "registry-refused", refusal: problem });
    });
  }

  async #prepare(update: string): Promise<void> {
    const { onEvent, hooks } = this.#handlers;
    const reason = await runHooks(hooks());
    if (reason !== undefined) {
      onEvent({ kind: "preparation-failed", update, reason });
      return;
    }
    writeOut();
    onEvent({ kind: "prepared", update });
  }

  #enter(): void {
    const { onEvent, way, keep, registry } = this.#handlers;
    const onEntering = () => this.#sessions.completeRegistry(registry(true));
    if (way() === "reboot") {
      enterByReboot(this.#loop, {
        keep: keep(),
        onEntering,
        onRefused: (refusal) => onEvent({ kind: "kernel-refused", refusal }),
      });
      return;
    }
    onEntering();
    void enterBySystemd().then((refusal) => {
      if (refusal !== undefined) onEvent({ kind: "kernel-refused", refusal });
    });
  }

  #retrieve(session: string): void {
    const { onEvent } = this.#handlers;
    this.#sessions.retrieve(session, (refusal) => {
      if (refusal === undefined) onEvent({ kind: "retrieved", session });
      else onEvent({ kind: "retrieve-refused", session, refusal });
    });
  }

  #finish(session: string): void {
    const { onEvent, onTrouble } = this.#handlers;
    this.#clients()?.revoke("incoming", session);
    this.#sessions.finish(session, (result, problem) => {
      if (problem !== undefined) {
        onTrouble(`cannot finish ${session}: ${problem.message} (${problem.code})`);
      }
      if (result === "finished") onEvent({ kind: "session-finished", session });
      else this.#loop.wakeAfter(FINISH_AGAIN_AFTER, () => this.#finish(session));
    });
  }

  #releaseRegistry(): void {
    const { onTrouble } = this.#handlers;
    this.#sessions.finish(OWN_SESSION, (_result, problem) => {
      if (problem === undefined) return;
      onTrouble(`cannot finish the registry: ${problem.message} (${problem.code})`);
    });
  }

  /** A session that a daemon before this one retrieved: the holder has it, and we not yet. */
  #fetch(effect: Extract<DaemonEffect, { kind: "send" }>, name: string): void {
    this.#sessions.retrieve(name, (refusal) => {
      if (refusal === undefined) {
        this.#send(effect);
        return;
      }
      const { connection, message } = effect;
      const asked = "request" in message ? { request: message.request } : {};
      const text = `Cannot retrieve ${name}: ${refusal.message}`;
      const error = { kind: "kernel", message: text };
      this.#clients()?.send(connection, { event: "ERROR", ...asked, error });
      this.#clients()?.hangUp(connection);
    });
  }

  #send(effect: Extract<DaemonEffect, { kind: "send" }>): void {
    const { connection, message, session } = effect;
    if (session === undefined) {
      this.#clients()?.send(connection, message);
      return;
    }
    const descriptor = this.#sessions.of(session.direction, session.name);
    if (descriptor === undefined) {
      // An outgoing one was dropped while this was decided: what dropped it has told the client.
      if (session.direction === "incoming") this.#fetch(effect, session.name);
      return;
    }
    this.#clients()?.sendSession(connection, message, { ...session, descriptor });
    if (session.direction === "incoming") this.#handlers.onClaimed();
  }
}
