import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { isUntouched } from "../../install/unit-text.ts";
import { withFile } from "../../journal/file-refused.ts";
import { layoutNames, linkNames } from "../layout.ts";
import {
  type InstallAction,
  type InstallPlaces,
  type InstallStep,
  nameOf,
  placeOf,
  programLink,
  unitsOf,
} from "./install.ts";
import { Installation } from "./installation.ts";
import { passStep } from "./kill-points.ts";
import { checkFormat, readLayout, syncFolder } from "./layout-files.ts";
import { runByOthers } from "./running-programs.ts";

export interface RemovalWish extends InstallPlaces {
  readonly force: boolean;
  readonly dryRun: boolean;
}

const otherwise = "give another --folder";

/** What hostler made in an installation's folder; by its format one that is half gone is known. */
const records = [
  layoutNames.journal,
  layoutNames.damagedJournal,
  layoutNames.roles,
  layoutNames.trust,
  layoutNames.format,
  layoutNames.lock,
];

/**
 * Takes away what `installFleet` has made, and what upgrades have; whatever stands there, however
 * far another one has come. Where something of it runs nothing is done.
 * @throws FileRefused for what the system refuses
 */
export function removeFleet(wish: RemovalWish): readonly InstallStep[] {
  checkFormat(placeOf(wish));
  const steps = [...lookAtUnits(wish), ...lookAtName(wish), ...lookAtInstallation(wish)];
  const isRefused = steps.some(({ action }) => action === "refuse");
  if (wish.dryRun || isRefused) return steps;
  for (const { what, path, action } of steps) {
    if (action !== "remove") continue;
    if (what === "installation") removeInstallation(path);
    else {
      withFile({ what: "remove", path, otherwise }, () => {
        rmSync(path, { force: true });
        syncFolder(dirname(path));
      });
      passStep("taken");
    }
  }
  return steps;
}

function lookAtUnits(wish: RemovalWish): InstallStep[] {
  return unitsOf(wish).flatMap(({ path, text }): InstallStep[] => {
    const place = { what: "look at", path, otherwise: "give another --unit-directory" };
    return withFile(place, () => {
      const stats = lstatSync(path, { throwIfNoEntry: false });
      if (stats === undefined) return [];
      const found = stats.isFile() ? readFileSync(path, "utf8") : undefined;
      const isOurs = found !== undefined && (found === text || isUntouched(found));
      if (isOurs) return [{ what: "unit", path, action: "remove" }];
      if (found === undefined) return [left("unit", path, "there is something that is no file")];
      if (wish.force) return [{ what: "unit", path, action: "remove" }];
      return [left("unit", path, "somebody has changed it; --force removes it")];
    });
  });
}

function lookAtName(wish: RemovalWish): InstallStep[] {
  const path = nameOf(wish);
  return withFile({ what: "look at", path, otherwise: "give another --prefix" }, () => {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return [];
    const isOurs = stats.isSymbolicLink() && readlinkSync(path) === programLink(wish.folder);
    if (isOurs) return [{ what: "name", path, action: "remove" }];
    return [left("name", path, "hostler fleet install has not made it")];
  });
}

function lookAtInstallation(wish: RemovalWish): InstallStep[] {
  const path = placeOf(wish);
  const what = "installation";
  if (!existsSync(path)) return [];
  const state = readLayout(path);
  if (state.format === undefined) {
    // Another one was killed when all but these was gone.
    const isEmptied = readdirSync(path).every((name) => name === layoutNames.lock);
    if (isEmptied) return [{ what, path, action: "remove" }];
    return [left(what, path, "there is no installation in it")];
  }
  const names = state.versions.map(({ name }) => name);
  const [running] = runByOthers(path, names);
  if (running === undefined) return [{ what, path, action: "remove" }];
  const reason =
    `somebody runs its version ${running}. End it first: systemctl disable --now ` +
    "hostler-fleet-agent, or end hostler fleet supervise";
  return [{ what, path, action: "refuse", reason }];
}

const left = (what: InstallStep["what"], path: string, reason: string): InstallStep => ({
  ...{ what, path, reason },
  action: "leave" satisfies InstallAction,
});

/** Links first, so that nobody starts what is about to go; what somebody else put there stays. */
function removeInstallation(folder: string): void {
  withFile({ what: "remove the installation in", path: folder, otherwise }, () => {
    // Whose format is gone already is made once more: nobody has the lock of what is none.
    using _lock = Installation.open(folder, { make: true });
    for (const link of linkNames) rmSync(join(folder, link), { force: true });
    syncFolder(folder);
    passStep("unlinked");
    rmSync(join(folder, layoutNames.versions), { recursive: true, force: true });
    passStep("emptied");
    for (const name of records) rmSync(join(folder, name), { recursive: true, force: true });
    if (readdirSync(folder).length === 0) rmdirSync(folder);
    syncFolder(dirname(folder));
  });
  passStep("removed-all");
}
