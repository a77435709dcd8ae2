/** Configurations: what every key means; all mistakes are told at once, in their places. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import {
  type ConfigurationError,
  configurationLimits,
  holdenConfiguration,
  parseConfiguration,
  readConfiguration,
} from "../../src/process/configuration.ts";
import type { ProcessSpecification } from "../../src/process/specification.ts";
import { formatErrors } from "../../src/toml/format-errors.ts";

import { MISTAKES_LIMIT } from "../../src/toml/toml-tree.ts";
import { defaultBackoff } from "../../src/units/restarts.ts";
import { hostler } from "../support/binary.ts";
import { SeededChance } from "../support/chance.ts";
import { runProgram } from "../support/program.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

function accept(text: string) {
  const outcome = parseConfiguration("x.toml", text);
  if (outcome.kind === "ok") return outcome;
  throw new Error(`Refused: ${JSON.stringify(outcome.errors, null, 2)}`);
}

function refuse(text: string): readonly ConfigurationError[] {
  const outcome = parseConfiguration("x.toml", text);
  return outcome.kind === "refused" ? outcome.errors : [];
}

/** "line:column key: expected; received" of each error. */
const told = (text: string) =>
  refuse(text).map(
    ({ line, column, key_path, expected, received }) =>
      `${line}:${column} ${key_path}: ${expected}; ${received}`,
  );

/** The one process of a file that has only this beside its command. */
function processWith(lines: string): ProcessSpecification {
  const { configuration } = accept(`[process.a]\ncommand = ["/bin/a"]\n${lines}`);
  const [process] = configuration.processes;
  if (process === undefined) throw new Error("There is no process.");
  return process;
}

const example = `
[partition.qm]
socket = "/run/holden/qm_orchestrator.sock"     # or listen = "…", for an agent that dials out

[process.brake-monitor]
command = ["/usr/bin/brake-monitor", "--period=10ms"]
restart = "always"

[process.media]
partition = "qm"
command = ["/usr/bin/media"]
after = ["brake-monitor"]
`;

/** Every key, none at its default. */
const everything = `
[partition.qm]
listen = "/run/ipc/qm.sock"
protocol = "hostler"
allow_uid = [0, 1000]
allow_gid = [5]
allow_label = ["system_u:system_r:qm_t:s0:c1,c2"]
allow_cgroup = ["/qm.slice"]
other_pid_namespace = true

[process.first]
command = ["first"]

[process.all]
command = ["/bin/all", ""]
partition = "qm"
restart = "on-failure"
backoff = {first = "1s", factor = 1.5, cap = "1min", jitter = 0, reset_after = "1h"}
start_limit = {starts = 20, within = "60s"}
after = ["first"]
on_dependency_failure = "restart"
before_start = ["prepare"]
after_stop = ["/bin/tidy", "-a"]
hook_timeout = "2s"
ready = {tcp = "[::1]:8080"}
ready_timeout = "1.5s"
alive.unix = "/run/all.sock"
alive.interval = "2s"
alive.timeout = "500ms"
alive.failures = 2
alive.on_failure = "degrade"
stop_signal = "SIGRTMIN+2"
stop_grace = "0s"
leftovers = "keep"
output = "inherit"
log_lines = 10
log_bytes = "1MiB"
descriptor_store = 3
environment = {A = "1", "b c" = ""}
working_directory = "/var"
umask = "027"
user = "media"
group = 100
groups = ["audio", 44]
limits = {nofile = 1024, core = "unlimited", nproc = {soft = 1, hard = "unlimited"}}
capabilities = ["cap_net_bind_service", "CAP_CHOWN"]
no_new_privileges = true
cgroup = "/sys/fs/cgroup/media"
resources.memory_max = "512MiB"
resources.memory_high = "max"
resources.cpu_max = 1.5
resources.cpu_weight = 50
resources.pids_max = 64
resources.io_weight = 10
resources.optional = ["io_weight", "cpu_max"]
nice = -5
affinity = [3, "0-1", 3]
scheduling = {fifo = 10}
oom_score_adjust = -900
autostart = false
`;

