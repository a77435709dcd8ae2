import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { errnoName } from "../../../../ffi/system-call-error.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import type { MonotonicTime } from "../../../units/units.ts";
import type { Pass, TaskEngine } from "../../tasks/disk.ts";
import { decodeFio, type FioOrder, fioLimits, fioWords } from "../../tools/fio.ts";
import { findTool } from "../run-tool.ts";
import { type TaskContext, TaskRefused } from "../task.ts";
import { readSome } from "./ask-smartctl.ts";

export interface FioRun {
  readonly engine: TaskEngine;
  readonly pass: Pass;
  readonly miscompared: number;
}

export type FioTransfer = Omit<FioOrder, "path"> & {
  /** Of the disk that is open, and stays so: by it, and by no name, fio opens it as well. */
  readonly descriptor: OwnedDescriptor;
  /** When it is told to end, and to tell what it came to. */
  readonly until: MonotonicTime;
};

/**
 * One way over a disk, by fio; the signal kills it.
 * @throws TaskRefused where it is not there, dies, or prints what is none of its JSON
 */
export async function runFio(
  { descriptor, until, ...order }: FioTransfer,
  { signal, tell }: Pick<TaskContext, "signal" | "tell">,
): Promise<FioRun> {
  const program = findTool("fio");
  if (program === null) {
    throw new TaskRefused(
      "expected fio, as the spec asks for a tool, and it is not installed: " +
        'put it into the image, or say engine = "own" for the stage Storage',
    );
  }
  const given: FioOrder = { ...order, path: `/proc/${process.pid}/fd/${descriptor.number}` };
  const { output, said, ended } = await runToEnd([program, ...fioWords(given)], until, signal);
  const answer = decodeFio(given, output, said);
  if (answer.kind === "none") {
    const last = said.trim().split("\n").at(-1) ?? "";
    throw new TaskRefused(`fio (${ended}): ${answer.reason}. It said: ${last || "nothing"}`);
  }
  const { pass, miscompared, unplaced, version } = answer;
  if (unplaced !== 0) {
    const text = `fio does not tell where a ${order.way} failed; the first of them: `;
    tell({ kind: "log", level: "warn", text: `${text}${errnoName(unplaced)}` });
  }
  return { engine: { name: "fio", version }, pass, miscompared };
}

/**
 * When the time is over SIGINT has it print what it came to. One that does not end by that is
 * killed at the deadline of this task, by the signal.
 */
async function runToEnd(words: readonly string[], until: MonotonicTime, signal: AbortSignal) {
  const child = Bun.spawn([...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { LC_ALL: "C", PATH: process.env["PATH"] ?? "" },
    // 0 would be no limit.
    timeout: Math.max(1, Math.ceil(until - monotonicNow())),
    killSignal: "SIGINT",
  });
  const kill = () => child.kill("SIGKILL");
  signal.addEventListener("abort", kill);
  if (signal.aborted) kill();
  try {
    const printing = readSome(child.stdout, fioLimits.output).then((text) => {
      if (text === undefined) kill();
      return text;
    });
    const saying = readBeginning(child.stderr, fioLimits.said);
    const [output, said, status] = await Promise.all([printing, saying, child.exited]);
    const ended = child.signalCode === null ? `exit code ${status}` : `${child.signalCode}`;
    if (output !== undefined) return { output, said, ended };
    throw new TaskRefused(`fio: expected at most ${fioLimits.output} bytes, received more`);
  } finally {
    signal.removeEventListener("abort", kill);
  }
}

/** All of it is taken, so that whoever writes never waits; so much is kept. */
async function readBeginning(stream: ReadableStream<Uint8Array>, most: number): Promise<string> {
  const kept: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    if (size < most) kept.push(chunk.subarray(0, most - size));
    size += chunk.length;
  }
  return Buffer.concat(kept).toString();
}
