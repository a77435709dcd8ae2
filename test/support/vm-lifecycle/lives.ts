/** Machines in every phase: as wanted, as nobody wants them, and with a state that is captured. */
import { noteOf } from "../../../src/vm/lifecycle.ts";
import type { MachineRules, Phase } from "../../../src/vm/lifecycle-state.ts";
import { Life, lasting, type StepFunction } from "./life.ts";

const shutdown = { kind: "shutdown", hurry: false } as const;
const remove = { kind: "delete", hurry: false } as const;

type Make = (life: Life) => Life;

const crashed: Make = (life) => life.runs().pass(50).tell(life.died()).pass(5);
const networking: Make = (life) => crashed(life).tell(life.cleared());
const starting: Make = (life) => networking(life).tell(life.networkReady());
const uncertain: Make = (life) => starting(life).untilDeadline().tell({ kind: "deadline" });
const connecting: Make = (life) => starting(life).tell(life.spawned());
const creating: Make = (life) => connecting(life).tell(life.attached("created"));
const booting: Make = (life) => creating(life).tell(life.done("create"));
const running: Make = (life) => booting(life).tell(life.done("boot")).pass(60);
const pausing: Make = (life) => running(life).tell({ kind: "pause" });
const paused: Make = (life) => pausing(life).tell(life.done("pause"));
const replacing: Make = (life) => running(life).tell({ kind: "replace" });
/** Its successor waits, and the guest of a paused one need not be paused first. */
const waits: Make = (life) => life.tell(life.successorSpawned()).tell(life.successorWaits());
const capturing: Make = (life) => waits(paused(life).tell({ kind: "replace" }));
const detached: Make = (life) => running(life).tell(life.lost());
const sending: Make = (life) => running(life).tell({ kind: "migrate", migration: "m1" });
const given: Make = (life) => sending(life).tell(life.done("send"));
const arriving: Make = (life) =>
  life.tell({ kind: "create", wanted: "running", migration: "m1" }).tell(life.prepared());
const receiving: Make = (life) => {
  arriving(life).tell(life.networkReady()).tell(life.spawned());
  return life.tell(life.attached("incoming"));
};
const arrived: Make = (life) => receiving(life).tell(life.done("receive"));
const off: Make = (life) => running(life).tell(life.off()).tell(life.died()).tell(life.cleared());
const removing: Make = (life) => off(life).tell(remove);

const makes: { readonly [P in Phase]: Make } = {
  absent: (life) => life,
  preparing: (life) => life.tell({ kind: "create", wanted: "running" }),
  "preparing-network": networking,
  starting,
  uncertain,
  connecting,
  creating,
  created: (life) =>
    life
      .tell({ kind: "create", wanted: "created" })
      .tell(life.prepared())
      .tell(life.networkReady())
      .tell(life.spawned())
      .tell(life.attached("off"))
      .tell(life.done("create")),
  booting,
  running,
  pausing,
  paused,
  resuming: (life) => paused(life).tell({ kind: "resume" }),
  replacing,
  capturing,
  snapshotting: (life) => paused(life).tell({ kind: "snapshot", snapshot: "today" }),
  sending,
  given,
  receiving,
  arrived,
  restoring: (life) => capturing(life).tell(life.done("capture")),
  detached,
  stopping: (life) => running(life).tell(shutdown),
  clearing: crashed,
  "backing-off": (life) => crashed(networking(life)).tell(life.cleared()),
  off,
  failed: (life) =>
    life
      .tell({ kind: "create", wanted: "running" })
      .tell({ kind: "prepare-refused", invocation: life.invocation, refusal: lasting }),
  removing,
  removed: (life) => removing(life).tell({ kind: "discarded" }),
};

/** A VMM that writes a snapshot, and has not got its machine any more. */
const heldStopping: Make = (life) => {
  paused(life).tell({ kind: "snapshot", snapshot: "today" });
  return life.tell(life.done("snapshot", "taken"));
};
const heldClearing: Make = (life) => heldStopping(life).tell(life.died());
const heldNetworking: Make = (life) => heldClearing(life).tell(life.cleared());
const heldStarting: Make = (life) => heldNetworking(life).tell(life.networkReady());
function heldConnecting(life: Life): Life {
  return heldStarting(life).tell(life.spawned());
}
const heldCrashed: Make = (life) => {
  const clearing = heldConnecting(life).pass(30).tell(life.died());
  return clearing.tell(life.cleared());
};

