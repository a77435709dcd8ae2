import type { Principal } from "../http/principal.ts";
import type { Route, StreamRoute } from "../http/route.ts";
import type { MonotonicTime } from "../units/units.ts";
import { AuthorityCore, type AuthorityOptions } from "./authority-core.ts";
import { openAuthorityKey } from "./authority-key.ts";
import type { ServerCertificate } from "./certificate.ts";
import { Certificates } from "./certificates.ts";
import { Enrolments } from "./enrolments.ts";
import type { IdentityEvent } from "./event-book.ts";
import { Hosts } from "./hosts.ts";
import type { SessionFacts } from "./lifecycle-session.ts";
import { OPERATOR_PREFIX, Operators } from "./operators.ts";
import { Reconciler } from "./reconcile.ts";
import { RecordBook, type RecordBookOptions } from "./record-book.ts";
import {
  type HostRecord,
  hostRecordSchema,
  hostsBucket,
  operatorRecordSchema,
  operatorsBucket,
  pinsBucket,
  pinsRecordSchema,
  tokenRecordSchema,
  tokensBucket,
} from "./records.ts";
import { IdentityRefusal } from "./refusal.ts";
import { identityRoutes, identityStreams } from "./routes.ts";
import { hashOf } from "./secrets.ts";
import { Sessions } from "./sessions.ts";

const SESSION_PREFIX = "hostler-session-";

/** Who calls, and the signal that ends what they do when they may not any more. */
export interface Admitted {
  readonly principal: Principal;
  readonly signal: AbortSignal;
}

/**
 * Says who speaks: hosts by their keys, operators by their tokens. Everything it decides is
 * decided in `lifecycle-*.ts`, and stands in the store before it is told.
 */
export class Authority implements AsyncDisposable {
  readonly core: AuthorityCore;
  readonly hosts: Hosts;
  readonly enrolments: Enrolments;
  readonly operators: Operators;
  readonly certificates: Certificates;
  readonly sessions: Sessions;
  /** To be served over HTTPS and over the control socket. */
  readonly routes: readonly Route[];
  readonly streams: readonly StreamRoute[];
  readonly #closing: AbortController;
  readonly #books: readonly { closed(): Promise<void> }[];
  /** Reports of clones that are being written. */
  readonly #reports = new Set<Promise<void>>();

  private constructor(parts: {
    readonly core: AuthorityCore;
    readonly hosts: Hosts;
    readonly enrolments: Enrolments;
    readonly operators: Operators;
    readonly certificates: Certificates;
    readonly sessions: Sessions;
    readonly closing: AbortController;
    readonly books: readonly { closed(): Promise<void> }[];
  }) {
    this.core = parts.core;
    this.hosts = parts.hosts;
    this.enrolments = parts.enrolments;
    this.operators = parts.operators;
    this.certificates = parts.certificates;
    this.sessions = parts.sessions;
    this.#closing = parts.closing;
    this.#books = parts.books;
    this.routes = identityRoutes(this);
    this.streams = identityStreams(this);
  }

  /**
   * Makes the authority's key and its first certificate when there is none, and returns when all
   * records are here.
   * @throws FileRefused for a key or a file that cannot count; StoreError; IdentityRefusal
   */
  static async open(options: AuthorityOptions): Promise<Authority> {
    const core = new AuthorityCore(options, await openAuthorityKey(options));
    const closing = new AbortController();
    const base = { store: options.store, signal: closing.signal, ...bookWords(core) };
    const sessions = new Sessions(core);
    const reconciler = new Reconciler(core);
    try {
      // What follows the records comes to be after them; until then there is nothing to end.
      let onHost = (_name: string, _record: HostRecord | undefined) => {};
      const hostRecords = await RecordBook.open({
        ...base,
        bucket: hostsBucket.name,
        schema: hostRecordSchema,
        reconcile: reconciler.host,
        onChange: (name: string, record: HostRecord | undefined) => onHost(name, record),
      });
      const tokens = await RecordBook.open({
        ...base,
        bucket: tokensBucket.name,
        schema: tokenRecordSchema,
        reconcile: reconciler.token,
        onChange: () => {},
      });
      const pins = await RecordBook.open({
        ...base,
        bucket: pinsBucket.name,
        schema: pinsRecordSchema,
        onChange: () => {},
      });
      let operators: Operators | undefined;
      const operatorRecords = await RecordBook.open({
        ...base,
        bucket: operatorsBucket.name,
        schema: operatorRecordSchema,
        reconcile: reconciler.operator,
        onChange: (name, record) => operators?.onRecord(name, record),
      });
      operators = new Operators(core, operatorRecords);
      await operators.load();
      const certificates = await Certificates.open(core, pins);
      const hosts = new Hosts(core, { hosts: hostRecords, sessions, certificates });
      onHost = (name, record) => hosts.onRecord(name, record);
      const enrolments = new Enrolments(core, { tokens, hosts, certificates });
      const books = [hostRecords, tokens, pins, operatorRecords];
      await writePutRight(core, { hosts: hostRecords, tokens, operators: operatorRecords });
      const parts = { core, hosts, enrolments, operators, certificates, sessions };
      return new Authority({ ...parts, closing, books });
    } catch (error) {
      closing.abort();
      throw error;
    }
  }

