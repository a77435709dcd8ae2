import { wallClock } from "../event-loop/clock.ts";
import type { ControlCall } from "../messaging/control-server.ts";
import type { BookedEvent } from "../units/event-book.ts";
import { hostlerVersion } from "../units/version.ts";
import { type AskedMachine, answerAgent } from "./agent-control.ts";
import { answerForgetMigrated, answerMigrate, answerReceive } from "./control-migration.ts";
import { answerSnapshots } from "./control-snapshots.ts";
import { DeclarationRefused } from "./desired-state.ts";
import { describeEntry } from "./event-words.ts";
import { instanceOf, whyRefused } from "./lifecycle.ts";
import {
  type HistoryEntry,
  type MachineEvent,
  type MachineState,
  VMM_DIED,
  type Wish,
} from "./lifecycle-state.ts";
import { damagedText } from "./perform/damaged-machine.ts";
import type { UnreadableRecord } from "./perform/machine-folders.ts";
import { measureMachine } from "./perform/measure.ts";
import type {
  ControlRequest,
  ErrorKind,
  Survivable,
  VmDetail,
  VmEventRecord,
  VmSummary,
  WorkerStatus,
} from "./protocol.ts";
import { limits } from "./protocol.ts";
import type { Entry, MachineWorker } from "./worker.ts";

type Of<Verb extends ControlRequest["verb"]> = Extract<ControlRequest, { verb: Verb }>;

/** Answers one request of the control socket. */
export function answerControl(
  worker: MachineWorker,
  request: ControlRequest,
  call: ControlCall,
): void {
  switch (request.verb) {
    case "create":
      create(worker, request, call);
      return;
    case "apply":
    case "diff":
      declare(worker, request, call);
      return;
    case "list":
      call.done([...worker.machines.values()].map((entry) => summarize(worker, entry)));
      return;
    case "events":
      sendEvents(worker, request, call);
      return;
    case "status":
      call.done(statusOf(worker));
      return;
    case "metrics":
      void sendMetrics(worker, request, call);
      return;
    case "receive":
    case "cancel-receive":
      void answerReceive(worker, request, call);
      return;
    case "forget-migrated":
      answerForgetMigrated(worker, request, call);
      return;
    case "restore":
    case "snapshots":
    case "delete-snapshot":
      void answerSnapshots(worker, request, call, (entry) => summarize(worker, entry));
      return;
    default:
      answerAbout(worker, request, call);
  }
}

type AboutOne = Exclude<
  ControlRequest,
  {
    verb:
      | ("create" | "apply" | "diff" | "list" | "events" | "status" | "metrics")
      | ("restore" | "snapshots" | "delete-snapshot" | "receive" | "cancel-receive")
      | "forget-migrated";
  }
>;

function answerAbout(worker: MachineWorker, request: AboutOne, call: ControlCall): void {
  const entry = worker.machines.get(request.name);
  if (entry === undefined) {
    const damaged = worker.damaged(request.name);
    if (damaged !== undefined) {
      void answerDamaged(worker, damaged, request, call);
      return;
    }
    // Whoever deleted it may ask for its end after that came.
    if (request.verb === "wait" && request.until === "removed") call.done(null);
    else refuseUnknown(worker, request.name, call);
    return;
  }
  switch (request.verb) {
    case "show":
      call.done(detail(worker, entry));
      return;
    case "survivable":
      call.done(survivableOf(worker, entry));
      return;
    case "console":
      sendConsole(entry, call);
      return;
    case "wait":
      waitFor(worker, request, call);
      return;
    case "snapshot":
      void answerSnapshots(worker, request, call, (one) => summarize(worker, one));
      return;
    case "migrate":
      void answerMigrate(worker, entry, request, call);
      return;
    case "exec":
    case "guest-ping":
      answerAgent(askedOf(entry), request, call);
      return;
    default:
      wish(worker, entry, request, call);
  }
}