describe("what is valid", () => {
  test("the example of the README, with its defaults", () => {
    const { configuration, warnings } = accept(example);
    expect(configuration.partitions).toEqual([
      {
        name: "qm",
        endpoint: { kind: "connect", path: "/run/holden/qm_orchestrator.sock" },
        allowUsers: [0],
        allowGroups: [],
        allowLabels: [],
        allowCgroups: [],
        otherProcessNamespace: false,
        protocol: "hostler",
      },
    ]);
    expect(configuration.processes.map(({ name, partition }) => [name, partition])).toEqual([
      ["brake-monitor", undefined],
      ["media", "qm"],
    ]);
    expect(configuration.processes[1]).toEqual({
      name: "media",
      partition: "qm",
      command: ["/usr/bin/media"],
      environment: {},
      workingDirectory: undefined,
      umask: undefined,
      constraints: {},
      scheduling: {},
      restart: "always",
      backoff: defaultBackoff,
      startLimit: "none",
      after: ["brake-monitor"],
      onDependencyFailure: "ignore",
      hooks: { beforeStart: undefined, afterStop: undefined, timeout: 5_000 },
      readiness: { kind: "started" },
      readyTimeout: 30_000,
      liveness: undefined,
      stopSignal: 15,
      stopGrace: 10_000,
      leftovers: "kill",
      output: "log",
      logLimit: { lines: 1_000, bytes: 262_144 },
      logFile: undefined,
      descriptorStore: 0,
      resources: { limits: {}, optional: [] },
      autostart: true,
    });
    expect(warnings.map(({ line, key_path }) => [line, key_path])).toEqual([[2, "partition.qm"]]);
    expect(warnings[0]?.message).toStartWith("only uid 0 guards partition qm");
  });

  test("every key", () => {
    const { configuration, warnings } = accept(everything);
    expect(warnings).toEqual([]);
    expect(configuration.partitions).toEqual([
      {
        name: "qm",
        endpoint: { kind: "listen", path: "/run/ipc/qm.sock" },
        allowUsers: [0, 1000],
        allowGroups: [5],
        allowLabels: ["system_u:system_r:qm_t:s0:c1,c2"],
        allowCgroups: ["/qm.slice"],
        otherProcessNamespace: true,
        protocol: "hostler",
      },
    ]);
    const unlimited = Number.POSITIVE_INFINITY;
    expect(configuration.processes[1]).toEqual({
      name: "all",
      partition: "qm",
      command: ["/bin/all", ""],
      environment: { A: "1", "b c": "" },
      workingDirectory: "/var",
      umask: 0o27,
      constraints: {
        user: "media",
        group: 100,
        groups: ["audio", 44],
        limits: {
          nofile: { soft: 1024, hard: 1024 },
          core: { soft: unlimited, hard: unlimited },
          nproc: { soft: 1, hard: unlimited },
        },
        capabilities: ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"],
        noNewPrivileges: true,
        cgroup: "/sys/fs/cgroup/media",
      },
      scheduling: {
        nice: -5,
        affinity: [0, 1, 3],
        policy: { name: "fifo", priority: 10 },
        oomScoreAdjust: -900,
      },
      restart: "on-failure",
      backoff: { first: 1_000, factor: 1.5, cap: 60_000, jitter: 0, resetAfter: 3_600_000 },
      startLimit: { starts: 20, within: 60_000 },
      after: ["first"],
      onDependencyFailure: "restart",
      hooks: { beforeStart: ["prepare"], afterStop: ["/bin/tidy", "-a"], timeout: 2_000 },
      readiness: { kind: "tcp", host: "::1", port: 8080 },
      readyTimeout: 1_500,
      liveness: {
        check: { kind: "unix", path: "/run/all.sock" },
        interval: 2_000,
        timeout: 500,
        failures: 2,
        onFailure: "degrade",
      },
      stopSignal: 36,
      stopGrace: 0,
      leftovers: "keep",
      output: "inherit",
      logLimit: { lines: 10, bytes: 1_048_576 },
      logFile: undefined,
      descriptorStore: 3,
      resources: {
        limits: {
          memoryMax: 536_870_912,
          memoryHigh: "max",
          cpuMax: 1.5,
          cpuWeight: 50,
          pidsMax: 64,
          ioWeight: 10,
        },
        optional: ["cpuMax", "ioWeight"],
      },
      autostart: false,
    });
  });

  test("a backoff keeps the defaults of what it does not say", () => {
    expect(processWith('backoff = {cap = "1s"}').backoff).toEqual({
      ...defaultBackoff,
      cap: 1_000,
    });
    expect(processWith('backoff = "none"').backoff).toBe("none");
    expect(processWith('start_limit = "none"').startLimit).toBe("none");
  });

  const readinesses: [string, object][] = [
    ['"started"', { kind: "started" }],
    ['"notify"', { kind: "notify" }],
    ['{command = ["test", "-e", "/x"]}', { kind: "command", command: ["test", "-e", "/x"] }],
    ['{tcp = "localhost:80"}', { kind: "tcp", host: "127.0.0.1", port: 80 }],
    ['{tcp = "10.0.0.1:65535"}', { kind: "tcp", host: "10.0.0.1", port: 65_535 }],
    ['{unix = "/run/x"}', { kind: "unix", path: "/run/x" }],
    [
      '{http = "http://localhost"}',
      { kind: "http", at: { kind: "tcp", host: "127.0.0.1", port: 80 }, path: "/" },
    ],
    [
      '{http = "http://[::1]:8080/a?b=c"}',
      { kind: "http", at: { kind: "tcp", host: "::1", port: 8_080 }, path: "/a?b=c" },
    ],
    [
      '{http = "http://unix:/run/x.sock:/a"}',
      { kind: "http", at: { kind: "unix", path: "/run/x.sock" }, path: "/a" },
    ],
    [
      '{http = "http://unix:/run/x.sock"}',
      { kind: "http", at: { kind: "unix", path: "/run/x.sock" }, path: "/" },
    ],
  ];
  test.each(readinesses)("ready = %s", (written, readiness) => {
    expect(processWith(`ready = ${written}`).readiness).toEqual(readiness as never);
  });

  const spellings: [string, keyof ProcessSpecification, unknown][] = [
    ['stop_signal = "term"', "stopSignal", 15],
    ["stop_signal = 9", "stopSignal", 9],
    ['umask = "0022"', "umask", 0o22],
    ["log_bytes = 16384", "logLimit", { lines: 1_000, bytes: 16_384 }],
    [
      'log_file = {path = "/l/x.log"}',
      "logFile",
      { path: "/l/x.log", size: 10_485_760, count: 5, time: true, stream: true },
    ],
    [
      'log_file = {path = "/l/x", size = "64KiB", count = 0, time = false, stream = false}',
      "logFile",
      { path: "/l/x", size: 65_536, count: 0, time: false, stream: false },
    ],
    ["environment.__proto__ = 'x'", "environment", JSON.parse('{"__proto__":"x"}')],
  ];
  test.each(spellings)("%s", (line, key, expected) => {
    expect(processWith(line)[key]).toEqual(expected as never);
  });

  test("keys may be written in any of TOML's ways", () => {
    const text = 'process.a.command = ["a"]\nprocess."b".command = ["b"]\n[process]\n';
    expect(told(text)).not.toEqual([]);
    const { configuration } = accept('process = {a = {command = ["a"]}, b.command = ["b"]}');
    expect(configuration.processes.map(({ name }) => name)).toEqual(["a", "b"]);
  });

  test("a holder is there unless the file says that there is to be none", () => {
    const process = '[process.a]\ncommand = ["/bin/a"]\n';
    expect(accept(process).configuration.holder).toBe(true);
    expect(accept(`[orchestrator]\n${process}`).configuration.holder).toBe(true);
    expect(accept(`[orchestrator]\nholder = false\n${process}`).configuration.holder).toBe(false);
    expect(told(`[orchestrator]\nholder = "no"\n${process}`)).toEqual([
      '2:10 orchestrator.holder: true or false; "no"',
    ]);
  });

  test("a file without a process is warned of", () => {
    expect(accept("").warnings[0]?.message).toBe("there is no process");
  });
});

