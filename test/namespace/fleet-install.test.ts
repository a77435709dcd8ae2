/** hostler fleet install: from whatever stands there, killed at every step, and twice. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import { linked } from "../../src/fleet/layout.ts";
import { encodeJournal, type Journal } from "../../src/fleet/lifecycle-journal.ts";
import { checkVersion, Installation } from "../../src/fleet/perform/installation.ts";
import { hostSteps } from "../../src/fleet/perform/kill-points.ts";
import { programOf, readLayout } from "../../src/fleet/perform/layout-files.ts";
import { readJournalIn } from "../../src/fleet/perform/read-journal.ts";
import type { Build } from "../../src/fleet/protocol.ts";
import { Site } from "../support/artifact.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { storeScript } from "../support/fleet-installation.ts";
import { type ProgramResult, runProgram, startProgram } from "../support/program.ts";
import { rotating } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(120_000);

let folder: TemporaryFolder;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder[Symbol.dispose]());

const place = () => folder.file("fleet");
const name = () => folder.file("usr/bin/hostler");
const units = ["hostler-fleet-agent.service"];

async function install(
  words: readonly string[] = [],
  options: { readonly program?: string; readonly killAt?: string } = {},
): Promise<ProgramResult> {
  const { program = hostler(), killAt } = options;
  const places = ["--folder", place(), "--prefix", folder.file("usr")];
  const environment = killAt === undefined ? {} : { HOSTLER_KILL_AT: `fleet:${killAt}` };
  return await runProgram(
    [
      ...[program, "fleet", "install", ...places, "--unit-directory", folder.file("units")],
      // A machine may have its temporary files in memory.
      ...["--volatile", ...words],
    ],
    { environment },
  );
}

/** All is there, and the name runs the version that current leads to. */
async function expectInstalled(): Promise<void> {
  const state = readLayout(place());
  const current = linked(state, "current") ?? "none";
  expect(checkVersion(place(), current)).toMatchObject({ kind: "whole" });
  expect(state.versions.find((version) => version.name === current)?.isProven).toBe(true);
  expect(readlinkSync(name())).toBe(`${place()}/current/hostler`);
  const { exitCode, stdout } = await runProgram([name(), "--version"]);
  expect({ exitCode, said: stdout.startsWith("hostler ") }).toEqual({ exitCode: 0, said: true });
  expect(readdirSync(folder.file("units")).toSorted()).toEqual(units);
}

/** Every file and link below, with what tells whether it was made anew. */
function tree(): string[] {
  return readdirSync(folder.path, { recursive: true, encoding: "utf8" })
    .filter((path) => !/(^|\/)(lock|proven)$/.test(path))
    .map((path) => ({ path, stats: lstatSync(folder.file(path)) }))
    .filter(({ stats }) => !stats.isDirectory())
    .map(({ path, stats }) => `${path} ${(stats.mode & 0o777).toString(8)} ${stats.ino}`)
    .toSorted();
}

function put(path: string, content: string): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

const idleJournal = (current: Build, floor: string): Journal => ({
  ...{ format: 1, step: 3, boot: "11111111-1111-1111-1111-111111111111", floor },
  ...{ metadataVersion: 0, current, previous: null, seen: [], life: { phase: "idle" } },
});

