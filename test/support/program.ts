/** Starts programs in tests, keeps what they say, and ends them when the test is over. */
import { suspend } from "./suspend.ts";
import { DeadlineError, withDeadline } from "./wait-for.ts";

export interface ProgramOptions {
  /** The whole environment; nothing is inherited but PATH, HOME and TMPDIR unless named here. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly workingDirectory?: string;
  /** Written to its standard input, which is then closed. Without it, /dev/null. */
  readonly input?: string | Uint8Array<ArrayBuffer>;
  readonly deadlineMilliseconds?: number;
}

export interface ProgramResult {
  /** null when a signal ended it. */
  readonly exitCode: number | null;
  /** Such as "SIGKILL"; null when it exited. */
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. @throws DeadlineError when it does not end; it is killed then. */
export async function runProgram(
  argv: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  await using program = startProgram(argv, options);
  return await program.ended(options.deadlineMilliseconds);
}

export interface Program extends AsyncDisposable {
  readonly processId: number;
  /** What it has said so far. */
  readonly output: { readonly stdout: string; readonly stderr: string };
  /** SIGSTOP: and waits until it stands still. */
  kill(signal: NodeJS.Signals): void;
  /** @returns the first match in either output, now or as soon as it comes. */
  said(pattern: RegExp, deadlineMilliseconds?: number): Promise<RegExpExecArray>;
  ended(deadlineMilliseconds?: number): Promise<ProgramResult>;
}

/** Starts a program; `await using` kills it (SIGKILL) and reaps it at the end of the block. */
export function startProgram(argv: readonly string[], options: ProgramOptions = {}): Program {
  const child = Bun.spawn([...argv], {
    cwd: options.workingDirectory ?? process.cwd(),
    env: { ...inheritedEnvironment(), ...options.environment },
    stdin: options.input === undefined ? "ignore" : new Blob([options.input]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const output = { stdout: "", stderr: "" };
  const listeners = new Set<() => void>();
  const follow = async (stream: ReadableStream<Uint8Array>, name: "stdout" | "stderr") => {
    const decoder = new TextDecoder();
    for await (const bytes of stream) {
      output[name] += decoder.decode(bytes, { stream: true });
      for (const listener of [...listeners]) listener();
    }
  };
  const finished = Promise.all([
    follow(child.stdout, "stdout"),
    follow(child.stderr, "stderr"),
    child.exited,
  ]).then(() => ({ exitCode: child.exitCode, signal: nameOfSignal(child), ...output }));
  return {
    processId: child.pid,
    output,
    kill: (signal) => (signal === "SIGSTOP" ? suspend(child.pid) : child.kill(signal)),
    said: (pattern, deadline) =>
      findInOutput({ argv, pattern, output, listeners, finished }, deadline),
    ended: (deadline) =>
      explain(withDeadline(`the end of ${argv.join(" ")}`, finished, deadline), output),
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

function nameOfSignal(child: { readonly signalCode: string | number | null }): string | null {
  return child.signalCode === null ? null : String(child.signalCode);
}

async function findInOutput(
  program: {
    argv: readonly string[];
    pattern: RegExp;
    output: { stdout: string; stderr: string };
    listeners: Set<() => void>;
    finished: Promise<unknown>;
  },
  deadlineMilliseconds: number | undefined,
): Promise<RegExpExecArray> {
  const { pattern, output, listeners } = program;
  const found = Promise.withResolvers<RegExpExecArray>();
  const look = () => {
    const match = pattern.exec(output.stdout) ?? pattern.exec(output.stderr);
    if (match !== null) found.resolve(match);
  };
  listeners.add(look);
  try {
    look();
    const ended = program.finished.then((): never => {
      look();
      throw new Error(`${program.argv.join(" ")} ended without saying ${pattern}`);
    });
    const description = `${program.argv.join(" ")} to say ${pattern}`;
    const first = Promise.race([found.promise, ended]);
    return await explain(withDeadline(description, first, deadlineMilliseconds), output);
  } finally {
    listeners.delete(look);
  }
}

/** Adds what the program said to an error, or one would have to guess. */
async function explain<T>(
  event: Promise<T>,
  output: { stdout: string; stderr: string },
): Promise<T> {
  try {
    return await event;
  } catch (error) {
    if (error instanceof DeadlineError || error instanceof Error) {
      error.message += `\nstdout: ${output.stdout}\nstderr: ${output.stderr}`;
    }
    throw error;
  }
}

/** A test must not pass or fail by what happens to be set where it runs. */
function inheritedEnvironment(): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const name of ["PATH", "HOME", "TMPDIR"]) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return environment;
}
