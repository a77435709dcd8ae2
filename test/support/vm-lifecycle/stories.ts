/**
 * Stories of a machine, each event with the phase that it leads to and the effects, in order. A
 * story throws when the step function that it is given decides anything else.
 */
import type { MachineEvent } from "../../../src/vm/lifecycle-state.ts";
import { exited, Life, lasting, nameOf, refusal, requireEqual, type StepFunction } from "./life.ts";

export interface Story {
  readonly name: string;
  readonly run: (step: StepFunction) => void;
}

const shutdown = { kind: "shutdown", hurry: false } as const;
const hurried = { kind: "shutdown", hurry: true } as const;
const remove = { kind: "delete", hurry: false } as const;
const deadline = { kind: "deadline" } as const;
const boot = { kind: "boot" } as const;
const pause = { kind: "pause" } as const;
const resume = { kind: "resume" } as const;
const replace = { kind: "replace" } as const;
const create = { kind: "create", wanted: "running" } as const;

/** From nothing to a guest that runs, each step told. */
function starts(life: Life): Life {
  life.leads(create, "preparing", "note", "prepare", "+prepare-requested");
  const prepared = ["note", "+prepared", "connect-network"];
  life.leads(life.prepared(), "preparing-network", ...prepared);
  const spawns = ["note", "+network-ready", "spawn", "+start-requested"];
  life.leads(life.networkReady(), "starting", ...spawns);
  life.leads(life.spawned(), "connecting", "note", "+started", "attach");
  life.leads(life.attached("off"), "creating", "+attached", "create");
  life.leads(life.done("create"), "booting", "+created", "boot");
  return life.leads(life.done("boot"), "running", "+booted");
}

const dies = ["note", "clear", "+died", "+ended"];

const ordinary: readonly Story[] = [
  {
    name: "create, boot, pause, resume, shut down, boot again, delete",
    run: (step) => {
      const life = starts(new Life(step));
      life.leads(pause, "pausing", "note", "pause").leads(life.done("pause"), "paused", "+paused");
      life.leads(resume, "resuming", "note", "resume");
      life.leads(life.done("resume"), "running", "+resumed").ignores(boot).ignores(resume);
      life.leads(shutdown, "stopping", "note", "press-power-button", "+stop-requested");
      life.leads(life.off(), "stopping", "quit").leads(life.died(exited(0)), "clearing", ...dies);
      life.leads(life.cleared(), "off", "note", "+off").is({ wanted: "off", restarts: 0 });
      life.leads(boot, "preparing-network", "note", "connect-network").runs();
      life.leads(remove, "stopping", "note", "press-power-button", "+stop-requested");
      life.leads(life.died(exited(0)), "clearing", ...dies);
      life.leads(life.cleared(), "removing", "note", "discard");
      life.leads({ kind: "discarded" }, "removed", "note", "+removed").ignores(boot);
    },
  },
  {
    name: "a guest that does not shut down: quit, then a kill",
    run: (step) => {
      const life = starts(new Life(step)).tell(shutdown).pass(4_999).ignores(deadline);
      life.pass(1).leads(deadline, "stopping", "quit").ignores(life.off());
      life.pass(4_999).ignores(deadline).pass(1);
      life.leads(deadline, "stopping", "note", "kill", "+killed").pass(99_999).ignores(deadline);
      life.leads(life.died("untold"), "clearing", "note", "clear", "+died").tell(life.cleared());
      life.is({ phase: "off", wanted: "off" });
    },
  },
  {
    name: "a button, and then a quit, that the VMM refuses",
    run: (step) => {
      const life = starts(new Life(step)).tell(shutdown);
      life.leads(life.refused("press-power-button"), "stopping", "+call-refused", "quit");
      life.leads(life.refused("quit"), "stopping", "note", "+call-refused", "kill", "+killed");
      life.ignores(life.refused("quit")).ignores(life.lost());
    },
  },
  {
    name: "a paused guest is woken to be asked, and one that cannot be woken is not",
    run: (step) => {
      const life = pauses(starts(new Life(step)));
      life.leads(shutdown, "resuming", "note", "resume");
      const other = life.fork();
      const asked = ["note", "+resumed", "press-power-button", "+stop-requested"];
      life.leads(life.done("resume"), "stopping", ...asked);
      const doubted = ["+call-refused", "+detached", "attach"];
      other.leads(other.refused("resume"), "detached", ...doubted);
      const quits = ["note", "+attached", "quit", "+stop-requested"];
      other.leads(other.attached("paused"), "stopping", ...quits).is({ why: "wish" });
    },
  },
  {
    name: "a hurried shutdown kills, whatever runs",
    run: (step) => {
      const life = starts(new Life(step));
      for (const one of [life.fork(), pauses(life.fork()), life.fork().tell(life.lost())]) {
        one.leads(hurried, "stopping", "note", "kill", "+killed").is({ stage: "kill" });
        one.goes(one.died("untold"), "clearing").goes(one.cleared(), "off");
      }
    },
  },
  {
    name: "created only, and booted later",
    run: (step) => {
      const life = new Life(step).tell({ kind: "create", wanted: "created" });
      life.tell(life.prepared()).tell(life.networkReady()).tell(life.spawned());
      life.goes(life.attached("created"), "creating");
      life.leads(life.done("create"), "created", "+created").ignores(pause).ignores(replace);
      life.leads(boot, "booting", "note", "boot").goes(life.done("boot"), "running");
    },
  },
  {
    name: "its disks only",
    run: (step) => {
      const life = new Life(step).tell({ kind: "create", wanted: "off" });
      life.leads(life.prepared(), "off", "note", "+prepared", "+off");
      life.is({ reason: "it has not been booted" }).leads(remove, "removing", "note", "discard");
    },
  },
  {
    name: "paused from the beginning, and a change of mind on the way",
    run: (step) => {
      const life = new Life(step).tell({ kind: "create", wanted: "paused" });
      life.tell(life.prepared()).tell(life.networkReady()).tell(life.spawned());
      life.tell(life.attached("created")).tell(life.done("create"));
      life.leads(life.done("boot"), "pausing", "+booted", "pause").goes(resume, "pausing");
      life.leads(life.done("pause"), "resuming", "+paused", "resume");
    },
  },
  {
    name: "a preparation that is abandoned, and one whose abandoning is taken back",
    run: (step) => {
      const life = new Life(step).tell(create).leads(remove, "preparing", "note", "abandon");
      const { invocation } = life;
      const canceled = { message: "abandoned", code: "ECANCELED", lasts: false } as const;
      const event = { kind: "prepare-refused", invocation, refusal: canceled } as const;
      life.ignores(boot).leads(event, "removing", "note", "discard");
      const other = new Life(step).tell(create).goes(shutdown, "preparing").goes(boot, "preparing");
      other.leads(event, "preparing", "prepare", "+prepare-requested").is({ failures: 0 });
    },
  },
];