/** Of a machine whose record is not understood nothing is known, but that it can be removed. */
async function answerDamaged(
  worker: MachineWorker,
  damaged: UnreadableRecord,
  request: AboutOne,
  call: ControlCall,
): Promise<void> {
  if (request.verb !== "delete" || request.now !== true) {
    // Whoever lets go of it need not hear how it could be mended.
    const why = request.verb === "delete" ? "its guest cannot be asked to shut down, and " : "";
    refuse(call, "record-damaged", `${damaged.name}: ${why}${damagedText(damaged)}`);
    return;
  }
  try {
    await worker.removeDamaged(damaged);
    call.done(null);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    refuse(call, "system", `${damaged.name} was not removed: ${message}`);
  }
}

function refuse(call: ControlCall, kind: ErrorKind, message: string, hint?: string): void {
  call.refuse({ kind, message, ...(hint !== undefined && { hint }) });
}

function refuseUnknown(worker: MachineWorker, name: string, call: ControlCall): void {
  const known = [...worker.machines.keys()];
  call.refuse({
    kind: "unknown-machine" satisfies ErrorKind,
    message: `There is no machine ${name}`,
    expected: known.slice(0, 50).join(", "),
    received: name,
    hint: "See hostler vm list",
  });
}

function create(worker: MachineWorker, request: Of<"create">, call: ControlCall): void {
  const { spec, wanted = "created" } = request;
  const refusal = worker.create(spec, { wanted, owner: "operator" });
  if (refusal !== undefined) {
    refuse(call, refusal.kind, refusal.message);
    return;
  }
  const entry = worker.machines.get(spec.name);
  if (entry !== undefined) call.done(summarize(worker, entry));
}

function declare(worker: MachineWorker, request: Of<"apply" | "diff">, call: ControlCall): void {
  try {
    const { desired } = worker;
    call.done(
      request.verb === "apply" ? desired.apply(request.desired) : desired.diff(request.desired),
    );
  } catch (error) {
    if (!(error instanceof DeclarationRefused)) throw error;
    refuse(call, error.kind, error.message);
  }
}

function askedOf({ machine, state }: Entry): AskedMachine {
  const { name, agent } = machine;
  return { name, agent, phase: state.phase };
}

type Wished = Exclude<
  AboutOne,
  | Of<"show" | "survivable" | "console" | "wait" | "snapshot" | "exec" | "guest-ping">
  | Of<"migrate">
>;

/** What an operator asks for, as an event of the lifecycle. */
function eventOf(request: Wished): Wish {
  switch (request.verb) {
    case "replace-vmm":
      return { kind: "replace" };
    case "shutdown":
      return { kind: "shutdown", hurry: request.now === true };
    case "delete":
      return { kind: "delete", hurry: request.now === true };
    default:
      return { kind: request.verb };
  }
}

/** Whose a machine is that came or went, an operator decides. */
const undecided: readonly string[] = ["sending", "given", "receiving", "arrived"];

/** Why a declared machine is not deleted: it would come again, and its disks would not. */
function whyKept(
  worker: MachineWorker,
  { machine, state }: Entry,
  request: Of<"delete">,
): string | undefined {
  const { owner, assigned } = machine.record;
  const isLeft = request.recreate === true || undecided.includes(state.phase);
  if (owner !== "declared" || isLeft || !worker.desired.has(machine.name)) return undefined;
  const where = assigned === undefined ? "the file, and apply that" : "its master's declaration";
  return (
    `${machine.name} is declared, and would be made anew, without what is on its disks. Take it ` +
    `out of ${where}`
  );
}

/** What would have a machine run. */
const starting: ReadonlySet<Wished["verb"]> = new Set<Wished["verb"]>(["boot", "resume"]);

