/** Stories of machines that go from one host to another, told from either side. */
import { whyRefused } from "../../../src/vm/lifecycle.ts";
import type { MachineEvent } from "../../../src/vm/lifecycle-state.ts";
import { type Life, requireEqual, type StepFunction } from "./life.ts";
import { lifeIn, makeLives } from "./lives.ts";
import type { Story } from "./stories.ts";

const story = (name: string, run: (step: StepFunction) => void): Story => ({ name, run });
const of = { migration: "m1" } as const;
const taken: MachineEvent = { kind: "taken", ...of };
const notTaken: MachineEvent = { kind: "not-taken", ...of, reason: "it has no room" };
const cut: MachineEvent = { kind: "undecided", ...of, reason: "the connection was cut" };
const handedOver: MachineEvent = { kind: "handed-over", ...of, wanted: "running" };
const withdrawn: MachineEvent = { kind: "withdrawn", ...of, reason: "called off" };
const claim: MachineEvent = { kind: "claim" };
const later = ["shutdown", "delete"].map((kind) => ({ kind, hurry: false }) as MachineEvent);

/** What a guest that must not run once more gets: its VMM is killed, and never asked to wake. */
function isEnded(life: Life): void {
  life.is({ stage: "kill", why: "elsewhere", wanted: "absent" });
  const adopted = life.fork();
  const instance = "instance" in life.state ? life.state.instance : undefined;
  const { note } = life;
  if (note === undefined || instance === undefined) throw new Error("Expected a note of a VMM");
  // The next worker, which finds the VMM alive, ends it as well.
  adopted.leads(
    { kind: "died", invocation: life.invocation, ending: undefined },
    "clearing",
    "note",
    "clear",
    "+died",
  );
  adopted.goes(life.cleared(), "removing");
  const next = life.fork();
  next.state = lifeIn("absent", (state) => ({ state, effects: [] })).state;
  next.goes({ kind: "adopted", note, alive: instance }, "stopping").is({ stage: "kill" });
}

