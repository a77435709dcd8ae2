/** A run as its orchestrator decides it: every standing × all that can happen, and stories. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import * as v from "valibot";
import { restoredRun } from "../../../src/vetting/orchestrator/lifecycle-restored.ts";
import { runLimits, runPace } from "../../../src/vetting/orchestrator/lifecycle-state.ts";
import { LOST_AFTER } from "../../../src/vetting/protocol.ts";
import { specSchema } from "../../../src/vetting/protocol-spec.ts";
import { repositoryRoot } from "../../support/binary.ts";
import {
  claimInput,
  drawn,
  exampleSpec,
  otherIdentity,
  RunWorld,
  report,
  resultInput,
} from "../../support/vetting-orchestrator/runs.ts";
import {
  happenings,
  observe,
  restingStates,
  standings,
  writeTable,
} from "../../support/vetting-orchestrator/table.ts";

const alice = { who: "operator alice", reason: "" } as const;
const kindsTold = ({ run }: RunWorld) => run.directives.map(({ kind }) => kind);

describe("every standing × everything that can happen", () => {
  test("there is a standing in each state, which is called so", () => {
    const states = standings.map(({ make }) => make().run.state);
    expect(new Set(states)).toEqual(new Set(restingStates));
    for (const { name, make } of standings) expect(name.split(",")[0]).toBe(make().run.state);
  });

  test("the table for people is the table", async () => {
    const file = Bun.file(join(repositoryRoot, "src/vetting/orchestrator/lifecycle-table.md"));
    const written = writeTable();
    if (process.env["UPDATE_TABLES"] === "1") await file.write(written);
    expect(await file.text()).toBe(written);
  });

  test("what is refused changes nothing but when it was heard, and what is noted", () => {
    for (const standing of standings) {
      for (const happening of Object.keys(happenings)) {
        const { before, taken } = observe(standing, happening);
        if (taken.answer.kind !== "refused") continue;
        const { run } = taken;
        const boot = run.boot && { ...run.boot, isDoubted: before.boot?.isDoubted ?? false };
        const { heard, heardTime, events } = before;
        const restored = { ...run, boot, heard, heardTime, events };
        expect([standing.name, happening, restored]).toEqual([standing.name, happening, before]);
      }
    }
  });

  test("an ended run keeps its verdict, whatever happens", () => {
    for (const standing of standings) {
      for (const happening of Object.keys(happenings)) {
        const { before, taken } = observe(standing, happening);
        if (before.verdict === null) continue;
        const { verdict, ended, state } = taken.run;
        expect([happening, verdict, ended, state]).toEqual([
          ...[happening, before.verdict, before.ended, before.state],
        ]);
      }
    }
  });
});

describe("stories", () => {
  test("a healthy host walks all stages, and has passed", () => {
    const world = new RunWorld().walksTo("PSU").begins("PSU").ends("PASS");
    expect(world.run).toMatchObject({ state: "Completed", verdict: "passed", attempt: null });
    const results = world.steps.flatMap(({ writes }) =>
      writes.flatMap((write) => (write.kind === "result" ? [write.result.stage] : [])),
    );
    expect(results).toEqual([
      "Inventory",
      "SMART",
      "CPUStress",
      "Storage",
      "Network",
      "GPU",
      "PSU",
    ]);
  });

  test("a warning goes on, and the verdict says so", () => {
    const world = new RunWorld().walksTo("PSU").begins("PSU").ends("WARN");
    expect(world.run).toMatchObject({ state: "Completed", verdict: "warned" });
    expect(world.run.reason).toContain("PSU");
  });

  test("a host that has another's cards holds, though its SMBIOS says nothing", () => {
    const identity = { uuid: null, system_serial: null, board_serial: null };
    const others = ["52:54:00:ee:ee:01", "52:54:00:ee:ee:02"];
    for (const part of [{ macs: others }, { macs: others, mac: null }, { macs: [] }]) {
      const world = new RunWorld().boots().claims({ identity, ...part });
      expect(world.run).toMatchObject({ state: "FailedHolding", identity: null });
      expect(world.run.reason).toContain("identity changed: the run is of card 52:54:00:12:34:56");
      expect(world.run.reason).toContain(part.macs.length === 0 ? "tells no card" : "ee:02");
      // The right host: one of its cards is the run's.
      world.boots().claims({ identity, macs: [others[0] ?? "", claimInput.mac ?? ""] });
      expect(world.run).toMatchObject({ state: "InventoryCheck", failure: null, identity });
    }
  });

  test("a host with many cards has a reason that names some of them", () => {
    const macs = Array.from(
      { length: 64 },
      (_one, at) => `52:54:00:ee:ee:${(16 + at).toString(16)}`,
    );
    const { run } = new RunWorld().boots().claims({ macs, mac: macs[0] ?? null });
    expect(run.reason).toContain(
      "52:54:00:ee:ee:17 and 56 more, and was booted from 52:54:00:ee:ee:10",
    );
  });

  test("cards that an operator accepted are the run's from then on, and no others", () => {
    const macs = ["52:54:00:ee:ee:01"];
    const world = new RunWorld().boots().claims({ macs, mac: null });
    world.happens({ kind: "override", who: "operator alice", what: "identity", reason: "swapped" });
    expect(world.run).toMatchObject({ state: "InventoryCheck", acceptedMacs: macs });
    world.claims({ by: "session", instance: drawn(2), macs, mac: macs[0] ?? null });
    expect(world.run.state).toBe("InventoryCheck");
    world.claims({ by: "session", instance: drawn(3), macs: ["52:54:00:ee:ee:02"], mac: null });
    expect(world.run.state).toBe("FailedHolding");
  });

  test("what fails says what is wrong, and not what was done", () => {
    const world = new RunWorld().walksTo("GPU").begins("GPU");
    const told = report("FAIL");
    const [first] = told.findings;
    if (first === undefined) throw new Error("A report that fails has a finding");
    const wrong = { ...first, component: "0000:03:00.0", message: "the link is narrow" };
    const well = { ...first, outcome: "PASS", message: "it is there" } as const;
    const findings = [well, wrong, { ...wrong, message: "rows are remapped" }];
    world.happens(resultInput(world.run, { ...told, findings, summary: "1 of 1 looked at" }));
    expect(world.run.reason).toBe("GPU: 0000:03:00.0: the link is narrow, and 1 more");
  });

  test("a report that is better than its findings is worth its findings", () => {
    const world = new RunWorld().walksTo("GPU").begins("GPU");
    const told = { ...report("FAIL"), outcome: "PASS" } as const;
    world.happens(resultInput(world.run, told));
    expect(world.run).toMatchObject({
      state: "FailedHolding",
      stages: { GPU: { outcome: "FAIL" } },
    });
  });

  test("less coverage than it says itself that there has to be is no PASS", () => {
    const world = new RunWorld().walksTo("GPU").begins("GPU");
    const coverage = { component: "gpu", unit: "devices", covered: 1, total: 2, least: 1 } as const;
    world.happens(resultInput(world.run, { ...report("PASS"), coverage: [coverage] }));
    expect(world.run).toMatchObject({ state: "PSU", stages: { GPU: { outcome: "WARN" } } });
  });

  test("a skipped stage fails where the spec requires something of it", () => {
    const stages = { PSU: { required: ["psu.state"] } };
    const world = new RunWorld(v.parse(specSchema, { name: "rack", stages }));
    world.walksTo("PSU").begins("PSU").ends("SKIP");
    expect(world.run).toMatchObject({
      state: "FailedHolding",
      stages: { PSU: { outcome: "FAIL" } },
    });
    expect(world.run.reason).toContain("psu.state");
  });

  test("stages that the spec leaves out are skipped by the orchestrator, by name", () => {
    const stages = { GPU: { enabled: false }, PSU: { enabled: false } };
    const world = new RunWorld(v.parse(specSchema, { name: "rack", stages }));
    world.walksTo("Network").begins("Network").ends("PASS");
    expect(world.run).toMatchObject({ state: "Completed", verdict: "passed" });
    expect(world.run.reason).toBe("skipped: GPU, PSU");
    const own = world.steps
      .at(-1)
      ?.writes.flatMap((write) =>
        write.kind === "result" && write.result.source === "orchestrator"
          ? [write.result.stage]
          : [],
      );
    expect(own).toEqual(["GPU", "PSU"]);
  });

  test("a host of which nothing was tested has not simply passed", () => {
    const off = { enabled: false };
    const names = ["SMART", "CPUStress", "Storage", "Network", "GPU", "PSU"];
    const stages = Object.fromEntries(names.map((name) => [name, off]));
    const world = new RunWorld(v.parse(specSchema, { name: "rack", stages }));
    world.boots().claims().begins("Inventory").ends("PASS");
    expect(world.run).toMatchObject({ state: "Completed", verdict: "warned" });
  });

  test("a host that dies in one stage so often has failed, with what it said last", () => {
    const world = new RunWorld().walksTo("CPUStress").begins("CPUStress", drawn(300));
    for (const boot of [2, 3]) {
      world.boots().claims({ bootId: `boot-${boot}`, instance: drawn(boot) });
      expect(world.run.state).toBe("CPUStress");
      const asked = { attempt: drawn(300 + boot), instance: drawn(boot) };
      world.happens({ kind: "attempt", ...asked, stage: "CPUStress" });
    }
    const { writes } = world.boots().happens({ ...claimInput, bootId: "boot-4" });
    expect(world.run).toMatchObject({ state: "FailedHolding", attempt: null });
    const [result] = writes.flatMap((write) => (write.kind === "result" ? [write.result] : []));
    expect(result).toMatchObject({
      ...{ source: "orchestrator", stage: "CPUStress", attempt: 3 },
      report: { outcome: "FAIL", evidence: [{ text: "Oops: 0000 [#1]" }] },
    });
  });

  test("a restarted agent's spooled result counts, and is no crash", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage");
    const { attempt } = world.run;
    world.claims({ by: "session", instance: drawn(2) });
    expect(world.run.attempt).toEqual(attempt);
    world.ends("PASS");
    expect(world.run).toMatchObject({ state: "Network", stages: { Storage: { crashed: 0 } } });
  });

  test("an answer of a claim that was lost is given to the same process, and to no other", () => {
    const world = new RunWorld().boots().claims();
    expect(world.happens({ ...claimInput, session: "second" }).answer.kind).toBe("state");
    expect(world.run.session?.hash).toBe("second");
    const { answer } = world.happens({ ...claimInput, instance: drawn(7) });
    expect(answer).toMatchObject({ kind: "refused", refusal: { kind: "conflict" } });
    expect(world.run.session?.hash).toBe("second");
  });

  test("a boot ends the session before it", () => {
    const world = new RunWorld().walksTo("Storage");
    world.boots();
    expect(world.run.session).toBeNull();
    const { answer } = world.happens({
      ...{ kind: "heartbeat", instance: drawn(1), bootId: "boot-1", acknowledged: [] },
    });
    expect(answer.kind).toBe("refused");
  });

  test("another machine holds, until the right one is back", () => {
    const world = new RunWorld().walksTo("Storage").boots();
    world.claims({ identity: otherIdentity, bootId: "boot-2" });
    expect(world.run).toMatchObject({ state: "FailedHolding", failure: { kind: "identity" } });
    expect(world.run.reason).toContain("ANOTHER-BOARD");
    expect(
      world.happens({ kind: "retry", ...alice, stage: null, wipe: [], mayWipe: true }).answer,
    ).toMatchObject({ kind: "refused" });
    world.boots().claims({ bootId: "boot-3" });
    expect(world.run).toMatchObject({ state: "Storage", failure: null });
  });

  test("null of an identity matches null alone", () => {
    const world = new RunWorld().walksTo("Storage").boots();
    world.claims({ identity: { ...claimInput.identity, uuid: null }, bootId: "boot-2" });
    expect(world.run.failure?.kind).toBe("identity");
  });

  test("another identity is accepted by an operator, and the verdict says so", () => {
    const world = new RunWorld().walksTo("PSU").boots();
    world.claims({ identity: otherIdentity, bootId: "boot-2" });
    world.happens({ kind: "override", ...alice, what: "identity" });
    expect(world.run).toMatchObject({ state: "PSU", identity: otherIdentity });
    world.happens({ kind: "attempt", attempt: drawn(80), instance: drawn(1), stage: "PSU" });
    world.ends("PASS");
    expect(world.run).toMatchObject({ verdict: "warned" });
    expect(world.run.reason).toContain("identity");
  });

  test("what an operator accepted goes on, is told for ever, and is not accepted twice", () => {
    const world = new RunWorld().walksTo("GPU").begins("GPU").ends("FAIL");
    const other = world.happens({ kind: "override", ...alice, what: "PSU" });
    expect(other.answer.kind).toBe("refused");
    world.happens({ kind: "override", ...alice, what: "GPU" });
    expect(world.run.state).toBe("PSU");
    expect(kindsTold(world)).toEqual(["retry"]);
    world.begins("PSU").ends("PASS");
    expect(world.run).toMatchObject({ state: "Completed", verdict: "warned" });
    expect(world.run.reason).toContain("accepted GPU");
  });

  test("a wipe is for one attempt of Storage, asked for by whoever may", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage").ends("FAIL");
    const wish = { kind: "retry", ...alice, stage: null, wipe: ["S1"] } as const;
    const { answer } = world.happens({ ...wish, mayWipe: false });
    expect(answer).toMatchObject({ kind: "refused", refusal: { kind: "forbidden" } });
    world.happens({ ...wish, mayWipe: true });
    const asked = { kind: "attempt", instance: drawn(1), stage: "Storage" } as const;
    const first = world.happens({ ...asked, attempt: drawn(90) });
    expect(first.answer).toEqual({ kind: "start", number: 2, wipe: ["S1"] });
    // The answer was lost: the same attempt has the same wipe.
    expect(world.happens({ ...asked, attempt: drawn(90) }).answer).toEqual(first.answer);
    const next = world.happens({ ...asked, attempt: drawn(91) });
    expect(next.answer).toEqual({ kind: "start", number: 3, wipe: [] });
  });

  test("a retry that nobody takes up falls back to the hold", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage").ends("FAIL");
    world.happens({ kind: "retry", ...alice, stage: null, wipe: [], mayWipe: true });
    expect(world.run.state).toBe("Storage");
    world.now += runPace.directiveLifetime;
    world.happens({ kind: "spoke" });
    world.happens({ kind: "tick" });
    expect(world.run).toMatchObject({ state: "FailedHolding", failure: { kind: "stage" } });
    expect(kindsTold(world)).toEqual([]);
  });

  test("a retry that was told before the host held is told again, by another id", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage").ends("FAIL");
    world.happens({ kind: "retry", ...alice, stage: null, wipe: [], mayWipe: true });
    const [told] = world.run.directives;
    const acknowledged = [{ id: told?.id ?? "", result: "refused", reason: null } as const];
    const beat = { kind: "heartbeat", instance: drawn(1), bootId: "boot-1" } as const;
    world.happens({ ...beat, acknowledged });
    expect(kindsTold(world)).toEqual(["retry"]);
    expect(world.run.directives[0]?.id).not.toBe(told?.id);
    // What was acknowledged once is nothing the second time.
    const { run } = world;
    world.happens({ ...beat, acknowledged });
    expect(world.run).toEqual(run);
  });

  test("a cancelled run ends when its stage has ended, with what that came to", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage");
    world.happens({ kind: "cancel", ...alice });
    expect(world.run).toMatchObject({ state: "Storage", verdict: null });
    const told = resultInput(world.run, report("ERROR"), { cancelled: true });
    const { answer, writes } = world.happens(told);
    expect(answer).toEqual({ kind: "state", state: "Cancelled" });
    expect(writes.some(({ kind }) => kind === "result")).toBe(true);
    expect(world.happens(told).answer).toEqual(answer);
    expect(world.run).toMatchObject({ state: "Cancelled", verdict: "cancelled" });
  });

  test("a cancel whose stage fails meanwhile ends as failed", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage");
    world.happens({ kind: "cancel", ...alice });
    world.ends("FAIL");
    expect(world.run).toMatchObject({ state: "FailedHolding", verdict: "failed" });
    expect(kindsTold(world)).toEqual(["shutdown"]);
  });

  test("a result that comes after an abort is kept, and changes nothing", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage");
    world.happens({ kind: "abort", ...alice });
    const { writes, answer } = world.happens(resultInput(world.run, report("PASS")));
    expect(writes.map(({ kind }) => kind)).toContain("result");
    expect(answer).toEqual({ kind: "state", state: "Aborted" });
    expect(world.run).toMatchObject({ state: "Aborted", verdict: "aborted" });
  });

  test("a lost host is back where it was when it speaks, and ended after a day", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage");
    world.now += LOST_AFTER - 1;
    world.happens({ kind: "tick" });
    expect(world.run.state).toBe("Storage");
    world.now += 1;
    world.happens({ kind: "tick" });
    expect(world.run).toMatchObject({ state: "Lost", lostIn: "Storage" });
    world.ends("PASS");
    expect(world.run).toMatchObject({ state: "Network", lostIn: null });
    world.now += LOST_AFTER;
    world.happens({ kind: "tick" });
    world.now += runPace.lostFor;
    world.happens({ kind: "tick" });
    expect(world.run).toMatchObject({ state: "Lost", verdict: "lost" });
  });

  test("silence is counted anew when the orchestrator was restarted", () => {
    const world = new RunWorld().walksTo("Storage");
    world.now += 10 * LOST_AFTER;
    world.happens({ kind: "restart" });
    world.happens({ kind: "tick" });
    expect(world.run.state).toBe("Storage");
  });

  test("a key is told while it is good, and revoked when it is taken back", () => {
    const world = new RunWorld().walksTo("GPU").begins("GPU").ends("FAIL");
    const asked = { kind: "hold-asked", instance: drawn(1), address: null, hostKey: "K" } as const;
    expect(world.happens(asked).answer.kind).toBe("none");
    const given = { ...alice, key: "ssh-ed25519 AAAA", lasts: 60_000, untilTime: "later" };
    world.happens({ kind: "hold", ...given });
    world.now += 20_000;
    expect(world.happens(asked).answer).toEqual({ kind: "key", line: given.key, lasts: 40_000 });
    world.happens({ kind: "release", ...alice, after: "stay" });
    expect(world.happens(asked).answer.kind).toBe("none");
    expect(kindsTold(world)).toEqual(["revoke-hold"]);
    expect(world.run).toMatchObject({ state: "FailedHolding", verdict: null });
  });

  test("a key that has expired is told no more", () => {
    const world = new RunWorld().walksTo("GPU").begins("GPU").ends("FAIL");
    const given = { ...alice, key: "ssh-ed25519 AAAA", lasts: 60_000, untilTime: "later" };
    world.happens({ kind: "hold", ...given });
    world.now += 60_000;
    const asked = { kind: "hold-asked", instance: drawn(1), address: null, hostKey: null } as const;
    expect(world.happens(asked).answer.kind).toBe("none");
    world.happens({ kind: "tick" });
    expect(world.run.hold?.key).toBeNull();
  });

  test("a run has so many attempts, and fails with the next", () => {
    const world = new RunWorld(exampleSpec).walksTo("SMART");
    const spent = Array.from({ length: runLimits.attempts }, (_one, index) => drawn(1_000 + index));
    world.run = { ...world.run, spent };
    world.begins("SMART", drawn(5_000));
    expect(world.run).toMatchObject({ state: "FailedHolding", attempt: null });
  });

  test("a session ends when its run has, and its host is silent", () => {
    const world = new RunWorld().walksTo("PSU").begins("PSU").ends("PASS");
    world.now += runPace.lastWords;
    world.happens({ kind: "spoke" });
    world.happens({ kind: "tick" });
    expect(world.run.session).not.toBeNull();
    world.happens({ kind: "release", ...alice, after: "shutdown" });
    expect(kindsTold(world)).toEqual(["shutdown"]);
    const [told] = world.run.directives;
    const acknowledged = [{ id: told?.id ?? "", result: "done", reason: null } as const];
    world.happens({ kind: "heartbeat", instance: drawn(1), bootId: "boot-1", acknowledged });
    world.now += LOST_AFTER - 1;
    world.happens({ kind: "tick" });
    expect(world.run.session).not.toBeNull();
    world.now += 1;
    world.happens({ kind: "tick" });
    expect(world.run.session).toBeNull();
    expect(world.run).toMatchObject({ state: "Completed", verdict: "passed" });
  });
});

describe("a run that was restored from a backup", () => {
  const time = "2026-11-30T09:00:00.000Z";

  test("has no token, session, key, wipe or order that counts, and says so", () => {
    const world = new RunWorld().walksTo("Storage").begins("Storage").ends("FAIL");
    world.happens({
      ...{ kind: "hold", who: "operator alice", key: "ssh-ed25519 AAAA", lasts: 3_600_000 },
      untilTime: "1970-01-01T01:16:40.000Z",
    });
    world.happens({
      ...{ kind: "retry", who: "operator alice", stage: null, wipe: ["S64ANX0R"] },
      ...{ mayWipe: true, reason: "" },
    });
    expect(world.run).toMatchObject({ session: expect.anything(), wipe: expect.anything() });
    const { run, events } = restoredRun(world.run, time);
    expect(run).toMatchObject({ boot: null, session: null, wipe: null, directives: [] });
    expect([run?.hold?.key ?? null, run?.state]).toEqual([null, world.run.state]);
    expect(events).toMatchObject([{ sequence: world.run.events + 1, at: time }]);
    // Its host claims by a token of now, and its attempts go on where they were.
    if (run === undefined) throw new Error("It is as it was");
    world.run = run;
    world.boots().claims({ bootId: "boot-2" });
    expect(world.run.state).toBe("Storage");
  });

  test("is as it was where nothing of it counted any more", () => {
    expect(restoredRun(new RunWorld().run, time)).toEqual({ events: [] });
  });
});
