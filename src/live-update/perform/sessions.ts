import { existsSync, fstatSync, readSync, writeSync } from "node:fs";
import { faultKernelSocket, isMadeAbsent } from "../../../ffi/fault-hooks.ts";
import { finishSession, preserveDescriptor, retrieveDescriptor } from "../../../ffi/live-update.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage, errnoName } from "../../../ffi/system-call-error.ts";
import type { HolderClient } from "../../holding/holder-client.ts";
import type { SessionRefusal } from "../lifecycle-state.ts";
import { limits, OWN_SESSION, REGISTRY_TOKEN } from "../protocol.ts";
import { decodeRegistry, encodeEntered, encodeRegistry, type Registry } from "../registry.ts";

/** Whether this kernel has live update, and has it on. */
export function hasDevice(): boolean {
  if (isMadeAbsent("liveupdate")) return false;
  return faultKernelSocket() !== undefined || existsSync("/dev/liveupdate");
}

export type Direction = "outgoing" | "incoming";

/** The holder's name of a session: both directions may have one of the same name. */
const keyOf = (direction: Direction, session: string) => `${direction}/${session}`;

/** What a former kernel left to us; `later`: why it cannot be had now. */
export type FoundRegistry =
  | Registry
  | { readonly problem: string }
  | { readonly later: string }
  /** The session is there, and finished: a daemon before this one was about to drop it. */
  | { readonly finished: true }
  | undefined;

/** Refusals that pass: another has the device open, or there is too little of something. */
const passing: ReadonlySet<string> = new Set(["EBUSY", "EMFILE", "ENFILE", "ENOMEM"]);

const refusalOf = (result: number): SessionRefusal => ({
  code: errnoName(-result),
  message: errnoMessage(-result),
});

/**
 * The sessions that the holder keeps for this daemon, and the daemon's own duplicates of them. No
 * session exists in the daemon alone: the holder makes and takes them.
 */
export class Sessions {
  readonly #holder: HolderClient;
  readonly #own = new Map<string, OwnedDescriptor>();
  /** Who waits for a session that is asked for: it is asked for once. */
  readonly #retrieving = new Map<string, ((refusal: SessionRefusal | undefined) => void)[]>();
  /** The registry that was preserved last, to be completed just before the kexec. */
  #registry: { readonly file: OwnedDescriptor; readonly size: number } | undefined;

  constructor(holder: HolderClient) {
    this.#holder = holder;
  }

  /** Our duplicate; undefined when there is none (any more). */
  of(direction: Direction, session: string): OwnedDescriptor | undefined {
    return this.#own.get(keyOf(direction, session));
  }

