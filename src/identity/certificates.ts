import { join } from "node:path";
import type { Revision } from "../store/store.ts";
import type { MonotonicTime } from "../units/units.ts";
import type { AuthorityCore } from "./authority-core.ts";
import { type AuthorityFacts, readAuthorityFile, writeAuthorityFile } from "./authority-file.ts";
import { makeServerCertificate, type ServerCertificate } from "./certificate.ts";
import { type CertificateState, stepCertificate } from "./lifecycle-certificate.ts";
import { limits, PROTOCOL_VERSION, type Statement, statementText } from "./protocol.ts";
import type { RecordBook } from "./record-book.ts";
import type { PinsRecord } from "./records.ts";
import { IdentityRefusal } from "./refusal.ts";
import { releaseTime, trustedTime } from "./trusted-time.ts";

/** How far the journaled time may stand behind what is signed, and a statement be old. */
const JOURNAL_EVERY = 3_600_000;
const SIGN_EVERY = 60_000;

const listMend = "See what is shown and announced: hostler identity certificate list";

/** Which certificates an authority shows and announces, and what it signs about them. */
export class Certificates {
  readonly #core: AuthorityCore;
  readonly #path: string;
  readonly #pins: RecordBook<PinsRecord>;
  readonly #onServe = new Set<(served: ServerCertificate) => void>();
  #facts: AuthorityFacts;
  #statement: Statement | undefined;
  /** The one that was shown until just now: a host may have seen it a moment ago. */
  #before: { readonly pin: string; readonly until: MonotonicTime } | undefined;

