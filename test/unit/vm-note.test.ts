/** What a worker writes down of a machine, and the next one reads. */
import { describe, expect, test } from "bun:test";
import { noteOf, step } from "../../src/vm/lifecycle.ts";
import { decodeNote, encodeNote, NOTE_LIMIT, NOTE_VERSION } from "../../src/vm/lifecycle-note.ts";
import { lifeIn, makeLives } from "../support/vm-lifecycle/lives.ts";

const note = noteOf(lifeIn("running", step).state);

/** The note with something changed on the disk. */
const damaged = (change: object) =>
  decodeNote(JSON.stringify({ ...JSON.parse(encodeNote(note)), ...change })).kind;

describe("a note", () => {
  test("is read as it was written, in every life", () => {
    for (const { name, life } of makeLives(step)) {
      const written = noteOf(life.state);
      expect([name, decodeNote(encodeNote(written))]).toEqual([
        name,
        { kind: "ok", note: written },
      ]);
    }
  });

  test("is one line, and a long reason does not make it too long", () => {
    const long = encodeNote({ ...note, reason: "ä\n".repeat(NOTE_LIMIT) });
    expect(long.trimEnd()).not.toContain("\n");
    expect(decodeNote(long).kind).toBe("ok");
    expect(damaged({})).toBe("ok");
  });

  test("that is damaged, or of another version, is refused", () => {
    expect(decodeNote("").kind).toBe("refused");
    expect(decodeNote(encodeNote(note).slice(0, -9)).kind).toBe("refused");
    expect(decodeNote(" ".repeat(NOTE_LIMIT + 1)).kind).toBe("refused");
    const changes: readonly object[] = [
      { version: NOTE_VERSION + 1 },
      { surprise: 1 },
      { stage: "dancing" },
      { wanted: "perhaps" },
      { instance: undefined },
      { instance: { ...note.instance, processId: 0 } },
      { stage: "starting", invocation: undefined },
      { capture: { id: "", stage: "held" } },
      { restarts: -1 },
    ];
    for (const change of changes) expect([change, damaged(change)]).toEqual([change, "refused"]);
  });
});
