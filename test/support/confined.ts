/** Programs in the place of a VMM, started as a worker starts one, by the compiled file. */
import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import { Signal } from "../../src/units/signals.ts";
import type { VmmIdentity } from "../../src/vm/perform/vmm-identity.ts";
import {
  type OwnProgram,
  startVmm,
  type VmmEnding,
  VmmProcess,
  type VmmStart,
  type VmmStartResult,
  type WaitingConfiners,
} from "../../src/vm/perform/vmm-process.ts";
import { defaultUserRange } from "../../src/vm/users.ts";
import { hostler } from "./binary.ts";
import { testEventLoop } from "./event-loop.ts";
import { compilePrograms } from "./partition.ts";
import { type ProbeReport, parseProbe } from "./probe-report.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor, withDeadline } from "./wait-for.ts";

export const confinedUser = defaultUserRange.first + 7;
export const confinedGroup = defaultUserRange.first + 8;

export const newInvocation = (): string => randomBytes(16).toString("hex");

/** Our compiled file, through other programs that become it: they take something away first. */
export function compiled(...before: readonly [string, ...string[]] | []): OwnProgram {
  const words = [...before, hostler()];
  return { path: words[0] ?? "", words };
}

/** What a start says beside its program. */
export type Fields = Partial<Omit<VmmStart, "plan">> & {
  readonly devices?: readonly string[];
  readonly own?: OwnProgram;
  readonly waiting?: WaitingConfiners;
};

export function startOf(argv: readonly string[], fields: Fields = {}): VmmStart {
  const { devices = ["/dev/null"], own: _own, waiting: _waiting, ...given } = fields;
  const [program = "", ...words] = argv;
  return {
    invocation: newInvocation(),
    plan: { program, arguments: words, descriptors: [], devices },
    environment: [],
    user: confinedUser,
    group: confinedGroup,
    cgroup: undefined,
    limits: { core: { soft: 0, hard: 0 } },
    outOfMemoryScore: 0,
    writable: [],
    descriptors: [],
    optional: [],
    ...given,
  };
}

/** A program that ran to its end. */
export interface Finished {
  /** Its standard output and its standard error, together. */
  readonly lines: readonly string[];
  readonly ending: VmmEnding;
  readonly started: VmmStartResult & { readonly kind: "started" };
}

/** A folder of a machine, which belongs to its user, and an event loop. */
export class ConfinedHost implements Disposable {
  readonly loop: EventLoop = testEventLoop();
  readonly #folder: TemporaryFolder = temporaryFolder();
  #probeProgram: string | undefined;
  /** Below it the user of the VMMs may write. */
  readonly runFolder: string;

  constructor() {
    // Other users go through it.
    chmodSync(this.#folder.path, 0o711);
    this.runFolder = this.#folder.file("run");
    mkdirSync(this.runFolder, { mode: 0o700 });
    chownSync(this.runFolder, confinedUser, confinedGroup);
  }

  get folder(): TemporaryFolder {
    return this.#folder;
  }

  /** Starts a program, and waits until it runs or was refused. */
  start(argv: readonly string[], fields: Fields = {}): Promise<VmmStartResult> {
    const start = startVmm(this.loop, startOf(argv, fields), {
      own: fields.own ?? compiled(),
      ...(fields.waiting && { waiting: fields.waiting }),
    });
    return withDeadline(`the start of ${argv[0]}`, start);
  }

  /** Runs a program to its end. @throws Error when its start is refused */
  async run(argv: readonly string[], fields: Fields = {}): Promise<Finished> {
    const path = this.#folder.file(`output-${newInvocation()}`);
    using output = new OwnedDescriptor(openSync(path, "wx"));
    const descriptors = [
      { source: output.number, target: 1 },
      { source: output.number, target: 2 },
      ...(fields.descriptors ?? []),
    ];
    const started = await this.start(argv, { ...fields, descriptors });
    if (started.kind === "refused") throw new Error(JSON.stringify(started.refusal));
    const { promise, resolve } = Promise.withResolvers<VmmEnding>();
    using _vmm = new VmmProcess(this.loop, started, resolve);
    const ending = await withDeadline(`the end of ${argv[0]}`, promise);
    const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
    return { lines, ending, started };
  }

  /** Runs a script of the shell. */
  shell(script: string, fields: Fields = {}): Promise<Finished> {
    return this.run(["/bin/sh", "-c", script], fields);
  }

  /** Tells what it was given: the program that `probe` starts. */
  get probeProgram(): string {
    this.#probeProgram ??= compilePrograms(this.#folder).probe;
    return this.#probeProgram;
  }

  /** What the probe, which then waits, was given, with OUTPUT as its output; and who it was. */
  async probe(
    fields: Fields = {},
  ): Promise<{ readonly report: ProbeReport; readonly identity: VmmIdentity }> {
    const path = this.#folder.file(`probe-${newInvocation()}`);
    writeFileSync(path, "");
    using output = new OwnedDescriptor(openSync(path, "a"));
    const descriptors = [{ source: output.number, target: 1 }, ...(fields.descriptors ?? [])];
    const result = await this.start([this.probeProgram, "word"], { ...fields, descriptors });
    if (result.kind === "refused") throw new Error(JSON.stringify(result.refusal));
    const { promise, resolve } = Promise.withResolvers<VmmEnding>();
    using vmm = new VmmProcess(this.loop, result, resolve);
    const text = await waitFor("the probe to have told", () => {
      const said = readFileSync(path, "utf8");
      return said.endsWith("end\n") && said;
    });
    vmm.signal(Signal.SIGKILL);
    const ending = await promise;
    if (ending.kind !== "signalled" || ending.signal !== Signal.SIGKILL) {
      throw new Error(`The probe ended by itself: ${JSON.stringify(ending)}`);
    }
    const report = parseProbe(text.replaceAll(path, "OUTPUT").split("\n"));
    return { report, identity: result.identity };
  }

  /** Starts a program that must be refused. @returns why it was */
  async refusal(argv: readonly string[], fields: Fields = {}) {
    const result = await this.start(argv, fields);
    if (result.kind === "refused") return result.refusal;
    using vmm = new VmmProcess(this.loop, result, () => {});
    vmm.signal(Signal.SIGKILL);
    throw new Error(`${argv[0]} was started`);
  }

  [Symbol.dispose](): void {
    this.loop[Symbol.dispose]();
    this.#folder[Symbol.dispose]();
  }
}
