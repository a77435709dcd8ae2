import { type HardwareIdentity, type Inventory, identityOf } from "../../hardware/inventory.ts";
import { type Acknowledgement, LOST_AFTER, stageOf, stateOf } from "../protocol.ts";
import {
  type Evidence,
  type Outcome,
  type Stage,
  type StageReport,
  stages,
} from "../protocol-result.ts";
import type { RuleFinding, StageSettings } from "../protocol-spec.ts";
import { validateRequired } from "../spec/required.ts";
import { nothing, over, type RunDraft, refused } from "./lifecycle-draft.ts";
import { isFailure, isOnPath, isSameIdentity, outcomeOf } from "./lifecycle-path.ts";
import {
  type ClaimFacts,
  type OpenAttempt,
  type Run,
  type RunAnswer,
  type RunInput,
  runLimits,
  runPace,
} from "./lifecycle-state.ts";

/** What an agent says, and what comes of it. Pure. */

type Input<Kind extends RunInput["kind"]> = Extract<RunInput, { readonly kind: Kind }>;

/** A token was given out: whoever spoke before is of an earlier boot. */
export function boot(draft: RunDraft, { token, who, replaces }: Input<"boot">): RunAnswer {
  const { run, context } = draft;
  if (run.ended !== null) return over(draft);
  const living = who === null || replaces === true ? undefined : refuseLiving(draft);
  if (living !== undefined) return living;
  const until = context.now + runPace.tokenLifetime;
  draft.change({ boot: { hash: token, until, claimedBy: null, isDoubted: false }, session: null });
  if (who === null)
    draft.note("orchestrator", "booted", "its boot script was fetched: a new token");
  else draft.note(who, "booted", "took a new token for it");
  if (run.state === "Queued") draft.moveTo("Booting", "");
  return nothing;
}

/** A token that an operator takes by mistake must not end what a host is at. */
function refuseLiving({ run, context }: RunDraft): RunAnswer | undefined {
  const { session, heard, heardTime } = run;
  const silence = heard === null ? Number.POSITIVE_INFINITY : context.now - heard;
  if (session === null || silence >= LOST_AFTER) return undefined;
  const where = `hostler ${session.version} at ${session.address ?? "an unknown address"}`;
  const seconds = Math.max(0, Math.round(silence / 1_000));
  const living = `${where}, in ${run.state}, heard ${seconds} s ago (${heardTime ?? "no time"})`;
  return refused({
    kind: "conflict",
    // Commands print the message and the hint alone.
    message: `Another token would end the session of run ${run.run}: ${living}`,
    expected: `a run whose host was not heard for ${LOST_AFTER / 1_000} s, or the word to replace`,
    received: living,
    hint: `If that host is to boot anew: hostler vetting token ${run.run} --replace --address …`,
  });
}

export function claim(draft: RunDraft, facts: Input<"claim">): RunAnswer {
  const unfit = facts.by === "token" ? refuseToken(draft, facts) : refuseSession(draft, facts);
  if (unfit !== undefined) return unfit;
  const { run } = draft;
  const { session: hash, instance, bootId, address, version } = facts;
  draft.change({ session: { hash, instance, bootId, address, version } });
  if (facts.by === "token" && run.boot !== null) {
    draft.change({ boot: { ...run.boot, claimedBy: instance } });
  }
  draft.note("agent", "claimed", `hostler ${version} at ${address ?? "an unknown address"}`);
  // Whoever claims knows the state by the answer: nothing has to tell it to go on.
  draft.untell("retry");
  heard(draft);
  identify(draft, facts);
  const { attempt } = draft.run;
  if (attempt !== null && attempt.bootId !== bootId) {
    crash(draft, attempt, "the host was booted anew", facts.evidence);
  }
  return { kind: "state", state: draft.run.state };
}

