/** The programs under measurement, and those around them: started, told, and ended. */
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { encodeFrame } from "../../src/messaging/frame.ts";
import { runCommand } from "../command.ts";
import { ScriptError } from "../terminal.ts";

/** What was compiled, and where sockets and state are made: in memory, as below /run. */
export interface LiveUpdateFiles {
  readonly folder: string;
  readonly hostler: string;
  readonly kernel: string;
  readonly client: string;
  readonly floor: string;
  /** The stand-in for the kernel listens here. */
  readonly kernelSocket: string;
}

/** A program that says lines. */
export interface Spoken extends AsyncDisposable {
  readonly processId: number;
  /** @returns the next line that matches; the others before it are passed over. */
  said(pattern: RegExp): Promise<RegExpExecArray>;
  say(line: string): Promise<void>;
  readonly exited: Promise<number>;
}

/** @param from where its lines come; what it says beside them is shown */
export function startSpoken(
  argv: readonly string[],
  options: {
    readonly from: "stdout" | "stderr";
    readonly environment?: Readonly<Record<string, string>>;
  },
): Spoken {
  const child = Bun.spawn([...argv], {
    env: { PATH: process.env["PATH"], ...options.environment },
    stdin: "pipe",
    stdout: "pipe",
    stderr: options.from === "stderr" ? "pipe" : "inherit",
  });
  const lines = readLines((options.from === "stderr" ? child.stderr : child.stdout) as Lines);
  return {
    processId: child.pid,
    said: async (pattern) => {
      for (;;) {
        const { value, done } = await lines.next();
        if (done === true) {
          const code = await child.exited;
          const message = `${argv.join(" ")} ended with ${code} before it said ${pattern}`;
          throw new ScriptError(message, { exitCode: 1 });
        }
        const match = pattern.exec(value);
        if (match !== null) return match;
      }
    },
    say: async (line) => {
      child.stdin.write(`${line}\n`);
      await child.stdin.flush();
    },
    exited: child.exited,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

type Lines = ReadableStream<Uint8Array>;

async function* readLines(stream: Lines): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** A broker of sessions: hostler's daemon, or the floor. */
export interface Broker extends AsyncDisposable {
  readonly socket: string;
  /** Daemon and holder; the floor alone. */
  readonly processIds: readonly number[];
  connect(): Promise<Commander>;
  /** How many ids are subscribed; the floor does not tell. */
  subscribed(): Promise<number>;
}

export interface Commander extends Disposable {
  /** Sends the command, and tells nothing of what is said back. */
  command(): void;
  /** Waits until the update has ended in this kernel: the reboot was refused. */
  ended(): Promise<void>;
}

export type Side = "hostler" | "floor";

/** Starts a broker in a folder of its own. */
export async function startBroker(
  side: Side,
  place: { readonly files: LiveUpdateFiles; readonly folder: string },
): Promise<Broker> {
  const { files, folder } = place;
  mkdirSync(folder, { recursive: true });
  return side === "hostler" ? await startDaemon(files, folder) : await startFloor(files, folder);
}

async function startFloor(files: LiveUpdateFiles, folder: string): Promise<Broker> {
  const socket = join(folder, "floor.socket");
  const program = startSpoken([files.floor, socket, files.kernelSocket], { from: "stdout" });
  await program.said(/^listening/);
  return {
    socket,
    processIds: [program.processId],
    subscribed: async () => 0,
    connect: async () => await connect(socket, new TextEncoder().encode('{"cmd":"GO"}\n')),
    [Symbol.asyncDispose]: async () => await program[Symbol.asyncDispose](),
  };
}

const order = {
  id: 1,
  verb: "kexec",
  dry_run: false,
  include_bare: false,
  discard_unclaimed: true,
  by: "reboot",
};

async function startDaemon(files: LiveUpdateFiles, folder: string): Promise<Broker> {
  const [socket, control] = [join(folder, "clients.socket"), join(folder, "control.socket")];
  const sockets = ["--socket", socket, "--control-socket", control, "--state-directory", folder];
  const program = startSpoken([files.hostler, "live-update", "daemon", ...sockets], {
    from: "stderr",
    environment: { HOSTLER_LIVE_UPDATE_KERNEL: files.kernelSocket },
  });
  await program.said(/listening at/);
  const holder = holderOf(control);
  return {
    socket,
    processIds: [program.processId, holder],
    subscribed: async () => {
      const words = ["live-update", "status", "--json", "--control-socket", control];
      return JSON.parse(await runCommand([files.hostler, ...words])).clients;
    },
    connect: async () => await connect(control, encodeFrame(order)),
    [Symbol.asyncDispose]: async () => {
      await program[Symbol.asyncDispose]();
      // It goes on without its daemon, while it keeps something.
      if (wordsOf(String(holder))[2] === control) process.kill(holder, "SIGKILL");
    },
  };
}

/** The answer's first word; events of the update come before it. */
const answerMark = '"ok":';

async function connect(path: string, command: Uint8Array): Promise<Commander> {
  let answered = Promise.withResolvers<void>();
  let rest = "";
  const socket = await Bun.connect({
    unix: path,
    socket: {
      data: (_socket, bytes) => {
        const text = rest + bytes.toString("latin1");
        rest = text.slice(-answerMark.length);
        if (text.includes(answerMark)) answered.resolve();
      },
    },
  });
  return {
    command: () => {
      answered = Promise.withResolvers();
      rest = "";
      if (socket.write(command) !== command.length) throw new Error("Bug: a command was cut");
    },
    ended: async () => await answered.promise,
    [Symbol.dispose]: () => {
      socket.end();
    },
  };
}

/** The daemon's holder, by the words that it was started with. */
function holderOf(control: string): number {
  const found = readdirSync("/proc").find((name) => {
    if (!/^\d+$/.test(name)) return false;
    const words = wordsOf(name);
    return words[1] === "--hold" && words[2] === control;
  });
  if (found === undefined) throw new ScriptError("The daemon has no holder", { exitCode: 1 });
  return Number(found);
}

function wordsOf(processId: string): readonly string[] {
  try {
    return readFileSync(`/proc/${processId}/cmdline`, "latin1").split("\0");
  } catch {
    // It ended meanwhile.
    return [];
  }
}
