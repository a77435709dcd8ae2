import { join } from "node:path";
import { killPoint } from "../../../ffi/fault-hooks.ts";
import { writeDurably } from "../../journal/append-journal.ts";
import { withFile } from "../../journal/file-refused.ts";
import { type CandidateStart, type Executor, ExecutorRefused, unknownEnding } from "../executor.ts";
import { folderOf, layoutLimits, layoutNames, linked } from "../layout.ts";
import { encodeJournal, type Journal } from "../lifecycle-journal.ts";
import type { EffectKind } from "../lifecycle-state.ts";
import type { Build, LastWords, Marker } from "../protocol.ts";
import {
  type AgentCandidates,
  type AgentInstallation,
  type AgentVersions,
  OrderRefused,
} from "../upgrade-agent.ts";
import { checkVersion, Installation, VersionRefused } from "./installation.ts";
import { programOf, readLayout, readVerified } from "./layout-files.ts";
import { ProofRefused, proveProgram } from "./prove.ts";
import { readJournalIn } from "./read-journal.ts";

/** What an upgrade orders, as it is done on this host; between kill points of its effect's name. */

/** @param keep versions beside those that are needed */
export function hostInstallation(
  folder: string,
  { keep = layoutLimits.keep, onTrouble }: HostOptions,
): AgentInstallation {
  const path = join(folder, layoutNames.journal);
  const change = (act: (installation: Installation) => void) => {
    using installation = Installation.open(folder, { make: false });
    act(installation);
  };
  return {
    readJournal: () => readJournalIn(folder),
    writeJournal: (journal) =>
      between("note", () => {
        withFile({ what: "write the journal", path, otherwise: "give another --folder" }, () =>
          writeDurably(path, encodeJournal(journal)),
        );
        const done = doneBuild(journal);
        if (done === undefined) return;
        try {
          change((installation) => installation.prove(folderOf(done)));
        } catch (error) {
          onTrouble("the new version cannot be called proven, ignoring", error);
        }
      }),
    readLinks: () => {
      const [current, previous] = [linkedBuild(folder, "current"), linkedBuild(folder, "previous")];
      if (current !== null) return { current, previous };
      throw new VersionRefused(
        `Cannot use ${folder}: expected that current leads to a version, received none. ` +
          "Make it again by hostler fleet install.",
      );
    },
    swap: ({ current, previous }) =>
      between("swap", () =>
        change((to) => to.swap({ current: folderOf(current), previous: folderOf(previous) })),
      ),
    swapBack: ({ current, previous }) =>
      between("swap-back", () =>
        change((to) =>
          to.swapBack({
            current: folderOf(current),
            previous: previous === null ? null : folderOf(previous),
          }),
        ),
      ),
    collect: (builds) =>
      between("collect", () =>
        change((from) => void from.collect({ keep, spare: new Set(builds.map(folderOf)) })),
      ),
  };
}

export interface HostOptions {
  readonly keep?: number;
  readonly onTrouble: (message: string, cause: unknown) => void;
}

/** What a candidate is started with, beside its program. */
export type CandidatePlan = (
  marker: Marker,
  instance: string,
) => Pick<CandidateStart, "words" | "environment" | "readyWithin">;

export function hostCandidates(
  folder: string,
  { executor, plan }: { readonly executor: Executor; readonly plan: CandidatePlan },
): AgentCandidates {
  return {
    start: async ({ marker, instance, endsAfter }) =>
      await betweenLater("start-candidate", async () => {
        const name = folderOf(marker.build);
        link(folder, name);
        const program = programOf(folder, name);
        const start = { ...plan(marker, instance), instance, program, endsAfter };
        const outcome = await refusing(() => executor.startCandidate(start));
        return outcome.kind === "ready" ? "ready" : outcome.lastWords;
      }),
    isThere: async (instance) => await executor.findCandidate(instance),
    ended: async (instance) => known(await executor.candidateEnd(instance)),
    stop: async (instance) =>
      await betweenLater("stop-candidate", async () =>
        known(await executor.stopCandidate(instance)),
      ),
    restartCanonical: async () =>
      await betweenLater("restart-canonical", () => refusing(() => executor.restartCanonical())),
  };
}

/** What is signed and fetched, which another room knows. */
export type ArtifactSeam = Pick<AgentVersions, "check" | "fetch"> & {
  /** Once more, by its own manifest, a version whose file is damaged. @throws OrderRefused */
  fetchAgain(build: Build, marker: Marker): Promise<void>;
};

export function hostVersions(
  folder: string,
  { executor, artifacts }: { readonly executor: Executor; readonly artifacts: ArtifactSeam },
): AgentVersions {
  return {
    check: async (marker, known) =>
      await betweenLater("check", () => artifacts.check(marker, known)),
    fetch: async (marker, options) =>
      await betweenLater("fetch", () => artifacts.fetch(marker, options)),
    prove: async (marker) =>
      await betweenLater("prove", async () => {
        const name = folderOf(marker.build);
        requireWhole(folder, name);
        await refusing(() => proveProgram(folder, name, executor.runConfined.bind(executor)));
      }),
    hash: async (build) =>
      await betweenLater("hash", async () => requireWhole(folder, folderOf(build))),
    findWayBack: async (build, marker) => {
      const name = folderOf(build);
      if (checkVersion(folder, name).kind === "whole") return;
      await artifacts.fetchAgain(build, marker);
      requireWhole(folder, name);
    },
  };
}

/** So that nobody removes it, and only when its file is whole. @throws OrderRefused */
function link(folder: string, name: string): void {
  try {
    using installation = Installation.open(folder, { make: false });
    installation.setCandidate(name);
  } catch (error) {
    throw refusalOf(error);
  }
}

async function refusing<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw refusalOf(error);
  }
}

/** What is fetched is to blame, or this host; whatever else it is goes on as it is. */
function refusalOf(error: unknown): unknown {
  const { message } = error as Error;
  if (error instanceof VersionRefused || error instanceof ProofRefused) {
    return new OrderRefused(message, { cause: "artifact" });
  }
  return error instanceof ExecutorRefused ? new OrderRefused(message, { cause: "host" }) : error;
}

/** @throws OrderRefused */
function requireWhole(folder: string, name: string): void {
  const found = checkVersion(folder, name);
  if (found.kind === "whole") return;
  throw new OrderRefused(
    `Cannot use ${name}: expected ${found.expected}, received ${found.received}. Fetch it again.`,
    { cause: "artifact" },
  );
}

function linkedBuild(folder: string, link: "current" | "previous"): Build | null {
  const name = linked(readLayout(folder), link);
  const verified = name === undefined ? undefined : readVerified(folder, name);
  return verified === undefined ? null : { version: verified.version, digest: verified.digest };
}

const doneBuild = ({ life }: Journal): Build | undefined =>
  life.phase === "done" ? life.build : undefined;

/** null where nothing is known of it. */
const known = (words: LastWords): LastWords | null =>
  words.ending === unknownEnding.ending ? null : words;

function between(effect: EffectKind, act: () => void): void {
  killPoint(`fleet:${effect}:before`);
  act();
  killPoint(`fleet:${effect}:after`);
}

async function betweenLater<T>(effect: EffectKind, act: () => Promise<T>): Promise<T> {
  killPoint(`fleet:${effect}:before`);
  const result = await act();
  killPoint(`fleet:${effect}:after`);
  return result;
}
