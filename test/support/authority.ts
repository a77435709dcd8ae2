/**
 * The compiled authority with folders and sockets of its own, hosts with theirs, and the commands
 * as people type them. Nothing of it is left behind.
 */
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { IdentityEvent } from "../../src/identity/event-book.ts";
import { hostler } from "./binary.ts";
import {
  type Program,
  type ProgramOptions,
  type ProgramResult,
  runProgram,
  startProgram,
} from "./program.ts";
import { type Feature, feature } from "./skips.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

export interface RunOptions extends Omit<ProgramOptions, "deadlineMilliseconds"> {
  /** Words before the program, such as those that enter another namespace. */
  readonly before?: readonly string[];
}

export interface AuthorityStart extends RunOptions {
  /** Words behind `identity authority`. */
  readonly flags?: readonly string[];
  /** Loopback, and a port that is free. */
  readonly listen?: string;
  /** What else is an authority, such as `vm master`. */
  readonly role?: readonly string[];
  /** In place of dist/hostler. */
  readonly program?: string;
}

/** An event as `identity events --json` tells it. */
export type ToldEvent = IdentityEvent & { readonly id: string };

/** A record of the audit log as `audit list --json` tells it. */
export interface AuditLine {
  readonly sequence: number;
  readonly who: string;
  readonly from: string;
  readonly verb: string;
  readonly object: string;
  readonly result: string;
}

/** Runs `hostler WORDS`. */
export async function runHostler(
  words: readonly string[],
  { before = [], ...options }: RunOptions = {},
): Promise<ProgramResult> {
  return await runProgram([...before, hostler(), ...words], options);
}

/** What a command says when it is done. @throws Error when it is not */
export async function saysDone(
  words: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { exitCode, stdout, stderr } = await runHostler(words, options);
  if (exitCode === 0) return stdout;
  throw new Error(`hostler ${words.join(" ")} ended with ${exitCode}:\n${stdout}${stderr}`);
}

/** What a command refuses with. @throws Error when it does not refuse with 111 */
export async function saysRefused(
  words: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { exitCode, stdout, stderr } = await runHostler(words, options);
  if (exitCode === 111) return stderr;
  throw new Error(`hostler ${words.join(" ")} ended with ${exitCode}:\n${stdout}${stderr}`);
}

