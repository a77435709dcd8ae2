/** The worker is killed between any two of its steps; the next one takes up what is there. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { connectControl } from "../../src/messaging/control-client.ts";
import type { EffectKind } from "../../src/vm/lifecycle-state.ts";
import { type MigrationEffect, workerSteps } from "../../src/vm/perform/kill-points.ts";
import type { VmSummary } from "../../src/vm/protocol.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { rotating } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { isThere, type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

type Phase = VmSummary["phase"];

let host: VmHost;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
});
afterEach(() => host[Symbol.asyncDispose]());

/** What is asked of the worker that dies, and what must be true of the machine afterwards. */
interface Story {
  /** How the machine is before: undefined for none. */
  readonly from: "running" | "paused" | "off" | undefined;
  /** @returns when the worker took the wish, or throws when it died before */
  readonly wish: () => Promise<unknown>;
  readonly to: Phase;
  /** Its guest is the same one before and after, and counts on. */
  readonly keepsGuest: boolean;
  /** Of the image: so that its preparation lasts. */
  readonly padding?: number;
}

async function change(
  verb: "boot" | "pause" | "resume" | "shutdown" | "delete" | "replace-vmm",
  options: { readonly now?: boolean; readonly grace_ms?: number } = {},
): Promise<void> {
  using client = await host.client();
  await client.change(verb, "web", options);
}

async function create(wanted: "created" | "running" | "paused"): Promise<void> {
  using client = await host.client();
  await client.create(host.specOf("web", image), wanted);
}

async function snapshot(): Promise<void> {
  const control = await connectControl(host.controlSocket);
  try {
    await control.request("snapshot", { name: "web", snapshot: "first" });
  } finally {
    control.close();
  }
}

const stories = {
  create: { from: undefined, wish: () => create("running"), to: "running", keepsGuest: false },
  boot: { from: "off", wish: () => change("boot"), to: "running", keepsGuest: false },
  pause: { from: "running", wish: () => change("pause"), to: "paused", keepsGuest: true },
  resume: { from: "paused", wish: () => change("resume"), to: "running", keepsGuest: true },
  replace: {
    from: "running",
    wish: () => change("replace-vmm"),
    to: "running",
    keepsGuest: true,
  },
  shutdown: {
    from: "running",
    wish: () => change("shutdown", { grace_ms: 10 }),
    to: "off",
    keepsGuest: false,
  },
  "shutdown now": {
    from: "running",
    wish: () => change("shutdown", { now: true }),
    to: "off",
    keepsGuest: false,
  },
  delete: {
    from: "running",
    wish: () => change("delete", { now: true }),
    to: "removed",
    keepsGuest: false,
  },
  abandon: {
    from: undefined,
    wish: async () => {
      await create("running");
      await change("delete");
    },
    to: "removed",
    keepsGuest: false,
    padding: 256 * 1024 * 1024,
  },
  snapshot: { from: "running", wish: snapshot, to: "running", keepsGuest: true },
  /** A worker that was killed with a VMM just spawned, and then the one that looks for it. */
  find: {
    from: undefined,
    wish: async () => {
      await create("running");
    },
    to: "running",
    keepsGuest: false,
  },
} as const satisfies Readonly<Record<string, Story>>;

interface KillTest {
  readonly story: keyof typeof stories;
  /** Passes of the kill point, from 1, that are worth a test each. */
  readonly passes: readonly number[];
}

const upTo = (most: number) => Array.from({ length: most }, (_value, index) => index + 1);
const once = (story: keyof typeof stories): KillTest => ({ story, passes: [1] });

