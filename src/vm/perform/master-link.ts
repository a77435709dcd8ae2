import { openHost } from "../../authority/host-side.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import { HttpClient } from "../../http/client.ts";
import type { HostIdentity, HostSession } from "../../identity/host.ts";
import type { Milliseconds } from "../../units/units.ts";
import { linkLimits } from "../lifecycle-link.ts";
import {
  type AssignmentAnswer,
  type AssignmentPlace,
  MASTER_PROTOCOL_VERSION,
  masterApi,
  type Report,
  type ReportReply,
} from "../protocol-master.ts";
import { passStep } from "./kill-points.ts";

/** How often what the authority announces of its certificates is asked for. */
const REFRESH_EVERY: Milliseconds = 300_000;

/** The configuration says another master than the one at which this host is enrolled. */
export class OtherMaster extends Error {
  override readonly name = "OtherMaster";
}

export interface MasterPlace {
  /** Folder of the host's key, as `hostler identity enrol` makes it. */
  readonly identity: string;
  /** "https://master:7700"; undefined: whatever the host is enrolled at. */
  readonly address: string | undefined;
  /** Fingerprint of the authority's key; undefined: whatever the host is enrolled at. */
  readonly authority: string | undefined;
}

/** One session with the master; calls of one that was closed end. */
class Session {
  readonly #client: HttpClient;
  readonly #identity: HostIdentity;
  readonly #session: HostSession;
  #refreshedAt = monotonicNow();

  constructor(identity: HostIdentity, session: HostSession) {
    this.#identity = identity;
    this.#session = session;
    const { address, pins, bearer } = session;
    this.#client = new HttpClient({ url: address, pins, token: () => bearer });
  }

  async ask(lastSeen: AssignmentPlace | null, signal: AbortSignal): Promise<AssignmentAnswer> {
    const request = {
      version: MASTER_PROTOCOL_VERSION,
      last_seen: lastSeen,
      wait_ms: linkLimits.questionTime,
    } as const;
    return await this.#client.call(masterApi.assignment, request, { signal });
  }

  async report(report: Report, signal: AbortSignal): Promise<ReportReply> {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(linkLimits.answerTime)]);
    passStep("report:sending");
    const answer = await this.#client.call(masterApi.report, report, { signal: limit });
    passStep("report:answered");
    return answer;
  }

  /** Which certificates count, now and then. @throws HostRefused; what the caller throws */
  async refresh(): Promise<void> {
    if (monotonicNow() - this.#refreshedAt < REFRESH_EVERY) return;
    this.#refreshedAt = monotonicNow();
    await this.#identity.refresh(this.#session);
  }
}

export type MasterSession = Session;

/** Opens sessions with the master at which this host is enrolled. */
export class MasterLink {
  readonly #place: MasterPlace;
  readonly #onTrouble: (message: string) => void;

  constructor(place: MasterPlace, onTrouble: (message: string) => void) {
    this.#place = place;
    this.#onTrouble = onTrouble;
  }

  /** Where the master is; undefined while this host is not enrolled. @throws FileRefused */
  get address(): string | undefined {
    return this.#identity().journal()?.address;
  }

  /** @throws HostRefused, FileRefused, OtherMaster; what the HTTP client throws */
  async open(): Promise<Session> {
    // Made anew each time: an operator may have enrolled this host since.
    const identity = this.#identity();
    this.#check(identity);
    return new Session(identity, await identity.openSession());
  }

  #identity(): HostIdentity {
    return openHost(this.#place.identity, this.#onTrouble);
  }

  #check(identity: HostIdentity): void {
    const journal = identity.journal();
    if (journal === undefined) return;
    for (const key of ["address", "authority"] as const) {
      const expected = this.#place[key];
      if (expected === undefined || expected === journal[key]) continue;
      throw new OtherMaster(
        `master.${key}: expected ${expected}, as the configuration says, received ` +
          `${journal[key]}, at which this host is enrolled in ${this.#place.identity}. ` +
          "Mend the configuration, or enrol this host there by hostler identity enrol.",
      );
    }
  }
}
