/** What a device believes of what its operator orders, and brings to its installation. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TrustFolder } from "../../../src/artifact/trust-folder.ts";
import { folderOf } from "../../../src/fleet/layout.ts";
import { artifactSeam } from "../../../src/fleet/perform/artifact-seam.ts";
import { checkVersion } from "../../../src/fleet/perform/installation.ts";
import type { Marker } from "../../../src/fleet/protocol.ts";
import { OrderRefused } from "../../../src/fleet/upgrade-agent.ts";
import { executable, type Release, Site } from "../../support/artifact.ts";
import { makeMarker } from "../../support/fleet-agent/life.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const bytes = executable({ size: 200_000, seed: 5 });
const known = { floor: null, metadataVersion: 0, signal: new AbortController().signal };

let site: Site;
let notices: string[];
let journaled: number;
beforeEach(() => {
  site = new Site();
  notices = [];
  journaled = 0;
});
afterEach(() => site[Symbol.dispose]());

const place = () => site.file("fleet");
const seam = () =>
  artifactSeam({
    folder: place(),
    device: { architecture: "x64", libc: "glibc" },
    metadataVersion: () => journaled,
    onNotice: (message) => notices.push(message),
  });
const pin = () => TrustFolder.pin(join(place(), "trust"), site.root);

const orderOf = ({ version, digest, manifest }: Release, changes: Partial<Marker> = {}): Marker =>
  makeMarker(1, {
    ...{ build: { version, digest }, manifest, sources: [`file://${site.path}`], ...changes },
  });

async function refusalOf(work: Promise<unknown>): Promise<{ cause: string; message: string }> {
  const error = (await rejectionOf(work)) as OrderRefused;
  expect(error).toBeInstanceOf(OrderRefused);
  return { cause: error.endingCause, message: error.message };
}

const fetching = { signal: known.signal, onProgress: () => {} };

test("a release that the pinned root set leads to is taken, fetched, and whole", async () => {
  pin();
  const order = orderOf(await site.release("1.5.0", bytes, { floor: "1.2.0" }));
  const accepted = await seam().check(order, { ...known, floor: "1.1.0" });
  expect(accepted).toEqual({ floor: "1.2.0", metadataVersion: 1 });
  const told: number[] = [];
  await seam().fetch(order, { ...fetching, onProgress: ({ of_bytes }) => told.push(of_bytes) });
  expect(told).toContain(bytes.length);
  expect(checkVersion(place(), folderOf(order.build))).toMatchObject({ kind: "whole" });
});

test.each([
  ["by another key", { by: "thief" }, known, "a signature by one of 1 keys"],
  ["below the floor", {}, { ...known, floor: "2.0.0" }, "2.0.0 or later"],
  ["by older metadata than was seen", {}, { ...known, metadataVersion: 9 }, "version 9 or later"],
])("a release is refused, and the version is to blame: %s", async (_, made, knows, expected) => {
  pin();
  const order = orderOf(await site.release("1.5.0", bytes, made));
  const refusal = await refusalOf(seam().check(order, knows));
  expect(refusal).toMatchObject({
    cause: "artifact",
    message: expect.stringContaining(`expected ${expected}`),
  });
});

test("a release for another machine is refused before anything of it is fetched", async () => {
  pin();
  const arm = executable({ size: 9_000, seed: 6, machine: 183 });
  const order = orderOf(await site.release("1.5.0", arm));
  const refusal = await refusalOf(seam().check(order, known));
  expect(refusal).toMatchObject({
    cause: "artifact",
    message: expect.stringContaining("expected a file for x64 with glibc"),
  });
  expect(existsSync(join(place(), "versions"))).toBe(false);
});

test("metadata that the journal has seen counts for a fetch too", async () => {
  pin();
  const order = orderOf(await site.release("1.5.0", bytes));
  await seam().check(order, known);
  journaled = 9;
  const refusal = await refusalOf(seam().fetch(order, fetching));
  expect(refusal.message).toContain("version 9 or later");
});

test("a host that trusts nobody, or reaches nobody, says nothing against the version", async () => {
  const order = orderOf(await site.release("1.5.0", bytes));
  expect(await refusalOf(seam().check(order, known))).toMatchObject({
    cause: "host",
    message: expect.stringContaining("hostler fleet install --root"),
  });
  pin();
  site.write("kept.json", site.read("metadata.json"));
  rmSync(join(site.path, "metadata.json"));
  expect(await refusalOf(seam().check(order, known))).toMatchObject({
    cause: "host",
    message: expect.stringContaining("expected metadata that the root keys have signed"),
  });
  site.write("metadata.json", site.read("kept.json"));
  await seam().check(order, known);
  rmSync(join(site.path, `${order.build.digest}.blocks`));
  expect(await refusalOf(seam().fetch(order, fetching))).toMatchObject({ cause: "host" });
});

test("what a source says of trust and is refused is told", async () => {
  pin();
  const order = orderOf(await site.release("1.5.0", bytes));
  await seam().check(order, known);
  expect(notices).toEqual([]);
  site.write("metadata.json", "{}");
  await seam().check(order, known);
  expect(notices.join("\n")).toContain("what a source says of trust is refused: expected");
});

test.each([
  ["by the manifest beside it", false],
  ["by the published one where there is none, as after an installation", true],
])("a damaged way back is fetched again, below the floor as well, %s", async (_, isLost) => {
  pin();
  const former = orderOf(await site.release("1.4.0", bytes));
  await seam().check(former, known);
  await seam().fetch(former, fetching);
  const folder = join(place(), "versions", folderOf(former.build));
  writeFileSync(join(folder, "hostler"), "damaged");
  if (isLost) rmSync(join(folder, "manifest.json"));
  const next = orderOf(await site.release("1.5.0", bytes, { floor: "1.5.0" }));
  await seam().fetchAgain(former.build, next);
  expect(readFileSync(join(folder, "hostler"))).toEqual(bytes);
  expect(existsSync(join(folder, "manifest.json"))).toBe(true);
});