describe("one mistake", () => {
  const mistakes: [line: string, error: string][] = [
    ["restart = 1", 'restart: "always" or "on-failure" or "never"; 1'],
    ["after = 'b'", 'after: an array of at most 256 names of processes; "b"'],
    ["after = ['b']", 'after[0]: the name of a [process.NAME] in this file (a); "b"'],
    ["after = ['a']", "after: an order without a cycle; a → a"],
    ["after = [1]", "after[0]: a name; 1"],
    [
      "partition = 'qm'",
      'partition: the name of a [partition.NAME] in this file (there is none); "qm"',
    ],
    [
      "stop_grace = 5",
      'stop_grace: a duration such as "100ms", "1.5s" or "2min", at most 24 days; 5',
    ],
    ["stop_grace = '25000h'", "stop_grace: a duration such as"],
    ["ready_timeout = '0s'", "more than nothing and at most 24 days"],
    ["backoff = 'never'", 'backoff: {first, factor, cap, jitter, reset_after} or "none"; "never"'],
    ["backoff = {first = '1s', cap = '1ms'}", "backoff: first up to cap; first 1000 ms, cap 1 ms"],
    ["backoff = {jitter = 2}", "backoff.jitter: a number from 0 to 1; 2"],
    ["backoff = {factor = nan}", "backoff.factor: a number from 1 to 1000; NaN"],
    ["start_limit = {starts = 1}", "start_limit.within: the key within; nothing"],
    [
      "start_limit = {starts = 0, within = '1s'}",
      "start_limit.starts: a number from 1 to 10000; 0",
    ],
    ["ready = {}", "ready: one of command, tcp, unix and http; none"],
    ["ready = {tcp = 'example.org:80'}", "ready.tcp: an address such as"],
    ["ready = {tcp = '1.2.3.4:0'}", "ready.tcp: an address such as"],
    ["ready = {tcp = '::1:80'}", "ready.tcp: an address such as"],
    ["ready = {unix = 'run/x'}", 'ready.unix: an absolute path of at most 107 bytes; "run/x"'],
    [`ready = {unix = "/${"ä".repeat(54)}"}`, "ready.unix: an absolute path of at most 107 bytes"],
    ["stop_signal = 'SIGTRM'", 'stop_signal: a signal such as SIGTERM; "SIGTRM"'],
    ["stop_signal = 0", "stop_signal: a signal such as SIGTERM; 0"],
    ["umask = 22", 'umask: octal digits in quotes, such as "022"; 22'],
    ["alive = {}", "alive: one of command, tcp, unix, http and watchdog; none"],
    ["ready = {http = 'https://10.0.0.1/'}", 'ready.http: "http://127.0.0.1:80/path", or'],
    ["ready = {http = 'http://name/'}", 'ready.http: "http://127.0.0.1:80/path", or'],
    ["ready = {http = 'http://10.0.0.1:0/'}", 'ready.http: "http://127.0.0.1:80/path", or'],
    ["ready = {http = 'http://10.0.0.1/a b'}", 'ready.http: "http://127.0.0.1:80/path", or'],
    ["ready = {http = 'http://unix:x:/'}", 'ready.http: "http://127.0.0.1:80/path", or'],
    [`ready = {http = 'http://10.0.0.1/${"a".repeat(1_024)}'}`, "ready.http: "],
    [
      "alive = {unix = '/a', watchdog = '1s'}",
      "alive: one of command, tcp, unix, http and watchdog; unix, watchdog",
    ],
    ["alive = {watchdog = '1s', failures = 3}", "which is its own time; failures"],
    ["alive = {unix = '/a', failures = 0}", "alive.failures: a number from 1 to 1000; 0"],
    ["hook_timeout = '9s'", "hook_timeout: at most 8.00 s; 9.00 s"],
    ["before_start = 'x'", "before_start: an array of 1 to"],
    ["nice = 20", "nice: a number from -20 to 19; 20"],
    ["nice = 1.5", "nice: a number from -20 to 19; 1.5"],
    ["oom_score_adjust = -1001", "oom_score_adjust: a number from -1000 to 1000; -1001"],
    ["affinity = []", "affinity: an array of 1 to 256 processors and ranges"],
    [
      "affinity = ['3-1']",
      'affinity[0]: a processor from 0 to 8191, or a range such as "4-7"; "3-1"',
    ],
    [
      "affinity = [8192]",
      'affinity[0]: a processor from 0 to 8191, or a range such as "4-7"; 8192',
    ],
    [
      "scheduling = 'fifo'",
      'scheduling: "other", "batch", "idle", {fifo = 1} or {round_robin = 1}; "fifo"',
    ],
    ["scheduling = {fifo = 100}", "scheduling.fifo: a priority from 1 to 99; 100"],
    [
      "scheduling = {fifo = 1, round_robin = 1}",
      "scheduling: one of fifo and round_robin; fifo, round_robin",
    ],
    ["umask = '9'", 'umask: octal digits in quotes, such as "022"; "9"'],
    ["log_lines = 0", "log_lines: a number from 1 to 1000000; 0"],
    ["log_bytes = '1KiB'", 'log_bytes: a size from "16KiB" to "64MiB", or as many bytes; "1KiB"'],
    ["log_bytes = 1e9", "log_bytes: a size from"],
    ["cgroup = 'c'", 'cgroup: "auto", or an absolute path without "." and ".."; "c"'],
    [
      "resources = {memory_max = 1}\ncgroup = '/c'",
      'resources.memory_max: a size such as "512MiB", as many',
    ],
    [
      "resources = {cpu_max = 0.001}\ncgroup = '/c'",
      "resources.cpu_max: processors such as 1.5, from 0.01",
    ],
    [
      "resources = {cpu_weight = 0}\ncgroup = '/c'",
      "resources.cpu_weight: a weight from 1 to 10000; 0",
    ],
    [
      "resources = {pids_max = 0}\ncgroup = '/c'",
      'resources.pids_max: a number from 1 to 4194304, or "max"; 0',
    ],
    ["resources = {optional = ['memory']}\ncgroup = '/c'", "resources.optional[0]: "],
    ["descriptor_store = 61", "descriptor_store: a number from 0 to 60; 61"],
    ["descriptor_store = -1", "descriptor_store: a number from 0 to 60; -1"],
    ["log_file = '/x'", 'log_file: a table such as {path = "/var/log/hostler/web.log"}; "/x"'],
    ["log_file = {}", "log_file.path: the key path; nothing"],
    ["log_file = {path = 'x.log'}", "log_file.path: the absolute path of a file, without"],
    ["log_file = {path = '/a/../b'}", "log_file.path: the absolute path of a file, without"],
    ["log_file = {path = '/a/'}", "log_file.path: the absolute path of a file, without"],
    ["log_file = {path = '/a', size = '63KiB'}", 'log_file.size: a size from "64KiB" to "16GiB"'],
    ["log_file = {path = '/a', count = 101}", "log_file.count: a number from 0 to 100; 101"],
    [
      "log_file = {path = '/a'}\noutput = 'inherit'",
      'log_file: output = "log" beside log_file: nothing else is read; output = "inherit"',
    ],
    [
      "log_file = {path = '/a.5'}\n[process.q]\ncommand = ['x']\nlog_file = {path = '/a'}",
      "log_file.path: a path that no other process writes to, or turns its file over to; that of",
    ],
    ["environment = {A = 1}", "environment.A: text in quotes; 1"],
    ['environment = {A = "\\u0000"}', "environment.A: text without a zero byte"],
    ['environment = {"A=B" = "x"}', 'environment."A=B": a name without "="'],
    [
      "environment = {INVOCATION_ID = 'x'}",
      'environment.INVOCATION_ID: a name without "=", and none',
    ],
    ["working_directory = 'x'", 'working_directory: an absolute path; "x"'],
    ["user = -1", "user: a name, or a number from 0 to 4294967294; -1"],
    ["user = 4294967295", "user: a name, or a number from 0 to 4294967294; 4294967295"],
    ["user = ''", 'user: a name, or a number from 0 to 4294967294; ""'],
    ["limits = {nofiles = 1}", "limits.nofiles: a known key; nofiles"],
    ["limits = {nofile = -1}", 'limits.nofile: a whole number, "unlimited" or {soft, hard}; -1'],
    ["limits = {nofile = {soft = 2, hard = 1}}", "limits.nofile: a soft limit up to the hard one"],
    ["limits = {nofile = {soft = 2}}", "limits.nofile.hard: the key hard; nothing"],
    ["capabilities = ['CAP_NET_ADM']", "capabilities[0]: a capability such as"],
    ["autostart = 'yes'", 'autostart: true or false; "yes"'],
    ["autostart = 1979-05-27", "autostart: true or false; a date or time"],
    ["cgroup = ['x']", 'cgroup: "auto", or an absolute path without "." and ".."; an array'],
    ["no_new_privileges = {}", "no_new_privileges: true or false; a table"],
    ["comand = []", "comand: a known key; comand"],
  ];
  test.each(mistakes)("%s", (line, error) => {
    const errors = told(`[process.a]\ncommand = ["/bin/a"]\n${line}`);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toContain(error);
    expect(errors[0]).toMatch(/^3:\d+ process\.a\./);
  });

  const commands: [string, string][] = [
    ["[]", "2:11 process.a.command: an array of 1 to 4096 texts: the program and its arguments"],
    ["'/bin/a'", "2:11 process.a.command: an array of 1 to 4096 texts"],
    ["['./a']", "2:12 process.a.command[0]: an absolute path, or a name that PATH finds"],
    ["['']", "2:12 process.a.command[0]: an absolute path"],
    ["['a', 1]", "2:17 process.a.command[1]: text in quotes; 1"],
    ['["a\\u0000"]', "2:12 process.a.command[0]: text without a zero byte"],
  ];
  test.each(commands)("command = %s", (command, error) => {
    const [first, ...more] = told(`[process.a]\ncommand = ${command}`);
    expect(first).toContain(error);
    expect(more).toEqual([]);
  });

  const partitions: [string, string][] = [
    ["", "1:1 partition.p: exactly one of socket (the agent listens) and listen"],
    ["socket = '/a'\nlisten = '/b'", "1:1 partition.p: exactly one of"],
    ["socket = 'a'", '2:10 partition.p.socket: an absolute path of at most 107 bytes; "a"'],
    [`socket = '/${"a".repeat(107)}'`, "2:10 partition.p.socket: an absolute path of at most 107"],
    [
      "socket = '/a'\nallow_uid = 0",
      "3:13 partition.p.allow_uid: an array of at most 256 numbers; 0",
    ],
    ["socket = '/a'\nallow_uid = [0.5]", "3:14 partition.p.allow_uid[0]: a number from 0 to"],
    ["socket = '/a'\nallow_label = ['']", "3:16 partition.p.allow_label[0]: a security label as"],
    ["socket = '/a'\nprotocol = 'holdem'", '3:12 partition.p.protocol: "hostler" or "holden"'],
    [
      "socket = '/a'\n[partition.q]\nsocket = '/a'",
      "4:10 partition.q.socket: a path that no other",
    ],
  ];
  test.each(partitions)("partition: %s", (lines, error) => {
    const [first, ...more] = told(`[partition.p]\n${lines}`);
    expect(first).toContain(error);
    expect(more).toEqual([]);
  });

  test.each(["a b", "-a", ".", "", "ä", "x".repeat(65), "a/b", "a\\u001b"])(
    "the name %j",
    (name) => {
      const errors = told(`[process."${name}"]\ncommand = ["a"]`);
      expect(errors).toHaveLength(1);
      expect(errors[0]).toContain(
        "a name of 1 to 64 letters, digits, dots, dashes and underscores",
      );
    },
  );

  test.each(["a", "A.b_c-d", "0", "x".repeat(64)])("the name %p is fine", (name) => {
    expect(told(`[process."${name}"]\ncommand = ["a"]`)).toEqual([]);
  });

  test("what cannot be said to a Holden agent", () => {
    const text = `[partition.p]
socket = "/a"
protocol = "holden"
[process.a]
partition = "p"
command = ["/a"]
environment = {A = "1"}
user = "x"
ready = "notify"
output = "log"
[process.b]
partition = "p"
command = [${'"/b",'.repeat(34)}]
[process.c]
partition = "p"
command = ["/c"]
`;
    expect(told(text).map((error) => error.split(":", 3).slice(0, 2).join(":"))).toEqual([
      "7:15 process.a.environment",
      "8:8 process.a.user",
      "9:9 process.a.ready",
      "10:10 process.a.output",
      "13:11 process.b.command",
    ]);
    const partition = '[partition.p]\nsocket = "/a"\nprotocol = "holden"\n';
    const fine = accept(`${partition}[process.a]\ncommand = ["/a"]\npartition = "p"`);
    expect(fine.configuration.processes[0]?.output).toBe("inherit");
  });
});

