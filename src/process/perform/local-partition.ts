import { dirname } from "node:path";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { signalProcess } from "../../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../../ffi/posix-spawn.ts";
import { kill } from "../../../ffi/process.ts";
import {
  bindUnix,
  connectUnix,
  makeTcpSocket,
  makeUnixSocket,
  receiveCredentials,
} from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { InstanceGroup, type InstanceGroups } from "../../event-loop/instance-groups.ts";
import type { Ending } from "../../units/ending.ts";
import { newInvocation } from "../invocation.ts";
import type { Instance } from "../lifecycle.ts";
import { keptNames } from "../protocol-kept.ts";
import type { CarriedChild, CarriedInstance } from "../protocol-state.ts";
import { type ChildRequest, Children, refuseStart, type StartResult } from "./children.ts";
import type { Keeper } from "./keeping.ts";
import { clearInvocation } from "./leftovers.ts";
import type { Luggage, Unpacking } from "./luggage.ts";
import {
  type CommandRequest,
  type CommandResult,
  describeRefusedSignal,
  type Emit,
  invocationVariable,
  type LeftInstance,
  type ManagedProcess,
  type Partition,
  withPassed,
} from "./partition.ts";
import { resolveProgram } from "./program-path.ts";
import { RemoteInstances } from "./remote-instances.ts";

const SIGKILL = 9;

/** A start that was laid out in memory, used again for each restart. */
interface Prepared {
  readonly spawn: PreparedSpawn;
  readonly invocationIndex: number;
  /** The invocation that stands in its environment. */
  invocation: string;
}

/** Milliseconds after a start when the next one is laid out: its first work is not disturbed. */
const PREPARE_AFTER = 2;
/** Milliseconds after which a restart is told: the child's first instructions come before. */
const TELL_AFTER = 1;

/** A check of readiness that has not come to its end. */
interface RunningCommand {
  readonly onResult: (result: CommandResult) => void;
  /** Nobody asks for its result any more. */
  ended: boolean;
}

/** Each of its starts is the same call, which can be laid out before. */
const isPlain = ({ constraints, output, parked }: ManagedProcess) =>
  constraints === undefined && output !== undefined && parked === undefined;

/** With the descriptors that the process has parked. */
function passParked({ parked }: ManagedProcess, request: ChildRequest): ChildRequest {
  const passed = parked?.pass();
  if (passed === undefined) return request;
  return {
    ...request,
    environment: withPassed(request.environment, passed),
    descriptors: [...request.descriptors, ...passed.descriptors],
    listen: true,
  };
}

/** The host itself: its processes are our own children. */
export class LocalPartition implements Partition {
  readonly loop: EventLoop;
  readonly canCheck = true;
  readonly isSilent = false;
  readonly #emit: Emit;
  /** Told before a start that was laid out can be made, so that it is written down by then. */
  readonly #onPrepared: (name: string, invocation: string) => void;
  readonly #onTrouble: (message: string) => void;
  /** Invocations of the starts to come, by the name of their process. */
  readonly #standby = new Map<string, string>();
  readonly #children: Children;
  readonly #names = new Map<string, string>();
  readonly #prepared = new Map<string, Prepared>();
  readonly #commands = new Map<string, RunningCommand>();
  readonly #keeper: Keeper;
  /** What an orchestrator that was killed has left: children of whoever inherited them. */
  readonly #adopted: RemoteInstances;
  /** Of those, who has not been cleared: dead or alive. */
  readonly #uncleared = new Set<string>();
  readonly #groups: InstanceGroups;
  /** Clearings of those that have begun and have not come to their end. */
  #clearing = 0;

  constructor(
    loop: EventLoop,
    handlers: {
      readonly emit: Emit;
      readonly onPrepared: (name: string, invocation: string) => void;
      readonly onTrouble: (message: string) => void;
      /** Keeps the pidfds of instances. */
      readonly keeper: Keeper;
    },
    groups: InstanceGroups,
  ) {
    this.loop = loop;
    this.#keeper = handlers.keeper;
    this.#adopted = new RemoteInstances(loop, handlers);
    this.#emit = handlers.emit;
    this.#onPrepared = handlers.onPrepared;
    this.#onTrouble = handlers.onTrouble;
    const childHandlers = {
      onDeath: (invocation: string, ending: Ending) => this.#onDeath(invocation, ending),
      onCleared: (invocation: string) => this.#names.delete(invocation),
      onTrouble: handlers.onTrouble,
    };
    this.#groups = groups;
    this.#children = new Children(loop, childHandlers, groups);
  }

