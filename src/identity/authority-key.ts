import { existsSync } from "node:fs";
import { join } from "node:path";
import { FileRefused } from "../journal/file-refused.ts";
import type { Store } from "../store/store.ts";
import { type IdentityKey, openKey, readKey } from "./host-key.ts";
import { hostsBucket } from "./records.ts";

const mend =
  "Restore it from a copy of this folder. When there is none, no host trusts what is said here " +
  "any more: move the whole state directory aside, begin anew, and enrol the hosts again";

/**
 * The authority's key, made when this is a new authority. With another key in its place every
 * host would be refused by its own rules, and none could be told why: so none is made beside what
 * is left of an authority that had one.
 * @throws FileRefused; StoreError
 */
export async function openAuthorityKey(options: {
  readonly folder: string;
  readonly store: Store;
}): Promise<IdentityKey> {
  const path = join(options.folder, "authority.pem");
  if (readKey(path, mend) === undefined) {
    const beside = existsSync(join(options.folder, "authority.json"))
      ? "authority.json"
      : await someHost(options.store);
    if (beside !== undefined) {
      throw new FileRefused(
        `Cannot use the authority's key ${path}: expected the key that ${beside} was here with, ` +
          `received none. ${mend}.`,
      );
    }
  }
  return openKey(path, mend);
}

/** A host that the store knows: it trusts the key of this authority. */
async function someHost(store: Store): Promise<string | undefined> {
  const done = new AbortController();
  try {
    for await (const event of store.watch(hostsBucket.name, "", { signal: done.signal })) {
      if (event.kind === "synced") return undefined;
      if (event.kind !== "entry" || event.entry.operation !== "put") continue;
      return `host ${event.entry.key}`;
    }
    return undefined;
  } finally {
    done.abort();
  }
}
