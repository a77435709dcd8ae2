/**
 * Stories of an upgrade, each event with the phase that it leads to and the effects, in order. A
 * story throws when the step function that it is given decides anything else.
 */
import { agentLimits, agentTimes } from "../../../src/fleet/lifecycle-state.ts";
import { SILENT_AFTER } from "../../../src/fleet/protocol.ts";
import { usualPace } from "../../../src/fleet/protocol-pace.ts";
import {
  instanceOf,
  Life,
  limits,
  makeMarker,
  newBuild,
  oldBuild,
  older,
  requireEqual,
  rolesOf,
  type StepFunction,
  thirdBuild,
  transactionOf,
  words,
} from "./life.ts";

export interface Story {
  readonly name: string;
  readonly run: (step: StepFunction) => void;
}

const time = { kind: "time" } as const;
const full = { kind: "note-failed", reason: "no space left" } as const;
const faulted = { kind: "faulted", reason: "it hangs", lastWords: words } as const;
const progress = { bytes: 5, of_bytes: 10, fetched_bytes: 5, again_bytes: 0 };

/** Heartbeats for so long, every ten seconds. */
function beats(life: Life, duration: number, ...who: ("canonical" | "candidate")[]): Life {
  for (let passed = 0; passed < duration; passed += 10_000) {
    life.pass(10_000);
    for (const one of who) life.tell(life.heard(one));
    life.tell(time);
  }
  return life;
}

const inProbation = (step: StepFunction) => new Life(step).becomesReady();
/** The new version runs, and no role but itself answers yet. */
const isNew = (step: StepFunction) => new Life(step).swaps().restart();
const isCanonical = (step: StepFunction) => {
  const life = isNew(step);
  return life.tell(life.roles(rolesOf(newBuild)));
};
/** On its way back, by the new version. */
const goesBack = (step: StepFunction) => isNew(step).tell(faulted);

