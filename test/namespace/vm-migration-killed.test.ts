/** Kills either worker at each step of a migration: one of both runs the machine afterwards. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import {
  type MigrationEffect,
  migrationEffects,
  migrationSteps,
} from "../../src/vm/perform/kill-points.ts";
import type { VmSummary } from "../../src/vm/protocol.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { kvmDevice, setUpFakeCloudHypervisor } from "../support/fake-cloud-hypervisor-host.ts";
import { startProgram } from "../support/program.ts";
import { onlyInAll, rotating } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { VmPair } from "../support/vm-pair.ts";
import type { VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(180_000);

/** Who performs it; abandon-send has cases of its own: nobody migrates to call it off. */
const sideOf: Readonly<Record<Exclude<MigrationEffect, "abandon-send">, "giver" | "taker">> = {
  send: "giver",
  "hand-over": "giver",
  receive: "taker",
  confirm: "taker",
};

interface KillCase {
  readonly side: "giver" | "taker";
  readonly point: string;
  readonly pass: number;
  /** By a file at the giver; else it is made by hand. */
  readonly isDeclared?: boolean;
  /** With the fake of cloud-hypervisor, whose VMM lets its guest run when its worker is gone. */
  readonly isFake?: boolean;
}

const stepSide = (step: string) => (step.startsWith("receive") ? "taker" : "giver");

/** The giver's first is of the machine's adoption; then "given", and its end. The taker's: all. */
const notes = { giver: [2, 3, 4], taker: [1, 2, 3, 4, 5, 6] } as const;

const declaredAt = { side: "giver", isDeclared: true } as const;

/** Where it counts what a VMM does by itself when its worker dies. */
const fakeCases: readonly KillCase[] = [
  ...(["send:begun", "send:stopped", "send:sent", "send:arrived"] as const),
  ...(["hand-over:begun", "hand-over:said", "receive:ready", "receive:arrived"] as const),
].map((step) => ({ side: stepSide(step), point: `vm:${step}`, pass: 1, isFake: true }));

const cases: readonly KillCase[] = [
  ...fakeCases,
  ...["before", "after"].map(
    (when) => ({ side: "giver", point: `vm:note:${when}`, pass: 3, isFake: true }) as const,
  ),
  ...migrationEffects
    .filter((effect): effect is keyof typeof sideOf => effect !== "abandon-send")
    .flatMap((effect) => {
      // One tells that all has arrived, the other one that it was taken.
      const passes = effect === "confirm" ? [1, 2] : [1];
      return ["before", "after"].flatMap((when) =>
        passes.map((pass) => ({ side: sideOf[effect], point: `vm:${effect}:${when}`, pass })),
      );
    }),
  ...migrationSteps.map(
    (step) => ({ side: stepSide(step), point: `vm:${step}`, pass: 1 }) as const,
  ),
  ...(["giver", "taker"] as const).flatMap((side) =>
    ["before", "after"].flatMap((when) =>
      notes[side].map((pass) => ({ side, point: `vm:note:${when}`, pass })),
    ),
  ),
  // Whether it is made anew here, where a file declares it, hangs on these alone.
  ...["before", "after"].flatMap((when) => [
    ...notes.giver.map((pass) => ({ ...declaredAt, point: `vm:note:${when}`, pass })),
    { ...declaredAt, point: `vm:discard:${when}`, pass: 1 },
  ]),
  { ...declaredAt, point: "vm:discard:network", pass: 1 },
  { ...declaredAt, point: "vm:discard:files", pass: 1 },
  { ...declaredAt, point: "vm:hand-over:said", pass: 1 },
  { side: "taker", point: "vm:spawn:started", pass: 1 },
  { side: "taker", point: "vm:resume:before", pass: 1 },
  { side: "taker", point: "vm:resume:after", pass: 1 },
];

const listed = async (host: VmHost): Promise<VmSummary | undefined> => (await host.summaries())[0];

/** Phases in which a machine stays as it is. */
const settled = new Set(["running", "given", "arrived", "none"]);

