/** The compiled commands around specs, reports and runs, at a real orchestrator. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { identityApi } from "../../src/identity/api.ts";
import { vettingApi } from "../../src/vetting/protocol-api.ts";
import type { Stage } from "../../src/vetting/protocol-result.ts";
import { hostler } from "../support/binary.ts";
import { type ProgramResult, runProgram, startProgram } from "../support/program.ts";
import { DurableOrchestrator } from "../support/vetting-orchestrator/daemon.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(180_000);

const way: readonly Stage[] = ["Inventory", "SMART", "CPUStress", "Storage", "Network", "GPU"];

/** An orchestrator, and what somebody on its host types. */
class Desk extends DurableOrchestrator {
  command(...words: readonly string[]): string[] {
    return [hostler(), "vetting", ...words, "--control-socket", this.socket];
  }

  async runs(...words: readonly string[]): Promise<ProgramResult> {
    return await runProgram(this.command(...words), { deadlineMilliseconds: 60_000 });
  }

  /** What is done by it. @throws where it was refused */
  async does(...words: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.runs(...words);
    if (exitCode !== 0) throw new Error(`${words.join(" ")}: ${exitCode}: ${stderr}`);
    return stdout;
  }

  async vets(outcomeOfPsu: "PASS" | "FAIL" = "PASS") {
    const run = await this.prepare();
    const agent = await this.agent(run, await this.mint(run));
    await agent.claim();
    for (const stage of way) await agent.walks(stage);
    await agent.log(1, ["all stages were walked"]);
    await agent.walks("PSU", outcomeOfPsu);
    return { run, agent };
  }
}

async function desk(): Promise<Desk> {
  const made = new Desk();
  await made.start();
  return made;
}

describe("specs", () => {
  test("one is checked, put, told, held beside a host, and taken away", async () => {
    await using orchestrator = await desk();
    const file = orchestrator.folder.file("own.toml");
    writeFileSync(file, 'name = "own"\n[stages.Inventory]\nrequired = ["disks[*].seral"]\n');
    const misspelt = await runProgram([hostler(), "vetting", "spec", "check", file]);
    expect(misspelt.exitCode).toBe(100);
    expect(misspelt.stderr).toContain("own.toml:3:13");
    expect(misspelt.stderr).toContain("Did you mean disks[*].serial?");
    expect((await orchestrator.runs("spec", "put", file)).exitCode).toBe(100);
    writeFileSync(file, readFileSync(file, "utf8").replace("seral", "serial"));
    const { stdout } = await runProgram([hostler(), "vetting", "spec", "check", file]);
    expect(stdout).toBe("own: 0 rules, and no mistake\n");
    expect(await orchestrator.does("spec", "put", file)).toContain("own");
    const listed = JSON.parse(await orchestrator.does("spec", "list", "--json"));
    expect(listed.specs).toMatchObject([{ name: "own", revision: 1 }]);
    const told = JSON.parse(await orchestrator.does("spec", "get", "own"));
    expect(told.stages.Inventory.required).toEqual(["disks[*].serial"]);
    const stale = await orchestrator.runs("spec", "put", file, "--revision", "7");
    expect(stale.stderr).toContain("own has changed meanwhile");
    expect(await orchestrator.does("spec", "remove", "own")).toBe("own is taken away\n");
    expect((await orchestrator.runs("spec", "get", "own")).exitCode).toBe(111);
  });

  test("a golden one is learned from a run, and what it is learned from holds it", async () => {
    await using orchestrator = await desk();
    const { run } = await orchestrator.vets();
    const golden = orchestrator.folder.file("golden.json");
    await orchestrator.does("spec", "learn", `${run}`, "--name", "golden", "--out", golden);
    const kept = readFileSync(golden, "utf8");
    const again = await orchestrator.runs(
      ...["spec", "learn", `${run}`, "--name", "other", "--out", golden],
    );
    expect(again.exitCode).toBe(100);
    expect(again.stderr).toContain("expected nothing there, received something (EEXIST)");
    expect(readFileSync(golden, "utf8")).toBe(kept);
    const dossier = orchestrator.folder.file("dossier.json");
    writeFileSync(dossier, await orchestrator.does("show", `${run}`, "--json"));
    const check = [hostler(), "vetting", "spec", "check", golden, "--inventory", dossier];
    const well = await runProgram(check);
    expect([well.exitCode, well.stdout]).toEqual([0, expect.stringMatching(/all \d+ rules hold/)]);
    // Another host is none of these.
    const { memory, ...rest } = JSON.parse(readFileSync(dossier, "utf8")).inventory;
    writeFileSync(dossier, JSON.stringify({ ...rest, memory: { ...memory, slots: [] } }));
    const broken = await runProgram(check);
    expect(broken.exitCode).toBe(3);
    expect(broken.stdout).toContain("memory.slots");
    await orchestrator.does("spec", "put", golden);
    expect(await orchestrator.does("spec", "diff", `${run}`)).toContain("0 are broken");
    expect(await orchestrator.does("outliers", `${run}`)).toContain("0 other hosts have run");
  });
});

