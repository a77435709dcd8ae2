import { join } from "node:path";
import * as v from "valibot";
import { FileRefused } from "../journal/file-refused.ts";
import { describeIssues } from "../messaging/describe-issues.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";
import { type HostJournal, readHostJournal, writeHostJournal } from "./host-journal.ts";
import {
  checkFolder,
  type IdentityKey,
  keyPaths,
  openKey,
  promoteKey,
  readKey,
} from "./host-key.ts";
import { type HttpAnswer, type HttpCaller, type HttpRequest, WrongPin } from "./http-caller.ts";
import { takeStatement } from "./pins.ts";
import {
  challengeSchema,
  enrolAnswerSchema,
  enrolText,
  PROTOCOL_VERSION,
  rotateKeyAnswerSchema,
  rotateKeyText,
  type Statement,
  sessionAnswerSchema,
  sessionText,
  shortFingerprint,
  statementSchema,
  statementText,
} from "./protocol.ts";
import { identityPaths } from "./protocol-paths.ts";
import { problemSchema, type RefusalKind, refusalKindOf, refusals } from "./protocol-refusal.ts";
import { type EnrolmentToken, parseToken } from "./protocol-token.ts";
import { fingerprintOf, isSignedBy } from "./secrets.ts";
import { releaseTime } from "./trusted-time.ts";

/** Why a host and its authority did not come together. */
export type HostRefusalKind =
  | RefusalKind
  | "not-enrolled"
  | "enrolled-elsewhere"
  | "bad-token"
  | "wrong-pin"
  | "other-authority"
  | "bad-answer";

/** What was expected, what was received, and what to do. No secret is in it. */
export class HostRefused extends Error {
  override readonly name = "HostRefused";
  readonly exitCode = ExitCode.refused;
  readonly kind: HostRefusalKind;

