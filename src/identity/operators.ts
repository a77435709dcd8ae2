import type { Principal } from "../http/principal.ts";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import { type AuthorityCore, lasting, type Spending } from "./authority-core.ts";
import {
  goodTokens,
  type OperatorEvent,
  type OperatorRights,
  type OperatorState,
  stepOperator,
} from "./lifecycle-operator.ts";
import { limits } from "./protocol.ts";
import type { RecordBook } from "./record-book.ts";
import type { OperatorRecord } from "./records.ts";
import { IdentityRefusal } from "./refusal.ts";
import { hashOf, isSameHash, newSecret } from "./secrets.ts";

export const OPERATOR_PREFIX = "hostler-operator-";

export interface OperatorView extends OperatorRights {
  readonly name: string;
  readonly phase: OperatorState["phase"];
  /** How many tokens are good now: 2 while one overlaps with the other. */
  readonly tokens: number;
  readonly by: string;
  readonly added_at: number;
}

type OperatorSpending = Pick<Spending, "id"> & { readonly kind: "operator-token" | "operator" };

interface Indexed {
  readonly name: string;
  readonly ending: AbortController;
}

/** Operators: names, what they may do, and whose token it is. */
export class Operators {
  readonly #core: AuthorityCore;
  readonly #records: RecordBook<OperatorRecord>;
  /** By the hash of a token that is good, or was until its overlap ended. */
  readonly #byHash = new Map<string, Indexed>();

  constructor(core: AuthorityCore, records: RecordBook<OperatorRecord>) {
    this.#core = core;
    this.#records = records;
  }

