/** Stories that are the same in every phase in which they can be told. */
import type { MachineEvent, Phase } from "../../../src/vm/lifecycle-state.ts";
import { makeEvents } from "./events.ts";
import { exited, type Life, nameOf, requireEqual, type StepFunction } from "./life.ts";
import { lifeIn, makeLives } from "./lives.ts";
import type { Story } from "./stories.ts";

const starting = ["preparing", "preparing-network", "starting", "uncertain"] as const;
const fresh = ["connecting", "creating", "restoring"] as const;
const busy = ["booting", "pausing", "resuming", "capturing", "snapshotting"] as const;
/** Its guest goes on, and another VMM is made ready. */
const replacing = ["replacing"] as const;
const steady = ["created", "running", "paused"] as const;
const moving = ["sending", "receiving", "arrived"] as const;
const alive = [
  ...[...fresh, ...busy, ...steady, ...replacing, ...moving],
  ...(["detached", "stopping"] as const),
] as const;
const empty = ["absent", "off", "failed", "backing-off", "removing", "removed"] as const;

const resettable = ["running", "paused", "replacing", "sending"] as const;

/** One story for each of these phases. */
function inEach<P extends Phase>(
  phases: readonly P[],
  what: string,
  tell: (life: Life, phase: P) => void,
): readonly Story[] {
  return phases.map((phase) => ({
    name: `${what} in ${phase}`,
    run: (step: StepFunction) => tell(lifeIn(phase, step), phase),
  }));
}

/** Of a law of its own: whatever gives a successor up has these before the rest. */
const givingUp = ["end-beside", "+replacement-given-up"];

/** What the effects of the last event are, less the note, and less the end of a successor. */
const kindsOf = (life: Life) =>
  life.effects
    .map((effect) => (effect.kind === "record" ? `+${effect.entry.what}` : effect.kind))
    .filter((kind) => kind !== "note" && !givingUp.includes(kind));

function requireKinds(life: Life, label: string, ...kinds: string[]): void {
  requireEqual(label, kindsOf(life), kinds);
}

const hurried = ["shutdown", "delete"].map((kind) => ({ kind, hurry: true }) as MachineEvent);
const orderly = ["shutdown", "delete"].map((kind) => ({ kind, hurry: false }) as MachineEvent);
const wantedAfter = (event: MachineEvent) => (event.kind === "delete" ? "absent" : "off");

const deaths: readonly Story[] = [
  ...inEach(alive, "a VMM that dies is cleared", (life, phase) => {
    const { invocation } = life;
    life.goes(life.died(exited(3)), "clearing").is({ lastEnding: exited(3) });
    requireKinds(life, "a death", "clear", "+died", "+ended");
    if (phase !== "stopping") life.is({ why: "crash", reason: "its VMM died" });
    const clear = life.effects.find(({ kind }) => kind === "clear");
    const cleared = clear?.kind === "clear" ? clear.instance.invocation : undefined;
    requireEqual("who is cleared", cleared, invocation);
  }),
  ...inEach(
    [...fresh, ...busy, ...steady, ...replacing],
    "a hurried wish kills at once",
    (life) => {
      for (const event of hurried) {
        const one = life.fork().goes(event, "stopping");
        one.is({ wanted: wantedAfter(event), stage: "kill", until: undefined, why: "wish" });
        const isHolding = life.state.capture !== undefined;
        const forgets = isHolding ? ["forget-capture", "+capture-forgotten"] : [];
        requireKinds(one, "a hurried wish", ...forgets, "kill", "+killed");
      }
    },
  ),
  ...inEach(["creating", "restoring"], "a hang-up, or a silence, ends it", (life) => {
    const other = life.fork();
    life.goes(life.lost(), "stopping").is({ why: "crash", reason: "end of stream" });
    requireKinds(life, "a hang-up", "kill", "+killed");
    other.untilDeadline().goes({ kind: "deadline" }, "stopping").is({ why: "crash" });
    requireKinds(other, "a silence", "kill", "+killed");
  }),
  ...inEach(["creating", "restoring"], "a refusal ends it", (life) => {
    const call = life.state.phase === "creating" ? "create" : "restore";
    life.goes(life.refused(call), "stopping").is({ why: "crash", reason: "no space left" });
    requireKinds(life, "a refusal", "+call-refused", "kill", "+killed");
  }),
];

