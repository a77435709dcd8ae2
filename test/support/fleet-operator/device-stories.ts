/** What an operator does for one device, told as stories; each runs under any step function. */
import { phaseOf, stepDevice } from "../../../src/fleet/operator/lifecycle-device.ts";
import { meant } from "../../../src/fleet/operator/lifecycle-slot.ts";
import {
  builds,
  candidateInstance,
  DeviceLife,
  hex,
  makeDeviceEvents,
  makeDeviceLives,
  markerOf,
  type StepDevice,
  settings,
} from "./device-life.ts";

export interface Story {
  readonly name: string;
  readonly run: (step: StepDevice) => void;
}

const story = (name: string, run: (life: DeviceLife) => void): Story => ({
  name,
  run: (step) => run(new DeviceLife(step)),
});

const unhealthy = [{ role: "vm", digest: null, healthy: false, reason: "no answer" }];

const upgrades: readonly Story[] = [
  story("an upgrade from the marker to done, one write each", (life) => {
    life.tell(life.status()).tell(life.canonical()).is("free");
    life
      .tell(life.assigned())
      .is("told")
      .wrote({ transaction: hex("1", 32), commit: null });
    life.requires("expects", life.write?.expect, 0).tell(life.landed()).wroteNothing();
    life.tell(life.says("staging")).is("preparing").wroteNothing();
    life.tell(life.says("cutover-ready")).is("ready").wroteNothing();
    const revision = life.device.marker.revision;
    life.tell(life.candidate()).is("observed").wrote({ observed: candidateInstance, commit: null });
    life.requires("expects", life.write?.expect, revision).tell(life.landed()).wroteNothing();
    life.pass(10_000).tell(life.candidate()).is("observed").wroteNothing();
    const commit = { transaction: hex("1", 32), instance: candidateInstance };
    life.pass(10_000).tell(life.candidate()).is("committed").wrote({ commit });
    life.tell(life.landed()).is("committed").wroteNothing();
    life.tell(life.says("commit-seen")).is("swapping").tell(life.says("canonical")).is("swapping");
    life.tell(life.says("done")).is("done").wroteNothing();
  }),
  story("who runs something else long after it was done has failed, until it runs it", (life) => {
    life.swapping().tell(life.says("canonical")).tell(life.says("done"));
    life.pass(life.device.since + settings.silentAfter - 1 - life.now);
    life.tell(life.canonical()).is("done");
    life.pass(1).tell(life.canonical()).is("failed");
    life.tell(life.canonical(builds.new)).is("done");
    life
      .tell(life.says("done", { current: builds.old }))
      .is("failed")
      .wroteNothing();
  }),
  story("the candidate is heard before the device says that it runs", (life) => {
    life.told().tell(life.candidate()).is("told").wroteNothing();
    life.tell(life.says("staging")).wroteNothing();
    life.tell(life.says("cutover-ready")).wrote({ observed: candidateInstance });
  }),
  story("heard while its download is still told of", (life) => {
    life.told().tell(life.says("verifying")).tell(life.candidate()).wroteNothing();
    life.tell(life.says("cutover-ready")).wrote({ observed: candidateInstance });
  }),
  story("held, heard again, committed", (life) => {
    life.observed().tell(life.says("held")).is("held");
    life
      .pass(settings.silentAfter + 1)
      .tell(life.candidate())
      .is("held")
      .wroteNothing();
    life.pass(settings.probation).tell(life.candidate()).is("committed");
  }),
  story("held before it was ever heard", (life) => {
    life.ready().tell(life.says("held")).tell(life.candidate());
    life.is("held").wrote({ observed: candidateInstance });
  }),
  story("a candidate that was started anew is seen anew", (life) => {
    const candidate = { ...builds.new, instance: hex("d", 32) };
    life.observed().tell(life.says("cutover-ready", { candidate })).is("ready");
    life.pass(settings.probation).tell(life.candidate()).is("ready").wroteNothing();
    life.tell(life.candidate({ instance: hex("d", 32), sequence: 1 }));
    life.is("observed").wrote({ observed: hex("d", 32), commit: null });
  }),
];