  /** Looks who is there already. */
  async load(): Promise<void> {
    for (const [name, record] of this.#records.entries()) await this.onRecord(name, record);
  }

  /** A record has changed, here or elsewhere: what a token opened that is not good ends. */
  async onRecord(name: string, record: OperatorRecord | undefined): Promise<void> {
    const good = record === undefined ? [] : goodTokens(record.state, this.#core.now());
    for (const [hash, indexed] of [...this.#byHash]) {
      if (indexed.name === name && !good.includes(hash)) this.#drop(hash);
    }
    for (const hash of good) {
      // An older backup brings back what was replaced or revoked since.
      if (this.#byHash.has(hash) || (await this.#isSpent({ kind: "operator-token", id: hash }))) {
        continue;
      }
      // It may have changed once more meanwhile.
      const present = this.#records.get(name);
      if (present === undefined) continue;
      if (!goodTokens(present.state, this.#core.now()).includes(hash)) continue;
      this.#byHash.set(hash, { name, ending: new AbortController() });
    }
  }

  async #isSpent(what: OperatorSpending): Promise<boolean> {
    return await this.#core.options.ledger.isSpent({ ...what, ...lasting });
  }

  async #spend(what: OperatorSpending): Promise<void> {
    await this.#core.options.ledger.spend({ ...what, ...lasting });
  }

  /** Whose token this is, and the signal that ends what is done with it. */
  admit(
    bearer: string,
  ): { readonly principal: Principal; readonly signal: AbortSignal } | undefined {
    const hash = hashOf(bearer);
    const indexed = this.#byHash.get(hash);
    if (indexed === undefined) return undefined;
    const state = this.#records.get(indexed.name)?.state;
    const good = state === undefined ? [] : goodTokens(state, this.#core.now());
    if (state === undefined || !good.some((token) => isSameHash(token, hash))) {
      this.#drop(hash);
      return undefined;
    }
    const { name, ending } = indexed;
    const { role, special } = state;
    return { principal: { kind: "operator", name, role, special }, signal: ending.signal };
  }

  list(): readonly OperatorView[] {
    return this.#records.entries().map(([name, record]) => this.#view(name, record));
  }

  show(name: string): OperatorView {
    const record = this.#records.get(name);
    if (record === undefined) throw this.#unknown(name);
    return this.#view(name, record);
  }

  /** @returns its token: told once, and kept nowhere */
  async add(
    by: Principal,
    operator: OperatorRights & { readonly name: string; readonly words: string },
  ): Promise<{ readonly operator: OperatorView; readonly token: string }> {
    const { name, role, special, words } = operator;
    requireRights(by, special);
    return this.#core.inTurn(async () => {
      const isNew = this.#records.get(name) === undefined;
      // An older backup does not know who was made and revoked since.
      if (isNew && (await this.#isSpent({ kind: "operator", id: name }))) {
        throw this.#taken(name, "revoked");
      }
      if (isNew && this.#records.size >= limits.operators) {
        throw new IdentityRefusal("too-many", {
          expected: `at most ${limits.operators} operators`,
          received: "one more",
        });
      }
      const token = this.#newToken();
      const rights = { role, special: [...new Set(special)].toSorted() };
      await this.#step(name, { kind: "add", token: hashOf(token), rights }, words);
      this.#core.events.add({ kind: "operator-added", operator: name });
      return { operator: this.show(name), token };
    });
  }

  /** @param overlap for which the old token is good beside the new one */
  async rotate(
    by: Principal,
    rotation: { readonly name: string; readonly overlap: Milliseconds },
  ): Promise<{ readonly operator: OperatorView; readonly token: string }> {
    const { name, overlap } = rotation;
    const isOwn = by.kind === "operator" && by.name === name;
    return this.#core.inTurn(async () => {
      // Who gets the token can do what it allows.
      if (!isOwn) requireRights(by, this.show(name).special);
      const token = this.#newToken();
      await this.#step(name, { kind: "rotate", token: hashOf(token), overlap });
      this.#core.events.add({ kind: "operator-rotated", operator: name });
      return { operator: this.show(name), token };
    });
  }

  async revoke(name: string): Promise<OperatorView> {
    return this.#core.inTurn(async () => {
      await this.#step(name, { kind: "revoke" });
      this.#core.events.add({ kind: "operator-revoked", operator: name });
      return this.show(name);
    });
  }

  /** Ends what was done with tokens whose overlap is over. @returns when to call it again */
  passTime(): MonotonicTime | undefined {
    const now = this.#core.now();
    let next: MonotonicTime | undefined;
    for (const [hash, { name }] of [...this.#byHash]) {
      const state = this.#records.get(name)?.state;
      if (state?.phase !== "active" || !goodTokens(state, now).includes(hash)) this.#drop(hash);
      else if (state.old?.hash === hash) {
        // The wall clock can only bring the end nearer; it is looked at again by then.
        const left = state.old.overlap - Math.max(0, now.wall - state.old.since.wall);
        next = Math.min(next ?? Number.POSITIVE_INFINITY, now.monotonic + Math.max(1, left));
      }
    }
    return next;
  }

  async #step(name: string, event: OperatorEvent, words = ""): Promise<void> {
    await this.#records.change(name, (present) => {
      const step = stepOperator(present?.state, event, this.#core.now());
      if (step.refused !== undefined) throw this.#refusal(name, step.refused, present);
      // Before the record: killed in between, a token is refused too early, and never too late.
      const before = async () => {
        for (const hash of step.spent) {
          await this.#spend({ kind: "operator-token", id: hash });
          this.#drop(hash);
        }
        if (event.kind === "revoke") await this.#spend({ kind: "operator", id: name });
        if (step.spent.length > 0) this.#core.step("operator-tokens-spent");
      };
      const { state } = step;
      if (state === undefined || state === present?.state) {
        return { record: "same", result: undefined, before };
      }
      const added = present?.added_at ?? this.#core.options.clock.wall();
      const record: OperatorRecord = {
        version: 1,
        state,
        added_at: added,
        by: present?.by ?? words,
      };
      return { record, result: undefined, before };
    });
    this.#core.step("operator-stored");
  }

  #drop(hash: string): void {
    const indexed = this.#byHash.get(hash);
    this.#byHash.delete(hash);
    indexed?.ending.abort(new Error(`The token of operator ${indexed.name} is not good any more`));
  }

  #newToken(): string {
    return `${OPERATOR_PREFIX}${newSecret(this.#core.options.random)}`;
  }

  #view(name: string, { state, by, added_at }: OperatorRecord): OperatorView {
    const { phase, role, special } = state;
    // Of an older backup's record the ledger can know that its token was replaced since.
    const good = goodTokens(state, this.#core.now()).filter((hash) => this.#byHash.has(hash));
    const tokens = good.length;
    return { name, phase, role, special: [...special], tokens, by, added_at };
  }

  #refusal(
    name: string,
    kind: NonNullable<ReturnType<typeof stepOperator>["refused"]>,
    present: OperatorRecord | undefined,
  ): IdentityRefusal {
    if (kind === "not-found") return this.#unknown(name);
    const phase = present?.state.phase ?? "unknown";
    if (kind === "name-taken") return this.#taken(name, phase);
    const expected = "an active operator";
    const mend = "See who is active: hostler identity operator list. A revoked name stays so";
    return new IdentityRefusal(kind, { expected, received: `${name}, who is ${phase}`, mend });
  }

  #taken(name: string, phase: string): IdentityRefusal {
    const expected = "a name that nobody has had";
    const received = `${name}, who is ${phase}`;
    const mend = "Take another name; see those in use: hostler identity operator list";
    return new IdentityRefusal("name-taken", { expected, received, mend });
  }

  #unknown(name: string): IdentityRefusal {
    return new IdentityRefusal("not-found", { expected: "an operator", received: name });
  }
}

/** Nobody gives what they do not have. @throws IdentityRefusal */
function requireRights(by: Principal, special: readonly string[]): void {
  const own: readonly string[] = by.kind === "operator" ? by.special : [];
  const lacking = by.kind === "local" ? [] : special.filter((right) => !own.includes(right));
  if (lacking.length === 0) return;
  throw new IdentityRefusal("not-allowed", {
    expected: `who has the permission ${lacking.join(", ")}`,
    received: by.kind === "operator" ? `operator ${by.name}` : by.kind,
  });
}
