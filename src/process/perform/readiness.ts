import { isIP } from "node:net";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import { connectTcp, pendingError, receiveMessage } from "../../../ffi/unix-socket.ts";
import type { Watch } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { Instance } from "../lifecycle.ts";
import type { ManagedProcess, Partition } from "./partition.ts";

/** A check that failed is made again: first soon, then less and less often. */
const FIRST_INTERVAL: Milliseconds = 20;
const LONGEST_INTERVAL: Milliseconds = 1_000;
const NOTIFY_SIZE = 4_096;

const datagram = new NativeMemory(NOTIFY_SIZE);

/** Watches for the readiness of one instance until it comes, or nobody asks any more. */
export interface ReadinessWatch {
  cancel(): void;
}

/** The bytes of an IP address: 4 or 16. */
export function parseAddress(
  host: string,
): { readonly family: "ipv4" | "ipv6"; readonly address: Uint8Array } | undefined {
  const literal = host === "localhost" ? "127.0.0.1" : host;
  const kind = isIP(literal);
  if (kind === 4) {
    return { family: "ipv4", address: new Uint8Array(literal.split(".").map(Number)) };
  }
  if (kind !== 6) return undefined;
  // The parser of URLs writes every form of an IPv6 address in the same way.
  const text = new URL(`http://[${literal}]/`).hostname.slice(1, -1);
  const [head = "", tail] = text.split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const first = groups(head);
  const last = tail === undefined ? [] : groups(tail);
  const middle = Array.from({ length: 8 - first.length - last.length }, () => "0");
  const bytes = [...first, ...middle, ...last].flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
  return { family: "ipv6", address: new Uint8Array(bytes) };
}

/** Repeats a check until it succeeds or is cancelled. */
class RepeatedCheck implements ReadinessWatch {
  readonly #partition: Partition;
  readonly #check: (onResult: (ready: boolean) => void) => void;
  readonly #onReady: () => void;
  #interval = FIRST_INTERVAL;
  #timer: Disposable | undefined;
  #cancelled = false;

  constructor(
    partition: Partition,
    check: (onResult: (ready: boolean) => void) => void,
    onReady: () => void,
  ) {
    this.#partition = partition;
    this.#check = check;
    this.#onReady = onReady;
    this.#run();
  }

  #run(): void {
    this.#check((ready) => {
      if (this.#cancelled) return;
      if (ready) {
        this.#onReady();
        return;
      }
      this.#timer = this.#partition.loop.wakeAfter(this.#interval, () => this.#run());
      this.#interval = Math.min(LONGEST_INTERVAL, this.#interval * 1.5);
    });
  }

  cancel(): void {
    this.#cancelled = true;
    this.#timer?.[Symbol.dispose]();
  }
}

/** Connects a socket of the partition to an address, and tells whether somebody listens there. */
function checkTcp(
  partition: Partition,
  target: { readonly host: string; readonly port: number },
  onResult: (ready: boolean) => void,
): void {
  const parsed = parseAddress(target.host);
  if (parsed === undefined) {
    onResult(false);
    return;
  }
  partition.openSocket({ family: parsed.family }, (socket) => {
    if (socket === undefined) {
      onResult(false);
      return;
    }
    const result = connectTcp(socket, { ...parsed, port: target.port });
    if (result !== -Errno.EINPROGRESS) {
      socket.close();
      onResult(result === 0);
      return;
    }
    const watch = partition.loop.watch(socket, "writable", () => {
      const ready = pendingError(socket) === 0;
      watch[Symbol.dispose]();
      socket.close();
      onResult(ready);
    });
  });
}

function checkUnix(partition: Partition, path: string, onResult: (ready: boolean) => void): void {
  partition.openSocket({ family: "unix", path }, (socket) => {
    socket?.close();
    onResult(socket !== undefined);
  });
}

/** Begins to watch; `onReady` is called at most once. */
export function watchReadiness(
  partition: Partition,
  managed: ManagedProcess,
  onReady: () => void,
): ReadinessWatch {
  const { readiness } = managed.specification;
  switch (readiness.kind) {
    case "tcp":
      return new RepeatedCheck(
        partition,
        (onResult) => checkTcp(partition, readiness, onResult),
        onReady,
      );
    case "unix":
      return new RepeatedCheck(
        partition,
        (onResult) => checkUnix(partition, readiness.path, onResult),
        onReady,
      );
    case "command":
      return new RepeatedCheck(
        partition,
        (onResult) =>
          partition.runCommand(managed, readiness.command, (result) =>
            onResult(result.kind === "exited" && result.status === 0),
          ),
        onReady,
      );
    // A notice comes on the process's own socket, which outlives its instances.
    case "notify":
    case "started":
      return { cancel: () => {} };
  }
}

/**
 * The socket that a process tells its readiness to: sd_notify(3). A message counts when the kernel
 * says that it came from the instance itself, whatever PID namespace that is in.
 */
export class NotifySocket implements Disposable {
  readonly #socket: OwnedDescriptor;
  readonly #watch: Watch;

  constructor(
    partition: Partition,
    socket: OwnedDescriptor,
    handlers: {
      /** The instance whose messages count now. */
      readonly instance: () => Instance | undefined;
      readonly onReady: (instance: Instance) => void;
    },
  ) {
    this.#socket = socket;
    this.#watch = partition.loop.watch(socket, "readable", () => this.#receive(handlers));
  }

  #receive(handlers: {
    readonly instance: () => Instance | undefined;
    readonly onReady: (instance: Instance) => void;
  }): void {
    const MESSAGES_A_TURN = 64;
    for (let count = 0; count < MESSAGES_A_TURN; count++) {
      const message = receiveMessage(this.#socket, datagram);
      for (const descriptor of message.descriptors) descriptor.close();
      if (message.length < 0) return;
      const instance = handlers.instance();
      if (instance === undefined) continue;
      if (message.credentials?.processId !== instance.processId) continue;
      const text = new TextDecoder().decode(datagram.bytes.subarray(0, message.length));
      if (text.split("\n").includes("READY=1")) handlers.onReady(instance);
    }
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#socket.close();
  }
}