const listening = /listening at (https:[^\s"]+)/;
/** Milliseconds: its first start makes a key and a certificate, on a machine that others use. */
const START_TIME = 60_000;

export class TestAuthority implements AsyncDisposable {
  readonly folder: TemporaryFolder = temporaryFolder();
  readonly controlSocket: string = this.folder.file("control.sock");
  readonly stateDirectory: string = this.folder.file("authority");
  readonly #programs: Program[] = [];
  #daemon: Program | undefined;
  #address = "";
  #files = 0;

  static async start(options: AuthorityStart = {}): Promise<TestAuthority> {
    const authority = new TestAuthority();
    try {
      await authority.start(options);
      return authority;
    } catch (error) {
      await authority[Symbol.asyncDispose]();
      throw error;
    }
  }

  get daemon(): Program {
    if (this.#daemon === undefined) throw new Error("The authority was not started");
    return this.#daemon;
  }

  /** "https://127.0.0.1:40112", where it listens; the same port again when it is started anew. */
  get address(): string {
    return this.#address;
  }

  get port(): number {
    return Number(new URL(this.#address).port);
  }

  async start(options: AuthorityStart = {}): Promise<void> {
    const {
      flags = [],
      before = [],
      listen,
      role = ["identity", "authority"],
      ...others
    } = options;
    const { program = hostler(), ...rest } = others;
    const place = listen ?? (this.#address === "" ? "127.0.0.1:0" : new URL(this.#address).host);
    const words = [
      ...[...role, "--listen", place, "--state-directory", this.stateDirectory],
      ...["--control-socket", this.controlSocket, "--verbose", ...flags],
    ];
    this.#daemon = startProgram([...before, program, ...words], rest);
    this.#programs.push(this.#daemon);
    const [, address = ""] = await this.#daemon.said(listening, START_TIME);
    this.#address = address;
  }

  /** @returns how it ended. @throws DeadlineError */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<ProgramResult> {
    this.daemon.kill(signal);
    return await this.daemon.ended();
  }

  async restart(options: AuthorityStart = {}): Promise<void> {
    await this.stop();
    await this.start(options);
  }

  /** `hostler identity WORDS` of root on the authority's host. */
  local(...words: readonly string[]): string[] {
    return ["identity", ...words, "--control-socket", this.controlSocket];
  }

  async ask(...words: readonly string[]): Promise<string> {
    return await saysDone(this.local(...words));
  }

  async askJson<T>(...words: readonly string[]): Promise<T> {
    return JSON.parse(await this.ask(...words, "--json")) as T;
  }

  async refuses(...words: readonly string[]): Promise<string> {
    return await saysRefused(this.local(...words));
  }

  /** Text in a file that its owner alone may read. @returns the path */
  secretFile(text: string): string {
    this.#files += 1;
    const path = this.folder.file(`secret-${this.#files}`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }

  async token(host: string, ...flags: readonly string[]): Promise<string> {
    return (await this.ask("token", "create", host, ...flags)).trim();
  }

  host(name: string): TestHost {
    return new TestHost(this.folder.file(`host-${name}`));
  }

  /** A host that was let in. */
  async enrolled(name: string, options: RunOptions = {}): Promise<TestHost> {
    const host = this.host(name);
    await host.enrol(await this.token(name), options);
    return host;
  }

  /** A host's session that stays; it is ended with the authority. */
  async session(host: TestHost, options: RunOptions = {}): Promise<Program> {
    const session = host.startSession(options);
    this.#programs.push(session);
    await session.said(/link is up/);
    return session;
  }

  /** The certificate that it shows. */
  async pin(): Promise<string> {
    return (await this.askJson<{ shown: string }>("certificate", "list")).shown;
  }

  async operator(name: string, ...flags: readonly string[]): Promise<TestOperator> {
    const token = (await this.ask("operator", "add", name, ...flags)).trim();
    return new TestOperator(this, token, await this.pin());
  }

  async events(): Promise<ToldEvent[]> {
    const lines = await this.ask("events", "--json");
    return lines
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as ToldEvent);
  }

  /** Events, in their words for people, by kind. */
  async eventsOf(...kinds: readonly IdentityEvent["kind"][]): Promise<ToldEvent[]> {
    return (await this.events()).filter(({ kind }) => kinds.includes(kind));
  }

  async audit(): Promise<AuditLine[]> {
    const directory = join(this.stateDirectory, "audit");
    const words = ["audit", "list", "--directory", directory, "--json", "-n", "all"];
    const lines = await saysDone(words);
    return lines
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as AuditLine);
  }

  /** The log's chain holds. @throws Error */
  async auditVerifies(): Promise<void> {
    await saysDone(["audit", "verify", "--directory", join(this.stateDirectory, "audit")]);
  }

  /** Ends what a test started here, such as a session. */
  owns(program: Program): Program {
    this.#programs.push(program);
    return program;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) await program[Symbol.asyncDispose]();
    this.folder[Symbol.dispose]();
  }
}

/** A host's folder, and what is typed there. */
export class TestHost {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  words(command: string, ...words: readonly string[]): string[] {
    return ["identity", command, ...words, "--directory", this.directory];
  }

  async enrol(token: string, options: RunOptions = {}): Promise<string> {
    return await saysDone(this.words("enrol"), { ...options, input: token });
  }

  async refusesToEnrol(token: string, options: RunOptions = {}): Promise<string> {
    return await saysRefused(this.words("enrol"), { ...options, input: token });
  }

  async does(command: string, options: RunOptions = {}): Promise<string> {
    return await saysDone(this.words(...(command.split(" ") as [string])), options);
  }

  async refuses(command: string, options: RunOptions = {}): Promise<string> {
    return await saysRefused(this.words(...(command.split(" ") as [string])), options);
  }

  /** @returns the id of a session that was opened */
  async openOnce(options: RunOptions = {}): Promise<string> {
    const said = await this.does("session --once --json", options);
    return (JSON.parse(said) as { session: string }).session;
  }

  startSession({ before = [], ...options }: RunOptions = {}): Program {
    return startProgram([...before, hostler(), ...this.words("session")], options);
  }

  get journal(): { readonly pins: readonly string[]; readonly time: number } {
    return JSON.parse(readFileSync(join(this.directory, "authority.json"), "utf8"));
  }
}

/** An operator elsewhere: a token in a file, and the pin of the authority. */
export class TestOperator {
  readonly token: string;
  readonly file: string;
  readonly #authority: TestAuthority;
  pin: string;
  /** How its commands run. */
  options: RunOptions = {};

  constructor(authority: TestAuthority, token: string, pin: string) {
    this.#authority = authority;
    this.token = token;
    this.pin = pin;
    this.file = authority.secretFile(`${token}\n`);
  }

  words(...words: readonly string[]): string[] {
    const { address } = this.#authority;
    const place = ["--authority", address, "--pin", this.pin, "--token-file", this.file];
    return ["identity", ...words, ...place];
  }

  async ask(...words: readonly string[]): Promise<string> {
    return await saysDone(this.words(...words), this.options);
  }

  async refuses(...words: readonly string[]): Promise<string> {
    return await saysRefused(this.words(...words), this.options);
  }
}

/** Waits until `host list` tells that the host has spoken. */
export async function present(authority: TestAuthority, host: string): Promise<void> {
  await waitFor(`a word of ${host}`, async () => {
    const hosts = await authority.askJson<{ name: string; presence: unknown }[]>("host", "list");
    return hosts.some(({ name, presence }) => name === host && presence !== null);
  });
}

const faketimeLibrary = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
  .map((folder) => `/usr/lib/${folder}/faketime/libfaketime.so.1`)
  .find((path) => existsSync(path));

export const faketime: Feature = feature(
  "no libfaketime (Debian: faketime)",
  () => faketimeLibrary !== undefined,
);

/**
 * A program's wall clock: "@2045-01-01 00:00:00" goes on from there, without "@" it stands still.
 * The monotonic clock is the machine's, as it is of one whose battery was flat.
 */
export function wallClockAt(time: string): Record<string, string> {
  return {
    LD_PRELOAD: faketimeLibrary ?? "",
    FAKETIME: time,
    DONT_FAKE_MONOTONIC: "1",
    TZ: "UTC",
  };
}

/** A wall clock that a test sets while programs run: theirs are the machine's until then. */
export function jumpingClock(path: string): {
  readonly environment: Readonly<Record<string, string>>;
  set(time: string): void;
} {
  const { FAKETIME: _time, ...base } = wallClockAt("");
  writeFileSync(path, "+0");
  return {
    // Without it a file is read once in ten seconds: faketime(1).
    environment: { ...base, FAKETIME_TIMESTAMP_FILE: path, FAKETIME_NO_CACHE: "1" },
    set: (time) => writeFileSync(path, time),
  };
}

/** Words that run a program in another boot, as far as it can see. */
export function inBoot(folder: TemporaryFolder, boot: string): string[] {
  const file = folder.file(`boot-${boot}`);
  writeFileSync(file, `${boot}\n`);
  chmodSync(file, 0o444);
  const script = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"';
  return ["unshare", "--mount", "sh", "-c", script, file];
}