  /** The authority's id: the fingerprint of its own key. */
  get id(): string {
    return this.core.key.fingerprint;
  }

  /** Who has this token; undefined when nobody has. A session counts as used by it. */
  authenticate(bearer: string): Principal | undefined {
    return this.admit(bearer)?.principal;
  }

  /** As `authenticate`, with the signal that ends what is done in this name. */
  admit(bearer: string): Admitted | undefined {
    if (bearer.startsWith(OPERATOR_PREFIX)) return this.operators.admit(bearer);
    if (!bearer.startsWith(SESSION_PREFIX)) return undefined;
    const use = this.sessions.use(hashOf(bearer));
    if (use.kind === "clone") this.#report(use.facts);
    if (use.kind !== "admitted") return undefined;
    const { host, id } = use.facts;
    const principal: Principal = { kind: "host", name: host, session: id };
    return { principal, signal: this.sessions.signal(id) };
  }

  /** A connection of this session said something: whoever has the session is there. */
  heard(session: string): void {
    const use = this.sessions.heard(session);
    if (use?.kind === "clone") this.#report(use.facts);
  }

  /** Aborted when the session ends, revocation included; at once for one that is none. */
  sessionSignal(session: string): AbortSignal {
    return this.sessions.signal(session);
  }

  onEvent(listener: (event: IdentityEvent) => void): Disposable {
    return this.core.events.listen(listener);
  }

  /** What the server is to show now; `onServe` tells when that is another one. */
  get served(): ServerCertificate {
    return this.certificates.served;
  }

  onServe(listener: (served: ServerCertificate) => void): Disposable {
    return this.certificates.onServe(listener);
  }

  /** Ends what has come to its time. @returns when to call it again; undefined: nothing waits */
  passTime(): MonotonicTime | undefined {
    const times = [this.sessions.passTime(), this.operators.passTime()];
    const known = times.filter((time) => time !== undefined);
    return known.length === 0 ? undefined : Math.min(...known);
  }

  /** Ends all sessions, and waits until nothing is followed or written any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.sessions.endAll("closed");
    await Promise.all(this.#reports);
    this.#closing.abort();
    await Promise.all(this.#books.map((book) => book.closed()));
  }

  #report(facts: SessionFacts): void {
    const report = this.hosts
      .spoke(facts)
      .catch((error: Error) => {
        const { host } = facts;
        this.core.options.onTrouble(`cannot note the clone of ${host}: ${error.message}`);
      })
      .finally(() => this.#reports.delete(report));
    this.#reports.add(report);
  }
}

function bookWords(
  core: AuthorityCore,
): Pick<RecordBookOptions<unknown>, "newWriteId" | "onReset" | "onTrouble"> {
  const { onTrouble } = core.options;
  return {
    newWriteId: core.newId,
    onReset: (putRight) => {
      const more = putRight > 0 ? `; ${putRight} spent or revoked since stay so` : "";
      onTrouble(`the store was restored, or was away for long; all is read anew${more}`);
    },
    onTrouble,
  };
}

/** An operator is told once; a store that takes nothing now keeps nobody from starting. */
async function writePutRight(
  core: AuthorityCore,
  books: Readonly<Record<string, Pick<RecordBook<unknown>, "putRight" | "writePutRight">>>,
): Promise<void> {
  const { onTrouble } = core.options;
  const told = Object.entries(books).flatMap(([what, { putRight }]) => {
    return putRight > 0 ? [`${putRight} of the ${what}`] : [];
  });
  if (told.length === 0) return;
  onTrouble(
    `spent or revoked since what the store knows: ${told.join(", ")}. They stay so; an older ` +
      "backup was restored, or the authority was killed meanwhile. See the lists of them",
  );
  try {
    for (const book of Object.values(books)) await book.writePutRight();
  } catch (error) {
    if (!(error instanceof IdentityRefusal)) throw error;
    onTrouble(`the store does not take that now: ${error.message}. It counts nevertheless`);
  }
}