  /** What the holder keeps, by direction. */
  list(onDone: (names: { readonly [D in Direction]: readonly string[] }) => void): void {
    this.#holder.list((names) => {
      const of = (direction: Direction) =>
        names
          .filter((name) => name.startsWith(`${direction}/`))
          .map((name) => name.slice(direction.length + 1));
      onDone({ outgoing: of("outgoing"), incoming: of("incoming") });
    });
  }

  create(session: string, onDone: (refusal: SessionRefusal | undefined) => void): void {
    const key = keyOf("outgoing", session);
    const onResult = (result: OwnedDescriptor | SessionRefusal) => {
      if (result instanceof OwnedDescriptor) this.#keep(key, result, onDone);
      // The holder may have it all the same, when this process can have no duplicate of it.
      else this.#holder.drop(key, () => onDone(result));
    };
    this.#holder.createSession(session, onResult, { name: key });
  }

  retrieve(session: string, onDone: (refusal: SessionRefusal | undefined) => void): void {
    const key = keyOf("incoming", session);
    if (this.#own.has(key)) {
      onDone(undefined);
      return;
    }
    const waiting = this.#retrieving.get(key);
    if (waiting !== undefined) {
      waiting.push(onDone);
      return;
    }
    this.#retrieving.set(key, [onDone]);
    const onResult = (result: OwnedDescriptor | SessionRefusal) => {
      const told = this.#retrieving.get(key) ?? [];
      this.#retrieving.delete(key);
      this.#keep(key, result, (refusal) => {
        for (const tell of told) tell(refusal);
      });
    };
    // A daemon before this one may have retrieved it: then the holder has it, and the kernel not.
    this.#holder.get(key, (found) => {
      if (found !== undefined) onResult(found);
      else this.#holder.retrieveSession(session, onResult, { name: key });
    });
  }

  #keep(
    key: string,
    result: OwnedDescriptor | SessionRefusal,
    onDone: (refusal: SessionRefusal | undefined) => void,
  ): void {
    if (!(result instanceof OwnedDescriptor)) {
      onDone(result);
      return;
    }
    this.#own.get(key)?.close();
    this.#own.set(key, result);
    onDone(undefined);
  }

  /** Closes an outgoing session: what was preserved in it is given up. */
  drop(session: string, onDone: () => void): void {
    this.#forget("outgoing", session, onDone);
    if (session === OWN_SESSION) this.#closeRegistry();
  }

  #forget(direction: Direction, session: string, onDone: () => void): void {
    const key = keyOf(direction, session);
    this.#own.get(key)?.close();
    this.#own.delete(key);
    this.#holder.drop(key, () => onDone());
  }

  /**
   * Finishes an incoming session, retrieving it first if need be, and closes it. "later": it could
   * not be retrieved now; nothing has changed.
   */
  finish(
    session: string,
    onDone: (result: "finished" | "later", problem: SessionRefusal | undefined) => void,
  ): void {
    this.retrieve(session, (refusal) => {
      if (refusal !== undefined) {
        // ENOENT: it was finished before. ESTALE: just now, with a holder that died.
        const isGone = refusal.code === "ENOENT" || refusal.code === "ESTALE";
        if (isGone) onDone("finished", undefined);
        else onDone("later", refusal);
        return;
      }
      const descriptor = this.of("incoming", session);
      const result = descriptor === undefined ? 0 : finishSession(descriptor);
      const problem = result < 0 ? refusalOf(result) : undefined;
      this.#forget("incoming", session, () => onDone("finished", problem));
    });
  }

  /** Writes the registry into a file, and preserves it in a session of our own. */
  preserveRegistry(registry: Registry): SessionRefusal | undefined {
    try {
      return this.#preserve(encodeRegistry(registry));
    } catch (error) {
      // Too much of it, no memory, no descriptor left: the update is rolled back.
      const { code = "EFBIG", message } = error as { code?: string; message: string };
      return { code, message };
    }
  }

  #preserve(bytes: Uint8Array): SessionRefusal | undefined {
    const session = this.of("outgoing", OWN_SESSION);
    if (session === undefined) return { code: "ENOENT", message: "its session is gone" };
    const file = makeMemoryFile("hostler-registry");
    try {
      writeAll(file, bytes);
    } catch (error) {
      file.close();
      throw error;
    }
    const result = preserveDescriptor(session, file, REGISTRY_TOKEN);
    if (result < 0) {
      file.close();
      return refusalOf(result);
    }
    this.#closeRegistry();
    this.#registry = { file, size: bytes.length };
    return undefined;
  }

  /** Says in the preserved registry when the kernel was entered: its size stays. */
  completeRegistry(registry: Registry): void {
    if (this.#registry === undefined) return;
    const { file, size } = this.#registry;
    const bytes = encodeEntered(registry, size);
    // It is for people alone: without it the time of the kexec is not known.
    if (bytes !== undefined) writeAll(file, bytes);
  }

  #closeRegistry(): void {
    this.#registry?.file.close();
    this.#registry = undefined;
  }

  /**
   * The registry of the former kernel. Undefined when there is none: this kernel follows no live
   * update of ours, or its registry is settled. "later" when the device cannot be had now.
   */
  takeRegistry(onDone: (found: FoundRegistry) => void): void {
    this.retrieve(OWN_SESSION, (refusal) => {
      if (refusal !== undefined) {
        const { code, message } = refusal;
        const problem = `${message} (${code})`;
        if (code === "ENOENT") onDone(undefined);
        else onDone(passing.has(code) ? { later: problem } : { problem });
        return;
      }
      const session = this.of("incoming", OWN_SESSION);
      onDone(session === undefined ? undefined : readRegistry(session));
    });
  }
}

function writeAll(file: OwnedDescriptor, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) {
    offset += writeSync(file.number, bytes, offset, bytes.length - offset, offset);
  }
}

function readRegistry(session: OwnedDescriptor): FoundRegistry {
  const file = retrieveDescriptor(session, REGISTRY_TOKEN);
  if (file === -Errno.ENOENT) return { finished: true };
  if (typeof file === "number") return { problem: `no registry in it: ${errnoMessage(-file)}` };
  using registry = file;
  const { size } = fstatSync(registry.number);
  if (size > limits.registryBytes) {
    return { problem: `expected at most ${limits.registryBytes} bytes, received ${size}` };
  }
  const bytes = new Uint8Array(size);
  for (let offset = 0; offset < size; ) {
    const length = readSync(registry.number, bytes, offset, size - offset, offset);
    if (length === 0) break;
    offset += length;
  }
  return decodeRegistry(bytes);
}
