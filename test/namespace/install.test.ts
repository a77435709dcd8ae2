/** The compiled program puts itself, its names and its units in their places, and removes them. */
import { describe, expect, test } from "bun:test";
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
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { renderUnit } from "../../src/install/unit-text.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { type ProgramResult, runProgram } from "../support/program.ts";
import { root as isRoot, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

const PROGRAM = "usr/local/bin/hostler";
const UNITS = "etc/systemd/system";
const LUOD_UNIT = `${UNITS}/luod.service`;

async function install(
  image: TemporaryFolder,
  words: readonly string[],
  program = hostler(),
): Promise<ProgramResult> {
  return await runProgram([program, "install", "--root", image.path, ...words]);
}

/** Every file and link below, with what tells whether it was made anew. */
function treeOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((path) => ({ path, stats: lstatSync(join(folder, path)) }))
    .filter(({ stats }) => !stats.isDirectory())
    .map(({ path, stats }) => `${path} ${(stats.mode & 0o777).toString(8)} ${stats.ino}`)
    .toSorted();
}

const namesOf = (folder: string) => treeOf(folder).map((line) => line.split(" ")[0] ?? "");

function put(path: string, content: string): string {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

describe("hostler install", () => {
  test("makes what the role needs, and a second time finds nothing to do", async () => {
    using image = temporaryFolder();
    const first = await install(image, ["--role", "luod"]);
    expect(first).toMatchObject({ exitCode: 0, stderr: "" });
    expect(first.stdout).toEndWith(`systemctl --root=${image.path} enable luod\n`);
    const tree = treeOf(image.path);
    expect(namesOf(image.path)).toEqual([
      LUOD_UNIT,
      PROGRAM,
      "usr/local/bin/luoctl",
      "usr/local/sbin/luod",
    ]);
    expect(readlinkSync(image.file("usr/local/sbin/luod"))).toBe("../bin/hostler");
    expect(readFileSync(image.file(PROGRAM)).equals(readFileSync(hostler()))).toBe(true);

    const second = await install(image, ["--role", "luod"]);
    expect(second).toMatchObject({ exitCode: 0, stderr: "" });
    expect(second.stdout).toStartWith("Nothing to do: everything is there.\n");
    expect(treeOf(image.path)).toEqual(tree);
  });

  test("by its names the installed program is what they say, and can install itself", async () => {
    using image = temporaryFolder();
    await install(image, ["--role", "all"]);
    const names = ["sbin/luod", "bin/luoctl", "bin/holden-agent", "bin/holden-orchestrator"];
    for (const name of names) {
      const { exitCode, stdout } = await runProgram([image.file(`usr/local/${name}`), "--help"]);
      expect({ name, exitCode, usage: stdout.includes(`  ${name.split("/")[1]} `) }).toEqual({
        name,
        exitCode: 0,
        usage: true,
      });
    }
    const again = await install(image, ["--role", "all"], image.file(PROGRAM));
    expect(again.stdout).toStartWith("Nothing to do: everything is there.\n");
    const version = await runProgram([image.file(PROGRAM), "--version", "--json"]);
    expect(JSON.parse(version.stdout)).toMatchObject({ bun: "1.4.5" });
  });

  test("modes are the same whatever the umask is", async () => {
    using image = temporaryFolder();
    const words = [hostler(), "install", "--root", image.path, "--role", "luod"];
    await runProgram(["sh", "-c", 'umask 077; exec "$@"', "sh", ...words]);
    const modes = ["usr/local/sbin", UNITS, PROGRAM, LUOD_UNIT].map(
      (path) => statSync(image.file(path)).mode & 0o777,
    );
    expect(modes).toEqual([0o755, 0o755, 0o755, 0o644]);
  });

  test("--dry-run says it, and does nothing", async () => {
    using image = temporaryFolder();
    const result = await install(image, ["--role", "luod", "--dry-run"]);
    expect(result.exitCode).toBe(0);
    expect(result.stdout).toContain("would create  /etc/systemd/system/luod.service\n");
    expect(readdirSync(image.path)).toEqual([]);
  });

  test("--json says what became of everything", async () => {
    using image = temporaryFolder();
    const { stdout } = await install(image, ["--role", "luoctl", "--json"]);
    expect(JSON.parse(stdout)).toEqual({
      root: image.path,
      dry_run: false,
      ok: true,
      items: [
        { kind: "program", path: "/usr/local/bin/hostler", action: "create", reason: null },
        { kind: "link", path: "/usr/local/bin/luoctl", action: "create", reason: null },
      ],
      reload: "not-asked",
      advice: [],
    });
  });

  test("another prefix and folder of units: the units name the prefix", async () => {
    using image = temporaryFolder();
    const flags = ["--prefix", "/opt/hostler/", "--unit-directory", "/opt/units"];
    await install(image, ["--role", "process", ...flags]);
    expect(namesOf(image.path)).toEqual([
      "opt/hostler/bin/hostler",
      "opt/units/hostler-process-agent.service",
      "opt/units/hostler-process-agent.socket",
      "opt/units/hostler-process-orchestrator.service",
    ]);
    const unit = readFileSync(image.file("opt/units/hostler-process-agent.service"), "utf8");
    expect(unit).toContain("\nExecStart=/opt/hostler/bin/hostler process agent\n");
  });

  test("an authority is the program and its unit, and goes again", async () => {
    using image = temporaryFolder();
    const made = await install(image, ["--role", "authority"]);
    expect(made).toMatchObject({ exitCode: 0, stderr: "" });
    expect(made.stdout).toEndWith(`systemctl --root=${image.path} enable hostler-authority\n`);
    expect(namesOf(image.path)).toEqual([`${UNITS}/hostler-authority.service`, PROGRAM]);
    const unit = readFileSync(image.file(`${UNITS}/hostler-authority.service`), "utf8");
    expect(unit).toContain("\nExecStart=/usr/local/bin/hostler identity authority\n");
    expect(await install(image, ["--role", "authority", "--remove"])).toMatchObject({
      exitCode: 0,
    });
    expect(namesOf(image.path)).toEqual([]);
  });

  test("a worker of virtual machines is the program and its unit", async () => {
    using image = temporaryFolder();
    expect(await install(image, ["--role", "vm-worker"])).toMatchObject({ exitCode: 0 });
    expect(namesOf(image.path)).toEqual([`${UNITS}/hostler-vm-worker.service`, PROGRAM]);
    const unit = readFileSync(image.file(`${UNITS}/hostler-vm-worker.service`), "utf8");
    expect(unit).toContain("\nExecStart=/usr/local/bin/hostler vm worker\n");
  });

  test("what another version made is replaced", async () => {
    using image = temporaryFolder();
    put(image.file(LUOD_UNIT), renderUnit("luod.service", "[Service]\n", "/usr/local"));
    mkdirSync(dirname(image.file(PROGRAM)), { recursive: true });
    copyFileSync("/bin/true", image.file(PROGRAM));
    const { exitCode, stdout } = await install(image, ["--role", "luod"]);
    expect(exitCode).toBe(0);
    expect(stdout.match(/^replaced .*$/gm)).toHaveLength(2);
    expect(readFileSync(image.file(LUOD_UNIT), "utf8")).toContain("SurviveFinalKillSignal=yes");
  });

  test("another program of the same size is replaced as well", async () => {
    using image = temporaryFolder();
    const bytes = readFileSync(hostler());
    const middle = bytes.length >> 1;
    bytes[middle] = (bytes[middle] ?? 0) ^ 1;
    mkdirSync(dirname(image.file(PROGRAM)), { recursive: true });
    writeFileSync(image.file(PROGRAM), bytes);
    const { stdout } = await install(image, ["--role", "luoctl"]);
    expect(stdout).toMatch(/^replaced .*hostler$/m);
    expect(readFileSync(image.file(PROGRAM)).equals(readFileSync(hostler()))).toBe(true);
  });

  test("a unit that somebody changed is left and named; --force overwrites it", async () => {
    using image = temporaryFolder();
    await install(image, ["--role", "luod"]);
    const own = readFileSync(image.file(LUOD_UNIT), "utf8");
    appendFileSync(image.file(LUOD_UNIT), "# mine\n");
    rmSync(image.file("usr/local/bin/luoctl"));
    const plain = await install(image, ["--role", "luod"]);
    expect(plain.exitCode).toBe(111);
    expect(plain.stdout).toMatch(/^left .*luod\.service .*drop-in/m);
    expect(plain.stdout).toMatch(/^created .*luoctl$/m);
    expect(readFileSync(image.file(LUOD_UNIT), "utf8")).toBe(`${own}# mine\n`);
    const forced = await install(image, ["--role", "luod", "--force"]);
    expect(forced.exitCode).toBe(0);
    expect(readFileSync(image.file(LUOD_UNIT), "utf8")).toBe(own);
  });

  test("a link of the operator's that leads to the program is as good as ours", async () => {
    using image = temporaryFolder();
    mkdirSync(image.file("usr/local/bin"), { recursive: true });
    symlinkSync("/usr/local/bin/hostler", image.file("usr/local/bin/luoctl"));
    const { exitCode, stdout } = await install(image, ["--role", "luoctl"]);
    expect({ exitCode, stdout }).toEqual({
      exitCode: 0,
      stdout: "created  /usr/local/bin/hostler\n",
    });
  });

  test("links of an image do not lead out of it", async () => {
    using image = temporaryFolder();
    using outside = temporaryFolder();
    mkdirSync(image.file("usr"), { recursive: true });
    symlinkSync(outside.path, image.file("usr/local"));
    const { exitCode } = await install(image, ["--role", "luod"]);
    expect(exitCode).toBe(0);
    expect(readdirSync(outside.path)).toEqual([]);
    expect(existsSync(join(image.path, outside.path, "sbin/luod"))).toBe(true);
  });

  test("where sbin is bin, the link is beside the program", async () => {
    using image = temporaryFolder();
    mkdirSync(image.file("usr/local/bin"), { recursive: true });
    symlinkSync("bin", image.file("usr/local/sbin"));
    await install(image, ["--role", "luod"]);
    expect(readlinkSync(image.file("usr/local/bin/luod"))).toBe("hostler");
    const { exitCode } = await runProgram([image.file("usr/local/sbin/luod"), "--help"]);
    expect(exitCode).toBe(0);
  });
});

describe("what is in the way", () => {
  test.each([
    ["a folder", (path: string) => mkdirSync(path)],
    ["a link to /dev/null", (path: string) => symlinkSync("/dev/null", path)],
    ["a file", (path: string) => writeFileSync(path, "#!/bin/sh\n")],
  ])("%s: it is named, and nothing is done", async (what, occupy) => {
    using image = temporaryFolder();
    const link = image.file("usr/local/sbin/luod");
    mkdirSync(dirname(link), { recursive: true });
    occupy(link);
    const { exitCode, stdout } = await install(image, ["--role", "luod"]);
    expect(exitCode).toBe(111);
    expect(stdout).toContain(`refused       /usr/local/sbin/luod     `);
    expect(stdout).toContain(`there is ${what}. Move it away`);
    expect(stdout).toEndWith("Nothing was done: see what is refused.\n");
    expect(existsSync(image.file(PROGRAM))).toBe(false);
    const forced = await install(image, ["--role", "luod", "--force"]);
    expect(forced.exitCode).toBe(what === "a folder" ? 111 : 0);
  });

  test("a script in the program's place, and a masked unit", async () => {
    using image = temporaryFolder();
    put(image.file(PROGRAM), "#!/bin/sh\n");
    mkdirSync(image.file(UNITS), { recursive: true });
    symlinkSync("/dev/null", image.file(LUOD_UNIT));
    const { exitCode, stdout } = await install(image, ["--role", "luod"]);
    expect(exitCode).toBe(111);
    expect(stdout).toContain("there is a file that is no program of hostler's");
    expect(stdout).toContain("there is a link to /dev/null");
  });

  test("a file in a folder's place, and a root that is none", async () => {
    using image = temporaryFolder();
    put(image.file("usr"), "");
    const inside = await install(image, ["--role", "luod"]);
    expect(inside.exitCode).toBe(111);
    expect(inside.stderr).toContain("expected folders alone on the way there");
    const asRoot = await runProgram([
      ...[hostler(), "install", "--role", "luod", "--root", image.file("usr")],
    ]);
    expect(asRoot).toMatchObject({ exitCode: 111, stdout: "" });
    expect(asRoot.stderr).toContain("expected a folder, received a file");
  });

  test.each([
    [[], "Expected --role"],
    [["--role", "lud"], "Did you mean luod?"],
    [["--role", "luod", "--prefix", "opt"], "Expected an absolute path"],
    [["--role", "luod", "--prefix", "/a b"], "Expected an absolute path"],
    [["--role", "luod", "--unit-directory", "/50%"], "Expected an absolute path"],
  ] as [string[], string][])("the command line %j is refused", async (words, message) => {
    using image = temporaryFolder();
    const { exitCode, stderr } = await install(image, words);
    expect(exitCode).toBe(100);
    expect(stderr).toContain(message);
    expect(readdirSync(image.path)).toEqual([]);
  });
});

describe("hostler install --remove", () => {
  test("takes away what install has made, and nothing else", async () => {
    using image = temporaryFolder();
    const others = [
      put(image.file("usr/local/bin/other"), ""),
      put(image.file(`${UNITS}/luod.service.d/10-mine.conf`), "[Service]\n"),
    ];
    const before = treeOf(image.path);
    await install(image, ["--role", "all"]);
    const { exitCode, stdout } = await install(image, ["--role", "all", "--remove"]);
    expect({ exitCode, lines: stdout.match(/^removed /gm)?.length }).toEqual({
      exitCode: 0,
      lines: 14,
    });
    expect(treeOf(image.path)).toEqual(before);
    expect(others.every((path) => existsSync(path))).toBe(true);
    const again = await install(image, ["--role", "all", "--remove"]);
    expect(again).toMatchObject({
      exitCode: 0,
      stdout: "Nothing to do: nothing of it is left.\n",
    });
  });

  test("keeps the program for another role", async () => {
    using image = temporaryFolder();
    await install(image, ["--role", "luod", "--role", "holden-agent"]);
    const first = await install(image, ["--role", "luod", "--remove"]);
    expect(first.exitCode).toBe(0);
    expect(first.stdout).toMatch(/^kept .*hostler .*holden-agent needs it$/m);
    expect(namesOf(image.path)).toEqual(["usr/local/bin/holden-agent", PROGRAM]);
    await install(image, ["--role", "holden-agent", "--remove"]);
    expect(namesOf(image.path)).toEqual([]);
  });

  test("leaves and names what differs", async () => {
    using image = temporaryFolder();
    await install(image, ["--role", "luod"]);
    appendFileSync(image.file(LUOD_UNIT), "# mine\n");
    appendFileSync(image.file(PROGRAM), "\n");
    rmSync(image.file("usr/local/bin/luoctl"));
    symlinkSync("/bin/true", image.file("usr/local/bin/luoctl"));
    const { exitCode, stdout } = await install(image, ["--role", "luod", "--remove"]);
    expect(exitCode).toBe(111);
    expect(stdout.match(/^left /gm)).toHaveLength(3);
    expect(namesOf(image.path)).toEqual([LUOD_UNIT, PROGRAM, "usr/local/bin/luoctl"]);
    await install(image, ["--role", "luod", "--remove", "--force"]);
    expect(namesOf(image.path)).toEqual(["usr/local/bin/luoctl"]);
  });

  test("refuses what is enabled, and nothing is removed", async () => {
    using image = temporaryFolder();
    await install(image, ["--role", "luod"]);
    mkdirSync(image.file(`${UNITS}/multi-user.target.wants`));
    symlinkSync(
      "/etc/systemd/system/luod.service",
      image.file(`${UNITS}/multi-user.target.wants/luod.service`),
    );
    const before = treeOf(image.path);
    const { exitCode, stdout } = await install(image, ["--role", "luod", "--remove"]);
    expect(exitCode).toBe(111);
    expect(stdout).toContain(`systemctl --root=${image.path} disable luod.service first`);
    expect(treeOf(image.path)).toEqual(before);
  });
});

describe("killed while it writes", () => {
  test.each([1, 2, 4])("item %i: what stands is whole, and a second run ends it", async (pass) => {
    using image = temporaryFolder();
    const program = hostlerWithFaults();
    const words = [program, "install", "--root", image.path, "--role", "luod"];
    const killed = await runProgram(words, {
      environment: { HOSTLER_KILL_AT: `install:written#${pass}` },
    });
    expect(killed.signal).toBe("SIGKILL");
    const left = namesOf(image.path);
    expect(left.filter((name) => name.endsWith(".new"))).toHaveLength(1);
    expect(left).toHaveLength(pass);
    expect((await install(image, ["--role", "luod"], program)).exitCode).toBe(0);
    expect(namesOf(image.path)).toEqual([
      LUOD_UNIT,
      PROGRAM,
      "usr/local/bin/luoctl",
      "usr/local/sbin/luod",
    ]);
  });
});

/** Says what it is asked, and answers as systemd 252 with luod running where $ACTIVE says so. */
const systemctl = `#!/bin/sh
echo "$*" >> "$ASKED"
case "$1" in
--version) echo "systemd 252 (252.38-1)" ;;
is-active) echo "$ACTIVE" ;;
daemon-reload) test -z "$BROKEN" || { echo "no bus" >&2; exit 1; } ;;
esac
`;

skipUnless("install where systemd runs", isRoot, () => {
  /** In a mount namespace in which systemd seems to have booted this host. */
  async function installOnHost(
    folder: TemporaryFolder,
    words: readonly string[],
    variables: Readonly<Record<string, string>> = {},
  ): Promise<ProgramResult & { readonly asked: string[] }> {
    writeFileSync(folder.file("asked"), "");
    put(folder.file("bin/systemctl"), systemctl);
    chmodSync(folder.file("bin/systemctl"), 0o755);
    const script = 'mount -t tmpfs none /run; mkdir -p /run/systemd/system; exec "$@"';
    const places = ["--prefix", folder.file("prefix"), "--unit-directory", folder.file("units")];
    const result = await runProgram(
      [
        ...["unshare", "--mount", "sh", "-c", script, "sh"],
        ...[hostler(), "install", "--role", "luod", ...places, ...words],
      ],
      {
        environment: {
          PATH: `${folder.file("bin")}:${process.env["PATH"]}`,
          ASKED: folder.file("asked"),
          ACTIVE: "inactive",
          BROKEN: "",
          ...variables,
        },
      },
    );
    const asked = readFileSync(folder.file("asked"), "utf8").split("\n");
    const changes = asked.filter((line) => line !== "" && !/^(--version|is-active)/.test(line));
    return { ...result, asked: changes };
  }

  test("systemd reads its units anew when one has changed, and is asked nothing else", async () => {
    using folder = temporaryFolder();
    const first = await installOnHost(folder, []);
    expect(first).toMatchObject({ exitCode: 0, stderr: "", asked: ["daemon-reload"] });
    expect(first.stdout).toContain(`systemctl enable --now ${folder.file("units")}/luod.service`);
    expect(first.stdout).toContain("systemd 252 does not know SurviveFinalKillSignal=");
    const second = await installOnHost(folder, []);
    expect(second).toMatchObject({ exitCode: 0, asked: [] });
    const planned = await installOnHost(folder, ["--remove", "--dry-run"]);
    expect(planned).toMatchObject({ exitCode: 0, asked: [] });
    const removed = await installOnHost(folder, ["--remove"]);
    expect(removed).toMatchObject({ exitCode: 0, asked: ["daemon-reload"] });
  });

  test("what runs is not removed, nor restarted", async () => {
    using folder = temporaryFolder();
    await installOnHost(folder, []);
    const refused = await installOnHost(folder, ["--remove"], { ACTIVE: "active" });
    expect(refused).toMatchObject({ exitCode: 111, asked: [] });
    expect(refused.stdout).toContain("it runs: systemctl disable --now luod.service first");
    writeFileSync(
      folder.file("units/luod.service"),
      renderUnit("luod.service", "[Service]\n", folder.file("prefix")),
    );
    const replaced = await installOnHost(folder, [], { ACTIVE: "active" });
    expect(replaced).toMatchObject({ exitCode: 0, asked: ["daemon-reload"] });
    expect(replaced.stdout).toContain("until: systemctl restart luod.service\n");
  });

  test("a daemon-reload that fails is said", async () => {
    using folder = temporaryFolder();
    const { exitCode, stderr } = await installOnHost(folder, [], { BROKEN: "1" });
    expect({ exitCode, stderr }).toEqual({
      exitCode: 111,
      stderr: "hostler install: systemctl daemon-reload failed: no bus\n",
    });
  });

  test("for an image systemd is asked nothing", async () => {
    using folder = temporaryFolder();
    mkdirSync(folder.file("image"));
    const result = await installOnHost(folder, ["--root", folder.file("image")]);
    expect(result).toMatchObject({ exitCode: 0, asked: [] });
  });
});

skipUnless("install where it may not write", isRoot, () => {
  test("a file system that is read-only", async () => {
    using folder = temporaryFolder();
    const script = `mount -t tmpfs -o ro none ${folder.path}; exec "$@"`;
    const { exitCode, stdout, stderr } = await runProgram([
      ...["unshare", "--mount", "sh", "-c", script, "sh"],
      ...[hostler(), "install", "--role", "luod", "--root", folder.path],
    ]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 111, stdout: "" });
    expect(stderr).toContain("Cannot write /usr/local/bin/hostler: expected a file system that");
  });

  test("a user who is not root", async () => {
    using folder = temporaryFolder();
    chmodSync(folder.path, 0o755);
    // The build's folder may be closed to others.
    copyFileSync(hostler(), folder.file("hostler"));
    mkdirSync(folder.file("image"));
    const { exitCode, stdout, stderr } = await runProgram([
      ...["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
      ...[folder.file("hostler"), "install", "--role", "luod", "--root", folder.file("image")],
    ]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 111, stdout: "" });
    expect(stderr).toContain("expected that this user may write there");
  });
});
