/** What another configuration means for what runs, and the order in which it is put in. */
import { describe, expect, test } from "bun:test";
import { type ConfigurationOutcome, parseConfiguration } from "../../src/process/configuration.ts";
import { isRenewable, makePlan, type Renewal } from "../../src/process/orchestration.ts";
import { launchOf } from "../../src/process/perform/survey.ts";
import { describePlan, isEmptyPlan, planReload } from "../../src/process/reload-plan.ts";
import type { Configuration } from "../../src/process/specification.ts";
import { type Changes, Orchestra } from "../support/orchestra.ts";

function configurationOf(text: string): Configuration {
  const outcome: ConfigurationOutcome = parseConfiguration("file", text);
  if (outcome.kind === "refused") throw new Error(JSON.stringify(outcome.errors));
  return outcome.configuration;
}

const plan = (before: string, after: string) =>
  planReload(configurationOf(before), configurationOf(after));

const base = `
[partition.qm]
socket = "/run/qm.sock"
[process.web]
command = ["/usr/bin/web"]
[process.away]
command = ["/usr/bin/away"]
partition = "qm"
`;

/** Every key of a process, with another value than its default, and what it means. */
const keys: readonly (readonly [line: string, key: string, how: "restart" | "in-place"])[] = [
  ['command = ["/usr/bin/web", "-v"]', "command", "restart"],
  ['partition = "qm"', "partition", "restart"],
  ['environment = {A = "b"}', "environment", "restart"],
  ['working_directory = "/tmp"', "working_directory", "restart"],
  ['umask = "077"', "umask", "restart"],
  ['user = "nobody"', "user", "restart"],
  ['group = "nogroup"', "group", "restart"],
  ["groups = [7]", "groups", "restart"],
  ["limits = {nofile = 7}", "limits", "in-place"],
  ['capabilities = ["CAP_KILL"]', "capabilities", "restart"],
  ["no_new_privileges = true", "no_new_privileges", "restart"],
  ['cgroup = "/sys/fs/cgroup/web"', "cgroup", "restart"],
  ['output = "inherit"', "output", "restart"],
  ['leftovers = "keep"', "leftovers", "restart"],
  ["descriptor_store = 2", "descriptor_store", "restart"],
  ['ready = "notify"', "ready", "restart"],
  ['after = ["away"]', "after", "in-place"],
  ['on_dependency_failure = "stop"', "on_dependency_failure", "in-place"],
  ["autostart = false", "autostart", "in-place"],
  ['before_start = ["a"]', "before_start", "in-place"],
  ['after_stop = ["a"]', "after_stop", "in-place"],
  ['hook_timeout = "1s"', "hook_timeout", "in-place"],
  ['restart = "never"', "restart", "in-place"],
  ['backoff = "none"', "backoff", "in-place"],
  ['start_limit = {starts = 3, within = "1min"}', "start_limit", "in-place"],
  ['ready_timeout = "1s"', "ready_timeout", "in-place"],
  ['alive = {tcp = "127.0.0.1:80"}', "alive", "in-place"],
  ['alive = {watchdog = "1s"}', "alive", "restart"],
  ['stop_signal = "SIGINT"', "stop_signal", "in-place"],
  ['stop_grace = "1s"', "stop_grace", "in-place"],
  ["log_lines = 7", "log_lines", "in-place"],
  ['log_bytes = "16KiB"', "log_bytes", "in-place"],
  ['log_file = {path = "/var/log/web.log"}', "log_file", "in-place"],
  ["nice = 5", "nice", "in-place"],
  ["affinity = [0]", "affinity", "in-place"],
  ['scheduling = "batch"', "scheduling", "in-place"],
  ["oom_score_adjust = 500", "oom_score_adjust", "in-place"],
];

/** Without the key again nobody knows what it would be. */
const setKeys = ["nice", "affinity", "scheduling", "oom_score_adjust", "limits"];

/** The base, with a line more for web. */
const withLine = (line: string) =>
  line.startsWith("command")
    ? base.replace('command = ["/usr/bin/web"]', line)
    : base.replace('command = ["/usr/bin/web"]', `command = ["/usr/bin/web"]\n${line}`);