/** One at least for each effect but those of two hosts; without one this does not compile. */
type OwnEffect = Exclude<EffectKind, MigrationEffect>;
const killTests: Record<OwnEffect, readonly [KillTest, ...KillTest[]]> = {
  note: [
    { story: "create", passes: upTo(3) },
    { story: "boot", passes: upTo(3) },
    once("pause"),
    once("resume"),
    { story: "replace", passes: upTo(7) },
    { story: "shutdown", passes: upTo(3) },
    { story: "shutdown now", passes: upTo(2) },
    { story: "delete", passes: upTo(3) },
  ],
  prepare: [once("create")],
  abandon: [once("abandon")],
  "connect-network": [once("create"), once("boot")],
  spawn: [once("create"), once("boot"), once("replace")],
  find: [once("find")],
  attach: [once("create"), once("boot"), once("replace")],
  create: [once("create"), once("boot")],
  boot: [once("create"), once("boot")],
  pause: [once("pause"), once("replace")],
  resume: [once("resume"), once("replace")],
  "press-power-button": [once("shutdown")],
  quit: [once("shutdown")],
  capture: [once("replace")],
  restore: [once("replace")],
  snapshot: [once("snapshot")],
  "end-beside": [once("replace")],
  "forget-capture": [once("replace")],
  kill: [once("delete"), once("shutdown now")],
  clear: [once("shutdown"), once("delete")],
  discard: [once("delete"), once("abandon")],
  record: [
    { story: "create", passes: upTo(8) },
    { story: "replace", passes: upTo(10) },
    { story: "shutdown", passes: upTo(4) },
    { story: "delete", passes: upTo(4) },
  ],
};

const stepTests: Record<(typeof workerSteps)[number], readonly [KillTest, ...KillTest[]]> = {
  "disks:locked": [once("create"), once("replace")],
  "disks:claimed": [once("create"), once("replace")],
  "disks:removed": [once("delete")],
  // Whoever adopts a machine makes the first pass before it takes requests.
  "network:applied": [once("create"), { story: "delete", passes: [2] }],
  "spawn:cgroup": [once("create"), once("boot"), once("replace")],
  "spawn:named": [once("create"), once("boot"), once("replace")],
  "spawn:started": [once("create"), once("boot"), once("replace")],
  "capture:taken": [once("replace")],
  "capture:kept": [once("replace")],
  "restore:done": [once("replace")],
  "discard:network": [once("delete")],
  "discard:files": [once("delete")],
};

interface KillCase {
  readonly story: keyof typeof stories;
  readonly point: string;
  readonly pass: number;
}

const casesAt = (point: string, tests: readonly KillTest[]): KillCase[] =>
  tests.flatMap(({ story, passes }) => passes.map((pass) => ({ story, point, pass })));

const cases: readonly KillCase[] = [
  ...(Object.keys(killTests) as OwnEffect[]).flatMap((kind) =>
    ["before", "after"].flatMap((when) => casesAt(`vm:${kind}:${when}`, killTests[kind])),
  ),
  ...workerSteps.flatMap((step) => casesAt(`vm:${step}`, stepTests[step])),
];

const withFaults = (point?: string) => ({
  binary: hostlerWithFaults(),
  environment: point === undefined ? {} : { HOSTLER_KILL_AT: point },
});

/** Brings the machine to where its story begins, by a worker that lives. */
async function prepare(from: Story["from"]): Promise<void> {
  if (from === undefined) return;
  await host.start(withFaults());
  await create("running");
  await host.reaches("web", "running");
  await host.counts("web");
  if (from === "paused") {
    await change("pause");
    await host.reaches("web", "paused");
  } else if (from === "off") {
    await change("shutdown", { now: true });
    await host.reaches("web", "off");
  }
  await host.kill();
}

/** The worker that dies at the point. @returns whether it had taken the wish */
async function tellStory({ story, point, pass }: KillCase): Promise<boolean> {
  if (story === "find") {
    await host.start(withFaults("vm:spawn:started"));
    await stories.find.wish().catch(() => undefined);
    await dies();
    host.spawn(withFaults(`${point}#${pass}`));
    await dies();
    return true;
  }
  const { from } = stories[story];
  // It takes the machine up first: of what it passes, the first ones are of that.
  host.spawn(withFaults(`${point}#${pass}`));
  const isUp = host.worker.said(/takes requests at/).then(
    () => true,
    () => false,
  );
  if (!(await isUp)) {
    await dies();
    return false;
  }
  if (from !== undefined) await atRest(from);
  const isTaken = await stories[story].wish().then(
    () => true,
    () => false,
  );
  await dies();
  return isTaken;
}