describe("reports", () => {
  test("are written once, and verified by the authority's key alone", async () => {
    await using orchestrator = await desk();
    const { run } = await orchestrator.vets();
    const folder = orchestrator.folder.file("reports");
    await orchestrator.does("report", `${run}`, "--out", folder);
    const again = await orchestrator.runs("report", `${run}`, "--out", folder);
    expect(again.exitCode).toBe(100);
    expect(again.stderr).toContain(`make the folder ${folder}: expected nothing there`);
    const { authority } = await orchestrator.call(identityApi.certificatesList, {});
    const verify = (pin: string) =>
      runProgram([hostler(), "vetting", "report", "verify", folder, "--pin", pin, "--json"]);
    const whole = await verify(authority);
    expect(JSON.parse(whole.stdout)).toMatchObject({ verdict: "intact", faults: [] });
    expect(whole.exitCode).toBe(0);
    expect((await verify("ab".repeat(32))).exitCode).toBe(1);
    const page = `${folder}/report.html`;
    expect(readFileSync(page, "utf8")).toContain("node-7");
    writeFileSync(page, readFileSync(page, "utf8").replace("passed", "failed"));
    const changed = await verify(authority);
    expect([changed.exitCode, changed.stdout]).toEqual([1, expect.stringContaining("report.html")]);
    const lines = (await orchestrator.does("report", `${run}`, "--format", "ocp")).trim();
    const last = JSON.parse(lines.split("\n").at(-1) ?? "");
    expect(last.testRunArtifact.testRunEnd).toMatchObject({ status: "COMPLETE", result: "PASS" });
    const html = orchestrator.folder.file("one.html");
    await orchestrator.does("report", `${run}`, "--format", "html", "--out", html);
    expect(existsSync(html)).toBe(true);
    const neither = await orchestrator.runs("report", `${run}`);
    expect([neither.exitCode, neither.stderr]).toEqual([100, expect.stringContaining("--out")]);
  });
});

describe("a backup", () => {
  test("has all, is made while it runs, overwrites nothing, and leads back", async () => {
    await using orchestrator = await desk();
    const { run } = await orchestrator.vets();
    const open = await orchestrator.prepare({ mac: "52:54:00:12:34:57", name: "node-8" });
    const token = await orchestrator.mint(open);
    const agent = await orchestrator.agent(open, token);
    agent.mac = "52:54:00:12:34:57";
    await agent.claim();
    const file = orchestrator.folder.file("backup");
    const backUp = async () =>
      await runProgram(
        [hostler(), "store", "backup", file, "--control-socket", orchestrator.socket],
        { deadlineMilliseconds: 60_000 },
      );
    const made = await backUp();
    expect([made.exitCode, made.stderr]).toEqual([0, ""]);
    expect(made.stdout).toMatch(/backup\.vetting: \d+ rows, sha256 [0-9a-f]{64}; keep both/);
    for (const one of [file, `${file}.vetting`]) expect(statSync(one).mode & 0o777).toBe(0o600);
    const again = await backUp();
    expect([again.exitCode, again.stderr]).toEqual([
      111,
      expect.stringContaining("A backup overwrites nothing"),
    ]);
    // It goes on after the backup, which knows nothing of it.
    await agent.walks("Inventory");
    const words = ["restore", file, "--state-directory", orchestrator.state];
    const restores = () => runProgram([hostler(), "vetting", ...words]);
    const running = await restores();
    expect(running.exitCode).toBe(111);
    expect(await agent.walks("SMART")).toBe("CPUStress");
    await orchestrator.stop();
    const restored = await restores();
    expect([restored.exitCode, restored.stderr]).toEqual([0, ""]);
    expect(restored.stdout).toContain("and 2 runs of");
    await orchestrator.start();
    const { view, results } = await orchestrator.call(vettingApi.dossier, { run });
    expect([view.verdict, results.length]).toEqual(["passed", 7]);
    const back = await orchestrator.call(vettingApi.dossier, { run: open });
    expect(back.view.state).toBe("InventoryCheck");
    expect(back.events.at(-1)?.message).toContain("restored from a backup");
    // Nothing that was open then is open now, and no number is given twice.
    expect((await rejectionOf(agent.beat())).message).toContain("does not count");
    agent.session = token;
    expect((await rejectionOf(agent.claim())).message).toContain("does not count");
    expect((await rejectionOf(orchestrator.mint(open))).message).toContain("may not boot now");
    await orchestrator.call(vettingApi.hostWindow, { mac: "52:54:00:12:34:57", for_ms: 60_000 });
    const anew = await orchestrator.agent(open, await orchestrator.mint(open));
    anew.mac = "52:54:00:12:34:57";
    expect((await anew.claim()).current_state).toBe("InventoryCheck");
    expect(await orchestrator.prepare()).toBeGreaterThan(open + 999);
  });

  test("half a one, and a damaged one, are refused, and nothing is changed", async () => {
    await using orchestrator = await desk();
    const { run } = await orchestrator.vets();
    const file = orchestrator.folder.file("backup");
    await runProgram([hostler(), "store", "backup", file, "--control-socket", orchestrator.socket]);
    await orchestrator.stop();
    const words = ["restore", file, "--state-directory", orchestrator.state];
    const restores = () => runProgram([hostler(), "vetting", ...words]);
    const bytes = readFileSync(`${file}.vetting`);
    bytes.fill(0xff, 4_096, 3 * 4_096);
    writeFileSync(`${file}.vetting`, bytes);
    const damaged = await restores();
    expect(damaged.exitCode).toBe(111);
    rmSync(`${file}.vetting`);
    const half = await restores();
    expect([half.exitCode, half.stderr]).toEqual([
      111,
      expect.stringContaining("Keep both files of a backup together"),
    ]);
    await orchestrator.start();
    expect((await orchestrator.call(vettingApi.run, { run })).verdict).toBe("passed");
  });
});

