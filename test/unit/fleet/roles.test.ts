/** Which processes are roles, which are expected, and which one is handed over next. */
import { describe, expect, test } from "bun:test";
import {
  ASK_AGAIN,
  type Asked,
  type ExpectedRole,
  type FoundRole,
  goneRoles,
  type HandingOver,
  type JudgedRole,
  judgeRoles,
  nextHandOver,
  parseUnitState,
  type RoleKind,
  readRole,
  roleKey,
  roleKinds,
  type Sight,
  toldRoles,
  type UnitState,
  unitOfCgroup,
} from "../../../src/fleet/lifecycle-roles.ts";
import { fleetLimits } from "../../../src/fleet/protocol.ts";
import { newBuild, oldBuild } from "../../support/fleet-agent/life.ts";

const supervisor = "/run/hostler/fleet-supervise.sock";
const socketOf = (kind: RoleKind) => (kind === "fleet supervise" ? supervisor : `/run/${kind}`);

const found = (kind: RoleKind, changes: Partial<FoundRole> = {}): FoundRole => ({
  ...{ kind, process: 100 + roleKinds.indexOf(kind), unit: `${kind}.service` },
  socket: socketOf(kind),
  program: "/opt/hostler/versions/1/hostler",
  ...{ build: oldBuild, silence: null },
  ...changes,
});

const expected = (kind: RoleKind, changes: Partial<ExpectedRole> = {}): ExpectedRole => ({
  ...{ kind, unit: `${kind}.service`, socket: socketOf(kind), asked: null },
  ...changes,
});

const sight = (changes: Partial<Sight> = {}): Sight => ({
  ...{ found: [], book: [], units: new Map(), self: oldBuild, folder: "/opt/hostler" },
  ...{ supervisor, handingOver: undefined },
  ...changes,
});

const handingOver = (asked: readonly (readonly [string, Asked])[] = []): HandingOver => ({
  build: newBuild,
  asked: new Map(asked),
});

const unit = (changes: Partial<UnitState> = {}): UnitState => ({
  ...{ load: "loaded", active: "active", sub: "running", result: "success", hasJob: false },
  ...changes,
});

const only = (roles: readonly JudgedRole[]): JudgedRole => {
  const [first, ...others] = roles;
  if (first === undefined || others.length > 0) throw new Error(`${roles.length} roles`);
  return first;
};

describe("a command line", () => {
  test.each([
    ["/usr/bin/hostler identity authority --listen 0.0.0.0:1", "authority"],
    ["hostler fleet operator", "fleet operator"],
    ["hostler vm master --config x", "vm master"],
    ["hostler vetting orchestrator --boot-dir live", "vetting orchestrator"],
    ["hostler process agent", "process agent"],
    ["holden-agent", "process agent"],
    ["/usr/sbin/luod --by reboot", "luod"],
    ["hostler live-update daemon", "luod"],
    ["hostler vm worker", "vm worker"],
    ["hostler process orchestrator --config x", "process orchestrator"],
    ["holden-orchestrator --local-command x", "process orchestrator"],
    ["hostler fleet supervise", "fleet supervise"],
  ] as const)("%s is a role's", (line, kind) => {
    expect(readRole(line.split(" "))?.kind).toBe(kind);
  });

  test.each(["hostler", "hostler vm list", "hostler fleet agent", "hostler --hold x", ""])(
    "%s is none",
    (line) => expect(readRole(line.split(" "))).toBeUndefined(),
  );

  test("names a control socket, or the usual one counts", () => {
    const read = (line: string) => readRole(line.split(" "))?.socket;
    expect(read("hostler vm worker")).toBe("/run/hostler/vm.sock");
    expect(read("luod --control-socket /a")).toBe("/a");
    expect(read("luod --control-socket=/a --by reboot")).toBe("/a");
    expect(read("hostler process agent --control-socket /a")).toBeNull();
    expect(read("hostler fleet supervise -- --control-socket /a")).toBe(supervisor);
    expect(read("luod --control-socket")).toBe("/run/luod/control.sock");
  });

  test("names the file in which a worker of machines may name its socket", () => {
    const read = (line: string) => readRole(line.split(" "))?.configuration;
    expect(read("hostler vm worker --config /etc/vm.toml")).toBe("/etc/vm.toml");
    expect(read("hostler vm worker")).toBeUndefined();
    expect(read("hostler vm master --config /etc/vm.toml")).toBeUndefined();
  });
});

