/** The agent's driver: what is decided is noted, carried out and told, in that order. */
import { describe, expect, test } from "bun:test";
import { agentTimes } from "../../src/fleet/lifecycle-state.ts";
import { usualPace } from "../../src/fleet/protocol-pace.ts";
import { AgentRefused, OrderRefused, type UpgradeAgent } from "../../src/fleet/upgrade-agent.ts";
import { DrivenDevice } from "../support/fleet-agent/driven.ts";
import {
  bootTwo,
  instanceOf,
  limits,
  makeMarker,
  newBuild,
  oldBuild,
  rolesOf,
  transactionOf,
  words,
} from "../support/fleet-agent/life.ts";

const marked = { kind: "marker", marker: makeMarker() } as const;
const commit = { transaction: transactionOf(1), instance: instanceOf(1) };
const committed = {
  kind: "marker",
  marker: makeMarker(1, { observed: instanceOf(1), commit }),
} as const;
const full = new Error("ENOSPC: no space left on device");

async function becomesReady(device: DrivenDevice): Promise<UpgradeAgent> {
  const agent = device.start();
  agent.tell(marked);
  await device.order("check").answer({ floor: "1.0.0", metadataVersion: 3 });
  await device.order("fetch").answer();
  await device.order("prove").answer();
  await device.order("start").answer("ready");
  return agent;
}

async function swaps(device: DrivenDevice): Promise<UpgradeAgent> {
  const agent = await becomesReady(device);
  agent.tell(committed);
  await device.order("hash 1.2.0").answer();
  await device.order("hash 1.1.0").answer();
  return agent;
}

test("an upgrade, by the old version and then by the new one", async () => {
  const device = new DrivenDevice();
  using old = await swaps(device);
  expect(old.state.life.phase).toBe("swapped");
  const before = ["note idle", "collect 1.1.0 1.0.0", "note staging", "check", "note staging"];
  const proving = ["fetch", "note verifying", "prove", "note verifying", "start"];
  const commits = ["note cutover-ready", "ended", "note commit-seen", "hash 1.2.0", "hash 1.1.0"];
  const swap = ["note commit-seen", "swap", "note swapped", "restart"];
  expect(device.log).toEqual([...before, ...proving, ...commits, ...swap]);
  old[Symbol.dispose]();
  device.log.length = 0;
  using agent = device.start();
  device.roles?.look(rolesOf(newBuild));
  await device.order("stop").answer(null);
  device.timers.advance(usualPace.settle);
  expect(agent.state.life.phase).toBe("done");
  const canonical = ["note swapped", "hand over 1.2.0", "stop", "note canonical"];
  const done = ["note canonical", "note done", "collect 1.2.0 1.1.0"];
  expect(device.log).toEqual([...canonical, ...done]);
  expect(device.roles?.isOpen).toBe(false);
  expect(device.timers.waiting).toBe(0);
  expect(device.statuses.at(-1)).toMatchObject({
    ...{ phase: "done", transaction: transactionOf(1), current: newBuild, previous: oldBuild },
    floor: "1.0.0",
  });
});

test("on the way back the former version alone has roles go on", async () => {
  const device = new DrivenDevice();
  (await swaps(device))[Symbol.dispose]();
  const next = device.start();
  expect(device.roles?.isOpen).toBe(true);
  next.tell({ kind: "faulted", reason: "a self-check", lastWords: null });
  expect(device.roles?.isOpen).toBe(false);
  await device.order("find 1.1.0").answer();
  expect(device.log.at(-1)).toBe("restart");
  next[Symbol.dispose]();
  device.log.length = 0;
  using former = device.start();
  expect(device.log).toContain("hand over 1.1.0");
  device.roles?.look(rolesOf(oldBuild));
  expect(former.state.life.phase).toBe("rolled-back");
});