describe("runs", () => {
  test("an override stands in the stages' table; a new attempt has no outcome", async () => {
    await using orchestrator = await desk();
    const { run, agent } = await orchestrator.vets("FAIL");
    const stage = async (name: string) =>
      (await orchestrator.runs("show", `${run}`)).stdout
        .split("\n")
        .find((line) => line.startsWith(`${name} `));
    expect(await stage("PSU")).toMatch(/^PSU +FAIL +1 /);
    await orchestrator.does("retry", `${run}`);
    await agent.attempt("PSU");
    expect(await stage("PSU")).toMatch(/^PSU +- +2 .* -\s*$/);
    await agent.result("PSU", agent.lastDrawn, "FAIL");
    const reason = ["--reason", "one supply by design"];
    await orchestrator.does("override", `${run}`, "PSU", ...reason);
    expect(await stage("PSU")).toMatch(/^PSU +FAIL \(overridden\) +2 /);
    expect((await orchestrator.runs("show", `${run}`)).stdout).toMatch(/^OVERRIDDEN +PSU$/m);
  });

  test("one that was released has ended, its host was heard, and its log ends", async () => {
    await using orchestrator = await desk();
    const { run, agent } = await orchestrator.vets("FAIL");
    await using follower = startProgram(orchestrator.command("logs", `${run}`, "--follow"));
    await follower.said(/all stages were walked/);
    await orchestrator.does("release", `${run}`);
    expect(await orchestrator.does("runs")).toContain("Ended, failed");
    await agent.log(2, ["the last words"]);
    const { exitCode, stdout } = await follower.ended(60_000);
    expect([exitCode, stdout.trim().split("\n").at(-1)]).toEqual([
      0,
      expect.stringContaining("the last words"),
    ]);
    // One who comes later is told what there is.
    expect(await orchestrator.does("logs", `${run}`, "-f")).toBe(stdout);
    const { hosts } = await orchestrator.call(vettingApi.hosts, {});
    expect(hosts[0]?.last_seen).toMatch(/^\d{4}-/);
    await orchestrator.stop();
    await orchestrator.start();
    const { hosts: later } = await orchestrator.call(vettingApi.hosts, {});
    expect(later[0]?.last_seen).toMatch(/^\d{4}-/);
  });

  test("a token for a host that speaks is refused with who that is", async () => {
    await using orchestrator = await desk();
    const run = await orchestrator.prepare();
    const agent = await orchestrator.agent(run, await orchestrator.mint(run));
    await agent.claim();
    const words = ["token", `${run}`, "--address", orchestrator.url];
    const refused = await orchestrator.runs(...words);
    expect(refused.exitCode).toBe(111);
    expect(refused.stderr).toContain("hostler 1.0.0 at 127.0.0.1, in InventoryCheck, heard");
    expect(refused.stderr).toContain("--replace");
    await agent.beat();
    expect(await orchestrator.does(...words, "--replace")).toContain("hostler.vetting.token=");
  });

  test("the server's root leads to the page; the log says whose it is", async () => {
    await using orchestrator = await desk();
    for (const path of ["/", "/vetting/"]) {
      const answer = await fetch(`${orchestrator.url}${path}`, {
        redirect: "manual",
        tls: { rejectUnauthorized: false, checkServerIdentity: () => undefined },
      } as RequestInit);
      expect([answer.status, answer.headers.get("location")]).toEqual([302, "/vetting"]);
    }
    const { stderr } = await orchestrator.stop();
    expect(stderr).toContain("vetting orchestrator: listening at");
    expect(stderr).not.toContain("authority: ");
  });
});