test("a cgroup names the unit of the system's manager, and of no other", () => {
  expect(unitOfCgroup("0::/system.slice/luod.service\n")).toBe("luod.service");
  expect(unitOfCgroup("1:x:/\n0::/system.slice/a.service/worker\n")).toBe("a.service");
  expect(unitOfCgroup("0::/user.slice/user-0.slice/session-1.scope\n")).toBeNull();
  const own = "user.slice/user-1.slice/user@1.service/app.slice/a.service";
  expect(unitOfCgroup(`0::/${own}\n`)).toBeNull();
  expect(unitOfCgroup("0::/\n")).toBeNull();
  expect(unitOfCgroup("")).toBeNull();
});

test("what systemctl says of a unit, and when it says nothing", () => {
  const said =
    "Job=17\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=x\n";
  expect(parseUnitState(said)).toEqual({
    ...{ load: "loaded", active: "activating", sub: "auto-restart", result: "x", hasJob: true },
  });
  const idle = "LoadState=not-found\nActiveState=inactive\n";
  expect(parseUnitState(idle)).toMatchObject({ load: "not-found", hasJob: false, sub: "" });
  expect(parseUnitState("Job=0\nLoadState=loaded\nActiveState=active")?.hasJob).toBe(false);
  expect(parseUnitState("")).toBeUndefined();
});

describe("a role that is found", () => {
  const ways = {
    authority: "restart",
    "fleet operator": "restart",
    "vm master": "restart",
    "vetting orchestrator": "restart",
    "process agent": "restart",
    luod: "restart-when-idle",
    "vm worker": "restart",
    "process orchestrator": "reexecute",
    "fleet supervise": "renew",
  } as const satisfies Readonly<Record<RoleKind, string>>;

  test.each(roleKinds.map((kind) => [kind]))("%s: how it is handed over", (kind) => {
    const { roles, book } = judgeRoles(sight({ found: [found(kind)] }));
    expect(only(roles)).toMatchObject({ way: ways[kind], counts: true });
    expect(only(roles).health).toEqual({
      ...{ role: kind, digest: oldBuild.digest, healthy: true, reason: null },
    });
    expect(book).toEqual([expected(kind)]);
  });

  test.each(roleKinds.map((kind) => [kind]))("%s, which no unit starts", (kind) => {
    const seen = sight({ found: [found(kind, { unit: null })], handingOver: handingOver() });
    const role = only(judgeRoles(seen).roles);
    const goesOn = kind === "process orchestrator" || kind === "fleet supervise";
    expect(role.counts).toBe(goesOn);
    const said = "no unit starts it: it goes on with its file until you start it again";
    expect(role.health).toMatchObject({ healthy: true, reason: goesOn ? null : said });
  });

  test.each(roleKinds.map((kind) => [kind]))("%s, of a copy that is no version", (kind) => {
    const copy = found(kind, { build: null, program: "/srv/hostler" });
    const { roles, book } = judgeRoles(sight({ found: [copy] }));
    // A supervisor of our own follows `current`, wherever it was started from.
    const isOurs = kind === "fleet supervise";
    const { health, counts } = only(roles);
    expect([counts, health.digest, health.healthy]).toEqual([isOurs, null, true]);
    const said = "it runs /srv/hostler, which is no version of /opt/hostler: ";
    expect(health.reason).toBe(isOurs ? null : `${said}start it from /opt/hostler/current/hostler`);
    expect(book.length).toBe(isOurs ? 1 : 0);
  });

  test("and does not answer is not well, and is expected only if it once was", () => {
    const silent = found("vm worker", { silence: "nobody answers" });
    const first = judgeRoles(sight({ found: [silent] }));
    expect(only(first.roles).health).toMatchObject({ healthy: false, reason: "nobody answers" });
    expect(first.book).toEqual([]);
    const known = judgeRoles(sight({ found: [silent], book: [expected("vm worker")] }));
    expect(known.book).toEqual([expected("vm worker")]);
  });

  test("a supervisor that is not this agent's parent is started again by its unit, or not", () => {
    const other = found("fleet supervise", { socket: "/other" });
    expect(only(judgeRoles(sight({ found: [other] })).roles).way).toBe("restart");
    const alone = sight({ found: [other], supervisor: null });
    expect(only(judgeRoles(alone).roles).way).toBe("restart");
    const byHand = sight({ found: [found("fleet supervise", { socket: "/other", unit: null })] });
    expect(only(judgeRoles(byHand).roles)).toMatchObject({ way: null, counts: false });
  });

  test("that was started again from its former file says what to mend", () => {
    const asked = [roleKey(found("vm worker")), { kind: "asked", process: 7 }] as const;
    const again = sight({ found: [found("vm worker")], handingOver: handingOver([asked]) });
    expect(only(judgeRoles(again).roles).health.reason).toBe(
      "it was started again, and runs /opt/hostler/versions/1/hostler: have ExecStart= of " +
        "vm worker.service name /opt/hostler/current/hostler",
    );
    const same = sight({
      found: [found("vm worker", { process: 7 })],
      handingOver: handingOver([asked]),
    });
    expect(only(judgeRoles(same).roles).health.reason).toBeNull();
  });

  test("that cannot be handed over is told, and waited for no more", () => {
    const key = roleKey(found("process orchestrator"));
    const asked = [key, { kind: "unsupported", reason: "too old" }] as const;
    const seen = sight({
      found: [found("process orchestrator")],
      handingOver: handingOver([asked]),
    });
    const role = only(judgeRoles(seen).roles);
    expect(role).toMatchObject({ way: null, counts: false });
    expect(role.health).toMatchObject({ healthy: true, reason: "too old" });
  });

  test.each([
    ["refused", { kind: "refused", reason: "no room", at: 5 }],
    ["waits", { kind: "waits", reason: "it is preserving" }],
  ] as const)("that %s says why", (_what, asked) => {
    const seen = sight({
      found: [found("luod")],
      handingOver: handingOver([[roleKey(found("luod")), asked]]),
    });
    expect(only(judgeRoles(seen).roles).health.reason).toBe(asked.reason);
  });
});