/** One more life in a phase, and what is special about it. */
interface Variant {
  readonly name: string;
  readonly make: Make;
  readonly rules?: Partial<MachineRules>;
}

const replacements: readonly Variant[] = [
  { name: "replacing, spawned", make: (life) => replacing(life).tell(life.successorSpawned()) },
  {
    name: "replacing, tried once",
    make: (life) => {
      const spawned = replacing(life).tell(life.successorSpawned());
      const { successor: invocation } = spawned;
      return spawned.tell({ ...spawned.attachRefused(), invocation });
    },
  },
  { name: "replacing, paused", make: (life) => paused(life).tell({ kind: "replace" }) },
  {
    name: "replacing, paused, spawned",
    make: (life) => {
      paused(life).tell({ kind: "replace" });
      return life.tell(life.successorSpawned());
    },
  },
  {
    name: "replacing, to be paused",
    make: (life) => replacing(life).tell({ kind: "pause" }),
  },
  {
    name: "running, its successor given up",
    make: (life) => replacing(life).tell(life.successorDied()),
  },
  { name: "capturing, its successor dead", make: (life) => loses(capturing(life)) },
  {
    name: "capturing, pausing first, its successor dead",
    make: (life) => loses(waits(replacing(life))),
  },
  {
    name: "restoring, its former VMM gone",
    make: (life) => {
      const restoring = capturing(life).tell(life.done("capture"));
      const invocation = restoring.state.beside ?? "";
      return restoring.tell({ kind: "beside-ended", invocation });
    },
  },
  { name: "restoring after a failure", make: (life) => restoredAgain(life) },
  { name: "stopping for a new VMM", make: heldStopping },
  { name: "clearing for a new VMM", make: heldClearing },
  { name: "network for a new VMM", make: heldNetworking },
  { name: "starting a new VMM", make: heldStarting },
  {
    name: "uncertain of a new VMM",
    make: (life) => heldStarting(life).untilDeadline().tell({ kind: "deadline" }),
  },
  { name: "connecting to a new VMM", make: heldConnecting },
  {
    name: "backing off with what is held",
    make: (life) => {
      const again = heldCrashed(life).tell(life.networkReady()).tell(life.spawned()).pass(9);
      return again.tell(life.died()).tell(life.cleared());
    },
  },
  { name: "capturing, pausing first", make: (life) => waits(replacing(life)) },
  {
    name: "snapshotting, pausing first",
    make: (life) => running(life).tell({ kind: "snapshot", snapshot: "today" }),
  },
  { name: "detached while capturing", make: (life) => capturing(life).tell(life.lost()) },
  { name: "dead while capturing", make: (life) => capturing(life).tell(life.died()) },
];

const loses: Make = (life) => life.tell(life.successorDied());
const restoredAgain: Make = (life) => heldConnecting(life).tell(life.attached("incoming"));

/** A new VMM runs its guest, and nobody has said that what was captured is forgotten. */
const spent: Make = (life) => {
  const restored = heldConnecting(life).tell(life.attached("incoming"));
  return restored.tell(life.done("restore")).tell({ kind: "resume" }).tell(life.done("resume"));
};
const spentClearing: Make = (life) => spent(life).pass(50).tell(life.died());
const spentStarting: Make = (life) =>
  spentClearing(life).pass(60_000).tell(life.cleared()).tell(life.networkReady());
const spentCreating: Make = (life) =>
  spentStarting(life).tell(life.spawned()).tell(life.attached("created"));