function pauses(life: Life): Life {
  return life.goes(pause, "pausing").goes(life.done("pause"), "paused");
}

const unhealthyOf = ({ invocation }: Life, wasHealthy: boolean): MachineEvent => ({
  ...{ kind: "unhealthy", invocation, reason: "port 80", wasHealthy, grace: 2_000 },
});

const crashes: readonly Story[] = [
  {
    name: "a guest that shuts itself down stays off, unless the rule is always",
    run: (step) => {
      const life = starts(new Life(step));
      const told = ["note", "+guest-off", "quit", "+stop-requested"];
      life.leads(life.off(), "stopping", ...told).tell(life.died(exited(0)));
      life.leads(life.cleared(), "off", "note", "+off");
      life.is({ wanted: "off", reason: "its guest shut itself down", restarts: 0 });
      const always = starts(new Life(step, { restart: "always" }));
      always.tell(always.off()).tell(always.died(exited(0)));
      always.leads(always.cleared(), "preparing-network", "note", "connect-network");
      always.runs().is({ restarts: 1, phase: "running" });
    },
  },
  {
    name: "a VMM that ends with 0 by itself is off, one that dies is restarted",
    run: (step) => {
      const life = starts(new Life(step)).tell({ kind: "deadline" });
      const other = life.fork();
      life.leads(life.died(exited(0)), "clearing", ...dies).goes(life.cleared(), "off");
      other.leads(other.died(exited(1)), "clearing", ...dies);
      other.leads(other.cleared(), "preparing-network", "note", "connect-network");
      other.tell(other.networkReady());
      other.tell(other.spawned()).is({ restarts: 1, failures: 1, phase: "connecting" });
    },
  },
  {
    name: "an unhealthy machine is asked to shut down, and restarted by the rule",
    run: (step) => {
      const life = starts(new Life(step)).pass(60_000);
      const never = starts(new Life(step, { restart: "never" }));
      never.ignores(unhealthyOf(never, true)).ignores(unhealthyOf(never, false));
      const other = life.fork();
      const asked = ["note", "press-power-button", "+stop-requested"];
      life.leads(unhealthyOf(life, true), "stopping", ...asked);
      life.is({ why: "crash", reason: "it is unhealthy: port 80", until: life.now + 2_000 });
      life.is({ wanted: "running" }).tell(life.died(exited(0)));
      life.is({ phase: "clearing", why: "crash", reason: "it is unhealthy: port 80" });
      life.leads(life.cleared(), "preparing-network", "note", "connect-network");
      life.runs().is({ restarts: 1, failures: 1 });
      // One that never was healthy has not run well, for however long it ran.
      other.leads(unhealthyOf(other, false), "stopping", ...asked).is({ why: "unhealthy" });
      const next = nextWorker(step, other, true);
      next.is({ phase: "stopping", why: "unhealthy", stage: "kill" });
      other.pass(2_000).leads({ kind: "deadline" }, "stopping", "quit");
      other.pass(5_000).leads({ kind: "deadline" }, "stopping", "note", "kill", "+killed");
      other.tell(other.died()).goes(other.cleared(), "preparing-network").runs().pass(60_000);
      other.tell(unhealthyOf(other, false)).tell(other.died(exited(0)));
      other.leads(other.cleared(), "backing-off", "note", "+backing-off");
      other.is({ failures: 2, until: other.now + 100 });
    },
  },
  {
    name: "crashes that follow each other wait longer and longer",
    run: (step) => {
      const life = starts(new Life(step));
      life.tell(life.died()).goes(life.cleared(), "preparing-network");
      for (const wait of [100, 200, 400]) {
        life.runs().tell(life.died()).leads(life.cleared(), "backing-off", "note", "+backing-off");
        life
          .is({ until: life.now + wait })
          .pass(wait - 1)
          .ignores(deadline)
          .pass(1);
        life.leads(deadline, "preparing-network", "note", "connect-network");
      }
      life.runs().pass(10_000).tell(life.died()).goes(life.cleared(), "preparing-network");
      life.is({ failures: 1 });
    },
  },
  {
    name: "a limit of starts, and a boot that forgives",
    run: (step) => {
      const life = starts(new Life(step, { startLimit: { starts: 2, within: 60_000 } }));
      life.tell(life.died()).tell(life.cleared()).runs().tell(life.died());
      life.leads(life.cleared(), "failed", "note", "+failed").ignores(deadline);
      life.leads(boot, "preparing-network", "note", "connect-network").is({ failures: 0 });
    },
  },
  {
    name: "a panic is a crash, and where nothing is restarted it has failed",
    run: (step) => {
      const life = starts(new Life(step, { restart: "never" }));
      const event = { kind: "guest-panic", invocation: life.invocation } as const;
      life.leads(event, "stopping", "note", "+guest-panic", "kill", "+killed").is({ why: "crash" });
      life.tell(life.died("untold")).leads(life.cleared(), "failed", "note", "+failed");
      life.is({ reason: "its guest panicked", wanted: "running" });
    },
  },
  {
    name: "a wrong hash has failed at once, a full disk is tried again",
    run: (step) => {
      const life = new Life(step).tell(create);
      const other = life.fork();
      const { invocation } = life;
      const refused = { kind: "prepare-refused", invocation } as const;
      const effects = ["note", "+prepare-refused", "+failed"];
      life.leads({ ...refused, refusal: lasting }, "failed", ...effects);
      life.leads(boot, "preparing", "note", "prepare", "+prepare-requested");
      const waits = ["note", "+prepare-refused", "+backing-off"];
      other.leads({ ...refused, refusal }, "backing-off", ...waits).is({ until: other.now + 100 });
      other.pass(100).goes(deadline, "preparing");
    },
  },
  {
    name: "a reset guest runs on",
    run: (step) => {
      const life = starts(new Life(step));
      life.leads({ kind: "guest-reset", invocation: life.invocation }, "running", "+guest-reset");
    },
  },
];