function wish(worker: MachineWorker, entry: Entry, request: Wished, call: ControlCall): void {
  const event: MachineEvent & Wish = eventOf(request);
  const why = whyRefused(entry.state, event.kind);
  if (why !== undefined) {
    const message = `${request.name} is ${entry.state.phase}: ${why}`;
    refuse(call, "wrong-phase", message);
    return;
  }
  const kept = request.verb === "delete" ? whyKept(worker, entry, request) : undefined;
  if (kept !== undefined) {
    refuse(
      call,
      "wrong-phase",
      kept,
      `hostler vm delete ${request.name} --recreate has it made anew`,
    );
    return;
  }
  if (request.verb === "replace-vmm") {
    const { survivable, obstacles } = survivableOf(worker, entry);
    if (!survivable) {
      const words = obstacles.map(({ key, message }) => `${key}: ${message}`).join("; ");
      refuse(call, "wrong-phase", `The VMM of ${request.name} cannot be replaced: ${words}`);
      return;
    }
  }
  const held = starting.has(request.verb)
    ? worker.mastered?.whyNotStarted(request.name)
    : undefined;
  if (held !== undefined) {
    const hint = "The master says where it is: hostler vm cluster";
    refuse(call, "has-master", `${request.name} may not run here now: ${held}`, hint);
    return;
  }
  if (request.verb === "shutdown") entry.machine.giveGrace(request.grace_ms ?? null);
  worker.handle(request.name, event);
  call.done(summarize(worker, entry));
}

function sendConsole(entry: Entry, call: ControlCall): void {
  const { machine, state } = entry;
  if (instanceOf(state) === undefined) {
    refuse(call, "wrong-phase", `${machine.name} is ${state.phase}: no VMM has it`);
    return;
  }
  call.done({ name: machine.name, path: machine.consoleSocket });
}

/** Phases in which a machine stays until somebody says otherwise. */
const resting: ReadonlySet<string> = new Set(["created", "running", "paused", "off", "failed"]);

/** Answers when the machine is in that phase, or will not come there by itself. */
function waitFor(worker: MachineWorker, request: Of<"wait">, call: ControlCall): void {
  const { name, until } = request;
  const look = (): boolean => {
    const entry = worker.machines.get(name);
    if (entry === undefined) {
      if (until === "removed") call.done(null);
      else refuseUnknown(worker, name, call);
      return true;
    }
    const { phase } = entry.state;
    if (phase === until) {
      call.done(summarize(worker, entry));
      return true;
    }
    const waiting = waitingText(entry);
    if (waiting !== undefined) {
      const folder = worker.configuration.artifactsFolder;
      const hint = `It goes on by itself when there is room in ${folder}`;
      refuse(call, "system", `${name}: ${waiting}`, hint);
      return true;
    }
    const reason = reasonOf(entry);
    const why = reason === undefined ? "" : `: ${withoutStop(reason)}`;
    if (phase === "backing-off" && didNotStart(worker, name)) {
      const hint = "It is tried again by itself; hostler vm show tells what came of it";
      refuse(call, "system", `${name} was not started${why}`, hint);
      return true;
    }
    if (!resting.has(phase) || wantedPhase(entry.state) === until) return false;
    if (until === "removed" && entry.machine.record.owner === "declared") {
      const hint = "Take it out of the file, and apply that";
      refuse(call, "wrong-phase", `${name} is declared, and was made anew: it is ${phase}`, hint);
      return true;
    }
    const hint = phase === "failed" ? `hostler vm delete ${name} gives its name free` : undefined;
    refuse(call, "wrong-phase", `${name} is ${phase}, and does not become ${until}${why}`, hint);
    return true;
  };
  if (look()) return;
  const subscription = worker.onTurn(() => {
    if (look()) subscription[Symbol.dispose]();
  });
  call.onGone(() => subscription[Symbol.dispose]());
}

/** Why it is as it is; of a VMM that died, its own last words. */
function reasonOf({ machine, state }: Entry): string | undefined {
  const { reason } = state;
  const words = reason === VMM_DIED ? machine.lastWords : undefined;
  return words === undefined ? reason : `${reason}: ${words}`;
}

const withoutStop = (text: string) => text.replace(/\.$/, "");

/** Whether it waits since its last start was refused, or the VMM of that never answered. */
function didNotStart(worker: MachineWorker, name: string): boolean {
  const history = worker.events.historyOf(name).map(({ entry }) => entry);
  const last = history.findLast(({ what }) => startEnds.has(what));
  if (last?.what !== "died") return last !== undefined;
  const { invocation } = last;
  return !history.some((one) => one.what === "attached" && one.invocation === invocation);
}

const startEnds: ReadonlySet<HistoryEntry["what"]> = new Set<HistoryEntry["what"]>([
  ...(["prepare-refused", "network-refused", "start-refused", "died"] as const),
]);

