import { readFileSync, readlinkSync } from "node:fs";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { isThere } from "../../ffi/pidfd.ts";
import { makeSocketPair, peerCredentials, peerLabel, peerProcess } from "../../ffi/unix-socket.ts";

/** Who is at the other end of a connection, as the kernel says. */
export interface Peer {
  /** In our PID namespace; 0 when the peer is outside of it. */
  readonly processId: number;
  readonly user: number;
  readonly group: number;
  /** Its security label, such as an SELinux context. */
  readonly label: string | undefined;
  /** Its PID namespace, such as "pid:[4026531836]"; undefined when it cannot be seen. */
  readonly processNamespace: string | undefined;
  /** Its cgroup v2 path as we see it; undefined when it cannot be seen. */
  readonly cgroup: string | undefined;
}

/** Does this kernel tell the label of a peer at all? Without a module that does, none is right. */
export function givesLabels(): boolean {
  const [one, other] = makeSocketPair();
  const label = peerLabel(one);
  one.close();
  other.close();
  return label !== undefined;
}

/** What a label that is asked for comes to where `givesLabels` says no. */
export const withoutLabels =
  "this kernel tells no security label of a peer (SO_PEERSEC), so that every one is refused: " +
  "leave the label out, or boot with a security module that labels sockets, such as SELinux";

/** Who may speak. Ids first; each further condition that is set must hold as well. */
export interface PeerPolicy {
  readonly users: readonly number[];
  readonly groups: readonly number[];
  /** When there are any, the peer's label must be one of them. */
  readonly labels: readonly string[];
  /** When there are any, the peer's cgroup must be one of them or below one. */
  readonly cgroups: readonly string[];
  /** The peer must not be in our own PID namespace. */
  readonly otherProcessNamespace: boolean;
}

/** A policy of ids alone. */
export function allowUsers(users: readonly number[]): PeerPolicy {
  return { users, groups: [], labels: [], cgroups: [], otherProcessNamespace: false };
}

/** Whether a policy lets in somebody to whom a socket of ours, 0600, would be closed. */
export function letsOthersIn({ users, groups }: PeerPolicy): boolean {
  const own = process.geteuid?.() ?? 0;
  return groups.length > 0 || users.some((user) => user !== own && user !== 0);
}

/** The PID namespace of a process, as /proc/PID/ns/pid names it; undefined when it is gone. */
export function processNamespaceOf(processId: number | "self"): string | undefined {
  try {
    return readlinkSync(`/proc/${processId}/ns/pid`);
  } catch {
    return undefined;
  }
}

/** The cgroup v2 path of a process: cgroups(7). */
function cgroupOf(processId: number): string | undefined {
  try {
    const lines = readFileSync(`/proc/${processId}/cgroup`, "utf8").split("\n");
    return lines.find((line) => line.startsWith("0::"))?.slice("0::".length);
  } catch {
    return undefined;
  }
}

/** Reads who the peer of a connected Unix socket is. */
export function identifyPeer(socket: OwnedDescriptor): Peer {
  const credentials = peerCredentials(socket);
  const { processId } = credentials;
  const label = peerLabel(socket);
  const hidden = { ...credentials, label, processNamespace: undefined, cgroup: undefined };
  if (processId <= 0) return hidden;
  const processNamespace = processNamespaceOf(processId);
  const cgroup = cgroupOf(processId);
  // The number may have become another process's; a peer that still lives proves that it did not.
  using process = peerProcess(socket);
  if (process !== undefined && !isThere(process)) return hidden;
  return { ...credentials, label, processNamespace, cgroup };
}

function isBelow(cgroup: string, allowed: string): boolean {
  return cgroup === allowed || cgroup.startsWith(allowed.endsWith("/") ? allowed : `${allowed}/`);
}

/** In our PID namespace a peer has a number; one that is outside of it has none. */
function isInOtherNamespace(peer: Peer): boolean {
  if (peer.processId === 0) return true;
  const { processNamespace } = peer;
  return processNamespace !== undefined && processNamespace !== processNamespaceOf("self");
}

/** Why a peer may not speak; undefined when it may. */
export function refusePeer(
  peer: Peer,
  policy: PeerPolicy,
): { readonly expected: string; readonly received: string } | undefined {
  const { users, groups, labels, cgroups, otherProcessNamespace } = policy;
  if (!users.includes(peer.user) && !groups.includes(peer.group)) {
    const group = groups.length === 0 ? "" : ` or group ${groups.join(", ")}`;
    const expected = `user ${users.join(", ") || "(none)"}${group}`;
    return { expected, received: `user ${peer.user}, group ${peer.group}` };
  }
  if (labels.length > 0 && (peer.label === undefined || !labels.includes(peer.label))) {
    const expected = `the label ${labels.join(" or ")}`;
    return { expected, received: peer.label ?? "a peer without a label" };
  }
  const { cgroup } = peer;
  if (cgroups.length > 0 && !cgroups.some((allowed) => cgroup && isBelow(cgroup, allowed))) {
    const expected = `a peer in the cgroup ${cgroups.join(" or ")}`;
    return { expected, received: cgroup ?? "one whose cgroup cannot be seen" };
  }
  if (otherProcessNamespace && !isInOtherNamespace(peer)) {
    const expected = "a peer in another PID namespace than ours";
    return { expected, received: `process ${peer.processId} in ours` };
  }
  return undefined;
}
