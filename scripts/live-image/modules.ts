/** Which modules the live image has, and the lists by which modprobe finds them. */
import { readFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import type { ArchiveEntry } from "../guest/initramfs.ts";
import {
  dependenciesOf,
  factsOf,
  findModules,
  type KernelWithModules,
  type ModuleFacts,
  readModule,
} from "../guest-kernel/debian-modules.ts";
import { ScriptError } from "../terminal.ts";

/** A line of images/live/modules. */
export interface ModuleChoice {
  readonly kind: "take" | "leave" | "load";
  /** A module's name, or a folder of the kernel with a slash at its end. */
  readonly what: string;
}

/** @param text of images/live/modules, or of a list like it */
export function parseChoices(text: string): ModuleChoice[] {
  const kinds = { "-": "leave", "!": "load" } as const;
  return text
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter((line) => line !== "")
    .map((line) => {
      const kind =
        line.startsWith("-") || line.startsWith("!") ? kinds[line[0] as "-" | "!"] : "take";
      return { kind, what: kind === "take" ? line : line.slice(1) };
    });
}

interface ChosenModule {
  readonly name: string;
  /** From the folder of modules: "kernel/drivers/nvme/host/nvme.ko". */
  readonly place: string;
  readonly bytes: Uint8Array;
  readonly facts: ModuleFacts;
}

/**
 * The modules with all that they depend on, and modprobe's lists, all below lib/modules/RELEASE.
 * @throws ScriptError (1) when a choice names nothing that this kernel has, or has built in
 */
export function moduleEntries(
  kernel: KernelWithModules,
  choices: readonly ModuleChoice[],
): ArchiveEntry[] {
  const builtIn = readBuiltIn(kernel.modules);
  const chosen = chooseModules(kernel.modules, choices, builtIn);
  const folder = `usr/lib/modules/${kernel.release}`;
  const text = (path: string, content: string): ArchiveEntry => ({
    kind: "file",
    path: `${folder}/${path}`,
    content: new TextEncoder().encode(content),
  });
  const loaded = choices.filter(({ kind }) => kind === "load").map(({ what }) => what);
  return [
    ...chosen.map(({ place, bytes }) => {
      return { kind: "file" as const, path: `${folder}/${place}`, content: bytes };
    }),
    text("modules.dep", dependencyLines(chosen)),
    text("modules.alias", aliasLines(chosen)),
    text("modules.builtin", builtIn.map((place) => `${place}\n`).join("")),
    text("load", loaded.map((name) => `${name}\n`).join("")),
  ];
}

function readBuiltIn(modules: string): string[] {
  return readFileSync(join(modules, "modules.builtin"), "utf8").trim().split("\n").toSorted();
}

function nameOf(place: string): string {
  return basename(place)
    .replace(/\.ko(\.xz)?$/, "")
    .replaceAll("-", "_");
}

function chooseModules(
  modules: string,
  choices: readonly ModuleChoice[],
  builtIn: readonly string[],
): ChosenModule[] {
  const found = findModules(modules);
  const placeOf = (path: string) => relative(modules, path).replace(/\.xz$/, "");
  const known = new Set(builtIn.map(nameOf));
  const names = new Set<string>();
  for (const { kind, what } of choices) {
    const isFolder = what.endsWith("/");
    const named = isFolder
      ? [...found].filter(([, path]) => placeOf(path).startsWith(`kernel/${what}`))
      : [...found].filter(([name]) => name === what.replaceAll("-", "_"));
    if (named.length === 0 && !known.has(what)) {
      throw new ScriptError(`images/live/modules names ${what}, which this kernel has not.`, {
        exitCode: 1,
      });
    }
    for (const [name] of named) kind === "leave" ? names.delete(name) : names.add(name);
  }
  const chosen = new Map<string, ChosenModule>();
  const add = (name: string): void => {
    const path = found.get(name);
    if (path === undefined || chosen.has(name)) return;
    const bytes = readModule(path);
    chosen.set(name, { name, place: placeOf(path), bytes, facts: factsOf(bytes) });
    for (const needed of dependenciesOf(bytes)) add(needed);
  };
  for (const name of names) add(name);
  return [...chosen.values()].toSorted((a, b) => (a.place < b.place ? -1 : 1));
}

/** modules.dep(5): a module, and all that it needs, in the order of depmod: the nearest first. */
function dependencyLines(chosen: readonly ChosenModule[]): string {
  const byName = new Map(chosen.map((module) => [module.name, module]));
  const collect = (name: string, into: string[]): string[] => {
    for (const needed of dependenciesOf(byName.get(name)?.bytes ?? new Uint8Array())) {
      const module = byName.get(needed);
      if (module === undefined) continue;
      // What two need goes in before both of them: behind them in this list.
      const before = into.indexOf(module.place);
      if (before >= 0) into.splice(before, 1);
      into.push(module.place);
      collect(needed, into);
    }
    return into;
  };
  return chosen
    .map(({ name, place }) => `${[`${place}:`, ...collect(name, [])].join(" ")}\n`)
    .join("");
}

/** modules.alias: which module hardware of that name asks for. */
function aliasLines(chosen: readonly ChosenModule[]): string {
  const lines = chosen.flatMap(({ name, facts }) =>
    (facts.get("alias") ?? []).map((alias) => `alias ${alias} ${name}\n`),
  );
  return lines.join("");
}
