import { closeSync, openSync } from "node:fs";
import type * as v from "valibot";
import { makePipe, setBlocking, writeFrom } from "../../../../ffi/descriptor.ts";
import { faultVariables } from "../../../../ffi/fault-hooks.ts";
import { cString } from "../../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { waitForChild } from "../../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../../ffi/posix-spawn.ts";
import { kill } from "../../../../ffi/process.ts";
import { errnoMessage, SystemCallError } from "../../../../ffi/system-call-error.ts";
import type { EventLoop, Watch } from "../../../event-loop/event-loop.ts";
import { Signal } from "../../../units/signals.ts";
import type { TaskOrder } from "../../protocol-task.ts";
import {
  THROUGHPUT_SOCKET,
  THROUGHPUT_TASK,
  type throughputInputSchema,
} from "../../tasks/throughput.ts";
import { TEST_MARGIN } from "../../throughput/protocol.ts";
import type { OwnProgram } from "../task-process.ts";

/** A child that serves one test: until it ends, or its time is over and it is killed. */
export class ServingChild implements Disposable {
  readonly #process: OwnedDescriptor;
  readonly #processId: number;
  readonly #input: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #deadline: Disposable;
  readonly #onEnd: () => void;

  /**
   * @param socket becomes the child's, and is closed here
   * @throws SystemCallError where no process or descriptor is left for it
   */
  constructor(options: {
    readonly loop: EventLoop;
    readonly own: OwnProgram;
    readonly socket: OwnedDescriptor;
    readonly test: v.InferInput<typeof throughputInputSchema>;
    readonly onEnd: () => void;
  }) {
    const { loop, own, socket, test, onEnd } = options;
    this.#onEnd = onEnd;
    const { process, processId, input } = spawn(own, socket);
    this.#process = process;
    this.#processId = processId;
    this.#input = input;
    const order: TaskOrder = { task: THROUGHPUT_TASK, input: test };
    const line = cString(`${JSON.stringify(order)}\n`);
    // A pipe that is new takes it at once. A child that is dead already is told by its end.
    writeFrom(input, line, line.size - 1);
    this.#watch = loop.watch(process, "readable", () => this.#look());
    const most = test.seconds * 1_000 + 2 * TEST_MARGIN;
    this.#deadline = loop.wakeAfter(most, () => this.#kill());
  }

  #kill(): void {
    // It has a session of its own, and with it the tool that it may have started.
    kill(-this.#processId, Signal.SIGKILL);
  }

  #look(): void {
    if (waitForChild(this.#process, "reap") === undefined) return;
    this.#close();
    this.#onEnd();
  }

  #close(): void {
    this.#watch[Symbol.dispose]();
    this.#deadline[Symbol.dispose]();
    this.#process.close();
    this.#input.close();
  }

  /** Ends it without a word; who reaps it is the kernel, at the end of this process. */
  [Symbol.dispose](): void {
    if (!this.#process.isOpen) return;
    this.#kill();
    this.#close();
  }
}

/** Where a child looks for a tool. */
const searchPath = () => `PATH=${process.env["PATH"] ?? ""}`;

/** @throws SystemCallError */
function spawn(own: OwnProgram, socket: OwnedDescriptor) {
  const nowhere = openSync("/dev/null", "r+");
  const input = makePipe();
  try {
    setBlocking(input.read);
    using prepared = new PreparedSpawn({
      path: own.path,
      argv: [...own.words, "--vetting-task"],
      environment: ["LC_ALL=C", searchPath(), ...faultVariables()],
      workingDirectory: "/",
      descriptors: [
        { source: input.read.number, target: 0 },
        { source: nowhere, target: 1 },
        { source: nowhere, target: 2 },
        { source: socket.number, target: THROUGHPUT_SOCKET },
      ],
    });
    const result = prepared.spawn();
    if (result.kind === "refused") {
      throw new SystemCallError("posix_spawn", result.errno, errnoMessage(result.errno));
    }
    const { process, processId } = result;
    return { process, processId, input: input.write };
  } catch (failure) {
    input.write.close();
    throw failure;
  } finally {
    input.read.close();
    closeSync(nowhere);
    socket.close();
  }
}