test("a status is told once, after the journal has it", async () => {
  const device = new DrivenDevice();
  using agent = await becomesReady(device);
  const phases: string[] = device.statuses.map(({ phase }) => phase);
  const told = ["idle", "staging", "staging", "verifying", "verifying", "cutover-ready"];
  expect(phases).toEqual(told);
  agent.tell({ kind: "heard", who: "canonical" });
  expect(device.statuses.length).toBe(told.length);
  expect(device.statuses[2]?.progress).toMatchObject({ bytes: 1, of_bytes: 2 });
});

test("another file than current leads to is refused", () => {
  expect(() => new DrivenDevice().start(newBuild)).toThrow(AgentRefused);
});

test("a journal that is not understood is told, and begun anew", () => {
  const device = new DrivenDevice();
  device.journal = "nonsense";
  using agent = device.start();
  expect(device.troubles.length).toBe(1);
  expect(agent.state).toMatchObject({ floor: oldBuild.version, life: { phase: "idle" } });
});

describe("refusals", () => {
  test("carry their cause and last words", async () => {
    const device = new DrivenDevice();
    using agent = device.start();
    agent.tell(marked);
    const refusal = new OrderRefused("not signed", { cause: "artifact", lastWords: words });
    await device.order("check").refuse(refusal);
    expect(device.statuses.at(-1)).toMatchObject({
      ...{ phase: "aborted", reason: "not signed", cause: "artifact", last_words: words },
    });
  });

  test("of another kind are the host's fault", async () => {
    const device = new DrivenDevice();
    using agent = device.start();
    agent.tell(marked);
    await device.order("check").refuse(full);
    expect(device.statuses.at(-1)).toMatchObject({ reason: full.message, cause: "host" });
  });

  test("a candidate that cannot be started at all, and one that ended", async () => {
    for (const [answer, cause] of [
      ["refuse", "host"],
      ["answer", "candidate"],
    ] as const) {
      const device = new DrivenDevice();
      using agent = device.start();
      agent.tell(marked);
      await device.order("check").answer({ floor: null, metadataVersion: 3 });
      await device.order("fetch").answer();
      await device.order("prove").answer();
      const start = device.order("start");
      await (answer === "refuse" ? start.refuse(full) : start.answer(words));
      expect(device.statuses.at(-1)).toMatchObject({ phase: "aborted", cause });
    }
  });

  test("a restart that is refused leads back", async () => {
    const device = new DrivenDevice();
    using agent = await swaps(device);
    await device.order("restart").refuse(new Error("systemd says no"));
    expect(agent.state.life.phase).toBe("reverting");
    await device.order("find 1.1.0").answer();
    expect(device.links.current).toEqual(oldBuild);
    device.roles?.look(rolesOf(oldBuild));
    expect(agent.state.life.phase).toBe("rolled-back");
  });
});

describe("the disk", () => {
  test("a note that fails keeps back what stands after it", async () => {
    const device = new DrivenDevice();
    using agent = device.start();
    device.journalError = full;
    agent.tell(marked);
    expect(device.log).not.toContain("check");
    expect(agent.state.life).toMatchObject({ phase: "aborted", endingCause: "host" });
    device.timers.advance(agentTimes.noteAgain);
    device.journalError = undefined;
    device.timers.advance(agentTimes.noteAgain);
    expect(device.log.slice(-2)).toEqual(["note aborted", "collect 1.1.0 1.0.0"]);
    expect(device.statuses.at(-1)).toMatchObject({ phase: "aborted" });
  });

  test("a swap that failed, and one whose link is there all the same", async () => {
    const refused = new DrivenDevice();
    refused.linkError = { error: full, isThere: false };
    using aborted = await swaps(refused);
    expect(aborted.state.life).toMatchObject({ phase: "aborted", endingCause: "host" });
    expect(refused.links.current).toEqual(oldBuild);
    const synced = new DrivenDevice();
    synced.linkError = { error: new Error("EIO"), isThere: true };
    using swapped = await swaps(synced);
    expect(swapped.state.life.phase).toBe("swapped");
  });
});