/** Until the machine is there, or the worker has died on its way. */
async function atRest(phase: Phase): Promise<void> {
  await waitFor(`the machine to be ${phase}`, async () => {
    const summary = await host.summary("web").catch(() => undefined);
    return summary?.phase === phase || host.hasDied;
  });
}

async function dies(): Promise<void> {
  await waitFor(`the worker to die (${host.said})`, () => host.hasDied);
  const { stderr } = await host.worker.ended();
  expect(stderr).not.toContain("stopped by a bug");
}

/** Where the machine must be in the end; several where the wish was not taken. */
async function expectSettled(story: Story, isTaken: boolean): Promise<Phase> {
  const before: Phase = story.from ?? "removed";
  const allowed: readonly Phase[] = isTaken ? [story.to] : [story.to, before];
  let last: VmSummary | undefined;
  const look = async () => {
    host.expectOneVmm();
    using client = await host.client();
    const [summary] = await client.list();
    const now = summary?.phase ?? "removed";
    last = summary;
    const isSettled = summary === undefined || summary.wanted === now;
    return isSettled && allowed.includes(now) && now;
  };
  const wanted = `the machine to be ${allowed.join(" or ")}`;
  const phase = await waitFor(wanted, look).catch((error: Error) => {
    error.message += ` (${JSON.stringify(last)}; ${host.said})`;
    throw error;
  });
  // One that is noted to be ended beside it may be on its way out still.
  const count = phase === "running" || phase === "paused" ? 1 : 0;
  await waitFor(`${count} VMMs to be left`, () => host.vmmProcesses().length === count);
  return phase;
}

/** Each number is greater than the one before: no boot is between them. */
function expectNoReset(numbers: readonly number[]): void {
  const fallen = numbers.findIndex((number, index) => number <= (numbers[index - 1] ?? -1));
  expect({ fallen, around: numbers.slice(Math.max(0, fallen - 2), fallen + 2) }).toMatchObject({
    fallen: -1,
  });
}

async function expectNothingLeft(): Promise<void> {
  await waitFor("nothing to be left", () => host.vmmProcesses().length === 0);
  expect(await host.network()).toEqual({ links: [], tables: [] });
  expect(host.kept()).toEqual({ machines: [], images: [], run: [] });
}

const turn = rotating("the worker's kill points", cases, { outOf: 10 });
const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("the worker is killed", needs, () => {
  for (const one of turn) {
    const { point, pass } = one;
    test(`${one.story}: ${point}, pass ${pass}`, async () => {
      const story: Story = stories[one.story];
      image = await host.image({ padding: story.padding ?? 0 });
      await prepare(story.from);
      const isTaken = await tellStory(one);
      await host.start(withFaults());
      const phase = await expectSettled(story, isTaken);
      if (phase === "removed") await expectNothingLeft();
      else if (phase === "running") await host.counts("web");
      if (story.keepsGuest) expectNoReset(host.numbers("web"));
      expect(host.said).not.toContain("stopped by a bug");
      if (phase === "removed") return;
      await change("delete", { now: true });
      await waitFor("its removal", () => !isThere(host.machineFolder("web")));
      using client = await host.client();
      await waitFor("its end", async () => (await client.list()).length === 0);
      await expectNothingLeft();
    });
  }

  test("what a new machine is to be is written down before its first VMM", async () => {
    image = await host.image();
    await tellStory({ story: "create", point: "vm:spawn:before", pass: 1 });
    const path = join(host.machineFolder("web"), "machine.json");
    expect(JSON.parse(readFileSync(path, "utf8"))).toMatchObject({
      note: { stage: "starting" },
      choice: { hypervisor: "qemu" },
    });
    expect(host.vmmProcesses()).toEqual([]);
    await host.start(withFaults());
    await host.counts("web");
  });
});