/** What is captured stands in the state as this. */
const captureIn = (life: Life, stage: string) => ({
  capture: { id: life.state.capture?.id, source: life.state.capture?.source, stage },
});

/** A VMM waits beside the one whose guest runs. */
function readies(life: Life): Life {
  life.leads(replace, "replacing", "note", "spawn", "+start-requested");
  const spawn = life.effects.find(({ kind }) => kind === "spawn");
  const beginning = spawn?.kind === "spawn" ? spawn.beginning : undefined;
  if (beginning?.kind !== "beside" || beginning.former.invocation !== life.invocation) {
    throw new Error("the new VMM is not spawned beside the one that has the machine");
  }
  life.is({ beside: life.successor, guest: "running", capture: undefined });
  return life.leads(life.successorSpawned(), "replacing", "+started", "attach");
}

/** The guest is paused, and its VMM gives its state to the one that waits. */
function hands(life: Life): Life {
  const { successor, invocation } = readies(life);
  life.leads(life.successorWaits(), "capturing", "note", "+attached", "pause");
  life.is(captureIn(life, "pending")).leads(life.done("pause"), "capturing", "capture");
  const goes = ["note", "+captured", "end-beside", "restore"];
  life.leads(life.done("capture"), "restoring", ...goes);
  requireEqual("who is ended", life.state.beside, invocation);
  requireEqual("who has the machine", life.invocation, successor);
  return life.is(captureIn(life, "held"));
}

