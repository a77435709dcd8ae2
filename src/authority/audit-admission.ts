import { AuditError } from "../audit/audit-error.ts";
import type { AuditLog } from "../audit/log.ts";
import type { Logger } from "../logging/logger.ts";

/**
 * Whether what changes something may be carried out. Who is refused is told by a status, and the
 * operator by the daemon's log: once when it begins, and once when it is over.
 */
export class AuditAdmission {
  readonly #audit: Pick<AuditLog, "admit">;
  readonly #logger: Pick<Logger, "info" | "warn">;
  #isShut = false;

  constructor(audit: Pick<AuditLog, "admit">, logger: Pick<Logger, "info" | "warn">) {
    this.#audit = audit;
    this.#logger = logger;
  }

  /** @throws AuditError as the log's own */
  admit(): void {
    try {
      this.#audit.admit();
    } catch (error) {
      // A queue that is full for a moment is nobody's to mend.
      const isPassing = error instanceof AuditError && error.problem === "busy";
      if (!isPassing && !this.#isShut) {
        const { message } = error as Error;
        this.#isShut = true;
        this.#logger.warn(`what changes something is refused: ${message}`);
      }
      throw error;
    }
    if (this.#isShut) this.#logger.info("what changes something is taken again");
    this.#isShut = false;
  }
}
