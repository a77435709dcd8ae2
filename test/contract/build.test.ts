/** What must be true of the built files, whatever is in them. */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readPackage } from "../../scripts/setup.ts";
import { hostler, hostlerWithFaults, repositoryRoot } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const slowMilliseconds = 300_000;

/** Variables that ffi/fault-hooks.ts reads; their names stand in a file that has the hooks. */
const hookNames = [
  "HOSTLER_KILL_AT",
  "HOSTLER_KILL_ONCE",
  "HOSTLER_ABSENT",
  "HOSTLER_LIVE_UPDATE_KERNEL",
  "HOSTLER_MEMORY_FLIPS",
  "HOSTLER_WRONG_ANSWER",
];

describe("fault hooks", () => {
  test("dist/hostler has none", () => {
    const content = readFileSync(hostler());
    expect(hookNames.filter((name) => content.includes(name))).toEqual([]);
  });

  test("dist/hostler-faults has them, so that the search above is known to find them", () => {
    const content = readFileSync(hostlerWithFaults());
    expect(hookNames.filter((name) => content.includes(name))).toEqual(hookNames);
  });
});

describe("reproducible", () => {
  test(
    "two folders of different depth give the same bytes",
    async () => {
      using folder = temporaryFolder();
      const [shallow, deep] = copyTwice(folder.path);
      for (const copy of [shallow, deep]) await runScript(copy, ["scripts/build.ts"]);
      for (const name of ["hostler", "hostler-faults"]) {
        expect(sha256Of(join(deep, "dist", name))).toBe(sha256Of(join(shallow, "dist", name)));
      }
    },
    slowMilliseconds,
  );

  onlyInAll(() => {
    test(
      "so do the releases and their archives, and x64 is what the tests ran",
      async () => {
        using folder = temporaryFolder();
        const sums: string[] = [];
        for (const copy of copyTwice(folder.path)) {
          await runScript(copy, ["scripts/build.ts"]);
          await runScript(copy, ["scripts/release.ts", "--level=1"]);
          const released = join(copy, `dist/release/hostler-${readPackage().version}-linux-x64`);
          expect(sha256Of(released)).toBe(sha256Of(join(copy, "dist/hostler")));
          sums.push(readFileSync(join(copy, "dist/release/SHA256SUMS"), "utf8"));
        }
        expect(sums[0]?.trim().split("\n")).toHaveLength(8);
        expect(sums[1]).toBe(sums[0] ?? "");
      },
      slowMilliseconds,
    );
  });
});

describe("the working directory is none of its business", () => {
  test("Bun itself reads the hostile folder, so that the next test means something", async () => {
    using folder = hostileFolder();
    const script = folder.file("script.ts");
    writeFileSync(script, "console.log(process.env['HOSTILE']);");
    const result = await runProgram([process.execPath, script], { workingDirectory: folder.path });
    expect(result.stdout).toBe("PRELOADED\nfrom .env\n");
  });

  test("hostler does not", async () => {
    using hostile = hostileFolder();
    using empty = temporaryFolder();
    const [inHostile, inEmpty] = await Promise.all(
      [hostile, empty].map(({ path }) =>
        runProgram([hostler(), "--version"], { workingDirectory: path }),
      ),
    );
    expect(inHostile).toMatchObject({ exitCode: 0, stderr: "" });
    expect(inHostile).toEqual(inEmpty);
  });
});

/** Every file that Bun would take orders from. */
function hostileFolder() {
  const folder = temporaryFolder();
  const write = (name: string, text: string) => writeFileSync(folder.file(name), text);
  write(".env", "HOSTILE='from .env'\nBUN_BE_BUN=1\nHOSTLER_KILL_AT=anywhere\nTZ=Mars\n");
  write(".env.local", "HOSTILE='from .env'\nNO_COLOR=\n");
  write("preload.ts", 'console.log("PRELOADED");');
  write("bunfig.toml", 'preload = ["./preload.ts"]\n');
  write("tsconfig.json", '{ "compilerOptions": { "paths": { "citty": ["./preload.ts"] } } }');
  write("package.json", '{ "name": "hostile", "version": "6.6.6", "type": "commonjs" }');
  return folder;
}

/** Two copies of what builds, one of them deep; outside git, so the commit is "unknown" in both. */
function copyTwice(folder: string): [string, string] {
  const shallow = join(folder, "a");
  const deep = join(folder, "b/c/d/e");
  for (const copy of [shallow, deep]) {
    mkdirSync(copy, { recursive: true });
    for (const name of readdirSync(repositoryRoot)) {
      // A build that another test makes meanwhile has its file there under a name of its own.
      if (name.endsWith(".bun-build")) continue;
      if ([".git", ".cache", "dist", "node_modules", "test"].includes(name)) continue;
      cpSync(join(repositoryRoot, name), join(copy, name), { recursive: true });
    }
    copyDependencies(copy);
  }
  return [shallow, deep];
}

/** Only what is bundled: the tools of development are large. */
function copyDependencies(copy: string): void {
  const names = readdirSync(join(repositoryRoot, "node_modules"));
  for (const name of names) {
    if (["@biomejs", "@types", "bun-types", ".bin"].includes(name)) continue;
    const path = join("node_modules", name);
    cpSync(join(repositoryRoot, path), join(copy, path), { recursive: true });
  }
}

async function runScript(folder: string, words: readonly string[]): Promise<void> {
  const result = await runProgram([process.execPath, ...words], {
    workingDirectory: folder,
    deadlineMilliseconds: slowMilliseconds,
  });
  expect(result).toMatchObject({ exitCode: 0, stderr: "" });
}

function sha256Of(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}
