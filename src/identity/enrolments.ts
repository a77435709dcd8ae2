import type { Milliseconds } from "../units/units.ts";
import type { AuthorityCore } from "./authority-core.ts";
import type { Certificates } from "./certificates.ts";
import type { Hosts } from "./hosts.ts";
import { isExpired, mayRevoke, stepToken } from "./lifecycle-token.ts";
import {
  type EnrolAnswer,
  type EnrolRequest,
  enrolText,
  limits,
  PROTOCOL_VERSION,
} from "./protocol.ts";
import { formatToken } from "./protocol-token.ts";
import type { RecordBook } from "./record-book.ts";
import type { TokenRecord } from "./records.ts";
import { IdentityRefusal } from "./refusal.ts";
import { fingerprintOf, hashOf, isSameHash, newSecret } from "./secrets.ts";

export interface TokenView {
  readonly id: string;
  readonly host: string;
  readonly replace: boolean;
  readonly phase: "unused" | "used" | "spent-before" | "revoked" | "expired";
  readonly by: string;
  /** Milliseconds since 1970 by the authority's clock. */
  readonly made: number;
  readonly lifetime: Milliseconds;
  /** Other keys than the one that used it have it. */
  readonly stolen: boolean;
}

/** Tokens that let a host in once. */
export class Enrolments {
  readonly #core: AuthorityCore;
  readonly #tokens: RecordBook<TokenRecord>;
  readonly #hosts: Hosts;
  readonly #certificates: Certificates;

  constructor(
    core: AuthorityCore,
    parts: { tokens: RecordBook<TokenRecord>; hosts: Hosts; certificates: Certificates },
  ) {
    this.#core = core;
    this.#tokens = parts.tokens;
    this.#hosts = parts.hosts;
    this.#certificates = parts.certificates;
  }

  list(): readonly TokenView[] {
    return this.#tokens.entries().map(([id, record]) => this.#view(id, record));
  }

