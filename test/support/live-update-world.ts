/** What a simulated luod works on: sessions of a kernel, and clients that do as a seed says. */
import type { ClientEvent } from "../../src/live-update/protocol.ts";

/** A session with whoever has a descriptor of it; ours are the daemon's and the holder's. */
export interface WorldSession {
  readonly name: string;
  readonly holders: Set<string>;
  content: string | undefined;
}

export const ours = "ours";

/** The kernel's two name spaces. Who closes the last descriptor ends the session. */
export class WorldKernel {
  outgoing = new Map<string, WorldSession>();
  incoming = new Map<string, WorldSession>();

  /** False when the name is taken. */
  create(name: string): boolean {
    if (this.outgoing.has(name)) return false;
    this.outgoing.set(name, { name, holders: new Set([ours]), content: undefined });
    return true;
  }

  close(side: Map<string, WorldSession>, name: string, holder: string): void {
    const session = side.get(name);
    if (session?.holders.delete(holder) === true && session.holders.size === 0) side.delete(name);
  }

  closeAll(holder: string): void {
    for (const side of [this.outgoing, this.incoming]) {
      for (const name of [...side.keys()]) this.close(side, name, holder);
    }
  }

  /** Ours that are to be preserved. */
  get open(): string[] {
    return [...this.outgoing.values()]
      .filter(({ holders }) => holders.has(ours))
      .map(({ name }) => name);
  }

  retrieved(name: string): boolean {
    return this.incoming.get(name)?.holders.has(ours) === true;
  }

  /** What went comes, and every process is gone. */
  replace(): void {
    this.incoming = this.outgoing;
    for (const session of this.incoming.values()) session.holders.clear();
    this.outgoing = new Map();
  }
}

/** A connection, as the daemon knows it. */
export interface WorldConnection {
  readonly number: number;
  /** The update that a START_PRESERVATION on it was for. */
  begun: string | undefined;
  /** When the last line that was sent is heard. */
  heardAt: number;
  /** Updates of which it was said that they are aborted. */
  readonly aborted: Set<string>;
  /** Said to be finished, and not yet heard to be. */
  readonly finishing: Set<string>;
  /** A bare client was refused something: it understands the end of its connection. */
  mustEnd: boolean;
  readonly unanswered: Map<number, "claim" | "other">;
}

export interface WorldClient {
  readonly id: string;
  readonly user: number;
  readonly bare: boolean;
  readonly required: boolean;
  /** The kernel's names of its sessions. */
  readonly sessions: readonly string[];
  connection: WorldConnection | undefined;
  /** The last update that it was told of, and that is not over for it. */
  known: string | undefined;
  given: Set<string>;
  isReady: boolean;
  /** What it has yet to claim after a kexec, and what that must be. */
  readonly owed: Map<string, string>;
  /** Claimed, and not said to be finished. */
  readonly claimed: Set<string>;
}

export type Sent = ClientEvent;