describe("hostler fleet install", () => {
  test("makes all, and a second time finds nothing to do", async () => {
    const first = await install();
    expect(first).toMatchObject({ exitCode: 0, stderr: "" });
    expect(first.stdout).toEndWith("systemctl enable --now hostler-fleet-agent\n");
    await expectInstalled();
    const before = tree();
    const second = await install();
    expect(second).toMatchObject({ exitCode: 0, stderr: "" });
    expect(second.stdout).toStartWith("Nothing to do: everything is there.\n");
    expect(tree()).toEqual(before);
  });

  test("the installed program can do the same, called by its name", async () => {
    await install();
    const again = await install([], { program: name() });
    expect(again.stdout).toStartWith("Nothing to do");
  });

  test("hostler install takes the link for the program, and adds its own", async () => {
    await install();
    const argv = [hostler(), "install", "--role", "luod", "--prefix", folder.file("usr")];
    const places = ["--root", "/", "--unit-directory", folder.file("luod")];
    // Where systemd runs it would be asked.
    const script = 'mount -t tmpfs none /run; exec "$@"';
    const result = await runProgram([
      "unshare",
      "--mount",
      "sh",
      "-c",
      script,
      "sh",
      ...argv,
      ...places,
    ]);
    expect(result).toMatchObject({ exitCode: 0, stderr: "" });
    expect(result.stdout).not.toContain("usr/bin/hostler ");
    expect(readlinkSync(name())).toBe(`${place()}/current/hostler`);
    const removed = await runProgram([
      ...["unshare", "--mount", "sh", "-c", script, "sh", ...argv, ...places, "--remove"],
    ]);
    expect(removed.stdout).toMatch(/^left .*usr\/bin\/hostler +install has not made this link$/m);
  });

  test("units name the folder, and nothing of another", async () => {
    await install();
    for (const unit of units) {
      const text = readFileSync(folder.file(`units/${unit}`), "utf8");
      expect(text).toContain(`p=${place()}/previous/hostler; `);
      expect(text).toContain(`fleet guard --folder ${place()} && exit; `);
      expect(text).not.toContain("/opt/");
    }
  });

  test("only says what it would do with --dry-run", async () => {
    const { exitCode, stdout } = await install(["--dry-run", "--json"]);
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ dry_run: true, ok: true });
    expect(JSON.parse(stdout).steps.map((step: { action: string }) => step.action)).toEqual([
      ...["create", "create", "create"],
    ]);
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test("makes an image, whose links lead into it", async () => {
    const image = folder.file("image");
    mkdirSync(`${image}/data/opt`, { recursive: true });
    // As in an image: absolute, and nothing of this host.
    symlinkSync("/data/opt", `${image}/opt`);
    const words = ["--folder", "/opt/hostler", "--prefix", "/usr", "--image", image];
    const run = async (...more: readonly string[]) =>
      await runProgram([hostler(), "fleet", "install", ...words, ...more]);
    const made = await run();
    expect(made).toMatchObject({ exitCode: 0, stderr: "" });
    expect(made.stdout).toEndWith(`systemctl --root=${image} enable hostler-fleet-agent\n`);
    const state = readLayout(`${image}/data/opt/hostler`);
    expect(state.versions.map((version) => version.isProven)).toEqual([true]);
    expect(readlinkSync(`${image}/usr/bin/hostler`)).toBe("/opt/hostler/current/hostler");
    const unit = `${image}/etc/systemd/system/hostler-fleet-agent.service`;
    expect(readFileSync(unit, "utf8")).toContain("ExecStart=/opt/hostler/current/hostler ");
    expect((await run()).stdout).toStartWith("Nothing to do: everything is there.\n");
    expect(await run("--remove")).toMatchObject({ exitCode: 0, stderr: "" });
    expect(existsSync(`${image}/data/opt/hostler`)).toBe(false);
    expect([existsSync(unit), existsSync(`${image}/usr/bin/hostler`)]).toEqual([false, false]);
    expect((await run("--remove")).stdout).toBe("Nothing to do: nothing of it is left.\n");
  });

  test("an image that is not there is named as its flag is", async () => {
    const { exitCode, stderr } = await install(["--image", folder.file("none")]);
    expect(exitCode).toBe(111);
    expect(stderr).toContain("Cannot use the image");
    expect(stderr).toContain("give another --image");
    expect(stderr).not.toContain("--root");
  });

  test("without units for a container", async () => {
    const { exitCode, stdout } = await install(["--without-units"]);
    expect(exitCode).toBe(0);
    expect(stdout).not.toContain("systemctl");
    expect(readdirSync(folder.path).toSorted()).toEqual(["fleet", "usr"]);
  });
});

