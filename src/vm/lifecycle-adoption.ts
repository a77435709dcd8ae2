import { clear, search } from "./lifecycle-cells.ts";
import { adoptArrived, adoptGiven } from "./lifecycle-migration.ts";
import {
  connect,
  detach,
  end,
  enter,
  isHeld,
  needsVmm,
  prepend,
  record,
  remove,
  rest,
  stay,
} from "./lifecycle-moves.ts";
import {
  type Context,
  type In,
  type Instance,
  initialState,
  type MachineState,
  type Note,
  type Of,
  type Outcome,
} from "./lifecycle-state.ts";

/** What an earlier worker left: the note, which may have happened or not, and what lives. */

/** What another host was sending is its own yet, and is dropped; what is whole is undecided. */
function adoptArriving(note: Note, alive: Instance | undefined, context: Context): Outcome {
  if (note.stage === "arrived" && alive !== undefined) return adoptArrived(note, alive);
  const why = "elsewhere";
  const reason = "its worker ended while another host sent it";
  const dropped = { ...note, wanted: "absent", capture: undefined, reason } as const;
  if (alive === undefined) return adoptOwn({ ...dropped, why }, undefined, context);
  return adoptOwn({ ...dropped, stage: "ending", why }, alive, context);
}

/** Takes over what the note says, which may have happened or not, and what lives of it. */
export function adopted(
  _state: In<"absent">,
  { note, alive }: Of<"adopted">,
  context: Context,
): Outcome {
  const { capture, beside } = note;
  const isSpent = capture?.stage === "spent";
  const forget = isSpent ? [{ kind: "forget-capture", capture: capture.id } as const] : [];
  const end = beside === undefined ? [] : [{ kind: "end-beside", invocation: beside } as const];
  return prepend([...end, ...forget], adoptNote(note, alive, context));
}

function adoptNote(note: Note, alive: Instance | undefined, context: Context): Outcome {
  if (note.stage === "given") return adoptGiven(note, alive);
  if (note.capture?.stage === "arriving") return adoptArriving(note, alive, context);
  return adoptOwn(note, alive, context);
}

function adoptOwn(note: Note, alive: Instance | undefined, context: Context): Outcome {
  const { wanted, prepared: isPrepared, restarts, lastInvocation, capture, reason } = note;
  const past = { lastInvocation, beside: note.beside, capture, reason };
  const common = { wanted, prepared: isPrepared, restarts, ...past };
  const known = enter(initialState, common).state;
  switch (note.stage) {
    case "absent":
    case "removed":
      return stay(known);
    case "off":
      return enter(known, { phase: "off" });
    case "failed":
      return enter(known, { phase: "failed", reason: reason ?? "the note does not say why" });
    case "removing":
      return remove(known);
    case "preparing":
    case "waiting":
      return rest(enter(known, { begunBy: "rule" }).state, context);
    case "starting":
      return search(enter(known, { begunBy: "rule" }).state, note.invocation ?? "");
    case "given":
    case "arrived":
    case "living":
    case "ending":
    case "clearing":
      return adoptInstance(known, note, alive, context);
  }
}

function adoptInstance(
  known: MachineState,
  note: Note,
  alive: Instance | undefined,
  context: Context,
): Outcome {
  const instance = alive ?? note.instance;
  if (instance === undefined) return rest(known, context);
  const { invocation, processId } = instance;
  const why = note.why ?? "crash";
  const begun = enter(known, { begunBy: "rule", lastInvocation: invocation }).state;
  if (alive === undefined || note.stage === "clearing") {
    const clearing = { phase: "clearing", instance, why, diedAt: context.now } as const;
    const lost = note.stage === "living" ? "its VMM died while no worker looked" : known.reason;
    const isUnwanted = note.stage === "living" && !needsVmm(begun);
    const change = { ...clearing, why: isUnwanted ? ("wish" as const) : why, reason: lost };
    return enter(begun, change, [clear(begun, instance)]);
  }
  const told = record({ what: "adopted", invocation, processId });
  return prepend([told], adoptLiving(begun, note, alive, context));
}

function adoptLiving(known: MachineState, note: Note, alive: Instance, context: Context): Outcome {
  const isGiver = isHeld(known) && known.capture?.source === alive.invocation;
  if (isGiver) return end(known, alive, { why: "replace", stage: "kill" }, context);
  // An orderly shutdown begins anew: nobody knows whether its guest has heard of it.
  if (note.stage === "ending" && (note.why !== "wish" || note.killing === true)) {
    return end(known, alive, { why: note.why ?? "crash", stage: "kill" }, context);
  }
  // A VMM that is to be given what is held has nothing that could be lost.
  if (isHeld(known)) return connect(known, alive, context);
  const reason = "the worker was started anew";
  return detach(known, alive, { reason, cause: "lost" }, context);
}
