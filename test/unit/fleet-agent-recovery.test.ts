/** How an agent goes on after it was killed, or after a power cut: every journal, every link. */
import { describe, expect, test } from "bun:test";
import { step } from "../../src/fleet/lifecycle.ts";
import type { Journal } from "../../src/fleet/lifecycle-journal.ts";
import { type Found, recover } from "../../src/fleet/lifecycle-recovery.ts";
import { agentLimits } from "../../src/fleet/lifecycle-state.ts";
import { usualPace } from "../../src/fleet/protocol-pace.ts";
import {
  bootOne,
  bootTwo,
  instanceOf,
  Life,
  limits,
  newBuild,
  oldBuild,
  older,
  rolesOf,
  thirdBuild,
  transactionOf,
} from "../support/fleet-agent/life.ts";
import { makeLives } from "../support/fleet-agent/lives.ts";

const faulted = { kind: "faulted", reason: "it hangs", lastWords: null } as const;
const context = { now: 5_000, executor: "systemd", nextInstance: instanceOf(50) } as const;

const begun = () => new Life(step).tell(new Life(step).marked());
const verifying = () => {
  const life = begun();
  return life.tell(life.accepted()).tell(life.answer("fetched"));
};
const starting = () => verifying().tell(verifying().answer("proved"));
const ready = () => new Life(step).becomesReady();
const committed = () => ready().tell(ready().committed());

function linked(life: Life, links: Life["links"]): Life {
  life.links = links;
  return life;
}
const swappedLinks = { current: newBuild, previous: oldBuild };

describe("killed, and started again in the same boot", () => {
  test("staging checks anew, and goes on with what is there", () => {
    begun().restart().comes("staging", "note", "check").is({ resumes: 1, until: 1_600_000 });
    const life = begun();
    life.tell(life.accepted()).pass(5_000).restart().comes("staging", "note", "check");
    life.is({ stage: "checking", until: 1_600_000 }).has({ floor: "1.0.5", metadataVersion: 7 });
  });

  test("verifying proves anew, and ends a candidate that may have been started", () => {
    verifying().restart().comes("verifying", "note", "prove").is({ resumes: 1 });
    const life = starting().restart().comes("verifying", "stop-candidate", "note", "prove");
    life.is({ stage: "proving", instance: null, until: 1_600_000 });
    life.ignores({ kind: "candidate-ended", instance: instanceOf(1), lastWords: null });
    life.tell(life.answer("proved")).is({ instance: instanceOf(2) });
  });

  test("a candidate that runs goes on", () => {
    const life = ready().pass(5_000).restart().comes("cutover-ready", "note", "find-candidate");
    life.is({ instance: instanceOf(1), readyAt: 1_000_000, resumes: 1 });
    life.fork().goes(life.committed(), "commit-seen");
    life.leads(life.candidateEnded(), "aborted", "note", "collect");
    const observed = ready().tell(ready().observed()).restart();
    observed.comes("observed", "note", "find-candidate");
    const held = ready().pass(40_000).tell({ kind: "time" }).restart();
    held.comes("held", "note", "find-candidate").goes(held.heard("canonical"), "cutover-ready");
  });

  test("begun anew too often it is given up", () => {
    for (const make of [begun, starting, ready]) {
      const life = make();
      for (let times = 0; times < agentLimits.resumes; times += 1) {
        life.restart();
        expect(life.state.life.phase).not.toBe("aborted");
      }
      life.restart();
      expect(life.state.life.phase).toBe("aborted");
      life.says(`${agentLimits.resumes} times`).is({ endingCause: "host" });
    }
  });

  test("a commit that was seen is carried out, whether the links were changed or not", () => {
    committed().pass(900).restart().comes("commit-seen", "note", "hash");
    const swapping = committed().tell(committed().answer("intact"));
    const back = swapping.fork().pass(900).restart().comes("commit-seen", "note", "hash");
    back.is({ stage: "hashing", until: back.now + limits.canonical_ms, from: oldBuild });
    const half = linked(swapping.fork(), { current: oldBuild, previous: oldBuild }).restart();
    half.comes("commit-seen", "note", "hash").is({ from: oldBuild, before: older });
    const done = linked(swapping.fork(), swappedLinks).pass(900).restart();
    done.comes("swapped", "note", "hand-over").has({ current: newBuild, previous: oldBuild });
    done.is({ instance: instanceOf(1), until: done.now + limits.canonical_ms, starts: 0 });
  });

  test("after the swap the roles are handed over again", () => {
    const life = new Life(step).swaps().pass(2_000).restart();
    life.comes("swapped", "note", "hand-over").is({ until: 1_060_000, instance: instanceOf(1) });
    life
      .tell(life.roles(rolesOf(newBuild)))
      .pass(50_000)
      .restart();
    life.comes("swapped", "note", "hand-over").is({ until: life.now + usualPace.settle });
  });

  test("on the way back: by the new version, and by the former one", () => {
    const life = new Life(step).swaps().restart().tell(faulted);
    life.fork().restart().comes("reverting", "note", "find-way-back").is({ stage: "seeking" });
    life.tell(life.answer("way-back"));
    life.fork().restart().comes("reverting", "note", "find-way-back").is({ stage: "seeking" });
    const back = linked(life.fork(), { current: oldBuild, previous: newBuild }).restart();
    back.comes("reverting", "note", "hand-over").is({ stage: "proving", from: oldBuild });
    back.leads(back.roles(rolesOf(oldBuild)), "rolled-back", "stop-candidate", "note");
  });

  test("what is over stays over, and a candidate is told to end again", () => {
    const life = ready().tell(ready().marked({ withdrawn: { reason: "no" } }));
    life.restart().comes("aborted", "stop-candidate", "note");
    life.tell(life.candidateEnded()).restart().comes("aborted", "note", "collect");
    new Life(step).restart().comes("idle", "note", "collect");
  });
});