/** The VMM that was to take the state does not, and ends. */
function gives(life: Life): Life {
  hands(life).leads(life.refused("restore"), "stopping", ...refusesRestore);
  life.leads(life.died("untold"), "clearing", "note", "clear", "+died");
  return life.leads(life.cleared(), "preparing-network", "note", "connect-network");
}

const refusesRestore = ["note", "+call-refused", "kill", "+killed"];

function spawnsNext(life: Life): Life {
  const spawns = ["note", "+network-ready", "spawn", "+start-requested"];
  life.leads(life.networkReady(), "starting", ...spawns);
  const spawn = life.effects.find(({ kind }) => kind === "spawn");
  const beginning = spawn?.kind === "spawn" ? spawn.beginning.kind : undefined;
  if (beginning !== "incoming") throw new Error(`the new VMM is spawned as ${beginning}`);
  return life.leads(life.spawned(), "connecting", "note", "+started", "attach");
}

const replacements: readonly Story[] = [
  {
    name: "a VMM is replaced under its guest, which runs on",
    run: (step) => {
      const life = hands(starts(new Life(step)));
      const { beside: former } = life.state;
      life.ignores({ ...life.died(), invocation: former ?? "" });
      const resumes = ["note", "+restored", "forget-capture", "+capture-forgotten", "resume"];
      life.leads(life.done("restore"), "resuming", ...resumes).is(captureIn(life, "spent"));
      life.goes(life.done("resume"), "running").ignores(replace);
      const capture = life.state.capture?.id ?? "";
      life.leads({ kind: "forgotten", capture }, "running", "note").is({ capture: undefined });
      life.ignores(replace);
      life.leads({ kind: "beside-ended", invocation: former ?? "" }, "running", "note");
      life.is({ restarts: 0, beside: undefined }).goes(replace, "replacing");
    },
  },
  {
    name: "a successor that cannot be started, or does not wait: the guest was never paused",
    run: (step) => {
      const life = starts(new Life(step)).tell({ kind: "deadline" });
      const { since } = life.state as { since?: number };
      const before = life.invocation;
      readies(life.pass(9));
      const gives2 = ["end-beside", "+replacement-given-up"];
      const failures: readonly ((life: Life) => Life)[] = [
        (one) => one.leads(one.successorDied(), "running", ...gives2),
        (one) => one.leads(one.successorWaits("created"), "running", ...gives2, "+attached"),
        (one) => one.pass(10_000).leads(deadline, "running", ...gives2),
      ];
      for (const fails of failures) {
        const one = fails(life.fork()).is({ since, capture: undefined, beside: life.successor });
        requireEqual("who has the machine", one.invocation, before);
        one.ignores(replace);
      }
      const other = starts(new Life(step)).tell(replace);
      const { successor: invocation } = other;
      const refused = { kind: "spawn-refused", invocation, refusal } as const;
      other.leads(refused, "running", ...gives2, "+start-refused").is({ reason: "no space left" });
    },
  },
  {
    name: "a successor whose socket comes late is asked again, and its word counts once",
    run: (step) => {
      const life = readies(starts(new Life(step)));
      const invocation = life.successor;
      life
        .leads({ ...life.attachRefused(), invocation }, "replacing")
        .ignores(deadline)
        .pass(5);
      life.leads(deadline, "replacing", "attach").ignores(life.successorSpawned());
      const waits = life.successorWaits();
      life.goes(waits, "capturing").ignores(waits).ignores(life.successorSpawned());
    },
  },
  {
    name: "what becomes of the guest meanwhile is as without a successor, who is ended",
    run: (step) => {
      const life = readies(starts(new Life(step)));
      const ends = ["note", "end-beside", "+replacement-given-up"];
      const clears = ["clear", "+died", "+ended"];
      life.fork().leads(life.died(), "clearing", ...ends, ...clears);
      const asksAgain = [...ends.slice(1), "+detached", "attach"];
      life.fork().leads(life.lost(), "detached", ...asksAgain);
      life.fork().leads(life.off(), "stopping", ...ends, "+guest-off", "quit", "+stop-requested");
      const asks = ["press-power-button", "+stop-requested"];
      life.fork().leads(shutdown, "stopping", ...ends, ...asks);
      life
        .fork()
        .leads(hurried, "stopping", ...ends, "kill", "+killed")
        .is({ why: "wish" });
      life.goes(pause, "replacing").is({ wanted: "paused" });
      life.fork().leads(life.successorDied(), "pausing", ...ends.slice(1), "pause");
      life.tell(life.successorWaits()).tell(life.done("pause")).tell(life.done("capture"));
      life.goes(life.done("restore"), "paused");
    },
  },
  {
    name: "a successor that ends once the guest is paused: it runs on, or another one is started",
    run: (step) => {
      const life = readies(starts(new Life(step)));
      life.goes(life.successorWaits(), "capturing");
      const ends = ["end-beside", "+replacement-given-up"];
      const one = life.fork();
      one.leads(one.successorDied(), "capturing", ...ends).is({ successor: undefined });
      one.leads(
        ...([one.done("pause"), "resuming", "note", "forget-capture"] as const),
        ...["+capture-forgotten", "resume"],
      );
      life.goes(life.done("pause"), "capturing");
      life.leads(life.successorDied(), "capturing", ...ends);
      life.leads(life.done("capture"), "stopping", "note", "+captured", "kill", "+killed");
      life.is({ ...captureIn(life, "held"), why: "replace" });
      life.goes(life.died("untold"), "clearing").goes(life.cleared(), "preparing-network");
      spawnsNext(life);
    },
  },
  {
    name: "a capture that is refused: the guest runs on in the old VMM",
    run: (step) => {
      const life = readies(starts(new Life(step))).tell({ kind: "deadline" });
      life.tell(life.successorWaits()).goes(life.done("pause"), "capturing");
      const gives2 = ["end-beside", "+replacement-given-up"];
      const asks = [...gives2, "+call-refused", "+detached", "attach"];
      life.leads(life.refused("capture"), "detached", ...asks).is({ cause: "lost" });
      const resumes = ["note", "+attached", "forget-capture", "+capture-forgotten", "resume"];
      life.leads(life.attached("paused"), "resuming", ...resumes);
      life.goes(life.done("resume"), "running");
    },
  },
  {
    name: "a VMM that gave its state, and hung up before it said so",
    run: (step) => {
      const life = readies(starts(new Life(step)));
      life.tell(life.successorWaits()).tell(life.done("pause")).goes(life.lost(), "detached");
      const ends = ["note", "+attached", "+captured", "kill", "+killed"];
      life.leads(life.attached("paused", true), "stopping", ...ends).is({ why: "replace" });
    },
  },
  {
    name: "a VMM that gave its state, and ended before it said so",
    run: (step) => {
      const life = readies(starts(new Life(step)));
      life.tell(life.successorWaits()).tell(life.done("pause"));
      const clears = ["note", "end-beside", "+replacement-given-up", ...dies.slice(1)];
      life.leads(life.died(exited(0)), "clearing", ...clears);
      const other = life.fork();
      life.leads(life.cleared(true), "preparing-network", "note", "+captured", "connect-network");
      spawnsNext(life);
      const starts2 = ["note", "forget-capture", "+capture-forgotten", "connect-network"];
      other.leads(other.cleared(false), "preparing-network", ...starts2);
      other.is(captureIn(other, "spent"));
    },
  },
  {
    name: "after the old VMM has ended, the state is held through every failure",
    run: (step) => {
      const rules = { restart: "never", startLimit: { starts: 1, within: 60_000 } } as const;
      const life = spawnsNext(gives(starts(new Life(step, rules)))).pass(1);
      life.tell(life.attached("incoming"));
      life.leads(life.refused("restore"), "stopping", ...refusesRestore);
      life
        .is(captureIn(life, "held"))
        .tell(life.died("untold"))
        .goes(life.cleared(), "backing-off");
      life.untilDeadline().goes(deadline, "preparing-network");
      spawnsNext(life).tell(life.attached("incoming")).goes(life.died(), "clearing");
      life.goes(life.cleared(), "backing-off").untilDeadline().goes(deadline, "preparing-network");
      life.tell(life.networkReady());
      const { invocation } = life;
      life.goes({ kind: "spawn-refused", invocation, refusal: lasting }, "backing-off");
      life.is(captureIn(life, "held")).untilDeadline().goes(deadline, "preparing-network");
      spawnsNext(life).untilDeadline().goes(deadline, "stopping").is(captureIn(life, "held"));
      life.tell(life.died("untold")).goes(life.cleared(), "backing-off").untilDeadline();
      spawnsNext(life.goes(deadline, "preparing-network")).tell(life.attached("incoming"));
      life.goes(life.done("restore"), "resuming").is({ failures: 0 });
    },
  },
  {
    name: "an orderly shutdown waits until a VMM has the machine; who deletes gives it up",
    run: (step) => {
      const life = gives(starts(new Life(step)));
      const other = life.fork();
      life.leads(shutdown, "preparing-network", "note").is(captureIn(life, "held"));
      spawnsNext(life).tell(life.attached("incoming"));
      life.goes(life.done("restore"), "resuming").goes(life.done("resume"), "stopping");
      const gives2 = ["note", "forget-capture", "+capture-forgotten"];
      other.leads(remove, "preparing-network", ...gives2).is(captureIn(other, "spent"));
      other.goes(other.networkReady(), "removing");
    },
  },
  {
    name: "a held state that is gone is a crash, and no reason to wait for ever",
    run: (step) => {
      const life = spawnsNext(gives(starts(new Life(step)))).tell({ kind: "deadline" });
      const capture = life.state.capture?.id ?? "";
      const event = { kind: "capture-lost", capture, reason: "its holder died" } as const;
      life.leads(event, "stopping", "note", "+capture-lost", "kill", "+killed");
      life.is({ capture: undefined, why: "crash" }).ignores(event);
      life.tell(life.died("untold")).goes(life.cleared(), "backing-off").untilDeadline();
      life.goes(deadline, "preparing-network").runs().is({ phase: "running" });
    },
  },
  {
    name: "a machine that is made of a snapshot: prepared, and given what is held",
    run: (step) => {
      const life = new Life(step).tell({ kind: "create", wanted: "running", capture: "s1" });
      life.is({ phase: "preparing", capture: { id: "s1", source: undefined, stage: "held" } });
      const other = life.fork();
      spawnsNext(life.goes(life.prepared(), "preparing-network"));
      life.goes(life.attached("incoming"), "restoring").goes(life.done("restore"), "resuming");
      life.is(captureIn(life, "spent")).goes(life.done("resume"), "running");
      const gives2 = ["note", "forget-capture", "+capture-forgotten", "abandon"];
      other.leads(remove, "preparing", ...gives2).goes(other.prepared(), "removing");
    },
  },
  {
    name: "a snapshot by a VMM that keeps its machine, and by one that does not",
    run: (step) => {
      const snapshot = { kind: "snapshot", snapshot: "today" } as const;
      const life = starts(new Life(step));
      life.leads(snapshot, "snapshotting", "note", "pause").is({ stage: "pausing" });
      life.leads(life.done("pause"), "snapshotting", "snapshot").is({ stage: "saving" });
      const other = life.fork();
      life.leads(
        ...([life.done("snapshot"), "resuming", "note", "+snapshotted"] as const),
        ...["forget-capture", "+capture-forgotten", "resume"],
      );
      const taken = other.done("snapshot", "taken");
      const ends = ["note", "+snapshotted", "+captured", "kill", "+killed"];
      other.leads(taken, "stopping", ...ends).is({ why: "replace" });
    },
  },
];

