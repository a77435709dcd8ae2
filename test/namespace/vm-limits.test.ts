/** Limits of machines, on a host that cannot keep them, and as they are declared. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Advice } from "../../src/doctor/judgement.ts";
import type { VmSpec, WorkerStatus } from "../../src/vm/protocol.ts";
import { hostler } from "../support/binary.ts";
import { cgroupFolder, writableCgroup } from "../support/cgroup.ts";
import { runProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";

setDefaultTimeout(60_000);

let host: VmHost;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
  image = await host.image();
});
afterEach(() => host[Symbol.asyncDispose]());

async function apply(limits: VmSpec["limits"]) {
  const file = host.folder.file("machines.json");
  const machine = [{ ...host.specOf("web", image), limits }];
  writeFileSync(file, JSON.stringify({ machine }));
  return await host.run("apply", file);
}

const qemu = program("qemu-system-x86_64", "qemu-system-x86");

skipUnless("limits of the worker's machines", [root, qemu, program("ip", "iproute2")], () => {
  test("without cgroup v2 a machine with limits does not start, and says why", async () => {
    await host.start({ configuration: ['cgroup = "off"'] });
    const status = JSON.parse(await host.say("status", "--json")) as WorkerStatus;
    const reason = "the configuration says off";
    expect(status).toMatchObject({ cgroup: null, cgroup_controllers: [], cgroup_lacking: reason });
    await apply({ cpuMaxPercent: 50 });
    const failed = await host.reaches("web", "failed");
    expect(failed.reason).toBe(`It has limits, and no cgroup to keep them: ${reason}`);
    expect(host.vmmProcesses()).toEqual([]);
    // The limits alone are declared otherwise: that is no other machine, and it is tried with them.
    expect((await apply(undefined)).exitCode).toBe(0);
    await host.reaches("web", "running");
    await host.counts("web");
  });

  test("limits that are none are refused with their key", async () => {
    await host.start();
    const { exitCode, stderr } = await apply({ cpuWeight: 0, pidsMax: 5 });
    expect(exitCode).not.toBe(0);
    expect(stderr).toContain("machine[0].limits.cpuWeight");
    expect(stderr).toContain("machine[0].limits.pidsMax: expected at least 64");
  });

  skipUnless("in the group of its unit itself", writableCgroup, () => {
    test("is named by the doctor, with what the unit is to say", async () => {
      using groups = cgroupFolder();
      const unit = groups.file("hostler-vm-worker.service");
      await host.start();
      const words = ["doctor", "vm", "--config", host.folder.file("vm.toml"), "--json"];
      const ask = async () => {
        const { stdout } = await runProgram([...host.enter, hostler(), ...words]);
        return (JSON.parse(stdout) as Advice[]).find(({ check }) => check === "machine_cgroups");
      };
      expect((await ask())?.found).toMatch(/^process \d+ is the worker: its machines are in /);
      // As systemd has it without DelegateSubgroup=.
      writeFileSync(join(unit, "cgroup.procs"), `${host.workerProcessId}`);
      const advice = await ask();
      expect(advice?.status).toBe("warning");
      expect(advice?.found).toContain(`the worker is in ${unit} itself`);
      expect(advice?.mend).toContain("Delegate=yes and DelegateSubgroup=worker");
      await host.kill();
      expect((await ask())?.found).not.toContain("is the worker");
    });
  });
});