function refuseToken(draft: RunDraft, facts: ClaimFacts): RunAnswer | undefined {
  const { run, context } = draft;
  if (run.ended !== null) return over(draft);
  const { boot: token } = run;
  if (token === null || token.until <= context.now) {
    return refused({
      kind: "gone",
      message: "This token of a boot is not good any more",
      expected: `a claim within ${runPace.tokenLifetime / 60_000} minutes of the boot script`,
      received: token === null ? "a token that was ended" : "a later one",
      hint: "Boot the host anew inside its boot window",
    });
  }
  if (token.claimedBy === null || token.claimedBy === facts.instance) return undefined;
  // Once: whoever tries without end cannot fill the run's events.
  if (!token.isDoubted) {
    draft.change({ boot: { ...token, isDoubted: true } });
    draft.note("orchestrator", "claimed", "refused: the token was used a second time");
  }
  return refused({
    kind: "conflict",
    message: "This token was used already, by another process of an agent",
    expected: "one claim with each token",
    received: "a second one",
    hint: "If it was not this host, somebody read its boot script: cancel the run, and boot anew",
  });
}

function refuseSession({ run }: RunDraft, { bootId }: ClaimFacts): RunAnswer | undefined {
  if (run.session?.bootId === bootId) return undefined;
  return otherBoot(run, bootId);
}

function otherBoot({ session }: Run, bootId: string): RunAnswer {
  return refused({
    kind: "conflict",
    message: "This session is of another boot, or of none",
    expected: `boot ${session?.bootId ?? "none"}`,
    received: `boot ${bootId}`,
    hint: "Boot the host anew inside its boot window: that gives a token",
  });
}

/** Who claims, by what it tells of itself. */
type Claimed = Pick<ClaimFacts, "identity" | "mac" | "macs">;

/**
 * The first claim says what the host is, and each later one has to say the same. A host whose
 * SMBIOS says nothing is known by its cards alone, so that one of them is the run's in every claim.
 */
function identify(draft: RunDraft, claimed: ClaimFacts): void {
  const { run } = draft;
  const { identity } = claimed;
  if (run.ended !== null) return;
  if (!isCardOf(run, claimed) || !isSameIdentity(run.identity ?? identity, identity)) {
    mistake(draft, claimed);
    return;
  }
  if (run.identity === null) {
    draft.change({ identity });
    draft.writes.push({ kind: "identity", identity });
  }
  if (run.failure?.kind === "identity") {
    // The right machine is back.
    const { from, before } = run.failure;
    draft.change({ failure: before });
    draft.moveTo(from, from === "FailedHolding" ? "it holds as before" : "");
  }
  if (["Queued", "Booting"].includes(draft.run.state)) draft.moveTo("InventoryCheck", "");
}

function isCardOf(run: Run, { mac, macs }: Claimed): boolean {
  const isOurs = (one: string) => one === run.mac || run.acceptedMacs?.includes(one) === true;
  return macs.some(isOurs) && (mac === null || isOurs(mac));
}

function mistake(draft: RunDraft, told: Claimed): void {
  const { run } = draft;
  const { identity: claimed, macs: claimedMacs } = told;
  const from = ["Queued", "Booting"].includes(run.state) ? "InventoryCheck" : run.state;
  const difference = differences(run, told);
  draft.note("orchestrator", "identity-changed", difference);
  draft.untell("retry");
  draft.fail(
    run.failure?.kind === "identity"
      ? { ...run.failure, claimed, claimedMacs }
      : { kind: "identity", claimed, claimedMacs, from, before: run.failure },
    `identity changed: ${difference}`,
  );
}

/** Cards that a difference names: a reason has its length. */
const NAMED_CARDS = 8;

function differences(run: Run, told: Claimed): string {
  const { identity: received, mac, macs } = told;
  const expected = run.identity ?? received;
  const names = { uuid: "UUID", system_serial: "serial", board_serial: "serial of the board" };
  const changed = (Object.keys(names) as (keyof HardwareIdentity)[])
    .filter((key) => expected[key] !== received[key])
    .map((key) => `${names[key]} was ${expected[key] ?? "none"}, is ${received[key] ?? "none"}`);
  if (isCardOf(run, told)) return changed.join("; ");
  const named = macs.slice(0, NAMED_CARDS).join(", ");
  const more = macs.length > NAMED_CARDS ? ` and ${macs.length - NAMED_CARDS} more` : "";
  const booted = mac === null || mac === run.mac ? "" : `, and was booted from ${mac}`;
  const has = macs.length === 0 ? "tells no card" : `has ${named}${more}`;
  return [`the run is of card ${run.mac}, this host ${has}${booted}`, ...changed].join("; ");
}