const doubts: readonly Story[] = [
  {
    name: "a VMM that does not answer is asked again, told of, and never ended",
    run: (step) => {
      const life = starts(new Life(step));
      life.leads(life.lost(), "detached", "+detached", "attach");
      life.leads(life.attachRefused(), "detached", "+attach-refused");
      for (let attempt = 0; attempt < 50; attempt += 1) {
        life.untilDeadline().leads(deadline, "detached", "attach").ignores(deadline);
        life.leads(life.attachRefused(), "detached");
      }
      life.untilDeadline().tell(deadline).untilDeadline();
      life.leads(deadline, "detached", "+attach-refused").untilDeadline().tell(deadline);
      life.leads(life.attached("running"), "running", "+attached").is({ wanted: "running" });
    },
  },
  {
    name: "an operator's shutdown ends it after its grace all the same",
    run: (step) => {
      const life = starts(new Life(step)).tell({ kind: "deadline" });
      life.tell(life.lost()).leads(shutdown, "detached", "note").ignores(shutdown);
      const other = life.fork();
      life.pass(5_000).leads(deadline, "stopping", "note", "kill", "+killed").is({ why: "wish" });
      const asks = ["note", "+attached", "press-power-button", "+stop-requested"];
      other.leads(other.attached("running"), "stopping", ...asks);
    },
  },
  {
    name: "an order without an answer is a doubt of the VMM, not its end",
    run: (step) => {
      const life = starts(new Life(step)).tell(pause).pass(9_999).ignores(deadline).pass(1);
      const late = life.done("pause");
      life.leads(deadline, "detached", "+detached", "attach").ignores(late);
      life.leads(life.attached("running"), "pausing", "+attached", "pause").ignores(late);
    },
  },
  {
    name: "what a VMM says unasked is looked at, and then believed",
    run: (step) => {
      const life = starts(new Life(step));
      const event = { kind: "paused", invocation: life.invocation } as const;
      life.leads(event, "detached", "+detached", "attach").is({ cause: "doubted" });
      const other = life.fork();
      life.leads(life.attached("paused"), "paused", "note", "+attached").is({ wanted: "paused" });
      other.leads(other.attached("running"), "running", "+attached");
      const observed = { kind: "observed", invocation: life.invocation } as const;
      life.ignores({ ...observed, guest: "paused" });
      life.goes({ ...observed, guest: "off" }, "detached");
      life.goes(life.attached("off"), "stopping").is({ why: "off" });
    },
  },
  {
    name: "a boot that is refused may have been done before",
    run: (step) => {
      const life = new Life(step).tell(create).tell({ kind: "deadline" });
      life.tell(life.prepared()).tell(life.networkReady()).tell(life.spawned());
      life.tell(life.attached("created")).tell(life.done("create"));
      life.goes(life.refused("boot"), "detached").is({ cause: "refused" });
      const other = life.fork();
      life.goes(life.attached("running"), "running");
      other.leads(other.attached("created"), "stopping", "note", "+attached", "kill", "+killed");
    },
  },
  {
    name: "a spawn without an answer is looked for: found, or made again",
    run: (step) => {
      const life = new Life(step).tell(create).tell({ kind: "deadline" });
      life.tell(life.prepared()).tell(life.networkReady()).pass(9_999).ignores(deadline).pass(1);
      life.leads(deadline, "uncertain", "find", "+uncertain");
      const { invocation } = life;
      const other = life.fork();
      life.leads(life.spawned("found"), "connecting", "note", "+found", "attach");
      other.leads(
        { kind: "not-found", invocation },
        "preparing-network",
        "note",
        "connect-network",
      );
      const late = { kind: "spawned", invocation, processId: 9, startTicks: 9 } as const;
      other.leads(late, "preparing-network", "kill", "+killed");
    },
  },
  {
    name: "a new VMM whose socket comes late, and one whose never comes",
    run: (step) => {
      const life = new Life(step).tell(create).tell({ kind: "deadline" });
      life.tell(life.prepared()).tell(life.networkReady()).tell(life.spawned());
      life.leads(life.attachRefused(), "connecting").ignores(deadline).pass(5);
      life.leads(deadline, "connecting", "attach").goes(life.attachRefused(), "connecting");
      life.pass(10_000).leads(deadline, "stopping", "note", "kill", "+killed");
      life.is({ why: "crash", reason: "its VMM does not answer: no space left" });
    },
  },
];