  get underWay(): string | undefined {
    if (this.#clearing > 0) return "the end of what an instance left behind";
    return this.#commands.size > 0 ? "a check of readiness" : this.#children.underWay;
  }

  /** Invocations that were drawn for starts to come: the next program draws its own. */
  get drawn(): readonly string[] {
    return [...this.#standby.values()];
  }

  /** Children of others that are watched here, for another program to go on with. */
  packAdopted(luggage: Luggage): CarriedInstance[] {
    return this.#adopted.pack(luggage);
  }

  /** @throws WrongLuggage */
  unpackAdopted(carried: readonly CarriedInstance[], unpacking: Unpacking): void {
    for (const { invocation } of carried) this.#uncleared.add(invocation);
    this.#adopted.unpack(carried, unpacking);
  }

  pack(luggage: Luggage): CarriedChild[] {
    return [...this.#children.all].map(([invocation, child]) => ({
      invocation,
      name: this.#names.get(invocation),
      processId: child.processId,
      process: luggage.pack(child.process),
      leftovers: child.leftovers,
      groupParent: child.group === undefined ? undefined : dirname(child.group.path),
    }));
  }

  /** Is the parent of what the program before this one started. @throws WrongLuggage */
  unpack(children: readonly CarriedChild[], unpacking: Unpacking): void {
    for (const { invocation, name, processId, process, leftovers, groupParent } of children) {
      const group =
        groupParent === undefined ? undefined : InstanceGroup.left(groupParent, invocation);
      const started = { processId, process: unpacking.takeProcess(process, processId) };
      if (name !== undefined) this.#names.set(invocation, name);
      this.#children.adopt(invocation, started, leftovers, group);
      this.#keep(invocation);
    }
  }

  close(): void {
    this.#children.close();
    this.#adopted.close();
  }

  /** Its next start is laid out as if this orchestrator had made the last one. */
  adopt(managed: ManagedProcess, left: LeftInstance): void {
    const { name } = managed.specification;
    const { invocation } = left;
    this.#uncleared.add(invocation);
    this.#adopted.watch(name, { ...left, parentTells: false, orphanOf: "orchestrator" });
    if (!isPlain(managed)) return;
    this.loop.wakeAfter(PREPARE_AFTER, () => {
      if (this.#adopted.get(invocation)?.isDead !== false || this.#prepared.has(name)) return;
      this.#prepare(managed, newInvocation());
      this.#prepareNext(managed, invocation);
    });
  }

  /** Keeps the pidfd of a child that is an instance of a process. */
  #keep(invocation: string): void {
    const process = this.#children.processOf(invocation);
    if (process === undefined || !this.#names.has(invocation)) return;
    this.#keeper.keep(keptNames.instance(invocation), process);
  }

  #onDeath(invocation: string, ending: Ending): void {
    this.#keeper.forget(keptNames.instance(invocation));
    const command = this.#commands.get(invocation);
    if (command !== undefined) {
      this.#commands.delete(invocation);
      command.onResult(
        ending.kind === "exited"
          ? { kind: "exited", status: ending.status }
          : { kind: "failed", reason: "it was ended by a signal" },
      );
      return;
    }
    const name = this.#names.get(invocation);
    if (name !== undefined) this.#emit(name, { kind: "died", invocation, ending });
  }

