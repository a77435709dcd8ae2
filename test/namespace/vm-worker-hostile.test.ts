/** The compiled worker among wrong images, full disks, taken names and VMMs that do not answer. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { guestLetters } from "../../scripts/test-guest.ts";
import { holderSocketOf } from "../../src/holding/protocol.ts";
import { hashPath } from "../../src/image/nar.ts";
import { hostler } from "../support/binary.ts";
import { TestDaemon } from "../support/holding.ts";
import { startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { suspend } from "../support/suspend.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { isThere, type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let host: VmHost;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
  image = await host.image();
});
afterEach(() => host[Symbol.asyncDispose]());

const wordsOf = (name: string, { path, hash } = image) =>
  ["create", name, "--image", path, "--hash", hash] as const;
const create = (name: string, ...words: readonly string[]) => host.say(...wordsOf(name), ...words);
const runs = async (name: string) => {
  await create(name, "--start");
  await host.counts(name);
};
const endWorker = async () => {
  process.kill(host.workerProcessId, "SIGTERM");
  await host.worker.ended();
};
const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

/** What was refused, as the command line says it. */
async function refusal(...words: readonly string[]): Promise<string> {
  const { exitCode, stderr } = await host.run(...words);
  expect(exitCode).toBe(111);
  return stderr;
}

