/** The compiled worker and a master: what is assigned, and what becomes of it without one. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import type { WorkerStatus } from "../../src/vm/protocol.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { assigned, startMastered, WireMaster } from "../support/vm-mastered-host.ts";
import { isThere, type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let host: VmHost;
let master: WireMaster;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
  master = new WireMaster(host);
  await master.start();
  await master.enrol();
  image = await host.image();
});
afterEach(async () => {
  await master[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

const status = async () => JSON.parse(await host.say("status", "--json")) as WorkerStatus;
const connected = () =>
  waitFor("the worker to be connected", async () => (await status()).master?.state === "connected");
const disconnected = () =>
  waitFor("the worker to notice", async () => (await status()).master?.state === "disconnected");
const web = (more: Parameters<typeof assigned>[2] = {}) => assigned(host, image, more);

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("a worker that follows a master", needs, () => {
  test("has what is assigned, says so, and keeps it while the master is away", async () => {
    await startMastered(host, master);
    const first = await master.hears("of a worker without machines", () => true);
    expect(first).toMatchObject({ observed: null, watchdog: null, machines: [], labels: {} });
    await master.assigns([web()], { revision: 1 });
    await host.reaches("web", "running");
    const running = await master.hears("of the machine", ({ machines }) =>
      machines.some(({ phase, standing }) => phase === "running" && standing === "converged"),
    );
    expect(running.machines[0]).toMatchObject({ name: "web", owner_generation: 10, processors: 1 });
    expect(running.observed).toMatchObject({ generation: 1, revision: 1 });
    expect(running.convergence_percent).toBe(100);

    await master.dies();
    await disconnected();
    await host.counts("web");
    const before = host.vmm;
    await host.kill();
    await startMastered(host, master);
    await host.reaches("web", "running");
    expect(host.vmm).toBe(before);
    expect((await status()).master).toMatchObject({ state: "disconnected", revision: 1 });

    await master.start();
    await connected();
    await master.assigns([], { revision: 2, removals: [{ name: "web", owner_generation: 10 }] });
    await host.reaches("web", "stopping");
    // This guest hears of no power button.
    await host.say("shutdown", "web", "--now");
    await waitFor("its removal", () => !isThere(host.machineFolder("web")));
    await master.hears("that it is gone", ({ machines }) => machines.length === 0);
  });

  test("removes nothing of which nobody said so, and nothing of an operator's", async () => {
    await startMastered(host, master);
    await master.assigns([web(), web({ name: "other", power: "off" })], { revision: 1 });
    await host.reaches("web", "running");
    await host.reaches("other", "off");
    using client = await host.client();
    await client.create(host.specOf("mine", image), "created");
    const removals = [
      { name: "web", owner_generation: 9 },
      { name: "mine", owner_generation: 99 },
    ];
    await master.assigns([], { revision: 2, removals });
    await master.hears("of the second", ({ observed }) => observed?.revision === 2);
    await host.reaches("web", "running");
    await host.reaches("mine", "created");
    await host.reaches("other", "off");
    const apply = host.folder.file("machines.json");
    writeFileSync(apply, JSON.stringify({ machine: [] }));
    const refused = await host.run("apply", apply);
    expect([refused.exitCode, refused.stderr]).toEqual([
      111,
      expect.stringContaining("expected a declaration at the master"),
    ]);
  });

  test("a report that is heard, and not answered, is followed by the next one", async () => {
    await startMastered(host, master);
    await master.assigns([web()], { revision: 1 });
    await host.reaches("web", "running");
    await master.says({ waits: "web-2 has not said yet what it has" });
    const told = () => host.said.split("reports are heard, and not answered yet: web-2 has");
    await waitFor("that it is told", () => told().length > 1);
    const { sequence } = await master.hears("of the worker", () => true);
    // Each by the interval of its configuration, and not after a wait that grows.
    await master.hears("twenty reports more", (report) => report.sequence > sequence + 20);
    expect(told().length).toBe(2);
    expect(host.said).not.toContain("the master is not reached");
    expect((await status()).master).toMatchObject({
      ...{ state: "connected", reason: "web-2 has not said yet what it has" },
    });
    await master.says({ waits: null });
    await waitFor("an answer", async () => (await status()).master?.reason === null);
    await host.counts("web");
  });

  test("a machine that is another's by now is ended first, and stays so", async () => {
    await startMastered(host, master);
    await master.assigns([web()], { revision: 1 });
    await host.reaches("web", "running");
    await master.says({ stale: [{ name: "web", owner_generation: 10 }] });
    await host.reaches("web", "off");
    expect(host.said).toContain("web: it is another worker's by now: its VMM is ended");
    const booted = await host.run("boot", "web");
    expect([booted.exitCode, booted.stderr]).toEqual([
      111,
      expect.stringContaining("web may not run here now: its owner generation 10 counts no more"),
    ]);
    await master.hears("that it takes no room", ({ machines, total, free }) => {
      const [left] = machines;
      return left?.phase === "off" && free.processors === total.processors;
    });
    await host.kill();
    await master.dies();
    await startMastered(host, master);
    await disconnected();
    await host.reaches("web", "off");
    expect((await status()).master?.held).toEqual([
      { name: "web", reason: expect.stringContaining("owner generation 10 counts no more") },
    ]);
    await master.start();
    await master.says({ stale: [] });
    await master.assigns([web({ owner_generation: 12 })], { revision: 2 });
    await host.reaches("web", "running");
    const record = JSON.parse(readFileSync(`${host.machineFolder("web")}/machine.json`, "utf8"));
    expect(record.assigned.owner_generation).toBe(12);
    await master.says({ stale: [{ name: "web", owner_generation: 12 }] });
    await host.reaches("web", "off");
    // What is left over of one that may run elsewhere.
    await master.assigns([], { revision: 3, removals: [{ name: "web", owner_generation: 12 }] });
    await waitFor("its removal", () => !isThere(host.machineFolder("web")));
  });

  test("what it cannot make is told to its master and by status, with the reason", async () => {
    await startMastered(host, master);
    using client = await host.client();
    await client.create(host.specOf("mine", image), "created");
    const spec = { ...host.specOf("lost", image), networks: ["nosuch"] };
    await master.assigns([{ ...web(), spec }, web({ name: "mine" })], { revision: 1 });
    const { machines } = await master.hears("of both", (report) =>
      report.machines.some(({ name, phase }) => name === "lost" && phase === "absent"),
    );
    expect(machines.find(({ name }) => name === "lost")).toMatchObject({
      ...{ owner_generation: 10, standing: "failed", reason: expect.stringContaining("nosuch") },
    });
    expect(machines.find(({ name }) => name === "mine")).toMatchObject({
      ...{ owner_generation: null, standing: "left-alone" },
    });
    expect(await host.say("status")).toMatch(/NOT MADE +lost: .*nosuch/);
  });

  test("a master that says what is no assignment, or an older one, changes nothing", async () => {
    await startMastered(host, master);
    await master.assigns([web()], { generation: 5, revision: 7 });
    await host.reaches("web", "running");
    const told = (text: string) =>
      waitFor(`"${text}" to be told (${host.said})`, () => host.said.includes(text));
    await master.assigns([], {
      generation: 4,
      revision: 8,
      removals: [{ name: "web", owner_generation: 10 }],
    });
    await told("expected generation 5 or a later one, received 4");
    await master.says({ raw: { kind: "assignment", version: 1, machines: "all" } });
    await told("answered what is no answer");
    await master.says({ raw: "huge" });
    await told("16");
    await master.says({ raw: null });
    await master.assigns([web()], { generation: 5, revision: 8 });
    await connected();
    await host.reaches("web", "running");
    await host.counts("web");
    expect((await status()).master).toMatchObject({ generation: 5, revision: 8 });
  });
});