  start(managed: ManagedProcess, invocation: string, replaces: string | undefined): void {
    const { name } = managed.specification;
    this.#names.set(invocation, name);
    if (isPlain(managed)) {
      this.#startPrepared(managed, invocation, replaces);
      return;
    }
    const request = this.#request(managed, invocation, managed.specification.command);
    this.#children.start(passParked(managed, request), (result) =>
      this.#tellStart(name, invocation, result),
    );
  }

  #request(managed: ManagedProcess, invocation: string, argv: readonly string[]): ChildRequest {
    const { workingDirectory, umask, leftovers } = managed.specification;
    const standard = [1, 2].map((number) => ({ source: number, target: number }));
    return {
      invocation,
      argv,
      environment: [...managed.environment, invocationVariable(invocation)],
      workingDirectory,
      umask,
      constraints: managed.constraints,
      descriptors: managed.output?.writers ?? standard,
      leftovers,
    };
  }

  #tellStart(name: string, invocation: string, result: StartResult): void {
    if (result.kind === "refused") {
      this.#names.delete(invocation);
      const { refusal } = result;
      this.#emit(name, { kind: "start-refused", invocation, refusal });
    } else {
      this.#emit(name, { kind: "started", invocation, processId: result.processId });
      this.#keep(invocation);
    }
  }

  /** The way of a restart: one call with memory that was laid out at the first start. */
  #startPrepared(managed: ManagedProcess, invocation: string, replaces: string | undefined): void {
    const { name, command, umask, leftovers, workingDirectory } = managed.specification;
    const prepared = this.#prepare(managed, invocation);
    this.#standby.delete(name);
    this.#setInvocation(prepared, invocation);
    const result = this.#children.spawn(prepared.spawn, umask);
    if (result.kind === "refused") {
      // The program may come to stand elsewhere in PATH.
      prepared.spawn[Symbol.dispose]();
      this.#prepared.delete(name);
      this.#names.delete(invocation);
      const { environment } = managed;
      const { refusal } = refuseStart(
        { argv: command, environment, workingDirectory },
        result.errno,
      );
      this.#emit(name, { kind: "start-refused", invocation, refusal });
      return;
    }
    this.#children.adopt(invocation, result, leftovers);
    const { processId } = result;
    const tell = () => {
      this.#emit(name, { kind: "started", invocation, processId });
      this.#keep(invocation);
    };
    this.loop.wakeAfter(PREPARE_AFTER, () => this.#prepareNext(managed, invocation));
    if (replaces === undefined) {
      tell();
      return;
    }
    // Its end cannot be told before its start.
    this.#children.hold(invocation);
    this.loop.wakeAfter(TELL_AFTER, () => {
      tell();
      this.#children.release(invocation);
    });
  }

  #setInvocation(prepared: Prepared, invocation: string): void {
    if (prepared.invocation === invocation) return;
    prepared.spawn.replaceVariable(prepared.invocationIndex, invocationVariable(invocation));
    prepared.invocation = invocation;
  }

  /** Draws the next invocation and has it written down while the process runs. */
  #prepareNext(managed: ManagedProcess, current: string): void {
    const { name, restart } = managed.specification;
    const prepared = this.#prepared.get(name);
    // An instance that is gone already is being restarted by now.
    const runs =
      this.#children.processOf(current) !== undefined ||
      this.#adopted.get(current)?.isDead === false;
    if (restart === "never" || prepared === undefined || !runs) return;
    const invocation = newInvocation();
    this.#setInvocation(prepared, invocation);
    this.#onPrepared(name, invocation);
    this.#standby.set(name, invocation);
  }

  standbyOf(name: string): string | undefined {
    return this.#standby.get(name);
  }

  processOf(invocation: string): OwnedDescriptor | undefined {
    return this.#children.processOf(invocation) ?? this.#adopted.processOf(invocation);
  }

  /** Nothing starts by itself here. */
  settle(_name: string, act: () => void): void {
    act();
  }

  renewed(name: string, launch: "same" | "other"): string | undefined {
    if (launch === "same") return undefined;
    this.#prepared.get(name)?.spawn[Symbol.dispose]();
    this.#prepared.delete(name);
    const invocation = this.#standby.get(name);
    this.#standby.delete(name);
    return invocation;
  }

  #prepare(managed: ManagedProcess, invocation: string): Prepared {
    const { name, command, workingDirectory } = managed.specification;
    const known = this.#prepared.get(name);
    if (known !== undefined) return known;
    const environment = [...managed.environment, invocationVariable(invocation)];
    const path = resolveProgram(command[0] ?? "", environment);
    const plan = { path, argv: command, environment, descriptors: managed.output?.writers ?? [] };
    const spawn = new PreparedSpawn(
      workingDirectory === undefined ? plan : { ...plan, workingDirectory },
    );
    const prepared = { spawn, invocationIndex: environment.length - 1, invocation };
    this.#prepared.set(name, prepared);
    return prepared;
  }

  /** Only a launcher's start can be left unanswered: it hangs, and is ended. */
  find(managed: ManagedProcess, invocation: string): void {
    if (this.#children.killLauncher(invocation)) return;
    const child = this.#children.processIdOf(invocation);
    const { name } = managed.specification;
    if (child === undefined) this.#emit(name, { kind: "not-found", invocation });
    else this.#emit(name, { kind: "found", invocation, processId: child });
  }

  signal(instance: Instance, signal: number): void {
    this.#adopted.get(instance.invocation)?.signal(signal);
    const process = this.#children.processOf(instance.invocation);
    if (process !== undefined) this.#send(instance.invocation, { process, signal });
  }

  /** One that runs as another user may be out of reach for an orchestrator without CAP_KILL. */
  #send(
    invocation: string,
    { process, signal }: { readonly process: OwnedDescriptor; readonly signal: number },
  ): void {
    if (signalProcess(process, signal) !== "refused") return;
    const processId = this.#children.processIdOf(invocation) ?? 0;
    const name = this.#names.get(invocation) ?? "a check";
    this.#onTrouble(`${name}: ${describeRefusedSignal(processId, signal)}`);
  }

  kill(_managed: ManagedProcess, instance: Instance): void {
    this.#adopted.get(instance.invocation)?.kill();
    this.#killGroup(instance.invocation);
  }

  /** A parent clears by itself; this waits until it has. */
  clear(managed: ManagedProcess, instance: Instance): void {
    const { invocation } = instance;
    const { name } = managed.specification;
    const tell = () => this.#emit(name, { kind: "cleared", invocation });
    if (this.#uncleared.delete(invocation)) this.#clearAdopted(managed, invocation, tell);
    else this.#children.afterEndOf(invocation, tell);
  }

  /** Its parent is somebody who does not clear; its number may mean another by now. */
  #clearAdopted({ specification }: ManagedProcess, invocation: string, onGone: () => void): void {
    const parent = this.#groups.parentOf(specification.constraints.cgroup);
    const group = parent === undefined ? undefined : InstanceGroup.left(parent, invocation);
    if (specification.leftovers === "keep") {
      group?.remove();
      onGone();
      return;
    }
    this.#clearing += 1;
    this.#adopted.get(invocation)?.killGroup();
    clearInvocation(this.loop, invocation, () => {
      const end = () => {
        this.#clearing -= 1;
        onGone();
      };
      if (group === undefined) end();
      else group.clear(this.loop, end);
    });
  }

  bindNotify(name: string, onSocket: (socket: OwnedDescriptor | undefined) => void): void {
    const socket = makeUnixSocket("datagram");
    receiveCredentials(socket);
    if (bindUnix(socket, name) < 0) {
      socket.close();
      onSocket(undefined);
    } else onSocket(socket);
  }

  openSocket(
    target: Parameters<Partition["openSocket"]>[0],
    onSocket: (socket: OwnedDescriptor | undefined) => void,
  ): void {
    if (target.family !== "unix") {
      onSocket(makeTcpSocket(target.family));
      return;
    }
    const socket = makeUnixSocket("stream");
    if (connectUnix(socket, target.path) < 0) {
      socket.close();
      onSocket(undefined);
    } else onSocket(socket);
  }

  runCommand(
    managed: ManagedProcess,
    { command, invocation }: CommandRequest,
    onResult: (result: CommandResult) => void,
  ): void {
    const request = this.#request(managed, invocation, command);
    this.#commands.set(invocation, { onResult, ended: false });
    this.#children.start({ ...request, leftovers: "kill" }, (result) => {
      if (result.kind === "started") {
        if (this.#commands.get(invocation)?.ended === true) this.#killGroup(invocation);
        return;
      }
      this.#commands.delete(invocation);
      onResult({ kind: "failed", reason: result.refusal.message });
    });
  }

  endCommand(invocation: string): void {
    const command = this.#commands.get(invocation);
    if (command === undefined) return;
    // One that the launcher still prepares is killed when it is there.
    command.ended = true;
    this.#killGroup(invocation);
  }

  /** SIGKILL to a child that is not reaped yet, so that its number and group are still its own. */
  #killGroup(invocation: string): void {
    const process = this.#children.processOf(invocation);
    const processId = this.#children.processIdOf(invocation);
    if (process === undefined || processId === undefined) return;
    kill(-processId, SIGKILL);
    this.#send(invocation, { process, signal: SIGKILL });
  }
}
