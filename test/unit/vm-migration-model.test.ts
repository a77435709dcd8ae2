/**
 * Two hosts and a machine between them, in every order of what can happen: each message comes, or
 * the connection is cut before it; each worker dies before or after each of its effects; VMMs die;
 * an operator decides what is undecided, on one of both. The guest never runs on both.
 */
import { expect, test } from "bun:test";
import { step } from "../../src/vm/lifecycle.ts";
import {
  type Context,
  type Instance,
  initialState,
  type MachineEffect,
  type MachineEvent,
  type MachineState,
  type Note,
} from "../../src/vm/lifecycle-state.ts";
import { defaultRules } from "../support/vm-lifecycle/life.ts";

type Side = "giver" | "taker";
const otherOf = { giver: "taker", taker: "giver" } as const;

/** One worker with its machine. What is `undefined` was never there, or is gone. */
interface Host {
  readonly state: MachineState;
  readonly note: Note | undefined;
  /** Its VMM, and what that does with the guest. */
  readonly guest: "running" | "paused" | "stopped" | "incoming" | "dead" | "none";
  /** Effects that wait to be performed: a worker may die between any two. */
  readonly effects: readonly MachineEffect[];
}

/**
 * How a guest stands still that was sent: its VMM keeps it paused (QEMU); or lets it run when the
 * migration breaks off, and so does when it is asked anew, being stopped itself until then
 * (cloud-hypervisor).
 */
type Stillness = "paused" | "stopped";

interface World {
  readonly stillness: Stillness;
  readonly giver: Host;
  readonly taker: Host;
  /** What each side was sent and has not heard. */
  readonly mail: {
    readonly giver: readonly MachineEvent[];
    readonly taker: readonly MachineEvent[];
  };
  readonly isCut: boolean;
  /** The whole of the memory is with the taker: one time only. */
  readonly isSent: boolean;
  /** How often a worker has died, a VMM has died, or an operator has decided. */
  readonly deaths: number;
  readonly hasDecided: boolean;
}

const migration = "m1";
const instanceOf = (side: Side): Instance => ({
  ...{ invocation: side, processId: side === "giver" ? 1 : 2, startTicks: 7, startedAt: 0 },
});
const context: Context = { rules: defaultRules, now: 1_000, random: 0.5, nextInvocation: "next" };

function tell(host: Host, event: MachineEvent): Host {
  const { state, effects } = step(host.state, event, context);
  return { ...host, state, effects: [...host.effects, ...effects] };
}

const change = (world: World, side: Side, host: Host): World => ({ ...world, [side]: host });
const post = (world: World, to: Side, event: MachineEvent): World =>
  world.isCut ? world : { ...world, mail: { ...world.mail, [to]: [...world.mail[to], event] } };

function begin(stillness: Stillness): World {
  const running: MachineState = {
    ...initialState,
    ...{ wanted: "running", prepared: true, lastInvocation: "giver" },
    ...{ phase: "running", instance: instanceOf("giver"), since: 0 },
  };
  const arriving = { id: migration, source: undefined, stage: "arriving" } as const;
  const receiving: MachineState = {
    ...initialState,
    ...{ wanted: "running", prepared: true, capture: arriving, lastInvocation: "taker" },
    ...{ phase: "receiving", instance: instanceOf("taker") },
  };
  const living = { stage: "living", restarts: 0, invocation: undefined, why: undefined } as const;
  const unset = { reason: undefined, migration: undefined, beside: undefined } as const;
  const none = { ...unset, killing: undefined } as const;
  const noted = { ...living, ...none, prepared: true } as const;
  const note = (side: Side, capture: Note["capture"]): Note => ({
    ...{ ...noted, wanted: "running", capture, instance: instanceOf(side), lastInvocation: side },
  });
  return {
    giver: tell(
      { state: running, note: note("giver", undefined), guest: "running", effects: [] },
      { kind: "migrate", migration },
    ),
    taker: { state: receiving, note: note("taker", arriving), guest: "incoming", effects: [] },
    stillness,
    mail: { giver: [], taker: [] },
    isCut: false,
    isSent: false,
    deaths: 0,
    hasDecided: false,
  };
}

