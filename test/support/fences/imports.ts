/**
 * Who may import whom: main → command.ts → the system → the rooms below it → ffi → bun:ffi.
 * The way a violation is mended is to go through the room that owns the matter; where a file has
 * a good reason, it stands in `exceptions` with that reason.
 */
import { dirname, join } from "node:path";
import { lineAt, type SourceFile, type Violation } from "./source.ts";

const systems = ["process", "live-update", "install", "authority", "vm", "fleet", "vetting"];

/** A room imports rooms of a lower number, and itself. */
const roomHeights: Readonly<Record<string, number>> = {
  units: 0,
  logging: 1,
  toml: 2,
  journal: 2,
  "event-loop": 2,
  messaging: 3,
  http: 3,
  store: 4,
  audit: 4,
  holding: 4,
  network: 4,
  hypervisor: 4,
  image: 4,
  hardware: 5,
  identity: 5,
  "network-boot": 5,
  artifact: 6,
};

/** Beside perform.ts and perform/ of each system, the rooms that may call libc. */
const roomsWithFfi = [
  "holding",
  "messaging",
  "event-loop",
  "network",
  "hypervisor",
  "hardware",
  "network-boot",
  "doctor",
];

export interface ImportException {
  readonly from: string;
  /** A path, or the beginning of one when it ends with a slash. */
  readonly to: string;
  readonly reason: string;
}

