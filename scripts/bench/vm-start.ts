/** From the order to create a machine to its guest's first letter, and the same of others. */
import { mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { monotonicNanoseconds } from "../../ffi/process.ts";
import { consoleLogOf } from "../../src/vm/console-log.ts";
import { startProgram } from "../../test/support/program.ts";
import { type TestImage, VmHost } from "../../test/support/vm-worker.ts";
import { ScriptError, type Step } from "../terminal.ts";
import { shuffle } from "./statistics.ts";
import {
  guestMemory,
  make,
  makeImage,
  millisecondsAfter,
  remove,
  specOf,
  type VmBench,
} from "./vm-bench.ts";
import { type Libvirt, startLibvirt } from "./vm-libvirt.ts";

export const startSides = ["floor", "hostler", "command", "libvirt"] as const;
export type StartSide = (typeof startSides)[number];

/** What happened, as the worker's events call it, in the order in which it does. */
export const stages = [
  "prepare-requested",
  "prepared",
  "network-ready",
  "started",
  "attached",
  "booted",
] as const;
export type Stage = (typeof stages)[number];

export interface StartFindings {
  /** Milliseconds, by round. */
  readonly sides: Readonly<Record<StartSide, Map<number, number[]>>>;
  /** Milliseconds from the order, of hostler over its control socket. */
  readonly stages: Readonly<Record<Stage, number[]>>;
  /** Why libvirt is not among them. */
  readonly libvirtRefusal: string | undefined;
}

interface Place {
  readonly bench: VmBench;
  readonly host: VmHost;
  readonly image: TestImage;
  readonly floor: FloorMachine;
  readonly libvirt: Libvirt | undefined;
}

/** The image is verified and the bridge there before the first round: another machine has them. */
export async function measureStarts(bench: VmBench, step: Step): Promise<StartFindings> {
  const found: StartFindings = {
    sides: { floor: new Map(), hostler: new Map(), command: new Map(), libvirt: new Map() },
    stages: Object.fromEntries(stages.map((stage) => [stage, [] as number[]])) as Record<
      Stage,
      number[]
    >,
    libvirtRefusal: undefined,
  };
  await using stack = new AsyncDisposableStack();
  const host = stack.use(await VmHost.make());
  const image = await makeImage(host, "slow");
  await host.start({ binary: bench.files.hostler });
  using client = await host.client();
  await make(client, specOf("keeper", image), "created");
  const floor = await makeFloorMachine(host, image);
  const libvirt = await startLibvirt(host);
  if (typeof libvirt !== "string") stack.use(libvirt);
  const place = { bench, host, image, floor, libvirt: withoutReason(libvirt) };
  const rounds = bench.quick ? 5 : 20;
  const sides = startSides.filter((side) => side !== "libvirt" || place.libvirt !== undefined);
  // The first round lets everybody do what they do for the first time.
  for (let round = 0; round <= rounds; round += 1) {
    step.say(`round ${round} of ${rounds}`);
    for (const side of shuffle(sides, bench.chance)) {
      const taken = await starters[side](
        place,
        `${side}-${round}`,
        round === 0 ? undefined : found,
      );
      if (round > 0) found.sides[side].set(round, [taken]);
    }
  }
  return { ...found, libvirtRefusal: typeof libvirt === "string" ? libvirt : undefined };
}

const withoutReason = (libvirt: Libvirt | string) =>
  typeof libvirt === "string" ? undefined : libvirt;

/** @returns milliseconds until the guest's first letter; nothing of the machine is left then */
type Starter = (place: Place, name: string, found: StartFindings | undefined) => Promise<number>;

const starters: Readonly<Record<StartSide, Starter>> = {
  floor: ({ bench, host, floor }) => startFloor(bench, host, floor),
  hostler: (place, name, found) => startByHostler(place, name, found),
  command: startByCommand,
  libvirt: async ({ bench, libvirt }, name) => {
    if (libvirt === undefined) throw new ScriptError("libvirt does not run", { exitCode: 1 });
    await libvirt.prepare(name);
    const letter = await awaitLetter(bench, libvirt.serialOf(name));
    const begin = monotonicNanoseconds();
    await libvirt.start(name);
    const taken = (await letter.moment()) - begin;
    await libvirt.remove(name);
    return taken / 1_000_000;
  },
};

/** Looks for a file's first letter from now on. */
async function awaitLetter({ files }: VmBench, path: string) {
  const program = startProgram([files.floor, "letter", path]);
  await program.said(/^ready$/m);
  return {
    /** CLOCK_MONOTONIC, in nanoseconds. */
    moment: async () => {
      await using watched = program;
      await watched.said(/^at \d+$/m);
      return millisecondsAfter("at", watched.output.stdout) * 1_000_000;
    },
  };
}

async function startByHostler(
  { bench, host, image }: Place,
  name: string,
  found: StartFindings | undefined,
): Promise<number> {
  using client = await host.client();
  const letter = await awaitLetter(bench, consoleLogOf(host.machineFolder(name)));
  const begin = monotonicNanoseconds();
  await client.create(specOf(name, image), "running");
  const taken = (await letter.moment()) - begin;
  await client.wait(name, "running");
  const { history } = await client.show(name);
  for (const stage of found === undefined ? [] : stages) {
    const event = history.find(({ what }) => what === stage);
    if (event === undefined) throw new ScriptError(`${name} was never ${stage}`, { exitCode: 1 });
    found?.stages[stage].push(event.monotonic_us / 1_000 - begin / 1_000_000);
  }
  await remove(client, name);
  return taken / 1_000_000;
}

async function startByCommand({ bench, host, image }: Place, name: string): Promise<number> {
  const letter = await awaitLetter(bench, consoleLogOf(host.machineFolder(name)));
  const words = ["vm", "create", name, "--image", image.path, "--hash", image.hash, "--start"];
  const begin = monotonicNanoseconds();
  const argv = [bench.files.hostler, ...words, "--control-socket", host.controlSocket];
  await using command = startProgram(argv);
  const taken = (await letter.moment()) - begin;
  await command.ended();
  using client = await host.client();
  await client.wait(name, "running");
  await remove(client, name);
  return taken / 1_000_000;
}

/** How hostler started a machine that is off now, whose TAP is still there. */
interface FloorMachine {
  /** The same words, but that it runs at once, and makes its control socket itself. */
  readonly argv: readonly string[];
  readonly console: string;
}

async function makeFloorMachine(host: VmHost, image: TestImage): Promise<FloorMachine> {
  using client = await host.client();
  await make(client, specOf("floor", image), "created");
  const argv = host
    .vmmProcesses()
    .map((process) => readFileSync(`/proc/${process}/cmdline`, "latin1").split("\0").slice(0, -1))
    .find((words) => words.includes("guest=floor"));
  if (argv === undefined) throw new ScriptError("The floor's machine has no VMM", { exitCode: 1 });
  const console = consoleOf(argv);
  await client.change("shutdown", "floor", { now: true });
  await client.wait("floor", "off");
  const control = `path=${join(dirname(console), "control")}`;
  const own = argv.map((word) => word.replace(/^(socket,id=control,)fd=\d+/, `$1${control}`));
  return { argv: own.filter((word) => word !== "-S"), console };
}

/** Where QEMU listens for its serial console. @throws ScriptError when it does not */
export function consoleOf(argv: readonly string[]): string {
  const chardev = argv.find((word) => word.startsWith("socket,id=console,"));
  const path = /,path=([^,]+)/.exec(chardev ?? "")?.[1];
  if (path === undefined) {
    throw new ScriptError(`No console among the words ${argv.join(" ")}`, { exitCode: 1 });
  }
  return path;
}

async function startFloor(
  { files }: VmBench,
  host: VmHost,
  { argv, console }: FloorMachine,
): Promise<number> {
  mkdirSync(dirname(console), { recursive: true });
  const words = ["start", console, String(guestMemory), ...argv];
  return millisecondsAfter("took", await host.on(files.floor, ...words));
}