/** What the first effect of a side does, in every way that it can end. */
function perform(world: World, side: Side): World[] {
  const host = world[side];
  const [effect, ...effects] = host.effects;
  if (effect === undefined) return [];
  const rest: Host = { ...host, effects };
  const next = change(world, side, rest);
  const answer = (event: MachineEvent, from = next) => change(from, side, tell(from[side], event));
  const invocation = side;
  const refusal = { message: "no", code: undefined, lasts: false };
  switch (effect.kind) {
    case "note":
      return [change(world, side, { ...rest, note: effect.note })];
    case "send": {
      // Its guest stands still before the last of it goes.
      const still = change(next, side, { ...rest, guest: world.stillness });
      const broken = world.stillness === "paused" ? "paused" : "running";
      const off = change(next, side, { ...rest, guest: broken });
      const { ticket } = effect;
      const done = { kind: "done", call: "send", invocation, ticket, machine: "kept" } as const;
      const refused = { kind: "refused", call: "send", invocation, ticket, refusal } as const;
      const failed = post(answer(refused, off), "taker", withdrawn);
      if (world.isCut || world.taker.guest !== "incoming") return [failed];
      const { taker } = still;
      const told = { kind: "done", call: "receive", ticket: taker.state.ticket } as const;
      const whole = { ...told, invocation: "taker", machine: "kept" } as const;
      const arrived = { ...still, isSent: true, taker: tell({ ...taker, guest: "paused" }, whole) };
      return [failed, answer(done, arrived)];
    }
    case "hand-over": {
      const event = { kind: "handed-over", migration, wanted: effect.wanted } as const;
      // Where it was never sent, it is known not to have come.
      if (world.isCut) return [answer({ kind: "not-taken", migration, reason: "it was cut" })];
      return [post(next, "taker", event)];
    }
    case "confirm":
      return [effect.what === "taken" ? post(next, "giver", { kind: "taken", migration }) : next];
    case "attach": {
      const { ticket } = effect;
      if (rest.guest === "dead" || rest.guest === "none") return [next];
      const guest = rest.guest === "stopped" ? "running" : rest.guest;
      const asked = change(next, side, { ...rest, guest });
      return [answer({ kind: "attached", invocation, ticket, guest, captured: false }, asked)];
    }
    case "resume": {
      const running = change(next, side, { ...rest, guest: "running" });
      const { ticket } = effect;
      const done = { kind: "done", call: "resume", invocation, ticket, machine: "kept" } as const;
      return [answer(done, running), answer({ ...done, kind: "refused", refusal } as never)];
    }
    case "kill": {
      const dead = change(next, side, { ...rest, guest: "dead" });
      return [answer({ kind: "died", invocation, ending: undefined }, dead)];
    }
    case "clear":
      return [answer({ kind: "cleared", invocation, captured: false })];
    case "discard":
      return [answer({ kind: "discarded" })];
    case "record":
    case "abandon-send":
    case "forget-capture":
      return [next];
    // A start anew, from the disks alone: the giver's own machine, of which no VMM is left.
    case "connect-network":
      return [change(next, side, { ...rest, guest: "running", effects: [] })];
    default:
      throw new Error(`Nothing here leads to ${effect.kind}`);
  }
}

const withdrawn: MachineEvent = { kind: "withdrawn", migration, reason: "called off" };

/** What else can happen: a message comes, or what nobody wants. */
function happen(world: World): World[] {
  const worlds: World[] = [];
  for (const side of ["giver", "taker"] as const) {
    const host = world[side];
    const [first, ...others] = world.mail[side];
    if (first !== undefined && host.effects.length === 0) {
      const mail = { ...world.mail, [side]: others };
      worlds.push(hear({ ...world, mail }, side, first));
    }
    if (world.deaths < 2 && host.note !== undefined) {
      worlds.push(restart({ ...world, deaths: world.deaths + 1 }, side));
      if (["running", "paused", "stopped"].includes(host.guest)) {
        const died = { kind: "died", invocation: side, ending: undefined } as const;
        const dead = change(world, side, tell({ ...host, guest: "dead" }, died));
        worlds.push({ ...dead, deaths: world.deaths + 1 });
      }
    }
    if (!world.hasDecided) worlds.push(...decide(world, side));
  }
  if (!world.isCut) worlds.push(cut(world));
  return worlds;
}