/** Owners of a room add to it; an exception that nothing needs any more fails the test. */
export const exceptions: readonly ImportException[] = [
  {
    from: "src/main.ts",
    to: "src/process/launcher.ts",
    reason: "the launcher stands in the path of a start: nothing else may be loaded before it",
  },
  {
    from: "src/main.ts",
    to: "src/process/dry-run.ts",
    reason: "it tries what the command line would run, before there is one",
  },
  {
    from: "src/process/launcher.ts",
    to: "ffi/",
    reason: "it decides nothing: it is one effect, performed in a process of its own",
  },
  {
    from: "src/main.ts",
    to: "src/vm/confiner.ts",
    reason: "it stands in the path of every start of a VMM, as the launcher does",
  },
  ...["task-child.ts", "tasks/index.ts"].map((to) => ({
    from: "src/main.ts",
    to: `src/vetting/perform/${to}`,
    reason: "a child that tests hardware is one effect: no command line is loaded for it",
  })),
  {
    from: "src/vm/confiner.ts",
    to: "ffi/",
    reason: "it decides nothing: it is one effect, performed in a process of its own",
  },
  {
    from: "src/vm/confiner-ahead.ts",
    to: "ffi/",
    reason: "a part of the confiner: how it waits for its plan",
  },
  {
    from: "src/doctor/vm-findings.ts",
    to: "src/vm/worker-configuration.ts",
    reason: "a type alone: the doctor looks at what this worker is going to use",
  },
  {
    from: "src/doctor/vm-probes.ts",
    to: "src/vm/worker-configuration.ts",
    reason: "where the worker looks for firmware when its configuration names none",
  },
  {
    from: "src/doctor/vm-findings.ts",
    to: "src/vm/cgroup-place.ts",
    reason: "a type alone: where the machines of the worker that runs have their cgroups",
  },
  {
    from: "src/doctor/vm-probes.ts",
    to: "src/vm/cgroup-place.ts",
    reason: "where those are, as the worker itself finds it",
  },
  {
    from: "src/doctor/vm-judgement.ts",
    to: "src/vm/cgroup-place.ts",
    reason: "the name of the subgroup, as our unit has it",
  },
  {
    from: "src/doctor/doctor.ts",
    to: "src/vm/worker-configuration.ts",
    reason: "a type alone: it hands on what the command read",
  },
  {
    from: "src/doctor/command.ts",
    to: "src/vm/worker-configuration.ts",
    reason: "--config is the worker's own file, read and refused as the worker does",
  },
  ...["doctor.ts", "fleet-judgement.ts"].map((from) => ({
    from: `src/doctor/${from}`,
    to: "src/fleet/perform/examination.ts",
    reason: "what a device and its operator are is known by their room; the doctor judges it",
  })),
  {
    from: "src/doctor/command.ts",
    to: "src/fleet/layout.ts",
    reason: "where an installation lies when nobody says otherwise",
  },
  {
    from: "src/vm/master/daemon.ts",
    to: "src/authority/daemon.ts",
    reason: "a master is an authority, with routes of its own",
  },
  {
    from: "src/vm/master/daemon.ts",
    to: "src/authority/options.ts",
    reason: "what an authority keeps, beside which the master keeps its own",
  },
  {
    from: "src/vm/master/daemon.ts",
    to: "src/authority/addition.ts",
    reason: "types alone: what an authority takes from another system",
  },
  {
    from: "src/vm/master/shared-master.ts",
    to: "src/authority/addition.ts",
    reason: "types alone: what an authority takes from another system",
  },
  {
    from: "src/vm/commands/master.ts",
    to: "src/authority/commands/daemon.ts",
    reason: "a master is told what an authority is told, and refuses it in the same words",
  },
  {
    from: "src/vm/commands/master-commands.ts",
    to: "src/authority/flags.ts",
    reason: "whoever asks a master says where it is as for any authority",
  },
  {
    from: "src/vm/commands/cluster.ts",
    to: "src/authority/commands/client-flags.ts",
    reason: "the same flags, read and refused as the authority's own commands do",
  },
  {
    from: "src/http/problem.ts",
    to: "src/messaging/describe-issues.ts",
    reason: "a wrong request is refused in the same words, whatever socket it came by",
  },
  {
    from: "src/http/problem.ts",
    to: "src/messaging/control-server.ts",
    reason: "a type alone: one refusal is told over HTTPS and over the control socket",
  },
  {
    from: "src/audit/segment-writer.ts",
    to: "ffi/",
    reason: "the one file of the room that writes: its lock is flock, and it has kill points",
  },
  {
    from: "src/store/store-folder.ts",
    to: "ffi/flock.ts",
    reason: "a store's folder has one user at a time, and the kernel takes the lock back",
  },
  {
    from: "src/store/kill-points.ts",
    to: "ffi/fault-hooks.ts",
    reason: "the store's steps are killed between in tests; the ordinary build has none of it",
  },
  {
    from: "src/image/kill-points.ts",
    to: "ffi/fault-hooks.ts",
    reason: "the store's steps are killed between in tests; the ordinary build has none of it",
  },
  {
    from: "src/artifact/kill-points.ts",
    to: "ffi/fault-hooks.ts",
    reason: "the steps of a fetch are killed between in tests; the ordinary build has none of it",
  },
  {
    from: "src/vm/perform/master-link.ts",
    to: "src/authority/host-side.ts",
    reason: "a worker speaks to its master as its host, by the same pinned caller",
  },
  ...["daemon.ts", "options.ts", "addition.ts"].map((to) => ({
    from: "src/fleet/operator/daemon.ts",
    to: `src/authority/${to}`,
    reason: "a fleet's operator is an authority, with routes and buckets of its own",
  })),
  ...["daemon.ts", "options.ts", "addition.ts"].map((to) => ({
    from: "src/vetting/orchestrator/daemon.ts",
    to: `src/authority/${to}`,
    reason: "an orchestrator is an authority for its operators, with hosts and runs of its own",
  })),
  {
    from: "src/vetting/commands/orchestrator.ts",
    to: "src/authority/commands/daemon.ts",
    reason: "an orchestrator is told what an authority is told, and refuses it in the same words",
  },
  ...["orchestrator-commands.ts", "ask-flags.ts"].map((from) => ({
    from: `src/vetting/commands/${from}`,
    to: "src/authority/flags.ts",
    reason: "whoever asks an orchestrator says where it is as for any authority",
  })),
  {
    from: "src/vetting/commands/ask.ts",
    to: "src/authority/commands/client-flags.ts",
    reason: "the same flags, read and refused as the authority's own commands do",
  },
  {
    from: "src/fleet/operator/shared-operator.ts",
    to: "src/authority/addition.ts",
    reason: "types alone: what an authority takes from another system",
  },
  {
    from: "src/fleet/perform/find-roles.ts",
    to: "src/vm/worker-configuration.ts",
    reason: "a worker's control socket stands in its own file, read as the worker does",
  },
  ...["host-side.ts", "host-store.ts"].map((to) => ({
    from: "src/fleet/perform/device-session.ts",
    to: `src/authority/${to}`,
    reason: "a device speaks to its operator as its host, by the same pinned caller and sessions",
  })),
  {
    from: "src/fleet/commands/operator.ts",
    to: "src/authority/commands/daemon.ts",
    reason: "an operator is told what an authority is told, and refuses it in the same words",
  },
  {
    from: "src/fleet/commands/operator-commands.ts",
    to: "src/authority/flags.ts",
    reason: "whoever asks an operator says where it is as for any authority",
  },
  ...["fleet.ts", "watch.ts"].map((from) => ({
    from: `src/fleet/commands/${from}`,
    to: "src/authority/commands/client-flags.ts",
    reason: "the same flags, read and refused as the authority's own commands do",
  })),
  {
    from: "src/fleet/commands/enroll.ts",
    to: "src/authority/commands/enrol.ts",
    reason: "a device is enrolled as any host is, by the same code",
  },
  {
    from: "src/image/copy.ts",
    to: "ffi/file-clone.ts",
    reason: "one call that shares the bytes of a file with its copy, which node:fs makes by path",
  },
  ...["process", "live-update", "authority", "vm", "fleet", "vetting", "install"].map((system) => ({
    from: "src/doctor/self-test-roles.ts",
    to: `src/${system}/`,
    reason: "--self-test loads what every role loads, and calls none of it",
  })),
  ...[
    "src/process/configuration.ts",
    "src/vm/master/configuration.ts",
    "src/vm/worker-configuration.ts",
    "src/fleet/operator/configuration.ts",
    "src/fleet/lifecycle-journal.ts",
  ].map((to) => ({
    from: "src/doctor/self-test-host.ts",
    to,
    reason: "--self-test reads a role's configuration, and its journal, as the role does",
  })),
  ...["install.ts", "uninstall.ts"].map((from) => ({
    from: `src/fleet/perform/${from}`,
    to: "src/install/unit-text.ts",
    reason: "a unit is sealed in one way, whoever writes it: the other one knows it as ours",
  })),
  ...["perform/install.ts", "commands/install.ts"].map((from) => ({
    from: `src/fleet/${from}`,
    to: "src/install/perform/rooted-path.ts",
    reason: "links of an image lead into the image, whoever installs there",
  })),
];