const doubts: readonly Story[] = [
  ...inEach([...busy, ...steady, ...replacing, "sending"], "a hang-up is no death", (life) => {
    life.goes(life.lost(), "detached").is({ cause: "lost", attempts: 0, since: life.now });
    life.is({ reason: "end of stream", stopBy: undefined });
    requireKinds(life, "a hang-up", "+detached", "attach");
  }),
  ...inEach(busy, "a silence is no death", (life) => {
    life.untilDeadline().goes({ kind: "deadline" }, "detached").is({ cause: "lost" });
    life.is({ reason: "its VMM does not answer" });
    requireKinds(life, "a silence", "+detached", "attach");
  }),
  ...inEach(["booting", "pausing", "resuming"], "a refusal is looked at", (life, phase) => {
    const call = { booting: "boot", pausing: "pause", resuming: "resume" } as const;
    life.goes(life.refused(call[phase]), "detached").is({ cause: "refused" });
    life.is({ reason: "no space left" });
    requireKinds(life, "a refusal", "+call-refused", "+detached", "attach");
  }),
  ...inEach(["capturing", "snapshotting", "sending"], "a refusal is looked at", (life, phase) => {
    const calls = { capturing: "capture", snapshotting: "snapshot", sending: "send" } as const;
    const call = calls[phase];
    life.goes(life.refused(call), "detached").is({ cause: "lost", reason: "no space left" });
    requireKinds(life, "a refusal", "+call-refused", "+detached", "attach");
  }),
  ...inEach(steady, "what nobody told is noticed", (life, phase) => {
    const { invocation } = life;
    life.ignores({ kind: "observed", invocation, guest: phase });
    life.goes({ kind: "observed", invocation, guest: "off" }, "detached").is({ cause: "doubted" });
    life.is({ reason: "its guest is off, and nobody told" });
    requireKinds(life, "a look", "+detached", "attach");
  }),
];

const awake = ["booting", "running", "pausing", "paused", "resuming"] as const;

const guests: readonly Story[] = [
  ...inEach([...awake, "replacing", "sending"], "a guest is off", (life) => {
    const reasons = { guest: "its guest shut itself down", host: "its VMM was told to end it" };
    for (const by of ["guest", "host"] as const) {
      const one = life.fork().goes(life.off(by), "stopping");
      one.is({ why: "off", stage: "quit", until: life.now + 5_000, reason: reasons[by] });
      requireKinds(one, "a guest that is off", "+guest-off", "quit", "+stop-requested");
    }
  }),
  ...inEach([...awake, "replacing", "sending"], "a guest panics", (life) => {
    const { invocation } = life;
    life.goes({ kind: "guest-panic", invocation }, "stopping");
    life.is({ why: "crash", reason: "its guest panicked" });
    requireKinds(life, "a panic", "+guest-panic", "kill", "+killed");
  }),
  ...inEach(["capturing", "snapshotting"], "a paused guest neither panics nor ends", (life) => {
    const { invocation } = life;
    life.ignores({ kind: "guest-panic", invocation }).ignores(life.off());
  }),
  ...inEach([...busy, ...resettable], "a guest is reset", (life, phase) => {
    life.goes({ kind: "guest-reset", invocation: life.invocation }, phase);
    requireKinds(life, "a reset", "+guest-reset");
  }),
];

const wishes: readonly Story[] = [
  ...inEach(starting, "nobody wants it", (life, phase) => {
    for (const event of [...orderly, ...hurried]) {
      const one = life
        .fork()
        .goes(event, phase)
        .is({ wanted: wantedAfter(event) });
      requireKinds(one, "a wish", ...(phase === "preparing" ? ["abandon"] : []));
      one.ignores(event);
    }
  }),
  ...inEach([...starting, "connecting", "creating"], "it is wanted otherwise", (life, phase) => {
    life.goes({ kind: "pause" }, phase).is({ wanted: "paused" }).ignores({ kind: "pause" });
    for (const kind of ["boot", "resume"] as const) {
      const one = life.fork().goes({ kind }, phase).is({ wanted: "running" });
      requireKinds(one, "a wish");
    }
  }),
  ...inEach([...busy, "detached"], "it is wanted otherwise", (life, phase) => {
    life.goes({ kind: "resume" }, phase).goes({ kind: "pause" }, phase).is({ wanted: "paused" });
    life.goes({ kind: "resume" }, phase).is({ wanted: "running" });
    requireKinds(life, "a wish");
  }),
  ...inEach(busy, "an orderly wish waits for the answer", (life, phase) => {
    for (const event of orderly) {
      const one = life
        .fork()
        .goes(event, phase)
        .is({ wanted: wantedAfter(event) });
      requireKinds(one, "a wish");
    }
  }),
  ...inEach(["off", "failed", "backing-off"], "boot begins, and forgives", (life) => {
    life.goes({ kind: "boot" }, life.state.prepared ? "preparing-network" : "preparing");
    life.is({ wanted: "running", failures: 0, begunBy: "operator", reason: undefined });
  }),
  ...inEach(["off", "failed", "backing-off"], "delete removes", (life) => {
    life.goes({ kind: "delete", hurry: false }, "removing").is({ wanted: "absent" });
    requireKinds(life, "a delete", "discard");
  }),
  ...inEach(["failed", "backing-off"], "shutdown is off", (life) => {
    life.goes({ kind: "shutdown", hurry: false }, "off").is({ wanted: "off", failures: 0 });
    requireKinds(life, "a shutdown", "+off");
  }),
  ...inEach(
    ["stopping", "clearing"],
    "boot follows, and delete is not taken back",
    (life, phase) => {
      life.goes({ kind: "boot" }, phase).is({ wanted: "running", why: "wish" });
      life.goes({ kind: "shutdown", hurry: false }, phase).is({ wanted: "off" });
      life.goes({ kind: "delete", hurry: false }, phase).is({ wanted: "absent" });
      life.ignores({ kind: "boot" }).ignores({ kind: "shutdown", hurry: false });
    },
  ),
];

