import { isAbsolute } from "node:path";
import * as v from "valibot";
import { ProblemError } from "../http/problem.ts";
import { defineRoute, type Route } from "../http/route.ts";
import { newestFormat } from "../store/database.ts";
import type { EmbeddedStore, StoreUsage } from "../store/embedded-store.ts";
import type { Growth } from "../store/usage.ts";
import type { Bytes } from "../units/units.ts";
import { presenceBucket } from "./options.ts";
import { authorityApi, type Presence, presenceSchema } from "./protocol.ts";

/** What an authority can be asked beside identity: about its store, and about who is there. */
export function authorityRoutes(parts: {
  readonly store: EmbeddedStore;
  /** What the audit log takes, and may take. */
  readonly auditUse: () => { readonly bytes: Bytes; readonly size: Bytes };
}): readonly Route[] {
  const { store, auditUse } = parts;
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
        const { entries, sha256 } = await store.backup(file);
        call.changed({ object: "backup", after: { file, sha256 } });
        return { file, entries, sha256 };
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
      run: async (_call, { hosts }) => ({
        hosts: (await Promise.all(hosts.map((host) => presenceOf(store, host)))).filter(
          (found) => found !== undefined,
        ),
      }),
    }),
  ];
}

async function presenceOf(store: EmbeddedStore, host: string) {
  const entry = await store.get(presenceBucket.name, host);
  if (entry?.operation !== "put") return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), presenceSchema), entry.value);
  // What a host writes of itself is its own word: one that cannot be read is left out.
  return parsed.success ? { host, time: entry.time, ...(parsed.output as Presence) } : undefined;
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
