import { chownSync, existsSync, ftruncateSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { makeNamedPipe } from "../../../ffi/descriptor.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openProcess, signalProcess, takeDescriptor } from "../../../ffi/pidfd.ts";
import type { InstanceGroup } from "../../event-loop/instance-groups.ts";
import type { Choice } from "../../hypervisor/choose.ts";
import {
  type Boot,
  type Disk,
  type HypervisorDriver,
  type HypervisorProgram,
  type MachineFiles,
  MachineRefused,
  type MachineSpecification,
  type VmmConnection,
} from "../../hypervisor/driver.ts";
import { Signal } from "../../units/signals.ts";
import type { Milliseconds } from "../../units/units.ts";
import { consoleLogOf } from "../console-log.ts";
import type { AgentPlace } from "../guest-agent/client.ts";
import { VSOCK_PORT } from "../guest-agent/protocol.ts";
import {
  type Instance,
  type MachineEffect,
  type MachineEvent,
  orderLimits,
  type SpawnBeginning,
  type VmmCall,
} from "../lifecycle-state.ts";
import { refuseLimits } from "../machine-limits.ts";
import type { MachineRecord, RecordedChoice } from "../machine-record.ts";
import { DisksRefused, takeDisks } from "./disk-ownership.ts";
import { passStep } from "./kill-points.ts";
import { MachineAgent } from "./machine-agent.ts";
import { type GroupWish, LimitsRefused } from "./machine-cgroups.ts";
import { MachineConsole } from "./machine-console.ts";
import type { MachineParts, MachineTools, VmmPlace } from "./machine-tools.ts";
import { refusalOf } from "./refusal.ts";
import type { SnapshotSource } from "./snapshots.ts";
import { type Adoption, adoptVmm, findVmm, type VmmIdentity } from "./vmm-identity.ts";
import { makeVmmListener } from "./vmm-listener.ts";
import { makeVmmOutput } from "./vmm-output.ts";
import { type GivenDescriptor, startVmm, VmmProcess, type VmmStart } from "./vmm-process.ts";
import { type AttachedVmm, filesIn, VmmSeat } from "./vmm-seat.ts";

/** How a search is repeated while somebody is between its birth and its exec. */
const FIND_AGAIN_AFTER: Milliseconds = 20;
const MOST_FINDS = 100;
/** Between attempts to look at all, where the host has no descriptor or memory for it. */
const LOOK_AGAIN_AFTER: Milliseconds = 1_000;
/** Descriptors that a VMM may have: its sockets, disks, and threads' own. */
const DESCRIPTOR_LIMIT = 4096;
/** Characters of a VMM's last line that the log has. */
const LONGEST_LAST_WORD = 300;
/** Characters of an invocation that name the folder of its VMM: paths of sockets are short. */
const FOLDER_CHARACTERS = 8;
/** Among all processes a VMM is what an operator would miss the least early. */
const OUT_OF_MEMORY_SCORE = 0;
/**
 * cloud-hypervisor's vsock is a Unix socket of each VMM, so that every guest may have the first
 * context id that is a guest's: vsock(7).
 */
const GUEST_CONTEXT = 3;

/** What is to be done to a VMM. */
export type VmmEffect = Extract<
  MachineEffect,
  {
    kind:
      | "spawn"
      | "find"
      | "attach"
      | "create"
      | "boot"
      | "pause"
      | "resume"
      | "press-power-button"
      | "quit"
      | "capture"
      | "restore"
      | "snapshot"
      | "send"
      | "receive"
      | "kill"
      | "clear"
      | "end-beside";
  }
>;

/** Effects that are no orders over a connection. */
type NoOrder = "spawn" | "find" | "attach" | "kill" | "clear" | "end-beside";

interface Owner {
  readonly onEvent: (event: MachineEvent) => void;
  readonly record: () => MachineRecord;
  /** @throws what keeps the machine from being described */
  readonly parts: () => MachineParts;
  /** Writes down what its VMM is to be, before the first one is started. */
  readonly choose: (choice: RecordedChoice) => void;
  /** A line that its guest said. */
  readonly onLine: (line: string) => void;
}

/**
 * The VMMs of one machine: the one that has it, and while it is replaced another one beside it,
 * which waits for it, or which had it.
 */
export class MachineVmm implements Disposable {
  /** Of its guest, whichever VMM has it. */
  readonly agent: MachineAgent;
  /** The public key of the snapshot that is asked for next. */
  encryptTo: string | undefined;
  readonly #name: string;
  readonly #tools: MachineTools;
  readonly #owner: Owner;
  /** Who has the machine. */
  #seat: VmmSeat | undefined;
  /** Who waits for it. */
  #successor: VmmSeat | undefined;
  /** Who had it last, and is being ended. */
  #former: VmmSeat | undefined;
  /** undefined where its socket could not be made. */
  #console: MachineConsole | undefined;
  /** Starts whose end is not known yet, by invocation. */
  readonly #starting = new Map<string, Promise<void>>();
  /** VMMs that are being ended because they have not got the machine, by invocation. */
  readonly #ending = new Map<string, Promise<void>>();
  #lastOutput: string | undefined;
  #isDisposed = false;

  constructor(name: string, tools: MachineTools, owner: Owner) {
    this.#name = name;
    this.#tools = tools;
    this.#owner = owner;
    this.agent = new MachineAgent(tools.loop, () => this.#agentPlace);
  }

  get attached(): AttachedVmm | undefined {
    return this.#seat?.attached;
  }

  get processId(): number | undefined {
    return this.#seat?.identity.processId;
  }

  /** Which of them `specify` gives it. */
  get #agentPlace(): AgentPlace {
    const path = this.files.agent;
    const { choice, allocation } = this.#owner.record();
    if (choice?.hypervisor === "cloud-hypervisor") return { path, vsockPort: VSOCK_PORT };
    if (choice?.agent === "vsock") return { context: allocation.user, port: VSOCK_PORT };
    return { path };
  }

  get invocation(): string | undefined {
    return this.#seat?.identity.invocation;
  }

  /** Of the sockets of all its VMMs. */
  get #folder(): string {
    return join(this.#tools.runFolder, `${this.#owner.record().allocation.user}`);
  }

  /** Of one that lives: it stands where the worker put it that started it, maybe an older one. */
  #folderOf(invocation: string): string {
    const own = this.#newFolderOf(invocation);
    return existsSync(own) ? own : this.#folder;
  }

  #newFolderOf(invocation: string): string {
    return join(this.#folder, invocation.slice(0, FOLDER_CHARACTERS));
  }

  get files(): MachineFiles {
    return this.#seat?.files ?? filesIn(this.#folder);
  }

  /** Their sockets, which nobody serves any more. @throws Error (EBUSY …) */
  removeFiles(): void {
    rmSync(this.#folder, { recursive: true, force: true });
    rmSync(this.viewerSocket, { force: true });
  }

  adopt(instance: Instance): Adoption {
    const { processId, startTicks, invocation } = instance;
    const identity = { processId, startTicks, invocation, bootId: this.#tools.boot };
    const adoption = adoptVmm(identity);
    if (adoption.kind === "adopted") {
      this.#sit(identity, adoption.process, outputOf(adoption.process));
      // The worker before this one may have ended between its record and its cgroup.
      this.keepLimits();
    }
    return adoption;
  }

  /** SIGKILL to all that are known: who waits for the machine, and who had it, too. */
  kill(): void {
    for (const seat of [this.#seat, this.#successor, this.#former]) seat?.kill();
  }

  /** The same to one that was not adopted. @returns false where there is none */
  endUnadopted(instance: Instance): boolean {
    const { processId, startTicks, invocation } = instance;
    const adoption = adoptVmm({ processId, startTicks, invocation, bootId: this.#tools.boot });
    if (adoption.kind !== "adopted") return false;
    signalProcess(adoption.process, Signal.SIGKILL);
    adoption.process.close();
    return true;
  }

  /** Gives the VMM that it has the limits that are declared now; what cannot be kept is told. */
  keepLimits(): void {
    const { invocation } = this;
    if (invocation === undefined) return;
    try {
      this.#tools.cgroups.adjust(invocation, this.#limits());
    } catch (error) {
      this.#tools.onTrouble(`${this.#name}: ${refusalOf(error).message}`);
    }
  }

  /** @throws LimitsRefused for limits that cannot be meant for this machine */
  #limits(): GroupWish {
    const { spec } = this.#owner.record();
    const { limits } = spec;
    const onTrouble = (message: string) => this.#tools.onTrouble(`${this.#name}: ${message}`);
    const wish = { limits, disks: this.#tools.folders.disksOf(this.#name), onTrouble };
    if (limits === undefined) return wish;
    const { memory, processors } = this.#owner.parts();
    const refusal = refuseLimits(limits, { memoryMebibytes: memory / 1024 ** 2, processors });
    if (refusal !== undefined) throw new LimitsRefused(refusal);
    return wish;
  }

  /** What the VMM that ended last had said, or the one that it has says. */
  get output(): string | undefined {
    return this.#seat === undefined ? this.#lastOutput : this.#seat.output;
  }

  /** The last line of that. */
  get lastWords(): string | undefined {
    return lastWordsOf(this.output);
  }

  perform(effect: VmmEffect): void {
    switch (effect.kind) {
      case "spawn": {
        const { invocation } = effect;
        const start = this.#spawn(effect.invocation, effect.beginning);
        this.#starting.set(
          invocation,
          start.finally(() => this.#starting.delete(invocation)),
        );
        return;
      }
      case "find":
        void this.#find(effect.invocation);
        return;
      case "attach":
        this.#attach(effect);
        return;
      case "kill":
        this.#kill(effect.instance);
        return;
      case "clear":
        this.#clear(effect.instance, effect.capture);
        return;
      case "end-beside":
        this.#endBeside(effect.invocation);
        return;
      default:
        void this.#call(effect);
    }
  }

  /** A VMM that lives, and that has the machine or is to be given it. */
  #sit(identity: VmmIdentity, process: OwnedDescriptor, output: OwnedDescriptor | undefined): void {
    this.#seat?.[Symbol.dispose]();
    this.#console?.[Symbol.dispose]();
    this.#seat = this.#makeSeat(identity, process, output);
    this.#console = this.#openConsole();
  }

  #makeSeat(
    identity: VmmIdentity,
    process: OwnedDescriptor,
    output: OwnedDescriptor | undefined,
  ): VmmSeat {
    return new VmmSeat(this.#tools, {
      ...{ identity, process, output, folder: this.#folderOf(identity.invocation) },
      onEvent: (event) => this.#tell(event),
      onConnected: (seat) => {
        if (seat === this.#seat) this.#console?.connect();
      },
      onAgentLeft: (seat) => {
        if (seat === this.#seat) this.agent.leave();
      },
      onEnd: (seat) => this.#leave(seat),
    });
  }

  #leave(seat: VmmSeat): void {
    this.#noteOutput(seat);
    if (seat.folder !== this.#folder) seat.removeFolder();
    if (seat === this.#successor) this.#successor = undefined;
    if (seat !== this.#seat) return;
    this.#seat = undefined;
    this.#console?.[Symbol.dispose]();
    this.#console = undefined;
  }

  /** Why a VMM gave up is in its own words alone. */
  #noteOutput(seat: VmmSeat): void {
    const said = seat.output;
    if (seat === this.#seat) this.#lastOutput = said;
    const last = lastWordsOf(said);
    if (last === undefined) return;
    this.#tools.onTrouble(`${this.#name}: the last words of its VMM: ${last}`);
  }

  #seatOf(invocation: string): VmmSeat | undefined {
    return [this.#seat, this.#successor].find((seat) => seat?.invocation === invocation);
  }

  /** A machine without a console that anybody sees is still a machine. */
  #openConsole(): MachineConsole | undefined {
    const onTrouble = (message: string) => this.#tools.onTrouble(`${this.#name}: ${message}`);
    try {
      return new MachineConsole(this.#tools.loop, {
        vmmSocket: this.files.console,
        viewerSocket: this.viewerSocket,
        scrollbackPath: consoleLogOf(this.#tools.folders.folderOf(this.#name)),
        onLine: this.#owner.onLine,
        onTrouble,
      });
    } catch (error) {
      onTrouble(`its console: ${refusalOf(error).message}`);
      return undefined;
    }
  }

  /** Where people look at its console. */
  get viewerSocket(): string {
    return `${this.#folder}.console`;
  }

  async #spawn(invocation: string, beginning: SpawnBeginning): Promise<void> {
    let output: OwnedDescriptor | undefined;
    try {
      // Whoever is beside it still has what the next one needs.
      if (beginning.kind !== "beside") await this.alone();
      this.#tools.confiners.anticipate();
      output = makeVmmOutput(this.#name);
      const result = await this.#start(invocation, beginning, output);
      if (result.kind === "refused") {
        output.close();
        const { stage, message, code } = result.refusal;
        const refusal = { message: `${stage}: ${message}`, code, lasts: false };
        this.#tell({ kind: "spawn-refused", invocation, refusal });
        return;
      }
      passStep("spawn:started");
      for (const { stage, message } of result.leftOut) {
        this.#tools.onTrouble(`${this.#name}: its VMM is without ${stage}: ${message}`);
      }
      const { processId, startTicks } = result.identity;
      if (beginning.kind === "beside") {
        this.#successor?.[Symbol.dispose]();
        this.#successor = this.#makeSeat(result.identity, result.process, output);
      } else this.#sit(result.identity, result.process, output);
      this.#tell({ kind: "spawned", invocation, processId, startTicks });
    } catch (error) {
      if (output?.isOpen === true) output.close();
      const lasts =
        error instanceof MachineRefused ||
        error instanceof LimitsRefused ||
        (error instanceof DisksRefused && error.lasts);
      const refusal = { ...refusalOf(error), lasts };
      this.#tell({ kind: "spawn-refused", invocation, refusal });
    }
  }

  async #start(invocation: string, beginning: SpawnBeginning, output: OwnedDescriptor) {
    const why = this.#tools.whyNotStarted(this.#name);
    if (why !== undefined) throw new Error(`It may not be started now: ${why}`);
    const { driver, program, machine } = this.#chosen();
    const { user } = this.#owner.record().allocation;
    const folder = this.#makeFolder(invocation, user);
    const plan = driver.plan(
      machine,
      filesIn(folder),
      program,
      beginning.kind === "new" ? "new" : "incoming",
    );
    for (const pipe of plan.pipes ?? []) {
      makeNamedPipe(pipe, 0o600);
      chownSync(pipe, user, user);
    }
    // These descriptors end here; those of the VMM, which are the same openings, end with it.
    using opened = new DisposableStack();
    const planned: GivenDescriptor[] = [];
    for (const one of plan.descriptors) {
      const source =
        one.role === "memory"
          ? await this.#memoryFor(machine, beginning)
          : makeVmmListener(one.path);
      planned.push({ source: opened.use(source).number, target: one.number });
    }
    const firstLock = Math.max(2, ...plan.descriptors.map((one) => one.number)) + 1;
    const wish = this.#limits();
    using former = beginning.kind === "beside" ? openProcess(beginning.former.processId) : null;
    using disks = takeDisks(machine.disks, {
      generation: this.#owner.record().assigned?.owner_generation ?? 0,
      former: (index) => {
        const taken = former == null ? undefined : takeDescriptor(former, firstLock + index);
        return taken instanceof OwnedDescriptor ? taken : undefined;
      },
    });
    const group = this.#tools.cgroups.make(invocation, wish);
    passStep("spawn:cgroup");
    const start: VmmStart = {
      invocation,
      plan,
      environment: ["PATH=/usr/bin:/bin"],
      user,
      group: user,
      cgroup: group?.path,
      limits: {
        core: { soft: 0, hard: 0 },
        nofile: { soft: DESCRIPTOR_LIMIT, hard: DESCRIPTOR_LIMIT },
      },
      outOfMemoryScore: OUT_OF_MEMORY_SCORE,
      writable: [folder, this.#tools.folders.disksOf(this.#name)],
      descriptors: [
        ...planned,
        { source: output.number, target: 1 },
        { source: output.number, target: 2 },
        ...disks.descriptors.map(({ number: source }, index) => ({
          source,
          target: firstLock + index,
        })),
      ],
      // Who it is, what it sees and what it may change is never left out, nor what was declared.
      optional: [...(wish.limits === undefined ? ["cgroup" as const] : []), "oom-score", "limits"],
      timeLimit: orderLimits.spawn,
    };
    const started = startVmm(this.#tools.loop, start, { waiting: this.#tools.confiners });
    return await started.finally(() => settleGroup(group));
  }

  /** A new VMM has a folder without anybody else's sockets; what dead ones left is removed. */
  #makeFolder(invocation: string, user: number): string {
    const used = [this.#seat, this.#successor].map((seat) => seat?.folder);
    const folder = this.#newFolderOf(invocation);
    // One that an older worker started has its sockets in the folder above.
    if (!used.includes(this.#folder)) {
      mkdirSync(this.#folder, { recursive: true, mode: 0o711 });
      for (const name of readdirSync(this.#folder)) {
        const path = join(this.#folder, name);
        if (!used.includes(path)) rmSync(path, { recursive: true, force: true });
      }
    }
    mkdirSync(folder, { mode: 0o700 });
    chownSync(folder, user, user);
    return folder;
  }

  async #memoryFor(
    machine: MachineSpecification,
    beginning: SpawnBeginning,
  ): Promise<OwnedDescriptor> {
    if (beginning.kind === "beside") return this.#memoryOf(beginning.former);
    if (beginning.kind === "incoming") {
      const held = await this.#tools.captures.take(beginning.capture);
      const [memory, ...more] = held.memory;
      for (const piece of more) piece.close();
      if (memory === undefined) throw new Error("Bug: a capture without memory");
      return memory;
    }
    const memory = makeMemoryFile(`hostler-vm-${this.#name}`);
    ftruncateSync(memory.number, machine.memory);
    return memory;
  }

  /** What a new machine is to be, as its host is now; null where no hypervisor can run it. */
  firstChoice(): RecordedChoice | null {
    const choice = this.#tools.choose(null, this.#owner.record().spec);
    return choice.kind === "refused" ? null : this.#recordedAs(choice, null);
  }

  /** What it is to be, written down before its first VMM. @throws MachineRefused, Error */
  #chosen(): {
    readonly driver: HypervisorDriver;
    readonly program: HypervisorProgram;
    readonly machine: MachineSpecification;
  } {
    const record = this.#owner.record();
    const choice = this.#tools.choose(record.choice, record.spec);
    if (choice.kind === "refused") {
      throw new Error(`No hypervisor can run it: ${choice.reason}`);
    }
    const { program } = choice;
    const recorded = this.#recordedAs(choice, record.choice);
    // None could run it when its start was noted, and one can now.
    if (record.choice === null) this.#owner.choose(recorded);
    const machine = specify(record, this.#owner.parts(), recorded);
    return { driver: this.#tools.drivers[program.hypervisor], program, machine };
  }

  /** @param former the channel of the agent as it was recorded; null for a new machine */
  #recordedAs(
    { program, accelerator, machineType, processorModel }: Extract<Choice, { kind: "chosen" }>,
    former: RecordedChoice | null,
  ): RecordedChoice {
    const agent = former === null ? this.#tools.agentChannel() : former.agent;
    return {
      hypervisor: program.hypervisor,
      accelerator,
      machine_type: machineType ?? null,
      processor_model: processorModel ?? null,
      ...(program.hypervisor === "qemu" && agent === "vsock" && { agent }),
    };
  }

  async #find(invocation: string): Promise<void> {
    // One that this worker started itself says so before anything is looked for.
    await this.#starting.get(invocation);
    for (let look = 0; ; look += 1) {
      const { found, unreadable } = findVmm(invocation, this.#owner.record().allocation.user);
      const [identity] = found;
      if (identity !== undefined && this.#takeFound(identity)) return;
      if (unreadable.length === 0 && identity === undefined) break;
      if (look === MOST_FINDS) {
        this.#tools.onTrouble(
          `${this.#name}: processes ${unreadable.join(", ")} have had no environment for long`,
        );
        break;
      }
      await this.#pause(FIND_AGAIN_AFTER);
    }
    this.#tell({ kind: "not-found", invocation });
  }

  #takeFound(identity: VmmIdentity): boolean {
    const adoption = adoptVmm(identity);
    if (adoption.kind !== "adopted") return false;
    this.#sit(identity, adoption.process, outputOf(adoption.process));
    const { invocation, processId, startTicks } = identity;
    this.#tell({ kind: "found", invocation, processId, startTicks });
    return true;
  }

  #pause(time: Milliseconds): Promise<void> {
    return new Promise((resolve) => {
      this.#tools.loop.wakeAfter(time, resolve);
    });
  }

  #attach({ instance, ticket, capture }: Extract<VmmEffect, { kind: "attach" }>): void {
    const { invocation } = instance;
    const seat = this.#seatOf(invocation);
    if (seat !== undefined) {
      void seat.attach({ ticket, capture }, () => this.#chosen());
      return;
    }
    const refusal = { message: "Its VMM has ended", code: undefined, lasts: false };
    this.#tools.loop.afterTurn(() =>
      this.#tell({ kind: "attach-refused", invocation, ticket, refusal }),
    );
  }

  /** One that does not answer is told by its connection. */
  async observe(): Promise<void> {
    await this.#seat?.observe();
  }

  /** The one that it has, or a straggler that came too late to be it. */
  #kill(instance: Instance): void {
    const seat = this.#seatOf(instance.invocation);
    if (seat !== undefined) {
      seat.kill();
      return;
    }
    this.endUnadopted(instance);
  }

  /** Where a successor waits, it has the machine from now on. */
  #endBeside(invocation: string): void {
    if (this.#seat?.invocation === invocation && this.#successor !== undefined) this.#promote();
    if (this.#ending.has(invocation)) return;
    const end = this.#endOne(invocation);
    this.#ending.set(
      invocation,
      end.finally(() => this.#ending.delete(invocation)),
    );
  }

  #promote(): void {
    this.#former = this.#seat;
    this.#seat = this.#successor;
    this.#successor = undefined;
    // Its guest is the same one, and its sockets are others.
    this.agent[Symbol.dispose]();
    this.#console?.moveTo(this.files.console);
  }

  /** Sees to it that no VMM of this invocation lives, whoever started it, and tells so. */
  async #endOne(invocation: string): Promise<void> {
    // One that this worker is starting says so before anything is looked for.
    await this.#starting.get(invocation);
    const seat = this.#seatOf(invocation) ?? this.#former;
    if (seat?.invocation === invocation) {
      seat.kill();
      await seat.ended;
      if (seat === this.#former) this.#former = undefined;
    } else await this.#endUnseen(invocation);
    await this.#clearGroup(invocation);
    this.#tell({ kind: "beside-ended", invocation });
  }

  /** Ends whoever a dead VMM has left in its cgroup. */
  #clearGroup(invocation: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#tools.cgroups.clear(this.#tools.loop, invocation, resolve);
    return promise;
  }

  async #endUnseen(invocation: string): Promise<void> {
    const { user } = this.#owner.record().allocation;
    for (let look = 0; !this.#isDisposed; look += 1) {
      try {
        const { found, unreadable } = findVmm(invocation, user);
        for (const identity of found) await this.#killUnseen(identity);
        if (found.length === 0 && (unreadable.length === 0 || look >= MOST_FINDS)) return;
      } catch (error) {
        const { message } = refusalOf(error);
        this.#tools.onTrouble(`${this.#name}: cannot look for its other VMM yet: ${message}`);
        await this.#pause(LOOK_AGAIN_AFTER);
      }
      await this.#pause(FIND_AGAIN_AFTER);
    }
  }

  async #killUnseen(identity: VmmIdentity): Promise<void> {
    const adoption = adoptVmm(identity);
    if (adoption.kind !== "adopted") return;
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const { process } = adoption;
    const watched = new VmmProcess(this.#tools.loop, { identity, process }, resolve);
    watched.signal(Signal.SIGKILL);
    await promise;
  }

  /** When no VMM is beside the one that has the machine: what it has is free. */
  async alone(): Promise<void> {
    await Promise.all(this.#ending.values());
  }

  async #call(effect: Exclude<VmmEffect, { kind: NoOrder }>): Promise<void> {
    const { instance, ticket } = effect;
    const { invocation } = instance;
    const call: VmmCall = effect.kind;
    try {
      const seat = this.#seatOf(invocation);
      const attached = seat?.attached;
      if (seat === undefined || attached === undefined) {
        throw new Error("Its VMM does not answer");
      }
      const isSnapshot = effect.kind === "snapshot";
      const machine = isSnapshot ? await this.#snapshot(seat, attached, effect) : "kept";
      if (!isSnapshot) await this.#order(attached, effect);
      this.#tell({ kind: "done", call, invocation, ticket, machine });
    } catch (error) {
      this.#tell({ kind: "refused", call, invocation, ticket, refusal: refusalOf(error) });
    }
  }

  async #order(
    attached: AttachedVmm,
    effect: Exclude<VmmEffect, { kind: NoOrder | "snapshot" }>,
  ): Promise<void> {
    const { connection } = attached;
    switch (effect.kind) {
      case "create":
        await connection.create();
        this.#hearConsole();
        return;
      case "boot":
        return await connection.boot();
      case "pause":
        return await connection.pause();
      case "resume":
        return await connection.resume();
      case "press-power-button":
        return await connection.pressPowerButton();
      case "quit":
        return await connection.quit();
      case "capture":
        return await this.#capture(connection, effect);
      case "restore":
        return await this.#restore(attached, effect.capture);
      case "send":
        return await this.#send(attached, effect.migration);
      case "receive": {
        const { place } = this.#placeOf(attached);
        return await this.#tools.migrations.receive(effect.migration, attached, place);
      }
    }
  }

  #placeOf({ invocation }: AttachedVmm): { readonly seat: VmmSeat; readonly place: VmmPlace } {
    const seat = this.#seatOf(invocation);
    if (seat === undefined) throw new Error("Its VMM has ended");
    const { user } = this.#owner.record().allocation;
    return { seat, place: { folder: seat.folder, user } };
  }

  /** Given up as soon as its VMM is asked anew: the machine may run on. */
  async #send(attached: AttachedVmm, migration: string): Promise<void> {
    const { migrations } = this.#tools;
    const { seat, place } = this.#placeOf(attached);
    seat.beginSaving().addEventListener("abort", () => {
      migrations.abandon(migration, "its VMM is asked anew");
    });
    await migrations.send(migration, attached, place);
  }

  /**
   * Makes a snapshot while the machine stands still.
   * @returns whether its VMM still has it; one that gives its memory away does not
   */
  async #snapshot(
    seat: VmmSeat,
    { connection, driver, machine }: AttachedVmm,
    effect: Extract<VmmEffect, { kind: "snapshot" }>,
  ): Promise<"kept" | "taken"> {
    const signal = seat.beginSaving();
    const { encryptTo } = this;
    const state = await connection.captureState();
    passStep("snapshot:captured");
    const given = state.memory as readonly OwnedDescriptor[] | undefined;
    const memory = given ?? [this.#memoryOf(effect.instance)];
    try {
      // Held before anything of the snapshot can fail: nobody else has the machine.
      if (given !== undefined) await this.#tools.captures.keep(effect.capture, state, memory);
      const record = this.#owner.record();
      const source: SnapshotSource = {
        record,
        snapshot: effect.snapshot,
        power: record.note.wanted === "paused" ? "paused" : "running",
        state,
        memory,
        disks: [...machine.disks, ...variablesAsDisk(machine)],
        boundToBuild: driver.boundToBuild(machine),
        encryptTo,
      };
      await this.#tools.snapshots.write(source, signal);
      return given === undefined ? "kept" : "taken";
    } finally {
      for (const piece of memory) piece.close();
    }
  }

  async #capture(
    connection: VmmConnection,
    effect: { readonly instance: Instance; readonly capture: string },
  ): Promise<void> {
    const state = await connection.captureState();
    passStep("capture:taken");
    // Where the hypervisor gives no memory with it, it is what its VMM inherited.
    const memory = (state.memory as readonly OwnedDescriptor[] | undefined) ?? [
      this.#memoryOf(effect.instance),
    ];
    try {
      await this.#tools.captures.keep(effect.capture, state, memory);
    } finally {
      for (const piece of memory) piece.close();
    }
    passStep("capture:kept");
  }

  /** Another descriptor of the memory that the VMM inherited. */
  #memoryOf({ invocation }: Instance): OwnedDescriptor {
    const seat = this.#seatOf(invocation);
    if (seat === undefined) throw new Error("Its VMM has ended, and its memory with it");
    return seat.takeMemory();
  }

  async #restore({ connection, driver, machine }: AttachedVmm, capture: string): Promise<void> {
    if (driver.takesAlone(machine)) await this.alone();
    using held = await this.#tools.captures.take(capture);
    await connection.restoreState({ ...held.state, memory: held.memory });
    this.#hearConsole();
    passStep("restore:done");
  }

  /**
   * Before its guest says anything: QEMU listens there from its beginning, cloud-hypervisor once it
   * has a machine.
   */
  #hearConsole(): void {
    this.#console?.connect();
  }

  /** Who is in its cgroup may outlive it, and its sockets, which the next one's start removes. */
  #clear(instance: Instance, capture: string | undefined): void {
    const { invocation } = instance;
    const captured = capture !== undefined && this.#tools.captures.isWhole(capture);
    this.#tools.cgroups.clear(this.#tools.loop, invocation, () => {
      this.#tools.loop.afterTurn(() => this.#tell({ kind: "cleared", invocation, captured }));
    });
  }

  #tell(event: MachineEvent): void {
    if (!this.#isDisposed) this.#owner.onEvent(event);
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.agent[Symbol.dispose]();
    this.#console?.[Symbol.dispose]();
    for (const seat of [this.#seat, this.#successor, this.#former]) seat?.[Symbol.dispose]();
  }
}

/** The VMM is in it, or nobody is: then it goes. */
function settleGroup(group: InstanceGroup | undefined): void {
  group?.inhabited();
  group?.remove();
}

/** Another descriptor of where a VMM's words go; undefined where it may not be looked into. */
function outputOf(process: OwnedDescriptor): OwnedDescriptor | undefined {
  const taken = takeDescriptor(process, 2);
  return taken instanceof OwnedDescriptor ? taken : undefined;
}

/** A firmware's variables are a file of the machine's own, as its disks are. */
function variablesAsDisk({ boot }: MachineSpecification): Disk[] {
  if (boot.kind !== "firmware" || boot.variables === undefined) return [];
  const { variables: path } = boot;
  return [{ id: "firmware", path, format: "raw", readOnly: false, backing: undefined }];
}

/** cloud-hypervisor's firmware keeps its variables in memory alone. */
function bootFor(hypervisor: RecordedChoice["hypervisor"], { boot }: MachineParts): Boot {
  if (boot.kind !== "firmware" || hypervisor === "qemu") return boot;
  return { ...boot, variables: undefined };
}

/**
 * By vhost-vsock a machine is known to its whole host by a context id, which must be nobody else's:
 * the number of its user is, and is in its record for as long as it exists.
 */
function agentFor(
  { hypervisor, agent }: RecordedChoice,
  { user }: MachineRecord["allocation"],
): MachineSpecification["agent"] {
  if (hypervisor === "cloud-hypervisor") return { vsock: GUEST_CONTEXT };
  return agent === "vsock" ? { vsock: user } : "virtio-serial";
}

function lastWordsOf(said: string | undefined): string | undefined {
  return said?.split("\n").at(-1)?.slice(-LONGEST_LAST_WORD) || undefined;
}

/** What its VMM is told to make. */
function specify(
  record: MachineRecord,
  parts: MachineParts,
  choice: RecordedChoice,
): MachineSpecification {
  return {
    name: record.spec.name,
    processors: parts.processors,
    memory: parts.memory,
    accelerator: choice.accelerator,
    machineType: choice.machine_type ?? undefined,
    processorModel: choice.processor_model ?? undefined,
    boot: bootFor(choice.hypervisor, parts),
    disks: parts.disks,
    networks: record.allocation.cards.map(({ tap, mac }, index) => {
      return { id: `net${index}`, tap, macAddress: mac };
    }),
    agent: agentFor(choice, record.allocation),
  };
}