/** How both hosts stand, once neither changes any more by itself. */
async function standings(pair: VmPair): Promise<readonly [string, string]> {
  const look = async () => {
    const phases = await Promise.all(
      [pair.giver, pair.taker].map(async (host) => (await listed(host))?.phase ?? "none"),
    );
    const [here = "none", there = "none"] = phases;
    if (here === "running" && there === "running") throw new Error("It runs on both hosts");
    const isSettled = phases.every((phase) => settled.has(phase));
    // What one of both can still tell the other by itself is waited for.
    const isOpen = here === "given" || there === "arrived";
    const isUndecided = !isOpen || (await isStuck(pair));
    return isSettled && isUndecided && ([here, there] as const);
  };
  return await waitFor("both hosts to settle", look, 60_000);
}

/** Both say that an operator has to decide, each for what it has. */
async function isStuck({ giver, taker }: VmPair): Promise<boolean> {
  const all = await Promise.all([giver, taker].map((host) => listed(host)));
  return all.every((one) => {
    const isOpen = one?.phase === "given" || one?.phase === "arrived";
    return !isOpen || (one?.reason ?? "").includes("--resume-here");
  });
}

/** What an operator does who has read what both say. */
async function decide(
  { giver, taker }: VmPair,
  [here, there]: readonly [string, string],
): Promise<void> {
  if (here === "given" && there === "arrived") {
    await taker.say("delete", "web", "--wait");
    await giver.say("migrate", "web", "--resume-here");
  } else if (here === "given") {
    if (there === "running") await giver.say("delete", "web", "--wait");
    else await giver.say("migrate", "web", "--resume-here");
  } else if (there === "arrived") {
    if (here === "running") await taker.say("delete", "web", "--wait");
    else await taker.say("migrate", "web", "--resume-here");
  }
}

const withFaults = (point: string, pass: number) => ({
  binary: hostlerWithFaults(),
  environment: { HOSTLER_KILL_AT: `${point}#${pass}` },
});

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

/** @returns the file that declares it */
async function make(giver: VmHost, isDeclared: boolean): Promise<string> {
  const image = await giver.image();
  const declaration = giver.folder.file("machines.json");
  const machine = [{ name: "web", imagePath: image.path, hash: image.hash }];
  writeFileSync(declaration, JSON.stringify({ machine }));
  if (isDeclared) {
    await giver.say("apply", declaration);
    await giver.reaches("web", "running");
  } else await giver.say("create", "web", "--image", image.path, "--hash", image.hash, "--start");
  return declaration;
}

async function migrateAndDie(one: KillCase): Promise<void> {
  const { side, point, pass, isDeclared = false, isFake = false } = one;
  await using pair = await VmPair.make();
  const { giver, taker } = pair;
  const settings = new Map<VmHost, readonly string[]>();
  for (const host of [giver, taker]) {
    settings.set(host, isFake ? await setUpFakeCloudHypervisor(host) : []);
  }
  const start = (host: VmHost, more: object = {}) =>
    host.start({ configuration: settings.get(host) ?? [], ...more });
  const dying = side === "giver" ? giver : taker;
  await start(giver);
  const declaration = await make(giver, isDeclared);
  const before = await giver.counts("web");
  if (dying === giver) await giver.kill();
  else await giver.reaches("web", "running");
  if (dying === giver) await start(taker);
  await start(dying, withFaults(point, pass));
  if (dying === giver) await giver.reaches("web", "running");
  const ticket = await pair.ticket();
  const migration = giver.run("migrate", "web", "--ticket", ticket);
  let ended: string | undefined;
  const told = migration.then((result) => {
    ended = JSON.stringify(result);
  });
  const hasDied = () => {
    if (ended === undefined || dying.hasDied) return dying.hasDied;
    throw new Error(`migrate ended before: ${ended}\n${giver.said}${taker.said}`);
  };
  await waitFor(`the worker to die at ${point}#${pass}`, hasDied, 60_000);
  await told;
  await dying.worker.ended();
  await start(dying);
  await decide(pair, await standings(pair));
  const [here, there] = await standings(pair);
  expect([here, there].toSorted()).toEqual(["none", "running"]);
  const host = here === "running" ? giver : taker;
  expect((await listed(host))?.restarts).toBe(0);
  // It went on from where it was, and did not begin anew.
  expect(await host.counts("web")).toBeGreaterThan(before);
  const other = host === giver ? taker : giver;
  await waitFor("its VMM to be gone", () => other.vmmProcesses().length === 0);
  if (isDeclared) {
    // What is declared is kept to once more: it is there, or is known to be elsewhere.
    const { stdout } = await giver.run("diff", declaration);
    expect(stdout).toContain(host === giver ? "100 % as declared" : "it was given to 10.77.0.2:");
    expect(other.vmmProcesses()).toEqual([]);
  }
  expect(`${giver.said}${taker.said}`).not.toContain("bug");
}