const giving: readonly Story[] = [
  story("it is sent, given, and gone when the other host has it", (step) => {
    const life = lifeIn("running", step);
    life.leads({ kind: "migrate", ...of }, "sending", "send", "+sending");
    life.leads(life.done("send"), "given", "note", "+given", "hand-over");
    requireEqual("the note", life.note?.stage, "given");
    life.leads(taken, "stopping", "note", "+given-away", "kill", "+killed");
    isEnded(life);
  }),
  story("a paused one is given to be paused", (step) => {
    for (const life of [
      lifeIn("paused", step).tell({ kind: "migrate", ...of }),
      lifeIn("sending", step).tell({ kind: "pause" }),
    ]) {
      life.goes(life.done("send"), "given");
      const handed = life.effects.find(({ kind }) => kind === "hand-over");
      requireEqual("as", handed?.kind === "hand-over" && handed.wanted, "paused");
    }
  }),
  story("it is not sent while what was captured last is being forgotten", (step) => {
    const spent = makeLives(step).filter(({ life: { state } }) => {
      const { phase, capture } = state;
      return capture?.stage === "spent" && (phase === "running" || phase === "paused");
    });
    requireEqual("such lives", spent.length > 1, true);
    for (const { life } of spent) {
      life.fork().ignores({ kind: "migrate", ...of });
      requireEqual("why", whyRefused(life.state, "migrate")?.includes("forgotten"), true);
    }
  }),
  story("a send that is refused, or cut, is looked at, and goes on here", (step) => {
    for (const how of ["refused", "lost"] as const) {
      const life = lifeIn("sending", step);
      life.goes(how === "refused" ? life.refused("send") : life.lost(), "detached");
      life.is({ cause: "lost", wanted: "running" });
      life.goes(life.attached("paused"), "resuming").goes(life.done("resume"), "running");
    }
  }),
  story("who does not want it calls the sending off, and it is not given", (step) => {
    for (const event of later) {
      const life = lifeIn("sending", step).leads(event, "sending", "note", "abandon-send");
      life.fork().goes(life.refused("send"), "detached");
      // It was whole before anybody heard of the wish.
      life.goes(life.done("send"), "detached").goes(life.attached("paused"), "resuming");
      life.goes(life.done("resume"), "stopping").is({ stage: "button" });
    }
    const life = lifeIn("sending", step);
    life.leads(
      { kind: "delete", hurry: true },
      "stopping",
      "note",
      "abandon-send",
      "kill",
      "+killed",
    );
  }),
  story("what was given does not run here, whatever its VMM or anybody says", (step) => {
    const life = lifeIn("given", step);
    for (const kind of ["boot", "resume", "pause", "replace", "migrate"] as const) {
      life.ignores(kind === "migrate" ? { kind, migration: "m2" } : { kind });
    }
    life.ignores({ kind: "shutdown", hurry: true }).ignores(life.lost()).ignores(life.off());
    life.ignores({ kind: "resumed", invocation: life.invocation });
    life.leads(life.died(), "given", "note", "+died").is({ instance: undefined });
    life.fork().leads(taken, "removing", "note", "+given-away", "discard");
  }),
  story("what was not taken is taken back, with its VMM or without", (step) => {
    const life = lifeIn("given", step);
    const alive = life
      .fork()
      .leads(notTaken, "detached", "note", "+taken-back", "+detached", "attach");
    alive.is({ wanted: "running" }).goes(alive.attached("paused"), "resuming");
    life.tell(life.died()).goes(notTaken, "preparing-network");
  }),
  story("while the other host can be asked, no operator decides over it", (step) => {
    const life = lifeIn("given", step).ignores(claim);
    requireEqual("why", whyRefused(life.state, "claim")?.includes("other host"), true);
    life.leads(cut, "given", "note", "+undecided").is({ isUndecided: true });
    requireEqual("why", whyRefused(life.state, "claim"), undefined);
    requireEqual("what to do", life.state.reason?.includes("--resume-here"), true);
    life.fork().goes(taken, "stopping");
    life.fork().goes(notTaken, "detached");
    const gone = life
      .fork()
      .leads(
        { kind: "delete", hurry: false },
        "stopping",
        "note",
        "+given-away",
        "kill",
        "+killed",
      );
    isEnded(gone);
    life.goes(claim, "detached").goes(life.attached("paused"), "resuming");
  }),
  story("a worker that follows finds it given, and does not run it", (step) => {
    for (const isAlive of [true, false]) {
      const life = lifeIn("given", step);
      const { note, state } = life;
      if (note === undefined || state.phase !== "given") throw new Error("Expected a note");
      const alive = isAlive ? state.instance : undefined;
      const next = lifeIn("absent", step).goes({ kind: "adopted", note, alive }, "given");
      next.is({ isUndecided: true, instance: alive, wanted: "running" });
      next.fork().goes({ kind: "delete", hurry: false }, isAlive ? "stopping" : "removing");
      next.goes(claim, isAlive ? "detached" : "preparing-network");
    }
  }),
];