  constructor(kind: HostRefusalKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

export interface HostSession {
  readonly host: string;
  readonly address: string;
  /** Authorizes calls, until the session ends. */
  readonly bearer: string;
  readonly session: string;
  /** Milliseconds from now, whatever happens in it, and when nothing does. */
  readonly lifetime: Milliseconds;
  readonly idle: Milliseconds;
  /** Certificates to trust in it. */
  readonly pins: readonly string[];
  /** The key that opened it. */
  readonly key: string;
}

export interface HostOptions {
  readonly folder: string;
  readonly caller: HttpCaller;
  /** /proc/sys/kernel/random/boot_id */
  readonly boot: string;
  readonly build?: Milliseconds;
  /** Told of what does not keep the host from speaking, and should be mended. */
  onTrouble?(message: string): void;
  /** Kill points of the build for fault tests. */
  onStep?(step: HostStep): void;
}

/** What is persisted, one after the other: after each of these a process may die. */
export const hostSteps = [
  "key-made",
  "enrolled",
  "journal-written",
  "next-key-made",
  "rotation-asked",
  "next-key-used",
  "key-promoted",
] as const;
export type HostStep = (typeof hostSteps)[number];

/** Attempts to open a session while the server changes its certificate or forgets our nonce. */
const MOST_ATTEMPTS = 3;

/**
 * The host's side: who it is, and whom it trusts. Everything that it has learned is on the disk
 * before anything is done with it, so that it can be killed at any moment and goes on.
 */
export class HostIdentity {
  readonly #options: HostOptions;
  readonly #paths: { readonly present: string; readonly next: string; readonly journal: string };

  constructor(options: HostOptions) {
    this.#options = options;
    const journal = join(options.folder, "authority.json");
    this.#paths = { ...keyPaths(options.folder), journal };
  }

  /** @returns undefined when the host is not enrolled. @throws FileRefused */
  journal(): HostJournal | undefined {
    return readHostJournal(this.#paths.journal);
  }

  /** The fingerprint of the key that is used now; undefined when there is none. */
  fingerprint(): string | undefined {
    return readKey(this.#paths.present)?.fingerprint;
  }

  /**
   * Makes the host's key when there is none, and has the authority of the token take it. The same
   * again goes on where it was.
   * @throws HostRefused, FileRefused; what the caller throws
   */
  async enrol(request: { readonly token: string }): Promise<{ readonly host: string }> {
    const token = readToken(request.token);
    const before = this.journal();
    if (before !== undefined && before.authority !== token.authority) {
      throw new HostRefused(
        "enrolled-elsewhere",
        `Expected a host that is not enrolled, received one of authority ` +
          `${shortFingerprint(before.authority)}. Remove ${this.#paths.journal} first.`,
      );
    }
    const key = openKey(this.#paths.present);
    this.#step("key-made");
    const answer = await this.#enrolAt(token, key);
    this.#step("enrolled");
    const { authority_key, host, statement } = answer;
    if (fingerprintOf(authority_key) !== token.authority) {
      throw new HostRefused(
        "other-authority",
        `Expected the authority's key ${shortFingerprint(token.authority)}, received ` +
          `${shortFingerprint(fingerprintOf(authority_key))}. Make a new token at the authority.`,
      );
    }
    const { address, authority } = token;
    const base = { version: 1 as const, host, address, authority, authority_key };
    const has = before ?? { pins: [...token.pins], serial: 0, time: 0 };
    const { pins, serial, time } = has;
    const journal = this.#take({ ...base, pins, serial, time }, statement);
    this.#write(journal);
    return { host };
  }

  async #enrolAt(token: EnrolmentToken, key: IdentityKey) {
    const { address, pins, authority } = token;
    return this.#attempt(async () => {
      const { nonce, certificate } = await this.#challenge({ address, pins, authority });
      const { boot } = this.#options;
      const signed = { token: token.id, boot, nonce, certificate };
      const text = enrolText({ ...signed, authority, key: key.fingerprint });
      const body = {
        version: PROTOCOL_VERSION,
        ...signed,
        secret: token.secret,
        key: key.publicKey,
        signature: key.sign(text),
      };
      const path = identityPaths.enrolments;
      const answer = await this.#ask({ address, method: "POST", path, body, pins });
      return parse(enrolAnswerSchema, answer);
    });
  }

  /**
   * Opens a session with the next key, when there is one that the authority knows, or with the
   * present one; takes what the authority has signed about its certificates.
   * @throws HostRefused, FileRefused; what the caller throws
   */
  async openSession(): Promise<HostSession> {
    const next = readKey(this.#paths.next);
    if (next !== undefined) {
      const session = await this.#openWith(next).catch((error: unknown) => {
        // The authority was not asked yet, or has forgotten: the present one is what counts.
        if (isRefused(error, "key-unknown", "key-revoked")) return undefined;
        throw error;
      });
      if (session !== undefined) {
        this.#step("next-key-used");
        promoteKey(this.#paths.next, this.#paths.present);
        this.#step("key-promoted");
        return session;
      }
    }
    const present = readKey(this.#paths.present);
    if (present === undefined) throw this.#notEnrolled();
    return this.#openWith(present);
  }

  /**
   * Puts a new key in the place of the present one: made, announced, used, and only then renamed.
   * Until the new one was used either opens sessions, so that it can be killed at any moment, and
   * asked again.
   */
  async rotateKey(): Promise<HostSession> {
    const present = readKey(this.#paths.present);
    if (present === undefined) throw this.#notEnrolled();
    const isBegun = readKey(this.#paths.next) !== undefined;
    const next = openKey(this.#paths.next);
    this.#step("next-key-made");
    // The authority records a key that it does not know: one that was just made is not tried.
    const session = await (isBegun ? this.openSession() : this.#openWith(present));
    if (session.key !== next.fingerprint) {
      await this.#announce(session, next);
      this.#step("rotation-asked");
    }
    return session.key === next.fingerprint ? session : this.openSession();
  }

  /** Asks what to trust, takes it, and tells the authority that it has. */
  async refresh(session: HostSession): Promise<void> {
    const journal = this.#enrolled();
    const { address, pins } = journal;
    const path = identityPaths.statement;
    const answer = await this.#ask({ address, method: "GET", path, pins });
    await this.#learn(journal, { statement: parse(statementSchema, answer), session });
  }

  async #openWith(key: IdentityKey): Promise<HostSession> {
    return this.#attempt(async () => {
      const journal = this.#enrolled();
      try {
        return await this.#openOnce(journal, key);
      } catch (error) {
        const wrong = error instanceof HostRefused ? error.cause : undefined;
        if (!(wrong instanceof WrongPin)) throw error;
        await this.#recover(journal, wrong);
        return this.#openOnce(this.#enrolled(), key);
      }
    });
  }

  async #openOnce(journal: HostJournal, key: IdentityKey): Promise<HostSession> {
    const { address, authority, host, pins } = journal;
    const { nonce, certificate } = await this.#challenge(journal);
    const { boot } = this.#options;
    const signed = { host, key: key.fingerprint, boot, nonce, certificate, pins };
    const signature = key.sign(sessionText({ ...signed, authority }));
    const body = { version: PROTOCOL_VERSION, ...signed, signature };
    const path = identityPaths.sessions;
    const answer = await this.#ask({ address, method: "POST", path, body, pins });
    const opened = parse(sessionAnswerSchema, answer);
    const { bearer, session, lifetime, idle, statement } = opened;
    const told = { host, address, bearer, session, lifetime, idle, key: key.fingerprint };
    const learned = await this.#learn(journal, { statement, session: { ...told, pins } });
    return { ...told, pins: learned.pins };
  }

  /**
   * The server shows a certificate that we do not know: perhaps we were away while it was rotated.
   * Whoever stands there is asked for the authority's signed word, and believed nothing else.
   */
  async #recover(journal: HostJournal, wrong: WrongPin): Promise<void> {
    const { address } = journal;
    const path = identityPaths.statement;
    const answer = await this.#ask({ address, method: "GET", path, pins: "any" });
    const statement = parse(statementSchema, answer);
    const learned = this.#take(journal, statement);
    if (!learned.pins.includes(wrong.received)) throw wrongPin(address, learned.pins, wrong);
    this.#write(learned);
  }

  /** Keeps a statement, durably, and confirms it when it says something new. */
  async #learn(
    journal: HostJournal,
    what: { readonly statement: Statement; readonly session: HostSession },
  ): Promise<HostJournal> {
    const { statement, session } = what;
    const learned = this.#take(journal, statement);
    const isNew = learned.serial !== journal.serial;
    // The time alone is worth a write when it has gone on for a day.
    if (!isNew && learned.time - journal.time < 86_400_000) return journal;
    if (!this.#keep(learned)) return journal;
    if (!isNew) return learned;
    try {
      await this.#ask({
        address: learned.address,
        method: "POST",
        path: identityPaths.pins,
        body: { pins: learned.pins },
        bearer: session.bearer,
        pins: [...new Set([...journal.pins, ...learned.pins])],
      });
    } catch (error) {
      if (!isRefused(error, "full")) throw error;
      // What this host trusts by now, its next session says as well.
      this.#options.onTrouble?.(`${(error as Error).message} Going on.`);
    }
    return learned;
  }

