/** Which versions of an installation are removed, and which never. */
import { describe, expect, test } from "bun:test";
import { planCollection } from "../../../src/fleet/collection.ts";
import type { LayoutState, StoredVersion } from "../../../src/fleet/layout.ts";
import { folderOf, parseFolder, versionOfTarget } from "../../../src/fleet/layout.ts";
import { SeededChance } from "../../support/chance.ts";

function version(number: number, changes: Partial<StoredVersion> = {}): StoredVersion {
  const digest = String(number % 10).repeat(64);
  const build = { version: `1.${number}.0`, digest };
  const isProven = false;
  return {
    ...{ name: folderOf(build), state: "verified", build, isProven, storedAt: number },
    ...changes,
  };
}

function layout(versions: readonly StoredVersion[], links: Record<string, number> = {}) {
  const leadTo = (link: string) => {
    const number = links[link];
    if (number === undefined) return { kind: "absent" as const };
    return { kind: "version" as const, name: version(number).name };
  };
  const state: LayoutState = {
    format: 1,
    links: {
      current: leadTo("current"),
      previous: leadTo("previous"),
      candidate: leadTo("candidate"),
    },
    versions,
    isOverfull: false,
  };
  return state;
}

const nobody = new Set<string>();
const names = (...numbers: number[]) => numbers.map((number) => version(number).name);

describe("names", () => {
  test("of folders say version and digest, whatever dashes are in the version", () => {
    const build = { version: "1.5.0-rc-1", digest: "ab".repeat(32) };
    expect(folderOf(build)).toBe("1.5.0-rc-1-abababababab");
    expect(parseFolder(folderOf(build))).toEqual({
      version: "1.5.0-rc-1",
      shortDigest: "abababababab",
    });
  });

  test.each([
    "1.0-abababababab",
    "1.0.0",
    "1.0.0-abababababa",
    ".1.0.0-abababababab.7.partial",
    "1.0.0-ABABABABABAB",
    "..",
    "",
  ])("%j is none of ours", (name) => {
    expect(parseFolder(name)).toBeUndefined();
  });

  test.each([
    ["versions/1.0.0-abababababab", "1.0.0-abababababab"],
    ["./versions/1.0.0-abababababab/", "1.0.0-abababababab"],
    ["/opt/versions/1.0.0-abababababab", undefined],
    ["versions/../1.0.0-abababababab", undefined],
    ["1.0.0-abababababab", undefined],
  ])("a link that says %j leads to %j", (target, name) => {
    expect(versionOfTarget(target)).toBe(name);
  });
});

describe("a collection", () => {
  test("keeps what is linked and the two latest others", () => {
    const versions = [1, 2, 3, 4, 5, 6].map((number) => version(number));
    const state = layout(versions, { current: 3, previous: 2 });
    const { remove, keep } = planCollection(state, { keep: 2, running: nobody });
    expect(remove).toEqual(names(1, 4));
    expect(keep.map(({ reason }) => reason)).toEqual([
      "current",
      "previous",
      "one of those to keep",
      "one of those to keep",
    ]);
  });

  test("what was never proven goes before what was, however late it came", () => {
    const versions = [
      version(1, { isProven: true }),
      version(2, { isProven: true }),
      version(3),
      version(4, { isProven: true }),
      version(5, { isProven: true }),
    ];
    const state = layout(versions, { current: 5, previous: 4 });
    expect(planCollection(state, { keep: 2, running: nobody }).remove).toEqual(names(3));
    expect(planCollection(state, { keep: 1, running: nobody }).remove).toEqual(names(1, 3));
    expect(planCollection(state, { keep: 3, running: nobody }).remove).toEqual([]);
  });

  test("keeps a proven one in place of the oldest of those, where no other is proven", () => {
    const versions = [version(1, { isProven: true }), version(2), version(3), version(4)];
    const state = layout(versions, { current: 4 });
    expect(planCollection(state, { keep: 2, running: nobody }).remove).toEqual(names(2));
    expect(planCollection(state, { keep: 0, running: nobody }).remove).toEqual(names(2, 3));
  });

  test("needs no other proven one where a linked one is", () => {
    const versions = [
      version(1, { isProven: true }),
      version(2),
      version(3, { isProven: true }),
      version(4),
    ];
    const state = layout(versions, { current: 4, previous: 3 });
    expect(planCollection(state, { keep: 0, running: nobody }).remove).toEqual(names(1, 2));
  });

  test("a damaged proof is none", () => {
    const versions = [
      version(1, { isProven: true }),
      version(2, { isProven: true, state: "damaged" }),
      version(3),
    ];
    const state = layout(versions, { current: 2 });
    expect(planCollection(state, { keep: 0, running: nobody }).remove).toEqual(names(3));
  });

  test("spares what runs and what is being fetched, however damaged", () => {
    const versions = [
      version(1, { state: "damaged" }),
      version(2, { state: "unverified" }),
      version(3, { state: "unverified" }),
      version(4),
    ];
    const state = layout(versions, { current: 4 });
    const [first = "", second = ""] = names(1, 2);
    const wish = { keep: 0, running: new Set([first]), spare: new Set([second]) };
    expect(planCollection(state, wish).remove).toEqual(names(3));
  });

  test("removes nothing where there are more versions than are looked at", () => {
    const versions = [1, 2, 3, 4].map((number) => version(number));
    const state = { ...layout(versions, { current: 4 }), isOverfull: true };
    expect(planCollection(state, { keep: 0, running: nobody }).remove).toEqual([]);
  });

  test("never removes what is linked or runs, nor the last proof, whatever there is", () => {
    const chance = new SeededChance(2_026);
    const states = ["verified", "unverified", "damaged"] as const;
    for (let round = 0; round < 2_000; round += 1) {
      const count = chance.below(9);
      const versions = Array.from({ length: count }, (_, number) =>
        version(number, {
          state: states[chance.below(3)] ?? "verified",
          isProven: chance.below(3) === 0,
          storedAt: chance.below(3),
        }),
      );
      const links = { current: chance.below(9), previous: chance.below(9) };
      const state = layout(versions, links);
      const running = new Set(names(chance.below(9)));
      const keep = chance.below(4);
      const { remove } = planCollection(state, { keep, running });
      const left = versions.filter(({ name }) => !remove.includes(name));
      for (const name of [...names(links.current, links.previous), ...running]) {
        expect(remove).not.toContain(name);
      }
      const proofs = (among: readonly StoredVersion[]) =>
        among.some((one) => one.isProven && one.state === "verified");
      expect(proofs(left)).toBe(proofs(versions));
      expect(left.length).toBeLessThanOrEqual(3 + Math.max(1, keep));
    }
  });
});
