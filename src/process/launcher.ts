import { readFileSync, writeFileSync, writeSync } from "node:fs";
import * as v from "valibot";
import { setCapabilities } from "../../ffi/capabilities.ts";
import { closeOnExecFrom, keepOnExec, setCloseOnExec } from "../../ffi/descriptor.ts";
import {
  becomeUser,
  clearAmbientCapabilities,
  dropBoundingCapability,
  execute,
  forbidNewPrivileges,
  keepCapabilities,
  raiseAmbientCapability,
  resetSignals,
  setDescriptorLimit,
  setResourceLimit,
} from "../../ffi/process.ts";
import { errnoName, SystemCallError } from "../../ffi/system-call-error.ts";
import { ExitCode } from "../units/exit-code.ts";
import { capabilityNumbers, limitNumbers } from "../units/linux-names.ts";
import { type LaunchFailure, type LaunchPlan, launchPlanSchema } from "./launch-plan.ts";
import { explainRefusal } from "./perform/refused-start.ts";

/**
 * Sets what must be so before a program's first instruction, then becomes the program. Runs as
 * the child, between the spawn and the exec; a failure goes back on a descriptor that a
 * successful exec closes.
 */

class LaunchError extends Error {
  readonly stage: string;
  readonly code: string | undefined;

  constructor(
    message: string,
    options: ErrorOptions & { readonly stage: string; readonly code: string | undefined },
  ) {
    super(message, options);
    this.stage = options.stage;
    this.code = options.code;
  }
}

/** Runs a stage; what goes wrong in it carries the stage's name. */
function during(stage: string, call: () => void): void {
  try {
    call();
  } catch (error) {
    const code = error instanceof SystemCallError ? error.code : (error as { code?: string }).code;
    const message = error instanceof Error ? error.message : String(error);
    throw new LaunchError(message, { cause: error, stage, code });
  }
}

interface Account {
  readonly name: string;
  readonly user: number;
  readonly group: number;
  readonly home: string;
}

function databaseLines(path: string): string[][] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"))
      .map((line) => line.split(":"));
  } catch {
    return [];
  }
}

/** An account of /etc/passwd, by name or number: passwd(5). Other name services are not asked. */
function findAccount(user: string | number): Account | undefined {
  const fields = databaseLines("/etc/passwd").find(
    (line) => line[0] === user || line[2] === String(user),
  );
  if (fields === undefined) return undefined;
  return {
    name: fields[0] ?? "",
    user: Number(fields[2]),
    group: Number(fields[3]),
    home: fields[5] ?? "/",
  };
}

/** A group's number by name or number: group(5). */
function findGroup(group: string | number): number {
  if (typeof group === "number" || /^\d+$/.test(group)) return Number(group);
  const fields = databaseLines("/etc/group").find((line) => line[0] === group);
  if (fields === undefined) {
    throw new Error(`Expected a group of /etc/group, received ${group}: no such group here`);
  }
  return Number(fields[2]);
}

/** The groups of /etc/group that list this user. */
function groupsOf(name: string): number[] {
  return databaseLines("/etc/group")
    .filter((line) => (line[3] ?? "").split(",").includes(name))
    .map((line) => Number(line[2]));
}

/** Who the child will be; undefined when neither user nor group is asked for. */
function chooseIdentity(constraints: LaunchPlan["constraints"]) {
  const { user, group, groups } = constraints;
  if (user === undefined && group === undefined && groups === undefined) return undefined;
  const asked = user ?? process.geteuid?.() ?? 0;
  const account = findAccount(asked);
  const number = account?.user ?? (/^\d+$/.test(String(asked)) ? Number(asked) : undefined);
  if (number === undefined) {
    throw new Error(`Expected a user of /etc/passwd, received ${asked}: no such user here`);
  }
  const primary = group === undefined ? account?.group : findGroup(group);
  if (primary === undefined) {
    throw new Error(`User ${asked} has no entry in /etc/passwd: say its group as well`);
  }
  const supplementary =
    groups?.map(findGroup) ?? (account === undefined ? [] : groupsOf(account.name));
  return { account, user: number, group: primary, groups: supplementary };
}