/** It speaks: a lost host is back where it was. */
export function heard(draft: RunDraft): void {
  const { now, time } = draft.context;
  draft.change({ heard: now, heardTime: time });
  const { run } = draft;
  if (run.state !== "Lost" || run.ended !== null || run.lostIn === null) return;
  const back = run.lostIn;
  draft.change({ lostIn: null });
  draft.note("agent", "resumed", "the host spoke again");
  draft.moveTo(back, "");
}

/** An attempt that ended without a word. Too many are a FAIL, which nobody else can write. */
function crash(
  draft: RunDraft,
  attempt: OpenAttempt,
  why: string,
  told: readonly Evidence[] = [],
): void {
  const { stage, number } = attempt;
  const crashed = draft.progress(stage).crashed + 1;
  const { attempts: most } = draft.context.spec.stages[stage];
  draft.setProgress(stage, { crashed });
  draft.change({ attempt: null, spent: [...draft.run.spent, attempt.id] });
  const said = `attempt ${number} of ${stage} ended without a result: ${why}`;
  draft.note("orchestrator", "attempt", `${said} (${crashed} of ${most})`);
  if (crashed < most || draft.run.state !== stateOf(stage)) return;
  const summary = `The host died in ${crashed} attempts`;
  const evidence = [...told, ...draft.context.lastWords()];
  draft.writeOwn(stage, diedReport(summary, most, evidence), number);
  draft.fail({ kind: "stage", stage }, `${stage}: ${summary}`);
}

function diedReport(summary: string, most: number, evidence: readonly Evidence[]): StageReport {
  return {
    ...{ outcome: "FAIL", summary, coverage: [], engines: [], measurements: [], deltas: [] },
    findings: [
      {
        ...{ outcome: "FAIL", code: "host-died", component: "host", message: summary },
        expected: `a result within ${most} attempts`,
        found: "attempts that were begun, and no result of them",
      },
    ],
    evidence: [...evidence].slice(0, 64),
  };
}

export function attempt(draft: RunDraft, asked: Input<"attempt">): RunAnswer {
  const other = refuseInstance(draft, asked.instance);
  if (other !== undefined) return other;
  heard(draft);
  const { attempt: open, spent } = draft.run;
  const go = (): RunAnswer => ({ kind: "state", state: draft.run.state });
  // It was told late, or twice: it counts for nothing any more.
  if (spent.includes(asked.attempt)) return go();
  if (draft.run.state !== stateOf(asked.stage) || draft.run.ended !== null) return go();
  if (open?.id === asked.attempt) return start(open);
  if (open !== null) crash(draft, open, "the agent began another one");
  if (draft.run.state !== stateOf(asked.stage) || draft.isTold("cancel")) return go();
  if (spent.length >= runLimits.attempts) {
    draft.fail({ kind: "stage", stage: asked.stage }, `a run has ${runLimits.attempts} attempts`);
    return go();
  }
  return begin(draft, asked);
}

function begin(draft: RunDraft, { attempt: id, stage }: Input<"attempt">): RunAnswer {
  const { run, context } = draft;
  const { begun } = draft.progress(stage);
  const number = begun + 1;
  const wipe = run.wipe?.stage === stage ? run.wipe.serials : [];
  const bootId = run.session?.bootId ?? "";
  const opened = { id, stage, number, bootId, began: context.time, wipe };
  draft.change({ attempt: opened, wipe: null, failure: null });
  // What the attempt before it came to is in its result, and is not this one's.
  const fresh = { outcome: null, summary: "", ended: null, isOverridden: false };
  draft.setProgress(stage, { ...fresh, begun: number, started: context.time });
  draft.untell("retry");
  const given = wipe.length === 0 ? "" : `; the contents of ${wipe.join(", ")} are given up`;
  draft.note("agent", "attempt", `attempt ${number} of ${stage} begins${given}`);
  return start(opened);
}

const start = ({ number, wipe }: OpenAttempt): RunAnswer => ({ kind: "start", number, wipe });