describe("what differs", () => {
  test("nothing", () => {
    const same = plan(base, base);
    expect(isEmptyPlan(same)).toBe(true);
    expect(describePlan(same)).toEqual(["2 as before"]);
  });

  test.each(keys)("%s", (line, key, how) => {
    const { processes } = plan(base, withLine(line));
    expect(processes.changed).toEqual([{ name: "web", keys: [key], how }]);
    expect(processes.unchanged).toBe(1);
    // And back again.
    const back = plan(withLine(line), base);
    const howBack = setKeys.includes(key) ? "restart" : how;
    expect(back.processes.changed).toEqual([{ name: "web", keys: [key], how: howBack }]);
  });

  // Found again after a crash, by the hash; told to read its configuration again, by the keys.
  test.each(keys)("%s: a crash and a reload agree on what runs as it says", (line, key, how) => {
    const launches = [base, withLine(line)].map((text) => {
      const web = configurationOf(text).processes.find(({ name }) => name === "web");
      return launchOf(web as Configuration["processes"][0]);
    });
    // What limits it was started with the next orchestrator does not know.
    const expected = key === "limits" ? "restart" : how;
    expect(launches[0] === launches[1] ? "in-place" : "restart").toBe(expected);
  });

  test("limits: one more in place, one less by a restart", () => {
    const [one, two, other] = ["nofile = 7", "nofile = 7, core = 0", "nofile = 8, core = 0"].map(
      (said) => withLine(`limits = {${said}}`),
    ) as [string, string, string];
    for (const [before, after, how] of [
      [one, two, "in-place"],
      [two, other, "in-place"],
      [other, one, "restart"],
    ] as const) {
      expect(plan(before, after).processes.changed).toEqual([
        { name: "web", keys: ["limits"], how },
      ]);
    }
  });

  test("resources, which need a cgroup: in place", () => {
    const [one, other, none] = [
      'cgroup = "/c"\nresources = {pids_max = 7}',
      'cgroup = "/c"\nresources = {pids_max = 8}',
      'cgroup = "/c"',
    ].map(withLine) as [string, string, string];
    for (const [before, after] of [
      [one, other],
      [one, none],
      [none, one],
    ] as const) {
      expect(plan(before, after).processes.changed).toEqual([
        { name: "web", keys: ["resources"], how: "in-place" },
      ]);
    }
  });

  test("every key of a process is in the table above", () => {
    const said = new Set([...keys.map(([, key]) => key), "resources"]);
    const [{ constraints, hooks, scheduling, readiness, logLimit, ...rest }] = configurationOf(base)
      .processes as [Configuration["processes"][0]];
    expect([constraints, scheduling]).toEqual([{}, {}]);
    expect({ readiness, logLimit }).toBeDefined();
    const words = new Map([["liveness", "alive"]]);
    const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    expect(Object.keys(hooks)).toEqual(["beforeStart", "afterStop", "timeout"]);
    const missing = Object.keys(rest)
      .map((name) => words.get(name) ?? snake(name))
      .filter((key) => key !== "name" && !said.has(key));
    expect(missing).toEqual([]);
  });

  test("where readiness is looked for, by the same means: in place", () => {
    const { processes } = plan(
      withLine('ready = {tcp = "127.0.0.1:1"}'),
      withLine('ready = {tcp = "127.0.0.1:2"}'),
    );
    expect(processes.changed).toEqual([{ name: "web", keys: ["ready"], how: "in-place" }]);
  });

  test("who comes and who goes, partitions as well", () => {
    const next = `
[partition.radio]
listen = "/run/radio.sock"
[process.away]
command = ["/usr/bin/away"]
partition = "radio"
[process.new]
command = ["/usr/bin/new"]
`;
    expect(describePlan(plan(base, next))).toEqual([
      "added: new",
      "removed: web",
      "restarted: away (partition)",
      "partitions added: radio",
      "partitions removed: qm",
      "0 as before",
    ]);
  });

  test.each([
    ['socket = "/run/other.sock"', ["socket"]],
    ['listen = "/run/qm.sock"', ["socket", "listen"]],
    ['socket = "/run/qm.sock"\nprotocol = "holden"', ["protocol"]],
    ['socket = "/run/qm.sock"\nallow_uid = [7]', ["allow_uid"]],
    ['socket = "/run/qm.sock"\nallow_gid = [7]', ["allow_gid"]],
    ['socket = "/run/qm.sock"\nallow_label = ["qm_t"]', ["allow_label"]],
    ['socket = "/run/qm.sock"\nallow_cgroup = ["/qm"]', ["allow_cgroup"]],
    ['socket = "/run/qm.sock"\nother_pid_namespace = true', ["other_pid_namespace"]],
  ])("a partition with %j: what runs there is restarted", (lines, expected) => {
    const { partitions, processes } = plan(base, base.replace('socket = "/run/qm.sock"', lines));
    expect(partitions.changed).toEqual([{ name: "qm", keys: expected }]);
    expect(processes.changed.map(({ name, how }) => ({ name, how }))).toEqual([
      { name: "away", how: "restart" },
    ]);
  });

  test("how many may start at once", () => {
    const next = plan(base, `[orchestrator]\nconcurrent_starts = 3\n${base}`);
    expect(isEmptyPlan(next)).toBe(false);
    expect(describePlan(next)).toEqual(["orchestrator changed: concurrent_starts", "2 as before"]);
  });

  test("a line of the log has so many names", () => {
    const many = Array.from({ length: 30 }, (_, index) => `[process.p${index}]\ncommand = ["a"]`);
    const [added] = describePlan(plan(base, `${base}${many.join("\n")}`), 20);
    expect(added).toEndWith("p19, and 10 more");
  });
});

