/** What a child of the compiled agent gets, and what it does not; by a program that tells. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readdirSync, readFileSync } from "node:fs";
import { makePipe } from "../../ffi/descriptor.ts";
import { AgentClient, isAtEnd, type StartFields, type TestChild } from "../support/agent-client.ts";
import { cgroupFolder, writableCgroup } from "../support/cgroup.ts";
import {
  type Agent,
  compilePrograms,
  isAlive,
  makePartition,
  startAgent,
  type TestPartition,
} from "../support/partition.ts";
import { type ProbeReport, parseProbe } from "../support/probe-report.ts";
import { program, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

let folder: TemporaryFolder;
let programs: ReturnType<typeof compilePrograms>;

/** Starts the probe, and ends it when it has told. */
async function probe(
  client: AgentClient,
  fields: Partial<StartFields> = {},
): Promise<ProbeReport & { child: TestChild }> {
  const { child, lines } = await client.output({ argv: [programs.probe], ...fields });
  child.signal(9);
  await child.told();
  child.process.close();
  return { ...parseProbe(lines), child };
}

/** What must be so of every child, however its agent was started. */
function expectClean(report: ProbeReport): void {
  expect(report.signals).toEqual([]);
  expect(report.mask).toBe("0");
  expect(report.status("SigIgn")).toMatch(/^0+$/);
  expect(report.status("SigBlk")).toMatch(/^0+$/);
  expect(report.scheduler).toBe(0);
  expect(report.nice).toBe(0);
  expect(report.session).toBe(report.processId);
  expect(report.group).toBe(report.processId);
  const kinds = [...report.descriptors].map(([number, what]) => `${number} ${what}`);
  expect(kinds.map((line) => line.replace(/\[\d+\]/, ""))).toEqual([
    "0 /dev/null",
    "1 pipe:",
    "2 /dev/null",
  ]);
}

/** With and without the launcher. */
const ways = [
  { way: "plainly", constraints: undefined },
  { way: "through the launcher", constraints: { no_new_privileges: true } },
];

