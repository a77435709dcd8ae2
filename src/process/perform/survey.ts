import { createHash } from "node:crypto";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { hasEnded, openProcess } from "../../../ffi/pidfd.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import { type Adoption, adopt, type FoundInstance } from "../lifecycle-adoption.ts";
import { type KeptEntry, keptNames, readKept } from "../protocol-kept.ts";
import { type Configuration, type ProcessSpecification, watchdogOf } from "../specification.ts";
import type { CrashJournal } from "./crash-journal.ts";
import type { Keeping } from "./keeping.ts";
import {
  bootId,
  descriptorInformation,
  findInvocations,
  type ProcessStatus,
  statusOf,
} from "./process-table.ts";

/** How often /proc is looked through for somebody in the middle of an exec, and after how long. */
const LOOKS = 100;
const LOOK_AGAIN_AFTER: Milliseconds = 10;

/** An instance with its pidfd, which is the taker's. */
export interface SurveyedInstance extends FoundInstance {
  readonly process: OwnedDescriptor;
}

/** What of one process is gone on with, and with what. */
export interface SurveyedProcess {
  readonly adoption: Adoption;
  /** The name in its NOTIFY_SOCKET. */
  readonly notifyName: string | undefined;
  /** By invocation, those that are watched. */
  readonly instances: ReadonlyMap<string, SurveyedInstance>;
}

/** By the names of processes. */
export type Survey = ReadonlyMap<string, SurveyedProcess>;

/** Both ends of both log pipes, by the names under which they are kept. */
export const pipeNames = (name: string): readonly string[] =>
  (["stdout", "stderr"] as const).flatMap((stream) =>
    (["read", "write"] as const).map((end) => keptNames.pipe(name, stream, end)),
  );

/** A hash of all that a start of the process is made of, and that its output goes by. */
export function launchOf(specification: ProcessSpecification): string {
  const { command, partition, environment, workingDirectory, umask } = specification;
  const { constraints, output, readiness, leftovers } = specification;
  const watchdog = watchdogOf(specification);
  const parts = [command, partition, environment, workingDirectory, umask];
  const told = watchdog === undefined ? [] : [watchdog];
  // Behind what stood in journals before: whoever parks nothing has the same hash.
  if (specification.descriptorStore > 0) told.push(-1);
  const text = JSON.stringify([...parts, constraints, output, readiness.kind, leftovers, ...told]);
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}

/**
 * Looks what an orchestrator that was killed has left, and decides what is gone on with. It takes
 * pidfds of `keeping`, and changes nothing else.
 */
export async function survey(
  loop: EventLoop,
  configuration: Configuration,
  sources: {
    readonly keeping: Keeping;
    readonly journal: CrashJournal;
    readonly onTrouble: (message: string) => void;
  },
): Promise<Survey> {
  const { keeping, journal, onTrouble } = sources;
  const entries = readEntries(keeping, onTrouble);
  const left = new Map(
    configuration.processes.map((specification) => {
      const { name } = specification;
      const entry = entries.get(name);
      const starts = journal.startsOf(name);
      return [name, { specification, entry, starts, invocations: invocationsOf(entry, starts) }];
    }),
  );
  const all = [...left.values()];
  const found = await findInstances(loop, keeping, {
    wanted: all.flatMap(({ invocations }) => invocations),
    doubtful: all.flatMap(({ entry }) =>
      entry !== undefined && "invocation" in entry.state ? [entry.state.invocation] : [],
    ),
  });
  return new Map([...left].map(([name, of]) => [name, decide(of, { keeping, found })] as const));
}

interface Left {
  readonly specification: ProcessSpecification;
  readonly entry: KeptEntry | undefined;
  readonly starts: readonly string[];
  readonly invocations: readonly string[];
}

function readEntries(
  keeping: Keeping,
  onTrouble: (message: string) => void,
): ReadonlyMap<string, KeptEntry> {
  const text = keeping.readJournal();
  if (text === undefined) return new Map();
  const read = readKept(text, bootId());
  if ("entries" in read) return read.entries;
  const { expected, received } = read.refusal;
  onTrouble(
    `the journal that the holder kept is damaged: expected ${expected}, received ${received}. ` +
      "What was left running is ended, and started anew",
  );
  return new Map();
}