/** An orchestra with all of it ready. */
function ready(processes: Changes): Orchestra {
  const orchestra = new Orchestra(processes);
  orchestra.boot();
  for (const name of orchestra.plan.specifications.keys()) {
    if (orchestra.phase(name) === "starting") orchestra.arrive(name);
  }
  return orchestra;
}

const renew = (orchestra: Orchestra, renewals: Readonly<Record<string, Renewal>>) =>
  orchestra.send({ kind: "renew", renewals: new Map(Object.entries(renewals)) });

/** As the driver does it: another plan, and the event. */
function putIn(orchestra: Orchestra, processes: Changes, ...names: readonly string[]): string[] {
  const next = new Orchestra(processes).plan;
  Object.assign(orchestra, { plan: next });
  return orchestra.send({ kind: "renewed", names });
}

describe("a process whose configuration is another one", () => {
  test("is asked to stop, waits, and starts by the new one", () => {
    const orchestra = ready({ it: {} });
    expect(renew(orchestra, { it: "restart" })).toEqual(["signal it"]);
    expect(isRenewable(orchestra.state, "it")).toBe(false);
    expect(orchestra.die("it")).toEqual(["clear it"]);
    expect(orchestra.phase("it")).toBe("waiting");
    expect(isRenewable(orchestra.state, "it")).toBe(true);
    expect(orchestra.passTime(60_000)).toEqual([]);
    expect(putIn(orchestra, { it: { stopGrace: 1 } }, "it")).toEqual(["start it"]);
  });

  test("goes on where its rules alone are others", () => {
    const orchestra = ready({ it: {} });
    expect(renew(orchestra, { it: "in-place" })).toEqual([]);
    expect(isRenewable(orchestra.state, "it")).toBe(true);
    expect(putIn(orchestra, { it: { restart: "never" } }, "it")).toEqual([]);
    expect(orchestra.phase("it")).toBe("ready");
    orchestra.die("it");
    expect(orchestra.phase("it")).toBe("finished");
  });

  test("dies by itself meanwhile: nothing of it is started before", () => {
    const orchestra = ready({ it: {} });
    renew(orchestra, { it: "in-place" });
    orchestra.die("it");
    expect(orchestra.phase("it")).toBe("waiting");
    expect(putIn(orchestra, { it: {} }, "it")).toEqual(["start it"]);
  });

  test("is being started: stopped as soon as it is there", () => {
    const orchestra = new Orchestra({ it: {} });
    orchestra.boot();
    expect(renew(orchestra, { it: "restart" })).toEqual([]);
    expect(isRenewable(orchestra.state, "it")).toBe(false);
    expect(orchestra.arrive("it")).toEqual(["signal it"]);
  });

  test("waits after failures: it is put in at once, and they are forgiven", () => {
    const orchestra = ready({ it: {} });
    for (const _time of [1, 2]) {
      orchestra.die("it");
      if (orchestra.phase("it") === "starting") orchestra.arrive("it");
    }
    expect(orchestra.phase("it")).toBe("backing-off");
    expect(renew(orchestra, { it: "restart" })).toEqual([]);
    expect(orchestra.phase("it")).toBe("waiting");
    expect(putIn(orchestra, { it: {} }, "it")).toEqual(["start it"]);
    expect(orchestra.state.processes.get("it")?.failures).toBe(0);
  });

  test("was stopped by an operator: it stays so", () => {
    const orchestra = ready({ it: {} });
    orchestra.stop("it");
    orchestra.die("it");
    expect(renew(orchestra, { it: "restart" })).toEqual([]);
    expect(putIn(orchestra, { it: {} }, "it")).toEqual([]);
    expect(orchestra.phase("it")).toBe("idle");
  });

  test("has failed: it is started as the file says now", () => {
    const limit = { startLimit: { starts: 1, within: 60_000 } };
    const orchestra = ready({ it: limit });
    orchestra.die("it");
    expect(orchestra.phase("it")).toBe("failed");
    renew(orchestra, { it: "in-place" });
    expect(putIn(orchestra, { it: { startLimit: "none" } }, "it")).toEqual(["start it"]);
  });

  test("counts no more starts than its new limit does", () => {
    const limit = (starts: number) => ({ startLimit: { starts, within: 60_000 } });
    const orchestra = ready({ it: { ...limit(5), backoff: "none" } });
    for (const _time of [1, 2, 3]) {
      orchestra.die("it");
      orchestra.arrive("it");
    }
    renew(orchestra, { it: "in-place" });
    putIn(orchestra, { it: limit(2) }, "it");
    expect(orchestra.state.processes.get("it")?.recentStarts).toHaveLength(2);
  });

  test("others come after it: they wait until it is ready again, and run on until then", () => {
    const orchestra = ready({ base: {}, top: { after: ["base"] } });
    expect(renew(orchestra, { base: "restart" })).toEqual(["signal base"]);
    expect(orchestra.die("base")).toEqual(["clear base"]);
    expect(orchestra.phase("top")).toBe("ready");
    expect(putIn(orchestra, { base: {}, top: { after: ["base"] } }, "base")).toEqual([
      "start base",
    ]);
  });
});