/** Who does not want the machine any more calls it off; true: at once. */
const callingOff = ["before", "after"].flatMap((when) =>
  [true, false].map((now) => ({ point: `vm:abandon-send:${when}`, now })),
);

/** The giver dies over it, and the machine is ended here and is not there. */
async function callOffAndDie(point: string, now: boolean): Promise<void> {
  await using pair = await VmPair.make();
  const { giver, taker } = pair;
  const image = await giver.image();
  await taker.start();
  await giver.start(withFaults(point, 1));
  await giver.say("create", "web", "--image", image.path, "--hash", image.hash, "--start");
  await giver.counts("web");
  const { vmm } = giver;
  // One that stands still stays on its way.
  process.kill(vmm, "SIGSTOP");
  const words = ["vm", "migrate", "web", "--ticket", await pair.ticket()];
  await using migrate = startProgram([
    ...[hostler(), ...words, "--control-socket", giver.controlSocket],
  ]);
  await giver.reaches("web", "sending");
  await taker.reaches("web", "receiving");
  using client = await giver.client();
  const wish = now ? { now } : { grace_ms: 10 };
  await client.change("shutdown", "web", wish).catch(() => undefined);
  await waitFor(`the worker to die at ${point}`, () => giver.hasDied);
  await migrate.ended();
  process.kill(vmm, "SIGCONT");
  await giver.start();
  await giver.reaches("web", "off");
  await waitFor("nothing to be left there", async () => (await listed(taker)) === undefined);
  expect([giver.vmmProcesses(), taker.vmmProcesses(), taker.kept().machines]).toEqual([[], [], []]);
  expect(`${giver.said}${taker.said}`).not.toContain("bug");
  await giver.say("boot", "web", "--wait");
  await giver.counts("web");
}

// Each has two hosts of its own, which wait most of their time.
const chosen = rotating("migration kills", cases, { outOf: 30 });

const fakeNeeds = [root, kvmDevice, program("ip", "iproute2")];
skipUnless("either worker, killed, with the fake of cloud-hypervisor", fakeNeeds, () => {
  for (const one of chosen.filter(({ isFake }) => isFake === true)) {
    test.concurrent(`the ${one.side} is killed at ${one.point}#${one.pass}, with the fake`, () =>
      migrateAndDie(one));
  }
});

skipUnless("either worker, killed in the middle of a migration", needs, () => {
  for (const one of chosen.filter(({ isFake }) => isFake !== true)) {
    const what = one.isDeclared === true ? ", of what is declared" : "";
    test.concurrent(`the ${one.side} is killed at ${one.point}#${one.pass}${what}`, () =>
      migrateAndDie(one));
  }
  for (const { point, now } of rotating("calling it off", callingOff, { outOf: 4 })) {
    const how = now ? "at once" : "with a grace";
    test.concurrent(`it is called off ${how}, and the giver is killed at ${point}`, () =>
      callOffAndDie(point, now));
  }
  onlyInAll(() => {
    test("every step has a case", () => {
      for (const step of migrationSteps) {
        expect(cases.some(({ point }) => point === `vm:${step}`)).toBeTrue();
      }
    });
  });
});