const features = [program("gcc", "gcc"), program("chrt", "util-linux")];
skipUnless("what a child gets", features, () => {
  beforeAll(() => {
    folder = temporaryFolder();
    programs = compilePrograms(folder);
    // Other users run what is in it.
    chmodSync(folder.path, 0o711);
  });

  afterAll(() => folder[Symbol.dispose]());

  describe("of an agent that was started in many ways", () => {
    const before: readonly [string, readonly string[], { soft: number; hard: number }?][] = [
      ["plainly", []],
      ["with limits", ["prlimit", "--nofile=1024:4096"], { soft: 1024, hard: 4096 }],
      ["with a low limit", ["prlimit", "--nofile=256:256"], { soft: 256, hard: 256 }],
      ["in a real-time class", ["chrt", "-f", "10"]],
      ["nicer than others", ["nice", "-n", "-5"]],
      ["less nice", ["nice", "-n", "7"]],
      ["with SIGHUP, SIGPIPE and more ignored", ["perl", "-e", ignoring]],
      ["with variables of its runtime", ["env", "BUN_X=1", "HOSTLER_X=1", "FOO=bar"]],
    ];
    for (const [name, words, limit] of before) {
      test(name, async () => {
        using own = temporaryFolder();
        await using agent = await startAgent(own, { before: words });
        using client = await AgentClient.connect(agent.socket);
        for (const { constraints } of ways) {
          const report = await probe(client, { constraints });
          expectClean(report);
          expect(report.variables).toEqual([]);
          if (limit !== undefined) expect(report.files).toEqual(limit);
        }
      });
    }
  });

  describe("of an agent in a partition", () => {
    let partition: TestPartition;
    let agent: Agent;
    let client: AgentClient;

    beforeAll(async () => {
      partition = await makePartition(folder, programs.reaper);
      agent = await partition.startAgent();
      client = await AgentClient.connect(agent.socket);
    });

    afterAll(async () => {
      client[Symbol.dispose]();
      await partition[Symbol.asyncDispose]();
    });

    for (const { way, constraints } of ways) {
      test(`its arguments and its environment to the byte, ${way}`, async () => {
        const words = [
          "",
          "a b",
          "é漢😀",
          "'\"\\$x",
          "--help",
          "\n\t\x01",
          "x".repeat(131_071),
          "",
        ];
        const environment = [
          "EMPTY=",
          "PATH=/nowhere",
          "WITHOUT",
          "=x",
          "TWICE=1",
          "TWICE=2",
          "BUN_BE_BUN=1",
          "BUN_OPTIONS=--nonsense",
          "HOSTLER_KILL_AT=agent:start:spawned",
          "LD_PRELOAD=/no/such/library",
          "JSC_useJIT=nonsense",
          "NODE_OPTIONS=--nonsense",
          "MALLOC_ARENA_MAX=1",
          "UTF8=é漢😀\n",
          `LONG=${"y".repeat(100_000)}`,
        ];
        const argv = [programs.probe, ...words];
        const report = await probe(client, { argv, environment, constraints });
        expect(report.words).toEqual(argv);
        expect(report.variables).toEqual(environment);
        expectClean(report);
      });

      test(`its working directory and umask, ${way}`, async () => {
        const fields = { constraints, working_directory: "/proc", umask: 0o27 };
        const report = await probe(client, fields);
        expect(report.folder).toBe("/proc");
        expect(report.umask).toBe("27");
        expect((await probe(client, { constraints })).folder).not.toBe("/proc");
      });

      test(`the descriptors that were passed, as they were named, ${way}`, async () => {
        const pipes = [makePipe(), makePipe(), makePipe()];
        const targets = [0, 2, 9];
        const passed = pipes.map(
          ({ write }, index) => [write.number, targets[index] ?? 0] as const,
        );
        const report = await probe(client, { constraints, descriptors: passed });
        expect([...report.descriptors.keys()].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 9]);
        for (const what of report.descriptors.values()) expect(what).toStartWith("pipe:");
        for (const { read, write } of pipes) {
          write.close();
          await waitFor("the agent to have kept none of them", () => isAtEnd(read));
          read.close();
        }
      });
    }

    test("a program that its own PATH finds, not the agent's", async () => {
      const environment = [`PATH=/nowhere:${folder.file("programs")}`];
      const report = await probe(client, { argv: ["probe"], environment });
      expect(report.words).toEqual(["probe"]);
      expect((await client.refusal({ argv: ["probe"] })).code).toBe("ENOENT");
    });

    test("nothing of what else the agent has, many times over", async () => {
      const others = await Promise.all(
        Array.from({ length: 20 }, () => AgentClient.connect(agent.socket)),
      );
      for (const other of others) {
        expectClean(await probe(other));
        other[Symbol.dispose]();
      }
    });

    describe("constraints", () => {
      test("user, group and groups", async () => {
        const constraints = { user: 1234, group: 2345, groups: [5, 7] };
        const report = await probe(client, { constraints });
        expect(report.status("Uid").split(/\s+/)).toEqual(Array(4).fill("1234"));
        expect(report.status("Gid").split(/\s+/)).toEqual(Array(4).fill("2345"));
        expect(report.status("Groups").trim().split(" ")).toEqual(["5", "7"]);
        expect(report.status("CapEff")).toMatch(/^0+$/);
        expect(report.status("CapPrm")).toMatch(/^0+$/);
        expect(report.variables).toEqual([]);
        expectClean(report);
      });

      test("a user by name, with its home and its groups", async () => {
        const environment = ["USER=somebody"];
        const report = await probe(client, { environment, constraints: { user: "nobody" } });
        const [entry] = readFileSync("/etc/passwd", "utf8")
          .split("\n")
          .filter((line) => {
            return line.startsWith("nobody:");
          });
        const [, , user, group, , home] = (entry ?? "").split(":");
        expect(report.status("Uid").split(/\s+/)[1]).toBe(user ?? "");
        expect(report.status("Gid").split(/\s+/)[1]).toBe(group ?? "");
        expect(report.status("Groups").trim()).toBe("");
        expect(report.variables).toEqual(["USER=somebody", `HOME=${home}`, "LOGNAME=nobody"]);
      });

      test("limits, of which an open-files limit is one", async () => {
        const limits = {
          nofile: { soft: 77, hard: 99 },
          core: { soft: 0, hard: 0 },
          fsize: { soft: 4096, hard: null },
        };
        const script = `exec cat /proc/self/limits`;
        const argv = ["/bin/sh", "-c", script];
        const { child, lines } = await client.output({ argv, constraints: { limits } });
        await child.told();
        const values = (name: string) =>
          lines
            .find((line) => line.startsWith(name))
            ?.slice(26)
            .trim()
            .split(/\s+/)
            .slice(0, 2);
        expect(values("Max open files")).toEqual(["77", "99"]);
        expect(values("Max core file size")).toEqual(["0", "0"]);
        expect(values("Max file size")).toEqual(["4096", "unlimited"]);
      });

      test("capabilities: those and no others, for root and for another user", async () => {
        const capabilities = ["CAP_NET_BIND_SERVICE", "CAP_SYS_NICE"];
        const mask = ((1n << 10n) | (1n << 23n)).toString(16).padStart(16, "0");
        for (const user of [undefined, 1234]) {
          const identity = user === undefined ? {} : { user, group: user };
          const report = await probe(client, { constraints: { capabilities, ...identity } });
          for (const set of ["CapEff", "CapPrm", "CapBnd"]) expect(report.status(set)).toBe(mask);
        }
        const none = await probe(client, { constraints: { capabilities: [] } });
        for (const set of ["CapEff", "CapPrm", "CapBnd", "CapAmb"]) {
          expect(none.status(set)).toMatch(/^0+$/);
        }
      });

      test("no new privileges", async () => {
        const report = await probe(client, { constraints: { no_new_privileges: true } });
        expect(report.status("NoNewPrivs")).toBe("1");
        expect((await probe(client)).status("NoNewPrivs")).toBe("0");
      });

      const failures: readonly [string, Readonly<Record<string, unknown>>, RegExp][] = [
        ["a user that there is not", { user: "no-such-user" }, /^user: .*no-such-user/],
        ["a user number without a group", { user: 54_321 }, /^user: .*54321/],
        [
          "a group that there is not",
          { user: 1, group: "no-such-group" },
          /^user: .*no-such-group/,
        ],
        ["a limit that there is not", { limits: { nonsense: { soft: 1, hard: 1 } } }, /^limits: /],
        [
          "a limit beyond the kernel's",
          { limits: { nofile: { soft: 2e15, hard: 2e15 } } },
          /^limits:/,
        ],
        [
          "a soft limit above the hard one",
          { limits: { core: { soft: 2, hard: 1 } } },
          /^limits: /,
        ],
        [
          "a capability that there is not",
          { capabilities: ["CAP_FLY"] },
          /^capabilities: .*CAP_FLY/,
        ],
        [
          "a cgroup that is a plain folder",
          { cgroup: "/tmp" },
          /cgroup: expected a folder of cgroup/,
        ],
        ["a cgroup below a file", { cgroup: "/proc/self/status" }, /cgroup/],
      ];
      for (const [name, constraints, message] of failures) {
        test(`refused with its stage: ${name}`, async () => {
          const refusal = await client.refusal({ argv: [programs.probe], constraints });
          expect(refusal.message).toMatch(message);
          expect(client.unread).toEqual([]);
        });
      }
    });
  });

  skipUnless("a cgroup", writableCgroup, () => {
    test("is the child's from its first instruction, ends whoever fled, and goes", async () => {
      using own = temporaryFolder();
      using cgroup = cgroupFolder();
      const parent = cgroup.file("services");
      await using agent = await startAgent(own);
      using client = await AgentClient.connect(agent.socket);
      const script = "cat /proc/self/cgroup; echo end; exec sleep 1000";
      const constraints = { cgroup: parent };
      const argv = ["/bin/sh", "-c", script];
      const first = await client.output({ argv, constraints });
      expect(first.lines.join("\n")).toContain(`/services/${first.child.invocation}`);
      const fleeing = await client.start({ argv: [programs.escape], constraints });
      const members = () =>
        readFileSync(`${parent}/${fleeing.invocation}/cgroup.procs`, "utf8").trim().split("\n");
      const both = await waitFor("the child and who fled", () => {
        const found = members().map(Number);
        return found.length === 2 && found;
      });
      expect(both).toContain(fleeing.hostProcessId);
      fleeing.signal(9);
      await fleeing.told();
      const replaces = fleeing.invocation;
      const next = await client.start({ argv: ["/bin/sleep", "1000"], constraints, replaces });
      expect(both.filter(isAlive)).toEqual([]);
      expect(existsSync(`${parent}/${replaces}`)).toBe(false);
      const keep = await client.output({ argv, constraints, leftovers: "keep" });
      for (const child of [first.child, next, keep.child]) {
        child.signal(9);
        await child.told();
      }
      const folders = () => readdirSync(parent, { withFileTypes: true });
      await waitFor("the folders to go", () => !folders().some((entry) => entry.isDirectory()));
    });
  });
});

/** A program that ignores signals, and becomes another one. */
const ignoring = '$SIG{$_} = "IGNORE" for qw(HUP PIPE USR1 USR2 TERM CHLD); exec @ARGV or die "$!"';