/** Rule 2: no commit without the candidate's own heartbeat, heard by this process. */
const commits: readonly Story[] = [
  story("a stale heartbeat of the same version commits nothing", (life) => {
    life.ready();
    for (const change of [
      { instance: hex("9", 32) },
      { transaction: hex("e", 32) },
      { transaction: null },
      { digest: builds.old.digest },
      { version: "1.0.9" },
    ]) {
      life.tell(life.candidate(change)).is("ready").wroteNothing();
      life.pass(settings.probation).tell(life.candidate(change)).is("ready").wroteNothing();
    }
  }),
  story("what a first list has of a candidate is of long ago", (life) => {
    life.ready().tell(life.candidate({}, true)).is("ready").wroteNothing();
    life.requires("candidate", life.device.candidate, undefined);
    life.observed().pass(settings.probation).tell(life.candidate({}, true)).wroteNothing();
  }),
  story("one heartbeat, told twice or late, is one", (life) => {
    life.observed().pass(settings.probation);
    const told = life.device.candidate;
    if (told === undefined) throw new Error("It was not heard");
    const { heartbeat, revision } = told;
    life.tell({ kind: "candidate", heartbeat, revision, listed: false }).wroteNothing();
    life.tell({ kind: "candidate", heartbeat, revision: revision + 50, listed: false });
    life.is("observed").wroteNothing();
    life.tell({
      ...{ kind: "candidate", revision: revision - 1, listed: false },
      heartbeat: { ...heartbeat, sequence: 9 },
    });
    life.is("observed").wroteNothing();
  }),
  story("a candidate that the device does not name is none of its", (life) => {
    life.told().tell(life.says("cutover-ready", { candidate: null }));
    life.tell(life.candidate()).is("ready").wroteNothing();
    const candidate = { ...builds.old, instance: candidateInstance };
    life.tell(life.says("cutover-ready", { candidate })).tell(life.candidate()).wroteNothing();
  }),
  story("an unhealthy role has the probation begin anew", (life) => {
    life
      .observed()
      .pass(10_000)
      .tell(life.candidate({ roles: unhealthy }))
      .wroteNothing();
    life.pass(10_000).tell(life.candidate()).wroteNothing();
    life.pass(10_000).tell(life.candidate()).is("observed").wroteNothing();
    life.pass(10_000).tell(life.candidate()).is("committed");
  }),
  story("a gap has the probation begin anew", (life) => {
    life
      .observed()
      .pass(settings.silentAfter + 1)
      .tell(life.candidate())
      .wroteNothing();
    life.pass(settings.probation).tell(life.candidate()).is("committed");
  }),
  story("no commit while its rollout is paused, or its window closed", (life) => {
    life.mayCommit = false;
    life.observed().pass(settings.probation).tell(life.candidate()).is("observed").wroteNothing();
    life.mayCommit = true;
    life.pass(10_000).tell(life.candidate()).is("committed");
  }),
  story("a word of the device long after its candidate's is no sign of life", (life) => {
    life
      .told()
      .tell(life.candidate())
      .pass(settings.silentAfter + 1);
    life.tell(life.says("cutover-ready")).is("ready").wroteNothing();
  }),
  story("nothing is written while a write is on its way", (life) => {
    life.ready().tell(life.candidate()).is("observed").pass(settings.probation);
    life.tell(life.candidate()).is("observed").wroteNothing();
    life.tell(life.withdrawn()).is("observed").wroteNothing();
    life.tell(life.landed()).is("committed").wrote({ observed: candidateInstance });
  }),
];