describe("from what stands there", () => {
  test("the program itself, a plain file, becomes a link to the stored one", async () => {
    mkdirSync(dirname(name()), { recursive: true });
    copyFileSync(hostler(), name());
    const { exitCode, stdout } = await install([], { program: name() });
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^replaced .*usr\/bin\/hostler/m);
    await expectInstalled();
  });

  test.each([
    ["a folder", (path: string) => mkdirSync(path), "there is a folder", 111],
    ["a foreign link", (path: string) => symlinkSync("/bin/true", path), "a link to /bin/true", 0],
    ["a script", (path: string) => writeFileSync(path, "#!/bin/sh\n"), "that is no program", 0],
  ])("%s in the name's place is refused, and nothing is done", async (_, occupy, words, forced) => {
    mkdirSync(dirname(name()), { recursive: true });
    occupy(name());
    const refused = await install();
    expect(refused.exitCode).toBe(111);
    expect(refused.stdout).toContain(words);
    expect(refused.stdout).toEndWith("Nothing was done: see what is refused.\n");
    expect(readdirSync(folder.path)).toEqual(["usr"]);
    expect((await install(["--force"])).exitCode).toBe(forced);
    if (forced === 0) await expectInstalled();
  });

  test.each([
    ["a link into nowhere", "versions/9.9.9-000000000000"],
    ["a foreign link", "/bin"],
  ])("current is %s: it leads to the program afterwards", async (_, target) => {
    mkdirSync(place(), { recursive: true });
    symlinkSync(target, `${place()}/current`);
    const { exitCode, stdout } = await install();
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^replaced .*current +it led to no version that is whole$/m);
    await expectInstalled();
  });

  test("current is a folder: it is refused", async () => {
    put(`${place()}/current/notes.txt`, "mine");
    const { exitCode, stdout } = await install();
    expect(exitCode).toBe(111);
    expect(stdout).toContain("there is current, which is no link. Move it away");
    expect(readFileSync(`${place()}/current/notes.txt`, "utf8")).toBe("mine");
  });

  test("the current version is damaged: it is stored again", async () => {
    await install();
    const current = linked(readLayout(place()), "current") ?? "";
    const path = programOf(place(), current);
    chmodSync(path, 0o755);
    appendFileSync(path, "x");
    expect((await install()).exitCode).toBe(0);
    await expectInstalled();
  });

  test("another version is current: it stays, unless --force says otherwise", async () => {
    const other = storeScript(folder, "0.0.9", "echo other", place());
    symlinkSync(`versions/${other}`, `${place()}/current`);
    const plain = await install();
    expect(plain.exitCode).toBe(0);
    expect(plain.stdout).toMatch(/^kept .*current +it leads to 0\.0\.9-/m);
    expect(linked(readLayout(place()), "current")).toBe(other);
    expect((await install(["--force"])).exitCode).toBe(0);
    await expectInstalled();
    expect(linked(readLayout(place()), "previous")).toBe(other);
  });

  test.each([
    ["no journal at all", "{broken"],
    ["one that says nothing", ""],
    ["one that is wrong", '{"format":1}'],
  ])("a damaged journal, %s: it is set aside, and the floor is not forgotten", async (_, text) => {
    await install();
    rmSync(`${place()}/current`);
    put(`${place()}/journal.json`, text);
    const dry = await install(["--dry-run"]);
    expect(dry.stdout).toMatch(/^would replace .*journal\.json +it is damaged: expected/m);
    expect(existsSync(`${place()}/journal.json`)).toBe(true);
    const { exitCode, stdout, stderr } = await install();
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toMatch(/^replaced .*journal\.json +it is damaged: expected/m);
    await expectInstalled();
    expect(existsSync(`${place()}/journal.json`)).toBe(false);
    expect(readFileSync(`${place()}/journal.json.damaged`, "utf8")).toBe(text);
    expect(readJournalIn(place())).toMatchObject({ kind: "refused" });
    expect((await install()).stdout).toStartWith("Nothing to do");
    expect((await install(["--remove"])).exitCode).toBe(0);
    expect(existsSync(place())).toBe(false);
  });

  describe("a later version", () => {
    let later: string;
    beforeEach(() => {
      later = storeScript(folder, "9.0.0", "echo other", place());
      using installation = Installation.open(place(), { make: false });
      installation.prove(later);
    });

    test("that no link leads to: it is refused, and told what links it again", async () => {
      const plain = await install();
      expect(plain.exitCode).toBe(111);
      expect(plain.stdout).toContain("9.0.0 is there, and was proven. hostler fleet guard");
      expect(plain.stdout).toContain("--force installs");
      expect(readLayout(place()).links.current).toEqual({ kind: "absent" });
      const guard = await runProgram([hostler(), "fleet", "guard", "--folder", place()]);
      expect(guard).toMatchObject({ exitCode: 0 });
      expect(linked(readLayout(place()), "current")).toBe(later);
      expect((await install()).stdout).toMatch(/^kept .*current +it leads to 9\.0\.0-/m);
    });

    test("that no link leads to, and --force: it is installed", async () => {
      expect((await install(["--force"])).exitCode).toBe(0);
      await expectInstalled();
    });

    test.each([
      ["where no link leads to it", false],
      ["where current leads to it", true],
    ])("a floor above this program, %s: refused, with --force as well", async (_, isLinked) => {
      const [current] = readLayout(place()).versions;
      put(`${place()}/journal.json`, encodeJournal(idleJournal(current?.build as Build, "8.0.0")));
      if (isLinked) symlinkSync(`versions/${later}`, `${place()}/current`);
      const before = tree();
      const { exitCode, stdout } = await install(["--force"]);
      expect(exitCode).toBe(111);
      expect(stdout).toContain("below the floor 8.0.0 of this host. 9.0.0 is there, and was");
      expect(tree()).toEqual(before);
    });
  });

  test("a unit that somebody changed is left, and named", async () => {
    await install();
    const path = folder.file(`units/${units[0]}`);
    appendFileSync(path, "# mine\n");
    const plain = await install();
    expect(plain.exitCode).toBe(111);
    expect(plain.stdout).toMatch(/^left .*agent\.service +somebody has changed it/m);
    expect(readFileSync(path, "utf8")).toEndWith("# mine\n");
    expect((await install(["--force"])).exitCode).toBe(0);
    expect(readFileSync(path, "utf8")).not.toContain("# mine");
  });

  test("a root set is pinned once; what is none ends it before anything is done", async () => {
    using site = new Site();
    const none = put(folder.file("none.json"), "{}");
    const refused = await install(["--root", none]);
    expect([refused.exitCode, existsSync(place())]).toEqual([111, false]);
    expect(refused.stderr).toContain(`Cannot use the root set ${none}: expected`);
    const path = `${place()}/trust/root.json`;
    const first = await install(["--root", `${site.path}/root-1.json`]);
    expect(first.stdout).toMatch(new RegExp(`^created +${path}`, "m"));
    expect(readFileSync(path, "utf8")).toBe(site.root);
    expect((await install(["--root", `${site.path}/root-1.json`])).stdout).toStartWith("Nothing");
    const other = put(folder.file("other.json"), site.keys.root(1, ["thief"], { by: ["thief"] }));
    const kept = await install(["--root", other]);
    expect(kept.stdout).toMatch(/^kept .*another root set is pinned/m);
    expect([kept.exitCode, readFileSync(path, "utf8")]).toEqual([0, site.root]);
  });

  test("an installation of a later hostler is left alone", async () => {
    put(`${place()}/layout.json`, '{"format":7}');
    const { exitCode, stderr } = await install();
    expect(exitCode).toBe(111);
    expect(stderr).toContain("received 7, of a later hostler");
    expect(readdirSync(place())).toEqual(["layout.json"]);
  });

  test("somebody else changes it at the moment", async () => {
    await install();
    using _held = Installation.open(place(), { make: false });
    const { exitCode, stderr } = await install();
    expect(exitCode).toBe(111);
    expect(stderr).toContain(`received a lock that process ${process.pid} has`);
  });
});

