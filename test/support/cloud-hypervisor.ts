/**
 * Starts VMMs of cloud-hypervisor in tests: the real one where CLOUD_HYPERVISOR names it, which
 * takes KVM, else the fake. What is proven with the fake is our half of each conversation.
 */
import { existsSync, mkdirSync, readSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { makeNamedPipe } from "../../ffi/descriptor.ts";
import { COUNTER_ADDRESS, guestLine, makeTestGuest } from "../../scripts/test-guest.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import {
  type CloudHypervisorOptions,
  makeCloudHypervisorDriver,
} from "../../src/hypervisor/cloud-hypervisor/driver.ts";
import type {
  Beginning,
  CapturedState,
  MachineFiles,
  MachineSpecification,
  VmmConnection,
  VmmEvent,
} from "../../src/hypervisor/driver.ts";
import { type FakeOrders, fakeCloudHypervisor } from "./fake-cloud-hypervisor.ts";
import { filesIn, testMachine } from "./hypervisor/machines.ts";
import { type Program, startProgram } from "./program.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor, withDeadline } from "./wait-for.ts";

/** The real one; undefined where the fake stands in. */
export const realCloudHypervisor: string | undefined = process.env["CLOUD_HYPERVISOR"];

/** Where a test's machines live. */
export interface VmmPlace extends Disposable {
  readonly folder: TemporaryFolder;
  readonly loop: EventLoop;
  /** The test guest. */
  readonly kernel: string;
}

export function vmmPlace(loop: EventLoop): VmmPlace {
  const folder = temporaryFolder();
  const kernel = folder.file("guest.elf");
  writeFileSync(kernel, makeTestGuest());
  return { folder, loop, kernel, [Symbol.dispose]: () => folder[Symbol.dispose]() };
}

export interface VmmOptions {
  /** Its run folder's name. */
  readonly name: string;
  readonly orders?: FakeOrders;
  readonly beginning?: Beginning;
  readonly machine?: Partial<MachineSpecification>;
  readonly driver?: CloudHypervisorOptions;
}

export interface StartedVmm extends AsyncDisposable {
  readonly program: Program;
  readonly machine: MachineSpecification;
  readonly files: MachineFiles;
  /** What was told since the start, by all connections. */
  readonly events: VmmEvent[];
  readonly lost: string[];
  readonly troubles: string[];
  /** Connects, as the worker that started it or as a later one. */
  connect(): Promise<VmmConnection>;
  /** Waits until it was told. */
  heard(kind: VmmEvent["kind"]): Promise<VmmEvent>;
}

/** Starts a VMM by the driver's own plan. Its machine is not made yet. */
export function startVmm(place: VmmPlace, options: VmmOptions): StartedVmm {
  const { name, orders, beginning = "new" } = options;
  const run = place.folder.file(name);
  mkdirSync(run);
  const machine = testMachine({
    accelerator: "kvm",
    machineType: undefined,
    processorModel: undefined,
    boot: { kind: "kernel", kernel: place.kernel, initramfs: undefined, commandLine: "quiet" },
    ...options.machine,
  });
  const files = filesIn(run);
  const troubles: string[] = [];
  const onTrouble = (message: string) => troubles.push(message);
  const driver = makeCloudHypervisorDriver({ onTrouble, ...options.driver });
  const path = realCloudHypervisor ?? fakeCloudHypervisor(place.folder, orders);
  const program = { hypervisor: "cloud-hypervisor", path, version: "53.0" } as const;
  const plan = driver.plan(machine, files, program, beginning);
  for (const pipe of plan.pipes ?? []) makeNamedPipe(pipe, 0o600);
  const started = startProgram([plan.program, ...plan.arguments]);
  const events: VmmEvent[] = [];
  const lost: string[] = [];
  const cut = new AbortController();
  return {
    ...{ program: started, machine, files, events, lost, troubles },
    connect: () =>
      driver.connect(files, {
        loop: place.loop,
        machine,
        onEvent: (event) => events.push(event),
        onLost: (reason) => lost.push(reason),
        signal: cut.signal,
      }),
    heard: (kind) => waitFor(`the event ${kind}`, () => events.find((one) => one.kind === kind)),
    [Symbol.asyncDispose]: async () => {
      cut.abort();
      await started[Symbol.asyncDispose]();
    },
  };
}

/** A VMM with a machine that runs the test guest. */
export async function startMachine(
  place: VmmPlace,
  options: VmmOptions,
): Promise<{ readonly vmm: StartedVmm; readonly connection: VmmConnection }> {
  const vmm = startVmm(place, options);
  const connection = await vmm.connect();
  await connection.create();
  await connection.boot();
  return { vmm, connection };
}

/** The guest's counter as its serial port tells it: the next number that comes. */
export async function nextCount(files: MachineFiles): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const socket = connect(files.console);
  let text = "";
  socket.on("error", reject);
  socket.on("data", (bytes) => {
    text += bytes.toString();
    const [, count] = guestLine.exec(text) ?? [];
    if (count !== undefined) resolve(Number.parseInt(count, 16));
  });
  try {
    return await withDeadline("a number of the guest", promise);
  } finally {
    socket.destroy();
  }
}

/** Types a letter to the guest. */
export async function typeLetter(files: MachineFiles, letter: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const socket = connect(files.console, () => socket.write(letter, () => resolve()));
  socket.on("error", reject);
  await withDeadline("the letter to be sent", promise);
  socket.end();
}

/** The guest's counter in memory that left its VMM. */
export function countIn({ memory = [] }: CapturedState): number {
  const [first] = memory;
  if (first === undefined) throw new Error("No memory came with the state");
  const bytes = Buffer.alloc(4);
  readSync(first.number, bytes, 0, 4, COUNTER_ADDRESS);
  return bytes.readUInt32LE(0);
}

/** Whether a socket's file is there. */
export const isThere = (path: string): boolean => existsSync(path);
