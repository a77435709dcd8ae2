/** One direction of a connection: ordered bytes that come late, in pieces, and may be cut off. */
import { encodeFrame, FrameReader } from "../../../src/messaging/frame.ts";
import type { SeededChance } from "../chance.ts";
import type { Agenda } from "./agenda.ts";

export interface StreamReader {
  onFrame(body: unknown): void;
  onEnd(): void;
  /** The reader does not read before this time. */
  stalledUntil(): number;
}

export class Stream {
  readonly #agenda: Agenda;
  readonly #chance: SeededChance;
  readonly #reader: StreamReader;
  readonly #frames = new FrameReader({ frameBytes: 65_536, frameDescriptors: 0 });
  #underWay = new Uint8Array(0);
  #isOpen = true;
  #isRead = true;
  #isScheduled = false;

  constructor(agenda: Agenda, chance: SeededChance, reader: StreamReader) {
    this.#agenda = agenda;
    this.#chance = chance;
    this.#reader = reader;
  }

  write(body: unknown): void {
    if (!this.#isOpen) return;
    const frame = encodeFrame(body);
    const joined = new Uint8Array(this.#underWay.length + frame.length);
    joined.set(this.#underWay, 0);
    joined.set(frame, this.#underWay.length);
    this.#underWay = joined;
    this.#schedule();
  }

  /** The writer is gone; what is under way still comes, or with `cut` a part of it. */
  end(options: { readonly cut: boolean }): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (options.cut) {
      const kept = this.#chance.below(this.#underWay.length + 1);
      this.#underWay = this.#underWay.slice(0, kept);
    }
    this.#schedule();
  }

  /** The reader is gone. */
  drop(): void {
    this.#isRead = false;
    this.#underWay = new Uint8Array(0);
  }

  #schedule(): void {
    if (this.#isScheduled || !this.#isRead) return;
    this.#isScheduled = true;
    const stalled = Math.max(0, this.#reader.stalledUntil() - this.#agenda.now);
    this.#agenda.after(stalled + this.#chance.below(4), () => {
      this.#isScheduled = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    if (!this.#isRead) return;
    if (this.#reader.stalledUntil() > this.#agenda.now) {
      this.#schedule();
      return;
    }
    const size = this.#underWay.length;
    const count = this.#chance.happens(0.8) ? size : this.#chance.below(size + 1);
    this.#frames.push(this.#underWay.slice(0, count));
    this.#underWay = this.#underWay.slice(count);
    for (let frame = this.#frames.next(); frame !== undefined; frame = this.#frames.next()) {
      if ("refusal" in frame) throw new Error(JSON.stringify(frame.refusal));
      this.#reader.onFrame(frame.body);
      if (!this.#isRead) return;
    }
    if (this.#underWay.length > 0) this.#schedule();
    else if (!this.#isOpen) {
      this.#isRead = false;
      this.#reader.onEnd();
    }
  }
}