const afterwards: readonly Variant[] = [
  { name: "running, spent", make: spent },
  { name: "pausing, spent", make: (life) => spent(life).tell({ kind: "pause" }) },
  {
    name: "paused, spent",
    make: (life) => spent(life).tell({ kind: "pause" }).tell(life.done("pause")),
  },
  {
    name: "resuming, spent",
    make: (life) =>
      spent(life).tell({ kind: "pause" }).tell(life.done("pause")).tell({ kind: "resume" }),
  },
  { name: "detached, spent", make: (life) => spent(life).tell(life.lost()) },
  { name: "stopping, spent", make: (life) => spent(life).tell(shutdown) },
  { name: "clearing, spent", make: spentClearing },
  {
    name: "network, spent",
    make: (life) => spentClearing(life).pass(60_000).tell(life.cleared()),
  },
  { name: "starting, spent", make: spentStarting },
  {
    name: "uncertain, spent",
    make: (life) => spentStarting(life).untilDeadline().tell({ kind: "deadline" }),
  },
  { name: "connecting, spent", make: (life) => spentStarting(life).tell(life.spawned()) },
  { name: "creating, spent", make: spentCreating },
  { name: "booting, spent", make: (life) => spentCreating(life).tell(life.done("create")) },
  {
    name: "backing off, spent",
    make: (life) => {
      const again = spentClearing(life).tell(life.cleared()).tell(life.networkReady());
      return again.tell(life.spawned()).pass(9).tell(life.died()).tell(life.cleared());
    },
  },
  {
    name: "off, spent",
    make: (life) => spent(life).tell(life.off()).tell(life.died()).tell(life.cleared()),
  },
  {
    name: "failed, spent",
    make: (life) => spentStarting(life).tell(lastingSpawn(life)),
  },
  {
    name: "removing, spent",
    make: (life) => heldConnecting(life).tell(remove).tell(life.died()).tell(life.cleared()),
  },
];

const lastingSpawn = ({ invocation }: Life) =>
  ({ kind: "spawn-refused", invocation, refusal: lasting }) as const;

/** Created to be paused in the end. */
const pausedCreating: Make = (life) => {
  life.tell({ kind: "create", wanted: "paused" }).tell(life.prepared()).tell(life.networkReady());
  return life.tell(life.spawned()).tell(life.attached("created"));
};

const others: readonly Variant[] = [
  { name: "creating, to be paused", make: pausedCreating },
  { name: "booting, to be paused", make: (life) => pausedCreating(life).tell(life.done("create")) },

  {
    name: "detached, tried once",
    make: (life) => detached(life).tell(life.attachRefused()),
  },
  {
    name: "detached, doubted",
    make: (life) => running(life).tell({ kind: "paused", invocation: life.invocation }),
  },
  {
    name: "detached, the pause refused",
    make: (life) => pausing(life).tell(life.refused("pause")),
  },
  {
    name: "detached, the boot refused",
    make: (life) => booting(life).tell(life.refused("boot")),
  },
  {
    name: "detached, the waking for a shutdown refused",
    make: (life) => paused(life).tell(shutdown).tell(life.refused("resume")),
  },
  { name: "connecting, tried once", make: (life) => connecting(life).tell(life.attachRefused()) },
  {
    name: "stopping, asked to quit",
    make: (life) => running(life).tell(shutdown).tell(life.off()),
  },
  {
    name: "stopping, killed",
    make: (life) => running(life).tell({ kind: "shutdown", hurry: true }),
  },
  {
    name: "stopping, panicked",
    make: (life) => running(life).tell({ kind: "guest-panic", invocation: life.invocation }),
  },
  {
    name: "clearing, its guest off",
    make: (life) => running(life).tell(life.off()).tell(life.died()),
  },
  {
    name: "clearing, its guest off, always restarted",
    make: (life) => running(life).tell(life.off()).tell(life.died()),
    rules: { restart: "always" },
  },
  { name: "clearing, never restarted", make: crashed, rules: { restart: "never" } },
  {
    name: "clearing, no back-off",
    make: (life) => crashed(networking(life)),
    rules: { backoff: "none" },
  },
  {
    name: "clearing, limited",
    make: (life) => crashed(networking(life)),
    rules: { startLimit: { starts: 2, within: 60_000 } },
  },
  { name: "starting, never restarted", make: (life) => begun(life), rules: { restart: "never" } },
  {
    name: "removing, tried once",
    make: (life) =>
      removing(life).tell({
        kind: "discard-refused",
        refusal: { message: "busy", code: "EBUSY", lasts: false },
      }),
  },
  {
    name: "backing off with what is held, never restarted",
    make: (life) => {
      const again = heldCrashedNever(life);
      return again.tell(life.died()).tell(life.cleared());
    },
    rules: { restart: "never" },
  },
  { name: "preparing for a snapshot", make: fromSnapshot },
  { name: "preparing for another host's", make: (life) => fromAnotherHost(life) },
  { name: "network for another host's", make: arriving },
  { name: "starting for another host's", make: (life) => arriving(life).tell(life.networkReady()) },
  {
    name: "connecting for another host's",
    make: (life) => arriving(life).tell(life.networkReady()).tell(life.spawned()),
  },
  { name: "clearing for another host's", make: (life) => receiving(life).tell(life.died()) },
  { name: "given, its VMM dead", make: (life) => given(life).tell(life.died()) },
  { name: "given, undecided", make: (life) => given(life).tell(cut) },
  { name: "given, undecided, dead", make: (life) => given(life).tell(cut).tell(life.died()) },
  { name: "given away, stopping", make: (life) => given(life).tell(taken) },
  { name: "given away, clearing", make: (life) => given(life).tell(taken).tell(life.died()) },
  { name: "arrived, undecided", make: (life) => arrived(life).tell(cut) },
  { name: "arrived, its connection lost", make: (life) => arrived(life).tell(life.lost()) },
  {
    name: "sending, to be paused",
    make: (life) => sending(life).tell({ kind: "pause" }),
  },
  {
    name: "preparing only",
    make: (life) => life.tell({ kind: "create", wanted: "off" }),
  },
];

