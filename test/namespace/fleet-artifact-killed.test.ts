/** Whoever fetches or publishes is killed between any two steps, and whoever comes next goes on. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fetchVersion } from "../../src/artifact/fetch.ts";
import { fetchSteps, pushSteps } from "../../src/artifact/kill-points.ts";
import type { ArtifactBuild, Envelope, Manifest } from "../../src/artifact/protocol.ts";
import { openSource } from "../../src/artifact/source.ts";
import { executable, type Release, Site } from "../support/artifact.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(30_000);

const size = 3 * 1024 * 1024;
const bytes = executable({ size, seed: 21 });
let site: Site;
let release: Release;
beforeAll(async () => {
  site = new Site();
  release = await site.release("1.5.0", bytes, { blockBytes: 65_536 });
});
afterAll(() => site[Symbol.dispose]());

const words = (into: string) => [
  ...["fleet", "artifact", "fetch", "1.5.0", "--from", site.path, "--into", into],
  ...["--root", join(site.path, "root-1.json"), "--base", "/dev/null", "--json"],
];
const folderIn = (into: string) => join(into, "versions", `1.5.0-${release.digest.slice(0, 12)}`);

const buildOf = ({ manifest }: Release): ArtifactBuild => {
  const { signed } = JSON.parse(manifest) as Envelope;
  return (JSON.parse(signed) as Manifest).builds[0] as ArtifactBuild;
};

/** What has to hold whenever somebody was killed. */
function expectNothingWrong(into: string): void {
  const folder = folderIn(into);
  if (!existsSync(join(folder, "verified"))) return;
  expect(readFileSync(join(folder, "hostler"))).toEqual(bytes);
  expect(readFileSync(join(folder, "manifest.json"), "utf8")).toBe(release.manifest);
}

async function expectWhole(into: string): Promise<{ readonly fetched: number }> {
  const result = await runProgram([hostler(), ...words(into)]);
  expect(result).toMatchObject({ exitCode: 0, stderr: "" });
  const folder = folderIn(into);
  expect(readdirSync(folder).toSorted()).toEqual(["hostler", "manifest.json", "verified"]);
  expect(readFileSync(join(folder, "hostler"))).toEqual(bytes);
  return JSON.parse(result.stdout) as { readonly fetched: number };
}

describe("a fetch", () => {
  const steps = fetchSteps.flatMap((step) =>
    step === "block-written" ? [step, `${step}#2`, `${step}#47`, `${step}#48`] : [step],
  );
  test.each(steps)("killed at %s is gone on with", async (step) => {
    const into = site.file(`into-${step}`);
    const environment = { HOSTLER_KILL_AT: `artifact:${step}` };
    const killed = await runProgram([hostlerWithFaults(), ...words(into)], { environment });
    expect(killed.signal).toBe("SIGKILL");
    expectNothingWrong(into);
    const { fetched } = await expectWhole(into);
    // What was written is not fetched again: after the last block that is the block map alone.
    const [, count] = /^block-written#(\d+)$/.exec(step) ?? [];
    if (count !== undefined) expect(fetched).toBeLessThan(size * (1 - Number(count) / 50));
  });
});

describe("a push", () => {
  test.each(pushSteps)("killed at %s is done again, and never half visible", async (step) => {
    const to = site.file(`published-${step}`);
    const push = ["fleet", "artifact", "push", "1.5.0", "--folder", site.path, "--to", to];
    const environment = { HOSTLER_KILL_AT: `artifact:${step}` };
    const killed = await runProgram([hostlerWithFaults(), ...push], { environment });
    expect(killed.signal).toBe("SIGKILL");
    // Whoever finds a manifest finds all that it names.
    const names = readdirSync(to);
    const isNamed = names.includes("hostler-1.5.0.manifest.json");
    expect(names).toContain(`${release.digest}.zst`);
    expect(isNamed).toBe(step !== "frames-pushed");
    expect(await runProgram([hostler(), ...push])).toMatchObject({ exitCode: 0 });
    const verify = ["fleet", "artifact", "verify", "1.5.0", "--at", to];
    const verified = [...verify, "--root", join(site.path, "root-1.json")];
    expect(await runProgram([hostler(), ...verified])).toMatchObject({ exitCode: 0 });
  });
});