const stragglers: readonly Story[] = inEach(
  [...starting, ...alive, ...empty, "clearing", "given"],
  "a start that was given up is killed",
  (life, phase) => {
    const event = { kind: "spawned", invocation: "i98", processId: 4, startTicks: 9 } as const;
    life.goes(event, phase);
    requireKinds(life, "a straggler", "kill", "+killed");
    const kill = life.effects[0];
    requireEqual("who is killed", kill?.kind === "kill" && kill.instance.processId, 4);
  },
);

const captures: readonly Story[] = [
  {
    name: "what was spent is over when it is forgotten, in every phase",
    run: (step) => {
      const spent = makeLives(step).filter(({ life }) => life.state.capture?.stage === "spent");
      requireEqual("lives with something spent", spent.length > 30, true);
      for (const { life } of spent) {
        const capture = life.state.capture?.id ?? "";
        life.fork().goes({ kind: "forgotten", capture }, life.state.phase).is({
          capture: undefined,
        });
      }
    },
  },
  {
    name: "what is held and lost is noted, in every phase",
    run: (step) => {
      const held = makeLives(step).filter(({ life }) => life.state.capture?.stage === "held");
      requireEqual("lives with something held", held.length > 15, true);
      for (const { life } of held) {
        const capture = life.state.capture?.id ?? "";
        const copy = life.fork().tell({ kind: "capture-lost", capture, reason: "gone" });
        copy.is({ capture: undefined, reason: "gone" });
        requireEqual("it is told", kindsOf(copy)[0], "+capture-lost");
        if ("why" in copy.state) requireEqual("why", copy.state.why === "replace", false);
      }
    },
  },
];

/** What is told to a life with a successor, and leaves it without a use for that. */
const successors: readonly Story[] = [
  {
    name: "a successor that is not used is ended, and nothing else is, in every phase",
    run: (step) => {
      const lives = makeLives(step).filter(({ life }) => life.successor !== "none");
      requireEqual("lives with a successor", lives.length > 10, true);
      for (const { name, life } of lives) {
        const { successor, state } = life;
        for (const event of Object.values(makeEvents(life)).flat()) {
          const copy = life.fork().tell(event);
          const instance = "instance" in copy.state ? copy.state.instance?.invocation : undefined;
          const isUsed = copy.successor === successor || instance === successor;
          const ends = copy.effects.flatMap((effect) =>
            effect.kind === "end-beside" ? [effect.invocation] : [],
          );
          const former = "instance" in state ? (state.instance?.invocation ?? "") : "";
          const hasIt = instance === successor ? [former] : [];
          const expected = isUsed ? hasIt : [successor];
          requireEqual(`whom ${event.kind} ends in ${name}`, ends, expected);
          requireEqual("and is noted", copy.note?.beside, expected[0] ?? successor);
          const given = copy.effects.some((effect) => nameOf(effect) === "+replacement-given-up");
          requireEqual("and is told", given, !isUsed);
        }
      }
    },
  },
  {
    name: "whoever is to be ended is noted until it is, in every phase",
    run: (step) => {
      const lives = makeLives(step).filter(
        ({ life }) => life.state.beside !== undefined && life.successor === "none",
      );
      requireEqual("lives with somebody to be ended", lives.length > 10, true);
      for (const { life } of lives) {
        const invocation = life.state.beside ?? "";
        const copy = life.fork().goes({ kind: "beside-ended", invocation }, life.state.phase);
        copy.is({ beside: undefined });
        requireEqual("it is noted", copy.note?.beside, undefined);
      }
    },
  },
];

export const laws: readonly Story[] = [
  ...successors,
  ...deaths,
  ...doubts,
  ...guests,
  ...wishes,
  ...stragglers,
  ...captures,
];
