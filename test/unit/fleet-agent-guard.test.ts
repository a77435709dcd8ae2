/** The boot guard: which version may run, for every journal, every link and every damage. */
import { describe, expect, test } from "bun:test";
import { step } from "../../src/fleet/lifecycle.ts";
import { type GuardGround, guard } from "../../src/fleet/lifecycle-guard.ts";
import type { Journal } from "../../src/fleet/lifecycle-journal.ts";
import { agentLimits } from "../../src/fleet/lifecycle-state.ts";
import { compareVersions } from "../../src/fleet/protocol-version.ts";
import {
  bootOne,
  bootTwo,
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

const builds = [older, oldBuild, newBuild];
const intact = (...some: (typeof older)[]) => new Set(some.map(({ digest }) => digest));
const all = intact(...builds);
const oldLinks = { current: oldBuild, previous: older };
const newLinks = { current: newBuild, previous: oldBuild };

function decide(life: Life | undefined, changes: Partial<GuardGround>) {
  const journal = life?.journal;
  return guard({
    journal: journal === undefined ? { kind: "absent" } : { kind: "ok", journal },
    links: life?.links ?? oldLinks,
    ...{ intact: all, proven: [], boot: bootOne, now: 5_000 },
    ...changes,
  });
}

const unchanged = { journal: undefined, links: undefined, reason: null };
const swapped = () => new Life(step).swaps();
const ready = () => new Life(step).becomesReady();

describe("at rest", () => {
  const idle = new Life(step);

  test("what current leads to", () => {
    expect(decide(idle, {})).toEqual({ run: oldBuild, ...unchanged });
    expect(decide(undefined, {})).toEqual({ run: oldBuild, ...unchanged });
    const damaged = { journal: { kind: "refused", reason: "x" } } as const;
    expect(decide(undefined, damaged)).toEqual({ run: oldBuild, ...unchanged });
  });

  test("a link that leads nowhere is put back to what the journal says", () => {
    const links = { current: null, previous: older };
    const decision = decide(idle, { links });
    expect(decision).toMatchObject({ run: oldBuild, links: oldLinks });
    expect(decision.reason).toBe("current leads nowhere");
    expect(decide(undefined, { links }).run).toEqual(older);
  });

  test("a damaged version is not run while there is another", () => {
    const decision = decide(idle, { intact: intact(older) });
    expect(decision.run).toEqual(older);
    expect(decision.links).toEqual({ current: older, previous: null });
    expect(decision.reason).toBe("1.1.0 is damaged");
  });

  test("both links are gone: what the journal says is current, and was before", () => {
    const links = { current: null, previous: null };
    const decision = decide(idle, { links, proven: [newBuild, thirdBuild] });
    expect(decision).toMatchObject({ run: oldBuild, links: oldLinks });
  });

  describe("nothing that is linked or noted is intact", () => {
    const links = { current: null, previous: null };
    const damaged = { journal: { kind: "refused", reason: "x" } } as const;
    const noted = (journal: Partial<Journal>) =>
      ({ journal: { kind: "ok", journal: { ...(idle.journal as Journal), ...journal } } }) as const;
    const both = intact(newBuild, thirdBuild);

    test("the latest that was proven runs, and the one before it is the way back", () => {
      for (const proven of [
        [newBuild, thirdBuild],
        [thirdBuild, newBuild],
      ]) {
        for (const change of [damaged, noted({})]) {
          const decision = decide(undefined, { ...change, links, intact: both, proven });
          expect(decision.run).toEqual(thirdBuild);
          expect(decision.links).toEqual({ current: thirdBuild, previous: newBuild });
          expect(decision.reason).toBe("current leads nowhere");
        }
      }
    });

    test("what was proven and is damaged does not, nor what is intact and was not proven", () => {
      const proven = [newBuild, thirdBuild];
      const one = decide(undefined, { links, proven, intact: intact(newBuild) });
      expect(one).toMatchObject({ run: newBuild, links: { previous: null } });
      expect(decide(undefined, { links, proven: [], intact: both }).run).toBe(null);
    });

    test("nothing below the floor does", () => {
      const proven = [newBuild, thirdBuild];
      const at = (floor: string) =>
        decide(undefined, { ...noted({ floor }), links, proven, intact: both });
      expect(at("1.3.0").links).toEqual({ current: thirdBuild, previous: null });
      expect(at("1.3.1").run).toBe(null);
    });

    test("what failed when it was last tried comes after all others", () => {
      const ended = { transaction: transactionOf(1), build: thirdBuild, lastWords: null };
      const why = { reason: "it hangs", endingCause: "canonical", ending: null } as const;
      const failed = noted({ life: { phase: "rolled-back", ...ended, ...why } });
      const decision = decide(undefined, {
        ...{ ...failed, links, intact: both },
        proven: [newBuild, thirdBuild],
      });
      expect(decision.links).toEqual({ current: newBuild, previous: thirdBuild });
    });

    test("two files of one version: always the same one", () => {
      const twin = { ...thirdBuild, digest: "d".repeat(64) };
      for (const proven of [
        [twin, thirdBuild],
        [thirdBuild, twin],
      ]) {
        expect(decide(undefined, { links, proven, intact: intact(twin, thirdBuild) }).run).toEqual(
          thirdBuild,
        );
      }
    });
  });

  test("nothing is intact", () => {
    const decision = decide(idle, { intact: intact() });
    expect(decision).toMatchObject({ run: null, links: undefined });
    expect(decision.reason).toContain("hostler fleet install");
  });
});

describe("before the commit", () => {
  test("the old version, and the journal is left alone", () => {
    expect(decide(ready(), {})).toEqual({ run: oldBuild, ...unchanged });
  });

  test("a version that nobody committed does not run, although the link leads to it", () => {
    const decision = decide(ready(), { links: newLinks });
    expect(decision).toMatchObject({ run: oldBuild, links: { current: oldBuild } });
    expect(decision.reason).toBe("1.2.0 was not committed");
    const damaged = decide(ready(), { links: newLinks, intact: intact(older, newBuild) });
    expect(damaged.run).toEqual(older);
  });

  test("not as the latest that was proven either, where no link leads anywhere", () => {
    const links = { current: null, previous: null };
    const rest = { links, intact: intact(newBuild), proven: [newBuild] };
    expect(decide(ready(), rest).run).toBe(null);
    const previous = { ...rest, links: { current: null, previous: newBuild } };
    const other = { intact: intact(newBuild, thirdBuild), proven: [newBuild, thirdBuild] };
    expect(decide(ready(), { ...previous, ...other }).run).toEqual(thirdBuild);
  });

  test("unless nothing else is there", () => {
    const decision = decide(ready(), { links: newLinks, intact: intact(newBuild) });
    expect(decision.run).toEqual(newBuild);
  });
});

describe("from the commit on", () => {
  const committed = ready().tell(ready().committed());

  test("a power cut before the swap, between its two links, and before its note", () => {
    expect(decide(committed, {})).toEqual({ run: oldBuild, ...unchanged });
    const half = { current: oldBuild, previous: oldBuild };
    expect(decide(committed, { links: half })).toEqual({ run: oldBuild, ...unchanged });
    const decision = decide(committed, { links: newLinks, boot: bootTwo });
    expect(decision).toMatchObject({ run: newBuild, links: undefined, reason: null });
    const until = 5_000 + limits.canonical_ms;
    const life = { phase: "swapped", starts: 1, from: oldBuild, instance: null, until };
    const sameBoot = decide(committed, { links: newLinks }).journal?.life;
    expect(sameBoot).toMatchObject({ until, instance: committed.instance, setbacks: 0 });
    expect(decision.journal).toMatchObject({ boot: bootTwo, life });
    expect(decision.journal?.step).toBe((committed.journal?.step ?? 0) + 1);
  });

  test("an unproven version is started so often, and then never again", () => {
    const life = swapped();
    for (let start = 1; start <= agentLimits.starts; start += 1) {
      const decision = decide(life, { links: newLinks });
      expect(decision).toMatchObject({ run: newBuild, links: undefined });
      expect(decision.journal?.life).toMatchObject({ starts: start });
      life.journal = decision.journal;
      life.restart();
      if (start === 2) life.tell(life.roles(rolesOf(newBuild)));
    }
    const last = decide(life, { links: newLinks });
    expect(last).toMatchObject({ run: oldBuild, links: { current: oldBuild, previous: older } });
    expect(last.reason).toBe("1.2.0 was started 3 times, and was not proven");
    expect(last.journal?.life).toMatchObject({ phase: "reverting", stage: "restarting" });
    life.journal = last.journal;
    life.links = last.links ?? life.links;
    expect(decide(life, {})).toEqual({ run: oldBuild, ...unchanged });
    life.restart().comes("reverting", "note", "hand-over");
    life.goes(life.roles(rolesOf(oldBuild)), "rolled-back");
    life.says("was started 3 times").is({ endingCause: "canonical" });
  });

  test("the power goes between the guard's journal and its link", () => {
    const life = swapped();
    life.journal = decide(life, { links: newLinks, intact: intact(oldBuild) }).journal;
    const decision = decide(life, { links: newLinks });
    expect(decision).toMatchObject({ run: oldBuild, links: oldLinks, journal: undefined });
  });

  test("a new version that is damaged, or that no link leads to any more", () => {
    const damaged = decide(swapped(), { links: newLinks, intact: intact(older, oldBuild) });
    expect(damaged).toMatchObject({ run: oldBuild, reason: "1.2.0 is damaged" });
    expect(damaged.journal?.life).toMatchObject({ endingCause: "host" });
    const cut = decide(swapped(), { links: { current: null, previous: oldBuild } });
    expect(cut).toMatchObject({ run: newBuild, links: newLinks });
  });

  test("a former version that is damaged is not gone back to", () => {
    const life = swapped();
    for (let start = 1; start <= agentLimits.starts + 2; start += 1) {
      const decision = decide(life, { links: newLinks, intact: intact(older, newBuild) });
      expect(decision.run).toEqual(newBuild);
      expect(decision.journal?.life).toMatchObject({ phase: "swapped", starts: start });
      life.journal = decision.journal;
    }
  });

  test("a link that somebody else put back", () => {
    const decision = decide(swapped(), { links: oldLinks });
    expect(decision).toMatchObject({ run: oldBuild, links: { current: oldBuild } });
    expect(decision.journal?.life.phase).toBe("reverting");
  });

  test("on the way back, when what is gone back to is damaged too", () => {
    const life = swapped().restart();
    life.tell({ kind: "faulted", reason: "it hangs", lastWords: null });
    const decision = decide(life, { links: newLinks, intact: intact(newBuild) });
    expect(decision).toMatchObject({ run: newBuild, journal: undefined, links: undefined });
  });
});

describe("every journal × every link × every damage", () => {
  const places = [null, ...builds];
  const proofs = [[], builds, [thirdBuild]];
  const damages = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) =>
    intact(thirdBuild, ...builds.filter((_build, index) => (bits & (1 << index)) === 0)),
  );

  test("what runs is intact, and is what current leads to then", () => {
    for (const { life } of makeLives(step)) {
      for (const current of places) {
        for (const previous of places) {
          for (const damage of damages) {
            for (const boot of [bootOne, bootTwo]) {
              for (const proven of proofs) {
                const links = { current, previous };
                expectRight(life.journal as Journal, links, { intact: damage, boot, proven });
              }
            }
          }
        }
      }
    }
  });

  function expectRight(
    journal: Journal,
    links: GuardGround["links"],
    rest: Pick<GuardGround, "intact" | "boot" | "proven">,
  ): void {
    const ground = { journal: { kind: "ok", journal }, links, now: 5_000, ...rest } as const;
    const { run, links: put, journal: written } = guard(ground);
    const named = [links.current, links.previous, journal.current, ...ways(journal)];
    const { floor } = journal;
    const fallen = rest.proven
      .filter(({ digest }) => !isCandidate(journal, digest))
      .filter(({ version }) => floor === null || compareVersions(version, floor) >= 0);
    const mayRun = [...named, ...fallen];
    const isThere = mayRun.some((one) => one !== null && rest.intact.has(one.digest));
    expect(run !== null).toBe(isThere);
    if (run === null) return;
    expect(rest.intact.has(run.digest)).toBe(true);
    expect((put?.current ?? links.current)?.digest).toBe(run.digest);
    if (written !== undefined) expect(written.step).toBe(journal.step + 1);
    if (isCandidate(journal, run.digest)) {
      const other = mayRun.find(
        (one) => one !== null && rest.intact.has(one.digest) && one.digest !== run.digest,
      );
      expect(other).toBeUndefined();
    }
  }

  /** Of an upgrade that is committed, both of its versions. */
  function ways({ life, previous }: Journal) {
    return "from" in life ? [previous, life.from, life.marker.build] : [previous];
  }

  /** Nobody has committed it. */
  function isCandidate({ life }: Journal, digest: string): boolean {
    return "marker" in life && !("from" in life) && life.marker.build.digest === digest;
  }
});
