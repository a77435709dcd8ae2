/** The driver of a host's roles: looks, notes, tells, and has one after the other go on. */
import { expect, test } from "bun:test";
import { HostRoles } from "../../../src/fleet/host-roles.ts";
import {
  type ExpectedRole,
  type FoundRole,
  type RoleKind,
  roleKinds,
  type UnitState,
} from "../../../src/fleet/lifecycle-roles.ts";
import type { AskedNow } from "../../../src/fleet/perform/role-hands.ts";
import type { Build, RoleHealth } from "../../../src/fleet/protocol.ts";
import { falseTimers } from "../../support/false-timers.ts";
import { newBuild, oldBuild } from "../../support/fleet-agent/life.ts";

class FakeHost {
  readonly timers = falseTimers();
  found: FoundRole[];
  book: readonly ExpectedRole[] = [];
  readonly log: string[] = [];
  readonly troubles: string[] = [];
  readonly looks: (readonly RoleHealth[])[] = [];
  unit: UnitState | undefined;
  lookError: Error | undefined;
  bookError: Error | undefined;
  answer: AskedNow | undefined;

  constructor(...kinds: readonly RoleKind[]) {
    this.found = kinds.map((kind, index) => ({
      ...{ kind, process: 10 + index, unit: `${kind}.service`, socket: `/run/${kind}` },
      ...{ program: "/versions/old/hostler", build: oldBuild, silence: null },
    }));
  }

  start(self: Build = oldBuild): HostRoles {
    return new HostRoles({
      ...{ self, folder: "/opt/hostler", supervisor: null },
      look: async () => {
        if (this.lookError !== undefined) throw this.lookError;
        return this.found;
      },
      askUnit: async () => this.unit,
      handOver: async ({ kind, process }, way, { version }) => {
        this.log.push(`${kind}: ${way} ${version}`);
        return this.answer ?? { kind: "asked", process };
      },
      readBook: () => this.book,
      writeBook: (book) => {
        if (this.bookError !== undefined) throw this.bookError;
        this.book = book;
      },
      now: this.timers.now,
      wakeAfter: (wait, call) => this.timers.loop.wakeAfter(wait, call),
      onTrouble: (message) => this.troubles.push(message),
    });
  }

  /** Has the time pass, and what is asked answered. */
  async turn(milliseconds = 1_000): Promise<void> {
    this.timers.advance(milliseconds);
    for (let turns = 0; turns < 20; turns += 1) await Promise.resolve();
  }

  change(kind: RoleKind, changes: Partial<FoundRole>): void {
    this.found = this.found.map((one) => (one.kind === kind ? { ...one, ...changes } : one));
  }

  get asked(): readonly string[] {
    return this.book.flatMap(({ kind, asked }) => (asked === null ? [] : [kind]));
  }
}

test("roles are looked at for as long as it lives, and told with the agent itself", async () => {
  const host = new FakeHost("luod");
  using roles = host.start();
  expect(roles.health.map(({ role }) => role)).toEqual(["fleet agent"]);
  await host.turn(0);
  expect(roles.health.map(({ role }) => role)).toEqual(["fleet agent", "luod"]);
  expect(host.book.map(({ kind }) => kind)).toEqual(["luod"]);
  host.change("luod", { silence: "no answer" });
  await host.turn(9_999);
  expect(roles.health.at(-1)?.healthy).toBe(true);
  await host.turn(1);
  expect(roles.health.at(-1)).toMatchObject({ healthy: false, reason: "no answer" });
});

test("one after the other goes on, each when the former one answers", async () => {
  const host = new FakeHost(...roleKinds.filter((kind) => kind !== "fleet supervise"));
  using roles = host.start();
  await host.turn(0);
  using _handOver = roles.handOver(newBuild, (looked) => host.looks.push(looked));
  await host.turn(0);
  expect(host.log).toEqual(["authority: restart 1.2.0"]);
  expect(host.asked).toEqual(["authority"]);
  await host.turn();
  expect(host.log.length).toBe(1);
  for (const { kind } of host.found) {
    host.change(kind, { build: newBuild });
    await host.turn();
    expect(host.asked).not.toContain(kind);
  }
  expect(host.log.map((line) => line.split(":")[0] as RoleKind)).toEqual(
    host.found.map(({ kind }) => kind),
  );
  expect(host.log.at(-1)).toBe("process orchestrator: reexecute 1.2.0");
  const last = host.looks.at(-1) ?? [];
  expect(last.slice(1).every(({ digest }) => digest === newBuild.digest)).toBe(true);
  expect(last.length).toBe(host.found.length + 1);
});

test("what was noted before it was told is missed by the next agent as well", async () => {
  const host = new FakeHost("vm worker");
  {
    using roles = host.start();
    using _handOver = roles.handOver(newBuild, () => {});
    await host.turn(0);
    expect(host.asked).toEqual(["vm worker"]);
  }
  host.found = [];
  host.unit = {
    ...{ load: "loaded", active: "inactive", sub: "dead", result: "success", hasJob: false },
  };
  using next = host.start(newBuild);
  using _handOver = next.handOver(newBuild, (looked) => host.looks.push(looked));
  await host.turn(0);
  expect(host.looks.at(-1)?.at(-1)).toMatchObject({ role: "vm worker", healthy: false });
});

test("the way back touches those alone that went on", async () => {
  const host = new FakeHost("luod", "vm worker");
  host.change("luod", { build: newBuild });
  using roles = host.start();
  using _back = roles.handOver(oldBuild, (looked) => host.looks.push(looked));
  await host.turn(0);
  host.change("luod", { build: oldBuild });
  await host.turn();
  await host.turn();
  expect(host.log).toEqual(["luod: restart-when-idle 1.1.0"]);
});

test("another hand-over takes the place of one, and one that is over tells nothing", async () => {
  const host = new FakeHost("luod");
  using roles = host.start();
  const first = roles.handOver(newBuild, () => host.log.push("first"));
  using second = roles.handOver(oldBuild, () => host.log.push("second"));
  first[Symbol.dispose]();
  await host.turn(0);
  expect(host.log).toEqual(["second"]);
  second[Symbol.dispose]();
  await host.turn();
  await host.turn(10_000);
  expect(host.log).toEqual(["second"]);
});

test("a hand-over that ends when it is told of a look asks nobody", async () => {
  const host = new FakeHost("luod");
  using roles = host.start();
  const handOver = roles.handOver(newBuild, () => handOver[Symbol.dispose]());
  await host.turn(0);
  expect(host.log).toEqual([]);
});

test("what cannot be looked at or noted is said, and it goes on", async () => {
  const host = new FakeHost("luod");
  host.lookError = new Error("EIO");
  using roles = host.start();
  await host.turn(0);
  expect(host.troubles).toEqual(["the roles of this host cannot be looked at, ignoring"]);
  host.lookError = undefined;
  host.bookError = new Error("ENOSPC");
  await host.turn(10_000);
  expect(host.troubles.at(-1)).toBe("the roles of this host cannot be noted, ignoring");
  expect(roles.health.length).toBe(2);
});

test("an agent that ends looks no more", async () => {
  const host = new FakeHost("luod");
  const roles = host.start();
  await host.turn(0);
  roles[Symbol.dispose]();
  expect(host.timers.waiting).toBe(0);
  await host.turn(20_000);
  expect(host.timers.waiting).toBe(0);
});