const ordinary: readonly Story[] = [
  {
    name: "an upgrade from the marker to its end",
    run: (step) => {
      const life = new Life(step).comes("idle", "note", "collect");
      life.leads(life.marked(), "staging", "note", "check").is({ stage: "checking", resumes: 0 });
      life.leads(life.accepted(), "staging", "note", "fetch").is({ stage: "fetching" });
      life.has({ floor: "1.0.5", metadataVersion: 7 });
      life.leads({ kind: "progress", ticket: life.ticket, progress }, "staging").has({ progress });
      life.leads(life.answer("fetched"), "verifying", "note", "prove").is({ instance: null });
      life.leads(life.answer("proved"), "verifying", "note", "start-candidate");
      life.is({ stage: "starting", instance: instanceOf(1), until: 1_600_000 });
      const { staging_ms, commit_ms, canonical_ms } = limits;
      // The dead man's switch: longer than all that a candidate is needed for.
      const endsAfter = staging_ms + 2 * commit_ms + 2 * canonical_ms + usualPace.settle;
      const { marker, instance, ticket } = life;
      const start = { kind: "start-candidate", ticket, marker, instance, endsAfter };
      requireEqual("what is started", life.effects.at(-1), start);
      life.pass(500).leads(life.candidateReady(), "cutover-ready", "note");
      life.is({ readyAt: 1_000_500, instance: instanceOf(1), resumes: 0 });
      life.leads(life.observed(), "observed", "note").ignores(life.observed());
      life.leads(life.committed(), "commit-seen", "note", "hash").ignores(life.committed());
      life.is({ from: oldBuild, before: older, until: 1_060_500, lastWords: null });
      life.leads(life.answer("intact"), "commit-seen", "note", "swap").is({ stage: "swapping" });
      life.leads(life.answer("swapped"), "swapped", "note", "restart-canonical");
      life.has({ current: newBuild, previous: oldBuild }).is({ starts: 0, until: 1_060_500 });
      life.restart().comes("swapped", "note", "hand-over");
      life.leads(life.roles(rolesOf(newBuild)), "canonical", "stop-candidate", "note");
      life.leads(life.candidateEnded(null), "canonical", "note").is({ instance: null });
      life
        .pass(usualPace.settle - 1)
        .ignores(time)
        .pass(1);
      life.leads(time, "done", "note", "collect").is({ reason: null, ending: null });
      life.has({ seen: [transactionOf(1)], current: newBuild, previous: oldBuild, progress: null });
      life.ignores({ kind: "marker", marker: makeMarker() });
    },
  },
  {
    name: "what runs already is done at once",
    run: (step) => {
      const life = new Life(step);
      life.leads(life.marked({ build: oldBuild }), "done", "note", "collect");
      life.is({ transaction: transactionOf(1) }).has({ seen: [transactionOf(1)] });
    },
  },
  {
    name: "what runs already, under the name of another version, is done and keeps its name",
    run: (step) => {
      const life = new Life(step);
      const renamed = { version: newBuild.version, digest: oldBuild.digest };
      life.leads(life.marked({ build: renamed }), "done", "note", "collect");
      life.has({ current: oldBuild });
    },
  },
  {
    name: "a host whose programs cannot be changed says so",
    run: (step) => {
      const life = new Life(step);
      life.executor = "immutable";
      life.leads(life.marked(), "aborted", "note", "collect").says("update the image");
      life.is({ endingCause: "host" });
    },
  },
  {
    name: "a marker that was taken back before it was seen",
    run: (step) => {
      const life = new Life(step);
      const withdrawn = { reason: "a mistake" };
      life.leads(life.marked({ withdrawn }), "aborted", "note", "collect").says("a mistake");
      life.is({ endingCause: "withdrawn" });
    },
  },
  {
    name: "a manifest that is refused, a file that does not come, one that does not prove itself",
    run: (step) => {
      const life = new Life(step).tell(new Life(step).marked());
      const abandoned = ["abandon", "note", "collect"];
      life
        .fork()
        .leads(life.failed("not signed"), "aborted", ...abandoned)
        .says("not signed");
      life.tell(life.accepted());
      life.fork().leads(life.failed("no space left", "host"), "aborted", ...abandoned);
      life.tell(life.answer("fetched"));
      const bad = life.fork().leads(life.failed("4 bytes differ"), "aborted", ...abandoned);
      bad.is({ lastWords: words, build: newBuild, ending: null, endingCause: "artifact" });
      bad.leads({ kind: "marker", marker: makeMarker(2) }, "staging", "note", "check");
    },
  },
  {
    name: "floor and metadata rise alone, and stay when the upgrade is over",
    run: (step) => {
      const life = new Life(step).tell(new Life(step).marked());
      life.tell(life.accepted("1.1.0", 9)).tell(life.failed());
      life.has({ floor: "1.1.0", metadataVersion: 9 });
      life.tell({ kind: "marker", marker: makeMarker(2) }).tell(life.accepted("1.0.9", 8));
      life.has({ floor: "1.1.0", metadataVersion: 9 }).restart();
      life.has({ floor: "1.1.0", metadataVersion: 9 }).tell(life.accepted(null, 10));
      life.has({ floor: "1.1.0", metadataVersion: 10 });
    },
  },
  {
    name: "no candidate in time",
    run: (step) => {
      const life = new Life(step).tell(new Life(step).marked());
      life.pass(limits.staging_ms - 1).ignores(time);
      const slow = life.fork().pass(1).leads(time, "aborted", "abandon", "note", "collect");
      slow.says("600000 ms").is({ endingCause: "host" });
      life.tell(life.accepted()).tell(life.answer("fetched")).tell(life.answer("proved")).pass(1);
      life.leads(time, "aborted", "stop-candidate", "note");
      life.is({ ending: { instance: instanceOf(1), until: life.now + agentTimes.stopAgain } });
      life.is({ endingCause: "candidate" });
    },
  },
  {
    name: "a candidate that ends is told with its last words",
    run: (step) => {
      const life = new Life(step).tell(new Life(step).marked()).tell(inStaging(step));
      life.tell(life.answer("fetched")).tell(life.answer("proved"));
      const ended = ["note", "collect"];
      life
        .fork()
        .leads(life.candidateEnded(), "aborted", ...ended)
        .is({ lastWords: words });
      life.tell(life.candidateReady());
      life
        .fork()
        .leads(life.candidateEnded(), "aborted", ...ended)
        .says("exited with 1");
      life
        .fork()
        .leads(life.candidateEnded(null), "aborted", ...ended)
        .says("nobody knows");
      life.leads(life.committed(), "commit-seen", "note", "hash");
      life.leads(life.candidateEnded(), "aborted", "abandon", ...ended).is({ ending: null });
      life.is({ lastWords: words, endingCause: "candidate" }).says("exited with 1");
    },
  },
  {
    name: "a candidate that will not go is told again, and what comes next waits for it",
    run: (step) => {
      const life = inProbation(step);
      life.leads(life.marked({ withdrawn: { reason: "no" } }), "aborted", "stop-candidate", "note");
      const next = { kind: "marker", marker: makeMarker(2) } as const;
      life.leads(next, "aborted").has({ next: next.marker });
      life
        .pass(agentTimes.stopAgain - 1)
        .ignores(time)
        .pass(1);
      life.leads(time, "aborted", "stop-candidate", "note").pass(agentTimes.stopAgain);
      life.leads(time, "aborted", "stop-candidate", "note");
      life.is({ ending: { instance: instanceOf(1), until: life.now + agentTimes.stopAgain } });
      life.leads(life.candidateEnded(), "staging", "note", "collect", "check");
      life.has({ next: undefined }).is({ marker: next.marker });
    },
  },
  {
    name: "the last words of a candidate that was told to end",
    run: (step) => {
      const life = inProbation(step).tell({ kind: "marker", marker: makeMarker(1) });
      life.tell(life.marked({ withdrawn: { reason: "no" } })).is({ lastWords: null });
      life.fork().leads(life.candidateEnded(null), "aborted", "note", "collect");
      life.leads(life.candidateEnded(), "aborted", "note", "collect");
      life.is({ lastWords: words, ending: null }).ignores(time);
    },
  },
];

