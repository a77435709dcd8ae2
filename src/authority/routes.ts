import { rmSync } from "node:fs";
import { isAbsolute } from "node:path";
import { ProblemError } from "../http/problem.ts";
import { defineRoute, type Route } from "../http/route.ts";
import { newestFormat } from "../store/database.ts";
import type { EmbeddedStore, StoreUsage } from "../store/embedded-store.ts";
import type { Growth } from "../store/usage.ts";
import type { Bytes } from "../units/units.ts";
import type { AuthorityAddition } from "./addition.ts";
import type { PresenceBook } from "./presence.ts";
import { authorityApi } from "./protocol.ts";

/** What an authority can be asked beside identity: about its store, and about who is there. */
export function authorityRoutes(parts: {
  readonly store: EmbeddedStore;
  readonly presence: PresenceBook;
  /** What the audit log takes, and may take. */
  /** Of what the addition keeps beside the store. */
  readonly backUp: AuthorityAddition["backUp"];
  readonly auditUse: () => { readonly bytes: Bytes; readonly size: Bytes };
}): readonly Route[] {
  const { store, presence, auditUse } = parts;
  return [
    defineRoute({
      ...authorityApi.usage,
      run: () => ({ ...viewOf(store.usage()), audit: auditUse() }),
    }),
    defineRoute({
      ...authorityApi.backup,
      async run(call, { file }) {
        // It is this host's disk that is written to, as the daemon's user.
        if (call.principal.kind !== "local") {
          throw new ProblemError("forbidden", "A backup is written by who is on this host", {
            expected: "a call over the control socket",
            received: "one over the network",
          });
        }
        if (!isAbsolute(file)) {
          throw new ProblemError("request", "A backup needs an absolute path", {
            expected: "a path that begins with /",
            received: file,
          });
        }
        const beside = await parts.backUp?.(file);
        try {
          const { entries, sha256 } = await store.backup(file);
          call.changed({ object: "backup", after: { file, sha256, beside } });
          return { file, entries, sha256, ...(beside !== undefined && { beside }) };
        } catch (error) {
          // Half a backup is none.
          if (beside !== undefined) rmSync(beside.file, { force: true });
          throw error;
        }
      },
    }),
    defineRoute({
      ...authorityApi.upgrade,
      async run(call) {
        const before = store.usage().database.format;
        await store.commitFormat(newestFormat);
        call.changed({ object: "database format", before, after: newestFormat });
        return { before, format: newestFormat };
      },
    }),
    defineRoute({
      ...authorityApi.presence,
      run: async (_call, { hosts }) => ({ hosts: await presence.of(hosts) }),
    }),
  ];
}

function viewOf({ buckets, database, disk, ledgerEntries }: StoreUsage) {
  return {
    buckets: buckets.map(({ bucket, entries, bytes, size, oldest, ...growth }) => ({
      bucket,
      entries,
      bytes,
      size,
      oldest_ms: oldest ?? null,
      ...viewOfGrowth(growth),
    })),
    database: { bytes: database.bytes, format: database.format, ...viewOfGrowth(database) },
    disk,
    ledger_entries: ledgerEntries,
  };
}

function viewOfGrowth({ bytesPerDay, fullAfter }: Growth) {
  return { bytes_per_day: bytesPerDay, full_after_ms: fullAfter ?? null };
}
