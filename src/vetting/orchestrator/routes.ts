import { describePrincipal, mayCall } from "../../http/principal.ts";
import { ProblemError } from "../../http/problem.ts";
import {
  type Call,
  defineRoute,
  defineStream,
  type Route,
  type StreamRoute,
} from "../../http/route.ts";
import { apiLimits, hostApi, runApi, specApi, vettingStreams } from "../protocol-api.ts";
import type { LiveEvent, RunView } from "../protocol-operator.ts";
import type { Stage } from "../protocol-result.ts";
import { checkRules } from "../spec/validate.ts";
import { dossierOf } from "./dossier.ts";
import type { RunInput } from "./lifecycle-state.ts";
import type { VettingOrchestrator } from "./orchestrator.ts";
import type { SpecRecord } from "./records.ts";

/** What an orchestrator is asked by people and programs. */
export function operatorRoutes(
  orchestrator: VettingOrchestrator,
  about: { readonly version: string; readonly name: string },
): readonly Route[] {
  return [
    ...hostRoutes(orchestrator),
    ...specRoutes(orchestrator),
    ...readingRoutes(orchestrator, about),
    ...beginRoutes(orchestrator),
    ...directingRoutes(orchestrator),
    ...holdRoutes(orchestrator),
  ];
}

function hostRoutes(orchestrator: VettingOrchestrator): readonly Route[] {
  return [
    defineRoute({
      ...hostApi.hosts,
      run(_call, { after = "" }) {
        const all = orchestrator.hosts;
        const rest = all.filter(({ mac }) => mac > after);
        const page = rest.slice(0, apiLimits.page);
        return {
          hosts: page.map((host) => orchestrator.hostView(host)),
          total: all.length,
          next: rest.length > page.length ? (page.at(-1)?.mac ?? null) : null,
        };
      },
    }),
    defineRoute({
      ...hostApi.hostAdd,
      async run(call, { mac, name, spec }) {
        const host = await orchestrator.addHost({ mac, name, spec });
        call.changed({ object: `host ${mac}`, after: { name: host.name, spec: host.spec } });
        return orchestrator.hostView(host);
      },
    }),
    defineRoute({
      ...hostApi.hostWindow,
      async run(call, { mac, for_ms: lasts }) {
        const host = await orchestrator.openWindow(mac, lasts);
        const view = orchestrator.hostView(host);
        call.changed({ object: `host ${mac}`, after: { window_until: view.window_until } });
        return view;
      },
    }),
    defineRoute({
      ...hostApi.hostRemove,
      async run(call, { mac }) {
        const { name, spec } = orchestrator.host(mac);
        await orchestrator.removeHost(mac);
        call.changed({ object: `host ${mac}`, before: { name, spec }, after: "removed" });
        return {};
      },
    }),
  ];
}

function specRoutes(orchestrator: VettingOrchestrator): readonly Route[] {
  return [
    defineRoute({
      ...specApi.specs,
      run: () => ({ specs: orchestrator.specs.map(summaryOf) }),
    }),
    defineRoute({
      ...specApi.spec,
      run(_call, { spec: name, revision: wanted }) {
        const { content, revision, changed } = orchestrator.spec(name, wanted);
        return { spec: content, revision, changed };
      },
    }),
    defineRoute({
      ...specApi.specPut,
      async run(call, { spec: name, content, expected_revision: expected }) {
        if (content.name !== name) {
          throw new ProblemError("request", "The spec says another name than it is put under", {
            expected: name,
            received: content.name,
            hint: "Say the same name in both places",
          });
        }
        checkContent(content);
        const record = await orchestrator.putSpec(content, expected);
        call.changed({ object: `spec ${name}`, after: { revision: record.revision } });
        return summaryOf(record);
      },
    }),
    defineRoute({
      ...specApi.specRemove,
      async run(call, { spec: name }) {
        const { revision } = orchestrator.spec(name);
        await orchestrator.removeSpec(name);
        call.changed({ object: `spec ${name}`, before: { revision }, after: "removed" });
        return {};
      },
    }),
  ];
}

/** @throws ProblemError request, for a rule that no host could be held to */
function checkContent({ rules }: SpecRecord["content"]): void {
  const [mistake] = checkRules(rules);
  if (mistake === undefined) return;
  const { index, at, expected, received, mend } = mistake;
  const message = `Rule ${index + 1} of the spec can be held by no host: its ${at} is wrong`;
  throw new ProblemError("request", message, { expected, received, hint: mend });
}