describe("killed", () => {
  const steps = rotating("fleet install", [...hostSteps.store, ...hostSteps.install], { outOf: 4 });
  test.each(steps)(
    "at %s: current leads nowhere or to what is whole; the next ends it",
    async (step) => {
      const program = hostlerWithFaults();
      const killed = await install([], { program, killAt: step });
      expect(killed.signal).toBe("SIGKILL");
      const current = linked(readLayout(place()), "current");
      if (current !== undefined) expect(checkVersion(place(), current).kind).toBe("whole");
      expect(await install([], { program })).toMatchObject({ exitCode: 0, stderr: "" });
      await expectInstalled();
      expect(readdirSync(`${place()}/versions`)).toHaveLength(1);
    },
  );
});

describe("a program that does not prove itself", () => {
  test("is stored, and no link leads to it", async () => {
    // Whoever asks this copy for its self-test is told of a digest that is not its own.
    const copy = folder.file("copy");
    copyFileSync(hostler(), copy);
    await install([], { program: copy });
    const current = linked(readLayout(place()), "current") ?? "";
    rmSync(`${place()}/current`);
    put(`${place()}/journal.json`, '{"format":99}');
    const { exitCode, stderr } = await install([], { program: copy });
    expect(exitCode).toBe(111);
    expect(stderr).toContain(`Cannot use ${current}: expected that`);
    expect(stderr).toContain("received upgrade journal: ");
    expect(stderr).toContain("expected format 1, received format 99");
    expect(readLayout(place()).links.current).toEqual({ kind: "absent" });
  });
});