const begunWith = (step: StepFunction) => new Life(step).marked();

/** What makes a staging go on to its download. */
function inStaging(step: StepFunction) {
  const life = new Life(step);
  return life.tell(life.marked()).accepted();
}

const markers: readonly Story[] = [
  {
    name: "a commit that names another instance, or another transaction, is ignored",
    run: (step) => {
      const life = inProbation(step);
      life.ignores(life.committed(instanceOf(7)));
      const { transaction } = life.marker;
      const { instance } = life;
      const other = { transaction: transactionOf(9), instance };
      life.ignores(life.marked({ commit: other }));
      life.ignores(life.marked({ commit: { transaction, instance: instanceOf(8) } }));
      life.goes(life.committed(), "commit-seen");
    },
  },
  {
    name: "a commit and an observation that come before the candidate said that it is ready",
    run: (step) => {
      const life = new Life(step).tell(new Life(step).marked());
      const early = life.fork();
      early.ignores(early.committed(instanceOf(1)));
      life.tell(life.accepted()).tell(life.answer("fetched"));
      life.ignores(life.committed(instanceOf(1))).tell(life.answer("proved"));
      life.ignores(life.committed(instanceOf(2)));
      const seen = life.fork().leads(life.observed(), "verifying", "note");
      seen.leads(seen.candidateReady(), "observed", "note");
      life.leads(life.committed(), "verifying", "note");
      life.leads(life.candidateReady(), "commit-seen", "note", "hash");
    },
  },
  {
    name: "a marker that says something else of the same transaction is nobody's",
    run: (step) => {
      const begun = new Life(step).tell(new Life(step).marked());
      for (const life of [begun, inProbation(step)]) {
        life.ignores({ kind: "marker", marker: { ...life.marker, build: thirdBuild } });
        const version = { ...newBuild, version: "9.9.9" };
        life.ignores({ kind: "marker", marker: { ...life.marker, build: version } });
        life.ignores({ kind: "marker", marker: { ...life.marker, manifest: "another" } });
        const withdrawn = { reason: "forged" };
        life.ignores(life.marked({ manifest: "another", withdrawn }));
      }
    },
  },
  {
    name: "taken back before the commit was seen, also when both are seen at once",
    run: (step) => {
      const withdrawn = { reason: "stop" };
      const begun = new Life(step).tell(new Life(step).marked());
      begun.leads(begun.marked({ withdrawn }), "aborted", "abandon", "note", "collect");
      begun.says("withdrawn: stop").is({ endingCause: "withdrawn" });
      const life = inProbation(step);
      const { transaction } = life.marker;
      const commit = { transaction, instance: life.instance };
      const both = life.fork();
      both.leads(both.marked({ withdrawn, commit }), "aborted", "stop-candidate", "note");
      life.tell(life.committed()).ignores(life.marked({ withdrawn }));
      life.tell(life.answer("intact")).ignores(life.marked({ withdrawn }));
    },
  },
  {
    name: "another upgrade takes the place of one that is not committed",
    run: (step) => {
      const next = { kind: "marker", marker: makeMarker(2, { build: thirdBuild }) } as const;
      const begun = new Life(step).tell(new Life(step).marked());
      begun.leads(next, "staging", "abandon", "note", "collect", "check");
      begun.is({ marker: next.marker, resumes: 0 }).has({ seen: [transactionOf(1)] });
      const life = inProbation(step);
      const starting = new Life(step).tell(begunWith(step)).tell(inStaging(step));
      starting.tell(starting.answer("fetched")).tell(starting.answer("proved"));
      starting.leads(next, "aborted", "stop-candidate", "note").has({ next: next.marker });
      const proving = new Life(step).tell(begunWith(step)).tell(inStaging(step));
      proving.tell(proving.answer("fetched"));
      proving.leads(next, "staging", "abandon", "note", "collect", "check");
      proving.has({ seen: [transactionOf(1)], next: undefined });
      life.leads(next, "aborted", "stop-candidate", "note").says("superseded");
      life.is({ endingCause: "superseded" });
      life.leads(life.candidateEnded(), "staging", "note", "collect", "check");
    },
  },
  {
    name: "another upgrade waits for one that is committed",
    run: (step) => {
      const next = { kind: "marker", marker: makeMarker(2, { build: thirdBuild }) } as const;
      const last = { kind: "marker", marker: makeMarker(3, { build: thirdBuild }) } as const;
      const life = inProbation(step).tell(inProbation(step).committed());
      life.leads(next, "commit-seen").has({ next: next.marker });
      const failing = life.fork().goes(life.fork().candidateEnded(), "staging");
      failing.comes("staging", "abandon", "note", "collect", "check").is({ marker: next.marker });
      life.tell(life.answer("intact")).leads(last, "commit-seen").has({ next: last.marker });
      life.tell(life.answer("swapped")).restart().has({ next: undefined });
      life.leads(next, "swapped").tell(life.roles(rolesOf(newBuild)));
      life.leads(last, "canonical").tell(life.candidateEnded());
      life.overdue().comes("staging", "note", "collect", "check");
      life.is({ marker: last.marker });
      const back = goesBack(step).leads(next, "reverting").has({ next: next.marker });
      back.ignores(back.marked({ withdrawn: { reason: "x" } }));
    },
  },
  {
    name: "a store that went back begins nothing anew",
    run: (step) => {
      const life = new Life(step).tell({ kind: "marker", marker: makeMarker(2) });
      life.tell(life.failed()).tell({ kind: "marker", marker: makeMarker(3) });
      const old = { kind: "marker", marker: makeMarker(2, { build: thirdBuild }) } as const;
      life.ignores(old).tell(life.accepted()).tell(life.answer("fetched")).ignores(old);
      life.tell(life.answer("proved")).tell(life.candidateReady()).ignores(old);
      life.tell(life.committed()).ignores(old).tell(life.answer("intact"));
      life.tell(life.answer("swapped")).restart().ignores(old);
    },
  },
  {
    name: "transactions are remembered up to a limit",
    run: (step) => {
      const life = new Life(step);
      for (let number = 1; number <= 40; number += 1) {
        life.tell({ kind: "marker", marker: makeMarker(number) }).tell(life.failed());
      }
      requireEqual("how many are remembered", life.state.seen.length, 32);
      life.ignores({ kind: "marker", marker: makeMarker(9) });
    },
  },
];

