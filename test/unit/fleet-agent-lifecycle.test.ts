/** An upgrade of a device, decided: every phase × every event, and what follows over time. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import * as v from "valibot";
import { deadlineOf, journalOf, step, table } from "../../src/fleet/lifecycle.ts";
import { statusOf } from "../../src/fleet/lifecycle-status.ts";
import { statusSchema } from "../../src/fleet/protocol.ts";
import { repositoryRoot } from "../support/binary.ts";
import { instanceOf, Life, newBuild, rolesOf } from "../support/fleet-agent/life.ts";
import { makeEvents, makeLives, makeStale, phases } from "../support/fleet-agent/lives.ts";
import { observe } from "../support/fleet-agent/observe.ts";
import { stories } from "../support/fleet-agent/stories.ts";
import { writeTableDocument } from "../support/fleet-agent/table-document.ts";

describe("stories", () => {
  for (const { name, run } of stories) test(name, () => run(step));

  test("each has a name of its own", () => {
    expect(new Set(stories.map(({ name }) => name)).size).toBe(stories.length);
  });
});

describe("every phase × every event", () => {
  test("there is a life in each phase", () => {
    const seen = new Set(makeLives(step).map(({ life }) => life.state.life.phase));
    expect(phases.filter((phase) => !seen.has(phase))).toEqual([]);
  });

  test("a cell that does nothing says why", () => {
    const kinds = Object.keys(makeEvents(new Life(step))).sort();
    for (const phase of phases) {
      expect(Object.keys(table[phase]).sort()).toEqual(kinds);
      for (const cell of Object.values(table[phase])) {
        if (typeof cell === "object") expect(cell.ignored).toMatch(/^\w+( \S+)+$/);
      }
    }
  });

  test("the table for people is the table", async () => {
    const file = Bun.file(join(repositoryRoot, "src/fleet/lifecycle-table.md"));
    const written = writeTableDocument(observe());
    if (process.env["UPDATE_TABLES"] === "1") await file.write(written);
    expect(await file.text()).toBe(written);
  });
});

/** Where old versions may be removed; a staging that follows at once has ordered its check only. */
const atRest = /^(idle|done|aborted|rolled-back|staging)$/;

describe("in every life", () => {
  const lives = makeLives(step);

  test("what is late, or of another candidate, changes nothing", () => {
    for (const { life } of lives) {
      for (const event of Object.values(makeEvents(life)).flat().flatMap(makeStale)) {
        life.fork().ignores(event);
      }
    }
  });

  test("a deadline is handled, and none lies in the past", () => {
    for (const { name, life } of lives) {
      if (deadlineOf(life.state) === undefined) continue;
      const late = life.fork().overdue();
      const next = deadlineOf(late.state);
      // What is held for an hour too long is told twice.
      expect([name, next === undefined || next > late.now]).toEqual([name, true]);
    }
  });

  test("a note comes before what it speaks of, and is what the state says", () => {
    for (const { name, life } of lives) {
      for (const event of Object.values(makeEvents(life)).flat()) {
        const copy = life.fork().tell(event);
        const notes = copy.effects.filter(({ kind }) => kind === "note");
        expect([name, event.kind, notes.length < 2]).toEqual([name, event.kind, true]);
        const { journal } = copy;
        if (copy.state.noteAt === undefined && event.kind !== "note-failed") {
          expect(journal).toEqual(journalOf(copy.state));
        }
        const first = copy.effects.findIndex(({ kind }) => kind === "note");
        const before = copy.effects.slice(0, Math.max(first, 0)).map(({ kind }) => kind);
        expect(before.filter((kind) => kind !== "abandon" && kind !== "stop-candidate")).toEqual(
          [],
        );
      }
    }
  });

  test("the links are changed for a commit alone, or to what was there before it", () => {
    for (const { name, life } of lives) {
      for (const event of Object.values(makeEvents(life)).flat()) {
        const copy = life.fork().tell(event);
        const swaps = copy.kinds.includes("swap");
        const isCommitted = copy.state.life.phase === "commit-seen";
        expect([name, event.kind, !swaps || isCommitted]).toEqual([name, event.kind, true]);
      }
    }
  });

  test("what is removed is neither what runs, nor the way back, nor a candidate", () => {
    let collections = 0;
    for (const { name, life } of lives) {
      for (const event of Object.values(makeEvents(life)).flat()) {
        const copy = life.fork().tell(event);
        const collect = copy.effects.find((effect) => effect.kind === "collect");
        if (collect === undefined) continue;
        collections += 1;
        const { current, previous, life: now } = copy.state;
        const needed = [current, previous].filter((build) => build !== null);
        expect([name, collect.keep]).toEqual([name, expect.arrayContaining(needed)]);
        // Nothing is fetched or proven for this life, and none of its candidates is left.
        expect([name, now.phase]).toEqual([name, expect.stringMatching(atRest)]);
      }
    }
    expect(collections).toBeGreaterThan(20);
  });

  test("the status that is told is one that the operator reads", () => {
    for (const { life } of lives) {
      const device = { architecture: "x64", libc: "glibc", executor: "systemd" } as const;
      const status = statusOf(life.state, device);
      expect(v.parse(statusSchema, status)).toEqual(status);
      expect(status.phase).toBe(life.state.life.phase);
      const needsReason = ["held", "aborted", "reverting", "rolled-back"].includes(status.phase);
      expect(status.reason !== null || !needsReason).toBe(true);
      const needsCause = ["aborted", "rolled-back"].includes(status.phase);
      expect(status.cause !== undefined).toBe(needsCause);
    }
  });
});

test("the candidate of a status: what was to be, until it is what is", () => {
  const device = { architecture: "x64", libc: "glibc", executor: "systemd" } as const;
  const candidateOf = (life: Life) => statusOf(life.state, device).candidate;
  const life = new Life(step);
  expect(candidateOf(life)).toBeNull();
  life.tell(life.marked());
  expect(candidateOf(life)).toEqual({ ...newBuild, instance: null });
  life.tell(life.accepted()).tell(life.answer("fetched")).tell(life.answer("proved"));
  const withInstance = { ...newBuild, instance: instanceOf(1) };
  expect(candidateOf(life)).toEqual(withInstance);
  const aborted = life.fork().overdue();
  expect(candidateOf(aborted)).toEqual(withInstance);
  aborted.tell(aborted.candidateEnded());
  expect(candidateOf(aborted)).toEqual({ ...newBuild, instance: null });
  life.tell(life.candidateReady()).tell(life.committed()).tell(life.answer("intact"));
  life
    .tell(life.answer("swapped"))
    .restart()
    .tell(life.roles(rolesOf(newBuild)));
  life.tell(life.candidateEnded()).overdue();
  expect(statusOf(life.state, device)).toMatchObject({ phase: "done", candidate: null });
});