  private constructor(
    core: AuthorityCore,
    from: { path: string; pins: RecordBook<PinsRecord>; facts: AuthorityFacts },
  ) {
    this.#core = core;
    this.#path = from.path;
    this.#pins = from.pins;
    this.#facts = from.facts;
    core.setShown((pin) => this.#isShown(pin));
  }

  /** Makes the first certificate when there is none. @throws FileRefused, IdentityRefusal */
  static async open(core: AuthorityCore, pins: RecordBook<PinsRecord>): Promise<Certificates> {
    const path = join(core.options.folder, "authority.json");
    const present = readAuthorityFile(path);
    const facts = present ?? (await Certificates.#first(core));
    const certificates = new Certificates(core, { path, pins, facts });
    // A file that is new has a serial that the store vouches for: hosts may know later ones.
    if (present === undefined) await certificates.#announce(facts.certificates);
    // Killed between the two, or an older backup: the file is what counts.
    else if (!certificates.#isStored()) await certificates.#storePins(facts.certificates);
    return certificates;
  }

  static async #first(core: AuthorityCore): Promise<AuthorityFacts> {
    const { names, random } = core.options;
    const current = await makeServerCertificate({ names, random });
    return { certificates: { current, next: undefined }, serial: 0, time: releaseTime };
  }

  /** What the server is to show now. */
  get served(): ServerCertificate {
    return this.#facts.certificates.current;
  }

  /** Told when the server is to show another one: a second listener, then the first one's end. */
  onServe(listener: (served: ServerCertificate) => void): Disposable {
    this.#onServe.add(listener);
    return { [Symbol.dispose]: () => this.#onServe.delete(listener) };
  }

  /** The pins that hosts are to trust: of what is shown, and of what is announced. */
  get pins(): readonly string[] {
    const { current, next } = this.#facts.certificates;
    return next === undefined ? [current.pin] : [current.pin, next.pin];
  }

  get announced(): string | undefined {
    return this.#facts.certificates.next?.pin;
  }

  /** Signed by the authority's key; the same one for a minute. */
  statement(): Statement {
    const { clock } = this.#core.options;
    const issued = Math.floor(
      trustedTime({ build: releaseTime, journaled: this.#facts.time, signed: clock.wall() }),
    );
    const last = this.#statement;
    if (last?.serial === this.#facts.serial && issued - last.issued < SIGN_EVERY) return last;
    if (issued - this.#facts.time >= JOURNAL_EVERY) this.#journalTime(issued);
    const said = {
      authority: this.#core.key.fingerprint,
      serial: this.#facts.serial,
      issued,
      expires: issued + limits.statementLifetime,
      pins: [...this.pins],
    };
    const signature = this.#core.key.sign(statementText(said));
    this.#statement = { version: PROTOCOL_VERSION, ...said, signature };
    return this.#statement;
  }

  /** Makes the next certificate and announces it; shown it is when the rotation is finished. */
  async rotate(): Promise<string> {
    const { names, random } = this.#core.options;
    const next = await makeServerCertificate({ names, random });
    return this.#core.inTurn(async () => {
      const step = stepCertificate(this.#facts.certificates, { kind: "rotate", next });
      if (step.refused !== undefined) {
        throw new IdentityRefusal(step.refused, {
          expected: "no rotation under way",
          received: `one to ${this.announced}`,
          mend: listMend,
        });
      }
      await this.#announce(step.state);
      this.#core.events.add({ kind: "certificate-announced", pin: next.pin });
      return next.pin;
    });
  }

  /**
   * Shows the announced one, and trusts it alone.
   * @param unconfirmed names of hosts that have not said that they trust it
   */
  async finish(options: {
    readonly unconfirmed: () => readonly string[];
    readonly force: boolean;
  }): Promise<string> {
    return this.#core.inTurn(async () => {
      const unconfirmed = options.unconfirmed();
      const old = this.served.pin;
      const step = stepCertificate(this.#facts.certificates, {
        kind: "finish",
        unconfirmed: unconfirmed.length,
        force: options.force,
      });
      if (step.refused !== undefined) {
        throw new IdentityRefusal(step.refused, {
          expected: "a rotation under way that all hosts have confirmed",
          received:
            step.refused === "unconfirmed"
              ? `${unconfirmed.length} that have not: ${unconfirmed.slice(0, 8).join(", ")}`
              : "none",
          ...(step.refused === "wrong-state" && { mend: listMend }),
        });
      }
      await this.#announce(step.state);
      const until = this.#core.options.clock.monotonic() + limits.nonceLifetime;
      this.#before = { pin: old, until };
      this.#core.events.add({ kind: "certificate-finished", pin: this.served.pin });
      for (const listener of [...this.#onServe]) listener(this.served);
      return this.served.pin;
    });
  }

  /**
   * From now on this is what is shown and announced, with a serial above all before it. The store
   * comes first: when it does not answer, nothing has changed.
   */
  async #announce(certificates: CertificateState<ServerCertificate>): Promise<void> {
    const revision = await this.#storePins(certificates);
    // Revisions of a store are never used again; serials here were, when this file was lost.
    const serial = Math.max(this.#facts.serial + 1, revision);
    this.#write({ ...this.#facts, certificates, serial });
    this.#core.step("certificate-written");
  }

  async #storePins({ current, next }: CertificateState<ServerCertificate>): Promise<Revision> {
    const record = { version: 1 as const, current: current.pin, next: next?.pin ?? null };
    const revision = await this.#pins.put("pins", record);
    this.#core.step("pins-stored");
    return revision;
  }

  /** A full disk does not keep hosts out: the time is journaled when there is room again. */
  #journalTime(time: number): void {
    try {
      this.#write({ ...this.#facts, time });
    } catch (error) {
      this.#core.options.onTrouble(`${(error as Error).message} Going on without it.`);
    }
  }

  #isStored(): boolean {
    const record = this.#pins.get("pins");
    return record?.current === this.served.pin && record.next === (this.announced ?? null);
  }

  #isShown(pin: string): boolean {
    if (pin === this.served.pin) return true;
    const before = this.#before;
    return before?.pin === pin && this.#core.options.clock.monotonic() < before.until;
  }

  #write(facts: AuthorityFacts): void {
    writeAuthorityFile(this.#path, facts);
    this.#facts = facts;
    this.#statement = undefined;
  }
}
