import { believed } from "../../artifact/artifact-refused.ts";
import { readRoot } from "../../artifact/lifecycle-verify.ts";
import { artifactLimits } from "../../artifact/protocol.ts";
import { printJson, printText } from "../../command-line/output.ts";
import { alignColumns } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { isSignedBy } from "../../identity/secrets.ts";
import { readRoot as readImage } from "../../install/perform/rooted-path.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { hostlerVersion } from "../../units/version.ts";
import {
  changes,
  type InstallAction,
  type InstallStep,
  type InstallWish,
  installFleet,
} from "../perform/install.ts";
import { removeFleet } from "../perform/uninstall.ts";
import { readNamed } from "./artifact-words.ts";
import { readPath } from "./read-path.ts";

interface Flags {
  readonly folder: string;
  readonly prefix: string;
  readonly "unit-directory": string;
  readonly root: string | undefined;
  readonly image: string | undefined;
  readonly remove: boolean;
  readonly "without-units": boolean;
  readonly volatile: boolean;
  readonly force: boolean;
  readonly "dry-run": boolean;
  readonly json: boolean;
}

export async function runFleetInstall(flags: Flags): Promise<number> {
  const wish = readWish(flags);
  const steps = flags.remove ? removeFleet(wish) : await installFleet(wish);
  const isRefused = steps.some(({ action }) => action === "refuse");
  if (flags.json) {
    const { folder, dryRun } = wish;
    const items = steps.map((step) => ({ ...step, reason: step.reason ?? null }));
    await printJson({ folder, dry_run: dryRun, ok: !isRefused, steps: items });
  } else {
    await printText(describe(steps, { wish, isRefused, isRemoval: flags.remove }));
  }
  return steps.some(({ action }) => action === "refuse" || action === "leave")
    ? ExitCode.refused
    : ExitCode.done;
}

function readWish(flags: Flags): InstallWish {
  if (hostlerVersion === "source") {
    throw new UsageError(
      "Expected the compiled program, which stores itself, received its source. Build it first",
    );
  }
  return {
    folder: readPath("--folder", flags.folder),
    image: flags.image === undefined ? undefined : readImage(flags.image, "--image"),
    prefix: readPath("--prefix", flags.prefix),
    unitDirectory: flags["without-units"]
      ? undefined
      : readPath("--unit-directory", flags["unit-directory"]),
    version: hostlerVersion,
    root: readRootSet(flags.root),
    acceptVolatile: flags.volatile,
    force: flags.force,
    dryRun: flags["dry-run"],
  };
}

/** @throws NamedFileRefused; ArtifactRefused for what is no root set, or is not signed by itself */
function readRootSet(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  const text = readNamed(path, "read the root set", artifactLimits.rootBytes);
  believed(`use the root set ${path}`, readRoot(text, isSignedBy));
  return text;
}

const done: Readonly<Record<InstallAction, string>> = {
  create: "created",
  replace: "replaced",
  remove: "removed",
  keep: "kept",
  leave: "left",
  refuse: "refused",
};

const startAdvice = ({ image }: InstallWish): string =>
  image === undefined
    ? "To start it now and at every boot: systemctl enable --now hostler-fleet-agent"
    : `To start it at every boot: systemctl --root=${image} enable hostler-fleet-agent`;

function describe(
  steps: readonly InstallStep[],
  {
    wish,
    isRefused,
    isRemoval,
  }: {
    readonly wish: InstallWish;
    readonly isRefused: boolean;
    readonly isRemoval: boolean;
  },
): string {
  const isDone = !isRefused && !wish.dryRun;
  const rows = steps
    .filter(({ action, reason }) => changes(action) || reason !== undefined)
    .map(({ action, path, reason }) => [
      !isDone && changes(action) ? `would ${action}` : done[action],
      path,
      ...(reason === undefined ? [] : [reason]),
    ]);
  const lines = alignColumns(rows);
  if (isRefused) lines.push("Nothing was done: see what is refused.");
  else if (rows.length === 0) {
    lines.push(`Nothing to do: ${isRemoval ? "nothing of it is left" : "everything is there"}.`);
  }
  const hasUnits = steps.some(({ what }) => what === "unit");
  if (isDone && hasUnits && !isRemoval) lines.push(startAdvice(wish));
  return lines.map((line) => `${line}\n`).join("");
}
