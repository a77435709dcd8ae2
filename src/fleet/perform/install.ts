import {
  chmodSync,
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { TrustFolder } from "../../artifact/trust-folder.ts";
import { placeInRoot, resolveInRoot } from "../../install/perform/rooted-path.ts";
import { isUntouched, renderUnit } from "../../install/unit-text.ts";
import { writeDurably } from "../../journal/append-journal.ts";
import { withFile } from "../../journal/file-refused.ts";
import { folderOf, type LayoutState, layoutNames, linked, linkNames } from "../layout.ts";
import { compareVersions, laterVersion } from "../protocol-version.ts";
import { fleetUnits } from "../units.ts";
import { hashFile } from "./hashing.ts";
import { Installation } from "./installation.ts";
import { passStep } from "./kill-points.ts";
import { checkFormat, readLayout, setLink, syncFolder } from "./layout-files.ts";
import { requireLasting } from "./persistence.ts";
import { proveProgram } from "./prove.ts";
import { journalDamage, readJournalIn, setJournalAside } from "./read-journal.ts";

/** Where an installation lies. */
export interface InstallPlaces {
  /** As the host knows it that it is made for. */
  readonly folder: string;
  /** The folder of an image: everything goes below it. undefined: this host. */
  readonly image: string | undefined;
  /** The program's name goes to bin below it. */
  readonly prefix: string;
  /** undefined: without units, as in a container. */
  readonly unitDirectory: string | undefined;
}

export interface InstallWish extends InstallPlaces {
  readonly version: string;
  /** The root set that is to be pinned, if none is; undefined: nobody says one. */
  readonly root: string | undefined;
  /** The folder need not outlive the host's next start, or does although it does not look so. */
  readonly acceptVolatile: boolean;
  readonly force: boolean;
  readonly dryRun: boolean;
}

export type InstallAction = "create" | "replace" | "remove" | "keep" | "leave" | "refuse";

export interface InstallStep {
  readonly what: "version" | "current" | "journal" | "trust" | "name" | "unit" | "installation";
  readonly path: string;
  readonly action: InstallAction;
  readonly reason?: string;
}

/** The running program, also when its file was replaced or removed since it was started. */
const ownProgram = "/proc/self/exe";
/** How every program of Linux begins: elf(5). */
const ELF = Buffer.from("\x7fELF");

/**
 * Makes the installation of which this host is upgraded, or completes it: whatever stands there,
 * however far another one has come. First all is looked at; where something is refused, nothing is
 * done.
 * @throws FileRefused for what the system refuses, and when this program does not prove itself here
 */
export async function installFleet(wish: InstallWish): Promise<readonly InstallStep[]> {
  if (wish.image === undefined) requireLasting(wish.folder, wish.acceptVolatile);
  checkFormat(placeOf(wish));
  const journal = lookAtJournal(wish);
  const others = [...journal, ...lookAtTrust(wish), lookAtName(wish), ...lookAtUnits(wish)];
  const { digest } = hashFile(ownProgram);
  const link = lookAtCurrent(wish, folderOf({ version: wish.version, digest }));
  const isRefused = [link, ...others].some(({ action }) => action === "refuse");
  if (wish.dryRun || isRefused) return [link, ...others];
  const { version, current } = await makeCurrent(wish);
  if (wish.root !== undefined) TrustFolder.pin(trustOf(wish), wish.root);
  makeName(wish, others);
  passStep("named");
  for (const { path, text } of unitsOf(wish)) {
    const step = others.find((other) => other.path === path);
    if (step === undefined || !changes(step.action)) continue;
    withFile({ what: "write", path, otherwise: "give another --unit-directory" }, () => {
      makeFolder(dirname(path));
      writeDurably(path, text, 0o644);
      chmodSync(path, 0o644);
    });
    passStep("units");
  }
  return [version, current, ...others];
}

export const changes = (action: InstallAction): boolean =>
  action === "create" || action === "replace" || action === "remove";

/** The program is stored, and has proven itself on this host, before any link leads to it. */
async function makeCurrent(wish: InstallWish) {
  const folder = placeOf(wish);
  using installation = Installation.open(folder, { make: true });
  // Looked at once more: nobody else changes it now. No program can prove itself beside it.
  if (journalDamage(folder) !== undefined) setJournalAside(folder);
  const { name, isNew } = installation.store(ownProgram, wish.version);
  await proveProgram(folder, name);
  installation.prove(name);
  passStep("proved");
  const current = lookAtCurrent(wish, name);
  const before = linked(installation.read(), "current");
  if (current.action === "create" || (current.action === "replace" && !isWhole(before))) {
    setLink(folder, "current", name);
  } else if (current.action === "replace" && before !== undefined) {
    installation.swap({ current: name, previous: before });
  }
  passStep("linked");
  const version: InstallStep = {
    what: "version",
    path: join(folder, layoutNames.versions, name),
    action: isNew ? "create" : "keep",
  };
  return { version, current };

  function isWhole(other: string | undefined): boolean {
    return other !== undefined && installation.check(other).kind === "whole";
  }
}

/** @param own the version of the running program */
function lookAtCurrent(wish: InstallWish, own: string): InstallStep {
  const { force } = wish;
  const folder = placeOf(wish);
  const path = join(folder, "current");
  const step = (action: InstallAction, reason?: string): InstallStep => ({
    ...{ what: "current" as const, path, action },
    ...(reason === undefined ? {} : { reason }),
  });
  for (const link of linkNames) {
    const stats = lstatSync(join(folder, link), { throwIfNoEntry: false });
    if (stats !== undefined && !stats.isSymbolicLink()) {
      return step("refuse", `there is ${link}, which is no link. Move it away`);
    }
  }
  const state = readLayout(folder);
  const name = linked(state, "current");
  if (name === own) return step("keep");
  const isThere = state.versions.some((one) => one.name === name && one.state === "verified");
  if (!isThere || force) {
    const later = laterThan(wish, state, { isLinked: isThere });
    if (later !== undefined) return step("refuse", later);
  }
  if (state.links.current.kind === "absent") return step("create");
  if (!isThere) return step("replace", "it led to no version that is whole");
  if (force) return step("replace", `in place of ${name}, which is previous now`);
  // An image's own program says this at each start, once its host was upgraded.
  return step(
    "keep",
    `it leads to ${name}: the operator upgrades it; --force would make it ${own}`,
  );
}

/**
 * Why the program is too old to be current here; undefined: it is not. The floor binds whoever
 * installs as well: below it a host has known holes.
 */
function laterThan(
  wish: InstallWish,
  { versions }: LayoutState,
  { isLinked }: { readonly isLinked: boolean },
): string | undefined {
  const { version, force } = wish;
  const isOlder = (other: string) => compareVersions(version, other) < 0;
  const read = readJournalIn(placeOf(wish));
  const floor = read.kind === "ok" ? read.journal.floor : null;
  const proven = versions
    .filter(({ isProven, state }) => isProven && state === "verified")
    .flatMap(({ build }) => (build === undefined ? [] : [build.version]))
    .filter(isOlder)
    .reduce<string | null>((one, other) => laterVersion(one, other), null);
  const known = proven === null ? "" : ` ${proven} is there, and was proven.`;
  const guard = `hostler fleet guard --folder ${wish.folder} links it again`;
  const mend = proven === null || isLinked ? "" : ` ${guard}.`;
  if (floor !== null && isOlder(floor)) {
    const below = `this program is ${version}, below the floor ${floor} of this host.`;
    return `${below}${known}${mend} Install ${floor} or a later one`;
  }
  if (proven === null || force) return undefined;
  return `this program is ${version}.${known}${mend} --force installs ${version} all the same`;
}

/** One that nobody can read would keep every program from proving itself; it is kept for people. */
function lookAtJournal(wish: InstallWish): InstallStep[] {
  const folder = placeOf(wish);
  const damage = journalDamage(folder);
  if (damage === undefined) return [];
  const path = join(folder, layoutNames.journal);
  const reason = `it is damaged: ${damage}. It is kept as ${layoutNames.damagedJournal}`;
  return [{ what: "journal", path, action: "replace", reason }];
}

/** Where the installation's folder lies, now. */
export const placeOf = ({ image, folder }: InstallPlaces): string =>
  image === undefined ? folder : resolveInRoot(image, folder);

/** Where a file that is made lies, now; its own links are not followed. */
const inImage = ({ image }: InstallPlaces, path: string): string =>
  image === undefined ? path : placeInRoot(image, path);

const trustOf = (wish: InstallWish) => join(placeOf(wish), layoutNames.trust);

/** What is pinned stays, and so do the root sets that have followed it. */
function lookAtTrust(wish: InstallWish): InstallStep[] {
  const { root } = wish;
  if (root === undefined) return [];
  const path = join(trustOf(wish), "root.json");
  const step = (action: InstallAction, reason?: string): InstallStep[] => [
    { ...{ what: "trust" as const, path, action }, ...(reason === undefined ? {} : { reason }) },
  ];
  return withFile({ what: "look at", path, otherwise: "give another --folder" }, () => {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return step("create");
    if (!stats.isFile()) return step("refuse", "there is something that is no file");
    if (readFileSync(path, "utf8") === root) return step("keep");
    return step("keep", "another root set is pinned, or has followed the one that was");
  });
}

export const nameOf = (wish: InstallPlaces): string =>
  inImage(wish, join(wish.prefix, "bin/hostler"));

function lookAtName(wish: InstallWish): InstallStep {
  const { folder, force } = wish;
  const path = nameOf(wish);
  const step = (action: InstallAction, reason?: string): InstallStep => ({
    ...{ what: "name" as const, path, action },
    ...(reason === undefined ? {} : { reason }),
  });
  return withFile({ what: "look at", path, otherwise: "give another --prefix" }, () => {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return step("create");
    if (stats.isDirectory()) return step("refuse", "there is a folder. Move it away");
    if (stats.isSymbolicLink()) {
      const target = readlinkSync(path);
      if (target === programLink(folder)) return step("keep");
      if (force) return step("replace", `it led to ${target}`);
      return step("refuse", `there is a link to ${target}. Give --force, which replaces it`);
    }
    if (stats.isFile() && isProgram(path)) return step("replace", "it was the program itself");
    if (force) return step("replace");
    return step("refuse", "there is a file that is no program. Give --force, which replaces it");
  });
}

/** What the program's name is a link to. */
export const programLink = (folder: string): string => join(folder, "current", layoutNames.program);

function makeName({ folder }: InstallWish, steps: readonly InstallStep[]): void {
  const step = steps.find(({ what }) => what === "name");
  if (step === undefined || !changes(step.action)) return;
  const { path } = step;
  withFile({ what: "make the link", path, otherwise: "give another --prefix" }, () => {
    makeFolder(dirname(path));
    const temporary = `${path}.${process.pid}.new`;
    rmSync(temporary, { force: true });
    symlinkSync(programLink(folder), temporary);
    renameSync(temporary, path);
    syncFolder(dirname(path));
  });
}

/** The units that this installation has, and where they lie, now. */
export function unitsOf(
  places: InstallPlaces,
): readonly { readonly path: string; readonly text: string }[] {
  const { folder, prefix, unitDirectory } = places;
  if (unitDirectory === undefined) return [];
  return fleetUnits(folder).map(({ name, text }) => ({
    path: inImage(places, join(unitDirectory, name)),
    text: renderUnit(name, text, prefix),
  }));
}

function lookAtUnits(wish: InstallWish): InstallStep[] {
  return unitsOf(wish).map(({ path, text }) => {
    const step = (action: InstallAction, reason?: string): InstallStep => ({
      ...{ what: "unit" as const, path, action },
      ...(reason === undefined ? {} : { reason }),
    });
    const place = { what: "look at", path, otherwise: "give another --unit-directory" };
    return withFile(place, () => {
      const stats = lstatSync(path, { throwIfNoEntry: false });
      if (stats === undefined) return step("create");
      if (!stats.isFile()) return step("refuse", "there is something that is no file");
      const found = readFileSync(path, "utf8");
      if (found === text) return step("keep");
      if (isUntouched(found) || wish.force) return step("replace");
      return step("leave", "somebody has changed it; --force overwrites it");
    });
  });
}

function isProgram(path: string): boolean {
  const file = openSync(path, "r");
  try {
    const beginning = Buffer.alloc(ELF.length);
    readSync(file, beginning, 0, ELF.length, 0);
    return beginning.equals(ELF);
  } finally {
    closeSync(file);
  }
}

function makeFolder(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return;
  makeFolder(dirname(path));
  mkdirSync(path, { mode: 0o755 });
}