const probation: readonly Story[] = [
  {
    name: "only the candidate is silent: it is ended",
    run: (step) => {
      const life = beats(inProbation(step), 60_000, "canonical", "candidate");
      beats(life, 30_000, "canonical").comes("cutover-ready");
      life.pass(10_000).leads(life.heard("canonical"), "aborted", "stop-candidate", "note");
      life.says(`${SILENT_AFTER} ms`).is({ endingCause: "candidate" });
      const observed = beats(inProbation(step).tell(inProbation(step).observed()), 30_000);
      requireEqual("observed", observed.state.life.phase, "observed");
    },
  },
  {
    name: "a candidate that was never heard is ended",
    run: (step) => {
      const life = beats(inProbation(step), 30_000, "canonical")
        .comes("cutover-ready")
        .pass(10_000);
      life.leads(life.heard("canonical"), "aborted", "stop-candidate", "note");
    },
  },
  {
    name: "both are silent: it is the environment, and the upgrade is held",
    run: (step) => {
      const life = beats(inProbation(step), 20_000, "canonical", "candidate");
      life
        .pass(SILENT_AFTER - 1)
        .ignores(time)
        .pass(1)
        .leads(time, "held", "note");
      life.is({ cause: "environment", instance: instanceOf(1), readyAt: 1_000_000 });
      const other = life.fork();
      life.leads(life.heard("canonical"), "cutover-ready", "note").pass(9_000);
      life.leads(life.heard("candidate"), "cutover-ready");
      other.leads(other.heard("candidate"), "cutover-ready", "note");
      other.goes(other.observed(), "observed");
    },
  },
  {
    name: "an observed upgrade that was held is observed again",
    run: (step) => {
      const life = inProbation(step);
      life.tell(life.observed()).pass(SILENT_AFTER).leads(time, "held", "note");
      life.leads(life.heard("candidate"), "observed", "note");
      const held = inProbation(step).pass(SILENT_AFTER).tell(time);
      held
        .leads(held.observed(), "held", "note")
        .leads(held.heard("canonical"), "observed", "note");
    },
  },
  {
    name: "a commit ends the hold",
    run: (step) => {
      const life = inProbation(step).pass(SILENT_AFTER).tell(time);
      life.leads(life.committed(), "commit-seen", "note", "hash");
    },
  },
  {
    name: "after a cut the candidate is given its time again",
    run: (step) => {
      const life = beats(inProbation(step), 20_000, "canonical", "candidate");
      // A cut of half a minute, in which nobody is heard: no hold yet.
      beats(life, 30_000).pass(1_000).leads(life.heard("canonical"), "cutover-ready");
      beats(life, 30_000, "canonical");
      life.pass(4_000).leads(life.heard("canonical"), "cutover-ready");
      life.pass(1_000).goes(life.heard("canonical"), "aborted");
    },
  },
  {
    name: "a gap of less than two heartbeats is no cut",
    run: (step) => {
      const life = beats(inProbation(step), 10_000, "canonical", "candidate");
      life.pass(usualPace.unbroken).tell(life.heard("canonical"));
      life.pass(usualPace.unbroken).tell(life.heard("canonical")).pass(5_000);
      life.goes(life.heard("canonical"), "aborted");
      const cut = beats(inProbation(step), 10_000, "canonical", "candidate");
      cut.pass(usualPace.unbroken + 1).tell(cut.heard("canonical"));
      cut.pass(usualPace.unbroken).tell(cut.heard("canonical")).pass(6_000);
      cut.goes(cut.heard("canonical"), "cutover-ready");
    },
  },
  {
    name: "only the canonical agent is silent: nothing is said against the candidate",
    run: (step) => beats(inProbation(step), 90_000, "candidate").goes(time, "cutover-ready"),
  },
  {
    name: "no commit: held until the deadline, then ended",
    run: (step) => {
      const life = beats(inProbation(step), limits.commit_ms - 10_000, "canonical", "candidate");
      life.pass(9_999).tell(life.heard("canonical")).tell(life.heard("candidate")).ignores(time);
      life.pass(1).leads(time, "held", "note").is({ cause: "no-commit" }).says("no commit");
      life.leads(life.heard("canonical"), "held").leads(life.heard("candidate"), "held");
      const late = life.fork();
      late.leads(late.committed(), "commit-seen", "note", "hash");
      life
        .pass(limits.commit_ms - 1)
        .ignores(time)
        .pass(1);
      life.leads(time, "aborted", "stop-candidate", "note").says("held until the deadline");
      life.is({ endingCause: "uncommitted" });
    },
  },
  {
    name: "a candidate that falls silent while it is held for a commit is ended",
    run: (step) => {
      const life = beats(inProbation(step), limits.commit_ms, "canonical", "candidate");
      requireEqual("held", life.state.life.phase, "held");
      beats(life, 30_000, "canonical").pass(10_000).goes(life.heard("canonical"), "aborted");
    },
  },
  {
    name: "suspended in probation: a deadline may pass, and nothing worse",
    run: (step) => {
      const life = beats(inProbation(step), 20_000, "canonical", "candidate").pass(8 * 3_600_000);
      life.leads(time, "held", "note").leads(time, "aborted", "stop-candidate", "note");
    },
  },
];