skipUnless("a disk that is full", root, () => {
  test("is seen before anything comes", async () => {
    using disk = new SmallDisk(site.file("small"), "20m");
    const result = await runProgram([hostler(), ...words(disk.path)]);
    expect(result.exitCode).toBe(111);
    expect(result.stderr).toContain("expected 35 MiB on its file system, received");
    expect(existsSync(join(folderIn(disk.path), "hostler.partial"))).toBe(false);
  });

  test("when what is trusted is to be kept is told", async () => {
    using disk = new SmallDisk(site.file("full"), "1m");
    disk.fill();
    const result = await runProgram([hostler(), ...words(disk.path)]);
    expect(result.exitCode).toBe(111);
    expect(result.stderr).toMatch(/Cannot keep .*: expected room on its file system/);
  });

  test("in the middle ends the fetch, and what has come is used later", async () => {
    using disk = new SmallDisk(site.file("filling"), "40m");
    const request = {
      ...{ version: "1.5.0", build: buildOf(release), manifest: release.manifest, rate: null },
      ...{ versions: join(disk.path, "versions"), bases: [] },
      ...{ sources: [openSource(`file://${site.path}`)], signal: new AbortController().signal },
    };
    const work = fetchVersion({
      ...request,
      onProgress: (now) => {
        if (now.bytes > size / 2 && disk.free > 0) disk.fill();
      },
    });
    expect(await rejectionOf(work)).toMatchObject({ refusal: "disk-full" });
    disk.clear();
    const { progress } = await fetchVersion(request);
    expect(progress.fetched).toBeLessThan(size * 0.55);
    await expectWhole(disk.path);
  });
});

