/** What is declared against what there is. */
import { describe, expect, test } from "bun:test";
import type { Phase } from "../../src/vm/lifecycle-state.ts";
import { phases } from "../../src/vm/protocol.ts";
import {
  type DeclaredPower,
  type DesiredMachine,
  eventOf,
  findDrift,
  type ObservedMachine,
  reconcile,
} from "../../src/vm/reconcile.ts";
import { SeededChance } from "../support/chance.ts";

const hash = `sha256-${"A".repeat(43)}=`;
const spec = (name: string, change = {}) => ({
  ...{ name, imagePath: "/images/one", hash, cpu: 2, memoryMb: 512 },
  ...change,
});

const desire = (name: string, power: DeclaredPower = "running", change = {}): DesiredMachine => ({
  ...{ spec: spec(name, change), power },
});

const see = (name: string, change: Partial<ObservedMachine> = {}): ObservedMachine => ({
  ...{ name, phase: "running", wanted: "running", declaredPower: "running" },
  ...{ spec: spec(name), owner: "declared", reason: undefined },
  ...change,
});

const pass = (machines: readonly DesiredMachine[], observed: readonly ObservedMachine[]) =>
  reconcile({ generation: 4, machines }, observed);

const kinds = (
  machines: readonly DesiredMachine[],
  observed: readonly ObservedMachine[],
): readonly string[] =>
  pass(machines, observed).commands.map((command) =>
    "event" in command ? command.event : command.kind,
  );

const standing = (machines: readonly DesiredMachine[], observed: readonly ObservedMachine[]) => {
  const [first] = pass(machines, observed).standings;
  return [first?.status, first?.reason];
};

