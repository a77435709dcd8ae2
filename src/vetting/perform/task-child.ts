import { writeSync } from "node:fs";
import * as v from "valibot";
import { endWithParent } from "../../../ffi/process.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { Signal } from "../../units/signals.ts";
import { resultLimits } from "../protocol-result.ts";
import { type TaskLine, type TaskOrder, taskLimits, taskOrderSchema } from "../protocol-task.ts";
import { LineReader } from "./line-reader.ts";
import { type Task, type TaskContext, TaskRefused } from "./task.ts";
import type { TaskRegistry } from "./tasks/index.ts";

/**
 * `hostler --vetting-task`: one thing done to one piece of hardware, for the agent that is its
 * parent. Exit codes: 0 a report or a failure was told; 100 the order is none; 101 a bug of the
 * task; 111 it was to end before it had anything to report.
 */

const INPUT = 0;
const OUTPUT = 1;

class OrderRefused extends Error {
  override readonly name = "OrderRefused";
}

/** Ended by whoever ordered: nothing is reported. */
class Dismissed extends Error {
  override readonly name = "Dismissed";
}

type Input = ReturnType<typeof openInput>;
const openInput = () => Bun.file(INPUT).stream().getReader();

export async function runTaskChild(registry: TaskRegistry): Promise<number> {
  const input = openInput();
  try {
    return await obey(registry, input);
  } finally {
    await input.cancel();
  }
}

async function obey(registry: TaskRegistry, input: Input): Promise<number> {
  // A child that blocks in the kernel reads no end of its input: the kernel ends it for us.
  endWithParent(Signal.SIGKILL);
  const ending = new AbortController();
  try {
    const order = await receiveOrder(input, ending);
    const task = await findTask(registry, order.task);
    await perform(task, order.input, ending.signal);
    return ExitCode.done;
  } catch (failure) {
    if (failure instanceof Dismissed || ending.signal.aborted) return ExitCode.refused;
    if (failure instanceof TaskRefused) {
      say({ kind: "failure", message: cut(failure.message) });
      return ExitCode.done;
    }
    complain(failure instanceof OrderRefused ? failure.message : wordsOf(failure));
    return failure instanceof OrderRefused ? ExitCode.usage : ExitCode.bug;
  }
}

async function perform(task: Task, given: unknown, signal: AbortSignal): Promise<void> {
  const input = v.safeParse(task.input, given);
  if (!input.success) {
    throw new OrderRefused(`The input of ${task.name} is none: ${describeIssues(input.issues)}`);
  }
  const context: TaskContext = { signal, tell: say };
  const told = await task.run(input.output, context);
  if (signal.aborted) throw new Dismissed();
  const report = v.safeParse(task.report, told);
  if (!report.success) {
    throw new Error(`Bug: ${task.name} reports what is none: ${describeIssues(report.issues)}`);
  }
  say({ kind: "report", report: report.output });
}

/** Another registry is what tests give. Unknown names are refused with the list. */
async function findTask(registry: TaskRegistry, name: string): Promise<Task> {
  const load = Object.hasOwn(registry, name) ? registry[name] : undefined;
  if (load !== undefined) return await load();
  const known = Object.keys(registry).sort().join(", ");
  throw new OrderRefused(`Expected a task of ${known || "none that there are"}, received ${name}`);
}

/** One line; what follows it is nobody's, and the end of the input ends the task. */
async function receiveOrder(input: Input, ending: AbortController): Promise<TaskOrder> {
  const received = Promise.withResolvers<TaskOrder>();
  void follow(input, received, ending);
  return await received.promise;
}

async function follow(
  input: Input,
  received: PromiseWithResolvers<TaskOrder>,
  ending: AbortController,
): Promise<void> {
  const reader = new LineReader(taskLimits.lineBytes);
  let isWhole = false;
  for (;;) {
    const { done, value } = await input.read().catch(() => ({ done: true, value: undefined }));
    if (done || value === undefined) break;
    if (isWhole) continue;
    const lines = reader.push(value);
    if (lines === undefined) {
      received.reject(new OrderRefused(`An order of more than ${taskLimits.lineBytes} bytes`));
      return;
    }
    const [line] = lines;
    if (line === undefined) continue;
    isWhole = true;
    try {
      received.resolve(readOrder(line));
    } catch (refusal) {
      received.reject(refusal);
    }
  }
  received.reject(new Dismissed());
  ending.abort(new Dismissed());
}

function readOrder(text: string): TaskOrder {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  const checked = v.safeParse(taskOrderSchema, parsed);
  if (checked.success) return checked.output;
  throw new OrderRefused(`Expected an order: ${describeIssues(checked.issues)}`);
}

/** Written before it returns. A parent that is gone is told nothing: this ends. */
function say(line: TaskLine): void {
  const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
  if (bytes.length > taskLimits.lineBytes + 1) {
    throw new Error(`Bug: a line "${line.kind}" of ${bytes.length} bytes`);
  }
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(OUTPUT, bytes, offset);
}

function complain(text: string): void {
  try {
    writeSync(2, `${text.slice(-taskLimits.errorBytes)}\n`);
  } catch {
    // Nobody reads it: the exit code says what there is to say.
  }
}

const cut = (text: string): string => text.slice(0, resultLimits.text);

const wordsOf = (failure: unknown): string =>
  failure instanceof Error ? (failure.stack ?? failure.message) : String(failure);
