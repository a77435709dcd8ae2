/** The daemons and their clients in surroundings that are against them. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readdirSync, unlinkSync, writeFileSync } from "node:fs";
import { AgentClient } from "../support/agent-client.ts";
import { hostler } from "../support/binary.ts";
import { withoutHolder } from "../support/kept.ts";
import { spawnOrchestrator, startOrchestrator } from "../support/orchestrator.ts";
import { isAlive, startAgent } from "../support/partition.ts";
import { runProgram, startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const sleeper = '[process.it]\ncommand = ["sleep", "1000"]\n';
const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
const withoutKill = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill", "--"];
const list = (socket: string) => [hostler(), "process", "list", "--control-socket", socket];

skipUnless("without CAP_KILL", root, () => {
  test("an orchestrator as nobody answers root with a refusal, and goes on", async () => {
    using folder = temporaryFolder();
    chmodSync(folder.path, 0o777);
    writeFileSync(folder.file("process.toml"), sleeper);
    const socket = folder.file("control.sock");
    const words = ["process", "orchestrator", "--config", folder.file("process.toml")];
    await using daemon = startProgram([
      ...[...nobody, hostler(), ...words, "--control-socket", socket],
    ]);
    await waitFor("its socket", () => existsSync(socket));
    const { exitCode, stderr } = await runProgram(list(socket));
    expect([exitCode, stderr]).toEqual([111, expect.stringContaining("expected user 65534")]);
    expect((await runProgram([...nobody, ...list(socket)])).stdout).toMatch(/^it .* ready /m);
    daemon.kill("SIGTERM");
    expect((await daemon.ended()).exitCode).toBe(0);
  });

  test("nobody cannot end an orchestrator whose socket he can open", async () => {
    using folder = temporaryFolder();
    chmodSync(folder.path, 0o755);
    writeFileSync(folder.file("process.toml"), sleeper);
    const socket = folder.file("control.sock");
    const words = ["process", "orchestrator", "--config", folder.file("process.toml")];
    await using daemon = startProgram([
      ...[...withoutKill, hostler(), ...words, "--control-socket", socket],
    ]);
    await waitFor("its socket", () => existsSync(socket));
    chmodSync(socket, 0o666);
    const refused = await runProgram([...nobody, ...list(socket)]);
    expect([refused.exitCode, refused.stderr]).toEqual([111, expect.stringContaining("Refused")]);
    expect((await runProgram(list(socket))).stdout).toMatch(/^it .* ready /m);
    daemon.kill("SIGTERM");
    expect((await daemon.ended()).exitCode).toBe(0);
  });

  test("an agent as nobody serves root", async () => {
    using folder = temporaryFolder();
    chmodSync(folder.path, 0o777);
    const words = ["--socket", folder.file("agent.sock"), "--allow-uid", "0"];
    await using agent = await startAgent(folder, { words, before: nobody });
    using client = await AgentClient.connect(agent.socket);
    await client.ping();
    expect(agent.program.output.stderr).not.toContain("bug");
  });

  test("a process that may not be signalled is said, and is no bug", async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("process.toml"), `${sleeper}user = 65534\nstop_grace = "10ms"\n`);
    const socket = folder.file("control.sock");
    const words = ["process", "orchestrator", "--config", folder.file("process.toml")];
    await using daemon = startProgram([
      ...[...withoutKill, hostler(), ...words, "--control-socket", socket],
    ]);
    const [, pid] = await waitFor("its process", async () => {
      const { stdout } = await runProgram(list(socket));
      return /^it +- +ready +(\d+) /m.exec(stdout) ?? undefined;
    });
    daemon.kill("SIGTERM");
    await daemon.said(
      /it: may not send SIGTERM to process \d+ \(EPERM\): it goes on until it ends/,
    );
    await daemon.said(/it: may not send SIGKILL to process/);
    process.kill(Number(pid), "SIGKILL");
    expect((await daemon.ended()).exitCode).toBe(0);
  });
});

skipUnless("signals that are no order to end", root, () => {
  const signals = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"] as const;

  test("the orchestrator ignores them, and says so", async () => {
    await using orchestrator = await startOrchestrator({ configuration: sleeper });
    const pid = await orchestrator.started("it");
    // SIGHUP has it read its configuration: process-reload.test.ts.
    for (const signal of signals.filter((one) => one !== "SIGHUP")) {
      orchestrator.program.kill(signal);
      await orchestrator.program.said(
        new RegExp(`received ${signal}, and ignores it: there is no`),
      );
    }
    expect((await orchestrator.summary("it")).pid).toBe(pid);
    expect(await orchestrator.stop()).toBe(0);
  });

  test("the agent ignores them, and says so", async () => {
    using folder = temporaryFolder();
    await using agent = await startAgent(folder);
    for (const signal of signals) {
      agent.program.kill(signal);
      await agent.program.said(new RegExp(`received ${signal}, and ignores it: there is nothing`));
    }
    using client = await AgentClient.connect(agent.socket);
    await client.ping();
  });
});

skipUnless("clients of an orchestrator that hangs", root, () => {
  test("end with 111: after 10 s, or when --timeout is over", async () => {
    // Descriptors are counted, and a holder has duplicates.
    const configuration = `${withoutHolder}${sleeper}`;
    await using orchestrator = await startOrchestrator({ configuration });
    await orchestrator.started("it");
    const socket = ["--control-socket", orchestrator.controlSocket];
    const command = (...words: string[]) => runProgram([hostler(), "process", ...words, ...socket]);
    const descriptors = () => readdirSync(`/proc/${orchestrator.program.processId}/fd`).length;
    const before = descriptors();
    const waiting = command("wait", "it", "--until", "stopped", "--timeout", "2s");
    // Its connection is there: from here on it is the orchestrator's answer that does not come.
    await waitFor("the client", () => descriptors() > before);
    orchestrator.program.kill("SIGSTOP");
    try {
      const [listed, late, early] = await Promise.all([
        command("list"),
        command("wait", "it", "--until", "stopped", "--timeout", "1s"),
        waiting,
      ]);
      expect([listed.exitCode, late.exitCode, early.exitCode]).toEqual([111, 111, 111]);
      expect(listed.stderr).toMatch(
        /No answer at \S+ within 10\.00 s: its daemon hangs, or was st/,
      );
      expect(late.stderr).toMatch(/No answer at \S+ within 1\.00 s/);
      expect(early.stderr).toMatch(
        /not stopped after 2\.00 s: the orchestrator hangs|No answer at/,
      );
    } finally {
      orchestrator.program.kill("SIGCONT");
    }
    expect((await command("list")).exitCode).toBe(0);
  });
});

skipUnless("the agent's socket", root, () => {
  test("removed by somebody: made anew, told, and who is connected is served on", async () => {
    using folder = temporaryFolder();
    await using agent = await startAgent(folder);
    using first = await AgentClient.connect(agent.socket);
    unlinkSync(agent.socket);
    await agent.program.said(/the socket \S+agent\.sock was removed by somebody; it is made anew/);
    using second = await AgentClient.connect(agent.socket);
    await second.ping();
    await first.ping();
    agent.program.kill("SIGTERM");
    expect((await agent.program.ended()).exitCode).toBe(0);
    expect(existsSync(agent.socket)).toBe(false);
  });

  test("and the one where an orchestrator waits for agents: the next agent finds it", async () => {
    using folder = temporaryFolder();
    const path = folder.file("agents.sock");
    const partition = `[partition.p]\nlisten = "${path}"\n`;
    const configuration = `${partition}${sleeper}partition = "p"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    unlinkSync(path);
    await orchestrator.program.said(
      /partition p: the socket \S+ was removed by somebody; it is mad/,
    );
    await using _agent = await startAgent(folder, { words: ["--connect", path] });
    await orchestrator.events.nth("it", "ready");
    expect(await orchestrator.stop()).toBe(0);
  });

  test("in a folder that is not there: refused with the mend, as a control socket is", async () => {
    using folder = temporaryFolder();
    const path = folder.file("none/agent.sock");
    const refused = await runProgram([hostler(), "process", "agent", "--socket", path]);
    expect(refused.exitCode).toBe(111);
    expect(refused.stderr).toMatch(
      /received nothing there\. Make it: mkdir -p \S+\/none, or choose/,
    );
    expect(existsSync(folder.file("none"))).toBe(false);
  });
});

skipUnless("starts that are refused leave no file", root, () => {
  test("too few descriptors", async () => {
    using folder = temporaryFolder();
    const tables = Array.from(
      { length: 60 },
      (_, index) => `[process.n${index}]\ncommand = ["a"]\n`,
    );
    writeFileSync(folder.file("many.toml"), tables.join(""));
    const words = ["process", "orchestrator", "--config", folder.file("many.toml")];
    const socket = folder.file("control.sock");
    const { exitCode, stderr } = await runProgram([
      ...["prlimit", "--nofile=64:64", hostler(), ...words, "--control-socket", socket],
    ]);
    expect([exitCode, stderr]).toEqual([111, expect.stringContaining("LimitNOFILE=")]);
    expect(readdirSync(folder.path)).toEqual(["many.toml"]);
  });

  test("a full disk", async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("process.toml"), sleeper);
    mkdirSync(folder.file("disk"));
    const script =
      'mount -t tmpfs -o size=16k none "$1" && dd if=/dev/zero of="$1/fill" bs=1k 2>/dev/null; ' +
      '"$2" process orchestrator --config "$3" --control-socket "$1/x.sock"; echo $? $(ls "$1")';
    const words = [folder.file("disk"), hostler(), folder.file("process.toml")];
    const result = await runProgram(["unshare", "--mount", "sh", "-c", script, "sh", ...words]);
    expect(result.stderr).toContain("(ENOSPC)");
    expect(result.stdout).toBe("111 fill\n");
  });

  test("the path of a partition's socket: the control socket goes as well", async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("file"), "mine");
    const configuration = `${sleeper}[partition.p]\nlisten = "${folder.file("file")}"\n`;
    await using daemon = spawnOrchestrator({ folder, configuration });
    expect((await daemon.ended()).exitCode).toBe(111);
    expect(readdirSync(folder.path).toSorted()).toEqual(["file", "process.toml"]);
  });
});

skipUnless("the command line of clients", root, () => {
  const paths: [string, (file: (name: string) => string) => string, number, RegExp][] = [
    [
      "empty",
      () => "",
      100,
      /Expected a path of 1 to 107 bytes after --control-socket, received 0/,
    ],
    ["too long", (file) => file("x".repeat(108)), 100, /1 to 107 bytes after --control-socket/],
    [
      "a folder",
      () => "/tmp",
      111,
      /to \/tmp: expected a daemon's control socket, received a dire/,
    ],
    [
      "a file",
      (file) => {
        writeFileSync(file("x"), "");
        return file("x");
      },
      111,
      /expected a daemon's control socket, received a file of another kind\. Give the right one by/,
    ],
  ];
  test.each(paths)(
    "--control-socket, %s: refused as a daemon does",
    async (_, make, code, text) => {
      using folder = temporaryFolder();
      const path = make((name) => folder.file(name));
      for (const words of [["process"], ["live-update"]]) {
        const result = await runProgram([hostler(), ...words, "list", "--control-socket", path]);
        expect([words, result.exitCode]).toEqual([words, code]);
        expect(result.stderr).toMatch(text);
      }
    },
  );

  test("start --wait ends when the start is refused, wait goes on", async () => {
    using folder = temporaryFolder();
    const path = folder.file("program");
    const configuration = `[process.late]\ncommand = ["${path}"]\nautostart = false\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const socket = ["--control-socket", orchestrator.controlSocket];
    const command = (...words: string[]) => runProgram([hostler(), "process", ...words, ...socket]);
    const { exitCode, stderr } = await command("start", "late", "--wait");
    expect(exitCode).toBe(111);
    expect(stderr).toMatch(/late was not started: Cannot start .*It is tried again by itself/);
    const waiting = command("wait", "late", "--until", "ready");
    await orchestrator.events.nth("late", "start-refused", 3);
    writeFileSync(path, "#!/bin/sh\nexec sleep 1000\n");
    chmodSync(path, 0o755);
    expect((await waiting).stdout).toMatch(/^late: ready, process \d+\n$/);
  });
});

skipUnless("the next one, right after SIGKILL", root, () => {
  test("an orchestrator waits for the dying one, 20 times", async () => {
    using folder = temporaryFolder();
    let daemon = spawnOrchestrator({ folder, configuration: sleeper });
    try {
      const answer = async () => {
        const { stdout } = await runProgram(list(folder.file("control.sock")));
        return /^it .* ready +(\d+)/m.exec(stdout) ?? undefined;
      };
      for (let count = 0; count < 20; count++) {
        await waitFor("an answer", answer);
        const before = daemon;
        before.kill("SIGKILL");
        daemon = spawnOrchestrator({ folder, configuration: sleeper });
        await before.ended();
      }
      await waitFor("an answer", answer);
      daemon.kill("SIGTERM");
      expect((await daemon.ended()).exitCode).toBe(0);
    } finally {
      await daemon[Symbol.asyncDispose]();
    }
  });

  test("an agent waits for the dying one, 20 times", async () => {
    using folder = temporaryFolder();
    let agent = await startAgent(folder);
    try {
      for (let count = 0; count < 20; count++) {
        const before = agent;
        before.program.kill("SIGKILL");
        agent = await startAgent(folder);
        await before.program.ended();
      }
      expect(isAlive(agent.processId)).toBe(true);
    } finally {
      await agent[Symbol.asyncDispose]();
    }
  });
});
