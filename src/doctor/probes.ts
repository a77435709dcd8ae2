/** Looks at this host and tries what it can do. Nothing is changed that is not changed back. */
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
} from "node:fs";
import { release } from "node:os";
import { dirname, join } from "node:path";
import { cgroupPathOf } from "../event-loop/own-cgroup.ts";
import { defaultAgentSocket, defaultControlSocket } from "../process/protocol.ts";
import {
  type CallFeature,
  type CgroupFindings,
  callFeatures,
  type Findings,
  type LimitFindings,
  type OwnStatus,
  type SecurityFindings,
  type SocketFolder,
  type Trial,
} from "./findings.ts";

/** Probes the host that this process runs on; an absent file or feature is a finding, no error. */
export async function probeHost(): Promise<Findings> {
  const calls = await probeCalls();
  return {
    kernelRelease: release(),
    ownStatus: probeOwnStatus(),
    ...calls,
    cgroup: probeCgroup(),
    namespaces: probeNamespaces(),
    security: probeSecurity(),
    limits: probeLimits(),
    socketFolders: [
      probeSocketFolder("orchestrator", dirname(defaultControlSocket)),
      probeSocketFolder("agent", dirname(defaultAgentSocket)),
    ],
    bunVariables: ["BUN_BE_BUN", "BUN_OPTIONS"].filter((name) => process.env[name] !== undefined),
  };
}

/** A folder that is not there yet is made when it is needed: then the one above it decides. */
function probeSocketFolder(user: string, path: string): SocketFolder {
  const found = existsSync(path) ? path : dirname(path);
  try {
    accessSync(found, constants.W_OK | constants.X_OK);
    return { user, path, refusal: undefined };
  } catch (error) {
    return { user, path, refusal: codeOf(error) };
  }
}

/** ffi/ is imported here and not above: where memory may not be executable, that throws. */
async function probeCalls(): Promise<Pick<Findings, "library" | "callRefusal" | "calls">> {
  try {
    const { cLibrary } = await import("../../ffi/c-library.ts");
    const { tryCalls } = await import("./call-probes.ts");
    return { library: cLibrary, callRefusal: undefined, calls: tryCalls() };
  } catch (error) {
    const untried: Trial = { outcome: "untried", detail: "libc cannot be called" };
    const calls = Object.fromEntries(callFeatures.map((feature) => [feature, untried]));
    return {
      library: undefined,
      callRefusal: reasonOf(error),
      calls: calls as Record<CallFeature, Trial>,
    };
  }
}

function reasonOf(error: unknown): string {
  const reason = error instanceof AggregateError ? error.errors[0] : error;
  return reason instanceof Error ? reason.message : String(reason);
}

/** The text of a file; undefined when it is not there or not ours to read. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").replaceAll("\0", "").trim();
  } catch {
    return undefined;
  }
}

export function readNumber(path: string): number | undefined {
  const text = readText(path);
  return text === undefined ? undefined : Number(text);
}

export function probeOwnStatus(): OwnStatus | undefined {
  const status = readText("/proc/self/status");
  if (status === undefined) return undefined;
  const user = /^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1];
  const effective = /^CapEff:\s+([0-9a-f]+)/m.exec(status)?.[1];
  return { user: Number(user), effectiveCapabilities: BigInt(`0x${effective ?? "0"}`) };
}

/** Of this process; a child cgroup is made, and removed. */
export function probeCgroup(): CgroupFindings {
  const mounts = (readText("/proc/self/mountinfo") ?? "").split("\n").map(parseMount);
  const mount = mounts.find(({ type }) => type === "cgroup2")?.place;
  const path = cgroupPathOf("self");
  // Without the slash that the root cgroup's path ends with.
  const expected = mount && path && join(mount, path).replace(/\/$/, "");
  const folder = expected && existsSync(expected) ? expected : undefined;
  const controllers = folder && readText(join(folder, "cgroup.controllers"));
  return {
    mount,
    isHybrid: mounts.some(({ type }) => type === "cgroup"),
    folder,
    controllers: controllers ? controllers.split(" ") : [],
    kill: folder === undefined ? { outcome: "untried", detail: "no cgroup v2" } : tryKill(folder),
  };
}

/** proc_pid_mountinfo(5): the fifth field is the place, and the type follows the "-". */
function parseMount(line: string): { place: string | undefined; type: string | undefined } {
  const [before = "", after = ""] = line.split(" - ");
  return { place: before.split(" ")[4], type: after.split(" ")[0] };
}

/** The root cgroup has no cgroup.kill, so that a child of ours is made to see it. */
function tryKill(folder: string): Trial {
  const child = join(folder, `hostler-doctor-${process.pid}`);
  try {
    mkdirSync(child);
  } catch (error) {
    return { outcome: "untried", detail: `cannot make a child cgroup: ${codeOf(error)}` };
  }
  try {
    const exists = existsSync(join(child, "cgroup.kill"));
    return exists
      ? { outcome: "works", detail: "in a child cgroup that was made" }
      : { outcome: "absent", detail: "no cgroup.kill in a child cgroup that was made" };
  } finally {
    rmdirSync(child);
  }
}

/** The name of an error number, such as "EACCES". */
export function codeOf(error: unknown): string {
  return (error as { code?: string }).code ?? String(error);
}

function probeNamespaces(): Record<string, number> {
  const namespaces: Record<string, number> = {};
  for (const name of listFolder("/proc/self/ns")) {
    if (name.endsWith("_for_children")) continue;
    // A kernel without user namespaces has no such setting, and no limit either.
    const limit = readNumber(`/proc/sys/user/max_${name}_namespaces`);
    namespaces[name] = limit ?? Number.POSITIVE_INFINITY;
  }
  return namespaces;
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path).toSorted();
  } catch {
    return [];
  }
}

function probeSecurity(): SecurityFindings {
  const modules = readText("/sys/kernel/security/lsm");
  const enforce = readText("/sys/fs/selinux/enforce");
  const states = { "1": "enforcing", "0": "permissive" } as const;
  const label = readText("/proc/self/attr/current");
  return {
    modules: modules?.split(","),
    selinux: enforce === "1" || enforce === "0" ? states[enforce] : "absent",
    label: label === "" ? undefined : label,
  };
}

function probeLimits(): LimitFindings {
  const line = /^Max open files\s+\S+\s+(\S+)/m.exec(readText("/proc/self/limits") ?? "")?.[1];
  const hard = line === "unlimited" ? Number.POSITIVE_INFINITY : Number(line);
  return {
    descriptors: line === undefined ? undefined : hard,
    processNumbers: readNumber("/proc/sys/kernel/pid_max"),
    threads: readNumber("/proc/sys/kernel/threads-max"),
    datagrams: readNumber("/proc/sys/net/unix/max_dgram_qlen"),
  };
}
