/** Agents in every phase and at every stage of it, as the old version and as the new one. */
import type { EventKind } from "../../../src/fleet/lifecycle-state.ts";
import { type AgentEvent, agentLimits } from "../../../src/fleet/lifecycle-state.ts";
import { SILENT_AFTER, upgradePhases } from "../../../src/fleet/protocol.ts";
import {
  instanceOf,
  Life,
  limits,
  makeMarker,
  newBuild,
  oldBuild,
  rolesOf,
  type StepFunction,
  thirdBuild,
  words,
} from "./life.ts";

export const phases = upgradePhases;

export interface NamedLife {
  readonly name: string;
  readonly life: Life;
}

type Make = (life: Life) => Life;

const time = { kind: "time" } as const;
const faulted = { kind: "faulted", reason: "it hangs", lastWords: words } as const;
const waiting = { kind: "marker", marker: makeMarker(5, { build: thirdBuild }) } as const;

const staging: Make = (life) => life.tell(life.marked());
const fetching: Make = (life) => staging(life).tell(life.accepted());
const verifying: Make = (life) => fetching(life).tell(life.answer("fetched"));
const starting: Make = (life) => verifying(life).tell(life.answer("proved"));
const ready: Make = (life) => starting(life).tell(life.candidateReady());
const heard: Make = (life) => {
  ready(life).pass(10_000).tell(life.heard("canonical"));
  return life.pass(30_000).tell(life.heard("candidate"));
};
const observed: Make = (life) => ready(life).tell(life.observed());
const held: Make = (life) => ready(life).pass(SILENT_AFTER).tell(time);
const overdue: Make = (life) => {
  ready(life).pass(limits.commit_ms - 1);
  return life.tell(life.heard("candidate")).tell(life.heard("canonical")).pass(1).tell(time);
};
const committed: Make = (life) => observed(life).tell(life.committed());
const swapping: Make = (life) => committed(life).tell(life.answer("intact"));
const swapped: Make = (life) => swapping(life).tell(life.answer("swapped"));
const started: Make = (life) => swapped(life).restart();
const canonical: Make = (life) => started(life).tell(life.roles(rolesOf(newBuild)));
const settledBack: Make = (life) => {
  canonical(life);
  for (let setback = 0; setback < agentLimits.setbacks; setback += 1) {
    life.tell(life.roles(rolesOf(newBuild, { healthy: false })));
    life.tell(life.roles(rolesOf(newBuild)));
  }
  return life;
};
const seeking: Make = (life) => started(life).tell(faulted);
const seekingOld: Make = (life) => swapped(life).tell(life.failed());
const goingBack: Make = (life) => seeking(life).tell(life.answer("way-back"));
const restarting: Make = (life) => goingBack(life).tell(life.answer("swapped"));
const proving: Make = (life) => restarting(life).restart();
const rolledBack: Make = (life) => proving(life).tell(life.roles(rolesOf(oldBuild)));
const withdrawn: Make = (life) => ready(life).tell(life.marked({ withdrawn: { reason: "no" } }));
const aborted: Make = (life) => withdrawn(life).tell(life.candidateEnded());
const done: Make = (life) => canonical(life).tell(life.candidateEnded()).overdue();
const waits =
  (make: Make): Make =>
  (life) =>
    make(life).tell(waiting);

const makes: Readonly<Record<string, Make>> = {
  idle: (life) => life,
  "idle, immutable": (life) => Object.assign(life, { executor: "immutable" as const }),
  ...{ staging, fetching, verifying, starting, "cutover-ready": ready, heard, observed },
  "starting, seen": (life) => starting(life).tell(life.observed()),
  "starting, committed": (life) => starting(life).tell(life.committed()),
  ...{ held, overdue },
  "held, observed": (life) => observed(life).pass(SILENT_AFTER).tell(time),
  "ready, resumed": (life) => ready(life).restart(),
  ...{ "commit-seen": committed, swapping, swapped, started, canonical, settledBack },
  "swapped, looked at": (life) => started(life).tell(life.roles(rolesOf(newBuild).slice(0, 0))),
  "canonical, alone": (life) => canonical(life).tell(life.candidateEnded()),
  "no way back": (life) => seeking(life).tell(life.failed("damaged")),
  ...{ reverting: seeking, seekingOld, goingBack, restarting, proving },
  "going back, old": (life) => seekingOld(life).tell(life.answer("way-back")),
  "proving, alone": (life) => proving(life).tell(life.candidateEnded()),
  ...{ done, aborted, withdrawn, "rolled-back": rolledBack },
  "rolled-back, alone": (life) => rolledBack(life).tell(life.candidateEnded()),
  "withdrawn, another waits": waits(withdrawn),
  "commit-seen, another waits": waits(committed),
  "canonical, another waits": waits((life) => canonical(life).tell(life.candidateEnded())),
  "rolled-back, another waits": waits(rolledBack),
};

export const makeLives = (step: StepFunction): NamedLife[] =>
  Object.entries(makes).map(([name, make]) => ({ name, life: make(new Life(step)) }));

type Events = { readonly [K in EventKind]: readonly AgentEvent[] };

/** Of every kind, in all shapes in which they could reach this agent now. */
export function makeEvents(life: Life): Events {
  const { marker, instance, ticket } = life;
  const { transaction } = marker;
  const progress = { bytes: 5, of_bytes: 10, fetched_bytes: 5, again_bytes: 0 };
  const changed = [
    {},
    { observed: instance },
    { observed: instanceOf(77) },
    { commit: { transaction, instance } },
    { commit: { transaction, instance: instanceOf(77) } },
    { withdrawn: { reason: "no" } },
    { build: thirdBuild },
    { build: { ...marker.build, version: "7.0.0" } },
    { manifest: "another" },
  ];
  return {
    marker: [
      ...changed.map((changes) => life.marked(changes)),
      { kind: "marker", marker: makeMarker(2, { build: thirdBuild }) },
      { kind: "marker", marker: makeMarker(2, { build: life.state.current }) },
      { kind: "marker", marker: makeMarker(2, { withdrawn: { reason: "no" } }) },
    ],
    accepted: [life.accepted(), life.accepted(null, 0)],
    progress: [{ kind: "progress", ticket, progress }],
    fetched: [life.answer("fetched")],
    proved: [life.answer("proved")],
    "candidate-ready": [life.candidateReady()],
    "candidate-ended": [life.candidateEnded(), life.candidateEnded(null)],
    heard: [life.heard("canonical"), life.heard("candidate")],
    intact: [life.answer("intact")],
    swapped: [life.answer("swapped")],
    "way-back": [life.answer("way-back")],
    failed: [life.failed()],
    roles: [
      ...[[], rolesOf(newBuild), rolesOf(oldBuild)].map((roles) => life.roles(roles)),
      life.roles(rolesOf(newBuild, { healthy: false })),
      life.roles(rolesOf(oldBuild, { digest: null })),
    ],
    faulted: [faulted, { ...faulted, lastWords: null }],
    "former-ended": [{ kind: "former-ended", lastWords: words }],
    "note-failed": [{ kind: "note-failed", reason: "no space left" }],
    time: [time],
  };
}

/** The same event, late: of another order, or of another candidate. */
export function makeStale(event: AgentEvent): AgentEvent[] {
  if ("ticket" in event) return [{ ...event, ticket: event.ticket - 1 }];
  if ("instance" in event) return [{ ...event, instance: instanceOf(1_000) }];
  return [];
}
