import { faultVariables } from "../../ffi/fault-hooks.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { openProcess, signalProcess, waitForChild } from "../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../ffi/posix-spawn.ts";
import { Errno, errnoMessage, SystemCallError } from "../../ffi/system-call-error.ts";
import {
  connectUnix,
  makeSocketPair,
  makeUnixSocket,
  peerCredentials,
  peerProcess,
} from "../../ffi/unix-socket.ts";
import type { EventLoop, Watch } from "../event-loop/event-loop.ts";
import { isStderrTheJournal } from "../logging/logger.ts";
import { Signal, signalName } from "../units/signals.ts";
import type { Milliseconds, ProcessId } from "../units/units.ts";
import { holderSocketOf } from "./protocol.ts";

/** Waits before a holder is reached for again: doubled up to the longest. */
const FIRST_WAIT: Milliseconds = 20;
const LONGEST_WAIT: Milliseconds = 5_000;

/** The descriptor of a holder that is started, for its first connection. */
const FIRST_CONNECTION = 3;
const STDOUT = 1;
const STDERR = 2;

interface Options {
  /** Canonical. */
  readonly controlSocket: string;
  /** The program and its words, less those that this class adds. */
  readonly command: readonly string[];
  /** A holder that is found may be a child of this process, from before it was another program. */
  readonly findsChildren: boolean;
  readonly onConnection: (socket: OwnedDescriptor) => void;
  /** Before a connection to another process than that of the one before. */
  readonly onProcess: (holder: { readonly isChild: boolean }) => void;
  readonly onTrouble: (message: string) => void;
}

/** A holder that lives, or is dying: its descriptors may still be open. */
interface HolderProcess {
  readonly process: OwnedDescriptor;
  readonly processId: ProcessId;
  /** It may be ours to reap. */
  readonly isChild: boolean;
  readonly watch: Watch;
}

/** Reaches the holder of a daemon: the one that lives, else one that it starts. */
export class HolderReach implements Disposable {
  readonly #loop: EventLoop;
  readonly #options: Options;
  #holder: HolderProcess | undefined;
  #failures = 0;
  #timer: Disposable | undefined;
  /** Somebody waits for a connection. */
  #isWanted = false;

  constructor(loop: EventLoop, options: Options) {
    this.#loop = loop;
    this.#options = options;
  }

  /** Connects: `onConnection` is called once, now or later. */
  reach(): void {
    this.#isWanted = true;
    this.#timer?.[Symbol.dispose]();
    const socket = makeUnixSocket("stream");
    const result = connectUnix(socket, holderSocketOf(this.#options.controlSocket));
    if (result === 0) {
      this.#takeDialled(socket);
      return;
    }
    socket.close();
    if (result !== -Errno.ENOENT && result !== -Errno.ECONNREFUSED) {
      this.#tryAgain(`cannot connect to the holder: ${errnoMessage(-result)}`);
    } else if (this.#holder === undefined) this.#start();
    // What it kept is closed for certain only when it is dead: its watch comes back here.
    else this.#later();
  }

  /** The holder that was reached last; 0 for none. */
  get processId(): ProcessId {
    return this.#holder?.processId ?? 0;
  }

  /**
   * Kills the holder that was reached last; what follows goes on when it is dead.
   * @returns false when it cannot be: it is not known, or may not be signalled
   */
  kill(): boolean {
    const target = this.#holder?.process;
    return target !== undefined && signalProcess(target, Signal.SIGKILL) !== "refused";
  }

  /** Connects at once, after a connection that served. */
  reachAgain(): void {
    this.#failures = 0;
    this.reach();
  }

  /** Connects after a wait, which grows until one succeeds. */
  reachLater(): void {
    this.#isWanted = true;
    this.#later();
  }

  #later(): void {
    this.#timer?.[Symbol.dispose]();
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 30);
    this.#timer = this.#loop.wakeAfter(wait, () => this.reach());
  }

  #tryAgain(trouble: string): void {
    this.#options.onTrouble(trouble);
    this.#later();
  }

  #takeDialled(socket: OwnedDescriptor): void {
    const { user, processId } = peerCredentials(socket);
    const own = process.geteuid?.() ?? 0;
    if (user !== own) {
      socket.close();
      const path = holderSocketOf(this.#options.controlSocket);
      this.#tryAgain(`${path} is served by user ${user}: expected user ${own}. Remove it`);
      return;
    }
    // As long as a child is not reaped, its number means no other.
    if (this.#holder?.processId !== processId) {
      const peer = peerProcess(socket) ?? (processId > 0 ? openProcess(processId) : undefined);
      this.#options.onProcess({ isChild: false });
      const isChild = this.#options.findsChildren;
      if (peer !== undefined) this.#watch(peer, { processId, isChild });
    }
    this.#hand(socket);
  }

  #hand(socket: OwnedDescriptor): void {
    this.#isWanted = false;
    this.#options.onConnection(socket);
  }

  #start(): void {
    const { command, controlSocket } = this.#options;
    const [path = ""] = command;
    const [ours, theirs] = makeSocketPair();
    const output = isStderrTheJournal() ? [STDOUT, STDERR] : [];
    try {
      using spawn = new PreparedSpawn({
        path,
        argv: [...command, controlSocket, String(FIRST_CONNECTION)],
        // Without any it would look as if in the middle of its exec to whoever looks for a process
        // by its environment, and be looked at again and again.
        environment: ["HOSTLER_ROLE=holder", ...faultVariables()],
        workingDirectory: "/",
        descriptors: [
          { source: theirs.number, target: FIRST_CONNECTION },
          ...output.map((target) => ({ source: STDERR, target })),
        ],
      });
      const result = spawn.spawn();
      if (result.kind === "started") {
        this.#options.onProcess({ isChild: true });
        this.#watch(result.process, { processId: result.processId, isChild: true });
        this.#hand(ours);
        return;
      }
      ours.close();
      this.#tryAgain(`cannot start the holder ${path}: ${errnoMessage(result.errno)}`);
    } catch (error) {
      ours.close();
      if (!(error instanceof SystemCallError)) throw error;
      this.#tryAgain(`cannot start the holder ${path}: ${error.message}`);
    } finally {
      theirs.close();
    }
  }

  #watch(
    process: OwnedDescriptor,
    who: { readonly processId: ProcessId; readonly isChild: boolean },
  ): void {
    this.#forget();
    const watch = this.#loop.watch(process, "readable", () => this.#onDeath());
    this.#holder = { process, watch, ...who };
  }

  #forget(): void {
    this.#holder?.watch[Symbol.dispose]();
    this.#holder?.process.close();
    this.#holder = undefined;
  }

  #onDeath(): void {
    if (this.#holder === undefined) return;
    const { process, isChild } = this.#holder;
    const ending = isChild ? waitForChild(process, "reap") : "not-a-child";
    let how = "";
    if (typeof ending === "object") {
      how =
        ending.kind === "exited"
          ? ` with exit code ${ending.status}`
          : ` by ${signalName(ending.signal)}`;
    }
    this.#forget();
    this.#options.onTrouble(`the holder ended${how}`);
    if (this.#isWanted) this.reach();
  }

  [Symbol.dispose](): void {
    this.#isWanted = false;
    this.#timer?.[Symbol.dispose]();
    this.#forget();
  }
}