describe("by its commands", () => {
  const run = async (folder: string, line: string) =>
    await runProgram([hostler(), "fleet", ...line.split(" ")], { workingDirectory: folder });
  const done = async (folder: string, line: string) => {
    const result = await run(folder, line);
    expect({ line, ...result }).toMatchObject({ exitCode: 0, stderr: "" });
    return result.stdout;
  };
  const refused = async (folder: string, line: string, exitCode: number) => {
    const result = await run(folder, line);
    expect({ line, exitCode: result.exitCode }).toEqual({ line, exitCode });
    return result.stderr;
  };

  test("a release is made, signed, published, verified, fetched, and revoked", async () => {
    const folder = site.file("by-hand");
    mkdirSync(join(folder, "site"), { recursive: true });
    copyFileSync(site.file("hostler-1.5.0"), join(folder, "program"));
    for (const name of ["root-1", "root-2", "release", "release-2"]) {
      await done(folder, `key generate ${name}`);
    }
    expect(statSync(join(folder, "release")).mode & 0o777).toBe(0o600);
    const secret = readFileSync(join(folder, "release"), "utf8");
    const again = await refused(folder, "key generate release", 111);
    expect(again).toContain("release.pub: expected no file there, received one");
    expect(again).not.toMatch(/remove/i);
    renameSync(join(folder, "release.pub"), join(folder, "aside"));
    expect(await refused(folder, "key generate release", 111)).toContain("release: expected no");
    renameSync(join(folder, "aside"), join(folder, "release.pub"));
    expect(readFileSync(join(folder, "release"), "utf8")).toBe(secret);
    const keys = "--key root-1.pub --key root-2.pub";
    await done(folder, `root init ${keys} --out site/root-1.json`);
    expect(await refused(folder, `root init ${keys} --out site/root-1.json`, 100)).toContain(
      "no such",
    );
    await done(folder, "root sign site/root-1.json --key root-2");
    await done(folder, "root metadata site/metadata.json --signer release.pub");
    await done(folder, "root sign site/metadata.json --key root-1");
    await expectDoubts(folder);
    const build = "artifact build 2.0.0 program --folder site --level 1 --label commit=abc";
    expect(await done(folder, `${build} --skip-version-check`)).toContain(
      "program: not asked which version it is",
    );
    const manifest = "site/hostler-2.0.0.manifest.json";
    expect(await refused(folder, "artifact push 2.0.0 --folder site --to pub", 111)).toContain(
      "hostler fleet artifact sign",
    );
    const shown = await done(folder, `artifact sign ${manifest} --key release`);
    expect(shown).toContain('"commit": "abc"');
    await done(folder, "artifact push 2.0.0 --folder site --to pub");
    const verify = "artifact verify 2.0.0 --at pub --root site/root-1.json";
    expect(await done(folder, verify)).toContain("root set 1 and metadata 1, which is fresh");
    const fetch = "artifact fetch 2.0.0 --from pub --root site/root-1.json --into here";
    expect(await done(folder, `${fetch} --base program`)).toContain("3 MiB, of which");
    await revoke(folder);
    expect(await refused(folder, verify, 111)).toContain("which is revoked: stolen");
    expect(await refused(folder, fetch, 111)).toContain("which is revoked: stolen");
    const stolen = await run(folder, `artifact sign ${manifest} --key release`);
    expect(stolen.stderr).toContain("release is revoked (stolen): no device takes");
    await done(folder, `artifact sign ${manifest} --key release-2`);
    await done(folder, "artifact push 2.0.0 --folder site --to pub");
    expect(await done(folder, verify)).toContain("root set 2 and metadata 2");
    await done(folder, fetch);
  });

  /** Keys that sign what they do not count for. */
  async function expectDoubts(folder: string): Promise<void> {
    expect(await refused(folder, "root sign site/root-1.json --key release", 100)).toContain(
      "expected a key of root set 1, received another",
    );
    copyFileSync(join(folder, "site/metadata.json"), join(folder, "site/copy.json"));
    const signed = await run(folder, "root sign site/copy.json --key release");
    expect(signed).toMatchObject({
      exitCode: 0,
      stderr: "hostler: release is no key of root set 1: its signature does not count there\n",
    });
    rmSync(join(folder, "site/copy.json"));
  }

  /** With a new root set, which who has pinned the first one follows. */
  async function revoke(folder: string): Promise<void> {
    await done(folder, "key generate root-3");
    const keys = "--key root-2.pub --key root-3.pub";
    await done(folder, `root rotate site/root-1.json ${keys} --out site/root-2.json`);
    await done(folder, "root sign site/root-2.json --key root-2");
    const signer = "--signer release-2.pub --revoke-key release.pub=stolen";
    await done(folder, `root metadata site/metadata.json ${signer}`);
    await done(folder, "root sign site/metadata.json --key root-3");
    copyFileSync(join(folder, "site/root-2.json"), join(folder, "pub/root-2.json"));
    copyFileSync(join(folder, "site/metadata.json"), join(folder, "pub/metadata.json"));
  }

  test("what is wrong is refused by its place", async () => {
    const folder = site.file("wrong");
    mkdirSync(folder);
    await done(folder, "key generate mine");
    chmodSync(join(folder, "mine"), 0o644);
    copyFileSync(join(site.path, "metadata.json"), join(folder, "metadata.json"));
    // Nobody is left who may sign: it is made, and said.
    await done(folder, "root metadata alone.json --signer mine.pub");
    const alone = await run(folder, "root metadata alone.json --revoke-key mine.pub=lost");
    expect(alone.exitCode).toBe(0);
    expect(alone.stderr).toStartWith("hostler: metadata 2 names no key that may sign: ");
    const machine = process.arch === "x64" ? 183 : 62;
    writeFileSync(join(folder, "other"), executable({ size: 4_096, seed: 1, machine }));
    const lines: [string, number, string][] = [
      ["root sign metadata.json --key mine", 111, "expected mode 0600"],
      ["root sign metadata.json", 100, "Expected the flag --key"],
      ["artifact sign metadata.json", 100, "Expected the flag --key"],
      ["root sign metadata.json --key mine.pub", 100, "received its public half"],
      ["root sign metadata.json --key none", 100, "hostler fleet key generate"],
      ["root sign mine.pub --key mine", 111, "expected a root set in its envelope"],
      ["artifact sign metadata.json --key mine", 111, "expected a manifest"],
      ["root init --key mine --out x.json", 100, "FILE.pub"],
      ["root init --key mine.pub --threshold 2 --out x.json", 100, "expected 1, as there is 1 key"],
      ["root init --key mine.pub --key mine.pub --out x.json", 100, "each key once"],
      ["root metadata metadata.json --revoke abc=def", 100, "64 hexadecimal digits"],
      ["root metadata metadata.json --valid never", 100, "a duration"],
      ["artifact build 1.0 mine --folder x", 100, "a version such as"],
      ["artifact build 1.0.0 mine.pub --folder x", 100, "received no ELF file"],
      ["artifact build 1.0.0 /bin/ls --folder x", 100, "expected a hostler of version 1.0.0"],
      [`artifact build 1.0.0 ${hostler()} --folder x`, 100, "received one of version 0."],
      ["artifact build 1.0.0 other --folder x", 100, "files for other machines alone"],
      ["artifact build 1.0.0 mine --floor 1.0.1 --folder x", 100, "1.0.0 or below"],
      ["artifact build 1.0.0 mine --block-size 1B --folder x", 100, "4KiB to 4MiB"],
      ["artifact build 1.0.0 mine --level 22 --folder x", 100, "1 to 19"],
      ["artifact build 1.0.0 mine --label x --folder x", 100, "--label x"],
      ["artifact build 1.0.0 mine --issued now --folder x", 100, "2027-01-31T12:00:00Z"],
      ["artifact fetch 1.0.0 --from x --root metadata.json --into y", 111, "a root set"],
      ["artifact fetch 1.0.0 --from ftp://x --root metadata.json --into y", 111, "ftp:"],
      ["artifact fetch 1.0.0 --from x --root y --into z --rate 5", 100, "--rate 5"],
      ["artifact push 1.0.0 --folder . --to x", 100, "Cannot publish"],
    ];
    for (const [line, exitCode, text] of lines) {
      expect(await refused(folder, line, exitCode)).toContain(text);
    }
  });
});
