/** hostler fleet guard, and the agent's own units in a real systemd: what goes back by itself. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { linked } from "../../src/fleet/layout.ts";
import { decodeJournal, type Life } from "../../src/fleet/lifecycle-journal.ts";
import { Installation } from "../../src/fleet/perform/installation.ts";
import { hostSteps } from "../../src/fleet/perform/kill-points.ts";
import { programOf, readLayout, versionFolder } from "../../src/fleet/perform/layout-files.ts";
import { agentUnit, fleetUnits } from "../../src/fleet/units.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { storeScript } from "../support/fleet-installation.ts";
import { writeSwapped } from "../support/fleet-swapped.ts";
import { isolatedSystemdFeatures, startIsolatedSystemd } from "../support/isolated-systemd.ts";
import { type ProgramResult, runProgram } from "../support/program.ts";
import { skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

let folder: TemporaryFolder;
let place: string;
beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("fleet");
});
afterEach(() => folder[Symbol.dispose]());

const current = () => linked(readLayout(place), "current");

function life(): Life {
  const decoded = decodeJournal(readFileSync(join(place, "journal.json"), "utf8"));
  if (decoded.kind !== "ok") throw new Error(`The journal is ${decoded.kind}`);
  return decoded.journal.life;
}

/** The former version guards with the real program, and is an agent that lives. */
const formerAgent = (program: string) => `case "$2" in
guard) exec ${program} "$@" ;;
agent) echo former >> ${folder.file("runs")}; systemd-notify --ready; exec sleep 1000 ;;
esac`;
const failingAgent = () => `echo new >> ${folder.file("runs")}; exit 1`;

/** An upgrade that was committed, to a version whose agent fails. */
function swapped(program = hostler()): { readonly former: string; readonly failing: string } {
  const former = storeScript(folder, "1.0.0", formerAgent(program));
  const failing = storeScript(folder, "1.1.0", failingAgent());
  writeSwapped(place, former, failing);
  return { former, failing };
}

async function guard(killAt?: string): Promise<ProgramResult> {
  const program = killAt === undefined ? hostler() : hostlerWithFaults();
  const environment = killAt === undefined ? {} : { HOSTLER_KILL_AT: `fleet:${killAt}` };
  return await runProgram([program, "fleet", "guard", "--folder", place], { environment });
}

describe("the guard", () => {
  test("lets a version that is not proven start three times, and then goes back", async () => {
    const { former, failing } = swapped();
    for (const starts of [1, 2, 3]) {
      expect(await guard()).toMatchObject({ exitCode: 0, stdout: "", stderr: "" });
      expect(life()).toMatchObject({ phase: "swapped", starts });
      expect(current()).toBe(failing);
    }
    const fourth = await guard();
    expect(fourth).toMatchObject({ exitCode: 0, stderr: "" });
    expect(fourth.stdout).toContain(
      "1.0.0 is to run: 1.1.0 was started 3 times, and was not proven",
    );
    expect(current()).toBe(former);
    expect(life()).toMatchObject({ phase: "reverting" });
    // And it stays so.
    expect(await guard()).toMatchObject({ exitCode: 0, stdout: "" });
    expect(current()).toBe(former);
  });

  test.each([
    ["its program is damaged", (name: string) => writeFileSync(programOf(place, name), "other")],
    [
      "its folder is gone",
      (name: string) => rmSync(versionFolder(place, name), { recursive: true }),
    ],
  ])("goes back at once where of the new version %s", async (_, damage) => {
    const { former, failing } = swapped();
    damage(failing);
    expect((await guard()).exitCode).toBe(0);
    expect(current()).toBe(former);
  });

  test.each([
    ["leads nowhere", () => symlinkSync("versions/9.9.9-000000000000", join(place, "current"))],
    ["is not there", () => {}],
  ])("mends a link that %s, without a journal as well", async (_, put) => {
    const { former } = swapped();
    rmSync(join(place, "journal.json"));
    rmSync(join(place, "current"));
    put();
    expect((await guard()).stdout).toContain("1.0.0 is to run: current leads nowhere");
    expect(current()).toBe(former);
  });

  test.each([
    ["without a journal", undefined],
    ["with one that is damaged", "{broken"],
  ])("links what was proven where both links are gone, %s", async (_, journal) => {
    const { former, failing } = swapped();
    {
      using installation = Installation.open(place, { make: false });
      installation.prove(former);
    }
    for (const gone of ["journal.json", "current", "previous"]) rmSync(join(place, gone));
    if (journal !== undefined) writeFileSync(join(place, "journal.json"), journal);
    expect((await guard()).stdout).toContain("1.0.0 is to run: current leads nowhere");
    expect(current()).toBe(former);
    expect(linked(readLayout(place), "previous")).not.toBe(failing);
  });

  test("does not follow a journal that says nothing", async () => {
    const { failing } = swapped();
    writeFileSync(join(place, "journal.json"), '{"format":99}');
    expect(await guard()).toMatchObject({ exitCode: 0, stdout: "" });
    expect(current()).toBe(failing);
    expect(readFileSync(join(place, "journal.json"), "utf8")).toBe('{"format":99}');
  });

  test("says so where no version is intact, and where somebody else is at it", async () => {
    const { former, failing } = swapped();
    for (const name of [former, failing]) writeFileSync(programOf(place, name), "other");
    const none = await guard();
    expect(none.exitCode).toBe(111);
    expect(none.stderr).toContain("no version on this disk is intact");
    using _held = Installation.open(place, { make: false });
    expect((await guard()).stderr).toContain(`a lock that process ${process.pid} has`);
  });

  test.each(hostSteps.guard)("killed at %s: the next one ends it", async (step) => {
    const { former, failing } = swapped();
    writeFileSync(programOf(place, failing), "other");
    expect((await guard(step)).signal).toBe("SIGKILL");
    expect(life()).toMatchObject({ phase: "reverting" });
    expect(current()).toBe(step === "noted" ? failing : former);
    expect((await guard()).exitCode).toBe(0);
    expect(current()).toBe(former);
    // Whole in both cases; the agent puts it in order.
    expect(linked(readLayout(place), "previous")).toBe(step === "noted" ? undefined : former);
    expect(readdirSync(place).filter((name) => name.endsWith(".new"))).toEqual([]);
  });
});