  /** @throws HostRefused for a statement that is not to be taken */
  #take(journal: HostJournal, statement: Statement): HostJournal {
    const { signature } = statement;
    const text = statementText(statement);
    if (!isSignedBy({ text, signature, spki: journal.authority_key })) {
      throw new HostRefused(
        "other-authority",
        `Expected a statement signed by authority ${shortFingerprint(journal.authority)}, ` +
          "received one with another signature. Somebody stands between this host and it.",
      );
    }
    const { build = releaseTime } = this.#options;
    const taken = takeStatement(journal, statement, { authority: journal.authority, build });
    switch (taken.kind) {
      case "known":
        return journal;
      case "taken": {
        const { serial, pins, time } = taken.trusted;
        return { ...journal, serial, pins: [...pins], time };
      }
      case "refused":
        throw new HostRefused(
          "bad-answer",
          `Expected ${taken.expected}, received ${taken.received}. An old answer was repeated, ` +
            "or the authority was put back to an older state without its folder.",
        );
    }
  }

  async #announce(session: HostSession, next: IdentityKey): Promise<void> {
    const journal = this.#enrolled();
    const { address, authority, host, pins } = journal;
    const present = readKey(this.#paths.present);
    if (present === undefined) throw this.#notEnrolled();
    await this.#attempt(async () => {
      const { nonce, certificate } = await this.#challenge(journal);
      const key = present.fingerprint;
      const text = rotateKeyText({
        authority,
        host,
        key,
        next: next.fingerprint,
        certificate,
        nonce,
      });
      const body = {
        version: PROTOCOL_VERSION,
        next: next.publicKey,
        nonce,
        certificate,
        signature: present.sign(text),
        next_signature: next.sign(text),
      };
      const { bearer } = session;
      const path = identityPaths.key;
      const answer = await this.#ask({ address, method: "POST", path, body, bearer, pins });
      return parse(rotateKeyAnswerSchema, answer);
    });
  }

  /** A nonce, and the certificate that the server showed when it gave it. */
  async #challenge(to: {
    readonly address: string;
    readonly pins: readonly string[];
    readonly authority: string;
  }): Promise<{ readonly nonce: string; readonly certificate: string }> {
    const { address, pins } = to;
    const path = identityPaths.challenges;
    const answer = await this.#ask({ address, method: "POST", path, body: {}, pins });
    const { nonce, authority } = parse(challengeSchema, answer);
    if (authority !== to.authority) {
      throw new HostRefused(
        "other-authority",
        `Expected authority ${shortFingerprint(to.authority)}, received ` +
          `${shortFingerprint(authority)} at ${address}. Another authority has its address.`,
      );
    }
    return { nonce, certificate: answer.certificate };
  }

  /** Again, when a nonce was too old, or the server has just changed its certificate. */
  async #attempt<Result>(act: () => Promise<Result>): Promise<Result> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await act();
      } catch (error) {
        const isPassing = isRefused(error, "nonce-spent", "certificate-other");
        if (!isPassing || attempt >= MOST_ATTEMPTS) throw error;
      }
    }
  }

  async #ask(request: HttpRequest): Promise<HttpAnswer> {
    const { address, pins } = request;
    const answer = await this.#options.caller.call(request).catch((error: unknown) => {
      if (error instanceof WrongPin && pins !== "any") throw wrongPin(address, pins, error);
      throw error;
    });
    if (answer.status >= 200 && answer.status < 300) return answer;
    throw refusalOf(request, answer);
  }

  #write(journal: HostJournal): void {
    writeHostJournal(this.#paths.journal, journal);
    this.#step("journal-written");
  }

  /**
   * A disk without room keeps no host from speaking: what cannot be kept was not learned, and is
   * not confirmed, so that the authority goes on with what this host trusts.
   * @returns whether it was kept
   */
  #keep(journal: HostJournal): boolean {
    try {
      this.#write(journal);
      return true;
    } catch (error) {
      if (!(error instanceof FileRefused)) throw error;
      this.#options.onTrouble?.(`${error.message} Going on with what was known before.`);
      return false;
    }
  }

  #enrolled(): HostJournal {
    const journal = this.journal();
    if (journal === undefined) throw this.#notEnrolled();
    checkFolder(this.#options.folder);
    return journal;
  }

  #notEnrolled(): HostRefused {
    return new HostRefused(
      "not-enrolled",
      `Expected an enrolled host, received none in ${this.#options.folder}. Make a token at the ` +
        "authority (hostler identity token create HOST), and enrol with it.",
    );
  }

  #step(step: HostStep): void {
    this.#options.onStep?.(step);
  }
}