export function result(draft: RunDraft, told: Input<"result">): RunAnswer {
  heard(draft);
  const before = draft.run.answers.find((answer) => answer.result === told.result);
  if (before !== undefined) return { kind: "state", state: before.next };
  const { attempt: open } = draft.run;
  if (open === null || open.id !== told.attempt) return { kind: "state", state: draft.run.state };
  if (open.stage !== told.stage) {
    return refused({
      kind: "request",
      message: "This result is of another stage than its attempt",
      expected: open.stage,
      received: told.stage,
      hint: "Tell the stage that the attempt was begun for",
    });
  }
  keep(draft, told, open);
  if (isOnPath(draft.run.state)) judge(draft, told);
  settle(draft);
  const next = draft.run.state;
  draft.change({ answers: [...draft.run.answers, { result: told.result, next }] });
  return { kind: "state", state: next };
}

function keep(draft: RunDraft, told: Input<"result">, open: OpenAttempt): void {
  const { report, stage, cancelled } = told;
  const { time } = draft.context;
  const outcome = outcomeOf(report);
  draft.writes.push({
    kind: "result",
    result: {
      ...{ stage, attempt: open.number, source: "agent", cancelled },
      ...{ started: open.began, ended: time, duration_ms: told.duration, report },
    },
  });
  draft.change({ attempt: null, spent: [...draft.run.spent, open.id] });
  const { summary } = report;
  draft.setProgress(stage, { outcome, summary, ended: time, isOverridden: false });
  const word = cancelled ? "cancelled" : outcome;
  draft.note("agent", "result", `${stage} ${word}: ${report.summary}`);
}

function judge(draft: RunDraft, { stage, cancelled, report }: Input<"result">): void {
  const failed = (why: string) => draft.fail({ kind: "stage", stage }, `${stage}: ${why}`);
  if (cancelled) {
    draft.setProgress(stage, { outcome: "ERROR" });
    if (!draft.isTold("cancel")) failed("it was cancelled, and no operator asked for that");
    return;
  }
  draft.setProgress(stage, { crashed: 0 });
  const outcome = outcomeOf(report);
  if (isFailure(outcome)) {
    failed(whatIsWrong(report, outcome));
    return;
  }
  const [missed] = missedIn(draft, stage, report);
  if (missed !== undefined) {
    draft.setProgress(stage, { outcome: "FAIL" });
    failed(`the spec requires that ${missed.expected}; ${missed.found}`);
    return;
  }
  if (stage === "Inventory") validate(draft, report);
  else draft.advance(stateOf(stage));
}

/** What is wrong: a summary says what was done. */
function whatIsWrong({ findings, summary }: StageReport, outcome: Outcome): string {
  const [worst, ...others] = findings.filter((one) => one.outcome === outcome);
  if (worst === undefined) return summary;
  const whose = worst.component === "host" ? "" : `${worst.component}: `;
  return `${whose}${worst.message}${others.length === 0 ? "" : `, and ${others.length} more`}`;
}

/** What the spec requires to have been seen, and was not. */
function missedIn(draft: RunDraft, stage: Stage, report: StageReport): readonly RuleFinding[] {
  const { [stage]: settings } = draft.context.spec.stages;
  // The stages after this one have seen nothing yet.
  const only = Object.fromEntries(
    stages.map((one) => [one, { ...settings, required: one === stage ? settings.required : [] }]),
  ) as unknown as StageSettings;
  const found = validateRequired({ stages: only }, { [stage]: report });
  return found.filter(({ outcome }) => isFailure(outcome));
}

const cardsOf = ({ network }: Inventory) => network.map(({ mac }) => mac);