describe("commands", () => {
  test("what is missing is created, what is extra removed, what is there left alone", () => {
    const { commands, generation } = pass(
      [desire("new"), desire("same")],
      [see("same"), see("old")],
    );
    expect(generation).toBe(4);
    expect(commands).toEqual([
      { kind: "create", name: "new", machine: desire("new") },
      { kind: "delete", name: "old", reason: "extra" },
    ]);
  });

  test("what is declared otherwise is replaced, and each key that differs is shown", () => {
    const { commands, standings } = pass(
      [desire("one", "running", { cpu: 4, toplevel: "/t" })],
      [see("one")],
    );
    const drift = [
      { key: "cpu", desired: 4, observed: 2 },
      { key: "toplevel", desired: "/t", observed: undefined },
    ];
    expect(commands).toEqual([{ kind: "delete", name: "one", reason: "changed", drift }]);
    expect(standings).toEqual([{ name: "one", status: "drifted", drift, reason: undefined }]);
    // It is on its way then, and created when it is gone.
    expect(kinds([desire("one")], [see("one", { wanted: "absent", phase: "stopping" })])).toEqual(
      [],
    );
    expect(kinds([desire("one")], [see("one", { wanted: "absent", phase: "removed" })])).toEqual([
      "create",
    ]);
  });

  test("one that failed with other limits is booted with what it has now, if it is to run", () => {
    const limits = { pidsMax: 100 };
    const commandOf = (power: "running" | "off") => {
      const { commands } = pass(
        [desire("one", power, { limits })],
        [see("one", { phase: "failed", reason: "no cgroup" })],
      );
      return commands[0];
    };
    expect(commandOf("running")).toMatchObject({ kind: "adjust", boots: true });
    expect(commandOf("off")).not.toHaveProperty("boots");
  });

  test("a machine whose checks are declared otherwise is changed while it runs", () => {
    const health = [{ kind: "tcp", port: 22 }] as const;
    const wanted = { ...desire("one").spec, health: [...health] };
    const { commands, convergencePercent } = pass(
      [desire("one", "running", { health: [...health] })],
      [see("one")],
    );
    const drift = [{ key: "health", desired: health, observed: undefined }];
    expect<unknown>(commands).toEqual([{ kind: "adjust", name: "one", spec: wanted, drift }]);
    expect(convergencePercent).toBe(0);
    expect(
      pass(
        [desire("one", "running", { health: [...health] })],
        [see("one", { spec: { ...wanted, health: [{ port: 22, kind: "tcp" }] } })],
      ).commands,
    ).toEqual([]);
    const both = desire("one", "running", { health: [...health], cpu: 4 });
    expect(pass([both], [see("one")]).commands[0]?.kind).toBe("delete");
  });

  test("what nobody can be sure of is no command's, declared or not", () => {
    const unsure: Partial<ObservedMachine>[] = [
      { phase: "detached" },
      { phase: "uncertain" },
      { owner: "unknown" },
      { spec: undefined },
    ];
    for (const change of unsure) {
      for (const machines of [[], [desire("one")], [desire("one", "off", { cpu: 7 })]]) {
        const result = pass(machines, [see("one", change)]);
        expect(result.commands).toEqual([]);
        expect(result.standings[0]?.status).toBe("left-alone");
        expect(result.convergencePercent).toBe(0);
      }
    }
  });

  test("a machine that an operator made is nobody's to remove, and not counted", () => {
    const { commands, standings, convergencePercent } = pass(
      [],
      [see("one", { owner: "operator" })],
    );
    expect([commands, standings, convergencePercent]).toEqual([[], [], 100]);
    const declared = standing([desire("one")], [see("one", { owner: "operator" })]);
    expect(declared).toEqual(["left-alone", "an operator made it by hand"]);
  });

  test("a declared machine that another host was given is not made anew", () => {
    const given = new Map([["one", { to: "10.77.0.2:4123", time: "2026-01-02T03:04:05Z" }]]);
    const gone = (phase: Phase | undefined) =>
      reconcile(
        { generation: 1, machines: [desire("one"), desire("two")], given },
        phase === undefined ? [] : [see("one", { phase, wanted: "absent" })],
      );
    for (const phase of [undefined, "absent", "removed"] as const) {
      const { commands, standings } = gone(phase);
      expect(commands.map(({ name }) => name)).toEqual(["two"]);
      expect(standings[0]).toMatchObject({ name: "one", status: "left-alone" });
      expect(standings[0]?.reason).toStartWith(
        "it was given to 10.77.0.2:4123 at 2026-01-02T03:04:05Z: take it out of the file here, or",
      );
      expect(standings[0]?.reason).toEndWith("hostler vm forget-migrated one");
    }
    // While its VMM is ended and its files go, nothing is done either.
    expect(gone("removing").commands.map(({ name }) => name)).toEqual(["two"]);
  });

  test("a machine that came from another host is adopted where it is declared as it is", () => {
    const found = see("one", { owner: "received" });
    expect(pass([], [found])).toMatchObject({ commands: [], standings: [] });
    const machine = desire("one", "paused", { imagePath: "/elsewhere", limits: { cpuMax: 1 } });
    const same = { ...machine, spec: { ...machine.spec, hash: "sha256-x" } };
    const here = see("one", {
      owner: "received",
      spec: { ...desire("one").spec, hash: "sha256-x" },
    });
    expect<unknown>(pass([same], [here]).commands).toEqual([
      { kind: "adopt", name: "one", machine: same },
    ]);
    const other = pass([desire("one", "running", { cpu: 4 })], [found]);
    expect(other.commands).toEqual([]);
    expect(other.standings[0]).toMatchObject({ status: "left-alone", drift: [{ key: "cpu" }] });
    expect(other.standings[0]?.reason).toContain("declared here with another cpu");
    const assigned = { owner_generation: 1, movable: false, fencing: "none" } as const;
    expect(pass([{ ...desire("one"), assigned }], [found]).commands).toEqual([]);
    expect(kinds([desire("one")], [see("one", { owner: "received", wanted: "absent" })])).toEqual(
      [],
    );
    expect(kinds([desire("one")], [see("one", { owner: "received", phase: "arrived" })])).toEqual(
      [],
    );
  });

  test("no phase gets a command for what is under way", () => {
    for (const phase of phases) {
      const isGone = phase === "absent" || phase === "removed";
      const expected = isGone ? ["create"] : [];
      expect<unknown>([phase, kinds([desire("one")], [see("one", { phase })])]).toEqual([
        ...[phase, expected],
      ]);
    }
  });
});

describe("power", () => {
  test("is led to where it is declared", () => {
    const towards = (power: DeclaredPower, change: Partial<ObservedMachine>) =>
      kinds([desire("one", power)], [see("one", change)]);
    expect(towards("paused", {})).toEqual(["pause"]);
    expect(towards("off", {})).toEqual(["shutdown"]);
    expect(towards("off", { phase: "failed" })).toEqual(["shutdown"]);
    expect(towards("running", { phase: "paused", wanted: "paused" })).toEqual(["resume"]);
    expect(towards("running", { phase: "created", wanted: "created" })).toEqual(["boot"]);
    expect(towards("paused", { phase: "created", wanted: "created" })).toEqual(["boot"]);
    expect(towards("created", {})).toEqual([]);
    const off = { phase: "off", wanted: "off" } as const;
    expect(towards("running", { ...off, declaredPower: "off" })).toEqual(["boot"]);
  });

  test("a guest that turned itself off is left off, and shown", () => {
    const reason = "its guest shut itself down";
    const off = see("one", { phase: "off", wanted: "off", reason });
    expect(kinds([desire("one")], [off])).toEqual([]);
    const mend = "hostler vm boot one starts it, and so does another power that is declared";
    expect(standing([desire("one")], [off])).toEqual(["drifted", `${reason}; ${mend}`]);
  });

  test("what is done by hand is undone, but for a machine that was shut down", () => {
    const resumed = see("one", { phase: "running", wanted: "running", declaredPower: "paused" });
    expect(kinds([desire("one", "paused")], [resumed])).toEqual(["pause"]);
    const ended = see("one", { phase: "off", wanted: "off", reason: undefined });
    expect(kinds([desire("one")], [ended])).toEqual([]);
    expect(standing([desire("one")], [ended])[1]).toStartWith("it is off; hostler vm boot one");
  });

  test("a machine that failed is shown with its reason", () => {
    const failed = see("one", { phase: "failed", reason: "the hash is another" });
    expect(standing([desire("one")], [failed])).toEqual(["failed", "the hash is another"]);
  });
});