/** The worker is killed, and the next one reads the note. */
function nextWorker(step: StepFunction, life: Life, isAlive: boolean): Life {
  const next = new Life(step, life.rules).pass(life.now);
  const { note } = life;
  if (note === undefined) throw new Error("nothing was noted");
  return next.tell({ kind: "adopted", note, alive: isAlive ? note.instance : undefined });
}

const takesUp = ["end-beside", "+adopted", "+detached", "attach"];

const adoptions: readonly Story[] = [
  {
    name: "a guest that runs is adopted, and not touched",
    run: (step) => {
      const next = nextWorker(step, starts(new Life(step)), true);
      const kinds = next.effects.map(({ kind }) => kind);
      if (kinds.includes("kill")) throw new Error("it is killed");
      next.is({ phase: "detached", wanted: "running" });
      next.goes(next.attached("running"), "running").is({ restarts: 0 });
    },
  },
  {
    name: "a guest that died meanwhile is cleared, and restarted by the rule",
    run: (step) => {
      const next = nextWorker(step, starts(new Life(step)), false).is({ phase: "clearing" });
      next.goes(next.cleared(), "preparing-network").runs().is({ restarts: 1 });
    },
  },
  {
    name: "a start between its note and its VMM is looked for",
    run: (step) => {
      const life = new Life(step).tell(create).tell({ kind: "deadline" });
      life.tell(life.prepared()).tell(life.networkReady());
      const next = nextWorker(step, life, false).is({ phase: "uncertain" });
      next.is({ invocation: life.invocation }).goes(next.spawned("found"), "connecting");
    },
  },
  {
    name: "a VMM that has given its state is ended, and the state restored",
    run: (step) => {
      const life = starts(new Life(step)).tell({ kind: "snapshot", snapshot: "today" });
      life.tell(life.done("pause")).tell(life.done("snapshot", "taken"));
      const next = nextWorker(step, life, true).is({ phase: "stopping", why: "replace" });
      next.goes(next.died("untold"), "clearing");
      spawnsNext(next.goes(next.cleared(), "preparing-network"));
    },
  },
  {
    name: "a successor that waited is ended, and its guest not touched",
    run: (step) => {
      const life = readies(starts(new Life(step)));
      const { beside } = life.state;
      const next = nextWorker(step, life, true).is({ phase: "detached", beside });
      requireEqual("effects", next.effects.map(nameOf), ["note", ...takesUp]);
      next.goes(next.attached("running"), "running").ignores(replace);
      next.goes({ kind: "beside-ended", invocation: beside ?? "" }, "running");
      next.goes(replace, "replacing");
    },
  },
  {
    name: "a successor that was to have the machine is asked whether it has; the old VMM is ended",
    run: (step) => {
      const life = hands(starts(new Life(step))).tell({ kind: "deadline" });
      const next = nextWorker(step, life, true).is({ phase: "connecting" });
      requireEqual("whom it ends", next.effects[1], {
        ...{ kind: "end-beside", invocation: life.state.beside },
      });
      const other = next.fork();
      next.goes(next.attached("paused"), "resuming").is(captureIn(next, "spent"));
      other.goes(other.attached("incoming"), "restoring").is(captureIn(other, "held"));
      nextWorker(step, life, false).is({ phase: "clearing", ...captureIn(life, "held") });
    },
  },
  {
    name: "a new VMM that has the machine already is not given an old state",
    run: (step) => {
      const life = spawnsNext(gives(starts(new Life(step)))).tell({ kind: "deadline" });
      life.tell(life.attached("incoming"));
      const next = nextWorker(step, life, true).is({ phase: "connecting" });
      const other = next.fork();
      next.goes(next.attached("paused"), "resuming").is(captureIn(next, "spent"));
      other.goes(other.attached("incoming"), "restoring").is(captureIn(other, "held"));
    },
  },
  {
    name: "what was spent is forgotten once more",
    run: (step) => {
      const life = spawnsNext(gives(starts(new Life(step)))).tell({ kind: "deadline" });
      life.tell(life.attached("incoming")).tell(life.done("restore"));
      const next = nextWorker(step, life, true);
      const forgets = next.effects.filter(({ kind }) => kind === "forget-capture");
      if (forgets.length !== 1) throw new Error("it is not forgotten");
    },
  },
  {
    name: "a shutdown under way goes on, a removal too, and who rests rests",
    run: (step) => {
      const life = starts(new Life(step)).tell(shutdown);
      const next = nextWorker(step, life, true).is({ phase: "detached" });
      next.goes(next.attached("running"), "stopping").is({ stage: "button" });
      for (const kind of ["shutdown", "delete"] as const) {
        const hurried = starts(new Life(step)).tell(shutdown).tell({ kind, hurry: true });
        nextWorker(step, hurried, true).is({ phase: "stopping", stage: "kill", why: "wish" });
      }
      life.tell(life.died(exited(0))).tell(life.cleared());
      nextWorker(step, life, false).is({ phase: "off", wanted: "off" });
      nextWorker(step, life.tell(remove), false).is({ phase: "removing" });
      const failed = new Life(step).tell(create);
      const { invocation } = failed;
      failed.tell({ kind: "prepare-refused", invocation, refusal: lasting });
      nextWorker(step, failed, false).is({ phase: "failed", reason: lasting.message });
    },
  },
];

export const stories: readonly Story[] = [
  ...ordinary,
  ...crashes,
  ...replacements,
  ...doubts,
  ...adoptions,
];