/** All that may be found of a process. */
function invocationsOf(entry: KeptEntry | undefined, starts: readonly string[]): string[] {
  const { state } = entry ?? {};
  if (state === undefined) return [...starts];
  const named = "instance" in state ? [state.instance.invocation] : [];
  const asked = "invocation" in state ? [state.invocation] : [];
  return [...new Set([...state.awaitedEndings, ...named, ...asked, ...starts])];
}

function decide(
  { specification, entry, starts, invocations }: Left,
  sources: {
    readonly keeping: Keeping;
    readonly found: ReadonlyMap<string, SurveyedInstance>;
  },
): SurveyedProcess {
  const { keeping, found } = sources;
  const { name, output, readiness, readyTimeout } = specification;
  const own = new Map(
    invocations.flatMap((invocation) => {
      const instance = found.get(invocation);
      return instance === undefined ? [] : [[invocation, instance] as const];
    }),
  );
  const hasPipes = pipeNames(name).every((pipe) => keeping.has(pipe));
  const hasNotices = keeping.has(keptNames.notices(name));
  const left = {
    state: entry?.state,
    launch: entry?.launch === launchOf(specification) ? "same" : "changed",
    output: output === "inherit" || hasPipes ? "there" : "lost",
    notices: readiness.kind !== "notify" || hasNotices ? "there" : "lost",
    heartbeats: watchdogOf(specification) === undefined || hasNotices ? "there" : "lost",
    starts,
    found: own,
  } as const;
  const adoption = adopt(left, { now: monotonicNow(), readyTimeout });
  const watched = new Set(
    adoption.verdicts.flatMap(({ kind, invocation }) =>
      kind === "adopt" || kind === "hear" ? [invocation] : [],
    ),
  );
  for (const [invocation, { process }] of own) if (!watched.has(invocation)) process.close();
  const instances = new Map([...own].filter(([invocation]) => watched.has(invocation)));
  return { adoption, notifyName: entry?.notify, instances };
}

/**
 * By the pidfds that were kept; what was started in the last moment by /proc. Starts that are
 * `doubtful` may be in the middle of their exec, without an environment to look at.
 */
async function findInstances(
  loop: EventLoop,
  keeping: Keeping,
  sought: { readonly wanted: readonly string[]; readonly doubtful: readonly string[] },
): Promise<ReadonlyMap<string, SurveyedInstance>> {
  const found = new Map<string, SurveyedInstance>();
  for (const invocation of sought.wanted) {
    const kept = takeKept(keeping, invocation);
    if (kept !== undefined) found.set(invocation, kept);
  }
  const missing = () => sought.wanted.filter((invocation) => !found.has(invocation));
  for (let looks = LOOKS; looks > 0 && missing().length > 0; looks -= 1) {
    const search = findInvocations(missing());
    for (const [invocation, statuses] of search.found) {
      // Every instance leads a session of its own; others are what it left behind.
      const main = statuses.find(({ session, processId }) => session === processId);
      const instance = main && open(main);
      if (instance !== undefined) found.set(invocation, instance);
    }
    const isSure = sought.doubtful.every((invocation) => found.has(invocation));
    if (isSure || search.unreadable.length === 0) break;
    await new Promise<void>((resolve) => {
      loop.wakeAfter(LOOK_AGAIN_AFTER, resolve);
    });
  }
  return found;
}

/** Only what the kernel says to be a pidfd is taken for one. */
function takeKept(keeping: Keeping, invocation: string): SurveyedInstance | undefined {
  const process = keeping.take(keptNames.instance(invocation));
  if (process === undefined) return undefined;
  const said = Number(descriptorInformation(process.number).get("Pid"));
  if (Number.isNaN(said)) {
    process.close();
    return undefined;
  }
  // -1: it was reaped, and its number may be another's by now.
  return { processId: Math.max(0, said), process, life: hasEnded(process) ? "dead" : "alive" };
}

function open({ processId, startTicks }: ProcessStatus): SurveyedInstance | undefined {
  const process = openProcess(processId);
  if (process === undefined) return undefined;
  // With its pidfd in hand: is the number still the process that was found?
  if (statusOf(processId)?.startTicks === startTicks) return { processId, process, life: "alive" };
  process.close();
  return undefined;
}