describe("convergence", () => {
  test("is all of them, or it is not 100 %", () => {
    const machines = Array.from({ length: 300 }, (_value, index) => desire(`m${index}`));
    const observed = machines.map((machine) => see(machine.spec.name));
    expect(pass(machines, observed).convergencePercent).toBe(100);
    expect(pass(machines, observed.slice(1)).convergencePercent).toBe(99);
    expect(pass([], []).convergencePercent).toBe(100);
    expect(pass([], observed.slice(0, 1)).convergencePercent).toBe(0);
  });

  test("a second pass after the first one's commands were carried out has none", () => {
    for (let seed = 0; seed < 200; seed += 1) {
      const chance = new SeededChance(seed);
      const names = ["a", "b", "c", "d", "e"];
      const powers = ["running", "paused", "off"] as const;
      const wanted = names.filter(() => chance.happens(0.6));
      const machines = wanted.map((name) => desire(name, chance.pick(powers)));
      const there = names.filter(() => chance.happens(0.6));
      let observed = there.map((name) => {
        const power = chance.pick(powers);
        const cpu = chance.pick([2, 2, 4]);
        const state = { phase: power, wanted: power, declaredPower: power };
        return see(name, { ...state, spec: spec(name, { cpu }) });
      });
      // What is changed is removed first, and created by the pass after.
      for (let count = 0; count < 2; count += 1) observed = carryOut(machines, observed);
      const { commands, convergencePercent } = pass(machines, observed);
      expect([seed, commands, convergencePercent]).toEqual([seed, [], 100]);
    }
  });
});

/** As a worker would that does everything at once. */
function carryOut(
  machines: readonly DesiredMachine[],
  observed: readonly ObservedMachine[],
): ObservedMachine[] {
  const left = new Map(observed.map((machine) => [machine.name, machine]));
  for (const command of pass(machines, observed).commands) {
    const machine = machines.find((one) => one.spec.name === command.name);
    left.delete(command.name);
    if (command.kind === "delete" || machine === undefined) continue;
    const { power } = machine;
    const state = { phase: power, wanted: power, declaredPower: power };
    left.set(command.name, see(command.name, { ...state, spec: machine.spec }));
  }
  return [...left.values()];
}

describe("drift", () => {
  test("allowed domains are a set, a key that is left out is another value", () => {
    const one = spec("a", { networkAllowedDomains: ["b.example", "a.example"] });
    const other = spec("a", { networkAllowedDomains: ["a.example", "b.example", "a.example"] });
    expect(findDrift(one, other)).toEqual([]);
    expect(findDrift(one, spec("a"))).toEqual([
      { key: "networkAllowedDomains", desired: ["a.example", "b.example"], observed: undefined },
    ]);
    expect(findDrift(one, undefined)).toEqual([]);
  });

  test("an image of the same hash is the same one, wherever it is read", () => {
    const moved = spec("a", { imagePath: "/elsewhere" });
    expect(findDrift(moved, spec("a", { imagePath: "/images/one" }))).toEqual([]);
    const other = spec("a", { imagePath: "/elsewhere", hash: "sha256-other" });
    expect(findDrift(other, spec("a")).map(({ key }) => key)).toEqual(["hash", "imagePath"]);
  });
});

test("commands are the lifecycle's events", () => {
  const machine = desire("a", "off");
  expect(eventOf({ kind: "create", name: "a", machine })).toEqual({
    kind: "create",
    wanted: "off",
  });
  const removal = { kind: "delete", name: "a", reason: "extra" } as const;
  expect(eventOf(removal)).toEqual({ kind: "delete", hurry: false });
  const power = { kind: "power", name: "a" } as const;
  expect(eventOf({ ...power, event: "boot" })).toEqual({ kind: "boot" });
  expect(eventOf({ ...power, event: "shutdown" })).toEqual({ kind: "shutdown", hurry: false });
});