skipUnless("an installation where nothing lasts", root, () => {
  async function installOn(mount: string, words: readonly string[]): Promise<ProgramResult> {
    mkdirSync(place(), { recursive: true });
    const script = `${mount} && exec "$@"`;
    return await runProgram([
      ...["unshare", "--mount", "sh", "-c", script, "sh", hostler(), "fleet", "install"],
      ...["--folder", place(), "--prefix", folder.file("usr"), "--without-units", ...words],
    ]);
  }

  test.each([
    [() => `mount -t tmpfs none ${place()}`, "received tmpfs at "],
    [
      () => {
        for (const part of ["lower", "upper", "work"]) mkdirSync(folder.file(part));
        const parts = `lowerdir=${folder.file("lower")},upperdir=${folder.file("upper")}`;
        const options = `${parts},workdir=${folder.file("work")}`;
        return `mount -t overlay -o ${options} none ${place()}`;
      },
      "received overlay at ",
    ],
  ])(
    "a folder that is gone with the next start is refused: update the image (%#)",
    async (mount, words) => {
      const command = mount();
      const refused = await installOn(command, []);
      expect(refused).toMatchObject({ exitCode: 111, stdout: "" });
      expect(refused.stderr).toContain("expected a volume that lasts");
      expect(refused.stderr).toContain(words);
      expect(refused.stderr).toContain("Update the image");
      expect((await installOn(command, ["--volatile"])).exitCode).toBe(0);
    },
  );

  test("a read-only one is refused, whatever is said of it", async () => {
    const { exitCode, stderr } = await installOn(`mount -t tmpfs -o ro none ${place()}`, [
      "--volatile",
    ]);
    expect(exitCode).toBe(111);
    expect(stderr).toContain("expected a file system that can be written");
    expect(stderr).toContain("Update the image: this host is replaced as a whole");
  });
});

describe("hostler fleet install --remove", () => {
  /** Nothing is left but what a test has put there. */
  const left = () => tree().map((line) => line.split(" ")[0]);

  test("takes away all that was made, also called by its own name", async () => {
    await install();
    expect(await install(["--remove"], { program: name() })).toMatchObject({
      ...{ exitCode: 0, stderr: "" },
      stdout: expect.stringMatching(/^removed .*bin\/hostler$/m),
    });
    expect(left()).toEqual([]);
    expect(existsSync(place())).toBe(false);
    expect((await install(["--remove"])).stdout).toBe("Nothing to do: nothing of it is left.\n");
  });

  test("leaves what somebody has changed, or put there", async () => {
    await install();
    const unit = folder.file(`units/${units[0]}`);
    appendFileSync(unit, "# mine\n");
    rmSync(name());
    symlinkSync("/bin/true", name());
    put(`${place()}/notes`, "mine");
    const { exitCode, stdout } = await install(["--remove"]);
    expect(exitCode).toBe(111);
    expect(stdout).toContain("somebody has changed it; --force removes it");
    expect(stdout).toContain("hostler fleet install has not made it");
    expect(left()).toEqual(["fleet/notes", `units/${units[0]}`, "usr/bin/hostler"]);
    const forced = await install(["--remove", "--force"]);
    expect(forced.exitCode).toBe(111);
    expect(left()).toEqual(["fleet/notes", "usr/bin/hostler"]);
  });

  test("says what it would do with --dry-run, and does nothing while a version runs", async () => {
    await install();
    const before = tree();
    const planned = await install(["--remove", "--dry-run"]);
    expect(planned.stdout).toContain("would remove");
    expect(tree()).toEqual(before);
    const socket = folder.file("luod.sock");
    await using running = startProgram([
      name(),
      "fleet",
      "supervise",
      "--folder",
      place(),
      "--volatile",
      "--control-socket",
      socket,
    ]);
    await running.said(/./);
    const refused = await install(["--remove"]);
    expect(refused.exitCode).toBe(111);
    expect(refused.stdout).toContain("End it first: systemctl disable --now hostler-fleet-agent");
    expect(existsSync(name())).toBe(true);
  });

  test.each([true, false])("goes on where all but the folder is gone, a lock: %p", async (has) => {
    mkdirSync(place());
    if (has) writeFileSync(`${place()}/lock`, "");
    const { exitCode, stderr } = await install(["--remove"]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(existsSync(place())).toBe(false);
  });

  test.each(rotating("fleet uninstall kill points", hostSteps.uninstall, { outOf: 2 }))(
    "goes on after one that was killed: %s",
    async (step) => {
      await install();
      const killed = await install(["--remove"], { program: hostlerWithFaults(), killAt: step });
      expect(killed.signal).toBe("SIGKILL");
      await install(["--remove"]);
      expect(left()).toEqual([]);
      expect(existsSync(place())).toBe(false);
    },
  );
});
