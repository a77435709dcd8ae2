/** The compiled worker asks whether its machines are well, and does what they were declared to. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { guestLetters } from "../../scripts/test-guest.ts";
import { hashPath } from "../../src/image/nar.ts";
import type { VmHealth, VmMetrics, VmSpec, WorkerStatus } from "../../src/vm/protocol.ts";
import { type Program, startProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(90_000);

type Checks = NonNullable<VmSpec["health"]>;

const quick = { interval: "100ms", timeout: "20s", unhealthyAfter: 2, grace: "0ms" } as const;
/** What the guest says once, at its beginning. */
const once = { kind: "serial", pattern: "T00000001", ...quick } as const satisfies Checks[number];

let host: VmHost;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
  image = await host.image();
});
afterEach(() => host[Symbol.asyncDispose]());

/** Declares one machine with these checks, as a file does. */
async function apply(health: Checks, power = "running"): Promise<void> {
  const file = host.folder.file("machines.json");
  const machine = { ...host.specOf("web", image), health, power };
  writeFileSync(file, JSON.stringify({ machine: [machine] }));
  await host.say("apply", file);
}

async function healthOf(name: string): Promise<VmHealth> {
  const { health } = await host.summary(name);
  if (health === null) throw new Error(`${name} has no checks`);
  return health;
}

const turnsTo = (state: VmHealth["state"], name = "web") =>
  waitFor(`${name} to be ${state} (${host.said})`, async () => {
    const health = await healthOf(name);
    return health.state === state && health;
  });

const eventsOf = async (name: string) => (await host.history(name)).map(({ what }) => what);

/** The image, with checks of its own. */
async function imageWith(health: Checks): Promise<TestImage> {
  const path = join(image.path, "vm-config.json");
  const configuration = JSON.parse(readFileSync(path, "utf8"));
  writeFileSync(path, JSON.stringify({ ...configuration, hostler: { health_checks: health } }));
  return { path: image.path, hash: await hashPath(image.path) };
}

/** The machine's address is this host's as well, so that a page of ours is the guest's. */
async function serve(address: string, port: number): Promise<Program> {
  await host.on("ip", "address", "replace", `${address}/32`, "dev", "lo");
  const status = host.folder.file("status");
  writeFileSync(status, "200");
  const script = `
    const { readFileSync } = require("node:fs");
    Bun.serve({ hostname: "${address}", port: ${port}, fetch: () =>
      new Response("well", { status: Number(readFileSync("${status}", "utf8")) }) });
    console.error("serving");`;
  const server = startProgram([...host.enter, process.execPath, "-e", script]);
  await server.said(/serving/);
  return server;
}

const qemu = program("qemu-system-x86_64", "qemu-system-x86");