const commits: readonly Story[] = [
  {
    name: "a file that is damaged between its proof and the swap",
    run: (step) => {
      const life = inProbation(step).tell(inProbation(step).committed());
      const { ticket } = life;
      const hash = { kind: "hash", ticket, build: newBuild, wayBack: oldBuild };
      requireEqual("what is hashed", life.effects.at(-1), hash);
      const ended = ["abandon", "stop-candidate", "note"];
      life
        .fork()
        .leads(life.failed("4 bytes differ"), "aborted", ...ended)
        .says("4 bytes");
      life
        .fork()
        .pass(limits.canonical_ms - 1)
        .ignores(time);
      life
        .fork()
        .pass(limits.canonical_ms)
        .leads(time, "aborted", ...ended)
        .says("hashed");
      life.tell(life.answer("intact")).pass(limits.canonical_ms).ignores(time);
      life.leads(life.failed("no space left", "host"), "aborted", ...ended);
      life.is({ endingCause: "host" }).has({ current: oldBuild });
    },
  },
  {
    name: "the candidate ends while the links are changed",
    run: (step) => {
      const life = inProbation(step).tell(inProbation(step).committed());
      life.tell(life.answer("intact")).leads(life.candidateEnded(), "commit-seen", "note");
      life.is({ instance: null, lastWords: null });
      life.leads(life.answer("swapped"), "swapped", "note", "restart-canonical");
      life.is({ instance: null, lastWords: null });
      life.restart().leads(life.roles(rolesOf(newBuild)), "canonical", "note");
    },
  },
  {
    name: "the candidate ends before the new canonical agent answers",
    run: (step) => {
      const life = isNew(step).leads(isNew(step).candidateEnded(), "swapped", "note");
      life.is({ instance: null, lastWords: null });
      life.leads(life.roles(rolesOf(newBuild)), "canonical", "note").overdue();
      life.comes("done", "note", "collect");
    },
  },
  {
    name: "a role that does not answer in time leads back",
    run: (step) => {
      const life = isNew(step);
      life.leads(life.roles([]), "swapped");
      life.leads(life.roles(rolesOf(newBuild, { healthy: false })), "swapped");
      life.leads(life.roles(rolesOf(newBuild, { digest: null })), "swapped");
      life.leads(life.roles(rolesOf(newBuild, { digest: oldBuild.digest })), "swapped");
      life
        .pass(limits.canonical_ms - 1)
        .ignores(time)
        .pass(1);
      life.leads(time, "reverting", "note", "find-way-back");
      life.is({ stage: "seeking", from: oldBuild, before: older, lastWords: null });
      life.is({ endingCause: "canonical" });
      life.says("vm-worker did not answer from 1.2.0 within 60000 ms");
    },
  },
  {
    name: "the deadline after the swap is not slept through",
    run: (step) => {
      const life = isNew(step).pass(limits.canonical_ms + agentTimes.late + 1);
      life.leads(time, "swapped", "note").is({ until: life.now + limits.canonical_ms });
      const late = isNew(step).pass(limits.canonical_ms + agentTimes.late);
      late.leads(time, "reverting", "note", "find-way-back").says("no role");
    },
  },
  {
    name: "what the new version sees of itself leads back, and an operator's silence never",
    run: (step) => {
      const life = isNew(step);
      life.fork().leads(faulted, "reverting", "note", "find-way-back").is({ lastWords: words });
      life.fork().ignores(life.marked({ withdrawn: { reason: "no" } }));
      const canonical = isCanonical(step);
      canonical.fork().leads(faulted, "reverting", "note", "find-way-back").says("it hangs");
      new Life(step).swaps().ignores(faulted);
    },
  },
  {
    name: "the old agent hears that the new one cannot be started",
    run: (step) => {
      const life = new Life(step).swaps();
      life.leads(life.roles(rolesOf(newBuild)), "swapped");
      life.fork().overdue().comes("reverting", "note", "find-way-back");
      life.leads(life.failed("systemd says no"), "reverting", "note", "find-way-back");
      life.says("systemd says no").is({ lastWords: words });
      life.leads(life.answer("way-back"), "reverting", "note", "swap-back");
      life.leads(life.answer("swapped"), "reverting", "note", "hand-over").is({ stage: "proving" });
      life.has({ current: oldBuild, previous: older });
      life.leads(life.roles(rolesOf(oldBuild)), "rolled-back", "stop-candidate", "note");
    },
  },
  {
    name: "a role that answered, and then does not any more",
    run: (step) => {
      const life = isCanonical(step);
      const bad = rolesOf(newBuild, { healthy: false });
      life.leads(life.roles(rolesOf(newBuild)), "canonical");
      for (let setback = 1; setback <= agentLimits.setbacks; setback += 1) {
        const one = life.fork().leads(life.roles(bad), "swapped", "note", "hand-over");
        one.is({ setbacks: setback, until: 1_060_000 }).says("vm-worker did");
        life.tell(life.roles(bad)).goes(life.roles(rolesOf(newBuild)), "canonical");
      }
      life.leads(life.roles(bad), "reverting", "note", "find-way-back").says("vm-worker did");
      const late = isCanonical(step).pass(50_000);
      late.tell(late.roles(bad)).is({ until: late.now + usualPace.settle });
    },
  },
  {
    name: "a candidate that will not go keeps the upgrade from its end",
    run: (step) => {
      const life = isCanonical(step).pass(usualPace.settle);
      life.leads(time, "canonical", "stop-candidate", "note").pass(agentTimes.stopAgain - 1);
      life.ignores(time).pass(1).leads(time, "canonical", "stop-candidate", "note");
      life.tell(life.candidateEnded()).overdue().comes("done", "note", "collect");
    },
  },
];