/** Where a machine is on its way to; undefined where it rests for good. */
function wantedPhase(state: MachineState): string | undefined {
  return state.phase === "failed" || state.phase === "off" ? undefined : state.wanted;
}

function encodeEvent(event: BookedEvent<HistoryEntry>): VmEventRecord {
  const { entry } = event;
  const detailText = describeEntry(entry);
  return {
    sequence: event.sequence,
    time: wallClock(event.at),
    monotonic_us: Math.round(event.at * 1_000),
    name: event.name,
    what: entry.what,
    ...("invocation" in entry && { invocation: entry.invocation }),
    ...("processId" in entry && { pid: entry.processId }),
    ...(detailText !== undefined && { detail: detailText }),
  };
}

function sendEvents(worker: MachineWorker, request: Of<"events">, call: ControlCall): void {
  const { name } = request;
  const isKnown =
    name === undefined ||
    worker.machines.has(name) ||
    worker.events.after(0).some((event) => event.name === name);
  if (!isKnown) {
    refuseUnknown(worker, name, call);
    return;
  }
  let last = request.after ?? 0;
  const send = () => {
    for (const event of worker.events.after(last)) {
      last = event.sequence;
      if (request.name === undefined || request.name === event.name) call.item(encodeEvent(event));
    }
  };
  send();
  if (request.follow !== true) {
    call.done(null);
    return;
  }
  const subscription = worker.onTurn(send);
  call.onGone(() => subscription[Symbol.dispose]());
}

function waitingText({ machine: { whyWaiting } }: Entry): string | undefined {
  return whyWaiting && `its record cannot be written, and what follows waits: ${whyWaiting}`;
}

function cutOffText({ machine }: Entry): string | undefined {
  if (!machine.isCutOff) return undefined;
  return (
    "its card was removed by somebody else, and its VMM does not have the one that was made " +
    `since: hostler vm replace-vmm ${machine.name}`
  );
}

/** Where it is as it should be, what came before is the history's. */
const lastReason = (entry: Entry) =>
  entry.state.phase === entry.state.wanted ? null : (reasonOf(entry) ?? null);

export function summarize(worker: MachineWorker, entry: Entry): VmSummary {
  const { machine, state } = entry;
  const { spec, allocation, choice } = machine.record;
  const { cards } = allocation;
  const [card] = cards;
  const instance = instanceOf(state);
  const parts = machine.knownParts;
  const { progress } = machine;
  return {
    name: spec.name,
    phase: state.phase,
    wanted: state.wanted,
    reason:
      entry.doubt ??
      waitingText(entry) ??
      cutOffText(entry) ??
      worker.migrations.preparationOf(spec.name) ??
      lastReason(entry),
    pid: instance?.processId ?? null,
    invocation: instance?.invocation ?? null,
    address: card?.address ?? null,
    mac: card?.mac ?? null,
    tap: card?.tap ?? null,
    cards,
    forwards: spec.forwards ?? [],
    hypervisor: choice?.hypervisor ?? null,
    version: machine.attached?.connection.version ?? null,
    accelerator: choice?.accelerator ?? null,
    processors: parts?.processors ?? null,
    memory_bytes: parts?.memory ?? null,
    uptime_ms: instance === undefined ? null : Math.round(worker.now - instance.startedAt),
    restarts: state.restarts,
    image_hash: spec.hash ?? null,
    progress:
      progress === undefined
        ? null
        : { what: progress.what, done_bytes: progress.done, all_bytes: progress.of },
    detached_ms: state.phase === "detached" ? Math.round(worker.now - state.since) : null,
    capture: state.capture?.id ?? null,
    health: machine.health.view,
  };
}

function detail(worker: MachineWorker, entry: Entry): VmDetail {
  const { machine, state } = entry;
  const { choice, spec } = machine.record;
  return {
    summary: summarize(worker, entry),
    spec,
    machine_type: choice?.machine_type ?? null,
    processor_model: choice?.processor_model ?? null,
    console: instanceOf(state) === undefined ? null : machine.consoleSocket,
    vmm_output: machine.vmmOutput || null,
    folder: machine.folder,
    cgroup: machine.cgroup ?? null,
    survivable: survivableOf(worker, entry),
    history: worker.events.historyOf(machine.name).map(encodeEvent),
  };
}