describe("a process that is no more", () => {
  test("is stopped, after those that come after it and go as well", () => {
    const orchestra = ready({ base: {}, top: { after: ["base"] }, stays: { after: ["base"] } });
    expect(renew(orchestra, { base: "gone", top: "gone" })).toEqual(["signal top"]);
    expect(orchestra.die("top")).toEqual(["clear top", "signal base"]);
    expect(isRenewable(orchestra.state, "top")).toBe(true);
    orchestra.die("base");
    expect(putIn(orchestra, { stays: {} }, "base", "top")).toEqual([]);
    expect([...orchestra.state.processes.keys()]).toEqual(["stays"]);
    expect(orchestra.phase("stays")).toBe("ready");
  });

  test("is not started any more, whoever asks for it", () => {
    const orchestra = ready({ it: {} });
    renew(orchestra, { it: "gone" });
    orchestra.start("it");
    expect(orchestra.die("it")).toEqual(["clear it"]);
    expect(orchestra.phase("it")).toBe("idle");
    expect(orchestra.start("it")).toEqual([]);
    expect(isRenewable(orchestra.state, "it")).toBe(true);
  });
});

describe("a process that is new", () => {
  test("is started with what it comes after", () => {
    const orchestra = ready({ old: { autostart: false } });
    const started = putIn(orchestra, { old: { autostart: false }, it: { after: ["old"] } }, "it");
    expect(started).toEqual(["start old"]);
    expect(orchestra.arrive("old")).toEqual(["start it"]);
  });

  test("is left alone where it does not start by itself", () => {
    const orchestra = ready({ old: {} });
    expect(putIn(orchestra, { old: {}, it: { autostart: false } }, "it")).toEqual([]);
    expect(orchestra.phase("it")).toBe("idle");
  });
});

test("a shutdown in the middle of it stops everything", () => {
  const orchestra = ready({ base: {}, top: { after: ["base"] } });
  renew(orchestra, { base: "restart", top: "gone" });
  expect(orchestra.phase("base")).toBe("stopping");
  orchestra.shutDown();
  expect(orchestra.state.renewing.size).toBe(0);
  orchestra.die("top");
  orchestra.die("base");
  expect([...orchestra.state.processes.values()].map(({ phase }) => phase)).toEqual([
    "idle",
    "idle",
  ]);
});

test("the plan of a configuration that names somebody who has gone is no crash", () => {
  const orchestra = ready({ base: {}, top: { after: ["base"] } });
  renew(orchestra, { base: "gone", top: "restart" });
  orchestra.die("base");
  const former = [...orchestra.plan.specifications.values()].filter(({ name }) => name === "top");
  const mixed = makePlan({
    holder: true,
    concurrentStarts: undefined,
    partitions: [],
    processes: former,
  });
  Object.assign(orchestra, { plan: mixed });
  expect(orchestra.send({ kind: "renewed", names: ["base"] })).toEqual([]);
  orchestra.die("top");
  expect(orchestra.phase("top")).toBe("waiting");
});