const ways: readonly Story[] = [
  {
    name: "the way back, proven by the old version",
    run: (step) => {
      const life = goesBack(step).ignores(faulted);
      life.leads(life.answer("way-back"), "reverting", "note", "swap-back");
      life.is({ stage: "swapping" });
      life.leads(life.answer("swapped"), "reverting", "note", "restart-canonical");
      life.is({ stage: "restarting", until: life.now + limits.canonical_ms });
      life.has({ current: oldBuild, previous: older });
      life.restart().comes("reverting", "note", "hand-over").is({ stage: "proving" });
      const left = { ...words, ending: "exited with 3" };
      life.fork().leads({ kind: "former-ended", lastWords: left }, "reverting", "note");
      life.leads(life.roles(rolesOf(oldBuild, { healthy: false })), "reverting");
      life.leads(life.roles(rolesOf(newBuild)), "reverting");
      life.leads(life.roles(rolesOf(oldBuild)), "rolled-back", "stop-candidate", "note");
      life.is({ build: newBuild, lastWords: words, endingCause: "canonical" }).says("it hangs");
      life.has({ seen: [transactionOf(1)] });
      // What it is asked for can come after the way back was proven.
      const late = life
        .fork()
        .leads({ kind: "former-ended", lastWords: left }, "rolled-back", "note");
      late.is({ lastWords: left }).says("it hangs");
      const next = { kind: "marker", marker: makeMarker(2, { build: thirdBuild }) } as const;
      const other = life.fork().leads(next, "rolled-back").overdue();
      other.comes("rolled-back", "stop-candidate", "note");
      other.leads(other.candidateEnded(), "staging", "note", "collect", "check");
      const ended = { ...words, ending: "ended by SIGTERM" };
      life.leads(life.candidateEnded(ended), "rolled-back", "note", "collect").is({ ending: null });
      life.is({ lastWords: words }).ignores({ kind: "marker", marker: makeMarker() });
      life.leads(next, "staging", "note", "check").has({ next: undefined });
    },
  },
  {
    name: "the candidate ends on the way back",
    run: (step) => {
      const life = goesBack(step);
      const other = { ...words, ending: "ended by SIGTERM" };
      // What the canonical agent left stays: the candidate has not failed.
      life.leads(life.candidateEnded(other), "reverting", "note").is({ lastWords: words });
      life.tell(life.answer("way-back")).tell(life.answer("swapped")).restart();
      life.leads(life.roles(rolesOf(oldBuild)), "rolled-back", "note", "collect");
    },
  },
  {
    name: "no way back: the committed version goes on, and tries again",
    run: (step) => {
      const life = goesBack(step).leads(
        goesBack(step).failed("damaged"),
        "swapped",
        "note",
        "hand-over",
      );
      life.says("it hangs; there is no way back: damaged");
      life.is({ until: life.now + limits.canonical_ms, starts: 0, setbacks: 0 });
      const well = life.fork().goes(life.roles(rolesOf(newBuild)), "canonical");
      well.is({ reason: null });
      life.overdue().comes("reverting", "note", "find-way-back");
    },
  },
  {
    name: "links that cannot be put back, a restart that is refused: again and again",
    run: (step) => {
      const life = goesBack(step).tell(goesBack(step).answer("way-back"));
      life
        .leads(life.failed(), "reverting", "note")
        .is({ until: life.now + agentTimes.revertAgain });
      life.ignores(time).overdue().comes("reverting", "note", "swap-back");
      life.tell(life.answer("swapped")).leads(life.failed(), "reverting", "note");
      life.overdue().comes("reverting", "note", "restart-canonical");
      life.is({ until: life.now + limits.canonical_ms });
    },
  },
  {
    name: "a search for the way back that does not end is begun again",
    run: (step) => {
      const life = goesBack(step).ignores(time).overdue();
      life.comes("reverting", "note", "find-way-back");
      life.is({ until: life.now + limits.canonical_ms });
    },
  },
  {
    name: "the old version does not answer in time either, and says so",
    run: (step) => {
      const life = goesBack(step).tell(goesBack(step).answer("way-back"));
      life.tell(life.answer("swapped")).restart();
      life.tell(life.roles(rolesOf(oldBuild, { healthy: false }))).pass(limits.canonical_ms - 1);
      life.ignores(time).pass(1).leads(time, "rolled-back", "stop-candidate", "note");
      life.says("it hangs; and vm-worker has not answered since");
    },
  },
];

