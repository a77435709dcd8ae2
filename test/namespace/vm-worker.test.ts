/** The compiled worker with QEMU: machines from creation to removal, and what the commands say. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, constants, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { guestLetters } from "../../scripts/test-guest.ts";
import { outputBytes } from "../../src/vm/perform/vmm-output.ts";
import type { VmMetrics, VmSummary } from "../../src/vm/protocol.ts";
import { expectContinuous } from "../support/guest-numbers.ts";
import { onlyInAll } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let host: VmHost;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
  image = await host.image();
});
afterEach(() => host[Symbol.asyncDispose]());

const nothing = { links: [], tables: [] };
const create = (name: string, ...words: readonly string[]) =>
  host.say("create", name, "--image", image.path, "--hash", image.hash, ...words);
const parsed = async (...words: readonly string[]) =>
  JSON.parse(await host.say(...words, "--json")) as VmSummary;

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("the worker with QEMU", needs, () => {
  test("a machine from its creation to its removal, after which nothing is left", async () => {
    await host.start();
    expect(await host.network()).toEqual(nothing);
    const made = await create("web");
    expect(made).toMatch(/^web: created, 10\.100\.\d+\.\d+\n$/);
    expect(host.numbers("web")).toEqual([]);
    const { links, tables } = await host.network();
    expect(links).toContain("br-procurator");
    expect(links).toHaveLength(2);
    expect(tables).not.toEqual([]);

    expect(await parsed("boot", "web", "--wait")).toMatchObject({ phase: "running" });
    await host.counts("web");
    expect(await host.say("pause", "web", "--wait")).toStartWith("web: paused");
    const still = await readStill("web");
    expect(await host.say("resume", "web", "--wait")).toStartWith("web: running");
    await waitFor("it to count on", () => host.numbers("web").includes(still + 1));
    expectContinuous(host.numbers("web"));

    // The guest has no driver of a power button: its VMM is asked after the grace.
    using client = await host.client();
    await client.change("shutdown", "web", { grace_ms: 10 });
    expect(await client.wait("web", "off")).toMatchObject({ phase: "off", pid: null });
    expect(host.vmmProcesses()).toEqual([]);
    expect(await parsed("boot", "web", "--wait")).toMatchObject({ phase: "running" });
    await waitFor("a count from the beginning", () => host.numbers("web").lastIndexOf(1) > 0);

    expect(await host.say("delete", "web", "--now", "--wait")).toBe("web: removed\n");
    expect(host.vmmProcesses()).toEqual([]);
    expect(await host.network()).toEqual(nothing);
    expect(host.kept()).toEqual({ machines: [], images: [], run: [] });
    expect(await host.say("list", "--json")).toBe("[]\n");
    expect(host.said).not.toContain("bug");
  });

  // It waits for five seconds before it says anything.
  onlyInAll(() => {
    const slowProgram = (text: string) => {
      const path = host.folder.file("slow-qemu");
      writeFileSync(path, `#!/bin/sh\n${text}\n`);
      chmodSync(path, 0o755);
      return host.spawn({ configuration: [`qemu_path = "${path}"`] });
    };

    test("a program that is slow to tell its version is waited for, and that is told", async () => {
      const go = host.folder.file("go");
      const qemu = 'exec qemu-system-x86_64 "$@"';
      const worker = slowProgram(`until [ -e ${go} ]; do sleep 0.05; done\n${qemu}`);
      await worker.said(/still waits for the hypervisors' programs/);
      expect(host.said).not.toContain("takes requests");
      writeFileSync(go, "");
      await worker.said(/takes requests at/);
      await create("web");
      expect(await parsed("boot", "web", "--wait")).toMatchObject({ phase: "running" });
    });

    test("a worker that waits for such a program ends when it is told to", async () => {
      const worker = slowProgram("exec sleep 50");
      await worker.said(/still waits for the hypervisors' programs/);
      process.kill(host.workerProcessId, "SIGTERM");
      expect(await worker.ended()).toMatchObject({ exitCode: 0 });
    });
  });

  test("its VMM is replaced under it, twice, and it counts on without a gap", async () => {
    await host.start();
    await create("web", "--start");
    await host.counts("web");
    expect((await host.run("survivable", "web")).exitCode).toBe(0);
    const processes = [host.vmm];
    for (let turn = 0; turn < 2; turn += 1) {
      expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
      await host.counts("web");
      processes.push(host.vmm);
    }
    expect(new Set(processes).size).toBe(3);
    expectContinuous(host.numbers("web"));
    expect((await host.summary("web")).restarts).toBe(0);
  });

  test("one that was not booted cannot have its VMM replaced, and is told why", async () => {
    await host.start();
    await create("web");
    const { exitCode, stdout } = await host.run("survivable", "web");
    expect(exitCode).not.toBe(0);
    expect(stdout).toContain("it has not been booted");
    const refused = await host.run("replace-vmm", "web");
    expect(refused.stderr).toContain("it has not been booted");
  });

  test("the share of a processor is the worker's own reading, whoever asks", async () => {
    await host.start();
    await create("web", "--start");
    const share = async () => {
      const [measured] = JSON.parse(await host.say("metrics", "web", "--json")) as VmMetrics[];
      return measured?.cpu_percent ?? null;
    };
    await waitFor("a reading", async () => (await share()) !== null);
    // One who asks takes nothing from the next.
    for (let count = 0; count < 3; count += 1) expect(await share()).not.toBeNull();
  });

  test("no thread of a VMM waits for a connection that another one has taken", async () => {
    await host.start();
    await create("web", "--start");
    const [, flags = ""] =
      /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${host.vmm}/fdinfo/0`, "utf8")) ?? [];
    expect(Number.parseInt(flags, 8) & constants.O_NONBLOCK).toBe(constants.O_NONBLOCK);
    expect(readlinkSync(`/proc/${host.vmm}/fd/0`)).toStartWith("socket:");
  });

  test("a machine type and a processor model that are asked for, and what binds them", async () => {
    await host.start();
    using client = await host.client();
    const wish = { machineType: "microvm", processorModel: "max" };
    await client.create({ ...host.specOf("web", image), ...wish }, "running");
    await host.counts("web");
    expect(await client.show("web")).toMatchObject({
      machine_type: "microvm",
      processor_model: "max",
      survivable: { same_build_only: expect.stringContaining("microvm") },
    });
    const wrong = [{ machineType: "pc-q35-0.1" }, { processorModel: "qemu65" }];
    for (const [index, one] of wrong.entries()) {
      const made = client.create({ ...host.specOf("old", image), ...one }, "running");
      const why = ["it has not pc-q35-0.1, but pc-q35-", "no processor model qemu65: did you mean"];
      expect(await made.catch((error: Error) => error.message)).toContain(why[index] ?? "");
    }
    expect((await client.list()).map(({ name }) => name)).toEqual(["web"]);
  });

  test("a VMM that is killed is replaced by the rule; a guest that ends is not", async () => {
    await host.start();
    await create("web", "--start");
    await host.counts("web");
    const first = host.vmm;
    process.kill(first, "SIGKILL");
    await waitFor("another VMM", () => host.vmmProcesses().some((one) => one !== first));
    expect(await host.reaches("web", "running")).toMatchObject({ restarts: 1 });
    await host.counts("web");
    await host.type("web", guestLetters.off);
    const off = await host.reaches("web", "off");
    expect(off).toMatchObject({ wanted: "off", restarts: 1 });
    expect(host.vmmProcesses()).toEqual([]);
  });
});

skipUnless("a replacement with QEMU", needs, () => {
  test("a new VMM that does not start leaves the machine as it is, and that is told", async () => {
    const path = host.folder.file("qemu");
    const fails = host.folder.file("fails");
    const real = Bun.which("qemu-system-x86_64");
    const refuses = `[ -e ${fails} ] && { echo "no way in" >&2; exit 1; }`;
    const script = `#!/bin/sh\ncase "$*" in *-incoming*) ${refuses};; esac\nexec ${real} "$@"\n`;
    writeFileSync(path, script);
    chmodSync(path, 0o755);
    await host.start({ configuration: [`qemu_path = "${path}"`, 'hypervisor = "qemu"'] });
    await create("web", "--start");
    await host.counts("web");
    const before = host.vmm;
    writeFileSync(fails, "");
    const { exitCode, stderr } = await host.run("replace-vmm", "web", "--wait");
    expect({ exitCode, stderr }).toMatchObject({
      exitCode: 111,
      stderr: expect.stringContaining("was not replaced, and its guest goes on in it: its new VMM"),
    });
    await waitFor("its words", () => host.said.includes("of its VMM: no way in"));
    await waitFor("the end of the new one", () => host.vmmProcesses().length === 1);
    expect(host.vmm).toBe(before);
    await host.counts("web");
    expect(await host.summary("web")).toMatchObject({ phase: "running", restarts: 0 });
    rmSync(fails);
    await waitFor("it to be forgotten", async () => {
      const replaced = await host.run("replace-vmm", "web", "--wait");
      if (replaced.exitCode === 0) return true;
      expect(replaced.stderr).toContain("the VMM that was beside it last is being ended");
      return false;
    });
    expect(host.vmm).not.toBe(before);
    await host.counts("web");
    expectContinuous(host.numbers("web"));
  });

  test("who looks at its console goes on doing so while its VMM is replaced", async () => {
    await host.start();
    await create("web", "--start");
    using client = await host.client();
    let seen = "";
    const socket = await Bun.connect({
      unix: await client.console("web"),
      socket: {
        data: (_socket, bytes) => {
          seen += bytes.toString("latin1");
        },
      },
    });
    socket.write("r");
    await waitFor("something to be seen", () => seen.includes("T"));
    expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
    const after = await host.counts("web");
    const line = `T${after.toString(16).padStart(8, "0")}`;
    await waitFor("the same to be seen", () => seen.includes(line));
    const numbers = [...seen.matchAll(/T([0-9a-f]{8})/g)].map(([, digits]) =>
      Number(`0x${digits}`),
    );
    expectContinuous(numbers);
    socket.end();
  });
});

skipUnless("what a VMM says itself", needs, () => {
  test("a VMM that gives up at once is quoted, however much it says", async () => {
    const path = host.folder.file("qemu");
    const real = Bun.which("qemu-system-x86_64");
    const flood = "yes | head -c 1000000 >&2";
    const script =
      `#!/bin/sh\ncase "$*" in *help|--version) exec ${real} "$@";; esac\n` +
      `echo "cannot go on" >&2\n[ -e ${path}.flood ] && { ${flood}; }\nexit 1\n`;
    writeFileSync(path, script);
    chmodSync(path, 0o755);
    await host.start({ configuration: [`qemu_path = "${path}"`, 'hypervisor = "qemu"'] });
    using client = await host.client();
    await client.create(host.specOf("web", image), "created");
    await waitFor("its words", () => host.said.includes("of its VMM: cannot go on"));
    writeFileSync(`${path}.flood`, "");
    await waitFor("all that is kept of many", async () => {
      const said = (await client.show("web")).vmm_output ?? "";
      return said.length === outputBytes && said.startsWith("cannot go on\ny\ny\n");
    });
  });
});

/** The last number of a guest that stands still: its VMM uses no processor between two looks. */
async function readStill(name: string): Promise<number> {
  const { pid } = await host.summary(name);
  expect(pid).not.toBeNull();
  const ticks = () => processorTicks(host.vmm);
  let before = -1;
  await waitFor("the guest to stand still", () => {
    const now = ticks();
    const isStill = now === before;
    before = now;
    return isStill;
  });
  return host.numbers(name).at(-1) ?? 0;
}

function processorTicks(processId: number): number {
  const status = new TextDecoder().decode(readFileSync(`/proc/${processId}/stat`));
  const fields = status.slice(status.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
