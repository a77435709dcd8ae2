import { writeSync } from "node:fs";
import * as v from "valibot";
import { endWithParent } from "../../../ffi/process.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { Signal } from "../../units/signals.ts";
import { resultLimits } from "../protocol-result.ts";
import {
  type TaskLine,
  type TaskOrder,
  taskLimits,
  taskOrderSchema,
  taskQuestionSchema,
} from "../protocol-task.ts";
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

/** Questions of the agent: one that nobody listens to yet waits, and a newer one is for both. */
class Questions {
  #listener: ((question: number) => void) | undefined;
  #waiting: number | undefined;

  listen(listener: (question: number) => void): void {
    this.#listener = listener;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting !== undefined) listener(waiting);
  }

  ask(question: number): void {
    if (this.#listener === undefined) this.#waiting = question;
    else this.#listener(question);
  }
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
    const questions = new Questions();
    const order = await receiveOrder(input, ending, questions);
    const task = await findTask(registry, order.task);
    await perform(task, order.input, { signal: ending.signal, questions });
    return ExitCode.done;
  } catch (thrown) {
    // What its input was refused for is why it was to end.
    const failure = ending.signal.aborted ? ending.signal.reason : thrown;
    if (failure instanceof Dismissed) return ExitCode.refused;
    if (failure instanceof TaskRefused) {
      say({ kind: "failure", message: cut(failure.message) });
      return ExitCode.done;
    }
    complain(failure instanceof OrderRefused ? failure.message : wordsOf(failure));
    return failure instanceof OrderRefused ? ExitCode.usage : ExitCode.bug;
  }
}

async function perform(
  task: Task,
  given: unknown,
  { signal, questions }: { readonly signal: AbortSignal; readonly questions: Questions },
): Promise<void> {
  const input = v.safeParse(task.input, given);
  if (!input.success) {
    throw new OrderRefused(`The input of ${task.name} is none: ${describeIssues(input.issues)}`);
  }
  const onQuestion: TaskContext["onQuestion"] = (listener) => questions.listen(listener);
  // Whatever came with its order may have ended it already, and it hears of that no more.
  signal.throwIfAborted();
  const context: TaskContext = { signal, tell: say, onQuestion };
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

/** The first line; those after it are questions, and the end of the input ends the task. */
async function receiveOrder(
  input: Input,
  ending: AbortController,
  questions: Questions,
): Promise<TaskOrder> {
  const received = Promise.withResolvers<TaskOrder>();
  const end = (reason: unknown) => {
    received.reject(reason);
    ending.abort(reason);
  };
  const order = (line: string) => received.resolve(readLine(taskOrderSchema, "an order", line));
  const question = (line: string) =>
    questions.ask(readLine(taskQuestionSchema, "a question", line).question);
  void follow(input, { order, question, end });
  return await received.promise;
}

/** Reads to the end whatever it says: Bun cancels no stream of a pipe that nobody reads. */
async function follow(
  input: Input,
  take: {
    order(line: string): void;
    question(line: string): void;
    end(reason: unknown): void;
  },
): Promise<void> {
  const reader = new LineReader(taskLimits.lineBytes);
  let next = take.order;
  for (;;) {
    const { done, value } = await input.read().catch(() => ({ done: true, value: undefined }));
    if (done || value === undefined) break;
    try {
      const lines = reader.push(value);
      if (lines === undefined) {
        throw new OrderRefused(`An order of more than ${taskLimits.lineBytes} bytes`);
      }
      for (const line of lines) {
        next(line);
        next = take.question;
      }
    } catch (refusal) {
      take.end(refusal);
    }
  }
  take.end(new Dismissed());
}

/** @throws OrderRefused */
function readLine<Schema extends v.GenericSchema>(
  schema: Schema,
  what: string,
  text: string,
): v.InferOutput<Schema> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  const checked = v.safeParse(schema, parsed);
  if (checked.success) return checked.output;
  throw new OrderRefused(`Expected ${what}: ${describeIssues(checked.issues)}`);
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
