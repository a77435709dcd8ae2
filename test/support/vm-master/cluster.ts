/** The compiled master, and workers whose words a test writes itself. */
import { writeFileSync } from "node:fs";
import type {
  AssignmentAnswer,
  AssignmentPlace,
  ClusterMachine,
  ClusterStatus,
  Report,
  ReportAnswer,
} from "../../../src/vm/protocol-master.ts";
import { masterApi } from "../../../src/vm/protocol-master.ts";
import { type AuthorityStart, runHostler, saysDone, TestAuthority } from "../authority.ts";
import type { ProgramResult } from "../program.ts";
import { ownBoot, type RawAnswer, RawHost } from "../raw-host.ts";
import { reported, reportOf } from "./reports.ts";

export type MasterStart = Omit<AuthorityStart, "role">;

export class TestMaster implements AsyncDisposable {
  readonly authority = new TestAuthority();
  #files = 0;

  static async start(options: MasterStart = {}): Promise<TestMaster> {
    const master = new TestMaster();
    try {
      await master.start(options);
      return master;
    } catch (error) {
      await master[Symbol.asyncDispose]();
      throw error;
    }
  }

  async start(options: MasterStart = {}): Promise<void> {
    await this.authority.start({ ...options, role: ["vm", "master"] });
  }

  file(text: string, ending = "toml"): string {
    this.#files += 1;
    const path = this.authority.folder.file(`file-${this.#files}.${ending}`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }

  /** A program that a fence hook may be. */
  script(text: string): string {
    const path = this.file(`#!/bin/sh\n${text}\n`, "sh");
    Bun.spawnSync(["chmod", "700", path]);
    return path;
  }

  words(...words: readonly string[]): string[] {
    return ["vm", ...words, "--control-socket", this.authority.controlSocket];
  }

  /** `hostler vm WORDS` of root on the master's host. */
  async ask(...words: readonly string[]): Promise<string> {
    return await saysDone(this.words(...words));
  }

  async tries(...words: readonly string[]): Promise<ProgramResult> {
    return await runHostler(this.words(...words));
  }

  async declares(verb: "apply" | "diff", text: string): Promise<ProgramResult> {
    const { controlSocket } = this.authority;
    const flags = ["--master", "--master-socket", controlSocket];
    return await runHostler(["vm", verb, this.file(text), ...flags]);
  }

  /** @throws Error when it is not taken */
  async apply(text: string): Promise<void> {
    const { exitCode, stderr } = await this.declares("apply", text);
    if (exitCode !== 0) throw new Error(`apply ended with ${exitCode}: ${stderr}`);
  }

  async status(): Promise<ClusterStatus> {
    return JSON.parse(await this.ask("cluster", "--json")) as ClusterStatus;
  }

  async machine(name: string): Promise<ClusterMachine> {
    const { machines } = await this.status();
    const found = machines.find((machine) => machine.name === name);
    if (found === undefined) throw new Error(`There is no machine ${name}`);
    return found;
  }

  async worker(name: string): Promise<ScriptedWorker> {
    const host = new RawHost(await this.authority.token(name));
    await host.enrol();
    const worker = new ScriptedWorker(name, host);
    await worker.open();
    return worker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.authority[Symbol.asyncDispose]();
  }
}

const runs = { count: 0 };

/** A worker that says what a test has it say. */
export class ScriptedWorker {
  readonly name: string;
  readonly #host: RawHost;
  #bearer = "";
  #sequence = 0;
  readonly #run: string;
  /** The assignment that it has taken up. */
  observed: AssignmentPlace | null = null;
  machines: Report["machines"] = [];

  constructor(name: string, host: RawHost) {
    this.name = name;
    this.#host = host;
    runs.count += 1;
    this.#run = String(runs.count).padStart(32, "0");
  }

  /** A session, again when the master was started anew. */
  async open(): Promise<void> {
    this.#bearer = await this.#host.bearer(this.name);
  }

  async post(path: string, body: unknown): Promise<RawAnswer> {
    return await this.#host.ask(path, { method: "POST", body, bearer: this.#bearer });
  }

  /** Whatever the master says of it. */
  async tries(change: Partial<Report> = {}): Promise<RawAnswer> {
    this.#sequence += 1;
    const { observed, machines } = this;
    const own = { boot: ownBoot, run: this.#run, sequence: this.#sequence, observed, machines };
    return await this.post(masterApi.report.path, reportOf({ ...own, ...change }));
  }

  /** @throws Error when it is refused */
  async report(change: Partial<Report> = {}): Promise<ReportAnswer> {
    return understood<ReportAnswer>(await this.tries(change));
  }

  /** @param wait milliseconds for another assignment than the one that it has */
  async assignment(wait = 0): Promise<AssignmentAnswer> {
    const body = { version: 1, last_seen: this.observed, wait_ms: wait };
    return understood<AssignmentAnswer>(await this.post(masterApi.assignment.path, body));
  }

  /** Takes up what it is to have, as if all of it ran at once, and says so. */
  async follow(): Promise<ReportAnswer> {
    const answer = await this.assignment();
    if (answer.kind === "assignment") {
      const { incarnation, generation, revision, machines } = answer;
      this.observed = { incarnation, generation, revision };
      this.machines = machines.map(({ spec, owner_generation }) =>
        reported(spec.name, owner_generation),
      );
    }
    return await this.report();
  }
}

function understood<T>({ status, body }: RawAnswer): T {
  if (status === 200) return body as T;
  throw new Error(`Refused with ${status}: ${JSON.stringify(body)}`);
}

/** A declaration of machines that a worker could make. */
export function declaration(machines: Readonly<Record<string, string>>): string {
  return Object.entries(machines)
    .map(([name, more]) => `[[machine]]\nname = "${name}"\nkernelPath = "/boot/vmlinuz"\n${more}\n`)
    .join("\n");
}
