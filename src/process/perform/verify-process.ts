import { openSync, statSync } from "node:fs";
import { parentNamespace } from "../../../ffi/namespace.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { peerCredentials } from "../../../ffi/unix-socket.ts";
import { processNamespaceOf } from "../../messaging/peer.ts";
import { descriptorInformation, statusOf, threadGroupOf } from "./process-table.ts";

/** O_EXCL marks a pidfd of a single thread: PIDFD_THREAD, pidfd_open(2). */
const PIDFD_THREAD = 0o200;

/** PID namespaces nest at most this deep: MAX_PID_NS_LEVEL, include/linux/pid_namespace.h. */
const DEEPEST = 32;

function identityOf(path: string): string | undefined {
  const status = statSync(path, { throwIfNoEntry: false });
  return status === undefined ? undefined : `${status.dev}:${status.ino}`;
}

/** True when a process is in the PID namespace of another one, or in one below it. */
function namespaceIsAtOrBelow(processId: number, ancestorId: number): boolean {
  const wanted = identityOf(`/proc/${ancestorId}/ns/pid`);
  if (wanted === undefined) return false;
  let current: OwnedDescriptor | undefined;
  try {
    current = new OwnedDescriptor(openSync(`/proc/${processId}/ns/pid`, "r"));
  } catch {
    return false;
  }
  for (let depth = 0; current !== undefined && depth <= DEEPEST; depth++) {
    using namespace: OwnedDescriptor = current;
    if (identityOf(`/proc/self/fd/${namespace.number}`) === wanted) return true;
    current = parentNamespace(namespace);
  }
  current?.close();
  return false;
}

/**
 * Which process the agent is, as the host numbers it; undefined when that cannot be said.
 *
 * Of one that connected to us the kernel knows. Behind a socket that listens may stand whoever
 * made it, such as a service manager, so there it is whoever wrote the hello; root can write in
 * the name of others, though only of those in its own PID namespace. One in ours must therefore
 * be the listener itself: it could name us, and every child of ours would be its own.
 */
export function identifyAgent(
  socket: OwnedDescriptor,
  connection: { readonly dialled: boolean; readonly writer: number },
): number | undefined {
  const peer = peerCredentials(socket).processId;
  const { dialled, writer } = connection;
  if (!dialled || peer === writer) return peer > 0 ? peer : undefined;
  const namespace = writer > 0 ? processNamespaceOf(writer) : undefined;
  if (namespace === undefined || namespace === processNamespaceOf("self")) return undefined;
  return writer;
}

/** The agent that passed a descriptor, as the host sees it. */
export interface AgentIdentity {
  readonly processId: number;
}

export type Verified =
  | { readonly kind: "process"; readonly processId: number }
  /** The process was reaped before we could look: nothing can be said of it, or done to it. */
  | { readonly kind: "reaped" }
  | { readonly kind: "refused"; readonly expected: string; readonly received: string };

function refuse(expected: string, received: string): Verified {
  return { kind: "refused", expected, received };
}

/**
 * Whether a descriptor from another partition is the pidfd of a child of the agent there, and of
 * nothing else: neither the agent itself, nor any process outside of the agent's PID namespace.
 */
export function verifyChild(descriptor: OwnedDescriptor, agent: AgentIdentity): Verified {
  const information = descriptorInformation(descriptor.number);
  const pid = information.get("Pid");
  if (pid === undefined) return refuse("a pidfd", "a descriptor of another kind");
  const processId = Number(pid);
  if (processId === -1) return { kind: "reaped" };
  if (!(processId > 0)) return refuse("a process that the host can see", `Pid: ${pid}`);
  const flags = Number.parseInt(information.get("flags") ?? "0", 8);
  if ((flags & PIDFD_THREAD) !== 0 || threadGroupOf(processId) !== processId) {
    return refuse("a pidfd of a process", "one of a thread");
  }
  if (processId === agent.processId) return refuse("a child of the agent", "the agent itself");
  const parentId = statusOf(processId)?.parentId;
  if (parentId !== agent.processId) {
    return refuse(
      `a child of the agent (${agent.processId})`,
      `a child of ${parentId ?? "nobody"}`,
    );
  }
  const agentNamespace = processNamespaceOf(agent.processId);
  const namespace = processNamespaceOf(processId);
  // A zombie has left its namespaces already; its parent, checked above, cannot be in another.
  if (namespace !== undefined && namespace !== agentNamespace) {
    if (!namespaceIsAtOrBelow(processId, agent.processId)) {
      return refuse("a process in the agent's PID namespace or below", `one in ${namespace}`);
    }
  }
  return { kind: "process", processId };
}