  /** @returns the text for the host: told once, and kept nowhere */
  async create(request: {
    readonly host: string;
    readonly lifetime: Milliseconds;
    readonly replace: boolean;
    readonly by: string;
  }): Promise<{ readonly token: TokenView; readonly text: string }> {
    const { host, lifetime, replace, by } = request;
    return this.#core.inTurn(async () => {
      if (!replace && this.#hosts.isLive(host)) {
        throw new IdentityRefusal("name-taken", {
          expected: "the name of a host that is not enrolled",
          received: host,
        });
      }
      await this.#makeRoom();
      const id = Buffer.from(this.#core.options.random(10)).toString("hex");
      const secret = newSecret(this.#core.options.random);
      const record: TokenRecord = {
        version: 1,
        state: { phase: "unused" },
        hash: hashOf(secret),
        host,
        replace,
        made: this.#core.now(),
        lifetime,
        by,
      };
      await this.#tokens.change(id, () => ({ record, result: undefined }));
      this.#core.events.add({ kind: "token-created", token: id, host });
      const text = formatToken({
        address: this.#core.options.address,
        pins: this.#certificates.pins,
        authority: this.#core.key.fingerprint,
        id,
        secret,
      });
      return { token: this.#view(id, record), text };
    });
  }

  async revoke(id: string): Promise<TokenView> {
    return this.#core.inTurn(() => this.#revoke(id));
  }

  /** Revokes what could still let somebody in under this name. Called in turn. */
  async revokeOf(host: string): Promise<void> {
    for (const [id, record] of this.#tokens.entries()) {
      if (record.host === host && mayRevoke(record.state)) await this.#revoke(id);
    }
  }

  async #revoke(id: string): Promise<TokenView> {
    const record = await this.#tokens.change(id, (present) => {
      if (present === undefined) throw this.#unknown(id);
      const context = { made: present.made, lifetime: present.lifetime, now: this.#core.now() };
      const step = stepToken(present.state, { kind: "revoke" }, context);
      if (step.refused !== undefined) {
        throw new IdentityRefusal(step.refused, {
          expected: "a token that was not used",
          received: `one that is ${present.state.phase}`,
          mend: "See the state: hostler identity token list. Of a used one, revoke the host",
        });
      }
      const next = { ...present, state: step.state };
      // An older backup has it as one that nobody revoked: the ledger says that it is spent.
      const issued = this.#tokens.revisionOf(id);
      const before = async () => {
        await this.#core.options.ledger.spend({ kind: "enrolment", id, issued });
      };
      return { record: next, result: next, before };
    });
    this.#core.events.add({ kind: "token-revoked", token: id, host: record.host });
    return this.#view(id, record);
  }

  /**
   * Lets a host in. Killed between two of its steps, or asked once more by the same key, it goes
   * on where it was: the token is bound to the key first, and everything after that is the same
   * when it is done twice.
   */
  async use(request: EnrolRequest, from: string): Promise<EnrolAnswer> {
    const key = { fingerprint: fingerprintOf(request.key), key: request.key };
    const authority = this.#core.key.fingerprint;
    const text = enrolText({ ...request, authority, key: key.fingerprint });
    const { nonce, certificate, signature } = request;
    const signatures = [{ text, signature, spki: request.key }];
    this.#core.checkProof({ nonce, certificate, signatures });
    return this.#core.inTurn(async () => {
      const token = await this.#bind(request, { key: key.fingerprint, from });
      this.#core.step("token-used");
      const issued = this.#tokens.revisionOf(request.token);
      await this.#core.options.ledger.spend({ kind: "enrolment", id: request.token, issued });
      this.#core.step("token-spent");
      const { host, replace } = token;
      await this.#hosts.enrol({ host, key, replace, token: request.token, certificate });
      this.#core.step("host-enrolled");
      return {
        version: PROTOCOL_VERSION,
        host,
        authority_key: this.#core.key.publicKey,
        statement: this.#certificates.statement(),
      };
    });
  }

  async #bind(
    request: EnrolRequest,
    by: { readonly key: string; readonly from: string },
  ): Promise<TokenRecord> {
    const id = request.token;
    // Of a token that was not used, the revision of its record is that of its making.
    const issued = this.#tokens.revisionOf(id);
    const spent = await this.#core.options.ledger.isSpent({ kind: "enrolment", id, issued });
    const { record, step } = await this.#tokens.change(id, (present) => {
      // A wrong secret is told nothing that an unknown id is not told.
      const isRight = isSameHash(present?.hash ?? hashOf(""), hashOf(request.secret));
      if (present === undefined || !isRight) throw this.#unknown("another one");
      // Before the token is bound to a key that could not be enrolled, by a mistake of a person.
      const held = present.state.phase === "unused" && !spent;
      if (held) this.#hosts.checkEnrol({ ...by, host: present.host, replace: present.replace });
      const terms = { made: present.made, lifetime: present.lifetime, now: this.#core.now() };
      const taken = stepToken(present.state, { kind: "use", key: by.key, spent }, terms);
      const next = { ...present, state: taken.state };
      const isSame = taken.state === present.state;
      return { record: isSame ? "same" : next, result: { record: next, step: taken } };
    });
    if (step.stolen === true) {
      const { key, from } = by;
      this.#core.events.add({ kind: "token-stolen", token: id, host: record.host, key, from });
    }
    if (step.refused === undefined) return record;
    throw new IdentityRefusal(step.refused, {
      expected: "a token that is good, or the key that used it",
      received: step.refused === "token-used" ? "another key" : `one that is ${record.state.phase}`,
    });
  }

  /** Forgets the oldest that are over; the ledger remembers what was used. */
  async #makeRoom(): Promise<void> {
    if (this.#tokens.size < limits.tokens) return;
    const now = this.#core.now();
    const oldest = this.#tokens
      .entries()
      .filter(([, record]) => record.state.phase !== "unused" || isExpired(record, now))
      .toSorted(([, left], [, right]) => left.made.wall - right.made.wall)[0];
    if (oldest === undefined) {
      throw new IdentityRefusal("too-many", {
        expected: `at most ${limits.tokens} tokens that wait for their use`,
        received: "one more",
      });
    }
    await this.#tokens.change(oldest[0], () => ({ record: "gone", result: undefined }));
  }

  #view(id: string, record: TokenRecord): TokenView {
    const { state, host, replace, by, made, lifetime } = record;
    const isOver = state.phase === "unused" && isExpired({ made, lifetime }, this.#core.now());
    const stolen = "suspects" in state && state.suspects.length > 0;
    const phase = isOver ? "expired" : state.phase;
    return { id, host, replace, phase, by, made: made.wall, lifetime, stolen };
  }

  #unknown(received: string): IdentityRefusal {
    return new IdentityRefusal("token-unknown", {
      expected: "an enrolment token of this authority",
      received,
    });
  }
}
