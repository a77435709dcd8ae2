/** images/systemd: the lines that matter, and what systemd itself says of the units. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { defaultStateDirectory as authorityStateDirectory } from "../../src/authority/protocol.ts";
import { agentUnit, fleetUnits } from "../../src/fleet/units.ts";
import { SURVIVAL_RELEASE } from "../../src/install/install.ts";
import { defaultStateDirectory } from "../../src/live-update/options.ts";
import {
  defaultClientSocket,
  defaultControlSocket as defaultLuodSocket,
} from "../../src/live-update/protocol.ts";
import { SUPERVISOR_SUBGROUP } from "../../src/process/group-place.ts";
import { defaultAgentSocket } from "../../src/process/protocol.ts";
import { WORKER_SUBGROUP } from "../../src/vm/cgroup-place.ts";
import { repositoryRoot } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { program, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { parseUnitFile, type UnitFile } from "../support/unit-file.ts";

const folder = join(repositoryRoot, "images/systemd");
const unitNames = readdirSync(folder).filter((name) => /\.(service|socket)$/.test(name));
const services = unitNames.filter((name) => name.endsWith(".service"));
/** They start nothing that outlives them; a host has one of them, since they share a folder. */
const authorities = [
  "hostler-authority.service",
  "hostler-fleet-operator.service",
  "hostler-vetting-orchestrator.service",
  "hostler-vm-master.service",
];
/** What the fleet's agent starts are units of their own. */
const childless = [...authorities, agentUnit];
const parents = services.filter((name) => !childless.includes(name));
const processServices = services.filter((name) => name.startsWith("hostler-process-"));

/** luod is silent while sync(2) lasts, and the authority while the disk takes a commit. */
const watchdogs: Readonly<Record<string, string>> = {
  "luod.service": "5min",
  "hostler-authority.service": "30s",
  "hostler-fleet-operator.service": "30s",
  "hostler-vetting-orchestrator.service": "30s",
  "hostler-vm-master.service": "30s",
  "hostler-fleet-agent.service": "30s",
};

function read(name: string): UnitFile {
  return parseUnitFile(readFileSync(join(folder, name), "utf8"));
}

