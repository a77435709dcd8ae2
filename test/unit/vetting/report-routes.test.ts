/** What an orchestrator tells of a run as files, and beside other hosts. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { runApi } from "../../../src/vetting/protocol-api.ts";
import { stages } from "../../../src/vetting/protocol-result.ts";
import { reportFiles } from "../../../src/vetting/report/manifest.ts";
import { reportFileOf, reportsOf, verifyReports } from "../../../src/vetting/report-files.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { exampleDossier } from "../../support/vetting-dossier.ts";
import { exampleInventory } from "../../support/vetting-inventory.ts";
import { startVettingServer, type VettingServer } from "../../support/vetting-server.ts";

const view = { token: () => "view-token" };
const rules = [
  { path: "memory.slots.count", match: { is: "equal" as const, value: 4 } },
  { path: "memory.slots[*].part", match: { is: "like" as const, value: "M321*" } },
];

/** A host that passes in all stages; its first disk reads so fast. */
async function vet(server: VettingServer, index: number, speed: number): Promise<number> {
  const inventory = exampleInventory();
  inventory.system.uuid = `u-${index}`;
  const mac = `52:54:00:00:02:0${index}`;
  const agent = await server.bootHost({ mac, name: `node-${index}`, spec: "r1", inventory });
  const [result] = exampleDossier().results;
  if (result === undefined) throw new Error("The example has results");
  for (const stage of stages) {
    const measurement = { name: "read", component: "disk S64ANX0R0", value: speed, unit: "MB/s" };
    await agent.stage(stage, {
      ...result.report,
      measurements: stage === "Storage" ? [measurement] : [],
    });
    await agent.sensors({ cpu0: 60 + index, psu1: 300 }, { "memory-corrected": index });
  }
  return agent.run;
}

describe("one file of a run", () => {
  const key = {
    publicKey: "",
    sign: (): string => {
      throw new Error("Nobody asked for a manifest");
    },
  };

  test("is made alone; the manifest needs the others, and a signature", () => {
    const dossier = exampleDossier();
    const now = 0;
    const whole = reportsOf(dossier, { publicKey: "", sign: () => "s" }, now);
    for (const name of reportFiles) {
      expect(reportFileOf(name, dossier, { key, now })).toBe(whole[name]);
    }
    expect(() => reportFileOf("manifest.json", dossier, { key, now })).toThrow("Nobody asked");
  });
});

describe("a run that has ended", () => {
  test("is told as files that prove each other", async () => {
    await using server = startVettingServer();
    await server.putSpec({ name: "r1", rules });
    const run = await vet(server, 1, 3_000);
    const reports = await server.http.client(view).call(runApi.report, { run });
    using folder = temporaryFolder();
    for (const [name, text] of Object.entries(reports)) {
      writeFileSync(join(folder.path, name), text);
    }
    const verified = verifyReports(folder.path, server.key.fingerprint);
    expect(verified.faults).toEqual([]);
    expect(verified.manifest).toMatchObject({ run, verdict: "passed", chain: { results: 7 } });
    expect(reports["report.html"]).toContain("node-1");
    expect(reports["report.json"]).toContain('"kind": "errors"');
  });

  test("is served as pages to who may see it, with a policy that allows nothing", async () => {
    await using server = startVettingServer();
    await server.putSpec({ name: "r1", rules });
    const run = await vet(server, 1, 3_000);
    const get = (path: string, token?: string) =>
      fetch(`${server.http.server.url}/v1/vetting/runs/${path}`, {
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        tls: { rejectUnauthorized: false },
      });
    const page = await get(`${run}/report.html`, "view-token");
    expect(page.status).toBe(200);
    expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(page.headers.get("content-security-policy")).toMatch(/default-src 'none'.*sandbox/);
    const types = ["report.json", "report.ocp.jsonl", "manifest.json"].map(async (name) => {
      const answer = await get(`${run}/${name}`, "view-token");
      const disposition = answer.headers.get("content-disposition");
      return `${answer.status} ${answer.headers.get("content-type")} ${disposition}`;
    });
    expect(await Promise.all(types)).toEqual([
      `200 application/json attachment; filename="run-${run}-report.json"`,
      `200 application/jsonl attachment; filename="run-${run}-report.ocp.jsonl"`,
      `200 application/json attachment; filename="run-${run}-manifest.json"`,
    ]);
    expect((await get(`${run}/report.html`)).status).toBe(401);
    expect((await get("99/report.html", "view-token")).status).toBe(404);
    expect((await get("x/report.html", "view-token")).status).toBe(400);
  });

  test("stands beside its spec, part by part", async () => {
    await using server = startVettingServer();
    await server.putSpec({ name: "r1", rules });
    const run = await vet(server, 1, 3_000);
    const { parts } = await server.http.client(view).call(runApi.diff, { run });
    expect(parts.find(({ part }) => part === "memory")).toMatchObject({ broken: 0 });
    expect(parts.find(({ part }) => part === "disks")?.free.length).toBeGreaterThan(5);
  });

  test("is compared with the last run of each other host of its spec", async () => {
    await using server = startVettingServer();
    await server.putSpec({ name: "r1", rules });
    for (const index of [1, 2, 3, 4, 5]) await vet(server, index, 3_000 + index);
    const run = await vet(server, 6, 1_500);
    const told = await server.http.client(view).call(runApi.outliers, { run });
    expect(told.hosts).toBe(5);
    expect(told.outliers).toMatchObject([{ kind: "measurement", value: 1_500, median: 3_003 }]);
  });
});

test("a run that waits for its host has a report, and no diff", async () => {
  await using server = startVettingServer();
  await server.putSpec({ name: "r1", rules });
  await server.orchestrator.addHost({ mac: "52:54:00:00:02:01", name: "node-1", spec: "r1" });
  const asked = { spec: "r1", who: "operator alice", window: 0 };
  const { run } = await server.orchestrator.startRun("52:54:00:00:02:01", asked);
  const client = server.http.client(view);
  expect((await client.call(runApi.report, { run }))["report.html"]).toContain("Queued");
  const refused = await client.call(runApi.diff, { run }).catch((error: Error) => error);
  expect(String(refused)).toContain("no inventory yet");
});
