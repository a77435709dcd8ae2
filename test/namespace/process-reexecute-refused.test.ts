/** Another program in the orchestrator's place: what is refused, and what it costs afterwards. */
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { ControlRefusal, connectControl } from "../../src/messaging/control-client.ts";
import { hostler } from "../support/binary.ts";
import { goldenPing, goldenPong } from "../support/holden-frames.ts";
import { HostileAgent } from "../support/hostile-agent.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import {
  spawnOrchestrator,
  startOrchestrator,
  type TestOrchestrator,
} from "../support/orchestrator.ts";
import { begin, partitionPlace } from "../support/orchestrator-partition.ts";
import { childrenOf, isAlive } from "../support/partition.ts";
import { runProgram } from "../support/program.ts";
import { aboutOf, again, Gap, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const sleeper = '[process.it]\ncommand = ["sleep", "1000"]\n';

/** Why it is refused: the kind, and the rest of the refusal in one text. */
async function refusalOf(
  controlSocket: string,
  fields: { readonly program?: string; readonly digest?: string },
): Promise<readonly [kind: string, text: string]> {
  const refusal = await rejectionOf(reexecute(controlSocket, fields));
  if (!(refusal instanceof ControlRefusal)) throw refusal;
  return [refusal.error.kind, refusal.message];
}

/** Nothing has changed: the same program supervises, and could become another one. */
async function expectUnchanged(
  orchestrator: TestOrchestrator,
  before: { readonly instance: string },
): Promise<void> {
  expect((await aboutOf(orchestrator.controlSocket)).instance).toBe(before.instance);
  const starts = orchestrator.events.of("it", "started").length;
  process.kill(await orchestrator.started("it", starts), "SIGKILL");
  await orchestrator.events.nth("it", "ready", starts + 1);
}

skipUnless("another program is refused", root, () => {
  test("that is none, or not the one that was asked for", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const { controlSocket } = orchestrator;
    await orchestrator.started("it");
    const before = await aboutOf(controlSocket);
    const file = (name: string, text: string, mode: number) => {
      writeFileSync(folder.file(name), text);
      chmodSync(folder.file(name), mode);
      return folder.file(name);
    };
    const cut = folder.file("cut");
    copyFileSync(hostler(), cut);
    truncateSync(cut, 110 * 1024 * 1024);
    const script = file("script", "#!/bin/sh\nexit 0\n", 0o755);
    const other = "0".repeat(64);
    const cases: readonly (readonly [{ program: string; digest?: string }, string, RegExp])[] = [
      [{ program: "hostler" }, "program", /expected an absolute path, received hostler/],
      [{ program: folder.file("none") }, "program", /executable file at .*none, received ENOENT/],
      [{ program: file("text", "", 0o644) }, "program", /executable file at .*received EACCES/],
      [{ program: "/tmp" }, "program", /expected a file at \/tmp, received something else/],
      [{ program: hostler(), digest: other }, "program", /expected SHA-256 0{64} of .*received \w/],
      [{ program: "/bin/true" }, "dry-run", /received no such word before its end \(exit 0\)/],
      [{ program: "/bin/cat" }, "dry-run", /before its end \(exit 1\); it said: .*unrecognized/],
      [{ program: script }, "dry-run", /received no such word before its end/],
      [{ program: file("empty", "", 0o755) }, "dry-run", /it cannot be run: Exec format error/],
      [{ program: cut }, "dry-run", /received no such word before its end/],
    ];
    for (const [fields, kind, message] of cases) {
      expect(await refusalOf(controlSocket, fields)).toEqual([
        kind,
        expect.stringMatching(message),
      ]);
    }
    await expectUnchanged(orchestrator, before);
    const command = [hostler(), "process", "reexecute", "--control-socket", controlSocket];
    const refused = await runProgram([...command, "/bin/true"]);
    expect([refused.exitCode, refused.stdout]).toEqual([111, ""]);
    expect(refused.stderr).toMatch(/Cannot go on as another program: .*The orchestrator goes on/s);
    for (const words of [["hostler"], ["--digest", "12"]]) {
      expect((await runProgram([...command, ...words])).exitCode).toBe(100);
    }
  });

  test("whose dry run hangs, crashes, lies, or refuses the state", async () => {
    using folder = temporaryFolder();
    const gap = new Gap(folder, hostler());
    const { environment } = gap;
    await using orchestrator = await startOrchestrator({
      folder,
      configuration: sleeper,
      environment,
    });
    const { controlSocket } = orchestrator;
    await orchestrator.started("it");
    const before = await aboutOf(controlSocket);
    const cases = [
      ["hang", /received no answer within 5.00 s/],
      ["crash", /no such word before its end \(SIGABRT/],
      ["silent", /no such word before its end \(exit 0\)/],
      ["liar", /no such word before its end \(exit 0\)/],
      ["copy", /no such word before its end \(exit 0\)/],
      ["flag", /before its end \(exit 100\); it said: .*--no-such-flag/],
      ["newer", /its refusal: it expects \S+ of version 3 or 2, and received version 9/],
    ] as const;
    for (const [word, message] of cases) {
      gap.set("try", word);
      const found = await refusalOf(controlSocket, { program: gap.program });
      expect(found).toEqual(["dry-run", expect.stringMatching(message)]);
    }
    // The kernel refuses it after a dry run that went well.
    gap.set("try", "forbid");
    const found = await refusalOf(controlSocket, { program: gap.program });
    expect(found).toEqual(["execve", expect.stringMatching(/received Permission denied/)]);
    await expectUnchanged(orchestrator, before);
    expect((await reexecute(controlSocket)).process_id).toBe(orchestrator.program.processId);
  });

  test("while another one is tried, and while everything is stopped", async () => {
    using folder = temporaryFolder();
    const gap = new Gap(folder, hostler());
    gap.set("try", "hang");
    const stubborn = ["sh", "-c", "trap '' TERM; echo set; while :; do sleep 0.05; done"];
    const { environment } = gap;
    const configuration = `[process.it]\ncommand = ${JSON.stringify(stubborn)}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration, environment });
    const { controlSocket } = orchestrator;
    await orchestrator.followLogs().until("the trap", (items) => items.length > 0);
    const first = refusalOf(controlSocket, { program: gap.program });
    const client = await connectControl(controlSocket);
    await waitFor("the dry run", async () => {
      const error = await rejectionOf(client.request("reexecute", { program: hostler() }));
      return error.message.includes("Another re-execution is under way");
    });
    client.close();
    orchestrator.program.kill("SIGTERM");
    await orchestrator.events.nth("it", "stop-requested");
    const [kind] = await refusalOf(controlSocket, { program: gap.program });
    expect(kind).toBe("busy");
    expect((await first)[0]).toBe("dry-run");
  });

  test("and is ended when the orchestrator ends meanwhile", async () => {
    using folder = temporaryFolder();
    const gap = new Gap(folder, hostler());
    gap.set("try", "hang");
    const { environment } = gap;
    await using orchestrator = await startOrchestrator({
      folder,
      configuration: sleeper,
      environment,
    });
    const { program, controlSocket } = orchestrator;
    await orchestrator.started("it");
    const answer = rejectionOf(reexecute(controlSocket, { program: gap.program }));
    const tried = await waitFor("the dry run", () =>
      childrenOf(program.processId).find((child) =>
        readFileSync(`/proc/${child}/cmdline`, "utf8").includes("--try-state"),
      ),
    );
    expect(await orchestrator.stop()).toBe(0);
    await answer;
    await waitFor("its end", () => !isAlive(tried));
  });

  test("for want of descriptors, which end nothing", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: sleeper });
    const { controlSocket, program } = orchestrator;
    await orchestrator.started("it");
    const before = await aboutOf(controlSocket);
    const limit = async (soft: number) => {
      const words = ["prlimit", "--pid", String(program.processId), `--nofile=${soft}:`];
      expect((await runProgram(words)).stderr).toBe("");
    };
    // Room for the connection, the file and the state, and not for the pipes of a dry run.
    const open = readdirSync(`/proc/${program.processId}/fd`).map(Number);
    let soft = 0;
    for (let free = 0; free < 4; soft += 1) if (!open.includes(soft)) free += 1;
    await limit(soft);
    const [kind, text] = await refusalOf(controlSocket, { program: hostler() });
    expect([kind, text]).toEqual(["system", expect.stringMatching(/EMFILE|Too many open files/)]);
    await limit(4_096);
    await expectUnchanged(orchestrator, before);
    expect((await reexecute(controlSocket)).process_id).toBe(program.processId);
  });

  test("while a start is not answered: what has begun comes to no end", async () => {
    using folder = temporaryFolder();
    const socket = folder.file("holden.sock");
    // A Holden agent that is there, and answers no start.
    using _agent = Bun.listen({
      unix: socket,
      socket: {
        data: (connection, bytes) => {
          if (goldenPing()[0] === bytes[0]) connection.write(goldenPong());
        },
      },
    });
    const partition = `[partition.qm]\nsocket = "${socket}"\nprotocol = "holden"\n`;
    const far = '[process.far]\ncommand = ["far"]\npartition = "qm"\n';
    const configuration = `${sleeper}${far}${partition}`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.events.nth("far", "start-requested");
    const before = await aboutOf(orchestrator.controlSocket);
    const [kind, text] = await refusalOf(orchestrator.controlSocket, { program: hostler() });
    expect(kind).toBe("not-quiet");
    expect(text).toContain("within 5.00 s, received the answer to a start, partition qm");
    await expectUnchanged(orchestrator, before);
  });
});

skipUnless("an agent that hangs", root, () => {
  test("with a start: refused, because only its end would prove that it makes none", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const other = '[process.runs]\n@here\ncommand = ["sleep", "1000"]\n';
    const lines = `[process.it]\n@here\n${child.table}\nautostart = false\n${other}`;
    await using running = await begin(partitionPlace, folder, lines);
    const { orchestrator, agent } = running;
    const { controlSocket } = orchestrator;
    const runs = await orchestrator.started("runs");
    suspend(agent);
    await orchestrator.client.request("start", { name: "it" });
    const [kind, text] = await refusalOf(controlSocket, { program: hostler() });
    expect([kind, text]).toEqual(["not-quiet", expect.stringMatching(/, partition qm/)]);
    process.kill(agent, "SIGCONT");
    await orchestrator.events.nth("it", "ready");
    await reexecute(controlSocket);
    const next = await again(orchestrator);
    expect((await next.summary("runs")).pid).toBe(runs);
    expect(next.events.of("runs", "died")).toEqual([]);
    expect([child.alive.length, child.metAnother]).toEqual([1, false]);
    next.client.close();
  });

  test("in the middle of a frame: its connection ends, and its process goes on", async () => {
    using folder = temporaryFolder();
    const listen = folder.file("qm.sock");
    const lines = '[process.it]\npartition = "qm"\ncommand = ["it"]\nrestart = "never"\n';
    const configuration = `${lines}[partition.qm]\nlisten = "${listen}"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await waitFor("the socket for agents", () => existsSync(listen));
    using agent = await HostileAgent.dial(listen);
    using child = agent.startTruly(await agent.asked("start"));
    await agent.asked("seen");
    agent.trySend(new TextEncoder().encode('{"bytes":100,"descriptors":0,"body":{"kind'));
    await reexecute(orchestrator.controlSocket);
    await waitFor("the end of its connection", () => {
      agent.look();
      return agent.ended;
    });
    const next = await again(orchestrator);
    expect(await next.summary("it")).toMatchObject({ phase: "ready", pid: child.processId });
    expect(next.events.of("it", "died")).toEqual([]);
    using _again = await HostileAgent.dial(listen);
    await waitFor("the next connection", async () => {
      const [partition] = (await next.client.request("partitions")) as { state: string }[];
      return partition?.state === "connected";
    });
    next.client.close();
  });
});

skipUnless("an agent that says what nobody asked", root, () => {
  test("that it takes an armed start back: it keeps nobody from going on", async () => {
    using folder = temporaryFolder();
    const listen = folder.file("qm.sock");
    const lines = '[process.it]\npartition = "qm"\ncommand = ["it"]\nbackoff = "none"\n';
    const configuration = `${lines}[partition.qm]\nlisten = "${listen}"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await waitFor("the socket for agents", () => existsSync(listen));
    using agent = await HostileAgent.dial(listen);
    using child = agent.startTruly(await agent.asked("start"));
    const prepare = await agent.asked("prepare");
    agent.answer({ kind: "prepared", id: prepare.id });
    const { id } = await agent.asked("arm");
    agent.answer({ kind: "error", id, error: { kind: "disarmed", message: "no" } });
    await reexecute(orchestrator.controlSocket);
    // By its connection, which stands, the whole of the next start is asked for.
    process.kill(child.processId, "SIGKILL");
    const { invocation } = await agent.asked("start");
    expect(invocation).not.toBe(prepare.invocation);
  });
});

skipUnless("the new program fails after the exec", root, () => {
  const pidfdOf = (processId: number) => {
    for (let number = 3; number < 200; number += 1) {
      try {
        if (/pidfd/.test(readlinkSync(`/proc/${processId}/fd/${number}`))) return number;
      } catch {
        // None of that number.
      }
    }
    throw new Error("it has no pidfd");
  };

  for (const [what, word, message] of [
    ["crashes", "crash", /^$/],
    ["finds a state that is cut short", "cut", /went wrong|Cannot go on with what the program/],
    ["finds another file in the place of a pidfd", "swap", /to be .*pidfd.*received \/dev\/null/],
  ] as const) {
    test(`it ${what}: as after any kill, nothing is doubled`, async () => {
      using folder = temporaryFolder();
      const gap = new Gap(folder, hostler());
      const child = lonelyChild(folder);
      const configuration = `[process.it]\n${child.table}\n`;
      const { environment } = gap;
      await using orchestrator = await startOrchestrator({ folder, configuration, environment });
      const { program, controlSocket } = orchestrator;
      await orchestrator.started("it");
      const answer = rejectionOf(reexecute(controlSocket, { program: gap.program }));
      await gap.entered();
      const which = word === "swap" ? `swap ${pidfdOf(program.processId)}` : word;
      const said = program.output.stderr.length;
      gap.set("become", which);
      gap.leave();
      expect((await answer).message).toContain("closed the connection");
      const { exitCode, stderr } = await program.ended();
      expect(exitCode).toBe(word === "crash" ? 9 : 111);
      expect(stderr.slice(said).trim()).toMatch(message);
      expect(await child.lives()).toHaveLength(1);
      await using next = await startOrchestrator({ folder, configuration });
      await next.client.request("wait", { name: "it", until: "ready" });
      expect(await child.lives()).toEqual([(await next.summary("it")).pid as number]);
      expect(child.metAnother).toBe(false);
    });
  }

  test.each([
    ["abc", /a descriptor of hostler-state in HOSTLER_STATE, received "abc"/],
    ["499", /a descriptor of hostler-state in HOSTLER_STATE, received none/],
    ["0", /received "0"/],
  ])("HOSTLER_STATE=%s from elsewhere starts nothing", async (value, message) => {
    using folder = temporaryFolder();
    await using program = spawnOrchestrator({
      folder,
      configuration: sleeper,
      environment: { HOSTLER_STATE: value },
    });
    const { exitCode, stderr } = await program.ended();
    expect([exitCode, stderr]).toEqual([111, expect.stringMatching(message)]);
  });
});
