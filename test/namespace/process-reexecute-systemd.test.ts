/** The orchestrator becomes another program under a real systemd, which is isolated from ours. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { renameSync, symlinkSync, writeFileSync } from "node:fs";
import * as v from "valibot";
import { aboutSchema, processSummarySchema } from "../../src/process/protocol.ts";
import { hostler } from "../support/binary.ts";
import {
  type IsolatedSystemd,
  isolatedSystemdFeatures,
  startIsolatedSystemd,
} from "../support/isolated-systemd.ts";
import { Gap } from "../support/reexecution.ts";
import { skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const UNIT = "orchestrator.service";

/** What systemd says of the unit. */
async function unit(systemd: IsolatedSystemd) {
  const names = ["ActiveState", "MainPID", "NRestarts"];
  const { stdout } = await systemd.run(["systemctl", "show", UNIT, `-p${names.join(",")}`]);
  const lines = stdout.trim().split("\n");
  return Object.fromEntries(lines.map((line) => line.split("=") as [string, string]));
}

skipUnless("another program under systemd", isolatedSystemdFeatures, () => {
  test("the main process stays; one that crashes is started again, nothing doubled", async () => {
    using folder = temporaryFolder();
    const gap = new Gap(folder, hostler());
    const socket = folder.file("control.sock");
    const current = folder.file("current");
    /** As an installation changes versions: the link is replaced. */
    const link = (program: string) => {
      symlinkSync(program, `${current}.new`);
      renameSync(`${current}.new`, current);
    };
    link(hostler());
    writeFileSync(folder.file("process.toml"), '[process.it]\ncommand = ["sleep", "1000"]\n');
    await using systemd = await startIsolatedSystemd(folder);
    const environment = Object.entries(gap.environment).map(
      ([name, value]) => `Environment=${name}=${value}\n`,
    );
    const words = `--config ${folder.file("process.toml")} --control-socket ${socket}`;
    await systemd.writeUnit(
      UNIT,
      `[Service]\nType=notify\nExecStart=${current} process orchestrator ${words}\n` +
        `Restart=always\nRestartSec=100ms\nWatchdogSec=10s\nKillMode=process\n` +
        environment.join(""),
    );
    const started = await systemd.run(["systemctl", "start", UNIT]);
    expect(started.stderr).toBe("");
    const before = await unit(systemd);
    expect(before).toMatchObject({ ActiveState: "active", NRestarts: "0" });
    const ask = async (...command: readonly string[]) =>
      await systemd.run([hostler(), "process", ...command, "--control-socket", socket]);
    const child = async () => {
      const [found] = JSON.parse((await ask("list", "--json")).stdout) as unknown[];
      return v.parse(processSummarySchema, found);
    };
    const first = await child();

    // Without a file it is the one that the unit would start.
    link(gap.program);
    const asked = ask("reexecute", "--json");
    await gap.entered();
    const reloading = await unit(systemd);
    expect(reloading).toEqual({ ...before, ActiveState: "reloading" });
    gap.leave();
    const about = v.parse(aboutSchema, JSON.parse((await asked).stdout));
    expect(String(about.process_id)).toBe(before["MainPID"] as string);
    await waitFor("READY=1", async () => (await unit(systemd))["ActiveState"] === "active");
    expect(await unit(systemd)).toEqual(before);
    expect(await child()).toMatchObject({ pid: first.pid, restarts: 0 });

    gap.set("become", "crash");
    const lost = ask("reexecute");
    await gap.entered();
    // What systemd starts in its place is the version before.
    link(hostler());
    gap.leave();
    expect((await lost).exitCode).toBe(111);
    const next = await waitFor("the next orchestrator", async () => {
      const found = await unit(systemd);
      return found["NRestarts"] === "1" && found["ActiveState"] === "active" ? found : undefined;
    });
    expect(next["MainPID"]).not.toBe(before["MainPID"]);
    const second = await child();
    expect(second).toMatchObject({ phase: "ready", restarts: 0 });
    const living = await systemd.run(["pgrep", "-x", "sleep"]);
    expect(living.stdout.trim().split("\n")).toEqual([String(second.pid)]);
    expect((await systemd.run(["systemctl", "stop", UNIT])).exitCode).toBe(0);
    expect((await systemd.run(["pgrep", "-x", "sleep"])).stdout).toBe("");
  });
});
