/** The life of a machine, decided: every phase × every event, and what follows over time. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { deadlineOf, instanceOf, noteOf, step, table, whyRefused } from "../../src/vm/lifecycle.ts";
import { initialState } from "../../src/vm/lifecycle-state.ts";
import { phases as wirePhases } from "../../src/vm/protocol.ts";
import { repositoryRoot } from "../support/binary.ts";
import { makeEvents, makeStale } from "../support/vm-lifecycle/events.ts";
import { laws } from "../support/vm-lifecycle/laws.ts";
import { Life } from "../support/vm-lifecycle/life.ts";
import { lifeIn, makeLives, phases } from "../support/vm-lifecycle/lives.ts";
import { migrations } from "../support/vm-lifecycle/migrations.ts";
import { observe } from "../support/vm-lifecycle/observe.ts";
import { stories as plainStories } from "../support/vm-lifecycle/stories.ts";
import { writeTableDocument } from "../support/vm-lifecycle/table-document.ts";

const stories = [...plainStories, ...laws, ...migrations];

describe("stories", () => {
  for (const { name, run } of stories) test(name, () => run(step));

  test("each has a name of its own", () => {
    expect(new Set(stories.map(({ name }) => name)).size).toBe(stories.length);
  });
});

describe("every phase × every event", () => {
  const kinds = Object.keys(makeEvents(new Life(step))).sort();

  test("there is a life in each phase", () => {
    for (const phase of phases) expect(lifeIn(phase, step).state.phase).toBe(phase);
    expect([...phases].sort()).toEqual([...wirePhases].sort());
  });

  test("a cell that does nothing says why", () => {
    for (const phase of phases) {
      expect(Object.keys(table[phase]).sort()).toEqual(kinds);
      for (const cell of Object.values(table[phase])) {
        if (typeof cell === "object") expect(cell.ignored).toMatch(/^\w+( \S+)+$/);
      }
    }
  });

  test("the table for people is the table", async () => {
    const file = Bun.file(join(repositoryRoot, "src/vm/lifecycle-table.md"));
    const written = writeTableDocument(observe());
    if (process.env["UPDATE_TABLES"] === "1") await file.write(written);
    expect(await file.text()).toBe(written);
  });
});

describe("in every life", () => {
  const lives = makeLives(step);

  test("what is late, or of another VMM, changes nothing", () => {
    for (const { life } of lives) {
      for (const events of Object.values(makeEvents(life))) {
        for (const event of events.flatMap(makeStale)) {
          // A start that was given up is killed; that is no change of this one.
          if (event.kind === "spawned" || event.kind === "found") continue;
          if (event.kind === "adopted") continue;
          life.fork().ignores(event);
        }
      }
    }
  });

  test("a deadline is handled, and none lies in the past", () => {
    for (const { name, life } of lives) {
      const deadline = deadlineOf(life.state);
      if (deadline === undefined) continue;
      const late = life.fork().untilDeadline();
      const { now } = late;
      const next = deadlineOf(late.tell({ kind: "deadline" }).state);
      expect([name, next === undefined || next > now]).toEqual([name, true]);
    }
  });

  test("a note comes before what it speaks of, and is what the state says", () => {
    for (const { life } of lives) {
      for (const event of Object.values(makeEvents(life)).flat()) {
        const copy = life.fork().tell(event);
        const notes = copy.effects.filter(({ kind }) => kind === "note");
        expect(notes.length).toBeLessThan(2);
        if (notes.length === 1) expect(copy.effects[0]?.kind).toBe("note");
        expect(copy.note ?? noteOf(initialState)).toEqual(noteOf(copy.state));
      }
    }
  });

  test("a VMM is ended for a wish, a crash, a guest that is off, or a state that is held", () => {
    for (const { name, life } of lives) {
      if (life.state.phase !== "detached" || life.state.stopBy !== undefined) continue;
      for (const event of Object.values(makeEvents(life)).flat()) {
        if (event.kind === "shutdown" || event.kind === "delete" || event.kind === "attached") {
          continue;
        }
        const copy = life.fork().untilDeadline().tell(event);
        const ends = copy.effects.some(({ kind }) => kind === "quit");
        const kills = copy.effects.filter((effect) => effect.kind === "kill");
        const own = instanceOf(life.state)?.invocation;
        const isOwn = kills.some(({ instance }) => instance.invocation === own);
        expect([name, event.kind, ends || isOwn]).toEqual([name, event.kind, false]);
      }
    }
  });
});

describe("why a wish does nothing", () => {
  test("is the reason of the cell", () => {
    expect(whyRefused(lifeIn("running", step).state, "boot")).toBe("it runs");
    expect(whyRefused(lifeIn("running", step).state, "pause")).toBeUndefined();
    expect(whyRefused(initialState, "boot")).toBe("there is no such machine");
    expect(whyRefused(lifeIn("detached", step).state, "replace")).toBe("its VMM does not answer");
  });

  test("is a delete that is not taken back, or a capture that is still being forgotten", () => {
    const deleted = lifeIn("stopping", step).tell({ kind: "delete", hurry: false });
    expect(whyRefused(deleted.state, "boot")).toBe("it is being deleted");
    const spent = makeLives(step).find(({ name }) => name === "running, spent");
    const reason = "what was captured last is being forgotten";
    expect(whyRefused(spent?.life.state ?? initialState, "replace")).toBe(reason);
  });
});

test("every row of the table of failures names a test that there is", async () => {
  const readme = await Bun.file(join(repositoryRoot, "src/vm/README.md")).text();
  const rows = [...readme.matchAll(/\]\(\.\.\/\.\.\/(test\/unit\/[^)]+)\) "([^"]+)" \|$/gm)];
  expect(rows.length).toBeGreaterThan(15);
  const told = new Set(stories.map(({ name }) => name));
  for (const [, path = "", name = ""] of rows) {
    const text = await Bun.file(join(repositoryRoot, path)).text();
    expect([name, told.has(name) || text.includes(`"${name}"`)]).toEqual([name, true]);
  }
});
