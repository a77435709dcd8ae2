import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { hasEnded } from "../../../ffi/pidfd.ts";
import { cgroupPathOf, findCgroupMount } from "../../event-loop/own-cgroup.ts";
import { refusalCode } from "../../journal/file-refused.ts";
import { ExitCode } from "../../units/exit-code.ts";
import type { Refusal } from "../lifecycle.ts";
import { type Controller, linesOf, type Resource, type ResourceLine } from "../resources.ts";
import type { ProcessSpecification } from "../specification.ts";
import type { Scheduled } from "./scheduling.ts";

/** A limit that is another now. */
export interface ChangedResource {
  readonly file: string;
  readonly before: string;
  readonly after: string;
}

export interface ResourceResult {
  readonly changed: readonly ChangedResource[];
  /** Of what is not optional; the others are told as `left`. */
  readonly refusal: Refusal | undefined;
  readonly left: readonly string[];
}

const nothing: ResourceResult = { changed: [], refusal: undefined, left: [] };

/**
 * Gives the cgroup of an instance what its configuration says, and takes back what it says no more.
 * The group is found by the process's number, which is its own as long as its pidfd says that it
 * has not ended, and is no other than that of its invocation: neither a partition's nor ours.
 */
export function limitResources(
  { processId, process }: Scheduled,
  invocation: string,
  { resources, constraints }: Pick<ProcessSpecification, "resources" | "constraints">,
): ResourceResult {
  // Without a group of its own nothing can be declared: the configuration is checked for it.
  if (constraints.cgroup === undefined || hasEnded(process)) return nothing;
  const lines = linesOf(resources.limits);
  const group = groupOf(processId);
  if (hasEnded(process)) return nothing;
  if (group === undefined || basename(group) !== invocation) {
    if (lines.every(({ isDeclared }) => !isDeclared)) return nothing;
    return withoutGroup(lines, resources.optional, group ?? "none of version 2");
  }
  const { optional } = resources;
  const changed: ChangedResource[] = [];
  const left: string[] = [];
  let refusal: Refusal | undefined;
  for (const line of lines) {
    const result = writeLine(group, line);
    if (result === undefined) continue;
    if ("after" in result) changed.push(result);
    else if (optional.includes(line.resource)) left.push(result.message);
    else refusal ??= result;
  }
  return hasEnded(process) ? nothing : { changed, refusal, left };
}

/** Whoever starts it says why it gets none. */
function withoutGroup(
  lines: readonly ResourceLine[],
  optional: readonly Resource[],
  found: string,
): ResourceResult {
  const message = `expected a cgroup of its own, received ${found}`;
  const declared = lines.filter(({ isDeclared }) => isDeclared);
  const left = declared.filter(({ resource }) => optional.includes(resource));
  return {
    changed: [],
    refusal:
      left.length === declared.length
        ? undefined
        : { message: `resources: ${message}`, code: undefined },
    left: left.map((line) => refuse(line, message, undefined).message),
  };
}

/** @returns undefined where it stands there already, or never stood there otherwise */
function writeLine(group: string, line: ResourceLine): ChangedResource | Refusal | undefined {
  const { file, text, controller, isDeclared } = line;
  const path = join(group, file);
  try {
    if (!existsSync(path)) {
      if (!isDeclared) return undefined;
      enable(dirname(group), controller);
    }
    const before = read(path);
    if (before === undefined) return refuse(line, lacking(group, controller), undefined);
    if (before === text) return undefined;
    writeFileSync(path, text);
    const after = read(path) ?? text;
    return after === before ? undefined : { file, before, after };
  } catch (error) {
    const code = refusalCode(error);
    if (code === undefined) throw error;
    return refuse(line, (error as Error).message, code);
  }
}

function refuse({ key, text }: ResourceLine, why: string, code: string | undefined): Refusal {
  return { message: `resources.${key} (${text}) is refused: ${why}`, code };
}

/** Has a group give its children a controller, and those above it in their turn. */
function enable(group: string, controller: Controller): void {
  const offered = wordsIn(join(group, "cgroup.controllers"));
  const isBelowMount = existsSync(join(dirname(group), "cgroup.controllers"));
  if (!offered.includes(controller) && isBelowMount) enable(dirname(group), controller);
  if (wordsIn(join(group, "cgroup.subtree_control")).includes(controller)) return;
  if (!wordsIn(join(group, "cgroup.controllers")).includes(controller)) return;
  writeFileSync(join(group, "cgroup.subtree_control"), `+${controller}`);
}

/** Of the nearest group above that has it, everybody below it may lack it. */
function lacking(group: string, controller: Controller): string {
  const mount = findCgroupMount();
  if (mount !== undefined && !wordsIn(join(mount, "cgroup.controllers")).includes(controller)) {
    return `cgroup v2 of this host, ${mount}, has no controller ${controller}: version 1 has it`;
  }
  return (
    `the controller ${controller} is not delegated to ${dirname(group)}: Delegate=yes in the ` +
    `unit, or cgroup.subtree_control`
  );
}

/** The folder of a process's cgroup of version 2, as the host sees it: cgroups(7). */
function groupOf(processId: number): string | undefined {
  const path = cgroupPathOf(processId);
  const mount = findCgroupMount();
  return path === undefined || mount === undefined ? undefined : join(mount, path);
}

const wordsIn = (path: string): string[] => (read(path) ?? "").split(/\s+/).filter(Boolean);

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1").trim();
  } catch {
    return undefined;
  }
}

/** What a configuration declares, and this host's cgroups cannot do. */
export class MissingControllers extends Error {
  override readonly name = "MissingControllers";
  readonly exitCode = ExitCode.refused;
}

/** Why the resources of processes cannot be limited here; undefined where they can. */
export function whyNotLimited(
  processes: readonly Pick<ProcessSpecification, "name" | "resources">[],
): string | undefined {
  const mount = findCgroupMount();
  const offered = mount === undefined ? [] : wordsIn(join(mount, "cgroup.controllers"));
  for (const { name, resources } of processes) {
    for (const { resource, key, controller, isDeclared } of linesOf(resources.limits)) {
      if (!isDeclared || resources.optional.includes(resource)) continue;
      if (offered.includes(controller)) continue;
      const found =
        mount === undefined
          ? "no cgroup v2 is mounted"
          : `${mount} has ${offered.join(", ") || "none"}`;
      return (
        `Expected the controller ${controller} of cgroup v2 for resources.${key} of ${name}, ` +
        `received: ${found}. Boot with systemd.unified_cgroup_hierarchy=1, or add ` +
        `optional = ["${key}"] to its resources.`
      );
    }
  }
  return undefined;
}