function summaryOf({ name, revision, content, changed }: SpecRecord) {
  return { name, revision, description: content.description, rules: content.rules.length, changed };
}

function readingRoutes(
  orchestrator: VettingOrchestrator,
  about: { readonly version: string; readonly name: string },
): readonly Route[] {
  const { records } = orchestrator;
  return [
    defineRoute({
      ...runApi.runs,
      run(_call, { before = Number.MAX_SAFE_INTEGER, mac, spec, open }) {
        const isOpen = open === undefined ? undefined : open === "true";
        const wanted = { mac, spec, isOpen };
        const found = records.listRuns({ ...wanted, before, limit: apiLimits.page + 1 });
        const page = found.slice(0, apiLimits.page);
        return {
          runs: page.map((run) => orchestrator.view(run)),
          total: records.countRuns(wanted),
          next: found.length > page.length ? (page.at(-1)?.run ?? null) : null,
        };
      },
    }),
    defineRoute({ ...runApi.run, run: (_call, { run }) => viewOf(orchestrator, run) }),
    defineRoute({
      ...runApi.dossier,
      run: (_call, { run }) => dossierOf(orchestrator, run, about),
    }),
    defineRoute({
      ...runApi.log,
      run(_call, { run, after = 0, stage }) {
        orchestrator.entry(run);
        const limit = apiLimits.page;
        const found = records.lines(run, { after, stage, limit });
        const last = found.at(-1)?.id ?? after;
        const next = found.length === limit ? last : null;
        return { lines: found.map(({ line }) => line), next, last };
      },
    }),
  ];
}

function beginRoutes(orchestrator: VettingOrchestrator): readonly Route[] {
  return [
    defineRoute({
      ...runApi.start,
      async run(call, { mac, spec, window_ms: window = 0 }) {
        const who = describePrincipal(call.principal);
        const run = await orchestrator.startRun(mac, { spec, who, window });
        const { spec: held, specRevision: revision } = run;
        call.changed({ object: `run ${run.run}`, after: { mac, spec: held, revision } });
        return orchestrator.view(run);
      },
    }),
    defineRoute({
      ...runApi.token,
      async run(call, { run, replace: replaces = false }) {
        const { mac, ended } = orchestrator.entry(run).run;
        if (ended !== null) {
          throw new ProblemError("gone", `Run ${run} has ended`, {
            expected: "a run that is open",
            received: `one that ended at ${ended}`,
            hint: "Start another run: hostler vetting start HOST",
          });
        }
        const who = describePrincipal(call.principal);
        const minted = await orchestrator.mintBootToken(mac, { who, replaces });
        if ("reason" in minted) throw new ProblemError("conflict", minted.message);
        call.changed({ object: `run ${run}`, after: "a token of a boot" });
        return { ...minted, mac };
      },
    }),
  ];
}

/** Has an operator's word happen to a run. */
async function tell(
  orchestrator: VettingOrchestrator,
  call: Call,
  asked: { readonly run: number; readonly input: RunInput; readonly after: unknown },
): Promise<RunView> {
  const { run, input, after } = asked;
  const before = orchestrator.entry(run).run.state;
  const told = await orchestrator.post(run, input);
  call.changed({ object: `run ${run}`, before, after });
  return orchestrator.view(told.run);
}

function directingRoutes(orchestrator: VettingOrchestrator): readonly Route[] {
  return [
    defineRoute({
      ...runApi.cancel,
      async run(call, { run, reason = "" }) {
        const who = describePrincipal(call.principal);
        const input = { kind: "cancel", who, reason } as const;
        return await tell(orchestrator, call, { run, input, after: { cancel: reason } });
      },
    }),
    defineRoute({
      ...runApi.abort,
      async run(call, { run, reason = "" }) {
        const who = describePrincipal(call.principal);
        const input = { kind: "abort", who, reason } as const;
        return await tell(orchestrator, call, { run, input, after: { abort: reason } });
      },
    }),
    defineRoute({
      ...runApi.retry,
      async run(call, { run, stage = null, wipe = [], reason = "" }) {
        const who = describePrincipal(call.principal);
        const mayWipe = mayCall(call.principal, "wipe");
        const input = { kind: "retry", who, stage, wipe, mayWipe, reason } as const;
        return await tell(orchestrator, call, { run, input, after: { retry: stage, wipe } });
      },
    }),
    defineRoute({
      ...runApi.override,
      async run(call, { run, what, reason }) {
        const who = describePrincipal(call.principal);
        const input = { kind: "override", who, what, reason } as const;
        return await tell(orchestrator, call, { run, input, after: { override: what, reason } });
      },
    }),
  ];
}