/** Rules 3 and 5: what was taken back, lost, or written by another. */
const endings: readonly Story[] = [
  story("what is not committed is taken back, and what is, is not", (life) => {
    const reason = { reason: "not heard for 130 s" };
    for (const way of [
      life.fork().told(),
      preparing(life.fork()),
      life.fork().ready(),
      life.fork().observed(),
      held(life.fork().observed()),
    ]) {
      way.tell(way.withdrawn()).is("withdrawn").wrote({ withdrawn: reason, commit: null });
    }
    life.committed().tell(life.landed()).tell(life.withdrawn()).is("committed").wroteNothing();
    life.tell(life.says("swapped")).tell(life.withdrawn()).is("swapping").wroteNothing();
  }),
  story("taken back before the device heard of it: it may be told anew", (life) => {
    life.told().tell(life.withdrawn()).is("withdrawn");
    life
      .tell(life.assigned({ transaction: hex("2", 32) }))
      .is("withdrawn")
      .wroteNothing();
    life.tell(life.landed()).is("returned");
    life.tell(life.assigned({ transaction: hex("2", 32) })).is("told");
    life.requires("told", life.write?.value?.transaction, hex("2", 32));
  }),
  story("taken back, and ended by the device", (life) => {
    life.observed().tell(life.withdrawn()).tell(life.landed()).is("withdrawn");
    life.tell(life.says("aborted", { cause: "withdrawn" })).is("returned");
  }),
  story("a candidate that failed is against the version, even when it was taken back", (life) => {
    life.observed().tell(life.withdrawn()).tell(life.landed());
    life.tell(life.says("aborted", { cause: "candidate" })).is("failed");
  }),
  story("an end without a cause is judged by what was seen", (life) => {
    const words = {
      ...{ ending: "exited with 1", log: "" },
      ...{ processor_seconds: null, memory_peak_bytes: null },
    };
    const ready = life.fork().ready();
    ready.tell(ready.says("aborted")).is("failed");
    const seen = life.fork().observed();
    seen.fork().tell(seen.says("aborted")).is("returned");
    seen
      .fork()
      .tell(seen.says("aborted", { last_words: words }))
      .is("failed");
    const taken = life.fork().ready();
    taken.tell(taken.withdrawn()).tell(taken.landed());
    taken.tell(taken.says("aborted")).is("returned");
  }),
  story("it went back after the commit", (life) => {
    life
      .swapping()
      .tell(life.says("rolled-back", { cause: "canonical" }))
      .is("failed");
    life.tell(life.assigned({ transaction: hex("2", 32) })).is("told");
  }),
  story("the boot guard went back long after it was done", (life) => {
    life.swapping().tell(life.says("done")).is("done");
    life.tell(life.says("rolled-back", { current: builds.old })).is("failed");
  }),
  story("the next one is given after it is done, and forgets the last candidate", (life) => {
    life.swapping().tell(life.says("done"));
    life.tell(life.assigned({ transaction: hex("2", 32) })).wrote({ transaction: hex("2", 32) });
    life.requires("candidate", life.device.candidate, undefined);
    life.requires("expects", life.write?.expect, life.device.marker.revision);
  }),
  story("a transaction that nobody here knows ends by itself", (life) => {
    life.tell(life.status({ phase: "swapped", transaction: hex("f", 32) })).is("foreign");
    life.tell(life.assigned()).is("foreign").wroteNothing();
    life.tell(life.status({ phase: "done", transaction: hex("f", 32) })).is("free");
    life.tell(life.assigned()).is("told");
  }),
  story("a marker that waits behind such a transaction is taken back", (life) => {
    life
      .told()
      .tell(life.status({ phase: "staging", transaction: hex("f", 32) }))
      .is("foreign");
    life.tell(life.withdrawn()).wrote({ withdrawn: { reason: "not heard for 130 s" } });
  }),
  story("the store has lost a marker that it had acknowledged: it is written again", (life) => {
    life.committed().tell(life.landed());
    const { marker } = life;
    life.tell({ kind: "found", value: undefined, revision: 0 }).is("committed").wrote(marker);
    life.requires("expects", life.write?.expect, 0);
    life.tell(life.landed()).wroteNothing().is("committed");
    const older = { ...marker, commit: null };
    life.tell({ kind: "found", value: older, revision: 7 }).wrote(marker);
    life.requires("expects", life.write?.expect, 7);
  }),
  story("a write that was refused for what another one wrote is theirs", (life) => {
    life.observed().pass(settings.probation).tell(life.candidate()).is("committed");
    const theirs = markerOf({ transaction: hex("7", 32) });
    life.tell({ kind: "found", value: theirs, revision: life.nextRevision() }).wroteNothing();
    life.is("foreign").requires("marker", life.marker, theirs);
  }),
  story("a write that did not land is written again, by the same expectation", (life) => {
    life.observed().pass(settings.probation).tell(life.candidate());
    const { stored: value, revision } = life.device.marker;
    life.tell({ kind: "found", value, revision }).is("committed");
    life.wrote({ commit: { transaction: hex("1", 32), instance: candidateInstance } });
    life.requires("expects", life.write?.expect, revision);
  }),
  story("what an operator finds at its start is what counts", (life) => {
    life.tell({ kind: "found", value: markerOf(), revision: 5 }).is("told").wroteNothing();
    life.tell(life.says("cutover-ready")).tell(life.candidate());
    life.wrote({ observed: candidateInstance }).requires("expects", life.write?.expect, 5);
  }),
  story("an older store: the device's word counts, and is not taken back", (life) => {
    life.swapping().tell(life.says("done"));
    life.tell(life.status({ step: 1 }, true)).is("done");
    const late = { ...life.status({ step: 1 }), revision: 3 };
    life.tell(late).is("done");
    // It begins a journal anew, and says so itself.
    life.tell(life.status({ step: 1, current: builds.new })).requires("step", stepOf(life), 1);
  }),
  story("who has the version already, and knows nothing of the marker, is done", (life) => {
    life
      .told()
      .tell(life.status({ current: builds.new }))
      .is("done");
  }),
  story("an older store brought back a marker that the device is past", (life) => {
    const old = markerOf({
      ...{ transaction: hex("7", 32), observed: candidateInstance },
      commit: { transaction: hex("7", 32), instance: candidateInstance },
    });
    life.tell({ kind: "found", value: old, revision: 50 });
    const status = { phase: "done", transaction: hex("6", 32) } as const;
    // Of before the marker: it may be about to tell more.
    life
      .fork()
      .tell({ ...life.status(status), revision: 40 })
      .is("committed");
    life.tell(life.status(status)).is("returned");
    life.tell(life.assigned()).is("told");
  }),
  story("the way back is a part of the swap", (life) => {
    life
      .swapping()
      .tell(life.says("reverting", { reason: "silent" }))
      .is("swapping");
  }),
  story("what is not understood is told, until it is", (life) => {
    life.tell({ kind: "unreadable", reason: "protocol: expected 1, received 2" });
    life.requires("trouble", life.device.trouble, "protocol: expected 1, received 2");
    life.tell(life.status()).requires("trouble", life.device.trouble, undefined);
  }),
];

