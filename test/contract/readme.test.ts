/** What READMEs show: commands that exist, configurations that are valid, one session twice. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseConfiguration } from "../../src/process/configuration.ts";
import { parseVmConfig } from "../../src/vm/vm-config.ts";
import { parseWorkerConfiguration } from "../../src/vm/worker-configuration.ts";
import { hostler, repositoryRoot } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";

const readText = (path: string) => readFileSync(join(repositoryRoot, path), "utf8");
const readme = readText("README.md");

/** The text of the fenced block of this language, the first after a heading of a room's README. */
function block(room: string, heading: string, language: string): string {
  const path = `src/${room}/README.md`;
  const [, section = ""] = readText(path).split(heading);
  const [, found] = new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``).exec(section) ?? [];
  if (found === undefined) throw new Error(`${path} has no ${language} after ${heading}`);
  return found;
}

describe("a first configuration", () => {
  test("of processes is docs/process.toml, and valid without a warning", () => {
    const text = block("process", "## A first configuration", "toml");
    expect(text).toBe(readText("docs/process.toml"));
    expect(parseConfiguration("process.toml", text)).toMatchObject({ kind: "ok", warnings: [] });
  });

  test("of a worker is docs/vm.toml, and valid without a warning", () => {
    const text = block("vm", "## A first worker", "toml");
    expect(text).toBe(readText("docs/vm.toml"));
    expect(parseWorkerConfiguration("vm.toml", text)).toMatchObject({ kind: "ok", warnings: [] });
  });

  test("check prints what is shown", async () => {
    const shown = block("process", "## A first configuration", "console");
    const [, words = "", output = ""] = /^\$ hostler (.*)\n([\s\S]*)$/.exec(shown) ?? [];
    const result = await runProgram([hostler(), ...words.split(" ")], {
      workingDirectory: repositoryRoot,
    });
    expect(result).toMatchObject({ exitCode: 0, stdout: output });
  });
});

test("the session of processes is the one of the picture", () => {
  const text = readText("src/process/README.md");
  const [, session = ""] = /<!-- session -->([\s\S]*)<!-- \/session -->/.exec(text) ?? [];
  const lines = session.trim().split("\n").slice(1, -1);
  const drawn = [...readText("docs/session.svg").matchAll(/<text [^>]*>(.*)<\/text>/g)];
  const plain = drawn.map(([, text = ""]) =>
    text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"),
  );
  expect(plain).toEqual(lines);
});

describe("README.md", () => {
  test("is one page", () => {
    expect(readme.split("\n").length).toBeLessThanOrEqual(120);
  });

  test("the size of the file is as it says", () => {
    const [, said] = /about (\d+) MiB/.exec(readme) ?? [];
    const size = statSync(hostler()).size / 2 ** 20;
    expect(Math.abs(size - Number(said))).toBeLessThan(1);
  });

  test("every script that it names is in package.json", () => {
    const { scripts } = JSON.parse(readText("package.json"));
    const named = [...readme.matchAll(/npx bun@1\.4\.5 run ([a-z]+)/g)].map(
      ([, name = ""]) => name,
    );
    expect(named.length).toBeGreaterThan(0);
    for (const name of named) expect(Object.keys(scripts)).toContain(name);
  });
});

test("every command of docs/commands.md has a help", async () => {
  const [, table = ""] = readText("docs/commands.md").split("| `hostler …` | |\n");
  const rows = [...(table.split("\n\n")[0] ?? "").matchAll(/^\| `((?:[a-z][a-z-]* ?)+)/gm)];
  const commands = rows.map(([, words = ""]) => words.trim().split(" ")).slice(1);
  expect(commands.length).toBeGreaterThan(9);
  for (const words of commands) {
    const { exitCode } = await runProgram([hostler(), ...words, "--help"]);
    expect({ words, exitCode }).toEqual({ words, exitCode: 0 });
  }
});

test("the image that images/vm/README.md makes is one, without a warning", () => {
  const [, text = ""] = /```json\n([\s\S]*?)```/.exec(readText("images/vm/README.md")) ?? [];
  const outcome = parseVmConfig(text, { folder: "/image", hypervisor: undefined });
  expect(outcome).toMatchObject({ kind: "ok", warnings: [] });
});

describe("documents", () => {
  const documents = readdirSync(repositoryRoot, { recursive: true, encoding: "utf8" }).filter(
    (path) => path.endsWith(".md") && !/(^|\/)(node_modules|dist|\.cache)\//.test(path),
  );

  test.each(documents)("%s: what it links to is there", (path) => {
    for (const [, target = ""] of readText(path).matchAll(/\]\(([^)#:\s]+)(?:#[^)]*)?\)/g)) {
      const place = join(repositoryRoot, dirname(path), target);
      expect({ target, isThere: statSync(place, { throwIfNoEntry: false }) !== undefined }).toEqual(
        { target, isThere: true },
      );
    }
  });

  test.each([
    ["src/process", 15],
    ["src/live-update", 30],
    ["src/vm", 30],
    ["src/artifact", 10],
    ["src/fleet", 30],
  ] as const)("%s: every test that shows what follows a failure is there", (room, least) => {
    const cells = /\]\(([^)]+\.test\.ts)\) "([^"]+)"/g;
    const shown = [...readText(`${room}/README.md`).matchAll(cells)];
    expect(shown.length).toBeGreaterThan(least);
    for (const [, path = "", title = ""] of shown) {
      // Its stories stand in files beside it, and it looks for the rows by itself.
      if (path.endsWith("/vm-lifecycle.test.ts")) continue;
      const text = readText(join(room, path));
      expect({ path, title, isThere: text.includes(title) }).toEqual({
        path,
        title,
        isThere: true,
      });
    }
  });
});