describe("systemd units", () => {
  test("are these ten", () => {
    expect(unitNames.toSorted()).toEqual([
      "hostler-authority.service",
      "hostler-fleet-agent.service",
      "hostler-fleet-operator.service",
      "hostler-process-agent.service",
      "hostler-process-agent.socket",
      "hostler-process-orchestrator.service",
      "hostler-vetting-orchestrator.service",
      "hostler-vm-master.service",
      "hostler-vm-worker.service",
      "luod.service",
    ]);
  });

  test.each(parents)("%s: the death of the daemon is not that of what it started", (name) => {
    const unit = read(name);
    expect(unit.get("Service.KillMode")).toEqual(["process"]);
  });

  test.each(processServices)("%s: may make cgroups for what it starts", (name) => {
    expect(read(name).get("Service.Delegate")).toEqual(["yes"]);
  });

  test.each(services)("%s: is started again at once, for ever", (name) => {
    const unit = read(name);
    expect(unit.get("Service.Restart")).toEqual(["always"]);
    expect(unit.get("Service.RestartSec")).toEqual([parents.includes(name) ? "100ms" : "1s"]);
    expect(unit.get("Unit.StartLimitIntervalSec")).toEqual(["0"]);
  });

  test.each(services)("%s: tells when it is ready, and that it lives", (name) => {
    const unit = read(name);
    expect(unit.get("Service.Type")).toEqual(["notify"]);
    expect(unit.get("Service.WatchdogSec")).toEqual([watchdogs[name] ?? "10s"]);
  });

  test.each(services)("%s: cannot be turned into Bun, and may use bun:ffi", (name) => {
    const unit = read(name);
    expect(unit.get("Service.UnsetEnvironment")).toEqual(["BUN_BE_BUN BUN_OPTIONS"]);
    expect([...unit.keys()]).not.toContain("Service.MemoryDenyWriteExecute");
  });

  test.each(services)("%s: gives children the usual limit on open files", (name) => {
    expect(read(name).get("Service.LimitNOFILE")).toEqual(["1024:524288"]);
  });

  test("a stop of the worker's unit stops no machine, and takes no socket from one", () => {
    const unit = read("hostler-vm-worker.service");
    expect([...unit.keys()]).not.toContain("Service.RuntimeDirectory");
    expect(unit.get("Service.Delegate")).toEqual(["yes"]);
    expect(unit.get("Service.DelegateSubgroup")).toEqual([WORKER_SUBGROUP]);
    expect(unit.get("Service.RestartPreventExitStatus")).toEqual(["100"]);
  });

  test("those who start processes are in groups of their own beside them", () => {
    for (const role of ["orchestrator", "agent"]) {
      const unit = read(`hostler-process-${role}.service`);
      expect(unit.get("Service.Delegate")).toEqual(["yes"]);
      expect(unit.get("Service.DelegateSubgroup")).toEqual([SUPERVISOR_SUBGROUP]);
    }
  });

  test("the orchestrator's journal survives a restart of the unit", () => {
    const unit = read("hostler-process-orchestrator.service");
    expect([...unit.keys()]).not.toContain("Service.RuntimeDirectory");
    expect(unit.get("Service.RestartPreventExitStatus")).toEqual(["100"]);
    // Those who wait for the reload are told when it is over, or what is wrong.
    const [reload] = unit.get("Service.ExecReload") ?? [];
    expect(reload).toBe("/usr/bin/hostler process reload --wait");
  });

  test("the socket is the agent's own default, for its user alone", () => {
    const unit = read("hostler-process-agent.socket");
    expect(unit.get("Socket.ListenStream")).toEqual([defaultAgentSocket]);
    expect(unit.get("Socket.SocketMode")).toEqual(["0600"]);
  });

  test.each(authorities)("%s: its state is where it looks for it, for its user alone", (name) => {
    const unit = read(name);
    expect(`/var/lib/${unit.get("Service.StateDirectory")}`).toBe(authorityStateDirectory);
    expect(unit.get("Service.StateDirectoryMode")).toEqual(["0700"]);
    expect(unit.get("Service.UMask")).toEqual(["0077"]);
    // What others have in /run/hostler stays when it stops.
    expect([...unit.keys()]).not.toContain("Service.RuntimeDirectory");
    expect(unit.get("Service.RestartPreventExitStatus")).toEqual(["100"]);
  });

  test("before each start of the fleet's agent the version before says which one may run", () => {
    const [guard = "", ...more] = read(agentUnit).get("Service.ExecStartPre") ?? [];
    expect(more).toEqual([]);
    expect(guard).toStartWith("-/bin/sh -c 'p=/opt/hostler/previous/hostler; ");
    expect(guard).toContain('"$$p" fleet guard --folder /opt/hostler && exit; ');
  });

  test("the texts inside the program name the folder that they are for", () => {
    for (const { text } of fleetUnits("/data/fleet")) {
      expect(text).toContain("p=/data/fleet/previous/hostler; ");
      expect(text).toContain("fleet guard --folder /data/fleet && exit; ");
      expect(text).not.toContain("/opt/");
    }
  });

  test("a host has one authority: the start of another kind of it stops the first", () => {
    const pairs = authorities.flatMap((one) =>
      authorities.filter((other) => other > one).map((other) => [one, other] as const),
    );
    const conflicts = (name: string) => (read(name).get("Unit.Conflicts") ?? []).join(" ");
    for (const [one, other] of pairs) {
      // Said by one of the two it holds for both.
      const isSaid = conflicts(one).includes(other) || conflicts(other).includes(one);
      expect(`${one} ${other} ${isSaid}`).toBe(`${one} ${other} true`);
    }
  });

  test.each([
    ["hostler-authority.service", ""],
    ["hostler-fleet-operator.service", ""],
    // Network boot has ports below 1024, on one interface.
    ["hostler-vetting-orchestrator.service", "CAP_NET_BIND_SERVICE CAP_NET_RAW"],
  ])("%s has no more power of root than it needs, and may write a backup", (name, powers) => {
    const unit = read(name);
    expect(unit.get("Service.CapabilityBoundingSet")).toEqual([powers]);
    expect(unit.get("Service.NoNewPrivileges")).toEqual(["yes"]);
    expect(unit.get("Service.ProtectSystem")).toEqual(["full"]);
    for (const key of ["ProtectHome", "PrivateTmp", "User", "DynamicUser"]) {
      expect([...unit.keys()]).not.toContain(`Service.${key}`);
    }
    expect(unit.get("Service.LimitCORE")).toEqual(["0"]);
  });

  test("luod and its holder live until the next kernel is entered", () => {
    const unit = read("luod.service");
    expect(unit.get("Unit.SurviveFinalKillSignal")).toEqual(["yes"]);
    expect(unit.get("Unit.DefaultDependencies")).toEqual(["no"]);
    expect(unit.get("Unit.IgnoreOnIsolate")).toEqual(["yes"]);
    expect(unit.get("Unit.After")).toEqual(["basic.target"]);
    expect(unit.get("Unit.Before")).toEqual(["shutdown.target"]);
    const conflicts = (unit.get("Unit.Conflicts") ?? []).join(" ");
    expect(conflicts).not.toMatch(/shutdown|kexec|soft-reboot/);
  });

  test("luod's sockets, lock and state outlive a restart of the unit", () => {
    const unit = read("luod.service");
    const folder = `/run/${unit.get("Service.RuntimeDirectory")}`;
    expect(unit.get("Service.RuntimeDirectoryPreserve")).toEqual(["yes"]);
    expect(folder).toBe(defaultStateDirectory);
    expect([dirname(defaultClientSocket), dirname(defaultLuodSocket)]).toEqual([folder, folder]);
  });

  test("nothing of luod's keeps file systems mounted, or hides the kernel's device", () => {
    const unit = read("luod.service");
    // systemd.exec(5): each of these makes a mount namespace, or closes devices.
    const namespaced = [...unit.keys()].filter((key) =>
      /^Service\.((Private|Protect|Bind|Root|Temporary|ReadOnly|Inaccessible|Mount)|Device)/.test(
        key,
      ),
    );
    expect(namespaced).toEqual([]);
    expect([...unit.keys()]).not.toContain("Service.NoNewPrivileges");
    const dropped = (unit.get("Service.CapabilityBoundingSet") ?? []).join(" ");
    expect(dropped).not.toMatch(/CAP_(SYS_BOOT|SYS_PTRACE|SYS_ADMIN|KILL|DAC_\w+)\b/);
    for (const words of unit.get("Service.CapabilityBoundingSet") ?? []) {
      expect(words).toStartWith("~");
    }
  });
});

