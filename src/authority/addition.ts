import type { EventLoop } from "../event-loop/event-loop.ts";
import type { HttpLimits } from "../http/limits.ts";
import type { MetricsRegistry } from "../http/metrics.ts";
import type { Page } from "../http/pages.ts";
import type { Principal } from "../http/principal.ts";
import type { Authenticated } from "../http/request-handler.ts";
import type { CallRecord, Route, StreamRoute } from "../http/route.ts";
import type { IdentityKey } from "../identity/host-key.ts";
import type { Logger } from "../logging/logger.ts";
import type { EmbeddedStore } from "../store/embedded-store.ts";
import type { Store } from "../store/store.ts";
import type { StoreOperation } from "../store/wire/store-connection.ts";
import type { Bytes } from "../units/units.ts";

/**
 * What another system adds to an authority: routes, which the same sessions, roles and audit log
 * stand before. Its buckets stand in the options' retention.
 */
export interface AuthorityAddition {
  readonly routes: readonly Route[];
  readonly streams?: readonly StreamRoute[];
  /** What is read in another form than JSON, by HTTPS alone. */
  readonly pages?: readonly Page[];
  /**
   * Lets somebody in by a token of its own making; undefined: it is none of its own. Asked before
   * identity is, and of programs' tokens alone.
   * @throws ProblemError for a token of its own that does not count, or no more
   */
  authenticate?(token: string): Authenticated | undefined;
  /** What a host may do with the store beside what every host may: its own entries alone. */
  permits?(principal: Principal, asked: StoreRequest): boolean;
  /** Where a bucket is that hosts ask for; undefined: in the authority's own store. */
  storeOf?(bucket: string): Store | undefined;
  /** Of its largest request, as JSON. */
  readonly requestBytes: Bytes;
  /** Where it expects more hosts than the usual limits are for. */
  readonly limits?: Partial<HttpLimits>;
  measure(metrics: MetricsRegistry): void;
  /**
   * Writes what it keeps beside the store into a file of its own beside this one, which is the
   * store's backup, and is written after it.
   * @throws FileRefused
   */
  backUp?(file: string): Promise<BackupBeside>;
  /** Calls that wait for something are answered, and nothing is begun any more. */
  stop(): Promise<void>;
}

export interface BackupBeside {
  readonly file: string;
  readonly rows: number;
  readonly sha256: string;
}

/** `place` is a key, or the pattern of a watch. */
export interface StoreRequest {
  readonly operation: StoreOperation;
  readonly bucket: string;
  readonly place: string;
}

/** What it stands on; each is there until `stop` of the addition has returned. */
export interface AdditionGround {
  readonly store: EmbeddedStore;
  readonly loop: EventLoop;
  readonly logger: Logger;
  /** The authority's: what it signs says first what it is, so that it can stand nowhere else. */
  readonly key: Pick<IdentityKey, "publicKey" | "fingerprint" | "sign">;
  /** How hosts reach the authority: "https://NAME:PORT"; known when it listens. */
  readonly address: () => string;
  /** The certificates that they are to trust now. */
  readonly pins: () => readonly string[];
  /** Whether a host was revoked here: it never speaks again. */
  readonly isRevoked: (host: string) => boolean;
  /**
   * Writes what the addition did by itself into the audit log.
   * @throws AuditError
   */
  readonly record: (record: CallRecord) => Promise<void>;
  /** A bug: the daemon ends. */
  readonly onFailure: (failure: unknown) => void;
  /** What the addition stands on is gone: the daemon ends, refused, to be started anew. */
  readonly end: (reason: string) => void;
}

export interface AuthorityExtension {
  /** What the daemon's log calls it; undefined: "authority". */
  readonly name?: string;
  open(ground: AdditionGround): Promise<AuthorityAddition>;
}