/** What is handed over to nobody who waits for it is answered at once. */
function hear(world: World, side: Side, event: MachineEvent): World {
  const { state } = world[side];
  const waits = state.phase === "arrived" && state.capture?.id === migration;
  if (event.kind === "handed-over" && !waits) {
    return post(world, "giver", { kind: "not-taken", migration, reason: "it is not here" });
  }
  return change(world, side, tell(world[side], event));
}

/** Whatever is on its way is lost; both sides hear of it. */
function cut(world: World): World {
  const lost: World = { ...world, isCut: true, mail: { giver: [], taker: [] } };
  const event = { kind: "undecided", migration, reason: "it was cut" } as const;
  const giver = tell(lost.giver, event);
  const { taker } = lost;
  if (taker.state.phase !== "receiving") return { ...lost, giver, taker: tell(taker, event) };
  const refusal = { message: "it was cut", code: undefined, lasts: false };
  const { ticket } = taker.state;
  const refused = {
    kind: "refused",
    call: "receive",
    invocation: "taker",
    ticket,
    refusal,
  } as const;
  return { ...lost, giver, taker: tell(taker, refused) };
}

/** The worker dies, and the next one reads what is on the disk. The connection goes with it. */
function restart(world: World, side: Side): World {
  const { note, guest } = world[side];
  const isAlive = guest !== "dead" && guest !== "none" && note?.instance !== undefined;
  const others = cut(world);
  if (note === undefined) return others;
  const alive = isAlive ? instanceOf(side) : undefined;
  const fresh: Host = { state: initialState, note, guest, effects: [] };
  return change(others, side, tell(fresh, { kind: "adopted", note, alive }));
}

/** An operator who has looked: it is deleted on one side, and only then taken on the other. */
function decide(world: World, side: Side): World[] {
  const [here, there] = [world[side], world[otherOf[side]]];
  const isOpen = (host: Host) =>
    (host.state.phase === "given" || host.state.phase === "arrived") && host.state.isUndecided;
  if (!isOpen(here) || here.effects.length > 0) return [];
  const runs = there.guest === "running" || ["resuming", "detached"].includes(there.state.phase);
  if (runs) {
    const deleted = tell(here, { kind: "delete", hurry: false });
    return [{ ...change(world, side, deleted), hasDecided: true }];
  }
  const isGone = there.state.phase === "removed";
  const claimed = tell(here, { kind: "claim" });
  return isGone ? [{ ...change(world, side, claimed), hasDecided: true }] : [];
}

const keyOf = (world: World) => JSON.stringify(world);

/** A note that says that it may run here, with a guest that was or can be there. */
const mayRun = ({ note }: Host) => note?.stage === "living" && note.capture === undefined;

test.each([
  ["by its VMM", "paused"],
  ["with its VMM", "stopped"],
] as const)("the guest never runs on both, and is never both hosts' own: paused %s", (_by, how) => {
  const first = begin(how);
  const seen = new Set([keyOf(first)]);
  const open: World[] = [first];
  let ends = 0;
  let taken = 0;
  for (let world = open.pop(); world !== undefined; world = open.pop()) {
    const guests = [world.giver.guest, world.taker.guest];
    if (guests.every((guest) => guest === "running")) throw new Error(`two: ${keyOf(world)}`);
    // Only an operator can be wrong about it.
    if (!world.hasDecided && mayRun(world.giver) && mayRun(world.taker)) {
      throw new Error(`of both: ${keyOf(world)}`);
    }
    const followers = [...perform(world, "giver"), ...perform(world, "taker"), ...happen(world)];
    if (followers.length === 0) ends += 1;
    if (world.taker.guest === "running" && world.giver.state.phase === "removed") taken += 1;
    for (const next of followers) {
      const key = keyOf(next);
      if (seen.has(key)) continue;
      seen.add(key);
      open.push(next);
    }
    if (seen.size > 400_000) throw new Error("Expected fewer worlds");
  }
  console.log(`${seen.size} worlds, ${ends} ends`);
  expect(taken).toBeGreaterThan(10);
  expect(seen.size).toBeGreaterThan(1_000);
});
