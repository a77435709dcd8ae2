/** luod, luoctl and their clients of a story in a guest, by the compiled file and in Python. */
import { readdirSync, readFileSync } from "node:fs";
import { LiveUpdateClient } from "../../../src/live-update/client.ts";
import { defaultClientSocket, defaultControlSocket } from "../../../src/live-update/protocol.ts";
import {
  type Program,
  type ProgramResult,
  runProgram,
  startProgram,
} from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import { type Case, tellCases } from "./tell.ts";

/** A guest is slow where its processor is emulated, and more so beside others. */
const patienceMilliseconds = 180_000;

/** What runs until the end of the story. */
const started: Program[] = [];

/** Runs until the end of the story, if it does not end by itself. */
export function startLasting(...given: Parameters<typeof startProgram>): Program {
  const program = startProgram(...given);
  started.push(program);
  return program;
}

/**
 * Tells the cases, and has what follows them done when all went well; ends what was started.
 * @param enter gives back nothing when the next kernel is entered
 */
export async function tellStory(
  cases: Readonly<Record<string, Case>>,
  enter?: () => Promise<never>,
): Promise<void> {
  let isGood = (await tellCases(cases)) === 0;
  if (isGood && enter !== undefined) {
    await enter().catch((error: unknown) => console.log(`HOSTLER-NOTE ${error}`));
    isGood = false;
  }
  for (const program of started) await program[Symbol.asyncDispose]();
  process.exitCode = isGood ? 0 : 1;
}

/** One of the clients that cast.py plays; its head says what the fields are. */
export interface Role {
  readonly id: string;
  readonly bare?: boolean;
  readonly does?: "keep" | "claim" | "carry";
  readonly parts?: readonly string[];
  readonly kib?: number;
  readonly files?: number;
  readonly required?: boolean;
  readonly deadline_ms?: number;
  readonly fates?: readonly string[];
  readonly ending?: "finish" | "hold" | "crash";
}

const words = (roles: readonly Role[]) => [
  "/scenario/cast.py",
  defaultClientSocket,
  JSON.stringify(roles),
];

/**
 * Clients that play their roles until they are killed.
 * @param options.stubborn SIGTERM does not end them
 */
export function startCast(
  roles: readonly Role[],
  options: { readonly stubborn?: boolean } = {},
): Cast {
  const environment = options.stubborn === true ? { CAST_IGNORES_SIGTERM: "1" } : {};
  return new Cast(startLasting(["python3", ...words(roles)], { environment }));
}

export class Cast implements AsyncDisposable {
  readonly program: Program;

  constructor(program: Program) {
    this.program = program;
  }

  get lines(): string[] {
    return this.program.output.stdout.split("\n").filter((line) => line !== "");
  }

  /** How often it has said this. */
  count(pattern: RegExp): number {
    return this.lines.filter((line) => pattern.test(line)).length;
  }

  /** Until it has said this so often, from its beginning. */
  async says(pattern: RegExp, times = 1): Promise<void> {
    await waitFor(
      `a cast to say ${times} times ${pattern}`,
      () => {
        if (this.count(/^cast failed/) > 0) throw new Error(this.lines.slice(-5).join("\n"));
        return this.count(pattern) >= times;
      },
      patienceMilliseconds,
    ).catch((error: unknown) => {
      throw new Error(`${error}\n${this.lines.slice(-20).join("\n")}${this.program.output.stderr}`);
    });
  }

  async ended(): Promise<readonly string[]> {
    const { exitCode, stdout, stderr } = await this.program.ended(patienceMilliseconds);
    if (exitCode !== 0) throw new Error(`a cast ended with ${exitCode}\n${stdout}${stderr}`);
    return this.lines;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]();
  }
}

/** Claims, looks whether everything is there, and finishes. @returns what it said */
export async function claim(roles: readonly Role[]): Promise<readonly string[]> {
  await using cast = startCast(roles.map((role) => ({ does: "claim", ...role })));
  return await cast.ended();
}

/** @param options.killAt where it ends itself by SIGKILL; it is the build for fault tests then */
export async function startLuod(
  options: { readonly words?: readonly string[]; readonly killAt?: string } = {},
): Promise<Program> {
  const { killAt, words: flags = [] } = options;
  if (killAt === undefined) {
    const luod = startLasting(["luod", ...flags]);
    await luod.said(/listening at/, patienceMilliseconds);
    return luod;
  }
  return startLasting(["hostler-faults", "live-update", "daemon", ...flags], {
    environment: { HOSTLER_KILL_AT: killAt },
  });
}

