/** What an orchestrator tells scrapers: by its command, at a Unix socket, on loopback. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { MOST_SCRAPERS } from "../../src/process/perform/metrics-listener.ts";
import { hostler } from "../support/binary.ts";
import { cgroupFolder, writableCgroup } from "../support/cgroup.ts";
import {
  spawnOrchestrator,
  startOrchestrator,
  type TestOrchestrator,
} from "../support/orchestrator.ts";
import { begin, partitionPlace } from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { again, Gap, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const sleeper = 'command = ["sleep", "1000"]\nbackoff = "none"\n';

async function metricsOf({ controlSocket }: TestOrchestrator): Promise<string> {
  const words = ["process", "metrics", "--control-socket", controlSocket];
  const { exitCode, stdout, stderr } = await runProgram([hostler(), ...words]);
  expect([exitCode, stderr]).toEqual([0, ""]);
  return stdout;
}

/** The value of the series that begins so; undefined without one. */
function numberOf(text: string, series: string): number | undefined {
  const line = text.split("\n").find((one) => one.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

const scrape = (unix: string, path = "/metrics", init: RequestInit = {}) =>
  fetch(`http://metrics${path}`, { unix, ...init });

skipUnless("metrics", root, () => {
  test("restarts by reason, refused starts, phase, use, dropped lines", async () => {
    using folder = temporaryFolder();
    const configuration = `[process.it]\n${sleeper}
      [process.busy]
      command = ["sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exec sleep 1000"]
      [process.loud]
      command = ["sh", "-c", "seq 500; exec sleep 1000"]
      log_lines = 100
      [process.none]
      command = ["/nowhere/program"]
      restart = "never"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    process.kill(await orchestrator.started("it"), "SIGKILL");
    await orchestrator.started("it", 2);
    await orchestrator.client.request("restart", { name: "it" });
    await orchestrator.started("it", 3);
    await orchestrator.events.nth("none", "failed");
    await waitFor("the lines", async () => (await orchestrator.show("loud")).log.lines === 100);
    const text = await waitFor("processor time", async () => {
      const told = await metricsOf(orchestrator);
      const used = numberOf(told, 'hostler_process_cpu_seconds_total{process="busy",by="process"}');
      return (used ?? 0) > 0.05 && told;
    });
    const it = (name: string, labels = "") => numberOf(text, `${name}{process="it"${labels}}`);
    expect(it("hostler_process_restarts_total", ',reason="died"')).toBe(1);
    expect(it("hostler_process_restarts_total", ',reason="asked"')).toBe(1);
    expect(it("hostler_process_restarts_total", ',reason="unready"')).toBe(0);
    expect(it("hostler_process_restart_seconds_count")).toBe(2);
    expect(it("hostler_process_restart_seconds_bucket", ',le="30"')).toBe(2);
    expect(it("hostler_process_phase", ',phase="ready"')).toBe(1);
    expect(it("hostler_process_phase_seconds", ',phase="ready"')).toBeGreaterThan(0);
    expect(it("hostler_process_memory_bytes", ',by="process"')).toBeGreaterThan(100_000);
    expect(numberOf(text, 'hostler_process_refused_starts_total{process="none"}')).toBe(1);
    expect(numberOf(text, 'hostler_process_phase{process="none",phase="failed"}')).toBe(1);
    expect(numberOf(text, 'hostler_process_log_dropped_lines_total{process="loud"}')).toBe(400);
    expect(numberOf(text, "hostler_orchestrator_memory_bytes")).toBeGreaterThan(10_000_000);
    expect(numberOf(text, "hostler_orchestrator_events_total")).toBeGreaterThan(10);
    // No series names what a process did or said: each has a name of the configuration.
    const named = [...text.matchAll(/process="([^"]*)"/g)].map(([, name]) => name);
    expect(new Set(named)).toEqual(new Set(["it", "busy", "loud", "none"]));
  });

  test("an agent that is there, and one that is not; its process by the host's /proc", async () => {
    using folder = temporaryFolder();
    const nowhere = `[partition.off]\nsocket = "${folder.file("nobody.sock")}"\n`;
    const lines = `[process.it]\n@here\n${sleeper}\n${nowhere}`;
    await using running = await begin(partitionPlace, folder, lines);
    await running.orchestrator.started("it");
    const text = await metricsOf(running.orchestrator);
    const connected = (name: string) =>
      numberOf(text, `hostler_orchestrator_agent_connected{partition="${name}"}`);
    expect([connected("qm"), connected("off")]).toEqual([1, 0]);
    const memory = 'hostler_process_memory_bytes{process="it",by="process"}';
    expect(numberOf(text, memory)).toBeGreaterThan(100_000);
  });

  test("at a Unix socket of its user alone, also after it became another program", async () => {
    using folder = temporaryFolder();
    const unix = folder.file("metrics.sock");
    const words = ["--metrics-listen", unix];
    const configuration = `[process.it]\n${sleeper}`;
    await using orchestrator = await startOrchestrator({ folder, configuration, words });
    process.kill(await orchestrator.started("it"), "SIGKILL");
    await orchestrator.started("it", 2);
    expect(statSync(unix).mode & 0o777).toBe(0o600);
    const answer = await scrape(unix);
    expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const restarts = 'hostler_process_restarts_total{process="it",reason="died"}';
    expect(numberOf(await answer.text(), restarts)).toBe(1);
    expect((await scrape(unix, "/")).status).toBe(404);
    expect((await scrape(unix, "/metrics", { method: "POST", body: "x" })).status).toBe(405);
    const { ino } = statSync(unix);
    await reexecute(orchestrator.controlSocket);
    const next = await again(orchestrator);
    try {
      expect(statSync(unix).ino).toBe(ino);
      expect(numberOf(await (await scrape(unix)).text(), restarts)).toBe(1);
    } finally {
      next.client.close();
    }
    expect(await orchestrator.stop()).toBe(0);
    expect(existsSync(unix)).toBe(false);
  });

  test("one scraper too many, and one that says nothing, hinder nobody", async () => {
    using folder = temporaryFolder();
    const unix = folder.file("metrics.sock");
    const words = ["--metrics-listen", unix];
    const configuration = `[process.it]\n${sleeper}`;
    await using _orchestrator = await startOrchestrator({ folder, configuration, words });
    const ends: Promise<void>[] = [];
    const sockets: Bun.Socket[] = [];
    const closed: number[] = [];
    const connect = async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const index = ends.push(promise) - 1;
      const close = () => {
        closed.push(index);
        resolve();
      };
      sockets.push(await Bun.connect({ unix, socket: { data: () => {}, close } }));
    };
    for (let count = 0; count < MOST_SCRAPERS; count += 1) await connect();
    await connect();
    await ends[MOST_SCRAPERS];
    // At once, and not when the time of all is over.
    expect(closed).toEqual([MOST_SCRAPERS]);
    sockets[0]?.end();
    const answer = await waitFor("a place that is free again", () =>
      scrape(unix).catch(() => undefined),
    );
    expect(answer.status).toBe(200);
    sockets[1]?.write("nonsense\r\n\r\n");
    await ends[1];
    for (const socket of sockets) socket.end();
  });

  test("on loopback, and nowhere else", async () => {
    using folder = temporaryFolder();
    const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
    const { port } = probe;
    const configuration = `[process.it]\n${sleeper}`;
    const words = ["--metrics-listen", `127.0.0.1:${port}`];
    await using taken = spawnOrchestrator({ folder, configuration, words });
    const refused = await taken.ended();
    expect(refused.exitCode).toBe(111);
    expect(refused.stderr).toContain(
      `Cannot listen for scrapers at 127.0.0.1 port ${port}: somebody listens there already`,
    );
    probe.stop(true);
    await using orchestrator = await startOrchestrator({ folder, configuration, words });
    await orchestrator.started("it");
    const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
    expect(numberOf(await answer.text(), "hostler_orchestrator_processes")).toBe(1);
    await reexecute(orchestrator.controlSocket);
    expect((await fetch(`http://127.0.0.1:${port}/metrics`)).status).toBe(200);
    for (const address of ["0.0.0.0:9464", "192.0.2.1:9464", "127.0.0.1", "metrics.sock"]) {
      const file = folder.file("process.toml");
      const given = ["--config", file, "--metrics-listen", address];
      const { exitCode, stderr } = await runProgram([
        ...[hostler(), "process", "orchestrator", ...given],
      ]);
      expect([exitCode, stderr]).toEqual([
        100,
        expect.stringContaining("Expected an address of loopback"),
      ]);
    }
  });

  test("a program that reads the state of the version before alone is given that one", async () => {
    using folder = temporaryFolder();
    const gap = new Gap(folder, hostler());
    gap.set("try", "former");
    const configuration = `[process.it]\n${sleeper}`;
    const { environment } = gap;
    await using orchestrator = await startOrchestrator({ folder, configuration, environment });
    process.kill(await orchestrator.started("it"), "SIGKILL");
    const second = await orchestrator.started("it", 2);
    const answer = reexecute(orchestrator.controlSocket, { program: gap.program });
    await gap.entered();
    gap.leave();
    await answer;
    const next = await again(orchestrator);
    try {
      // What that version has goes on.
      expect(await next.summary("it")).toMatchObject({ pid: second, restarts: 1 });
      const restarts = 'hostler_process_restarts_total{process="it",reason="died"}';
      expect(numberOf(await metricsOf(next), restarts)).toBe(1);
    } finally {
      next.client.close();
    }
  });
});

skipUnless("metrics of a cgroup", [root, writableCgroup], () => {
  test("all that is in it counts, and a label says so", async () => {
    using folder = temporaryFolder();
    using cgroup = cgroupFolder();
    // The child of the main process works; the main process waits.
    const work = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 1000) & wait";
    const configuration = `[process.it]\ncommand = ${JSON.stringify(["sh", "-c", work])}
      cgroup = "${cgroup.file("it")}"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.started("it");
    await waitFor("processor time of the child", async () => {
      const text = await metricsOf(orchestrator);
      const used = numberOf(text, 'hostler_process_cpu_seconds_total{process="it",by="cgroup"}');
      return (used ?? 0) > 0.05;
    });
  });
});