describe("a role that is gone", () => {
  const gone = (state: UnitState | undefined, changes: Partial<Sight> = {}) =>
    judgeRoles(
      sight({
        book: [expected("vm worker")],
        units: new Map(state === undefined ? [] : [["vm worker.service", state]]),
        ...changes,
      }),
    );
  const asked = { book: [expected("vm worker", { asked: newBuild.digest })] };

  test.each([
    ["stopped", unit({ active: "inactive", sub: "dead" })],
    ["taken away", unit({ load: "not-found", active: "inactive" })],
    ["masked", unit({ load: "masked", active: "inactive" })],
    ["another program's unit", unit()],
  ] as const)("%s by its operator is forgotten", (_what, state) => {
    expect(gone(state)).toEqual({ roles: [], book: [] });
  });

  test.each([
    ["failed", unit({ active: "failed", sub: "failed", result: "exit-code" }), "restart"],
    ["starting again", unit({ active: "activating", sub: "auto-restart" }), null],
    ["about to start", unit({ active: "inactive", sub: "dead", hasJob: true }), null],
    ["unknown", undefined, null],
  ] as const)("%s is missed", (_what, state, way) => {
    const { roles, book } = gone(state);
    expect(only(roles)).toMatchObject({ way, counts: true, process: null });
    expect(only(roles).health).toMatchObject({ digest: null, healthy: false });
    expect(book).toEqual([expected("vm worker")]);
  });

  test("says what to do where it failed", () => {
    const state = unit({ active: "failed", sub: "failed", result: "exit-code" });
    expect(only(gone(state).roles).health.reason).toBe(
      "vm worker.service failed (exit-code): see journalctl -u vm worker.service; where it is " +
        "not to run any more, systemctl reset-failed vm worker.service",
    );
    const starting = unit({ active: "activating", sub: "auto-restart" });
    const reason = "it is not there, and vm worker.service is activating (auto-restart)";
    expect(only(gone(starting).roles).health.reason).toBe(reason);
  });

  test("after it was told to go on is missed, whatever its unit is", () => {
    const stopped = unit({ active: "inactive", sub: "dead" });
    const now = gone(stopped, { ...asked, handingOver: handingOver() });
    expect(only(now.roles).health.healthy).toBe(false);
    // What an earlier upgrade told it counts no more.
    expect(gone(stopped, asked).roles).toEqual([]);
    const former = { ...handingOver(), build: oldBuild };
    expect(gone(stopped, { ...asked, handingOver: former }).roles).toEqual([]);
  });

  test("and has no unit is nobody's, unless it ended in the hand-over", () => {
    const alone = expected("process orchestrator", { unit: null });
    expect(judgeRoles(sight({ book: [alone] })).roles).toEqual([]);
    const ended = sight({
      book: [{ ...alone, asked: newBuild.digest }],
      handingOver: handingOver(),
    });
    const { health } = only(judgeRoles(ended).roles);
    expect(health.reason).toBe("it has ended, and no unit starts it again");
  });

  test("is looked for by kind and unit", () => {
    const book = [expected("luod"), expected("vm worker", { unit: "other.service" })];
    const seen = { book, found: [found("luod"), found("vm worker")] };
    expect(goneRoles(seen).map(({ unit: name }) => name)).toEqual(["other.service"]);
  });
});

