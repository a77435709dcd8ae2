/** luod is killed between any two of its steps; the next one goes on, or takes all of it back. */
import { expect, setDefaultTimeout, test } from "bun:test";
import type { EffectKind } from "../../src/live-update/lifecycle-state.ts";
import type { DaemonKillPoint } from "../../src/live-update/perform/performer.ts";
import { Machine } from "../support/live-update-daemon.ts";
import {
  claim,
  nothingIsOpen,
  preserveOwn,
  restoreAll,
  subscribe,
  update,
} from "../support/live-update-story.ts";
import { rotating } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";

setDefaultTimeout(60_000);

/** Nobody answers any more: that is what the test is about. */
const unlessKilled = (step: Promise<unknown>) => step.catch(() => undefined);

/** What the greeted client learns of an update before luod dies. */
type Story = (machine: Machine) => Promise<string | undefined>;

/** Both are ready, and what then comes is the story's own. */
async function bothReady(machine: Machine): Promise<string | undefined> {
  const { greeted, bare } = await subscribe(machine);
  await machine.load();
  await machine.kexec();
  const known = await preserveOwn(machine, greeted, "greeted");
  try {
    await preserveOwn(machine, bare, "bare");
    await bare.say({ cmd: "READY" });
    await greeted.ask({ cmd: "READY" });
  } catch {
    // It is dead: what it has said so far is known.
  }
  return known;
}

/** Ways through an update that ends in this kernel. */
const stories = {
  commit: bothReady,
  refused: async (machine) => {
    machine.kernel.refuse("reboot", "EBUSY");
    return await bothReady(machine);
  },
  abort: async (machine) => {
    const { greeted, bare } = await subscribe(machine);
    await machine.load();
    await machine.kexec();
    const known = await preserveOwn(machine, greeted, "greeted");
    try {
      await preserveOwn(machine, bare, "bare");
      await machine.ask("abort");
      await machine.luod.ended();
    } catch {
      // It is dead: what it has said so far is known.
    }
    return known;
  },
} satisfies Record<string, Story>;

interface KillTest {
  readonly story: keyof typeof stories | "restore";
  /** Passes of the kill point, from 1, that are worth a test each. */
  readonly passes: readonly number[];
  /** Both when not given. */
  readonly when?: "before" | "after";
}

const upTo = (most: number) => Array.from({ length: most }, (_value, index) => index + 1);

/** At least one for each effect: a new effect without one does not compile. */
const killTests: Record<EffectKind, readonly [KillTest, ...KillTest[]]> = {
  "create-session": [{ story: "commit", passes: [1, 2] }],
  "drop-session": [
    { story: "abort", passes: [1, 2] },
    { story: "refused", passes: [1, 3] },
  ],
  "preserve-registry": [{ story: "commit", passes: [1] }],
  "prepare-kexec": [{ story: "commit", passes: [1] }],
  "enter-kernel": [
    { story: "commit", passes: [1], when: "before" },
    { story: "refused", passes: [1], when: "after" },
  ],
  "retrieve-session": [{ story: "restore", passes: [1, 2] }],
  "finish-session": [{ story: "restore", passes: [1, 2] }],
  "release-registry": [{ story: "restore", passes: [1] }],
  send: [
    { story: "commit", passes: [1, 2, 3, 4] },
    { story: "abort", passes: [4] },
    { story: "restore", passes: [1, 2, 3, 4] },
  ],
  "hang-up": [{ story: "abort", passes: [1] }],
  "end-update": [{ story: "abort", passes: [1] }],
  record: [
    { story: "commit", passes: upTo(12) },
    { story: "abort", passes: upTo(9).slice(6) },
    { story: "restore", passes: upTo(9) },
  ],
};

interface KillCase {
  readonly story: KillTest["story"];
  readonly effect: EffectKind;
  readonly when: "before" | "after";
  readonly pass: number;
}

const cases: KillCase[] = Object.entries(killTests).flatMap(([effect, tests]) =>
  tests.flatMap(({ story, passes, when: only }) =>
    passes.flatMap((pass) =>
      (["before", "after"] as const)
        .filter((when) => only === undefined || when === only)
        .map((when) => ({ story, effect: effect as EffectKind, when, pass })),
    ),
  ),
);

const dyingAt = ({ effect, when, pass }: KillCase) => {
  const point = `live-update:${effect}:${when}` satisfies DaemonKillPoint;
  return { environment: { HOSTLER_KILL_AT: `${point}#${pass}` } };
};

async function dies(machine: Machine): Promise<void> {
  const { signal, stderr } = await machine.luod.ended();
  expect(stderr).not.toContain("stopped by a bug");
  expect(signal).toBe("SIGKILL");
}

const turn = rotating("luod's kill points", cases, { outOf: 3 });

skipUnless("luod is killed", root, () => {
  for (const one of turn.filter(({ story }) => story !== "restore")) {
    const { story, effect, when, pass } = one;
    test(`in an update (${story}): ${effect}, ${when}, pass ${pass}`, async () => {
      await using machine = new Machine();
      machine.spawn(dyingAt(one));
      let known: string | undefined;
      const life = async () => {
        await machine.listening();
        known = await stories[story as keyof typeof stories](machine);
      };
      await unlessKilled(life());
      await dies(machine);
      machine.disconnect();
      await machine.start();
      await nothingIsOpen(machine);
      await update(machine, known);
      await machine.start();
      await restoreAll(machine);
    });
  }

  for (const one of turn.filter(({ story }) => story === "restore")) {
    const { effect, when, pass } = one;
    test(`after the kexec: ${effect}, ${when}, pass ${pass}`, async () => {
      await using machine = new Machine();
      await machine.start();
      await update(machine);
      machine.spawn(dyingAt(one));
      const said = new Set<string>();
      const life = async () => {
        await machine.listening();
        const greeted = await claim(machine, "greeted");
        await claim(machine, "bare");
        said.add("greeted");
        await greeted.ask({ cmd: "FINISHED", id: "greeted" });
        said.add("bare");
        await machine.ask("finish", { client: "bare" });
        await machine.luod.ended();
      };
      await unlessKilled(life());
      await dies(machine);
      machine.disconnect();
      await machine.start();
      await finishRest(machine, said);
      await nothingIsOpen(machine);
      expect(await machine.status()).toMatchObject({ phase: "idle", update: null });
    });
  }
});

/** Who has not said that it is over comes again; for the others the operator says it again. */
async function finishRest(machine: Machine, said: ReadonlySet<string>): Promise<void> {
  for (const name of ["greeted", "bare"] as const) {
    if (!said.has(name)) await claim(machine, name);
    await unlessKilled(machine.ask("finish", { client: name }));
  }
}
