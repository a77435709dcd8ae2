import { describe, expect, test } from "bun:test";
import { renderBash } from "../../../src/command-line/completions.ts";
import { type Command, defineCommand } from "../../../src/command-line/definition.ts";
import { renderHelp } from "../../../src/command-line/help.ts";
import { root } from "../../../src/command-line/root.ts";
import { findCommand } from "../../../src/command-line/run.ts";
import { editDistance, nearest } from "../../../src/units/nearest.ts";
import { runProgram } from "../../support/program.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

/** The program from source, as people call it. */
const hostler = (...words: string[]) => runProgram([process.execPath, "src/main.ts", ...words]);

/** A tree that notes which of its commands were imported. */
function notingTree() {
  const loaded: string[] = [];
  const lazy = (name: string) => ({
    description: name,
    load: (): Command => {
      loaded.push(name);
      return defineCommand({ meta: { name, description: name }, run: async () => 0 });
    },
  });
  const tree = defineCommand({
    meta: { name: "tree", description: "A tree" },
    subCommands: { alpha: lazy("alpha"), beta: lazy("beta") },
  });
  const find = (...words: string[]) => findCommand({ command: tree, path: "tree", words });
  return { loaded, tree, find };
}

describe("the tree", () => {
  test("imports nothing for an unknown word, and suggests one", async () => {
    const { loaded, tree, find } = notingTree();
    const error = await rejectionOf(find("alpah"));
    expect(error.message).toBe("Unknown command alpah. Did you mean alpha?");
    expect((await rejectionOf(find("help"))).message).toBe(
      "Unknown command help. Did you mean --help?",
    );
    const other = await rejectionOf(find("something"));
    expect(other.message).toBe("Unknown command something. See tree --help.");
    await rejectionOf(find("constructor"));
    renderHelp(tree, "tree");
    expect(loaded).toEqual([]);
  });

  test("imports what is called alone", async () => {
    const { loaded, find } = notingTree();
    const found = await find("beta", "x", "--y");
    expect(found).toMatchObject({ path: "tree beta", words: ["x", "--y"] });
    expect(loaded).toEqual(["beta"]);
  });

  test("takes a word of a command's own beside the commands below it", async () => {
    const below = defineCommand({ meta: { name: "verify", description: "v" } });
    const report = defineCommand({
      meta: { name: "report", description: "r" },
      args: { run: { type: "positional", description: "a run" } },
      subCommands: { verify: { description: "v", load: () => below } },
      run: async () => 0,
    });
    const find = (...words: string[]) => findCommand({ command: report, path: "report", words });
    expect(await find("12", "--x")).toMatchObject({ path: "report", words: ["12", "--x"] });
    expect(await find("verify", "x")).toMatchObject({ path: "report verify", words: ["x"] });
    expect(renderHelp(report, "report")).toContain("report [options] <run>\n  report <command>");
  });

  test("tells of each command what the command tells of itself", async () => {
    for (const [name, child] of Object.entries(root.subCommands ?? {})) {
      const { meta } = await child.load();
      expect(meta.name).toBe(name);
      expect(meta.description).toBe(child.description);
    }
  });
});

describe("exit codes and what is said", () => {
  test("a mistyped command: 100", async () => {
    const { exitCode, stdout, stderr } = await hostler("process", "lst");
    expect({ exitCode, stdout }).toEqual({ exitCode: 100, stdout: "" });
    expect(stderr).toContain("hostler process: Unknown command lst. Did you mean list?");
  });

  test("a flag that is asked for as a command: 100", async () => {
    const { exitCode, stderr } = await hostler("version");
    expect(exitCode).toBe(100);
    expect(stderr).toContain("hostler: Unknown command version. Did you mean --version?");
  });

  test("a command that is missing: 100", async () => {
    const { exitCode, stderr } = await hostler("process");
    expect(exitCode).toBe(100);
    expect(stderr).toContain("Expected a command after hostler process");
  });

  test("an orchestrator that does not run: 111, and what to do", async () => {
    using folder = temporaryFolder();
    const socket = folder.file("absent.sock");
    const { exitCode, stderr } = await hostler("process", "list", "--control-socket", socket);
    expect(exitCode).toBe(111);
    expect(stderr).toContain(`control socket is elsewhere: ${socket} (ENOENT). Start it by`);
    expect(stderr.split("\n")).toHaveLength(2);
  });

  test("a full disk: 111", async () => {
    const line = `${process.execPath} src/main.ts --version >/dev/full`;
    const { exitCode, stderr } = await runProgram(["/bin/sh", "-c", line]);
    expect(exitCode).toBe(111);
    expect(stderr).toContain("Cannot write to stdout: ENOSPC");
  });

  test("a reader that has gone: quiet", async () => {
    const line = `{ ${process.execPath} src/main.ts --help; echo code $? >&2; } | exec true`;
    const { stderr } = await runProgram(["/bin/sh", "-c", line]);
    expect(stderr).toBe("code 0\n");
  });

  test("--version and --json", async () => {
    const plain = await hostler("--version");
    expect(plain.exitCode).toBe(0);
    expect(plain.stdout).toMatch(/^hostler \S+\ncommit \S+\nBun \d\S+\nlibc \S+.*\nkernel \S+\n$/);
    const { stdout } = await hostler("--version", "--json");
    expect(Object.keys(JSON.parse(stdout) as object)).toEqual([
      "version",
      "commit",
      "bun",
      "libc",
      "kernel",
    ]);
  });

  test.each(["luod", "luoctl", "holden-agent", "holden-orchestrator"])(
    "--version of %s is the file's",
    async (name) => {
      const script = `import { runCommandLine } from "./src/command-line/root.ts";
        process.exit(await runCommandLine("/usr/bin/${name}", ["--version"]));`;
      const { exitCode, stdout } = await runProgram([process.execPath, "--eval", script]);
      expect({ exitCode, stdout }).toMatchObject({ exitCode: 0 });
      expect(stdout).toStartWith("hostler ");
    },
  );

  test("without a word: help", async () => {
    const { exitCode, stdout } = await hostler();
    expect(exitCode).toBe(0);
    expect(stdout).toBe(renderHelp(root, "hostler"));
  });
});

describe("nearest", () => {
  const words: [string, string | undefined][] = [
    ["restrat", "restart"],
    ["STOP", "stop"],
    ["xyz", undefined],
    ["s", undefined],
    ["st", undefined],
    ["x".repeat(100), undefined],
  ];
  test.each(words)("%p means %p", (word, expected) => {
    expect(nearest(word, ["start", "stop", "restart"])).toBe(expected);
  });

  test("distances", () => {
    expect(editDistance("", "abc")).toBe(3);
    expect(editDistance("abc", "acb")).toBe(1);
    expect(editDistance("kitten", "sitting")).toBe(3);
  });
});

test("a completion holds no text that a shell would take apart", () => {
  const level = {
    path: "hostler",
    commands: [{ name: "x", description: "it's" }],
    flags: [],
    positionals: [],
  };
  expect(renderBash([level])).toContain("words='x'");
});
