import { type AuthorityCore, lasting } from "./authority-core.ts";
import type { Certificates } from "./certificates.ts";
import {
  type Clone,
  fingerprintsOf,
  type HostEffect,
  type HostEvent,
  type HostKey,
  type HostState,
  type SessionEnd,
  stepHost,
} from "./lifecycle-host.ts";
import type { SessionFacts } from "./lifecycle-session.ts";
import {
  limits,
  PROTOCOL_VERSION,
  type RotateKeyRequest,
  rotateKeyText,
  type SessionAnswer,
  type SessionRequest,
  sessionText,
} from "./protocol.ts";
import type { RecordBook } from "./record-book.ts";
import type { HostRecord } from "./records.ts";
import { IdentityRefusal } from "./refusal.ts";
import { fingerprintOf, hashOf, newSecret } from "./secrets.ts";
import type { Sessions } from "./sessions.ts";

/** Why sessions of a key end that a live host does not have: no boot is noted of a new host. */
function reasonOfOtherKey(state: HostState): SessionEnd {
  return state.boots.length === 0 ? "replaced" : "key-rotated";
}

export interface HostView {
  readonly name: string;
  readonly phase: HostState["phase"];
  /** The keys that open sessions; of a revoked host those that never do again. */
  readonly keys: readonly string[];
  readonly clones: readonly Clone[];
  readonly boot: string | null;
  readonly sessions: number;
  /** Whether it trusts the certificate that is announced, or the one that is shown. */
  readonly confirmed: boolean;
  readonly enrolled_at: number;
}

/** Hosts: who they are, by which keys, and what becomes of their sessions. */
export class Hosts {
  readonly #core: AuthorityCore;
  readonly #records: RecordBook<HostRecord>;
  readonly #sessions: Sessions;
  readonly #certificates: Certificates;
  /** Which host a key is, of revoked ones too: two hosts never have the same. */
  readonly #byKey = new Map<string, string>();
  /** The same the other way round, so that a change looks at one host alone. */
  readonly #keysOf = new Map<string, readonly string[]>();

  constructor(
    core: AuthorityCore,
    parts: { hosts: RecordBook<HostRecord>; sessions: Sessions; certificates: Certificates },
  ) {
    this.#core = core;
    this.#records = parts.hosts;
    this.#sessions = parts.sessions;
    this.#certificates = parts.certificates;
    for (const [name, record] of parts.hosts.entries()) this.onRecord(name, record);
  }