describe("many mistakes", () => {
  test("are told all at once, in the order of the file", () => {
    const text = `[proces.x]
[process.a]
comand = ["/a"]
restart = "allways"
after = ["b", "zz", "b"]
[process.b]
command = ["/b"]
after = ["c"]
[process.c]
command = ["/c"]
after = ["a"]
[other]
`;
    expect(refuse(text).map(({ line, key_path, mend }) => [line, key_path, mend])).toEqual([
      [1, "proces", "Did you mean process?"],
      [2, "process.a.command", undefined],
      [3, "process.a.comand", "Did you mean command?"],
      [4, "process.a.restart", "Did you mean always?"],
      [5, "process.a.after", "Take one of them out of its after."],
      [5, "process.a.after[1]", undefined],
      [5, "process.a.after[2]", undefined],
      [12, "other", undefined],
    ]);
    expect(refuse(text)[4]?.received).toBe("a → b → c → a");
  });

  test("a mistake of TOML itself is told with its place", () => {
    expect(refuse('[process.a]\ncommand = ["a"')[0]).toMatchObject({
      file: "x.toml",
      line: 2,
      key_path: "",
      expected: "TOML",
    });
    expect(refuse("[process.a]\ncommand == 1")[0]).toMatchObject({ line: 2, column: 10 });
  });

  const command = 'command = ["a"]\n';
  const quotes = (word: string) => `Text always needs quotes: "${word}".`;
  test.each<[string, number, number, string, string | undefined]>([
    [`[process.a]\n${command}\n[process.b # it\n${command}`, 4, 11, "] at the end of", undefined],
    [`[[process.a]\n${command}`, 1, 1, "[NAME] in single brackets", undefined],
    [`[process.a]\n${command}restart = always`, 3, 11, "text in quotes", quotes("always")],
    [`[process.a]\n${command}user = A B # x`, 3, 8, "text in quotes", quotes("A B")],
    [`[process.a]\n${command}stop_grace = 5s`, 3, 14, "text in quotes", quotes("5s")],
    [`[process.a]\n${command}umask = 022`, 3, 9, "text in quotes", quotes("022")],
    [`[process.a]\ncommand = ["a", b]`, 2, 17, "text in quotes", quotes("b")],
    [`[process.a]\ncommand = [\n"a",\n b,\n]`, 4, 2, "text in quotes", quotes("b")],
    [`[process.a]\n${command}ready = {tcp = 1.2.3.4:8}`, 3, 16, "text in", quotes("1.2.3.4:8")],
    [`[process.a]\n${command}autostart = True`, 3, 13, "true or false", "Write true."],
    [`[process.a]\ncommand = ["a"\numask = "022"`, 2, 15, "] after the last value", undefined],
    [`[process.a]\n${command}user =\numask = "022"`, 3, 7, 'a value after "="', undefined],
    [`[process.a]\n${command}user: "x"`, 3, 5, '"=" after the key', undefined],
    [`[process.a]\n${command}user "x"`, 3, 1, "KEY = VALUE", undefined],
    [`[process.a]\n${command}user = "x`, 3, 10, "a quote that ends", undefined],
  ])("%j is told in words, where it is, and alone", (text, line, column, expected, mend) => {
    const errors = refuse(text);
    const [error, ...more] = errors;
    expect(more).toEqual([]);
    expect(error).toMatchObject({ line, column, key_path: "" });
    expect(error?.mend).toBe(mend);
    expect(errors[0]?.expected).toStartWith(expected);
  });

  test("what is wrong beyond a syntax error is told and marked", () => {
    const broken = "[process.a]\nrestart = allways\n[process.b\n";
    const text = `${broken}comand = ["x"]\n[process.c]\n${command}`;
    const marked = refuse(`${text}x =`).map((error) => [
      ...[error.line, error.key_path, error.beyond_syntax_error],
    ]);
    expect(marked).toEqual([
      [1, "process.a.command", true],
      [2, "", undefined],
      [3, "process.b.command", true],
      [3, "", undefined],
      [4, "process.b.comand", true],
      [7, "", undefined],
    ]);
    expect(formatErrors(refuse(text))).toContain("(found beyond a syntax error)\n");
  });

  test("as many syntax errors as the limit are told, and no more", () => {
    const lines = Array.from({ length: MISTAKES_LIMIT + 3 }, (_, index) => `k${index} = no`);
    expect(refuse(lines.join("\n"))).toHaveLength(MISTAKES_LIMIT);
  });

  test("a path that leads elsewhere is not taken for another one", () => {
    expect(told(`[process.a]\n${command}cgroup = "/../.."`)[0]).toContain('without "." and ".."');
    const partitions = ["/tmp/y.sock", "/tmp/../tmp//y.sock"].map(
      (path, index) => `[partition.p${index}]\nlisten = "${path}"\n`,
    );
    expect(told(partitions.join(""))).toEqual([
      "4:10 partition.p1.listen: a path that no other partition has; that of partition p0",
    ]);
  });

  test("a name that is not UTF-8 is said to be", async () => {
    using folder = temporaryFolder();
    const name = `"$(printf '\\377.toml')"`;
    const make = `cd "$1" && printf x > ${name}; exec "$2" process check ${name}`;
    const { stderr, exitCode } = await runProgram(["sh", "-c", make, "sh", folder.path, hostler()]);
    expect(stderr).toContain("received a name that is not UTF-8");
    expect(exitCode).toBe(100);
  });

  /** "line:column expected; received" of each. */
  const placed = (text: string) =>
    refuse(text).map(({ line, column, key_path: path, expected, received }) => {
      const key = path === "" ? "" : `${path}: `;
      return `${line}:${column} ${key}${expected}; ${received}`;
    });

  test("a key said twice is told with its place, and so is all else", () => {
    const again = "the same key again";
    expect(placed("[process.a]\ncommand = ['a']\n[process.a]\ncommand = ['b']")).toEqual([
      `3:10 the key a once; ${again}`,
    ]);
    const text = [
      "[process.a]",
      "command = ['a']",
      "command = [",
      "  'b',",
      "]",
      "umask = 'x'",
      "[process.b]",
      "'restart' = 'never'",
      '"restart" = "always"',
    ].join("\n");
    expect(placed(text)).toEqual([
      `3:1 the key command once; ${again}`,
      '6:9 process.a.umask: octal digits in quotes, such as "022"; "x"',
      "7:1 process.b.command: the key command; nothing",
      `9:1 the key "restart" once; ${again}`,
    ]);
  });

  test("behind a key said twice, places on its line stay what they are", () => {
    const text = "process.a = {umask = '1', umask = '22', x = 1, umask = '3', command = 4}";
    const told = placed(text);
    expect(told[0]).toStartWith("1:22 process.a.umask: ");
    expect(told.slice(1).map((line) => line.split(" ")[0])).toEqual([
      "1:27",
      "1:41",
      "1:48",
      "1:71",
    ]);
  });

  test("names that look like ours are the file's own", () => {
    const found = placed("repeated-0 = 1\nrepeated-0 = 2\n");
    expect(found.map((line) => line.split(":")[0])).toEqual(["1", "2"]);
  });

  test("keys said twice without end are told up to a limit", () => {
    const text = "a = 1\n".repeat(MISTAKES_LIMIT + 5);
    expect(refuse(text)).toHaveLength(MISTAKES_LIMIT);
  });

  test("nesting without end", () => {
    const deep = (depth: number) => `x = ${"[".repeat(depth)}${"]".repeat(depth)}`;
    expect(refuse(deep(33))[0]?.received).toContain("nested more than 32 deep");
    expect(refuse(deep(200_000))[0]?.received).toContain("nested too deeply");
    const keys = Array.from({ length: 50 }, () => "a").join(".");
    expect(refuse(`${keys} = 1`)[0]?.received).toContain("nested more than 32 deep");
    expect(refuse(`[${keys}]`)[0]?.received).toContain("nested more than 32 deep");
  });
});