const preparing = (life: DeviceLife) => life.told().tell(life.says("staging"));
const held = (life: DeviceLife) => life.tell(life.says("held"));
const stepOf = (life: DeviceLife) => life.device.status?.value.step;

/** In every life. */
const law = (name: string, check: (life: DeviceLife) => void): Story => ({
  name: `in every life: ${name}`,
  run: (step) => {
    for (const { name: where, life } of makeDeviceLives(stepDevice)) {
      try {
        check(life.fork(step));
      } catch (error) {
        throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
      }
    }
  },
});

const laws: readonly Story[] = [
  law("a newer status is taken up", (life) => {
    const event = life.status({ phase: "done", transaction: hex("f", 32) });
    life.tell(event).requires("phase", life.device.status?.value.phase, "done");
  }),
  law("a canonical heartbeat is heard, and an old one is not", (life) => {
    life.pass(5).tell(life.canonical({ sequence: 900 }));
    life.requires("at", life.device.canonical?.at, life.now);
    const { device } = life;
    life
      .pass(5)
      .tell(life.canonical({ sequence: 900 }))
      .requires("device", life.device, device);
    life.tell(life.canonical({ sequence: 901 }, true)).requires("device", life.device, device);
  }),
  law("what is not understood is noted", (life) => {
    life.tell({ kind: "unreadable", reason: "it is noise" });
    life.requires("trouble", life.device.trouble, "it is noise");
  }),
  law("a write that landed is in the store, and one that did not changes nothing", (life) => {
    const { pending } = life.device.marker;
    const { device } = life;
    life.tell({ kind: "written", revision: 9_000 });
    if (pending === undefined) {
      const marker = life.device.marker;
      life.requires("marker", marker.pending === undefined ? marker : device.marker, device.marker);
      return;
    }
    life.requires("revision", life.device.marker.revision, 9_000);
    life.requires("stored", life.device.marker.stored, pending.value);
  }),
  law("a marker that the store has lost is written again", (life) => {
    const { stored, pending } = life.device.marker;
    if (stored === undefined || pending !== undefined) return;
    life.tell({ kind: "found", value: undefined, revision: 0 }).wrote(stored);
    life.requires("expects", life.write?.expect, 0);
  }),
  law("what is over, and not being written, may be told anew", (life) => {
    const { pending } = life.device.marker;
    const isOver = ["free", "returned", "failed", "done"].includes(life.phase);
    life.tell(life.assigned({ transaction: hex("2", 32) }));
    if (pending !== undefined || !isOver) {
      life.wroteNothing();
      return;
    }
    life.wrote({ transaction: hex("2", 32) });
    life.requires("candidate", life.device.candidate, undefined);
    life.requires("marker", life.marker.transaction, hex("2", 32));
  }),
  law("what another operator wrote counts", (life) => {
    const value = markerOf({ transaction: hex("8", 32) });
    life.tell({ kind: "found", value, revision: 9_000 });
    life.requires("marker", meant(life.device.marker), value).wroteNothing();
  }),
  law("a commit is written only where the heartbeat that came is the named candidate's", (life) => {
    for (const event of Object.values(makeDeviceEvents(life)).flat()) {
      for (const later of [0, settings.probation]) {
        const copy = life.fork().pass(later).tell(event);
        const before = meant(life.device.marker)?.commit ?? null;
        const commit = copy.write?.value?.commit ?? null;
        if (commit === null || before !== null || event.kind === "found") continue;
        const heard = copy.device.candidate?.heartbeat;
        const named = copy.device.status?.value.candidate?.instance;
        copy.requires("instance", [heard?.instance, named], [commit.instance, commit.instance]);
        copy.requires("transaction", heard?.transaction, commit.transaction);
      }
    }
  }),
  law("a commit is never taken from a marker", (life) => {
    const before = meant(life.device.marker);
    if (before?.commit == null || phaseOf(life.device) === "done") return;
    for (const [kind, events] of Object.entries(makeDeviceEvents(life))) {
      if (kind === "found" || kind === "assign") continue;
      for (const event of events) {
        const after = meant(life.fork().tell(event).device.marker);
        life.requires(`commit after ${kind}`, after?.commit, before.commit);
      }
    }
  }),
];

export const deviceStories: readonly Story[] = [...upgrades, ...commits, ...endings, ...laws];
