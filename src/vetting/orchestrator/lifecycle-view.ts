import type { Activity } from "../protocol.ts";
import type { RunView } from "../protocol-operator.ts";
import { stages } from "../protocol-result.ts";
import { noProgress } from "./lifecycle-draft.ts";
import { overridesOf } from "./lifecycle-path.ts";
import type { Run } from "./lifecycle-state.ts";

/** What is known of an agent and kept nowhere: it is told again with the next heartbeat. */
export interface Presence {
  readonly activity: Activity | null;
  readonly dropped: number;
}

export const unheard: Presence = { activity: null, dropped: 0 };

export function runView(run: Run, presence: Presence, now: number): RunView {
  const { hold, heard, session } = run;
  return {
    ...{ run: run.run, mac: run.mac, host: run.host, spec: run.spec },
    ...{ spec_revision: run.specRevision, state: run.state, verdict: run.verdict },
    ...{ reason: run.reason, created: run.created, changed: run.changed, ended: run.ended },
    silent_ms: heard === null ? null : Math.max(0, Math.round(now - heard)),
    address: session?.address ?? hold?.address ?? null,
    agent_version: session?.version ?? null,
    activity: presence.activity,
    stages: stages.map((stage) => {
      const { outcome, summary, begun, started, ended } = run.stages[stage] ?? noProgress;
      return { stage, outcome, summary, attempts: begun, started, ended };
    }),
    overrides: [...overridesOf(run)],
    hold: hold && {
      since: hold.since,
      key_until: hold.key?.untilTime ?? null,
      host_key: hold.hostKey,
    },
    directives: run.directives.map(({ kind, since }) => ({ kind, since })),
    dropped: presence.dropped,
  };
}