/** SpecValidate resolves inside of the answer to Inventory's result. */
function validate(draft: RunDraft, { inventory }: StageReport): void {
  const { run, context } = draft;
  if (inventory === undefined) {
    draft.setProgress("Inventory", { outcome: "FAIL" });
    draft.fail({ kind: "stage", stage: "Inventory" }, "Inventory: it told no inventory");
    return;
  }
  const found = identityOf(inventory);
  if (run.identity !== null && !isSameIdentity(run.identity, found)) {
    mistake(draft, { identity: found, mac: null, macs: cardsOf(inventory) });
    return;
  }
  draft.moveTo("SpecValidate", "");
  const rules = context.validate(inventory);
  draft.writes.push({ kind: "rules", rules });
  const broken = rules.filter(({ outcome }) => isFailure(outcome));
  const hasRuleWarnings = rules.some(({ outcome }) => outcome === "WARN");
  draft.change({ hasRuleWarnings, areRulesOverridden: false });
  if (broken.length === 0) {
    draft.advance("SpecValidate");
    return;
  }
  const [first] = broken;
  const rest = broken.length === 1 ? "" : `, and ${broken.length - 1} more`;
  const words = `${first?.path}: expected ${first?.expected}, found ${first?.found}${rest}`;
  draft.fail({ kind: "rules" }, `SpecValidate: ${words}`);
}

export function heartbeat(draft: RunDraft, told: Input<"heartbeat">): RunAnswer {
  const other = refuseInstance(draft, told.instance) ?? refuseBoot(draft, told.bootId);
  if (other !== undefined) return other;
  heard(draft);
  for (const one of told.acknowledged) acknowledge(draft, one);
  return { kind: "state", state: draft.run.state };
}

function acknowledge(draft: RunDraft, { id, result: how, reason }: Acknowledgement): void {
  const told = draft.run.directives.find((directive) => directive.id === id);
  if (told === undefined) return;
  draft.change({ directives: draft.run.directives.filter((directive) => directive.id !== id) });
  draft.note(
    "agent",
    "acknowledged",
    `${told.kind}: ${how}${reason === null ? "" : `: ${reason}`}`,
  );
  if (told.kind === "cancel" && how === "done" && draft.run.ended === null) cancelled(draft);
  const isWaiting = stageOf(draft.run.state) !== undefined && draft.run.attempt === null;
  if (told.kind === "retry" && how !== "done" && isWaiting && told.until > draft.context.now) {
    // It was told before the host held: once more, as another directive.
    const again = { ...told, id: draft.context.draw() };
    draft.change({ directives: [...draft.run.directives, again] });
  }
}

/** A cancel that waited for the stage to end, which it has. */
export function settle(draft: RunDraft): void {
  const { ended, attempt: open } = draft.run;
  if (ended === null && open === null && draft.isTold("cancel")) cancelled(draft);
}

/** The run ends as cancelled; one that has failed meanwhile ends as that. */
export function cancelled(draft: RunDraft): void {
  if (draft.run.state === "FailedHolding") {
    // One that holds has no stage to cancel.
    if (draft.isTold("cancel")) draft.tell("shutdown", null);
    draft.untell("cancel");
    draft.end("failed", draft.run.reason);
    return;
  }
  draft.moveTo("Cancelled", "an operator cancelled it");
  draft.end("cancelled", "an operator cancelled it");
}

export function holdAsked(draft: RunDraft, asked: Input<"hold-asked">): RunAnswer {
  const other = refuseInstance(draft, asked.instance);
  if (other !== undefined) return other;
  heard(draft);
  const { hold, ended, state } = draft.run;
  if (hold === null || ended !== null || state !== "FailedHolding") return nothing;
  const { address, hostKey } = asked;
  if (hold.address !== address || hold.hostKey !== hostKey) {
    draft.change({ hold: { ...hold, address, hostKey } });
    draft.note(
      "agent",
      "hold",
      `it holds at ${address ?? "no address"}, host key ${hostKey ?? "none"}`,
    );
  }
  const lasts = hold.key === null ? 0 : Math.round(hold.key.until - draft.context.now);
  if (hold.key === null || lasts < 1) return nothing;
  return { kind: "key", line: hold.key.line, lasts };
}

function refuseInstance({ run }: RunDraft, instance: string): RunAnswer | undefined {
  if (run.session?.instance === instance) return undefined;
  return refused({
    kind: "conflict",
    message: "Another process of an agent has claimed this run",
    expected: run.session === null ? "a claim" : "the process that claimed last",
    received: "another one",
    hint: "Claim again, by the session",
  });
}

function refuseBoot({ run }: RunDraft, bootId: string): RunAnswer | undefined {
  return run.session?.bootId === bootId ? undefined : otherBoot(run, bootId);
}
