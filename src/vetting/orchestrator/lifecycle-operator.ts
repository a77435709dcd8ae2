import { stateOf } from "../protocol.ts";
import { nothing, over, type RunDraft, refused } from "./lifecycle-draft.ts";
import { isAtOrBefore, isOnPath } from "./lifecycle-path.ts";
import type { RunAnswer, RunInput } from "./lifecycle-state.ts";

/** What an operator says, and what comes of it. Pure. */

type Input<Kind extends RunInput["kind"]> = Extract<RunInput, { readonly kind: Kind }>;

export function cancel(draft: RunDraft, { who, reason }: Input<"cancel">): RunAnswer {
  const { run } = draft;
  if (run.ended !== null) return over(draft);
  if (run.state === "FailedHolding") {
    return wrong(draft, "a run that is under way", "Release its host: that ends it as failed");
  }
  draft.note(who, "state", `cancel${words(reason)}`);
  draft.untell("retry");
  draft.tell("cancel", run.attempt?.stage ?? null);
  // There is nothing to wait for, or nobody who could tell its end.
  const isIdle = run.attempt === null || run.session === null || !isOnPath(run.state);
  if (!isIdle) return nothing;
  draft.moveTo("Cancelled", `${who} cancelled it${words(reason)}`);
  draft.end("cancelled", `${who} cancelled it${words(reason)}`);
  return nothing;
}

export function abort(draft: RunDraft, { who, reason }: Input<"abort">): RunAnswer {
  const { run } = draft;
  if (run.ended !== null) return over(draft);
  draft.note(who, "state", `abort${words(reason)}`);
  draft.untell("cancel", "retry", "shutdown", "reboot");
  draft.tell("abort", null);
  draft.moveTo("Aborted", `${who} aborted it${words(reason)}`);
  draft.end("aborted", `${who} aborted it${words(reason)}`);
  return nothing;
}

export function retry(draft: RunDraft, asked: Input<"retry">): RunAnswer {
  const { run, context } = draft;
  const { failure } = run;
  if (run.ended !== null) return over(draft);
  if (run.state !== "FailedHolding" || failure === null) {
    return wrong(draft, "a run that holds", "Cancel it, and start another one");
  }
  if (failure.kind === "identity") {
    return wrong(draft, "a host that is known", "Look at it; then override identity");
  }
  const last = failure.kind === "rules" ? "Inventory" : failure.stage;
  const stage = asked.stage ?? last;
  const isThere = stage === "Inventory" || context.spec.stages[stage].enabled;
  if (!isAtOrBefore(stage, last) || !isThere) {
    return wrong(draft, `${last} or a stage before it that the spec has`, "Name another stage");
  }
  if (asked.wipe.length > 0 && stage !== "Storage") {
    return wrong(draft, "Storage, where disks are given up", "Retry Storage with the wipe");
  }
  if (asked.wipe.length > 0 && !asked.mayWipe) {
    return refused({
      kind: "forbidden",
      message: "Giving up what is on a disk asks for a permission of its own",
      expected: "the permission wipe",
      received: asked.who,
      hint: "hostler identity operator add NAME --role operate --permit wipe",
    });
  }
  const given = asked.wipe.length === 0 ? "" : `, giving up ${asked.wipe.join(", ")}`;
  draft.note(asked.who, "state", `retry ${stage}${given}${words(asked.reason)}`);
  if (asked.wipe.length > 0) draft.change({ wipe: { stage, serials: asked.wipe } });
  draft.setProgress(stage, { crashed: 0 });
  draft.tell("retry", stage);
  draft.moveTo(stateOf(stage), "");
  return nothing;
}

export function override(draft: RunDraft, { who, what, reason }: Input<"override">): RunAnswer {
  const { run } = draft;
  const { failure } = run;
  if (run.ended !== null) return over(draft);
  if (run.state !== "FailedHolding" || failure === null) {
    return wrong(draft, "a run that holds", "There is nothing to accept");
  }
  const failed = failure.kind === "stage" ? failure.stage : overridable[failure.kind];
  if (failed !== what)
    return wrong(draft, `what failed: ${failed}`, `hostler vetting override ${run.run} ${failed}`);
  if (what === "Inventory") {
    return wrong(draft, "a stage that others do not stand on", "Retry Inventory");
  }
  draft.note(who, "override", `${what}${words(reason)}`);
  draft.tell("retry", null);
  accept(draft, failure);
  return nothing;
}

const overridable = { rules: "SpecValidate", identity: "identity" } as const;

function accept(draft: RunDraft, failure: NonNullable<RunDraft["run"]["failure"]>): void {
  switch (failure.kind) {
    case "stage":
      draft.setProgress(failure.stage, { isOverridden: true });
      draft.change({ failure: null });
      draft.advance(stateOf(failure.stage));
      break;
    case "rules":
      draft.change({ failure: null, areRulesOverridden: true });
      draft.advance("SpecValidate");
      break;
    case "identity": {
      const { claimed: identity, claimedMacs: acceptedMacs = [], from, before } = failure;
      draft.change({ failure: before, identity, acceptedMacs, isIdentityOverridden: true });
      draft.writes.push({ kind: "identity", identity });
      draft.moveTo(from, "an operator accepted another identity");
    }
  }
}

export function hold(draft: RunDraft, asked: Input<"hold">): RunAnswer {
  const { run, context } = draft;
  if (run.ended !== null) return over(draft);
  if (run.state !== "FailedHolding" || run.hold === null) {
    return wrong(draft, "a run that holds", "A key is given to a host that holds, and to no other");
  }
  const { who, key: line, lasts, untilTime } = asked;
  if (run.hold.key !== null && run.hold.key.line !== line) draft.tell("revoke-hold", null);
  const until = context.now + lasts;
  draft.change({ hold: { ...run.hold, key: { line, until, untilTime } }, changed: context.time });
  draft.note(who, "hold", `a key until ${untilTime}: ${line.slice(0, 400)}`);
  return nothing;
}

export function release(draft: RunDraft, { who, after, reason }: Input<"release">): RunAnswer {
  const { run, context } = draft;
  if (run.ended !== null && (run.session === null || after === "stay")) return over(draft);
  if (run.ended === null && run.state !== "FailedHolding") {
    return wrong(draft, "a run that holds", "Cancel it, or abort it");
  }
  draft.note(who, "release", `${after}${words(reason)}`);
  if (run.hold !== null) {
    if (run.hold.key !== null) draft.tell("revoke-hold", null);
    draft.change({ hold: { ...run.hold, key: null }, changed: context.time });
  }
  if (after === "stay") return nothing;
  draft.tell(after, null);
  if (run.ended === null) draft.end("failed", run.reason);
  return nothing;
}

const words = (reason: string) => (reason === "" ? "" : `: ${reason}`);

function wrong({ run: { run, state } }: RunDraft, expected: string, hint: string): RunAnswer {
  const message = `Run ${run} is in ${state}, where this means nothing`;
  return refused({ kind: "conflict", message, expected, received: `run ${run} in ${state}`, hint });
}
