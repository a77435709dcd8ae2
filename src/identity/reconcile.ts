import { type AuthorityCore, lasting, type Spending } from "./authority-core.ts";
import { fingerprintsOf, stepHost } from "./lifecycle-host.ts";
import { stepOperator } from "./lifecycle-operator.ts";
import { foundSpent } from "./lifecycle-token.ts";
import type { HostRecord, OperatorRecord, TokenRecord } from "./records.ts";

/**
 * What the ledger knows better than the store, of which an older backup was restored, or which was
 * not written any more before the authority was killed. A record that is right is given back as
 * it is.
 */
export class Reconciler {
  readonly #core: AuthorityCore;

  constructor(core: AuthorityCore) {
    this.#core = core;
  }

  /** A host without a key that counts was revoked, or has been given another key since. */
  readonly host = async (_name: string, record: HostRecord): Promise<HostRecord> => {
    if (record.state.phase === "revoked") return record;
    for (const id of fingerprintsOf(record.state)) {
      if (!(await this.#isSpent({ kind: "host-key", id, ...lasting }))) return record;
    }
    const { state = record.state } = stepHost(record.state, { kind: "revoke" });
    return { ...record, state };
  };

  /** @param issued the revision of the record: of a token that was not used, that of its making */
  readonly token = async (id: string, record: TokenRecord, issued: number) => {
    if (record.state.phase !== "unused") return record;
    if (!(await this.#isSpent({ kind: "enrolment", id, issued }))) return record;
    return { ...record, state: foundSpent };
  };

  readonly operator = async (id: string, record: OperatorRecord): Promise<OperatorRecord> => {
    if (record.state.phase === "revoked") return record;
    if (!(await this.#isSpent({ kind: "operator", id, ...lasting }))) return record;
    const { state = record.state } = stepOperator(
      record.state,
      { kind: "revoke" },
      this.#core.now(),
    );
    return { ...record, state };
  };

  async #isSpent(what: Spending): Promise<boolean> {
    return await this.#core.options.ledger.isSpent(what);
  }
}
