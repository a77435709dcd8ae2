import { monotonicNow } from "../../../event-loop/clock.ts";
import { EventLoop } from "../../../event-loop/event-loop.ts";
import { startWorker } from "../../../event-loop/worker-factory.ts";
import { HostTree } from "../../../hardware/host-tree.ts";
import { KernelLogReader, openKernelLog } from "../../../hardware/kernel-log-reader.ts";
import { Sampler } from "../../../hardware/sampler.ts";
import { SAMPLE_TASK, sampleInputSchema, sampleReportSchema } from "../../tasks/sample.ts";
import { defineTask, type TaskContext } from "../task.ts";

/**
 * Reads sensors and counters every `every_ms` and whenever it is asked, until it is told to end,
 * and tells the kernel's log line by line as it comes. Of the boot's own lines too, unless
 * `kernel_after` names the last record that an agent before it was told.
 */
export const sampleTask = defineTask({
  name: SAMPLE_TASK,
  input: sampleInputSchema,
  report: sampleReportSchema,
  run: async ({ root, every_ms, kernel_after }, context) => {
    using loop = new EventLoop(startWorker);
    const sampler = new Sampler(new HostTree(root));
    const told = { readings: 0, kernel_lines: 0 };
    const ended = Promise.withResolvers<void>();
    loop.onFailure(ended.reject);
    const wake: { timer?: Disposable } = {};
    using log = root === "/" ? watchLog(loop, sampler, context, kernel_after, told) : undefined;
    const read = (answers?: number) => {
      const reading = sampler.read(monotonicNow());
      context.tell({ kind: "reading", reading, ...(answers !== undefined && { answers }) });
      told.readings += 1;
    };
    const sample = (due: number) => {
      read();
      // Where reading takes longer than that, the readings between are left out, not caught up.
      const next = Math.max(due + every_ms, monotonicNow());
      wake.timer = loop.wakeAt(next, () => sample(next));
    };
    sample(monotonicNow());
    context.onQuestion((question) => {
      // What the kernel has said until now is of the time before the answer.
      log?.readAll();
      read(question);
    });
    context.signal.addEventListener("abort", () => ended.resolve(), { once: true });
    if (context.signal.aborted) ended.resolve();
    try {
      await ended.promise;
    } finally {
      wake.timer?.[Symbol.dispose]();
    }
    return told;
  },
});

interface WatchedLog extends Disposable {
  /** Until there is nothing more now. */
  readAll(): void;
}

function watchLog(
  loop: EventLoop,
  sampler: Sampler,
  context: TaskContext,
  after: number | null,
  told: { kernel_lines: number },
): WatchedLog {
  const log = openKernelLog();
  if ("refusal" in log) {
    const text = `The kernel's log is not watched: ${log.refusal}`;
    context.tell({ kind: "log", level: "warn", text });
    return { readAll: () => undefined, [Symbol.dispose]: () => undefined };
  }
  const reader = new KernelLogReader(log, after);
  // A watch is armed again after its handler: what a turn leaves over is ready at once.
  const read = (): boolean => {
    const { lines, lost, more } = reader.read();
    if (lost > 0) {
      const text = `The kernel's log was faster than its reader: ${lost} records are lost`;
      context.tell({ kind: "log", level: "warn", text });
    }
    for (const line of lines) {
      sampler.take(line);
      context.tell({ kind: "kernel", line });
      told.kernel_lines += 1;
    }
    return more;
  };
  const readAll = () => {
    for (let more = true; more; ) more = read();
  };
  // What the boot has said already is no fault of the first stage: it is told before any reading.
  readAll();
  const watch = loop.watch(log.descriptor, "readable", () => void read());
  return {
    readAll,
    [Symbol.dispose]: () => {
      watch[Symbol.dispose]();
      log[Symbol.dispose]();
    },
  };
}