const taking: readonly Story[] = [
  story("it comes, and runs when it was given and that is noted", (step) => {
    const life = lifeIn("absent", step).goes(
      { kind: "create", wanted: "running", ...of },
      "preparing",
    );
    life.goes(life.prepared(), "preparing-network").goes(life.networkReady(), "starting");
    const spawn = life.effects.find(({ kind }) => kind === "spawn");
    requireEqual("its VMM", spawn?.kind === "spawn" && spawn.beginning.kind, "arriving");
    life.goes(life.spawned(), "connecting");
    life.leads(life.attached("incoming"), "receiving", "+attached", "receive", "+receiving");
    life.leads(life.done("receive"), "arrived", "note", "+arrived", "confirm");
    requireEqual("the note", life.note?.stage, "arrived");
    life.ignores({ kind: "boot" }).ignores({ kind: "resume" }).ignores(claim);
    const paused = life.fork().goes({ ...handedOver, wanted: "paused" } as MachineEvent, "paused");
    paused.is({ capture: undefined, wanted: "paused" });
    life.leads(handedOver, "resuming", "note", "+taken-over", "resume", "confirm");
    requireEqual("the note", [life.note?.stage, life.note?.capture], ["living", undefined]);
    life.goes(life.done("resume"), "running").is({ restarts: 0, failures: 0 });
  }),
  story("a start that fails is the other host's to hear of, and nothing stays", (step) => {
    const starts = makeLives(step).filter(({ name }) => name.endsWith("for another host's"));
    requireEqual("such lives", starts.length, 5);
    const preparing = starts[0]?.life.fork();
    const refusal = { message: "no space left", code: "ENOSPC", lasts: false };
    const { invocation = "" } = preparing ?? {};
    preparing?.goes({ kind: "prepare-refused", invocation, refusal }, "removing");
    for (const { life } of starts.filter(({ life: { state } }) => state.phase === "clearing")) {
      life.fork().goes(life.cleared(), "removing");
    }
    const connecting = starts.find(({ life }) => life.state.phase === "connecting")?.life.fork();
    connecting?.goes(connecting.attached("created"), "stopping");
    connecting?.goes(connecting.died(), "clearing").goes(connecting.cleared(), "removing");
    for (const { life } of starts.filter(({ life: { state } }) => state.phase !== "clearing")) {
      const { note } = life;
      if (note === undefined) throw new Error("Expected a note");
      const next = lifeIn("absent", step).tell({ kind: "adopted", note, alive: undefined });
      next.is({ wanted: "absent" });
    }
  }),
  story("what does not come to its end is dropped: the other host has it", (step) => {
    for (const tell of [
      (life: Life) => life.refused("receive"),
      (life: Life) => life.lost(),
      ...later.map((event) => () => event),
    ]) {
      const life = lifeIn("receiving", step);
      life.goes(tell(life), "stopping").is({ stage: "kill" });
      requireEqual(
        "it is killed",
        life.effects.some(({ kind }) => kind === "kill"),
        true,
      );
      requireEqual("and why is told", life.state.reason === undefined, false);
      life.goes(life.died(), "clearing").goes(life.cleared(), "removing");
    }
    const life = lifeIn("receiving", step);
    life.ignores({ kind: "paused", invocation: life.invocation }).ignores(life.off());
    const { note, state } = life;
    if (note === undefined || !("instance" in state)) throw new Error("Expected a note");
    const next = lifeIn("absent", step);
    next.goes({ kind: "adopted", note, alive: state.instance }, "stopping");
    next.is({ stage: "kill", why: "elsewhere", wanted: "absent" });
    const dead = lifeIn("absent", step).goes(
      { kind: "adopted", note, alive: undefined },
      "clearing",
    );
    dead.goes(dead.cleared(), "removing");
  }),
  story("what arrived is dropped where the other host goes on, or an operator says so", (step) => {
    for (const event of [withdrawn, ...later]) {
      const life = lifeIn("arrived", step).goes(event, "stopping").is({ capture: undefined });
      requireEqual(
        "it is killed",
        life.effects.some(({ kind }) => kind === "kill"),
        true,
      );
      isEnded(life);
    }
    const life = lifeIn("arrived", step);
    life.goes(life.died(), "clearing").goes(life.cleared(), "removing");
  }),
  story("what arrived and is undecided waits for either host, or for an operator", (step) => {
    const life = lifeIn("arrived", step).leads(cut, "arrived", "note", "+undecided");
    life.is({ isUndecided: true });
    life.fork().goes(handedOver, "resuming");
    life.fork().goes(withdrawn, "stopping");
    life.leads(claim, "resuming", "note", "+taken-over", "resume", "confirm");
    requireEqual("the note", life.note?.capture, undefined);
  }),
  story("a connection that was lost meanwhile is made again when it is this host's", (step) => {
    const life = lifeIn("arrived", step);
    life.leads(life.lost(), "arrived").ignores(life.lost());
    life.goes(handedOver, "detached").is({ cause: "lost" });
    life.goes(life.attached("paused"), "resuming");
  }),
  story("a worker that follows finds it arrived, and asks an operator", (step) => {
    const { note, state } = lifeIn("arrived", step);
    if (note === undefined || !("instance" in state)) throw new Error("Expected a note");
    const { instance } = state;
    const next = lifeIn("absent", step).goes({ kind: "adopted", note, alive: instance }, "arrived");
    next.is({ isUndecided: true, isAttached: false });
    next.fork().goes({ kind: "delete", hurry: false }, "stopping").is({ why: "elsewhere" });
    next.goes(claim, "detached").goes(next.attached("paused"), "resuming");
    const dead = lifeIn("absent", step).goes(
      { kind: "adopted", note, alive: undefined },
      "clearing",
    );
    dead.goes(dead.cleared(), "removing");
  }),
];

export const migrations: readonly Story[] = [...giving, ...taking];