skipUnless("the worker among the hostile", needs, () => {
  describe("images", () => {
    test("a wrong hash: expected and received are told, and nothing of it is kept", async () => {
      await host.start();
      const wrong = `sha256-${"A".repeat(43)}=`;
      const told = await refusal(...wordsOf("web", { path: image.path, hash: wrong }));
      expect(told).toContain(image.path);
      expect(told).toContain(`expected ${wrong}`);
      expect(told).toContain(image.hash);
      expect(await host.summary("web")).toMatchObject({ phase: "failed" });
      expect(host.kept().images).toEqual([]);
      expect(await host.say("delete", "web", "--wait")).toBe("web: removed\n");
      expect(host.kept()).toEqual({ machines: [], images: [], run: [] });
      expect(await host.network()).toEqual({ links: [], tables: [] });
    });

    test("no image, and one whose vm-config.json is broken, are told", async () => {
      await host.start();
      const missing = { path: host.folder.file("nowhere"), hash: image.hash };
      expect(await refusal(...wordsOf("web", missing))).toMatch(/nowhere.*expected a folder/);
      writeFileSync(join(image.path, "vm-config.json"), '{"payload": {"kernel": 7}}');
      const broken = { path: image.path, hash: await hashPath(image.path) };
      expect(await refusal(...wordsOf("api", broken))).toMatch(/payload\.kernel: expected/);
      expect(host.kept().images).toEqual([]);
    });

    test("a delete while it is verified ends that, and nothing is left", async () => {
      const large = await host.image({ name: "large", padding: 256 * 1024 * 1024 });
      await host.start();
      using client = await host.client();
      await client.create(host.specOf("web", large), "running");
      await client.change("delete", "web");
      expect(await client.wait("web", "removed")).toBeNull();
      expect(host.kept()).toEqual({ machines: [], images: [], run: [] });
      expect(host.said).not.toContain("bug");
    });
  });

  test("names: one that is taken, one that is unknown, one that is none", async () => {
    await host.start();
    await create("web");
    expect(await refusal(...wordsOf("web"))).toContain("There is a machine web already");
    expect(await refusal("events", "wbe")).toContain("There is no machine wbe");
    expect(await refusal("boot", "wbe")).toContain("Did you mean web?");
    expect((await host.run("boot", "No/Name")).exitCode).not.toBe(0);
    expect(await refusal("pause", "web")).toContain("web is created: it has not been booted");
  });

  describe("VMMs", () => {
    test("without a program the worker says so, and machines wait for it", async () => {
      await host.start({ configuration: ['qemu_path = "/nowhere/qemu"'] });
      expect(await host.say("status")).toMatch(/WARNING.*No machine can run.*\/nowhere\/qemu/);
      using client = await host.client();
      await client.create(host.specOf("web", image), "running");
      // Whoever waits is told, and not kept waiting until somebody installs one.
      expect(await refusal("boot", "web", "--wait")).toMatch(
        /web was not started: .*No hypervisor can run it.*It is tried again by itself/s,
      );
      await waitFor("the refusal", async () => {
        return (await host.summary("web")).reason?.includes("No hypervisor can run it");
      });
      expect(host.vmmProcesses()).toEqual([]);
      await endWorker();
      await host.start();
      await host.reaches("web", "running");
    });

    test("one that cannot run is told in its VMM's words, and nobody waits for it", async () => {
      await host.start();
      using client = await host.client();
      const much = { ...host.specOf("web", image), memoryMb: 4 * 1024 * 1024 };
      await client.create(much, "running");
      const told = /web was not started: its VMM died: qemu-system.*It is tried again by itself/s;
      expect(await refusal("boot", "web", "--wait")).toMatch(told);
      expect((await host.summary("web")).reason).toMatch(/its VMM died: qemu-system/);
    });

    test("one that hangs is reported, never collected, and taken up when it answers", async () => {
      await host.start();
      await runs("web");
      const { vmm } = host;
      const before = (await host.summary("web")).pid;
      suspend(vmm);
      await host.kill();
      await host.start();
      const told = await waitFor("the report", async () => {
        const summary = await host.summary("web");
        return summary.phase === "detached" && host.said.includes("attach-refused") && summary;
      });
      expect(told).toMatchObject({ wanted: "running", pid: before });
      expect(told.detached_ms).toBeGreaterThan(0);
      expect(host.vmm).toBe(vmm);
      process.kill(vmm, "SIGCONT");
      await host.reaches("web", "running");
      await host.counts("web");
      expect(host.vmm).toBe(vmm);
    });

    test("a control socket that answers garbage: detached, until its own is back", async () => {
      await host.start();
      await runs("web");
      const { vmm } = host;
      await host.kill();
      const [user = ""] = host.vmms().keys();
      const [folder = ""] = readdirSync(join(host.runFolder, user));
      const control = join(host.runFolder, user, folder, "control");
      renameSync(control, `${control}.own`);
      const garbage = Bun.listen({
        unix: control,
        socket: {
          open: (socket) => void socket.write("\0\xff{not json\n".repeat(9)),
          data: () => {},
        },
      });
      await host.start();
      await waitFor("the report", () => host.said.includes("attach-refused"));
      expect(await host.summary("web")).toMatchObject({ phase: "detached", wanted: "running" });
      expect(host.vmm).toBe(vmm);
      garbage.stop(true);
      rmSync(control, { force: true });
      renameSync(`${control}.own`, control);
      await host.reaches("web", "running");
      await host.counts("web");
      expect(host.vmm).toBe(vmm);
    });

    test("without auto_restart one that died stays dead; a boot forgives", async () => {
      await host.start({ configuration: ["auto_restart = false"] });
      await runs("web");
      process.kill(host.vmm, "SIGKILL");
      const failed = await host.reaches("web", "failed");
      expect(failed.reason).toContain("its VMM died");
      expect(host.vmmProcesses()).toEqual([]);
      expect(await host.say("boot", "web", "--wait")).toStartWith("web: running");
    });

    test("a guest that panics is started again, up to the start limit", async () => {
      const limits = ["[start_limit]", "starts = 2", 'within = "1h"'];
      await host.start({ configuration: limits });
      await runs("web");
      const first = host.vmm;
      await host.type("web", guestLetters.panic);
      await waitFor("another VMM", () => host.vmmProcesses().some((one) => one !== first));
      await host.reaches("web", "running");
      await host.counts("web");
      await host.type("web", guestLetters.panic);
      const failed = await host.reaches("web", "failed");
      expect(failed.reason).toContain("the start limit is reached: at most 2 starts within 1 h");
      expect(failed.reason).toContain("its guest panicked");
      expect(await host.say("boot", "web", "--wait")).toStartWith("web: running");
    });

    test("one that dies again and again is waited with, and how long is shown", async () => {
      await host.start({ configuration: ['backoff = { first = "1h", cap = "1h" }'] });
      await runs("web");
      const first = host.vmm;
      process.kill(first, "SIGKILL");
      await waitFor("another VMM", () => host.vmmProcesses().some((one) => one !== first));
      await host.reaches("web", "running");
      process.kill(host.vmm, "SIGKILL");
      await host.reaches("web", "backing-off");
      expect(await host.say("events", "web")).toMatch(
        /backing-off restart in .*failure 2 in a row/,
      );
      expect(await host.say("boot", "web", "--wait")).toStartWith("web: running");
    });
  });

  describe("the host", () => {
    test("a second worker with the same folder is refused", async () => {
      await host.start();
      const second = host.spawn();
      const { exitCode, stderr } = await second.ended();
      expect(exitCode).toBe(111);
      expect(stderr).toContain("expected a folder that no other worker uses");
    });

    test("a second worker with the same run_dir is refused while the first runs", async () => {
      await host.start();
      await runs("web");
      const before = host.kept();
      const second = host.folder.file("second");
      const lines = [
        `vm_artifacts_dir = "${second}"`,
        `run_dir = "${host.runFolder}"`,
        `control_socket = "${second}.sock"`,
        'network_bridge = "br-second"',
        'vm_subnet_base = "10.101.0.0/24"',
      ];
      writeFileSync(`${second}.toml`, lines.join("\n"));
      const words = [...host.enter, hostler(), "vm", "worker", "--config", `${second}.toml`];
      await using refused = startProgram(words);
      const { exitCode, stderr } = await refused.ended();
      expect(exitCode).toBe(111);
      expect(stderr).toContain(`Cannot keep sockets of machines in ${host.runFolder}`);
      expect(stderr).toContain("name another folder by run_dir");
      expect(host.kept()).toEqual(before);
      await host.counts("web");
      // The lock is the worker's, and not its machines'.
      await host.kill();
      await using free = startProgram(words);
      await free.said(/takes requests at/);
    });

    test("a second worker with the same bridge is refused, and touches nothing of it", async () => {
      await host.start();
      await runs("web");
      const before = await host.network();
      const second = host.folder.file("second");
      const refuseSecond = async (controlSocket: string) => {
        const lines = [
          `vm_artifacts_dir = "${second}"`,
          `run_dir = "${second}-run"`,
          `control_socket = "${controlSocket}"`,
        ];
        writeFileSync(`${second}.toml`, lines.join("\n"));
        await using worker = startProgram([
          ...[...host.enter, hostler(), "vm", "worker", "--config", `${second}.toml`],
        ]);
        const { exitCode, stderr } = await worker.ended();
        expect(exitCode).toBe(111);
        return stderr;
      };
      const own = `${second}.sock`;
      const told = await refuseSecond(own);
      expect(told).toContain("Cannot make the network of br-procurator");
      expect(told).toContain(`the worker with ${host.artifacts}`);
      expect(told).toContain("Name another one by network_bridge");
      // Nor with the first one's socket, which it would wait for without end.
      expect(await refuseSecond(host.controlSocket)).toContain(
        `Cannot listen on ${host.controlSocket}: somebody listens there already`,
      );
      await host.kill();
      expect(await refuseSecond(own)).toContain("whose machines have cards there");
      expect(await host.network()).toEqual(before);
      await host.start();
      await host.counts("web");
      await host.say("delete", "web", "--now", "--wait");
      await endWorker();
      // With its machines the bridge is nobody's any more.
      const words = [...host.enter, hostler(), "vm", "worker", "--config", `${second}.toml`];
      await using free = startProgram(words);
      await free.said(/takes requests at/);
    });

    test("a worker whose control socket has the holder of another one is refused", async () => {
      using other = new TestDaemon(host.controlSocket);
      await other.ready();
      const { exitCode, stderr } = await host.spawn().ended();
      expect(exitCode).toBe(111);
      expect(stderr).toContain(`Cannot take requests at ${host.controlSocket}: expected`);
    });

    test("a worker that waits for a holder that hangs ends when it is told to", async () => {
      const asked = Promise.withResolvers<void>();
      const silent = Bun.listen({
        unix: holderSocketOf(host.controlSocket),
        socket: { open: () => {}, data: () => asked.resolve() },
      });
      const worker = host.spawn();
      await asked.promise;
      process.kill(host.workerProcessId, "SIGTERM");
      expect(await worker.ended()).toMatchObject({ exitCode: 0 });
      expect(host.said).not.toContain("takes requests at");
      silent.stop(true);
    });

    test("a link of somebody else with the bridge's name is told, and left alone", async () => {
      await host.on("ip", "link", "add", "br-procurator", "type", "bridge");
      await host.start();
      using client = await host.client();
      await client.create(host.specOf("web", image), "created");
      await waitFor("the refusal", () => host.said.includes("network-refused"));
      expect((await host.summary("web")).reason).toContain("br-procurator");
      expect(await host.network()).toEqual({ links: ["br-procurator"], tables: [] });
      expect(host.vmmProcesses()).toEqual([]);
      await host.on("ip", "link", "delete", "br-procurator");
      await host.reaches("web", "created");
    });

    test("without a free address a machine is refused; with one again it is made", async () => {
      await host.start({ configuration: ['vm_subnet_base = "10.99.0.0/30"'] });
      expect(await create("web")).toContain("10.99.0.2");
      expect(await refusal(...wordsOf("api"))).toMatch(/address/);
      expect(host.kept().machines).toEqual(["web"]);
      await host.say("delete", "web", "--now", "--wait");
      expect(await create("api")).toContain("10.99.0.2");
    });

    test("a record that is damaged: its machine runs on, and is told", async () => {
      await host.start();
      await runs("web");
      await create("api");
      await host.say("delete", "api", "--now", "--wait");
      const { vmm } = host;
      const { address } = await host.summary("web");
      await endWorker();
      const record = join(host.machineFolder("web"), "machine.json");
      const whole = readFileSync(record);
      writeFileSync(record, whole.subarray(0, whole.indexOf('"choice"')));
      const before = await host.network();
      await host.start();
      expect(host.said).toMatch(
        /web\/machine\.json is not understood, and its machine is left alone/,
      );
      expect(host.said).toContain(`Nobody else is given what reads as its address: ${address}`);
      const mend = "hostler vm delete web --now";
      expect(await host.say("status")).toMatch(
        /WARNING +web: .*machine\.json is not understood.*hostler vm delete web --now/,
      );
      expect(await host.say("list")).toMatch(/web +damaged .*machine\.json is not understood/);
      const [told, ...others] = JSON.parse(await host.say("list", "--json")) as unknown[];
      expect(others).toEqual([]);
      expect(told).toEqual({ name: "web", path: record, damaged: expect.stringContaining("JSON") });
      const taken = await refusal(...wordsOf("web"));
      expect(taken).toContain("There is a machine web already");
      for (const why of [taken, await refusal("show", "web"), await refusal("delete", "web")]) {
        expect(why).toContain(mend);
      }
      // What others do takes nothing of it: no image, no TAP, no folder of its VMM.
      expect(await create("api")).not.toContain(`${address}\n`);
      expect(host.vmms().size).toBe(2);
      expect((await host.network()).links).toEqual(expect.arrayContaining(before.links));
      await host.say("delete", "api", "--now", "--wait");
      expect(host.vmm).toBe(vmm);
      expect(host.kept().images).toHaveLength(1);
      expect(await host.network()).toEqual(before);
      await endWorker();
      writeFileSync(record, "{}");
      await host.start();
      expect(host.said).toContain("No address can be read in it");
      await endWorker();
      writeFileSync(record, whole);
      await host.start();
      await host.reaches("web", "running");
      await host.counts("web");
      expect(host.vmm).toBe(vmm);
    });

    test("a machine with a damaged record goes by delete --now, and no other one", async () => {
      await host.start();
      for (const name of ["web", "api"]) await runs(name);
      const before = new Map((await host.summaries()).map(({ name, pid }) => [name, pid]));
      await endWorker();
      const record = join(host.machineFolder("web"), "machine.json");
      const whole = readFileSync(record);
      for (const damage of [whole.subarray(0, whole.indexOf('"choice"')), "{}"]) {
        writeFileSync(record, damage);
        await host.start();
        if (damage !== "{}") await endWorker();
      }
      expect(await host.say("delete", "web", "--now", "--wait")).toBe("web: removed\n");
      expect((await host.summaries()).map(({ name, pid }) => [name, pid])).toEqual([
        ["api", before.get("api") ?? null],
      ]);
      expect(host.vmmProcesses()).toHaveLength(1);
      expect(host.kept().machines).toEqual(["api"]);
      expect((await host.network()).links).toHaveLength(2);
      expect(await host.say("status")).not.toContain("is not understood");
      await host.counts("api");
      await runs("web");
      await endWorker();
      const lost = readFileSync(record);
      writeFileSync(record, lost.subarray(0, lost.indexOf('"choice"')));
      writeFileSync(join(host.artifacts, "desired.json"), "[");
      await host.start();
      expect(await host.say("status")).toMatch(/desired\.json is not understood.*vm apply FILE/);
      for (const name of ["web", "api"]) await host.say("delete", name, "--now", "--wait");
      expect(host.kept()).toEqual({ machines: [], images: [], run: [] });
      expect(await host.network()).toEqual({ links: [], tables: [] });
    });

    test("a record that cannot be written is waited for, and what follows it", async () => {
      await host.start();
      await runs("web");
      const folder = host.machineFolder("web");
      await host.on("mount", "--bind", folder, folder);
      await host.on("mount", "-o", "remount,bind,ro", folder);
      using client = await host.client();
      // The worker's own word for the folder is below the mount from now on.
      await client.change("pause", "web");
      await waitFor("the trouble", () => host.said.includes("its record cannot be written"));
      const why = /its record cannot be written, and what follows waits: .*EROFS/;
      expect(await refusal("pause", "web", "--wait")).toMatch(why);
      expect(await host.say("list")).toMatch(why);
      expect(await host.say("status")).toMatch(/WARNING +web: its record cannot be written/);
      await host.on("umount", folder);
      await host.reaches("web", "paused");
      expect(await host.say("status")).not.toContain("cannot be written");
      await host.kill();
      await host.start();
      await host.reaches("web", "paused");
    });
  });

  onlyInAll(() => {
    test("50 machines at once, taken up after the worker was killed", async () => {
      await host.start();
      using client = await host.client();
      const names = Array.from({ length: 50 }, (_value, index) => `vm-${index}`);
      await Promise.all(names.map((name) => client.create(host.specOf(name, image), "created")));
      await Promise.all(names.map((name) => client.wait(name, "created")));
      const before = host.vmmProcesses().toSorted();
      expect(before).toHaveLength(50);
      await host.kill();
      await host.start();
      using again = await host.client();
      await Promise.all(names.map((name) => again.wait(name, "created")));
      expect(host.vmmProcesses().toSorted()).toEqual(before);
      for (const name of names) await again.change("delete", name, { now: true });
      await Promise.all(names.map((name) => again.wait(name, "removed")));
      expect(host.kept()).toEqual({ machines: [], images: [], run: [] });
      expect(await host.network()).toEqual({ links: [], tables: [] });
    }, 300_000);
  });
});

