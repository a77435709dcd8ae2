import { readlinkSync } from "node:fs";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { peerCredentials, peerLabel } from "../../ffi/unix-socket.ts";

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
}

/** Who may speak. */
export interface PeerPolicy {
  readonly users: readonly number[];
  readonly groups: readonly number[];
  /** When there are any, the peer's label must be one of them, whatever its ids are. */
  readonly labels: readonly string[];
}

/** The PID namespace of a process, as /proc/PID/ns/pid names it; undefined when it is gone. */
export function processNamespaceOf(processId: number | "self"): string | undefined {
  try {
    return readlinkSync(`/proc/${processId}/ns/pid`);
  } catch {
    return undefined;
  }
}

/** Reads who the peer of a connected Unix socket is. */
export function identifyPeer(socket: OwnedDescriptor): Peer {
  const credentials = peerCredentials(socket);
  const { processId } = credentials;
  return {
    ...credentials,
    label: peerLabel(socket),
    processNamespace: processId > 0 ? processNamespaceOf(processId) : undefined,
  };
}

/** Why a peer may not speak; undefined when it may. */
export function refusePeer(
  peer: Peer,
  policy: PeerPolicy,
): { readonly expected: string; readonly received: string } | undefined {
  const known = policy.users.includes(peer.user) || policy.groups.includes(peer.group);
  const labelled =
    policy.labels.length === 0 || (peer.label !== undefined && policy.labels.includes(peer.label));
  if (known && labelled) return undefined;
  const groups = policy.groups.length === 0 ? "" : ` or group ${policy.groups.join(", ")}`;
  const labels = policy.labels.length === 0 ? "" : `, labelled ${policy.labels.join(" or ")}`;
  return {
    expected: `user ${policy.users.join(", ") || "(none)"}${groups}${labels}`,
    received: `user ${peer.user}, group ${peer.group}, label ${peer.label ?? "(none)"}`,
  };
}