export interface Import {
  readonly from: string;
  /** A path from the repository's root, or a package's name. */
  readonly to: string;
  readonly line: number;
}

/** Static, dynamic, type-only and re-exporting imports. */
export function importsOf(file: SourceFile): Import[] {
  const specifiers = new Set(
    new Bun.Transpiler({ loader: "ts" }).scanImports(file.text).map((found) => found.path),
  );
  // The transpiler drops what has only types; a fence is about those as well.
  const typeOnly = /\bfrom\s+"([^"]+)"|\bimport\("([^"]+)"\)/g;
  for (const [, fromWord, call] of file.text.matchAll(typeOnly)) {
    const specifier = fromWord ?? call;
    if (specifier !== undefined) specifiers.add(specifier);
  }
  return [...specifiers].map((specifier) => ({
    from: file.path,
    to: specifier.startsWith(".") ? join(dirname(file.path), specifier) : specifier,
    line: lineAt(file.text, Math.max(0, file.text.indexOf(`"${specifier}"`))),
  }));
}

/** @returns the imports that no fence lets through, exceptions not yet taken off */
export function checkImports(file: SourceFile): (Violation & Import)[] {
  if (!/^(src|ffi)\/.*\.ts$/.test(file.path)) return [];
  return importsOf(file).flatMap((found) => {
    const refusal = refuse(found.from, found.to);
    if (refusal === undefined) return [];
    return [{ ...found, path: found.from, message: `imports ${found.to}: ${refusal}` }];
  });
}