/** Whether its VMM can be replaced under it, else exactly why not. */
function survivableOf(worker: MachineWorker, entry: Entry): Survivable {
  const { machine, state } = entry;
  const obstacles: { key: string; message: string }[] = [];
  const why =
    machine.attached === undefined
      ? `no VMM that answers has it: it is ${state.phase}`
      : whyRefused(state, "replace");
  if (why !== undefined) obstacles.push({ key: "phase", message: why });
  const bound = worker.boundToBuild(machine);
  return {
    name: machine.name,
    survivable: obstacles.length === 0,
    obstacles,
    same_build_only: bound.length === 0 ? null : bound.join("; "),
  };
}

async function sendMetrics(
  worker: MachineWorker,
  request: Of<"metrics">,
  call: ControlCall,
): Promise<void> {
  const { name } = request;
  const all = [...worker.machines.values()];
  const asked = name === undefined ? all : all.filter((entry) => entry.machine.name === name);
  if (name !== undefined && asked.length === 0) {
    refuseUnknown(worker, name, call);
    return;
  }
  const counters = worker.linkCounters();
  const measured = await Promise.all(
    asked.map(({ machine }) => measureMachine(machine, counters, wallClock())),
  );
  call.done(measured);
}

function countOf(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}

function cgroupStatus({ cgroups: { status } }: MachineWorker) {
  return status.kind === "on"
    ? {
        cgroup: status.parent,
        cgroup_controllers: [...status.controllers],
        cgroup_lacking: status.lacking ?? null,
      }
    : { cgroup: null, cgroup_controllers: [], cgroup_lacking: status.reason };
}

function statusOf(worker: MachineWorker): WorkerStatus {
  const entries = [...worker.machines.values()];
  const phases = countOf(entries.map(({ state }) => state.phase));
  const health = countOf(entries.flatMap(({ machine }) => machine.health.view?.state ?? []));
  const networks = worker.network.summaries().map(({ configuration, freeAddresses, cards }) => {
    const { bridge, subnet, vlan = null } = configuration.specification;
    return { name: configuration.name, bridge, subnet, vlan, free_addresses: freeAddresses, cards };
  });
  const [first] = networks;
  const choice = worker.choose(null);
  const { cloudHypervisor, qemu } = worker.hypervisors;
  const programs = [cloudHypervisor, qemu].flatMap((observed) =>
    observed.kind === "found" ? [observed.program] : [],
  );
  const chosen = choice.kind === "chosen" ? choice : undefined;
  return {
    version: hostlerVersion,
    pid: process.pid,
    uptime_ms: Math.round(worker.now - worker.startedAt),
    machines: worker.machines.size,
    machine_limit: limits.machines,
    phases,
    health,
    hypervisors: programs.map(({ hypervisor, path, version }) => ({
      hypervisor,
      path,
      version,
      accelerator: chosen?.accelerator ?? "tcg",
      chosen: chosen?.program.path === path,
    })),
    ...cgroupStatus(worker),
    bridge: first?.bridge ?? null,
    subnet: first?.subnet ?? null,
    free_addresses: first?.free_addresses ?? null,
    networks,
    generation: worker.desired.generation,
    convergence_percent: worker.desired.convergencePercent,
    master: worker.mastered?.status() ?? null,
    damaged: worker.unreadable.map(({ name, path, reason }) => ({ name, path, reason })),
    warnings: [
      ...worker.hypervisorWarnings,
      ...worker.network.warnings,
      ...entries.flatMap((entry) => {
        const texts = [waitingText(entry), cutOffText(entry)];
        return texts.flatMap((text) =>
          text === undefined ? [] : `${entry.machine.name}: ${text}`,
        );
      }),
      ...worker.unreadable.map((one) => `${one.name}: ${damagedText(one)}`),
      ...(worker.desired.damage === undefined ? [] : [worker.desired.damage]),
    ],
  };
}