function readToken(text: string): EnrolmentToken {
  const parsed = parseToken(text);
  if (parsed.kind === "token") return parsed.token;
  throw new HostRefused(
    "bad-token",
    `Expected ${parsed.expected}, received ${parsed.received}. Copy the whole line once more.`,
  );
}

function wrongPin(address: string, pins: readonly string[], cause: WrongPin): HostRefused {
  const expected = pins.map(shortFingerprint).join(" or ");
  return new HostRefused(
    "wrong-pin",
    `Expected the certificate ${expected} at ${address}, received ` +
      `${shortFingerprint(cause.received)}. The token is older than a rotation (make a new one: ` +
      "hostler identity token create), or another server has that address, or somebody stands " +
      "in between.",
    { cause },
  );
}

function isRefused(error: unknown, ...kinds: readonly HostRefusalKind[]): boolean {
  return error instanceof HostRefused && kinds.includes(error.kind);
}

function parse<Output>(schema: v.GenericSchema<unknown, Output>, answer: HttpAnswer): Output {
  const parsed = v.safeParse(schema, answer.body);
  if (parsed.success) return parsed.output;
  throw new HostRefused(
    "bad-answer",
    `The authority's answer cannot be used: ${describeIssues(parsed.issues)}. It may be of ` +
      "another version: upgrade the older of the two.",
  );
}

/** A refusal in our own words: those of a server are told only where we have none. */
function refusalOf(request: HttpRequest, answer: HttpAnswer): HostRefused {
  const parsed = v.safeParse(problemSchema, answer.body);
  const kind = parsed.success ? refusalKindOf(parsed.output.type) : undefined;
  if (kind !== undefined) {
    const { title, mend } = refusals[kind];
    return new HostRefused(kind, `${request.address} refuses: ${title}. ${mend}.`);
  }
  // Of the room that is lacking for the audit log tells the server's own layer, by its status.
  if (answer.status === refusals.full.status) {
    const { title, mend } = refusals.full;
    return new HostRefused("full", `${request.address} refuses: ${title}. ${mend}.`);
  }
  const said = parsed.success ? printable(parsed.output.title) : "something that is no problem";
  return new HostRefused(
    "bad-answer",
    `Expected an answer of ${request.path} at ${request.address}, received status ` +
      `${answer.status}: ${said}. Look into the authority's log.`,
  );
}

/** Nothing that a terminal would obey. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?").slice(0, 200);
}
