/** `systemctl reload` of an orchestrator, under a real systemd, which is isolated from ours. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import * as v from "valibot";
import { processSummarySchema } from "../../src/process/protocol.ts";
import { hostler } from "../support/binary.ts";
import { isolatedSystemdFeatures, startIsolatedSystemd } from "../support/isolated-systemd.ts";
import { skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const UNIT = "orchestrator.service";

skipUnless("another configuration under systemd", isolatedSystemdFeatures, () => {
  test("systemctl reload puts it in, or fails and changes nothing; kill -HUP as well", async () => {
    using folder = temporaryFolder();
    const socket = folder.file("control.sock");
    const file = folder.file("process.toml");
    const table = (name: string) => `[process.${name}]\ncommand = ["sleep", "1000"]\n`;
    writeFileSync(file, table("it"));
    await using systemd = await startIsolatedSystemd(folder);
    const control = `--control-socket ${socket}`;
    await systemd.writeUnit(
      UNIT,
      `[Service]\nType=notify\nKillMode=process\n` +
        `ExecStart=${hostler()} process orchestrator --config ${file} ${control}\n` +
        `ExecReload=${hostler()} process reload --wait ${control}\n`,
    );
    expect((await systemd.run(["systemctl", "start", UNIT])).stderr).toBe("");
    const stateOf = async () =>
      (await systemd.run(["systemctl", "show", UNIT, "-pActiveState", "--value"])).stdout.trim();
    const list = async () => {
      const command = [hostler(), "process", "list", "--json", "--control-socket", socket];
      const { stdout } = await systemd.run(command);
      return v.parse(v.array(processSummarySchema), JSON.parse(stdout));
    };
    const [before] = await list();
    writeFileSync(file, table("it") + table("new"));
    const reload = await systemd.run(["systemctl", "reload", UNIT]);
    expect(reload).toMatchObject({ exitCode: 0, stderr: "" });
    expect((await list()).map(({ name }) => name)).toEqual(["it", "new"]);
    expect((await list())[0]?.pid).toBe(before?.pid ?? 0);

    writeFileSync(file, "[process.it]\n");
    const failed = await systemd.run(["systemctl", "reload", UNIT]);
    expect(failed.exitCode).toBe(1);
    expect(await stateOf()).toBe("active");
    expect((await list()).map(({ name }) => name)).toEqual(["it", "new"]);

    writeFileSync(file, table("new"));
    await systemd.run(["systemctl", "kill", "-s", "HUP", UNIT]);
    await waitFor("the one that is left", async () => (await list()).length === 1);
    await waitFor("READY=1", async () => (await stateOf()) === "active");
    expect((await systemd.run(["systemctl", "stop", UNIT])).exitCode).toBe(0);
  });
});