skipUnless("the worker on a full disk", needs, () => {
  test("machines that filled it are paused, ended and removed; new ones are told", async () => {
    using folder = temporaryFolder();
    using disk = new SmallDisk(folder.file("artifacts"), "4m");
    await using small = await VmHost.make({ folder });
    const usual = await small.image();
    await small.start();
    using client = await small.client();
    for (const name of ["web", "api"]) {
      await client.create(small.specOf(name, usual), "running");
      await client.wait(name, "running");
    }
    disk.fill();
    expect(disk.free).toBe(0);
    expect(await small.say("pause", "web", "--wait")).toStartWith("web: paused");
    await client.create(small.specOf("new", usual), "created");
    const { exitCode, stderr } = await small.run("boot", "new", "--wait");
    expect(exitCode).toBe(111);
    expect(stderr).toMatch(/new: its record cannot be written.*ENOSPC.*when there is room in/s);
    await small.kill();
    await small.start();
    await small.reaches("web", "paused");
    using again = await small.client();
    await again.create(small.specOf("new", usual), "created");
    expect(await small.say("delete", "new", "--wait")).toBe("new: removed\n");
    for (const name of ["web", "api"]) {
      expect(await small.say("delete", name, "--now", "--wait")).toBe(`${name}: removed\n`);
    }
    expect(small.kept()).toEqual({ machines: [], images: [], run: [] });
  });

  test("a machine waits for room, for its record and for its image", async () => {
    using folder = temporaryFolder();
    using disk = new SmallDisk(folder.file("artifacts"), "4m");
    await using small = await VmHost.make({ folder });
    const padded = await small.image({ padding: 2 * 1024 * 1024 });
    await small.start();
    disk.fill();
    using client = await small.client();
    await client.create(small.specOf("web", padded), "created");
    await waitFor("the trouble", () => small.said.includes("its record cannot be written"));
    disk.clear();
    await small.reaches("web", "created");
    const large = await small.image({ name: "large", padding: 3 * 1024 * 1024 });
    await client.create(small.specOf("api", large), "created");
    await waitFor("the refusal", () => small.said.includes("prepare-refused"));
    expect((await small.summary("api")).reason).toContain("ENOSPC");
    await client.change("delete", "api");
    expect(await client.wait("api", "removed")).toBeNull();
    expect(isThere(small.machineFolder("api"))).toBe(false);
    expect(small.kept().images).toHaveLength(1);
  });
});
