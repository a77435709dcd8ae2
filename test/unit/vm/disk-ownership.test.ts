/** Locks and owners of disks, on real files: whoever else has them, and what is beside them. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { duplicate } from "../../../ffi/descriptor.ts";
import { lockWhole } from "../../../ffi/record-lock.ts";
import type { Disk } from "../../../src/hypervisor/driver.ts";
import {
  claimDisks,
  DisksRefused,
  haveOwner,
  ownerGenerationIn,
  removeDisks,
  takeDisks,
} from "../../../src/vm/perform/disk-ownership.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

let folder: TemporaryFolder;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder[Symbol.dispose]());

function disk(name: string, readOnly = false): Disk {
  const path = folder.file(name);
  writeFileSync(path, name);
  return { id: name, path, format: "raw", readOnly, backing: undefined };
}

/** Why it is refused; a text for what is not. */
function refusal(call: () => Disposable): DisksRefused | string {
  try {
    using _taken = call();
    return "taken";
  } catch (error) {
    if (error instanceof DisksRefused) return error;
    throw error;
  }
}

const owner = () => JSON.parse(readFileSync(folder.file("owner.json"), "utf8"));

test("each disk that is written to has a lock, for as long as somebody has its opening", () => {
  const disks = [disk("a"), disk("b"), disk("image", true)];
  const taken = takeDisks(disks, { generation: 0 });
  expect(taken.descriptors).toHaveLength(2);
  expect(readdirSync(folder.path).toSorted()).toEqual(["a", "a.lock", "b", "b.lock", "image"]);
  expect(lockWhole(folder.file("a.lock"))).toBe("held");
  expect(refusal(() => takeDisks(disks, { generation: 0 }))).toMatchObject({
    kind: "in-use",
    lasts: false,
  });
  taken[Symbol.dispose]();
  expect(refusal(() => takeDisks(disks, { generation: 0 }))).toBe("taken");
});

test("who takes a machine over has the lock of the one before, and not another one", () => {
  const disks = [disk("a"), disk("b")];
  const former = takeDisks(disks, { generation: 0 });
  const other = lockWhole(folder.file("other"));
  if (other === "held") throw new Error("Nobody has it");
  const places = [...former.descriptors, other];
  const at = (order: readonly number[]) => (index: number) =>
    duplicate(places[order[index] ?? 0]?.number ?? -1);
  const wrong = () => takeDisks(disks, { generation: 0, former: at([1, 2]) });
  expect(refusal(wrong)).toMatchObject({ kind: "in-use" });
  const next = takeDisks(disks, { generation: 0, former: at([0, 1]) });
  former[Symbol.dispose]();
  expect(lockWhole(folder.file("a.lock"))).toBe("held");
  next[Symbol.dispose]();
  other.close();
  expect(refusal(() => takeDisks(disks, { generation: 0 }))).toBe("taken");
});

test("all of them or none: of a refusal no lock is left", () => {
  const [first, second] = [disk("a"), disk("b")];
  using _other = takeDisks([second], { generation: 0 });
  expect(refusal(() => takeDisks([first, second], { generation: 0 }))).toMatchObject({
    kind: "in-use",
  });
  expect(refusal(() => takeDisks([first], { generation: 0 }))).toBe("taken");
});

test("an owner generation is noted beside the disks, and never a lower one", () => {
  const disks = [disk("a")];
  expect(ownerGenerationIn(folder.path)).toBe(0);
  expect(refusal(() => takeDisks(disks, { generation: 0 }))).toBe("taken");
  expect(haveOwner(folder.path)).toBe(false);
  expect(refusal(() => takeDisks(disks, { generation: 5 }))).toBe("taken");
  expect(owner()).toEqual({ format: 1, owner_generation: 5 });
  expect(refusal(() => takeDisks(disks, { generation: 5 }))).toBe("taken");
  for (const older of [0, 4]) {
    const found = refusal(() => takeDisks(disks, { generation: older }));
    expect(found).toMatchObject({ kind: "owner", lasts: true });
    expect(String(found)).toContain("received 5: a master has given them to another worker");
  }
  expect(owner()).toEqual({ format: 1, owner_generation: 5 });
  expect(refusal(() => claimDisks(folder.path, [folder.file("a"), folder.file("new")], 6))).toBe(
    "taken",
  );
  expect(ownerGenerationIn(folder.path)).toBe(6);
});

test.each([
  ["no JSON", "{"],
  ["another format", '{"format":2,"owner_generation":1}'],
  ["no generation", '{"format":1,"owner_generation":0}'],
  ["a long file", JSON.stringify({ format: 1, owner_generation: 1, more: "x".repeat(5000) })],
])("an owner's file that is not understood refuses, and stays: %s", (_what, text) => {
  writeFileSync(folder.file("owner.json"), text);
  const found = refusal(() => takeDisks([disk("a")], { generation: 9 }));
  expect(found).toMatchObject({ kind: "damaged", lasts: true });
  expect(String(found)).toContain("owner.json: expected");
  expect(readFileSync(folder.file("owner.json"), "utf8")).toBe(text);
});

test("a disk with another name, or that is none, is refused", () => {
  const one = disk("a");
  linkSync(one.path, folder.file("b"));
  expect(refusal(() => takeDisks([one], { generation: 0 }))).toMatchObject({ kind: "link" });
  const link = { ...one, path: folder.file("c") };
  symlinkSync("a", link.path);
  expect(refusal(() => takeDisks([link], { generation: 0 }))).toMatchObject({ kind: "link" });
});

test("disks go with their machine, but not those of a later owner, nor what is in use", () => {
  const disks = [disk("a"), disk("seed", true)];
  takeDisks(disks, { generation: 7 })[Symbol.dispose]();
  expect(removeDisks(folder.path, 6)).toBe(false);
  expect(existsSync(folder.file("a"))).toBe(true);
  {
    using _vmm = takeDisks(disks, { generation: 7 });
    expect(() => removeDisks(folder.path, 7)).toThrow("nobody else writes");
    expect(existsSync(folder.file("a"))).toBe(true);
  }
  expect(removeDisks(folder.path, 7)).toBe(true);
  expect(readdirSync(folder.path)).toEqual([]);
  expect(removeDisks(folder.file("none"), 0)).toBe(true);
});
