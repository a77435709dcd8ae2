/** Drives harness.c, which does the killing and the timing. */
import { tryCommand } from "../command.ts";
import { ScriptError } from "../terminal.ts";

/** How long a row may take, in microseconds: the throttles of the peers are about a second. */
const killTimeout = 4_000_000;
const firstTimeout = 20_000_000;

export interface Harness extends AsyncDisposable {
  /** Waits for the first child of a row. @throws ScriptError (1) when none tells its start. */
  awaitFirst(row: number, name: string): Promise<void>;
  /**
   * Kills the row's child at a gap, several times on end.
   * @returns milliseconds; undefined for each that did not come back in time
   */
  kill(row: number, gapMicroseconds: number, times: number): Promise<(number | undefined)[]>;
  /** Waits until every child is 1.5 s old. */
  rest(): Promise<void>;
}

const realTime = (priority: number) => ["chrt", "--fifo", String(priority)];

export async function startHarness(file: string, sockets: readonly string[]): Promise<Harness> {
  const child = Bun.spawn([...realTime(20), file, "rows", ...sockets], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  const answers = readLines(child.stdout);
  const nextAnswer = async () => {
    const { value, done } = await answers.next();
    if (done !== true) return value;
    throw new ScriptError(`The harness ended: exit code ${await child.exited}`, { exitCode: 1 });
  };
  const say = async (...lines: string[]) => {
    child.stdin.write(lines.map((line) => `${line}\n`).join(""));
    await child.stdin.flush();
  };
  await nextAnswer();
  return {
    awaitFirst: async (row, name) => {
      await say(`wait ${row} ${firstTimeout}`);
      if ((await nextAnswer()).endsWith("late")) {
        throw new ScriptError(`${name} started no child`, { exitCode: 1 });
      }
    },
    kill: async (row, gapMicroseconds, times) => {
      await say(...Array(times).fill(`kill ${row} ${gapMicroseconds} ${killTimeout}`));
      const taken: (number | undefined)[] = [];
      while (taken.length < times) taken.push(readTaken(await nextAnswer()));
      return taken;
    },
    rest: async () => {
      await say("rest 0");
      await nextAnswer();
    },
    [Symbol.asyncDispose]: async () => {
      await child.stdin.end();
      await child.exited;
    },
  };
}

/** "3 took 512345 4711" is 0.512345 ms. */
function readTaken(answer: string): number | undefined {
  const match = /\btook (\d+)/.exec(answer);
  return match === null ? undefined : Number(match[1]) / 1_000_000;
}

async function* readLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/**
 * Starts a daemon and ends it again.
 * @param variable the one that names the socket to the daemon, or to its child
 * @returns milliseconds until something was said there; undefined when nothing was
 */
export async function timeStart(
  file: string,
  start: { argv: readonly string[]; variable: string; socket: string },
): Promise<number | undefined> {
  const { argv, variable, socket } = start;
  const { output } = await tryCommand([file, "start", socket, variable, ...argv]);
  return readTaken(output);
}