describe("the next one", () => {
  const judged = (changes: readonly Partial<FoundRole>[], over: HandingOver) =>
    judgeRoles(
      sight({
        found: changes.map((one) => found(one.kind ?? "luod", one)),
        handingOver: over,
      }),
    ).roles;
  const next = (changes: readonly Partial<FoundRole>[], over = handingOver(), now = 0) =>
    nextHandOver(judged(changes, over), over, now)?.kind;
  const all = roleKinds.map((kind) => ({ kind }));

  test("is the first in order that does not answer from the new version", () => {
    const done: RoleKind[] = [];
    for (const kind of roleKinds) {
      const now = all.map((one) => ({
        ...one,
        ...(done.includes(one.kind) && { build: newBuild }),
      }));
      // Whatever order they were found in.
      expect(next(now.toReversed())).toBe(kind);
      done.push(kind);
    }
    expect(next(all.map((one) => ({ ...one, build: newBuild })))).toBeUndefined();
  });

  test("is none before the former one answers from there, and is well", () => {
    const told = handingOver([[roleKey(found("authority")), { kind: "asked", process: 1 }]]);
    expect(next(all, told)).toBeUndefined();
    const silent = { build: newBuild, silence: "no answer" };
    const [first, ...others] = all;
    expect(next([{ ...first, ...silent }, ...others], told)).toBeUndefined();
    expect(next([{ ...first, build: newBuild }, ...others], told)).toBe("fleet operator");
  });

  test("is asked again when it was not the time, or a while after it refused", () => {
    const key = roleKey(found("luod"));
    const [one] = [{ kind: "luod" as const }];
    expect(next([one], handingOver([[key, { kind: "waits", reason: "" }]]))).toBe("luod");
    const refused = handingOver([[key, { kind: "refused", reason: "", at: 10 }]]);
    expect(next([one], refused, 9 + ASK_AGAIN)).toBeUndefined();
    expect(next([one], refused, 10 + ASK_AGAIN)).toBe("luod");
  });

  test("is never one that does not count", () => {
    const copy = { kind: "luod", build: null } as const;
    expect(next([copy, { kind: "vm worker" }])).toBe("vm worker");
  });

  test("waits for one that is gone; one whose unit failed is started", () => {
    const over = handingOver();
    const seen = (state: UnitState) => {
      const { roles } = judgeRoles(
        sight({
          found: [found("vm worker")],
          book: [expected("luod")],
          units: new Map([["luod.service", state]]),
          handingOver: over,
        }),
      );
      return nextHandOver(roles, over, 0)?.kind;
    };
    expect(seen(unit({ active: "activating" }))).toBeUndefined();
    expect(seen(unit({ active: "failed" }))).toBe("luod");
    expect(seen(unit({ active: "inactive" }))).toBe("vm worker");
  });
});

test("a mark of the hand-over is kept until it answers from that file", () => {
  const book = [expected("vm worker", { asked: newBuild.digest })];
  const after = (changes: Partial<FoundRole>) =>
    judgeRoles(sight({ found: [found("vm worker", changes)], book })).book;
  expect(after({})).toEqual(book);
  expect(after({ build: newBuild, silence: "no answer" })).toEqual(book);
  expect(after({ build: newBuild })).toEqual([expected("vm worker")]);
});

test("names: one of a kind is called by it, others by their units, and none is too long", () => {
  const names = (roles: readonly FoundRole[]) =>
    judgeRoles(sight({ found: roles })).roles.map(({ health }) => health.role);
  expect(names([found("vm worker")])).toEqual(["vm worker"]);
  const second = found("vm worker", { unit: `${"x".repeat(80)}.service` });
  const usual = found("vm worker", { unit: "hostler-vm-worker.service" });
  const [first = "", other = ""] = names([usual, second]);
  expect([first, other.length]).toEqual(["vm worker", fleetLimits.labelLength]);
  expect(other).toStartWith("vm worker xxx");
});

test("what is told has room for so many; those that count come first", () => {
  const own = { role: "fleet agent", digest: oldBuild.digest, healthy: true, reason: null };
  const many = Array.from({ length: fleetLimits.roles + 1 }, (_one, index) =>
    found("authority", { unit: `${index}.service`, build: null, process: index }),
  );
  const { roles, book } = judgeRoles(sight({ found: [...many, found("vm worker")] }));
  const told = toldRoles(own, roles);
  expect(told.length).toBe(fleetLimits.roles);
  expect(told.slice(0, 2).map(({ role }) => role)).toEqual(["fleet agent", "vm worker"]);
  expect(book.length).toBe(1);
  const long = found("luod", { silence: "x".repeat(fleetLimits.textLength + 1) });
  const { health } = only(judgeRoles(sight({ found: [long] })).roles);
  expect(health.reason?.length).toBe(fleetLimits.textLength);
});