describe("after a reboot", () => {
  test("no candidate is left: it is proven and started anew", () => {
    for (const make of [ready, () => ready().tell(ready().observed()), starting]) {
      const life = make().reboot().comes("verifying", "note", "prove");
      life.is({ instance: null, resumes: 1, until: life.now + limits.staging_ms });
      life.tell(life.answer("proved")).is({ instance: instanceOf(2) });
      life.tell(life.candidateReady()).ignores(life.committed(instanceOf(1)));
      life.goes(life.committed(), "commit-seen");
    }
  });

  test("moments count in the boot that they were written in", () => {
    const life = begun().reboot().comes("staging", "note", "check");
    life.is({ until: life.now + limits.staging_ms }).has({ boot: bootTwo });
    const swapped = new Life(step).swaps().reboot().comes("swapped", "note", "hand-over");
    swapped.is({ until: swapped.now + limits.canonical_ms, instance: null });
  });

  test("what was committed goes on without its candidate", () => {
    const life = committed().reboot().comes("commit-seen", "note", "hash").is({ instance: null });
    life.tell(life.answer("intact")).goes(life.answer("swapped"), "swapped");
    life
      .restart()
      .goes(life.roles(rolesOf(newBuild)), "canonical")
      .overdue();
    life.comes("done", "note", "collect");
  });

  test("nobody waits for a candidate of the boot before", () => {
    const life = ready()
      .tell(ready().marked({ withdrawn: { reason: "no" } }))
      .reboot();
    life.comes("aborted", "note", "collect").is({ ending: null });
    const back = new Life(step).swaps().restart().tell(faulted).reboot();
    back.comes("reverting", "note", "find-way-back").is({ instance: null });
  });
});

describe("what somebody else has done to the links", () => {
  test("a version that nobody committed gives its place back", () => {
    for (const make of [begun, starting, ready]) {
      const life = linked(make(), swappedLinks).restart();
      life.comes("reverting", "note", "find-way-back").says("no commit was seen");
      life.is({ from: oldBuild, before: older, endingCause: "host" });
      life.is({ instance: make === begun ? null : instanceOf(1) }).tell(life.answer("way-back"));
      life.goes(life.answer("swapped"), "reverting").has({ current: oldBuild, previous: older });
    }
  });

  test("a third version: what is not committed goes on, what was swapped is over", () => {
    const third = { current: thirdBuild, previous: oldBuild };
    const life = linked(ready(), third).restart().comes("cutover-ready", "note", "find-candidate");
    life.tell(life.committed()).is({ from: thirdBuild, before: oldBuild });
    const seen = linked(committed(), third).restart().comes("commit-seen", "note", "hash");
    seen.is({ from: thirdBuild, before: oldBuild });
    const swapped = linked(new Life(step).swaps(), third).restart();
    swapped.comes("rolled-back", "stop-candidate", "note").says("another version was installed");
    swapped.is({ endingCause: "host" });
    const back = linked(new Life(step).swaps().restart().tell(faulted), third).restart();
    back.comes("rolled-back", "stop-candidate", "note").says("it hangs; another version");
    back.has({ current: thirdBuild, seen: [transactionOf(1)] });
  });

  test("the former version again: it is proven as on any way back", () => {
    const links = { current: oldBuild, previous: newBuild };
    const life = linked(new Life(step).swaps(), links).restart();
    life.comes("reverting", "note", "hand-over").is({ stage: "proving" });
    life.is({ until: life.now + limits.canonical_ms, endingCause: "host" });
    life.says("put back by somebody else").goes(life.roles(rolesOf(oldBuild)), "rolled-back");
  });

  test("at rest the links are right", () => {
    const life = linked(new Life(step), { current: thirdBuild, previous: null }).restart();
    life.comes("idle", "note", "collect").has({ current: thirdBuild, previous: null });
  });

  test("another file than current leads to has no say", () => {
    const found: Found = {
      ...{ boot: bootOne, self: newBuild, journal: { kind: "absent" } },
      links: { current: oldBuild, previous: null },
    };
    const refused = recover(found, context);
    expect(refused).toEqual({
      kind: "refused",
      reason:
        `expected to be what current leads to, 1.1.0 (${oldBuild.digest}), ` +
        `received 1.2.0 (${newBuild.digest})`,
    });
  });
});

describe("a journal that is not there", () => {
  const found = (journal: Found["journal"]): Found => ({
    ...{ boot: bootOne, self: oldBuild, journal, links: { current: oldBuild, previous: older } },
  });
  const stateOf = (journal: Found["journal"]) => {
    const recovered = recover(found(journal), context);
    if (recovered.kind === "refused") throw new Error(recovered.reason);
    return recovered.state;
  };

  test("never was one: nothing is below the floor", () => {
    expect(stateOf({ kind: "absent" })).toMatchObject({ floor: null, life: { phase: "idle" } });
  });

  test("is damaged: nothing below the running version is taken", () => {
    expect(stateOf({ kind: "refused", reason: "x" }).floor).toBe(oldBuild.version);
  });
});

test("every life can be killed and cut, and goes on to where it rests, or has a deadline", () => {
  for (const { name, life } of makeLives(step)) {
    const both = [life.fork().restart(), life.fork().reboot()];
    for (const copy of both) {
      const journal = copy.journal as Journal;
      expect([name, journal.step > (life.journal?.step ?? 0)]).toEqual([name, true]);
      expect([name, journal.boot]).toEqual([name, copy.boot]);
      expect([name, journal.current]).toEqual([name, copy.links.current]);
    }
  }
});
