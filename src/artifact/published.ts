import type { Milliseconds } from "../units/units.ts";
import { ArtifactRefused } from "./artifact-refused.ts";
import { sourceLimits } from "./lifecycle-sources.ts";
import { artifactLimits, publishedNames } from "./protocol.ts";
import { type FetchClock, readWhole, type Source, systemClock } from "./source.ts";

/** What a source says of a small published file. */
export type Published =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "absent"; readonly why: string }
  | { readonly kind: "failed"; readonly why: string }
  /** It asks to be asked later. */
  | { readonly kind: "patience"; readonly wait: Milliseconds };

/** Where small published files are read. */
export interface PublishedTexts {
  /** @param most bytes; a longer one is "absent" */
  read(name: string, most: number): Promise<Published>;
}

/** The small files of a source. */
export function textsOf(source: Source, signal: AbortSignal): PublishedTexts {
  return {
    read: async (name, most): Promise<Published> => {
      const read = await readWhole(source, name, { most, signal });
      if (read.kind === "bytes") {
        return { kind: "text", text: new TextDecoder().decode(read.bytes) };
      }
      if (read.kind === "patience") {
        const asked = read.wait ?? sourceLimits.usualPatience;
        const { retryTime, longestPatience } = sourceLimits;
        return { kind: "patience", wait: Math.min(Math.max(asked, retryTime), longestPatience) };
      }
      const why = "why" in read ? read.why : "it gave nothing";
      return { kind: read.kind === "absent" ? "absent" : "failed", why };
    },
  };
}

/** How somebody waits who needs an answer. */
export interface Patience {
  readonly signal: AbortSignal;
  readonly clock?: FetchClock;
  readonly onWait?: (time: Milliseconds, why: string) => void;
}

/** Rounds after which sources that fail are asked no more; patience has no such end. */
export const mostRounds = 4;

/**
 * Looks again as long as a source asks for patience, and a few times where one fails.
 * @param look one look at all sources: what is left to wait for, or undefined when it is done
 * @throws the signal's reason
 */
export async function withPatience(
  { signal, clock = systemClock, onWait }: Patience,
  look: () => Promise<readonly Published[] | undefined>,
): Promise<void> {
  for (let failures = 0; ; ) {
    signal.throwIfAborted();
    const answers = await look();
    if (answers === undefined) return;
    const waits = answers.flatMap((one) => (one.kind === "patience" ? [one.wait] : []));
    const failed = answers.find((one) => one.kind === "failed");
    if (waits.length === 0) {
      failures += 1;
      if (failed === undefined || failures >= mostRounds) return;
    }
    const retry = sourceLimits.retryTime * 2 ** Math.max(0, failures - 1);
    const wait = waits.length > 0 ? Math.min(...waits) : retry;
    onWait?.(wait, failed?.kind === "failed" ? failed.why : "the server asks for patience");
    await clock.wait(wait, signal);
  }
}

/**
 * The manifest of a version, from the first source that has it.
 * @throws ArtifactRefused where none has; the signal's reason
 */
export async function readPublishedManifest(
  version: string,
  from: readonly PublishedTexts[],
  patience: Patience,
): Promise<string> {
  const name = publishedNames.manifest(version);
  let found: string | undefined;
  let answers: Published[] = [];
  await withPatience(patience, async () => {
    answers = [];
    for (const texts of from) {
      const read = await texts.read(name, artifactLimits.manifestBytes);
      if (read.kind === "text") {
        found = read.text;
        return undefined;
      }
      answers.push(read);
    }
    return answers;
  });
  if (found !== undefined) return found;
  throw new ArtifactRefused(`read ${name}`, {
    refusal: "unreachable",
    expected: "it in one of the sources",
    received: answers.map((one) => ("why" in one ? one.why : "")).join("; ") || "no source",
    mend: "Look at the version and at the addresses",
  });
}