describe("what is under way", () => {
  test("is abandoned when its upgrade is over, and answers no more", async () => {
    const device = new DrivenDevice();
    using agent = device.start();
    agent.tell(marked);
    const check = device.order("check");
    agent.tell({ kind: "marker", marker: makeMarker(1, { withdrawn: { reason: "no" } }) });
    expect(check.signal?.aborted).toBe(true);
    await check.answer({ floor: "9.9.9", metadataVersion: 9 });
    expect(agent.state).toMatchObject({ floor: null, life: { phase: "aborted" } });
  });

  test("ends with the agent, which tells nothing any more", async () => {
    const device = new DrivenDevice();
    const agent = device.start();
    agent.tell(marked);
    const { length } = device.log;
    agent[Symbol.dispose]();
    expect(device.order("check").signal?.aborted).toBe(true);
    await device.order("check").answer({ floor: null, metadataVersion: 1 });
    expect(device.log.length).toBe(length);
    expect(device.timers.waiting).toBe(0);
  });

  test("a deadline comes, however late its timer", async () => {
    const device = new DrivenDevice();
    using agent = await becomesReady(device);
    device.timers.advance(35_000);
    expect(agent.state.life.phase).toBe("held");
    for (let passed = 0; passed < 2 * limits.commit_ms; passed += 30_000) {
      device.timers.advance(30_000);
    }
    expect(agent.state.life.phase).toBe("aborted");
  });
});

describe("candidates", () => {
  test("one that ends by itself is told", async () => {
    const device = new DrivenDevice();
    using agent = await becomesReady(device);
    await device.order("ended").answer(words);
    expect(agent.status).toMatchObject({ phase: "aborted", last_words: words });
  });

  test("one of an earlier agent is looked for, and heard of", async () => {
    const device = new DrivenDevice();
    const first = await becomesReady(device);
    first[Symbol.dispose]();
    using agent = device.start();
    await device.order("is there").answer(true);
    expect(agent.state.life.phase).toBe("cutover-ready");
    await device.order("ended").answer(words);
    expect(agent.state.life.phase).toBe("aborted");
    const other = new DrivenDevice();
    (await becomesReady(other))[Symbol.dispose]();
    using alone = other.start();
    await other.order("is there").answer(false);
    expect(alone.state.life.phase).toBe("aborted");
  });

  test("one that cannot be asked for is not taken for dead", async () => {
    const device = new DrivenDevice();
    (await becomesReady(device))[Symbol.dispose]();
    using agent = device.start();
    await device.order("is there").refuse(new Error("no bus"));
    expect(agent.state.life.phase).toBe("cutover-ready");
    const other = new DrivenDevice();
    using unheard = await becomesReady(other);
    await other.order("ended").refuse(new Error("no bus"));
    expect(unheard.state.life.phase).toBe("cutover-ready");
    expect([device.troubles.length, other.troubles.length]).toEqual([1, 1]);
  });

  test("one that cannot be stopped is told again", async () => {
    const device = new DrivenDevice();
    using agent = await becomesReady(device);
    agent.tell({ kind: "marker", marker: makeMarker(1, { withdrawn: { reason: "no" } }) });
    await device.order("stop").refuse(new Error("busy"));
    expect(device.troubles.length).toBe(1);
    device.timers.advance(agentTimes.stopAgain);
    await device.order("stop").answer(null);
    expect(agent.state.life).toMatchObject({ phase: "aborted", ending: null });
  });

  test("after a reboot nobody is looked for", async () => {
    const device = new DrivenDevice();
    (await becomesReady(device))[Symbol.dispose]();
    device.log.length = 0;
    using agent = device.start(oldBuild, bootTwo);
    expect(device.log).toEqual(["note verifying", "prove"]);
    expect(agent.state.boot).toBe(bootTwo);
  });
});