export function isExcepted(found: Import, list: readonly ImportException[]): boolean {
  return list.some((exception) => covers(exception, found));
}

export function covers(exception: ImportException, found: Import): boolean {
  if (exception.from !== found.from) return false;
  return exception.to.endsWith("/") ? found.to.startsWith(exception.to) : found.to === exception.to;
}

/** @returns why not, or undefined when the import is fine */
function refuse(from: string, to: string): string | undefined {
  if (to === "bun:ffi") return from.startsWith("ffi/") ? undefined : "only ffi/ knows bun:ffi";
  if (to.startsWith("test/") || to.startsWith("scripts/")) return "the product needs no tool";
  if (from.startsWith("ffi/")) return refuseFromFfi(to);
  if (to.startsWith("ffi/")) return refuseFfi(from);
  if (!to.startsWith("src/")) return undefined;
  if (to === "src/main.ts") return "nothing imports the entry";
  return refuseRoom(from, to);
}

function refuseFromFfi(to: string): string | undefined {
  if (to.startsWith("ffi/") || to.startsWith("src/units/")) return undefined;
  // It has the names of the errno numbers.
  if (to === "node:os") return undefined;
  return "ffi/ knows libc, node:os, ffi/ and units alone";
}

function refuseFfi(from: string): string | undefined {
  const room = roomOf(from);
  if (roomsWithFfi.includes(room)) return undefined;
  if (systems.includes(room) && /^src\/[^/]+\/perform(\.ts|\/)/.test(from)) return undefined;
  return "only perform.ts, perform/, holding, messaging, event-loop and doctor call libc";
}

function refuseRoom(from: string, to: string): string | undefined {
  const fromRoom = roomOf(from);
  const toRoom = roomOf(to);
  if (fromRoom === toRoom) return undefined;
  const isToSystem = systems.includes(toRoom);
  if (fromRoom === "main.ts") return refuseFromMain(to, isToSystem);
  if (fromRoom === "command-line" || fromRoom === "doctor") {
    return isToSystem && !isPublicFace(to) ? "of a system, only its public face" : undefined;
  }
  if (systems.includes(fromRoom)) return refuseFromSystem(from, to, isToSystem);
  const fromHeight = roomHeights[fromRoom];
  const toHeight = roomHeights[toRoom];
  if (fromHeight === undefined) return `src/${fromRoom} is a room that the fences do not know`;
  if (toHeight !== undefined && toHeight < fromHeight) return undefined;
  return `${fromRoom} stands below ${toRoom}`;
}

function refuseFromMain(to: string, isToSystem: boolean): string | undefined {
  return isToSystem && !isCommand(to) ? "main.ts knows a system by its command.ts" : undefined;
}

function refuseFromSystem(from: string, to: string, isToSystem: boolean): string | undefined {
  if (isToSystem) {
    return /\/(protocol|client)\.ts$/.test(to)
      ? undefined
      : "of another system, only protocol.ts and client.ts";
  }
  const toRoom = roomOf(to);
  if (roomHeights[toRoom] !== undefined) return undefined;
  if (toRoom === "command-line" && isCommand(from)) return undefined;
  return toRoom === "command-line"
    ? "only command.ts and commands/ know the command line"
    : `a system does not know ${toRoom}`;
}

/** command.ts, or commands/ when it grows. */
function isCommand(path: string): boolean {
  return /^src\/[^/]+\/(command\.ts|commands\/)/.test(path);
}

function isPublicFace(path: string): boolean {
  return isCommand(path) || /^src\/[^/]+\/(protocol|client)\.ts$/.test(path);
}

/** @returns "process" for src/process/agent.ts, "main.ts" for src/main.ts */
function roomOf(path: string): string {
  return path.split("/")[1] ?? "";
}