skipUnless("health checks of the worker", [root, qemu, program("ip", "iproute2")], () => {
  test("checks of its image count where none are declared, also for the next worker", async () => {
    image = await imageWith([once]);
    await host.start();
    await host.say("create", "web", "--image", image.path, "--hash", image.hash, "--start");
    const checks = ({ checks: all }: VmHealth) => all.map(({ check }) => check);
    expect(checks(await turnsTo("healthy"))).toEqual([`serial "${once.pattern}"`]);
    await host.kill();
    await host.start();
    await turnsTo("healthy");
    await host.say("delete", "web", "--now", "--wait");
    // What is declared takes their place.
    await apply([{ kind: "tcp", port: 7 }]);
    await host.reaches("web", "running");
    expect(checks(await healthOf("web"))).toEqual(["tcp port 7"]);
    await apply([]);
    expect((await host.summary("web")).health).toBeNull();
  });

  test("a machine is well when its console says so, which outlasts worker and VMM", async () => {
    const worker = await host.start();
    await apply([once]);
    await host.reaches("web", "running");
    await turnsTo("healthy");
    await worker.said(/web: healthy: serial "T00000001"/);
    expect(await host.say("list")).toMatch(/HEALTH\n.*healthy\n/);
    expect(await host.say("show", "web")).toMatch(/health +serial "T00000001": healthy \(/);
    const [measured] = JSON.parse(await host.say("metrics", "web", "--json")) as VmMetrics[];
    expect(measured?.healthy).toBe(1);
    expect(await host.say("metrics")).toContain('hostler_vm_healthy{vm="web"} 1\n');
    const status = JSON.parse(await host.say("status", "--json")) as WorkerStatus;
    expect(status.health).toEqual({ healthy: 1 });

    const vmm = host.vmm;
    await host.kill();
    await host.start();
    await host.reaches("web", "running");
    // It was said once, and to the worker that is dead.
    expect((await turnsTo("healthy")).checks[0]?.failures).toBe(0);
    expect(host.vmm).toBe(vmm);
    expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
    expect((await turnsTo("healthy")).checks[0]?.failures).toBe(0);

    await apply([once], "paused");
    await host.reaches("web", "paused");
    expect((await healthOf("web")).state).toBe("resting");
    const { probes } = (await healthOf("web")).checks[0] ?? {};
    await apply([once]);
    await waitFor("it to be asked again", async () => {
      return ((await healthOf("web")).checks[0]?.probes ?? 0) > (probes ?? 0);
    });
    // A guest that begins anew has said nothing yet, and then it says so again.
    const healthy = (await eventsOf("web")).filter((what) => what === "healthy").length;
    await host.type("web", guestLetters.reset);
    await waitFor("it to say so again", async () => {
      return (await eventsOf("web")).filter((what) => what === "healthy").length > healthy;
    });
  });

  test("an unhealthy machine is stopped, and restarted by the rule", async () => {
    const worker = await host.start();
    await apply([]);
    await host.reaches("web", "running");
    const { address } = await host.summary("web");
    await using _server = await serve(address ?? "", 8080);
    const http = { kind: "http", port: 8080, path: "/healthz", body: "w*l", ...quick } as const;
    const first = host.vmm;
    await apply([{ ...http, onUnhealthy: "restart", stopGrace: "10ms" }]);
    await turnsTo("healthy");
    // What is declared of its checks is changed while it runs.
    expect(host.vmm).toBe(first);

    writeFileSync(host.folder.file("status"), "503");
    await worker.said(/web: unhealthy: http port 8080 \/healthz: expected the status 200 to 399/);
    await waitFor("another VMM", async () => (await host.summary("web")).restarts > 0);
    writeFileSync(host.folder.file("status"), "200");
    await turnsTo("healthy");
    const { phase, pid } = await host.summary("web");
    expect(phase).toBe("running");
    expect(pid).not.toBe(first);
    const told = await eventsOf("web");
    const order = ["healthy", "unhealthy", "stop-requested", "died", "started", "healthy"];
    let at = -1;
    for (const what of order) {
      at = told.indexOf(what, at + 1);
      expect(at).toBeGreaterThan(-1);
    }
  });

  test("one that is only told of runs on, and so does one that nothing may restart", async () => {
    await host.start({ configuration: ["auto_restart = false"] });
    const never: Checks[number] = { kind: "serial", pattern: "never said", ...quick };
    const closed: Checks[number] = { kind: "tcp", port: 9, ...quick, timeout: "100ms" };
    await apply([never, { ...closed, onUnhealthy: "restart", stopGrace: "0ms" }]);
    await host.reaches("web", "running");
    const vmm = host.vmm;
    const { checks } = await waitFor("both to fail", async () => {
      const health = await healthOf("web");
      return health.checks.every(({ state }) => state === "unhealthy") && health;
    });
    expect(checks[0]?.reason).toBe('no line of the console has "never said" so far');
    expect(checks[1]?.reason).toMatch(/no answer within 100 ms|port 9: /);
    const [measured] = JSON.parse(await host.say("metrics", "web", "--json")) as VmMetrics[];
    expect(measured?.healthy).toBe(0);
    await host.counts("web");
    expect(host.vmm).toBe(vmm);
    expect(await host.summary("web")).toMatchObject({ phase: "running", restarts: 0 });
    // The next worker heard nothing of its boot, and says so.
    await host.kill();
    await host.start({ configuration: ["auto_restart = false"] });
    await waitFor("a probe", async () => {
      const [check] = (await healthOf("web")).checks;
      return check?.reason?.includes("heard by nobody") === true && check.state === "starting";
    });
  });

  test("checks that are none are refused with their place", async () => {
    await host.start();
    const file = host.folder.file("machines.toml");
    const { name, imagePath, hash = "" } = host.specOf("web", image);
    const lines = [`[[machine]]`, `name = "${name}"`, `imagePath = "${imagePath}"`];
    const check = ["[[machine.health]]", 'kind = "tcp"', "port = 0", 'interval = "1ms"'];
    writeFileSync(file, [...lines, `hash = "${hash}"`, ...check].join("\n"));
    const { exitCode, stderr } = await host.run("apply", file);
    expect(exitCode).not.toBe(0);
    expect(stderr).toContain(`${file}:7:1`);
    expect(stderr).toContain("machine[0].health[0].port");
    expect(stderr).toContain('expected at least "100ms"');
  });
});