/** By SIGTERM: it leaves its sessions to the holder. */
export async function stopLuod(luod: Program): Promise<void> {
  luod.kill("SIGTERM");
  const { exitCode, stderr } = await luod.ended(patienceMilliseconds);
  if (exitCode !== 0) throw new Error(`luod ended with ${exitCode}\n${stderr}`);
}

export async function killed(program: Program): Promise<void> {
  const { exitCode, signal, stderr } = await program.ended(patienceMilliseconds);
  if (signal !== "SIGKILL") throw new Error(`ended with ${signal ?? exitCode}\n${stderr}`);
}

export async function luoctl(...given: string[]): Promise<ProgramResult> {
  return await runProgram(["luoctl", ...given], { deadlineMilliseconds: patienceMilliseconds });
}

/** @returns what it printed. @throws Error when it is refused */
export async function command(...given: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await luoctl(...given);
  if (exitCode !== 0)
    throw new Error(`luoctl ${given.join(" ")}: exit ${exitCode}\n${stdout}${stderr}`);
  return stdout;
}

/** @returns what it printed, to either side. @throws Error when it is not refused */
export async function refused(...given: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await luoctl(...given);
  if (exitCode !== 111)
    throw new Error(`luoctl ${given.join(" ")}: exit ${exitCode}\n${stdout}${stderr}`);
  return `${stdout}${stderr}`;
}

/** Asks luod without a program in between. */
export async function ask<T>(question: (client: LiveUpdateClient) => Promise<T>): Promise<T> {
  using client = await LiveUpdateClient.connect(defaultControlSocket);
  return await question(client);
}

export async function requireIdle(phase: "idle" | "loaded"): Promise<void> {
  await waitFor(
    `luod to be ${phase}`,
    async () => {
      const status = await ask((client) => client.status());
      return status.phase === phase && status.update === null;
    },
    patienceMilliseconds,
  );
  const left = await ask((client) => client.sessions());
  if (left.length > 0) throw new Error(`sessions are left: ${JSON.stringify(left)}`);
}

export async function requireClients(count: number): Promise<void> {
  await waitFor(
    `${count} clients`,
    async () => (await ask((client) => client.list())).length === count,
    patienceMilliseconds,
  );
}

/** The word by which a process is a holder; its socket follows. */
export function holders(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((processId) => argumentsOf(processId).includes("--hold"));
}

function argumentsOf(processId: number): string[] {
  try {
    return readFileSync(`/proc/${processId}/cmdline`, "latin1").split("\0");
  } catch {
    return [];
  }
}

/** Kills the holder, and waits for the next one. */
export async function killHolder(): Promise<string> {
  const before = holders();
  if (before.length !== 1) throw new Error(`expected one holder, received ${before.join(", ")}`);
  for (const processId of before) process.kill(processId, "SIGKILL");
  const after = await waitFor(
    "another holder",
    () => holders().find((one) => !before.includes(one)),
    patienceMilliseconds,
  );
  return `${before[0]}, then ${after}`;
}

export async function loadOwn(): Promise<string> {
  return await command("load", "/boot/vmlinuz", "--reuse-cmdline");
}

export function requireMatch(text: string, pattern: RegExp): string {
  const found = pattern.exec(text);
  if (found === null) throw new Error(`expected ${pattern}, received ${text}`);
  return found[0];
}

/** One line for each, and nothing else than these. */
export function requireLines(lines: readonly string[], patterns: readonly RegExp[]): string {
  for (const pattern of patterns) {
    if (!lines.some((line) => pattern.test(line))) requireMatch(lines.join("\n"), pattern);
  }
  const other = lines.find((line) => !patterns.some((pattern) => pattern.test(line)));
  if (other !== undefined) throw new Error(`not expected: ${other}\n${lines.join("\n")}`);
  return `${lines.length} lines`;
}

/** The table of where an update's time went, for people who read the output. */
export async function tellBlackout(): Promise<string> {
  const table = await command("status");
  for (const line of table.trimEnd().split("\n")) console.log(`HOSTLER-NOTE ${line}`);
  const { blackout } = await ask((client) => client.status());
  if (blackout === null) throw new Error("no update is told of");
  return `barrier of ${blackout.clients} clients: ${blackout.barrier_ms} ms`;
}

/** Enters the next kernel; comes back only when that was refused. */
export async function enterKernel(...given: string[]): Promise<never> {
  // SIGTERM comes from luod: it ends whatever runs, before the kernel is entered.
  const { exitCode, stdout, stderr } = await luoctl("kexec", ...given);
  if (exitCode === 0) await new Promise(() => setInterval(() => {}, 2 ** 30));
  throw new Error(`luoctl kexec: exit ${exitCode}\n${stdout}${stderr}`);
}
