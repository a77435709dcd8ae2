import * as v from "valibot";
import { newWriteId } from "../put-once.ts";
import type { Store } from "../store.ts";
import type { TermWitness } from "./lifecycle-term.ts";
import type { TermPlace } from "./term-keeper.ts";

/** How far this host has seen of a shared store, in its own: one that has less went back. */

/** Older ones name the incarnation as well, which nobody asks for. */
const witnessSchema = v.object({
  position: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
});

export async function readWitness(
  store: Pick<Store, "get">,
  { bucket, key }: TermPlace,
): Promise<TermWitness | undefined> {
  const entry = await store.get(bucket, key);
  if (entry?.operation !== "put") return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), witnessSchema), entry.value);
  // Its own word, in a database with checksums: what is not understood is of another version.
  return parsed.success ? parsed.output : undefined;
}

/** @throws StoreError */
export async function noteWitness(
  store: Pick<Store, "put">,
  { bucket, key }: TermPlace,
  witness: TermWitness,
): Promise<void> {
  await store.put(bucket, key, JSON.stringify(witness), { writeId: newWriteId() });
}
