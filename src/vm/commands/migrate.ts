import { closeSync, fsyncSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { isIP } from "node:net";
import * as v from "valibot";
import { printJson, printText } from "../../command-line/output.ts";
import { ProgressLine } from "../../command-line/progress.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { withFile, withNamedFile } from "../../journal/file-refused.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { parseDuration } from "../../units/units.ts";
import { WorkerClient } from "../client.ts";
import type { VmSpec } from "../protocol.ts";
import { migrationLimits, readTicket, refuseTicketHost } from "../protocol-migration.ts";
import { networksSchema } from "../protocol-network.ts";
import { awaitPhase } from "./await-phase.ts";
import { cardOf } from "./create.ts";
import { printSummary } from "./words.ts";

interface ReceiveOptions {
  readonly name: string;
  readonly listen: string | undefined;
  readonly expires: string | undefined;
  readonly out: string | undefined;
  readonly cancel: boolean;
  readonly network: readonly string[];
  readonly "control-socket": string;
}

/** Makes a ticket and prints it, or takes it back. */
export async function runReceive(options: ReceiveOptions): Promise<number> {
  const { name, listen, expires, out, cancel, network } = options;
  if (cancel) {
    using client = await WorkerClient.connect(options["control-socket"]);
    await client.cancelReceive(name);
    await printText(`${name}: the ticket is taken back\n`);
    return ExitCode.done;
  }
  if (listen === undefined) {
    throw new UsageError("Expected --listen ADDRESS:PORT, where the other host reaches this one");
  }
  const { host, port } = readListen(listen);
  const time = expires === undefined ? {} : { time_ms: readTime(expires) };
  const networks = network.length === 0 ? {} : { networks: cardsOf(network) };
  const ask = async () => {
    using client = await WorkerClient.connect(options["control-socket"]);
    const ticket = await client.receive({ name, host, port, ...time, ...networks });
    return `${JSON.stringify(ticket)}\n`;
  };
  if (out === undefined) await printText(await ask());
  else await writeTicket(out, ask);
  return ExitCode.done;
}

/** @throws UsageError */
function cardsOf(words: readonly string[]): VmSpec["networks"] {
  const parsed = v.safeParse(networksSchema, words.map(cardOf));
  if (parsed.success) return parsed.output;
  throw new UsageError(`--network: ${describeIssues(parsed.issues)}`);
}

/** "192.0.2.7:0" or "[2001:db8::7]:0". @throws UsageError */
function readListen(text: string): { readonly host: string; readonly port: number } {
  const [, six, four, digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = six ?? four ?? "";
  const port = Number(digits);
  if (isIP(host) !== 0 && (six === undefined) === (isIP(host) === 4) && port <= 65_535) {
    const refusal = refuseTicketHost(host);
    if (refusal !== undefined) throw new UsageError(`--listen: ${refusal}`);
    return { host, port };
  }
  throw new UsageError(
    `Expected an address of this host with a port, such as 192.0.2.7:0, received ${text}`,
  );
}

function readTime(text: string): number {
  const time = parseDuration(text);
  const { longestTicketTime } = migrationLimits;
  if (time !== undefined && time >= 1_000 && time <= longestTicketTime) return time;
  throw new UsageError(`Expected a time of 1s to 24h, such as 10m, received ${text}`);
}

/** Nobody else may read it. It is there before it is asked for, and gone where that is refused. */
async function writeTicket(path: string, ask: () => Promise<string>): Promise<void> {
  const place = { what: "write the ticket to", path, otherwise: "name another file" };
  const file = withFile(place, () => openSync(path, "wx", 0o600));
  try {
    const text = await ask();
    withFile(place, () => {
      writeSync(file, text);
      fsyncSync(file);
    });
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  } finally {
    closeSync(file);
  }
}

interface MigrateOptions {
  readonly name: string;
  readonly ticket: string | undefined;
  readonly "resume-here": boolean;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Gives a machine to the host of a ticket, or says that it is this one's. */
export async function runMigrate(options: MigrateOptions): Promise<number> {
  const { name, ticket, json } = options;
  if (options["resume-here"]) {
    if (ticket !== undefined) throw new UsageError("--ticket and --resume-here exclude each other");
    using client = await WorkerClient.connect(options["control-socket"]);
    const claimed = await client.change("claim", name);
    const phase = claimed?.wanted === "paused" ? "paused" : "running";
    await printSummary(await awaitPhase(client, name, phase), options);
    return ExitCode.done;
  }
  if (ticket === undefined) {
    throw new UsageError("Expected --ticket FILE, which hostler vm receive made, or --resume-here");
  }
  const text = readTicketFile(ticket);
  using client = await WorkerClient.connect(options["control-socket"]);
  const result = await withProgress((show) => client.migrate(name, text, show));
  if (json) await printJson(result);
  else {
    await printText(
      `${name}: runs at ${result.to} now; it stood still for ${result.pause_ms} ms, ` +
        `${formatBytes(result.bytes)} in ${result.time_ms} ms\n`,
    );
  }
  return ExitCode.done;
}

interface ForgetOptions {
  readonly name: string;
  readonly "control-socket": string;
}

/** Lets a declared machine be made here again that went to another host. */
export async function runForgetMigrated(options: ForgetOptions): Promise<number> {
  const { name } = options;
  using client = await WorkerClient.connect(options["control-socket"]);
  await client.forgetMigrated(name);
  await printText(`${name}: is made anew here, as it is declared\n`);
  return ExitCode.done;
}

/** @throws UsageError, NamedFileRefused, FileRefused: what the ticket says is in none of them */
function readTicketFile(path: string): string {
  const place = { what: "read the ticket", path, otherwise: "name another file" };
  const text = withNamedFile(place, () => {
    const source = path === "-" ? 0 : path;
    const size = path === "-" ? 0 : statSync(path).size;
    if (size > migrationLimits.ticketBytes) {
      throw new UsageError(
        `Expected at most ${migrationLimits.ticketBytes} bytes in ${path}, received ${size}`,
      );
    }
    return readFileSync(source, "utf8");
  });
  const read = readTicket(text);
  if (read.kind === "refused") throw new UsageError(`The ticket ${path}: ${read.reason}`);
  return text;
}

type Show = Parameters<WorkerClient["migrate"]>[2];

const stageWords = {
  image: "sending the image",
  disks: "sending the disks",
  memory: "sending the memory",
} as const;

async function withProgress<T>(act: (show: Show) => Promise<T>): Promise<T> {
  using lines = new DisposableStack();
  const made = new Map<string, ProgressLine>();
  return await act(({ stage, done_bytes: done, all_bytes: all, rounds }) => {
    const what = rounds > 1 ? `${stageWords[stage]}, round ${rounds}` : stageWords[stage];
    const line = made.get(what) ?? lines.use(new ProgressLine(what));
    made.set(what, line);
    line.show(done, all);
  });
}