skipUnless("the agent's units in systemd", isolatedSystemdFeatures, () => {
  const runs = () => readFileSync(folder.file("runs"), "utf8").split("\n").filter(Boolean);

  async function withUnits(
    story: (systemctl: (...words: string[]) => Promise<ProgramResult>) => Promise<void>,
  ): Promise<void> {
    await using systemd = await startIsolatedSystemd(folder);
    for (const { name, text } of fleetUnits(place)) await systemd.writeUnit(name, text);
    const systemctl = (...words: string[]) => systemd.run(["systemctl", ...words]);
    try {
      await story(systemctl);
    } catch (error) {
      const { stdout } = await systemd.run(["journalctl", "--no-pager", "--output=cat"]);
      (error as Error).message += `\n${stdout}`;
      throw error;
    }
  }

  test("a canonical version that fails is left, and the former one serves again", async () => {
    const { former } = swapped();
    await withUnits(async (systemctl) => {
      // Its first start fails, and so do those that follow.
      await systemctl("--no-block", "start", agentUnit);
      await waitFor("the former version to serve", async () => {
        const { stdout } = await systemctl("is-active", agentUnit);
        return stdout === "active\n" && runs().includes("former");
      });
      expect(runs()).toEqual(["new", "new", "new", "former"]);
      expect(current()).toBe(former);
      expect(life()).toMatchObject({ phase: "reverting" });
    });
  });

  test("current that leads nowhere is mended before it is started", async () => {
    const { former, failing } = swapped();
    rmSync(versionFolder(place, failing), { recursive: true });
    await withUnits(async (systemctl) => {
      expect(await systemctl("start", agentUnit)).toMatchObject({ exitCode: 0 });
      expect(runs()).toEqual(["former"]);
      expect(current()).toBe(former);
    });
  });

  test("both links gone: what was proven and is whole is asked, and serves again", async () => {
    const { former, failing } = swapped();
    const damaged = storeScript(folder, "0.9.0", "exit 1");
    {
      using installation = Installation.open(place, { make: false });
      for (const name of [former, damaged]) installation.prove(name);
    }
    for (const gone of ["journal.json", "current", "previous"]) rmSync(join(place, gone));
    writeFileSync(programOf(place, damaged), "no program");
    writeFileSync(programOf(place, failing), "no program");
    await withUnits(async (systemctl) => {
      expect(await systemctl("start", agentUnit)).toMatchObject({ exitCode: 0 });
      expect(runs()).toEqual(["former"]);
      expect(current()).toBe(former);
    });
  });

  test("a host that was never upgraded has nothing to ask, and starts", async () => {
    const { former } = swapped();
    for (const name of ["journal.json", "current", "previous"]) rmSync(join(place, name));
    symlinkSync(`versions/${former}`, join(place, "current"));
    await withUnits(async (systemctl) => {
      expect(await systemctl("start", agentUnit)).toMatchObject({ exitCode: 0 });
      expect(runs()).toEqual(["former"]);
    });
  });
});
