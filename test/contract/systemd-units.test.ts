/** images/systemd: the lines that matter, and what systemd itself says of the units. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defaultAgentSocket } from "../../src/process/protocol.ts";
import { repositoryRoot } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { program, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { parseUnitFile, type UnitFile } from "../support/unit-file.ts";

const folder = join(repositoryRoot, "images/systemd");
const unitNames = readdirSync(folder).filter((name) => /\.(service|socket)$/.test(name));
const services = unitNames.filter((name) => name.endsWith(".service"));

function read(name: string): UnitFile {
  return parseUnitFile(readFileSync(join(folder, name), "utf8"));
}

describe("systemd units", () => {
  test("are these three", () => {
    expect(unitNames.toSorted()).toEqual([
      "hostler-process-agent.service",
      "hostler-process-agent.socket",
      "hostler-process-orchestrator.service",
    ]);
  });

  test.each(services)("%s: the death of the daemon is not that of what it started", (name) => {
    const unit = read(name);
    expect(unit.get("Service.KillMode")).toEqual(["process"]);
    expect(unit.get("Service.Delegate")).toEqual(["yes"]);
  });

  test.each(services)("%s: is started again at once, for ever", (name) => {
    const unit = read(name);
    expect(unit.get("Service.Restart")).toEqual(["always"]);
    expect(unit.get("Service.RestartSec")).toEqual(["100ms"]);
    expect(unit.get("Unit.StartLimitIntervalSec")).toEqual(["0"]);
  });

  test.each(services)("%s: tells when it is ready, and that it lives", (name) => {
    const unit = read(name);
    expect(unit.get("Service.Type")).toEqual(["notify"]);
    expect(unit.get("Service.WatchdogSec")).toEqual(["10s"]);
  });

  test.each(services)("%s: cannot be turned into Bun, and may use bun:ffi", (name) => {
    const unit = read(name);
    expect(unit.get("Service.UnsetEnvironment")).toEqual(["BUN_BE_BUN BUN_OPTIONS"]);
    expect([...unit.keys()]).not.toContain("Service.MemoryDenyWriteExecute");
  });

  test.each(services)("%s: gives children the usual limit on open files", (name) => {
    expect(read(name).get("Service.LimitNOFILE")).toEqual(["1024:524288"]);
  });

  test("the orchestrator's journal survives a restart of the unit", () => {
    const unit = read("hostler-process-orchestrator.service");
    expect([...unit.keys()]).not.toContain("Service.RuntimeDirectory");
    expect(unit.get("Service.RestartPreventExitStatus")).toEqual(["100"]);
  });

  test("the socket is the agent's own default, for its user alone", () => {
    const unit = read("hostler-process-agent.socket");
    expect(unit.get("Socket.ListenStream")).toEqual([defaultAgentSocket]);
    expect(unit.get("Socket.SocketMode")).toEqual(["0600"]);
  });
});

skipUnless("systemd's view of the units", program("systemd-analyze", "systemd"), () => {
  test("has nothing to say against them", async () => {
    using copies = temporaryFolder();
    const paths = unitNames.map((name) => {
      // It wants the program to be there.
      const text = readFileSync(join(folder, name), "utf8");
      writeFileSync(copies.file(name), text.replaceAll("/usr/bin/hostler", "/bin/true"));
      return copies.file(name);
    });
    const words = ["verify", "--man=no", "--recursive-errors=no", ...paths];
    const { exitCode, stdout, stderr } = await runProgram(["systemd-analyze", ...words]);
    expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: "", stderr: "" });
  });
});