describe("limits", () => {
  const many = (count: number) =>
    Array.from({ length: count }, (_value, index) => `p${index}.command = ["a"]\n`).join("");

  test("processes", () => {
    const most = configurationLimits.processes;
    expect(accept(`[process]\n${many(most)}`).configuration.processes).toHaveLength(most);
    expect(told(`[process]\n${many(most + 1)}`)).toEqual([
      `1:1 process: tables [process.NAME], at most ${most}; ${most + 1} of them`,
    ]);
  });

  test("bytes of a file", () => {
    const most = configurationLimits.fileBytes;
    expect(told(`#${"x".repeat(most - 1)}`)).toEqual([]);
    expect(told(`#${"x".repeat(most)}`)).toEqual([
      `0:0 : at most ${most} bytes; ${most + 1} bytes`,
    ]);
  });

  test("a long chain, and a long cycle", () => {
    const chain = (last: string) =>
      Array.from({ length: 4_000 }, (_value, index) => {
        const after = index === 0 ? last : `"p${index - 1}"`;
        return `[process.p${index}]\ncommand = ["a"]\nafter = [${after}]\n`;
      }).join("");
    expect(told(chain(""))).toEqual([]);
    expect(told(chain('"p3999"'))).toHaveLength(1);
  });
});

describe("reading files", () => {
  const received = (file: string) => {
    const outcome = readConfiguration(file);
    return outcome.kind === "refused" ? outcome.errors[0]?.received : "ok";
  };

  test("what is no file that can be read", async () => {
    using folder = temporaryFolder();
    mkdirSync(folder.file("folder"));
    await runProgram(["mkfifo", folder.file("fifo")]);
    writeFileSync(folder.file("latin1"), new Uint8Array([0x23, 0xff]));
    writeFileSync(folder.file("large"), "#".repeat(configurationLimits.fileBytes + 1));
    expect(received(folder.file("absent"))).toBe("nothing: there is no such file");
    expect(received(folder.file("folder"))).toBe("a directory");
    expect(received(folder.file("fifo"))).toBe("no regular file");
    expect(received("/dev/zero")).toBe("no regular file");
    expect(received(folder.file("latin1"))).toBe("bytes that are none");
    expect(received(folder.file("large"))).toBe(`${configurationLimits.fileBytes + 1} bytes`);
  });

  test("a link is followed", () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("there"), example);
    symlinkSync(folder.file("there"), folder.file("link"));
    expect(received(folder.file("link"))).toBe("ok");
  });
});

