import {
  type Decision,
  decideInstall,
  decideRemove,
  type InstallOptions,
  type Item,
  itemsOf,
} from "./items.ts";
import { make, remove } from "./perform/change.ts";
import { isEnabled, look } from "./perform/look.ts";
import { readRoot } from "./perform/rooted-path.ts";
import {
  activeUnits,
  isSystemdBooted,
  reloadUnits,
  systemdRelease,
} from "./perform/service-manager.ts";
import { roleNames } from "./roles.ts";

/** One item and what became of it, or would. */
export interface Step extends Decision {
  readonly item: Item;
}

/** What install did, or would do. */
export interface InstallReport {
  readonly steps: readonly Step[];
  /** false: something was in the way, and nothing was done at all. */
  readonly isAccepted: boolean;
  /** systemd has read its units anew; "not-asked" where no unit has changed, or not this host's. */
  readonly reload: "done" | "not-asked" | { readonly problem: string };
  /** Units of this host that run, and go on with the former program or the former unit. */
  readonly active: readonly string[];
  /** systemd's release on this host; undefined for an image, and where systemd does not run. */
  readonly systemd: number | undefined;
  readonly isBooted: boolean;
}

/** The first systemd that can spare a unit from its last kill. */
export const SURVIVAL_RELEASE = 255;

/**
 * Puts program, links and units in their places, or takes them away. First all is looked at: where
 * something foreign is in the way, nothing is done.
 * @throws FileRefused, when the system refuses in the middle; a second run goes on from there
 */
export async function install(options: InstallOptions): Promise<InstallReport> {
  const root = readRoot(options.root);
  const isBooted = root === "/" && isSystemdBooted();
  const items = itemsOf(options.roles, options);
  const units = unitNames(items);
  const active = isBooted ? await activeUnits(units) : [];
  const steps = options.remove
    ? planRemoval(root, items, { options, active })
    : items.map((item) => ({ item, ...decideInstall(item, look(root, item), options.force) }));
  const isAccepted = steps.every(({ action }) => action !== "refuse");
  if (isAccepted && !options.dryRun) perform(root, steps);
  const isChanged = steps.some(({ item, action }) => item.kind === "unit" && changes(action));
  const wantsReload = isBooted && isChanged && isAccepted && !options.dryRun;
  return {
    steps,
    isAccepted,
    reload: wantsReload ? await reload() : "not-asked",
    active,
    systemd: isBooted ? await systemdRelease() : undefined,
    isBooted,
  };
}

async function reload(): Promise<InstallReport["reload"]> {
  const problem = await reloadUnits();
  return problem === undefined ? "done" : { problem };
}

/** Whether anything of the tree becomes another by it. */
export function changes(action: Decision["action"]): boolean {
  return action === "create" || action === "replace" || action === "remove";
}

export function unitNames(items: readonly Item[]): string[] {
  return items.flatMap((item) => (item.kind === "unit" ? [item.name] : []));
}

/** In the reverse order: nothing names what is gone already. */
function planRemoval(
  root: string,
  items: readonly Item[],
  { options, active }: { readonly options: InstallOptions; readonly active: readonly string[] },
): Step[] {
  return items.toReversed().map((item) => {
    const decision = decideRemove(item, look(root, item), options.force);
    if (decision.action !== "remove") return { item, ...decision };
    const use = item.kind === "unit" && !options.force ? useOf(root, item, active) : undefined;
    if (use !== undefined) return { item, action: "refuse", reason: use };
    const user = item.kind === "program" ? userOfProgram(root, options, items) : undefined;
    if (user === undefined) return { item, ...decision };
    return { item, action: "keep", reason: `${user} needs it` };
  });
}

/** Why a unit cannot go: it would go on running, or leave a link to nothing. */
function useOf(
  root: string,
  item: Extract<Item, { kind: "unit" }>,
  active: readonly string[],
): string | undefined {
  const isRunning = active.includes(item.name);
  if (!isRunning && !isEnabled(root, item.path)) return undefined;
  const [words, mend] = root === "/" ? ["", "disable --now"] : [`--root=${root} `, "disable"];
  return `it ${isRunning ? "runs" : "is enabled"}: systemctl ${words}${mend} ${item.name} first`;
}

/** Something of another role that is installed. */
function userOfProgram(
  root: string,
  options: InstallOptions,
  removed: readonly Item[],
): string | undefined {
  const going = new Set(removed.map(({ path }) => path));
  const others = itemsOf(roleNames, options).filter(({ path }) => !going.has(path));
  return others.find((item) => {
    const { kind } = look(root, item);
    return kind !== "absent" && kind !== "foreign";
  })?.path;
}

function perform(root: string, steps: readonly Step[]): void {
  for (const { item, action } of steps) {
    if (action === "remove") remove(root, item);
    else if (changes(action)) make(root, item);
  }
}