  /** A record has changed, here or elsewhere: sessions of keys that it does not have end. */
  onRecord(name: string, record: HostRecord | undefined): void {
    const keys = record === undefined ? [] : fingerprintsOf(record.state);
    for (const key of this.#keysOf.get(name) ?? []) this.#byKey.delete(key);
    for (const key of keys) this.#byKey.set(key, name);
    if (keys.length === 0) this.#keysOf.delete(name);
    else this.#keysOf.set(name, keys);
    const isLive = record !== undefined && record.state.phase !== "revoked";
    const good = isLive ? keys : [];
    const reason = isLive ? reasonOfOtherKey(record.state) : "revoked";
    this.#sessions.end(name, ({ key }) => !good.includes(key), reason);
  }

  list(): readonly HostView[] {
    return this.#records.entries().map(([name, record]) => this.#view(name, record));
  }

  show(name: string): HostView {
    const record = this.#records.get(name);
    if (record === undefined) throw this.#unknown(name);
    return this.#view(name, record);
  }

  isLive(name: string): boolean {
    const record = this.#records.get(name);
    return record !== undefined && record.state.phase !== "revoked";
  }

  /** It never opens a session again; one that was removed since is not known as such. */
  isRevoked(name: string): boolean {
    return this.#records.get(name)?.state.phase === "revoked";
  }

  /** Hosts that have not said that they trust the certificate that is announced. */
  unconfirmed(): readonly string[] {
    const pin = this.#certificates.announced ?? this.#certificates.served.pin;
    return this.#records
      .entries()
      .filter(([, { state }]) => state.phase !== "revoked" && !state.pins.includes(pin))
      .map(([name]) => name);
  }

  /** Why a key cannot be enrolled under a name. @throws IdentityRefusal */
  checkEnrol(request: {
    readonly host: string;
    readonly key: string;
    readonly replace: boolean;
  }): void {
    const { host, key, replace } = request;
    const other = this.#byKey.get(key);
    if (other !== undefined && other !== host) {
      throw new IdentityRefusal("key-taken", {
        expected: `a key that no host has, for ${host}`,
        received: "the key of another host",
      });
    }
    const record = this.#records.get(host);
    if (record === undefined && this.#records.size >= limits.hosts) {
      throw new IdentityRefusal("too-many", {
        expected: `at most ${limits.hosts} hosts, revoked ones included`,
        received: "one more; revoked ones can be removed",
      });
    }
    const tried: HostKey = { fingerprint: key, key: "" };
    const step = stepHost(record?.state, { kind: "enrol", key: tried, replace, pins: [] });
    if (step.refused !== undefined) throw this.#refusal(host, step.refused);
  }

  /** A token let this key in under this name. Called in turn. */
  async enrol(request: {
    readonly host: string;
    readonly key: HostKey;
    readonly replace: boolean;
    readonly token: string;
    /** The certificate that it saw, and signed. */
    readonly certificate: string;
  }): Promise<void> {
    const { host, key, replace, token, certificate } = request;
    this.checkEnrol({ host, key: key.fingerprint, replace });
    await this.#refuseSpent(host, key.fingerprint);
    const enrolledAt = this.#core.options.clock.wall();
    const event = { kind: "enrol", key, replace, pins: [certificate] } as const;
    await this.#step(host, event, { token, enrolled_at: enrolledAt });
  }

  /** Opens a session for who signs, now, with the key of this host. */
  async openSession(request: SessionRequest, from: string): Promise<SessionAnswer> {
    const { host, boot, nonce, certificate, signature } = request;
    this.#core.checkNonce(nonce);
    const key = this.#keyOf(request);
    const text = sessionText({ ...request, authority: this.#core.key.fingerprint });
    this.#core.checkSignatures({ certificate, signatures: [{ text, signature, spki: key.key }] });
    await this.#refuseSpent(host, key.fingerprint);
    // Who answers says nothing of a boot that is known, and a ping can last ten seconds.
    const isKnown = this.#records.get(host)?.state.boots.includes(boot) === true;
    const answering = isKnown ? [] : await this.#sessions.answering(host, boot);
    return this.#core.inTurnOf(host, async () => {
      const { key: by, pins } = request;
      await this.#step(host, { kind: "session", key: by, boot, pins, answering });
      const bearer = `hostler-session-${newSecret(this.#core.options.random)}`;
      const session = this.#core.newId();
      const opened = this.#core.options.clock.monotonic();
      this.#sessions.open(hashOf(bearer), { id: session, host, key: by, boot, from, opened });
      return {
        version: PROTOCOL_VERSION,
        bearer,
        session,
        lifetime: limits.sessionLifetime,
        idle: limits.sessionIdle,
        statement: this.#certificates.statement(),
      };
    });
  }

  /** A host, in its session, wants another key; both have signed that. */
  async rotateKey(
    session: SessionFacts,
    request: RotateKeyRequest,
  ): Promise<{ readonly key: string; readonly next: string }> {
    const { host } = session;
    const next: HostKey = { fingerprint: fingerprintOf(request.next), key: request.next };
    const { nonce, certificate } = request;
    this.#core.checkNonce(nonce);
    const present = this.#keyOf({ host, key: session.key });
    const authority = this.#core.key.fingerprint;
    const key = present.fingerprint;
    const text = rotateKeyText({
      authority,
      host,
      key,
      next: next.fingerprint,
      certificate,
      nonce,
    });
    const signatures = [
      { text, signature: request.signature, spki: present.key },
      { text, signature: request.next_signature, spki: next.key },
    ];
    this.#core.checkSignatures({ certificate, signatures });
    return this.#core.inTurn(async () => {
      const other = this.#byKey.get(next.fingerprint);
      if (other !== undefined && other !== host) {
        throw new IdentityRefusal("key-taken", {
          expected: "a key that no host has",
          received: "the key of another host",
        });
      }
      await this.#refuseSpent(host, next.fingerprint);
      await this.#step(host, { kind: "rotate", by: key, next });
      return { key, next: next.fingerprint };
    });
  }

  /** The host says which certificates it trusts by now. @returns those of before */
  async confirm(host: string, pins: readonly string[]): Promise<readonly string[]> {
    return this.#core.inTurnOf(host, async () => {
      const before = this.#records.get(host)?.state.pins ?? [];
      await this.#step(host, { kind: "confirm", pins });
      return before;
    });
  }

  /** Called in turn. @returns before and after, for the audit log */
  async revoke(host: string): Promise<HostView> {
    await this.#step(host, { kind: "revoke" });
    return this.show(host);
  }

  async acknowledge(host: string): Promise<HostView> {
    return this.#core.inTurn(async () => {
      await this.#step(host, { kind: "acknowledge" });
      this.#core.events.add({ kind: "host-acknowledged", host });
      return this.show(host);
    });
  }

  /** Forgets a revoked host; the ledger remembers its keys. */
  async remove(host: string): Promise<void> {
    await this.#core.inTurn(async () => {
      await this.#records.change(host, (present) => {
        if (present === undefined) throw this.#unknown(host);
        if (present.state.phase !== "revoked") {
          throw new IdentityRefusal("wrong-state", {
            expected: "a revoked host",
            received: `one that is ${present.state.phase}`,
            mend: `Revoke it first: hostler identity host revoke ${host}`,
          });
        }
        return { record: "gone", result: undefined };
      });
      this.#core.events.add({ kind: "host-removed", host });
    });
  }

  /** A session of an older boot was used after a newer one had opened its own. */
  async spoke(facts: SessionFacts): Promise<void> {
    const { host, boot } = facts;
    await this.#core.inTurnOf(host, () => this.#step(host, { kind: "spoke", boot }));
  }

  /** Decides, stores what was decided, and performs it. */
  async #step(
    host: string,
    event: HostEvent,
    facts?: Pick<HostRecord, "token" | "enrolled_at">,
  ): Promise<void> {
    const effects = await this.#records.change(host, (present) => {
      const step = stepHost(present?.state, event);
      if (step.refused !== undefined) throw this.#refusal(host, step.refused);
      const spent = step.effects.flatMap((effect) => {
        return effect.kind === "spend-key" ? [effect.key] : [];
      });
      // Before the record: killed in between, a key is refused too early, and never too late.
      const before = async () => {
        for (const id of spent) {
          await this.#core.options.ledger.spend({ kind: "host-key", id, ...lasting });
        }
        if (spent.length > 0) this.#core.step("keys-spent");
      };
      const { state } = step;
      const isSame = JSON.stringify(state) === JSON.stringify(present?.state);
      if (state === undefined || isSame) return { record: "same", result: step.effects, before };
      const { token = "", enrolled_at = 0 } = facts ?? present ?? {};
      const record: HostRecord = { version: 1, state, token, enrolled_at };
      return { record, result: step.effects, before };
    });
    this.#core.step("host-stored");
    const key = event.kind === "enrol" ? event.key.fingerprint : "";
    const next = event.kind === "rotate" ? event.next.fingerprint : key;
    for (const effect of effects) {
      this.#perform(host, effect, event.kind === "session" ? event.key : next);
    }
  }

  #perform(host: string, effect: HostEffect, key: string): void {
    const sessions = this.#sessions;
    switch (effect.kind) {
      case "end-all":
        sessions.end(host, () => true, effect.reason);
        break;
      case "end-key":
        sessions.end(host, (facts) => facts.key === effect.key, effect.reason);
        break;
      case "end-boots-but":
        sessions.end(host, ({ boot }) => boot !== effect.boot, effect.reason);
        break;
      case "supersede":
        sessions.supersede(host, ({ boot }) => {
          return boot !== effect.boot && !effect.spare.includes(boot);
        });
        break;
      case "tell-clone":
        this.#core.events.add({ kind: "host-clone", host, ...effect.clone });
        break;
      case "tell":
        if (effect.what === "revoked") this.#core.events.add({ kind: "host-revoked", host });
        else this.#core.events.add({ kind: `host-${effect.what}`, host, key });
        break;
      case "spend-key":
        // Done before the record was written.
        break;
    }
  }

  #keyOf({ host, key }: { readonly host: string; readonly key: string }): HostKey {
    const state = this.#records.get(host)?.state;
    if (state?.phase === "revoked" && state.fingerprints.includes(key)) {
      throw this.#refusal(host, "host-revoked");
    }
    if (state?.phase === "enrolled" && state.key.fingerprint === key) return state.key;
    if (state?.phase === "rotating") {
      if (state.key.fingerprint === key) return state.key;
      if (state.next.fingerprint === key) return state.next;
    }
    throw this.#refusal(host, "key-unknown");
  }

  /** A key that was given up or revoked never counts again, also where the store says it does. */
  async #refuseSpent(host: string, key: string): Promise<void> {
    const what = { kind: "host-key", id: key, ...lasting } as const;
    if (await this.#core.options.ledger.isSpent(what)) throw this.#refusal(host, "key-revoked");
  }

  #view(name: string, { state, enrolled_at }: HostRecord): HostView {
    const pin = this.#certificates.announced ?? this.#certificates.served.pin;
    return {
      name,
      phase: state.phase,
      keys: [...fingerprintsOf(state)],
      clones: [...state.clones],
      boot: state.boots.at(-1) ?? null,
      sessions: this.#sessions.of(name).length,
      confirmed: state.pins.includes(pin),
      enrolled_at,
    };
  }

  #unknown(name: string): IdentityRefusal {
    return new IdentityRefusal("not-found", { expected: "an enrolled host", received: name });
  }

  #refusal(host: string, kind: NonNullable<ReturnType<typeof stepHost>["refused"]>) {
    const expected = kind === "name-taken" ? "a name that is free" : `a good key of ${host}`;
    const received = kind === "name-taken" ? host : "one that is not";
    return kind === "not-found"
      ? this.#unknown(host)
      : new IdentityRefusal(kind, { expected, received });
  }
}
