import { chownSync, ftruncateSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { makeNamedPipe } from "../../../ffi/descriptor.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openProcess, signalProcess, takeDescriptor } from "../../../ffi/pidfd.ts";
import { errnoName } from "../../../ffi/system-call-error.ts";
import {
  type HypervisorDriver,
  type HypervisorProgram,
  type MachineFiles,
  MachineRefused,
  type MachineSpecification,
  type VmmConnection,
  type VmmEvent,
  VmmUnreachable,
} from "../../hypervisor/driver.ts";
import type { Ending } from "../../units/ending.ts";
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
import type { MachineRecord, RecordedChoice } from "../machine-record.ts";
import { DisksRefused, takeDisks } from "./disk-ownership.ts";
import { passStep } from "./kill-points.ts";
import { MachineAgent } from "./machine-agent.ts";
import { MachineConsole } from "./machine-console.ts";
import type { MachineParts, MachineTools } from "./machine-tools.ts";
import { refusalOf } from "./refusal.ts";
import type { SnapshotSource } from "./snapshots.ts";
import { type Adoption, adoptVmm, findVmm, type VmmIdentity } from "./vmm-identity.ts";
import { makeVmmOutput, readVmmOutput } from "./vmm-output.ts";
import { startVmm, VmmProcess } from "./vmm-process.ts";

/** How a search is repeated while somebody is between its birth and its exec. */
const FIND_AGAIN_AFTER: Milliseconds = 20;
const MOST_FINDS = 100;
/** Descriptors that a VMM may have: its sockets, disks, and threads' own. */
const DESCRIPTOR_LIMIT = 4096;
/** Characters of a VMM's last line that the log has. */
const LONGEST_LAST_WORD = 300;
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
      | "kill"
      | "clear";
  }
>;

/** A VMM that answers. */
export interface AttachedVmm {
  readonly connection: VmmConnection;
  readonly driver: HypervisorDriver;
  readonly machine: MachineSpecification;
  readonly invocation: string;
}

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

interface Living {
  readonly process: VmmProcess;
  readonly identity: VmmIdentity;
  /** undefined where its socket could not be made. */
  readonly console: MachineConsole | undefined;
  /** What it says; undefined where it could not be taken from one that was adopted. */
  readonly output: OwnedDescriptor | undefined;
}

/** The VMM of one machine: its process, its sockets and the connection to it. */
export class MachineVmm implements Disposable {
  /** Of its guest, whichever VMM has it. */
  readonly agent: MachineAgent;
  readonly #name: string;
  readonly #tools: MachineTools;
  readonly #owner: Owner;
  #living: Living | undefined;
  #attached: AttachedVmm | undefined;
  /** Of the attempt under way, and of the connection that it gave. */
  #attaching: AbortController | undefined;
  /** Of the snapshot being written: once its VMM is doubted, the machine may run on. */
  #saving: AbortController | undefined;
  /** Starts whose end is not known yet, by invocation. */
  readonly #starting = new Map<string, Promise<void>>();
  #lastOutput: string | undefined;
  #isDisposed = false;

  constructor(name: string, tools: MachineTools, owner: Owner) {
    this.#name = name;
    this.#tools = tools;
    this.#owner = owner;
    this.agent = new MachineAgent(tools.loop, () => this.#agentPlace);
  }

  get attached(): AttachedVmm | undefined {
    return this.#attached;
  }

  get processId(): number | undefined {
    return this.#living?.identity.processId;
  }

  /** Which of the two `specify` gives it. */
  get #agentPlace(): AgentPlace {
    const path = this.files.agent;
    const isVsock = this.#owner.record().choice?.hypervisor === "cloud-hypervisor";
    return isVsock ? { path, vsockPort: VSOCK_PORT } : { path };
  }

  get invocation(): string | undefined {
    return this.#living?.identity.invocation;
  }

  get #folder(): string {
    return join(this.#tools.runFolder, `${this.#owner.record().allocation.user}`);
  }

  get files(): MachineFiles {
    const folder = this.#folder;
    return {
      control: join(folder, "control"),
      console: join(folder, "console"),
      agent: join(folder, "agent"),
      events: join(folder, "events"),
    };
  }

