/** Whose a bridge is: of the worker that lives, and of machines whose cards are there. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BridgeLock, otherBridgeUser } from "../../../src/network/bridge-lock.ts";
import { cardAlias, networkComment } from "../../../src/network/desired.ts";
import { linkOf, NetworkWorld } from "../../support/network-world.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

let folder: TemporaryFolder;
let locksFolder: string;
const place = { bridge: "br-lab", key: "network_bridge" };
const empty = new NetworkWorld().observe();
const alias = cardAlias("br-lab", "br-lab", "web");
const used = { ...empty, links: [linkOf({ name: "tap-web", index: 4, alias })] };

beforeEach(() => {
  folder = temporaryFolder();
  locksFolder = folder.file("locks");
  for (const name of ["first", "second"]) mkdirSync(folder.file(name));
});
afterEach(() => folder[Symbol.dispose]());

const take = (name: string, observed = empty) =>
  BridgeLock.take(place, { folder: folder.file(name), observe: () => observed, locksFolder });
const other = (name: string, observed = empty) =>
  otherBridgeUser("br-lab", { folder: folder.file(name), observed, locksFolder })?.folder;

describe("a bridge", () => {
  test("is one worker's as long as it lives, with whatever there is", () => {
    using _first = take("first");
    const words = `${folder.file("first")} (process ${process.pid}), which runs`;
    expect(() => take("second")).toThrow(words);
    expect(other("second")).toBe(folder.file("first"));
    expect(other("first")).toBeUndefined();
  });

  test("stays that of the folder whose machines have cards there", () => {
    take("first").release({ isInUse: true });
    expect(() => take("second", used)).toThrow(/first, whose machines have cards there.*remove/);
    expect(other("second", used)).toBe(folder.file("first"));
    take("first", used).release({ isInUse: true });
    const table = { family: "inet", name: "hostler-vm-br-lab" };
    const tables = [{ ...table, comment: networkComment("br-lab", "br-lab") }];
    expect(() => take("second", { ...empty, tableNames: tables })).toThrow("first");
  });

  test("without a link or a table is anybody's, and what earlier versions made as well", () => {
    take("first").release({ isInUse: true });
    expect(other("second")).toBeUndefined();
    take("second").release({ isInUse: false });
    expect(readdirSync(locksFolder)).toEqual([]);
    using _lock = take("first", used);
  });

  test("is taken anew where its file was removed, or says nothing", () => {
    using _first = take("first");
    const [name = ""] = readdirSync(locksFolder);
    rmSync(join(locksFolder, name));
    take("second").release({ isInUse: true });
    writeFileSync(join(locksFolder, name), "none of ours");
    using _second = take("second", used);
  });
});
