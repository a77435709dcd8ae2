import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { readWorkerConfiguration } from "../../vm/worker-configuration.ts";
import {
  type FoundRole,
  type RoleWords,
  readRole,
  roleKey,
  unitOfCgroup,
} from "../lifecycle-roles.ts";
import type { Build } from "../protocol.ts";
import { programOf, readLayout } from "./layout-files.ts";
import { statOf, whereItIsThere } from "./process-files.ts";
import { identityOf } from "./running-programs.ts";

/** __SO_ACCEPTCON in /proc/net/unix: it listens. include/uapi/linux/net.h. */
const LISTENS = 0x10000;

interface Seen extends FoundRole {
  readonly parent: number;
}

/**
 * The daemons of hostler on this host, as the kernel tells them: proc_pid_exe(5),
 * proc_pid_cmdline(5), proc_pid_cgroup(5), and where they listen. Those of another PID namespace
 * are another host's. One that does not listen yet is silent; who listens is still to be asked.
 * @param folder of the installation
 */
export function findRoles(folder: string): FoundRole[] {
  const builds = buildsOf(folder);
  const own = readlinkSync("/proc/self/ns/pid");
  const found = new Map<number, Seen>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const one = whereItIsThere(() => lookAt(Number(name), own, builds));
    if (one !== undefined) found.set(one.process, one);
  }
  // A child that was made, and has not become another program yet, looks like its parent.
  const roles = [...found.values()].filter(({ kind, parent }) => found.get(parent)?.kind !== kind);
  const byKey = new Map(roles.map((one) => [roleKey(one), one]));
  return [...byKey.values()].map(({ parent: _parent, ...role }) => role);
}

/** Stored programs by device and inode. */
function buildsOf(folder: string): ReadonlyMap<string, Build> {
  const { versions } = readLayout(folder);
  return new Map(
    versions.flatMap(({ name, build }) => {
      const file = identityOf(programOf(folder, name));
      return build === undefined || file === "none" ? [] : [[file, build] as const];
    }),
  );
}

function lookAt(
  process: number,
  ownNamespace: string,
  builds: ReadonlyMap<string, Build>,
): Seen | undefined {
  const at = `/proc/${process}`;
  const read = readRole(readFileSync(join(at, "cmdline"), "utf8").split("\0").slice(0, -1));
  if (read === undefined || readlinkSync(join(at, "ns/pid")) !== ownNamespace) return undefined;
  const program = readlinkSync(join(at, "exe"));
  const build = builds.get(identityOf(join(at, "exe"))) ?? null;
  if (build === null && !basename(program).startsWith("hostler")) return undefined;
  const socket = socketOf(read, at);
  const isListening = socket === null || listeningAt(at).includes(socket);
  return {
    ...{ kind: read.kind, process, program, build },
    parent: Number(statOf(process)[1]),
    unit: unitOfCgroup(readFileSync(join(at, "cgroup"), "utf8")),
    socket,
    silence: isListening ? null : `process ${process} does not listen at ${socket}`,
  };
}

const isAbstract = (path: string) => path.startsWith("@");

/** A worker of virtual machines names it in its file, which is read as it stands now. */
function socketOf({ socket, configuration }: RoleWords, at: string): string | null {
  if (socket === null) return null;
  const folder = readlinkSync(join(at, "cwd"));
  const read =
    configuration === undefined
      ? undefined
      : readWorkerConfiguration(resolve(folder, configuration));
  const said = read?.kind === "ok" ? read.configuration.controlSocket : socket;
  return isAbstract(said) ? said : resolve(folder, said);
}

/** The Unix sockets that a process listens at, by their paths. */
function listeningAt(at: string): string[] {
  const own = new Set(
    readdirSync(join(at, "fd")).map(
      (name) => whereItIsThere(() => readlinkSync(join(at, "fd", name))) ?? "",
    ),
  );
  const lines = readFileSync(join(at, "net/unix"), "utf8").split("\n").slice(1);
  return lines.flatMap((line) => {
    const [, , , flags = "0", , , inode = "", path = ""] = line.trim().split(/\s+/);
    const isListening = (Number.parseInt(flags, 16) & LISTENS) !== 0;
    return isListening && path !== "" && own.has(`socket:[${inode}]`) ? [path] : [];
  });
}