const cut = { kind: "undecided", migration: "m1", reason: "the connection was cut" } as const;
const taken = { kind: "taken", migration: "m1" } as const;

function fromAnotherHost(life: Life): Life {
  return life.tell({ kind: "create", wanted: "running", migration: "m1" });
}

function fromSnapshot(life: Life): Life {
  return life.tell({ kind: "create", wanted: "running", capture: "snapshot-1" });
}

function begun(life: Life): Life {
  life.tell({ kind: "create", wanted: "running" }).tell(life.prepared());
  return life.tell(life.networkReady());
}

/** Without a crash before it: nothing would have followed that. */
function heldCrashedNever(life: Life): Life {
  life.runs().tell({ kind: "pause" }).tell(life.done("pause"));
  life.tell({ kind: "snapshot", snapshot: "today" });
  life.tell(life.done("snapshot", "taken")).tell(life.died()).tell(life.cleared());
  life.tell(life.networkReady()).tell(life.spawned()).pass(30).tell(life.died());
  return life.tell(life.cleared()).tell(life.networkReady()).tell(life.spawned()).pass(9);
}

/** Every life; the first of a phase is the plain one. */
export function makeLives(step: StepFunction): readonly { name: string; life: Life }[] {
  const plain = phases.map((name) => ({ name, make: makes[name] }));
  const variants: Variant[] = [...plain, ...replacements, ...afterwards, ...others];
  const lives = variants.map(({ name, make, rules }) => ({
    name,
    life: make(new Life(step, rules)),
  }));
  const unwanted = lives.flatMap(({ name, life }) =>
    [shutdown, remove].map((event) => ({
      name: `${name}, then ${event.kind}`,
      life: life.fork().tell(event),
    })),
  );
  return [
    ...lives,
    ...unwanted,
    ...plain.flatMap(({ name }) => withAnother(name, lifeIn(name, step))),
  ];
}

/** The same, while a VMM is being ended that was beside it. */
function withAnother(name: Phase, life: Life): readonly { name: string; life: Life }[] {
  const isAlone = life.note === undefined || name === "removed";
  if (isAlone || life.state.beside !== undefined) return [];
  life.state = { ...life.state, beside: "i97" };
  life.note = noteOf(life.state);
  return [{ name: `${name}, another VMM beside`, life }];
}

export const phases = Object.keys(makes) as Phase[];
export const lifeIn = (phase: Phase, step: StepFunction, rules?: Partial<MachineRules>): Life =>
  makes[phase](new Life(step, rules));