describe("holden-orchestrator's two words", () => {
  const read = (localCommand: string, agentCommand: string) =>
    holdenConfiguration({ localCommand, agentCommand, socket: "/tmp/x.sock" });

  test("are split at spaces, as strtok does", () => {
    const outcome = read("  /bin/a  -b 'c d' ", "/bin/e\tf");
    if (outcome.kind !== "ok") throw new Error("refused");
    const { processes, partitions } = outcome.configuration;
    expect(
      processes.map(({ name, partition, command, output, restart }) => [
        name,
        partition,
        command,
        output,
        restart,
      ]),
    ).toEqual([
      ["local", undefined, ["/bin/a", "-b", "'c", "d'"], "inherit", "always"],
      ["agent", "agent", ["/bin/e\tf"], "inherit", "always"],
    ]);
    expect(partitions).toMatchObject([
      { name: "agent", protocol: "holden", endpoint: { kind: "connect", path: "/tmp/x.sock" } },
    ]);
  });

  test("must not be empty, nor more than Holden v0.2 can say", () => {
    const refused = (...commands: [string, string]) => {
      const outcome = read(...commands);
      return outcome.kind === "refused" ? outcome.errors.map(({ key_path }) => key_path) : [];
    };
    expect(refused(" ", "")).toEqual(['"local command"', '"agent command"']);
    expect(refused("a".repeat(300), `a ${"b ".repeat(32)}`)).toEqual([]);
    expect(refused("a", `a ${"b ".repeat(33)}`)).toEqual(['"agent command"']);
    expect(refused("a", "b".repeat(256))).toEqual(['"agent command"']);
  });
});

