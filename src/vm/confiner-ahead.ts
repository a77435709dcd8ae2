import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import * as v from "valibot";
import { duplicateTo } from "../../ffi/descriptor.ts";
import { NativeMemory } from "../../ffi/memory.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import {
  hasMessage,
  makeSocketPair,
  receiveMessage,
  sendMessage,
  waitForMessage,
} from "../../ffi/unix-socket.ts";
import {
  AHEAD_SOCKET,
  type ConfineOrder,
  confineOrderSchema,
  describeIssue,
  GO,
  LONGEST_ORDER,
  NAMED,
  NO_INVOCATION,
} from "./confine-plan.ts";

/** A confiner that waits for its order: the runtime's own start is over when that comes. */

export type AwaitedOrder =
  | { readonly kind: "ordered"; readonly order: ConfineOrder }
  /** Its worker has ended before it said that it may go on. */
  | { readonly kind: "dismissed" }
  | { readonly kind: "refused"; readonly why: string };

const NEWLINE = 0x0a;
/** Fields of proc_pid_stat(5), of which the first two are cut off: where both blocks begin. */
const blocks = [
  { file: "cmdline", field: 48 - 3 },
  { file: "environ", field: 50 - 3 },
] as const;

/**
 * Blocks until its worker says what it is to be, and that it may go on, or is gone.
 * @param rehearse what follows an order, without effect: done while none is there
 */
export function awaitOrder(rehearse: () => void): AwaitedOrder {
  const socket = new OwnedDescriptor(AHEAD_SOCKET);
  if (!hasMessage(socket)) {
    rehearseOrder();
    rehearse();
  }
  const received = receiveLine(socket);
  if ("kind" in received) return received;
  const { text, descriptors } = received;
  const parsed = v.safeParse(confineOrderSchema, parse(text));
  if (!parsed.success) return { kind: "refused", why: describeIssue(parsed.issues[0]) };
  const order = parsed.output;
  if (descriptors.length !== order.targets.length) {
    return { kind: "refused", why: `${order.targets.length} descriptors, and not as many came` };
  }
  for (const [index, target] of order.targets.entries()) {
    const descriptor = descriptors[index];
    if (descriptor === undefined) continue;
    duplicateTo(descriptor, target);
    descriptor.close();
  }
  try {
    takeName(order.invocation);
    writeSync(AHEAD_SOCKET, NAMED);
  } catch (error) {
    // EPIPE among them: its worker has ended. One that lives sees this end, and starts another.
    return { kind: "refused", why: error instanceof Error ? error.message : String(error) };
  }
  const answer = receiveLine(socket);
  if ("kind" in answer) return answer;
  if (`${answer.text}\n` !== GO) return { kind: "refused", why: "another word than that to go on" };
  return { kind: "ordered", order };
}

/** Nothing is here, whatever a host has. */
export const NOWHERE = "/proc/self/nowhere";

/** As long as one of a start, in all that is looked at. */
const rehearsedOrder: ConfineOrder = {
  invocation: NO_INVOCATION,
  plan: {
    cgroup: NOWHERE,
    user: 65_534,
    group: 65_534,
    limits: { core: { soft: 0, hard: 0 }, nofile: { soft: 1, hard: 1 } },
    oom_score: 0,
    devices: ["/dev/null"],
    writable: [NOWHERE],
    folder: "/",
    umask: 0o077,
    optional: ["cgroup", "limits"],
    arguments: 1,
    descriptors: [3],
    report: AHEAD_SOCKET,
  },
  program: NOWHERE,
  words: [NOWHERE],
  targets: [3],
};

/**
 * What is done for the first time takes the runtime several times as long: its code is read and
 * linked then. So an order is taken once before one comes, of which nothing follows.
 */
function rehearseOrder(): void {
  const [own, other] = makeSocketPair();
  using theirs = own;
  using ours = other;
  const bytes = new TextEncoder().encode(`${JSON.stringify(rehearsedOrder)}\n`);
  const memory = new NativeMemory(bytes.length);
  memory.bytes.set(bytes);
  sendMessage(theirs, memory, { offset: 0, length: bytes.length }, [theirs.number]);
  const received = receiveLine(ours);
  if ("kind" in received) return;
  for (const descriptor of received.descriptors) descriptor.close();
  v.safeParse(confineOrderSchema, parse(received.text));
  try {
    takeName(NO_INVOCATION);
  } catch {
    // Nobody has given it a place for a name: its order is refused for that, if one comes.
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** One line, and what came with it. Its worker writes the next one when this was answered. */
function receiveLine(
  socket: OwnedDescriptor,
):
  | { readonly text: string; readonly descriptors: readonly OwnedDescriptor[] }
  | Exclude<AwaitedOrder, { kind: "ordered" }> {
  const memory = new NativeMemory(LONGEST_ORDER);
  const descriptors: OwnedDescriptor[] = [];
  let line = "";
  const decoder = new TextDecoder();
  while (line.length <= LONGEST_ORDER) {
    waitForMessage(socket);
    const message = receiveMessage(socket, memory);
    if (message.length === 0) return { kind: "dismissed" };
    if (message.length < 0) return { kind: "refused", why: "no socket of a worker" };
    descriptors.push(...message.descriptors);
    const bytes = memory.bytes.subarray(0, message.length);
    line += decoder.decode(bytes, { stream: true });
    if (bytes.at(-1) === NEWLINE) return { text: line.slice(0, -1), descriptors };
  }
  return { kind: "refused", why: `an order of more than ${LONGEST_ORDER} bytes` };
}

/**
 * Writes the invocation over the zeros in its own command line and environment, where whoever looks
 * for the VMM reads it. @throws Error when /proc does not show it there then
 */
function takeName(invocation: string): void {
  const stat = readFileSync("/proc/self/stat", "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const memory = openSync("/proc/self/mem", "r+");
  try {
    for (const { file, field } of blocks) {
      const path = `/proc/self/${file}`;
      const offset = readFileSync(path, "latin1").indexOf(NO_INVOCATION);
      const begin = Number(fields[field]);
      if (offset >= 0) writeSync(memory, invocation, begin + offset, "latin1");
      if (!readFileSync(path, "latin1").includes(invocation)) {
        throw new Error(`Expected its name in ${path}, received what was there before`);
      }
    }
  } finally {
    closeSync(memory);
  }
}