function holdRoutes(orchestrator: VettingOrchestrator): readonly Route[] {
  return [
    defineRoute({
      ...runApi.hold,
      async run(call, { run, key, for_ms: lasts }) {
        const who = describePrincipal(call.principal);
        const untilTime = orchestrator.timeAfter(lasts);
        const input = { kind: "hold", who, key, lasts, untilTime } as const;
        return await tell(orchestrator, call, { run, input, after: { key, until: untilTime } });
      },
    }),
    defineRoute({
      ...runApi.release,
      async run(call, { run, after, reason = "" }) {
        const who = describePrincipal(call.principal);
        const input = { kind: "release", who, after, reason } as const;
        return await tell(orchestrator, call, { run, input, after: { release: after } });
      },
    }),
  ];
}

/** @throws ProblemError not-found */
function viewOf(orchestrator: VettingOrchestrator, run: number): RunView {
  return orchestrator.view(orchestrator.entry(run).run);
}

/** Lines and readings of all hosts at once are nobody's to read: they are told of one run. */
const isDetail = (event: LiveEvent) => event.kind === "log" || event.kind === "sensors";

function runOf(event: LiveEvent): number | undefined {
  if (event.kind === "host") return undefined;
  return event.kind === "run" ? event.view.run : event.run;
}

export function operatorStreams(orchestrator: VettingOrchestrator): readonly StreamRoute[] {
  const { book } = orchestrator;
  return [
    defineStream({
      ...vettingStreams.events,
      async *stream({ signal }, _input, after) {
        const now = () => orchestrator.snapshot();
        const wanted = { signal, now, isWanted: (event: LiveEvent) => !isDetail(event) };
        for await (const { id, event } of book.follow(after, wanted)) {
          yield { id, event: event.kind, data: event };
        }
      },
    }),
    defineStream({
      ...vettingStreams.runEvents,
      async *stream({ signal }, { run }, after) {
        viewOf(orchestrator, run);
        const now = () => [{ kind: "run", view: viewOf(orchestrator, run) } as const];
        const wanted = { signal, now, isWanted: (event: LiveEvent) => runOf(event) === run };
        for await (const { id, event } of book.follow(after, wanted)) {
          yield { id, event: event.kind, data: event };
        }
      },
    }),
    defineStream({
      ...vettingStreams.logs,
      async *stream({ signal }, { run, stage }, after) {
        yield* linesOf(orchestrator, { run, stage, after: Number(after ?? 0) || 0 }, signal);
      },
    }),
  ];
}

/**
 * Read from the database, so that whoever is slow misses nothing; the book tells when to look. Ends
 * when the run has ended, and its agent has told what it had to say of it.
 */
async function* linesOf(
  orchestrator: VettingOrchestrator,
  wanted: { readonly run: number; readonly stage: Stage | undefined; readonly after: number },
  signal: AbortSignal,
) {
  const { run, stage } = wanted;
  viewOf(orchestrator, run);
  const read = {
    after: wanted.after,
    *rest() {
      for (;;) {
        const limit = apiLimits.page;
        const found = orchestrator.records.lines(run, { after: this.after, stage, limit });
        for (const { id, line } of found) {
          this.after = id;
          yield { id: String(id), event: "line", data: line };
        }
        if (found.length < limit || signal.aborted) return;
      }
    },
  };
  const end = new AbortController();
  const news = orchestrator.book.follow(undefined, {
    signal: AbortSignal.any([signal, end.signal]),
    isWanted: (event) => event.kind !== "sensors" && runOf(event) === run,
    now: () => [{ kind: "log", run, lines: [] }],
  });
  let last: Disposable | undefined;
  try {
    for await (const _ of news) {
      yield* read.rest();
      last ??= orchestrator.afterLastLines(run, () => end.abort());
    }
    yield* read.rest();
  } finally {
    last?.[Symbol.dispose]();
  }
}