test("2000 mutated texts: every one is taken or refused, with places in the file", () => {
  const seed = Number(process.env["HOSTLER_TEST_SEED"] ?? 20_260_801);
  const chance = new SeededChance(seed);
  const pieces = [
    '"',
    "'",
    "[",
    "]",
    "{",
    "}",
    "=",
    "\n",
    ".",
    "\0",
    "\u2028",
    "🚗",
    "-1",
    "1e400",
  ];
  for (let round = 0; round < 2_000; round += 1) {
    let text = chance.happens(0.5) ? example : everything;
    for (let count = 1 + chance.below(4); count > 0; count -= 1)
      text = mutate(text, pieces, chance);
    try {
      const lines = text.split("\n").length;
      for (const error of refuse(text)) {
        expect(error.line).toBeLessThanOrEqual(lines);
        expect(error.line).toBeGreaterThan(0);
        expect(error.column).toBeGreaterThan(0);
      }
    } catch (cause) {
      throw new Error(`Seed ${seed}, round ${round}: ${JSON.stringify(text)}`, { cause });
    }
  }
});

/** Takes a part out, doubles one, puts a piece in, or swaps two lines. */
function mutate(text: string, pieces: readonly string[], chance: SeededChance): string {
  const from = chance.below(text.length + 1);
  const to = from + chance.below(20);
  switch (chance.below(4)) {
    case 0:
      return text.slice(0, from) + text.slice(to);
    case 1:
      return text.slice(0, to) + text.slice(from);
    case 2:
      return text.slice(0, from) + chance.pick(pieces) + text.slice(from);
    default: {
      const lines = text.split("\n");
      const [one, other] = [chance.below(lines.length), chance.below(lines.length)];
      [lines[one], lines[other]] = [lines[other] ?? "", lines[one] ?? ""];
      return lines.join("\n");
    }
  }
}