function applyLimits(plan: LaunchPlan): void {
  const { soft, hard } = plan.open_files;
  setDescriptorLimit({ soft, hard });
  for (const [name, limit] of Object.entries(plan.constraints.limits ?? {})) {
    const number = limitNumbers[name];
    if (number === undefined) {
      const known = Object.keys(limitNumbers).join(", ");
      throw new Error(`Expected a limit among ${known}; received ${name}`);
    }
    setResourceLimit(number, {
      soft: limit.soft ?? Number.POSITIVE_INFINITY,
      hard: limit.hard ?? Number.POSITIVE_INFINITY,
    });
  }
}

function capabilityNumber(name: string): number {
  const number = capabilityNumbers[name.toUpperCase()];
  if (number === undefined) {
    throw new Error(`Expected a capability such as CAP_NET_BIND_SERVICE, received ${name}`);
  }
  return number;
}

/** Takes all other capabilities out of the bounding set; before the user changes. */
function boundCapabilities(kept: readonly number[]): void {
  const last = Number(readFileSync("/proc/sys/kernel/cap_last_cap", "latin1"));
  clearAmbientCapabilities();
  for (let capability = 0; capability <= last; capability++) {
    if (!kept.includes(capability)) dropBoundingCapability(capability);
  }
  keepCapabilities();
}

/** Gives the kept capabilities to the program, also when it is not root's: the ambient set. */
function grantCapabilities(kept: readonly number[]): void {
  const mask = kept.reduce((bits, capability) => bits | (1n << BigInt(capability)), 0n);
  setCapabilities({ effective: mask, permitted: mask, inheritable: mask });
  for (const capability of kept) raiseAmbientCapability(capability);
}

function prepare(plan: LaunchPlan): string[] {
  const { constraints } = plan;
  if (plan.cgroup !== undefined) {
    const processes = `${plan.cgroup}/cgroup.procs`;
    during("cgroup", () => writeFileSync(processes, "0"));
  }
  during("limits", () => applyLimits(plan));
  const kept = constraints.capabilities?.map((name) => {
    let number = 0;
    during("capabilities", () => {
      number = capabilityNumber(name);
    });
    return number;
  });
  if (kept !== undefined) during("capabilities", () => boundCapabilities(kept));
  const variables: string[] = [];
  during("user", () => {
    const identity = chooseIdentity(constraints);
    if (identity === undefined) return;
    becomeUser(identity);
    const { account } = identity;
    if (account === undefined) return;
    variables.push(`HOME=${account.home}`, `USER=${account.name}`, `LOGNAME=${account.name}`);
  });
  if (kept !== undefined) during("capabilities", () => grantCapabilities(kept));
  if (constraints.no_new_privileges === true) during("no_new_privileges", forbidNewPrivileges);
  return variables;
}

function run(plan: LaunchPlan, program: string, words: readonly string[]): void {
  const added = prepare(plan);
  if (plan.listen === true) added.push(`LISTEN_PID=${process.pid}`);
  const argv = words.slice(0, plan.arguments);
  const given = words.slice(plan.arguments);
  const named = new Set(given.map((variable) => variable.slice(0, variable.indexOf("="))));
  const extra = added.filter((variable) => !named.has(variable.slice(0, variable.indexOf("="))));
  resetSignals();
  // The report closes with a successful exec, and whatever Bun has opened.
  closeOnExecFrom(3);
  for (const descriptor of plan.descriptors) keepOnExec(descriptor);
  const errno = execute(program, argv, [...given, ...extra]);
  const message = explainRefusal({ program: argv[0] ?? program, path: program }, errno);
  throw new LaunchError(message, { stage: "exec", code: errnoName(errno) });
}

/** The launcher's whole life. Returns only when it failed, with its exit code. */
export function runLauncher(): number {
  const [text, program, ...words] = process.argv.slice(3);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text ?? "");
  } catch {
    parsed = undefined;
  }
  const result = v.safeParse(launchPlanSchema, parsed);
  if (!result.success || program === undefined || words.length === 0) {
    writeSync(2, "hostler --launch is for hostler's own use: it expects a plan, a program, argv\n");
    return ExitCode.usage;
  }
  const plan = result.output;
  setCloseOnExec(plan.report);
  try {
    run(plan, program, words);
  } catch (error) {
    const failure: LaunchFailure = {
      stage: error instanceof LaunchError ? error.stage : "launch",
      message: error instanceof Error ? error.message : String(error),
    };
    if (error instanceof LaunchError && error.code !== undefined) failure.code = error.code;
    writeSync(plan.report, JSON.stringify(failure));
  }
  return ExitCode.refused;
}