  /** Its sockets, which nobody serves any more. @throws Error (EBUSY …) */
  removeFiles(): void {
    rmSync(this.#folder, { recursive: true, force: true });
    rmSync(this.viewerSocket, { force: true });
  }

  adopt(instance: Instance): Adoption {
    const { processId, startTicks, invocation } = instance;
    const identity = { processId, startTicks, invocation, bootId: this.#tools.boot };
    const adoption = adoptVmm(identity);
    if (adoption.kind === "adopted") {
      this.#watch(identity, adoption.process, outputOf(adoption.process));
    }
    return adoption;
  }

  /** What the VMM that ended last had said, or the one that it has says. */
  get output(): string | undefined {
    const { output } = this.#living ?? {};
    return output === undefined ? this.#lastOutput : readVmmOutput(output);
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
        void this.#attach(effect);
        return;
      case "kill":
        this.#kill(effect.instance);
        return;
      case "clear":
        this.#clear(effect.instance, effect.capture);
        return;
      default:
        void this.#call(effect);
    }
  }

  #watch(
    identity: VmmIdentity,
    process: OwnedDescriptor,
    output: OwnedDescriptor | undefined,
  ): void {
    const { invocation } = identity;
    this.#letGo();
    const watched = new VmmProcess(this.#tools.loop, { identity, process }, (ending: Ending) => {
      this.#noteOutput();
      this.#letGo();
      this.#detach();
      this.#tell({ kind: "died", invocation, ending });
    });
    this.#living = { process: watched, identity, console: this.#openConsole(), output };
  }

  /** Why a VMM gave up is in its own words alone. */
  #noteOutput(): void {
    this.#lastOutput = this.output;
    const last = this.#lastOutput?.split("\n").at(-1)?.slice(-LONGEST_LAST_WORD);
    if (last === undefined || last === "") return;
    this.#tools.onTrouble(`${this.#name}: the last words of its VMM: ${last}`);
  }

  #letGo(): void {
    this.#living?.process[Symbol.dispose]();
    this.#living?.console?.[Symbol.dispose]();
    this.#living?.output?.close();
    this.#living = undefined;
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
      this.#watch(result.identity, result.process, output);
      const { processId, startTicks } = result.identity;
      this.#tell({ kind: "spawned", invocation, processId, startTicks });
    } catch (error) {
      if (output?.isOpen === true) output.close();
      const lasts =
        error instanceof MachineRefused || (error instanceof DisksRefused && error.lasts);
      const refusal = { ...refusalOf(error), lasts };
      this.#tell({ kind: "spawn-refused", invocation, refusal });
    }
  }

  async #start(invocation: string, beginning: SpawnBeginning, output: OwnedDescriptor) {
    const { driver, program, machine } = this.#chosen();
    const { user } = this.#owner.record().allocation;
    this.#makeFolder(user);
    const plan = driver.plan(
      machine,
      this.files,
      program,
      beginning.kind === "incoming" ? "incoming" : "new",
    );
    for (const pipe of plan.pipes ?? []) {
      makeNamedPipe(pipe, 0o600);
      chownSync(pipe, user, user);
    }
    const number = plan.descriptors.find(({ role }) => role === "memory")?.number;
    using memory = number === undefined ? undefined : await this.#memoryFor(machine, beginning);
    const isGiven = number !== undefined && memory !== undefined;
    // These descriptors end here; those of the VMM, which are the same openings, end with it.
    using disks = takeDisks(machine.disks, this.#owner.record().assigned?.owner_generation ?? 0);
    const firstLock = Math.max(2, ...plan.descriptors.map((one) => one.number)) + 1;
    return await startVmm(this.#tools.loop, {
      invocation,
      plan,
      environment: ["PATH=/usr/bin:/bin"],
      user,
      group: user,
      cgroup: undefined,
      limits: {
        core: { soft: 0, hard: 0 },
        nofile: { soft: DESCRIPTOR_LIMIT, hard: DESCRIPTOR_LIMIT },
      },
      outOfMemoryScore: OUT_OF_MEMORY_SCORE,
      writable: [this.#folder, this.#tools.folders.disksOf(this.#name)],
      descriptors: [
        { source: output.number, target: 1 },
        { source: output.number, target: 2 },
        ...(isGiven ? [{ source: memory.number, target: number }] : []),
        ...disks.descriptors.map(({ number: source }, index) => ({
          source,
          target: firstLock + index,
        })),
      ],
      // Who it is, what it sees and what it may change is never left out.
      optional: ["cgroup", "oom-score", "limits"],
      timeLimit: orderLimits.spawn,
    });
  }

  /** A new VMM gets a folder without the sockets of the one before. */
  #makeFolder(user: number): void {
    rmSync(this.#folder, { recursive: true, force: true });
    mkdirSync(this.#folder, { mode: 0o700 });
    chownSync(this.#folder, user, user);
  }

  async #memoryFor(
    machine: MachineSpecification,
    beginning: SpawnBeginning,
  ): Promise<OwnedDescriptor> {
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

  /** What it is to be, written down before its first VMM. @throws MachineRefused, Error */
  #chosen(): {
    readonly driver: HypervisorDriver;
    readonly program: HypervisorProgram;
    readonly machine: MachineSpecification;
  } {
    const record = this.#owner.record();
    const choice = this.#tools.choose(record.choice);
    if (choice.kind === "refused") {
      throw new Error(`No hypervisor can run it: ${choice.reason}`);
    }
    const { program, accelerator, machineType, processorModel } = choice;
    const recorded: RecordedChoice = {
      hypervisor: program.hypervisor,
      accelerator,
      machine_type: machineType ?? null,
      processor_model: processorModel ?? null,
    };
    if (record.choice === null) this.#owner.choose(recorded);
    const machine = specify(record, this.#owner.parts(), recorded);
    return { driver: this.#tools.drivers[program.hypervisor], program, machine };
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
    this.#watch(identity, adoption.process, outputOf(adoption.process));
    const { invocation, processId, startTicks } = identity;
    this.#tell({ kind: "found", invocation, processId, startTicks });
    return true;
  }

  #pause(time: Milliseconds): Promise<void> {
    return new Promise((resolve) => {
      this.#tools.loop.wakeAfter(time, resolve);
    });
  }

  async #attach({ instance, ticket, capture }: Extract<VmmEffect, { kind: "attach" }>) {
    this.#detach();
    const { invocation } = instance;
    const controller = new AbortController();
    this.#attaching = controller;
    // It may be lost before this function has it.
    let found: VmmConnection | undefined;
    let lost: string | undefined;
    try {
      const { driver, machine } = this.#chosen();
      const connection = await driver.connect(this.files, {
        loop: this.#tools.loop,
        machine,
        signal: AbortSignal.any([controller.signal, AbortSignal.timeout(orderLimits.attach)]),
        onEvent: (event) => this.#hear(event, invocation),
        onLost: (reason) => {
          if (found === undefined) lost = reason;
          else this.#lose(found, reason);
        },
      });
      found = connection;
      if (controller.signal.aborted || lost !== undefined) {
        connection[Symbol.dispose]();
        if (lost !== undefined) throw new VmmUnreachable(`Its VMM is gone again: ${lost}`);
        return;
      }
      this.#attached = { connection, driver, machine, invocation };
      this.#hearConsole();
      const guest = await connection.guestState();
      // What a worker began that is no more, or was given up: nobody listens at the other end.
      if (guest === "running" || guest === "paused") await connection.migration?.abandon();
      const captured = capture !== undefined && this.#tools.captures.isWhole(capture);
      this.#tell({ kind: "attached", invocation, ticket, guest, captured });
    } catch (error) {
      if (controller.signal.aborted) return;
      this.#detach();
      this.#tell({ kind: "attach-refused", invocation, ticket, refusal: refusalOf(error) });
    }
  }

  #hear(event: VmmEvent, invocation: string): void {
    if (event.kind === "disk-error") {
      const { disk, reason, pauses } = event;
      const then = pauses ? "; it is paused until it is resumed" : "";
      this.#tools.onTrouble(`${this.#name}: disk ${disk}: ${reason}${then}`);
      return;
    }
    this.#tell({ ...event, invocation });
  }

  #lose(connection: VmmConnection, reason: string): void {
    const attached = this.#attached;
    if (attached === undefined || attached.connection !== connection) return;
    this.#attached = undefined;
    connection[Symbol.dispose]();
    this.#tell({ kind: "connection-lost", invocation: attached.invocation, reason });
  }

  #detach(): void {
    this.#saving?.abort(new Error("Its VMM is asked anew, and may run on"));
    this.#saving = undefined;
    this.#attaching?.abort();
    this.#attaching = undefined;
    this.#attached?.connection[Symbol.dispose]();
    this.#attached = undefined;
  }

  /** One that does not answer is told by its connection. */
  async observe(): Promise<void> {
    const attached = this.#attached;
    if (attached === undefined) return;
    const { connection, invocation } = attached;
    try {
      const guest = await connection.guestState();
      if (this.#attached === attached) this.#tell({ kind: "observed", invocation, guest });
    } catch (error) {
      if (this.#attached === attached) this.#lose(connection, refusalOf(error).message);
    }
  }

  /** The one that it has, or a straggler that came too late to be it. */
  #kill(instance: Instance): void {
    if (this.#living?.identity.invocation === instance.invocation) {
      this.#living.process.signal(Signal.SIGKILL);
      return;
    }
    const { processId, startTicks, invocation } = instance;
    const adoption = adoptVmm({ processId, startTicks, invocation, bootId: this.#tools.boot });
    if (adoption.kind !== "adopted") return;
    signalProcess(adoption.process, Signal.SIGKILL);
    adoption.process.close();
  }

  async #call(
    effect: Exclude<VmmEffect, { kind: "spawn" | "find" | "attach" | "kill" | "clear" }>,
  ): Promise<void> {
    const { instance, ticket } = effect;
    const { invocation } = instance;
    const call: VmmCall = effect.kind;
    try {
      const attached = this.#attached;
      if (attached === undefined || attached.invocation !== invocation) {
        throw new Error("Its VMM does not answer");
      }
      const isSnapshot = effect.kind === "snapshot";
      const machine = isSnapshot ? await this.#snapshot(attached, effect) : "kept";
      if (!isSnapshot) await this.#order(attached, effect);
      this.#tell({ kind: "done", call, invocation, ticket, machine });
    } catch (error) {
      this.#tell({ kind: "refused", call, invocation, ticket, refusal: refusalOf(error) });
    }
  }

  async #order(
    { connection }: AttachedVmm,
    effect: Exclude<
      VmmEffect,
      { kind: "spawn" | "find" | "attach" | "kill" | "clear" | "snapshot" }
    >,
  ): Promise<void> {
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
        return await this.#restore(connection, effect.capture);
    }
  }

  /**
   * Makes a snapshot while the machine stands still.
   * @returns whether its VMM still has it; one that gives its memory away does not
   */
  async #snapshot(
    { connection, driver, machine }: AttachedVmm,
    effect: Extract<VmmEffect, { kind: "snapshot" }>,
  ): Promise<"kept" | "taken"> {
    const controller = new AbortController();
    this.#saving = controller;
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
        disks: machine.disks,
        boundToBuild: driver.boundToBuild(machine),
      };
      await this.#tools.snapshots.write(source, controller.signal);
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

  /** Another descriptor of the memory that the VMM inherited: it is its descriptor 3. */
  #memoryOf(instance: Instance): OwnedDescriptor {
    using process = openProcess(instance.processId);
    const taken = process === undefined ? undefined : takeDescriptor(process, 3);
    if (taken instanceof OwnedDescriptor) return taken;
    const why = taken === undefined ? "it has ended" : errnoName(taken);
    throw new Error(`Cannot take the memory of process ${instance.processId}: ${why}`);
  }

  async #restore(connection: VmmConnection, capture: string): Promise<void> {
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
    this.#living?.console?.connect();
  }

  /** Nothing of a VMM outlives it but its sockets, and those the next one's start removes. */
  #clear(instance: Instance, capture: string | undefined): void {
    const { invocation } = instance;
    const captured = capture !== undefined && this.#tools.captures.isWhole(capture);
    this.#tools.loop.afterTurn(() => this.#tell({ kind: "cleared", invocation, captured }));
  }

  #tell(event: MachineEvent): void {
    if (!this.#isDisposed) this.#owner.onEvent(event);
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.agent[Symbol.dispose]();
    this.#detach();
    this.#letGo();
  }
}

/** Another descriptor of where a VMM's words go; undefined where it may not be looked into. */
function outputOf(process: OwnedDescriptor): OwnedDescriptor | undefined {
  const taken = takeDescriptor(process, 2);
  return taken instanceof OwnedDescriptor ? taken : undefined;
}

/** What its VMM is told to make. */
function specify(
  record: MachineRecord,
  parts: MachineParts,
  choice: RecordedChoice,
): MachineSpecification {
  const { card } = record.allocation;
  return {
    name: record.spec.name,
    processors: parts.processors,
    memory: parts.memory,
    accelerator: choice.accelerator,
    machineType: choice.machine_type ?? undefined,
    processorModel: choice.processor_model ?? undefined,
    boot: parts.boot,
    disks: parts.disks,
    networks: card === null ? [] : [{ id: "net0", tap: card.tap, macAddress: card.mac }],
    agent: choice.hypervisor === "qemu" ? "virtio-serial" : { vsock: GUEST_CONTEXT },
  };
}