/** A systemd older than the setting leaves it out with this warning, and takes the rest. */
const unknownSetting =
  /: Unknown key (name )?'(SurviveFinalKillSignal|DelegateSubgroup)' in section .*, ignoring\.$/;
/** systemd 254, NEWS: DelegateSubgroup= */
const SUBGROUP_RELEASE = 254;

skipUnless("systemd's view of the units", program("systemd-analyze", "systemd"), () => {
  test("has nothing to say against them", async () => {
    using copies = temporaryFolder();
    const paths = unitNames.map((name) => {
      // It wants the program to be there.
      const text = readFileSync(join(folder, name), "utf8");
      const programs =
        /\/usr\/(bin\/hostler|sbin\/luod)|\/opt\/hostler\/(current|previous)\/hostler/g;
      writeFileSync(copies.file(name), text.replace(programs, "/bin/true"));
      return copies.file(name);
    });
    const words = ["verify", "--man=no", "--recursive-errors=no", ...paths];
    const { stdout: version } = await runProgram(["systemd-analyze", "--version"]);
    const release = Number(/^systemd (\d+)/.exec(version)?.[1]);
    const { exitCode, stdout, stderr } = await runProgram(["systemd-analyze", ...words]);
    const newer = [
      ["Unit.SurviveFinalKillSignal", SURVIVAL_RELEASE],
      ["Service.DelegateSubgroup", SUBGROUP_RELEASE],
    ] as const;
    const unknown = newer.flatMap(([key, since]) => {
      const users = unitNames.filter((name) => read(name).has(key));
      return release < since ? users : [];
    });
    const lines = stderr.split("\n").filter((line) => line !== "");
    const warnings = lines.filter((line) => unknownSetting.test(line));
    const rest = lines.filter((line) => !unknownSetting.test(line));
    expect({ exitCode, stdout, rest, warnings: warnings.length }).toEqual({
      exitCode: unknown.length > 0 ? 1 : 0,
      stdout: "",
      rest: [],
      warnings: unknown.length,
    });
  });
});
