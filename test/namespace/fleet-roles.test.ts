/**
 * The roles of a host through an upgrade: real daemons under a real systemd, from two versions that
 * were really built.
 */
import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { folderOf } from "../../src/fleet/layout.ts";
import { hostSteps } from "../../src/fleet/perform/kill-points.ts";
import { hostler } from "../support/binary.ts";
import { buildFleetAgent } from "../support/fleet-host.ts";
import { FleetRolesHost } from "../support/fleet-roles-host.ts";
import { isolatedSystemdFeatures } from "../support/isolated-systemd.ts";
import { rotating } from "../support/rotation.ts";
import { program, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(300_000);

const authority = "hostler-authority.service";
const processAgent = "hostler-process-agent.service";
const vetting = "hostler-vetting-orchestrator.service";
const worker = "hostler-vm-worker.service";
const orchestrator = "hostler-process-orchestrator.service";

const features = [
  ...isolatedSystemdFeatures,
  program("qemu-system-x86_64", "qemu-system-x86"),
  program("pidof", "sysvinit-utils"),
  program("pgrep", "procps"),
];

skipUnless("the roles of a host", features, () => {
  let agent: string;
  beforeAll(async () => {
    agent = await buildFleetAgent();
  });

  test("go on from the new version one after the other, and a machine counts on", async () => {
    await using host = await FleetRolesHost.withRoles(agent);
    await host.startAuthority();
    await host.startProcessAgent();
    await host.startLuod();
    await host.startMachine("web");
    await host.startOrchestrator();
    const all = ["authority", "process agent", "luod", "vm worker", "process orchestrator"];
    await host.expects(...all);
    await host.counts("web");
    const [vmm, sleeper] = [await host.vmm(), await host.sleeper()];
    const former = await host.show(orchestrator, "MainPID");
    await host.upgrade("done");
    const units = [authority, processAgent, "luod.service", worker];
    const begun: number[] = [];
    for (const unit of units) {
      expect(await host.programOf(unit)).toContain(folderOf(host.next));
      begun.push(Number(await host.show(unit, "ExecMainStartTimestampMonotonic")));
    }
    expect(begun.toSorted((one, other) => one - other)).toEqual(begun);
    await waitFor("a heartbeat with all of them", () => host.heartbeat().length === 6);
    expect(host.heartbeat().map(({ role }) => role)).toEqual(["fleet agent", ...all]);
    const { digest } = host.next;
    const isNew = { digest, healthy: true, reason: null };
    for (const role of host.heartbeat()) expect(role).toMatchObject(isNew);
    await host.counts("web");
    expect(host.isCountingOn("web")).toBe(true);
    expect(await host.vmm()).toBe(vmm);
    // The same process, of another file, with what it has started.
    expect(await host.programOf(orchestrator)).toContain(folderOf(host.next));
    expect(await host.show(orchestrator, "MainPID")).toBe(former);
    expect(await host.sleeper()).toBe(sleeper);
  });

  test("one that does not come up has all go back, and a machine counts on", async () => {
    await using host = await FleetRolesHost.withRoles(agent);
    await host.startAuthority();
    // The version that is rolled out is the one that knows this word.
    await host.startMachine("web", ["Environment=HOSTLER_KILL_AT=vm:attach:before"]);
    await host.expects("authority", "vm worker");
    await host.counts("web");
    const vmm = await host.vmm();
    const invocation = await host.show(authority, "InvocationID");
    const ended = await host.upgrade("rolled-back", 100_000);
    expect(ended).toMatchObject({ version: "1.0.0", cause: "canonical", current: host.old });
    expect(ended.reason).toMatch(/^vm worker did not answer from 1\.1\.0 within 100000 ms \(/);
    expect(ended.reason).not.toContain("has not answered since");
    for (const unit of [authority, worker]) {
      expect(await host.programOf(unit)).toContain(folderOf(host.old));
      expect(await host.show(unit, "ActiveState")).toBe("active");
    }
    // It had gone on from the new version, else the worker had not been touched; and came back.
    expect(await host.show(authority, "InvocationID")).not.toBe(invocation);
    await host.counts("web");
    expect(host.isCountingOn("web")).toBe(true);
    expect(await host.vmm()).toBe(vmm);
  });

  /** What takes turns; each is a host of its own. */
  const stories: Readonly<Record<string, (host: FleetRolesHost) => Promise<void>>> = {
    "those that nobody can hand over are told, and hinder no upgrade": async (host) => {
      await host.startAuthority();
      await host.startProcessAgent();
      await host.expects("authority", "process agent");
      await host.must("systemctl", "stop", authority);
      const copy = host.file("hostler-copy");
      copyFileSync(hostler(), copy);
      const words = ["live-update", "daemon", "--state-directory", host.file("luod")];
      await host.must("mkdir", "-p", "/run/luod");
      await host.must("systemd-run", "--unit=copied", "--property=Type=notify", copy, ...words);
      await host.upgrade("done");
      expect(await host.programOf(processAgent)).toContain(folderOf(host.next));
      expect(await host.programOf("copied.service")).toBe(copy);
      await waitFor("a heartbeat that tells of the copy", () => host.role("luod"));
      expect(host.role("luod")).toMatchObject({ digest: null, healthy: true });
      expect(host.role("luod")?.reason).toContain(`it runs ${copy}, which is no version of`);
      await host.expects("process agent");
    },
    "a vetting orchestrator goes on from the new version, with its runs": async (host) => {
      await host.startVetting();
      await host.expects("vetting orchestrator");
      await host.must(...host.vetting("host", "add", "52:54:00:00:00:07", "--name", "node-7"));
      await host.upgrade("done");
      expect(await host.programOf(vetting)).toContain(folderOf(host.next));
      expect(host.role("vetting orchestrator")).toMatchObject({ healthy: true });
      const listed = await host.must(...host.vetting("host", "list", "--json"));
      expect(listed).toContain("node-7");
    },
    "a unit that does not lead through current is found out, with what to mend": async (host) => {
      const fixed = join(host.place, "versions", folderOf(host.old), "hostler");
      await host.startAuthority({ program: fixed });
      await host.expects("authority");
      const { reason } = await host.upgrade("rolled-back", 40_000);
      const mend = `have ExecStart= of ${authority} name ${host.place}/current/hostler`;
      expect(reason).toContain(`(authority: it was started again, and runs ${fixed}: ${mend}`);
      expect(await host.programOf(authority)).toBe(fixed);
    },
  };
  const kills = hostSteps.roles.flatMap((step) => [step, `${step}#2`]);
  const killed = kills.map(
    (step) =>
      [
        `the agent is killed at ${step}: the next one has the rest go on`,
        async (host: FleetRolesHost) => {
          await host.startAuthority();
          await host.startProcessAgent();
          await host.expects("authority", "process agent");
          host.killNext(folderOf(host.next), `fleet:${step}`);
          expect(await host.upgrade("done")).toMatchObject({ version: "1.1.0" });
          expect(existsSync(join(host.store, "armed"))).toBe(true);
          expect(host.starts.length).toBe(3);
          for (const unit of [authority, processAgent]) {
            expect(await host.programOf(unit)).toContain(folderOf(host.next));
          }
        },
      ] as const,
  );

  const taking = rotating("fleet roles", [...Object.entries(stories), ...killed], { outOf: 6 });
  test.each(taking)("%s", async (_name, act) => {
    await using host = await FleetRolesHost.withRoles(agent);
    await act(host);
  });
});