const journals: readonly Story[] = [
  {
    name: "a journal that cannot be written ends an upgrade before the swap",
    run: (step) => {
      const begun = new Life(step).tell(new Life(step).marked());
      begun.leads(full, "aborted", "abandon", "note", "collect").says("no space left");
      begun.is({ endingCause: "host" });
      const life = inProbation(step);
      life.fork().leads(full, "aborted", "stop-candidate", "note");
      life.tell(life.committed());
      life.leads(full, "aborted", "abandon", "stop-candidate", "note").says("no space left");
    },
  },
  {
    name: "and is written again later, with what stood after it",
    run: (step) => {
      const life = new Life(step).tell(new Life(step).marked()).tell(full);
      const next = { kind: "marker", marker: makeMarker(2) } as const;
      life
        .leads(full, "aborted")
        .pass(agentTimes.noteAgain - 1)
        .ignores(time)
        .pass(1);
      life.leads(time, "aborted", "note", "collect").goes(next, "staging");
    },
  },
  {
    name: "after the swap the links say it already",
    run: (step) => {
      const life = new Life(step).swaps();
      life.leads(full, "swapped", "restart-canonical").restart();
      life
        .leads(full, "swapped")
        .pass(agentTimes.noteAgain - 1)
        .ignores(time)
        .pass(1);
      life.leads(time, "swapped", "note", "hand-over");
      life.leads(life.roles(rolesOf(newBuild)), "canonical", "stop-candidate", "note");
      life.leads(full, "canonical").pass(agentTimes.noteAgain);
      life.leads(time, "canonical", "stop-candidate", "note");
      const back = goesBack(step).leads(full, "reverting").pass(agentTimes.noteAgain);
      back.leads(time, "reverting", "note", "find-way-back");
    },
  },
];

export const stories: readonly Story[] = [
  ...ordinary,
  ...markers,
  ...probation,
  ...commits,
  ...ways,
  ...journals,
];
