/** hostler --self-test: what it loads, tries and reads, and that each of these can fail. */
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { SelfTestResult } from "../../src/doctor/self-test.ts";
import { roles } from "../../src/doctor/self-test-roles.ts";
import { Installation } from "../../src/fleet/perform/installation.ts";
import { programOf } from "../../src/fleet/perform/layout-files.ts";
import { hostler } from "../support/binary.ts";
import { storeScript } from "../support/fleet-installation.ts";
import { writeSwapped } from "../support/fleet-swapped.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

interface Report {
  readonly exitCode: number | null;
  readonly ok: boolean;
  readonly checks: readonly SelfTestResult[];
}

async function selfTest(
  words: readonly string[] = [],
  argv: readonly string[] = [hostler()],
): Promise<Report> {
  const result = await runProgram([...argv, "--self-test", "--json", ...words]);
  expect(result.stderr).toBe("");
  return { exitCode: result.exitCode, ...JSON.parse(result.stdout) };
}

const failed = ({ checks }: Report) => checks.filter(({ status }) => status === "failed");
const digestOf = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

let digest: string;
beforeAll(() => {
  digest = digestOf(hostler());
});

describe("the self-test of the compiled file", () => {
  test("loads every role, tries libc, and says which file it is", async () => {
    const report = await selfTest(["--digest", digest]);
    expect(failed(report)).toEqual([]);
    expect(report).toMatchObject({ exitCode: 0, ok: true });
    const code = report.checks.filter(({ subject }) => subject === "code");
    expect(code.map(({ check }) => check)).toEqual(Object.keys(roles));
    expect(report.checks).toContainEqual({
      subject: "host",
      check: "this file",
      status: "passed",
      found: `SHA-256 ${digest}`,
    });
  });

  test("another digest than was asked for is a failure, no digest is a wrong word", async () => {
    const report = await selfTest(["--digest", "0".repeat(64)]);
    expect(report).toMatchObject({ exitCode: 111, ok: false });
    expect(failed(report).map(({ found }) => found)).toEqual([
      `Expected SHA-256 ${"0".repeat(64)}, received ${digest}`,
    ]);
    const wrong = await runProgram([hostler(), "--self-test", "--digest", "abc"]);
    expect(wrong).toMatchObject({ exitCode: 100, stdout: "" });
    expect(wrong.stderr).toContain('Expected 64 hexadecimal digits after --digest, received "abc"');
  });

  test("a table for people ends with the verdict", async () => {
    const { exitCode, stdout } = await runProgram([hostler(), "--self-test"]);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^code +process agent +passed +loaded$/m);
    expect(stdout).toEndWith("\nIt can do its work here.\n");
  });

  test.each([
    [
      // Where nothing depends on them: elf(5), EI_PAD.
      "four bytes are others",
      (path: string) => {
        const file = openSync(path, "r+");
        writeSync(file, Buffer.from("\xff\x00\xff\x00", "latin1"), 0, 4, 12);
        closeSync(file);
      },
    ],
    ["a byte is added", (path: string) => appendFileSync(path, "\0")],
  ])("a stored version of which %s fails by what was verified", async (_, damage) => {
    using folder = temporaryFolder();
    using installation = Installation.open(folder.file("fleet"), { make: true });
    const { name } = installation.store(hostler(), "1.0.0");
    const program = programOf(folder.file("fleet"), name);
    expect(await selfTest([], [program])).toMatchObject({ exitCode: 0, ok: true });
    damage(program);
    const report = await selfTest([], [program]);
    expect(report.exitCode).toBe(111);
    expect(failed(report).map(({ check, found }) => [check, found])).toEqual([
      ["this file", `Expected SHA-256 ${digest}, received ${digestOf(program)}`],
    ]);
  });

  test("the journal of the installation that it lies in is read, and not written", async () => {
    using folder = temporaryFolder();
    const place = folder.file("fleet");
    const installation = Installation.open(place, { make: true });
    const { name } = installation.store(hostler(), "1.0.0");
    installation[Symbol.dispose]();
    const next = storeScript(folder, "1.1.0", "echo next");
    writeSwapped(place, name, next);
    const own = [programOf(place, name)];
    const journal = join(place, "journal.json");
    expect((await selfTest([], own)).checks).toContainEqual({
      ...{ subject: "host", check: "upgrade journal", status: "passed" },
      found: `${journal}, step 7`,
    });
    for (const text of ['{"format":1', "", "{}", "\0\0"]) {
      writeFileSync(journal, text);
      const report = await selfTest([], own);
      expect(report).toMatchObject({ exitCode: 0, ok: true });
      expect(report.checks).toContainEqual({
        ...{ subject: "host", check: "upgrade journal", status: "warned" },
        found: expect.stringContaining(`${journal}: expected`),
      });
      expect(readFileSync(journal, "utf8")).toBe(text);
    }
    for (const [text, found] of [
      ['{"format":1}', "expected"],
      ['{"format":99}', "expected format 1, received format 99"],
    ] as const) {
      writeFileSync(journal, text);
      const report = await selfTest([], own);
      expect(failed(report)).toMatchObject([{ check: "upgrade journal" }]);
      expect(failed(report)[0]?.found).toContain(found);
      expect(readFileSync(journal, "utf8")).toBe(text);
    }
  });
});

skipUnless("the self-test and what a host has", root, () => {
  /** Runs it where /etc and /var/lib hold these files alone, each with mode 0600. */
  async function onHost(files: Readonly<Record<string, string>>): Promise<Report> {
    using folder = temporaryFolder();
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(folder.file(path)), { recursive: true, mode: 0o700 });
      writeFileSync(folder.file(path), text, { mode: 0o600 });
    }
    const binds = ["etc", "var/lib"].map((name) => {
      const place = folder.file(name);
      return `${existsSync(place) ? "" : `mkdir -p ${place}; `}mount --bind ${place} /${name}`;
    });
    const script = `${binds.join(" && ")} && exec "$@"`;
    return await selfTest([], ["unshare", "--mount", "sh", "-c", script, "sh", hostler()]);
  }

  test.each([
    ["process.toml", "etc/hostler/process.toml", "[[process]]\nnome = 1\n", "process.toml"],
    ["vm.toml", "etc/hostler/vm.toml", "unknown = true\n", "vm.toml"],
    ["master.toml", "etc/hostler/master.toml", "unknown = true\n", "master.toml"],
    ["fleet-operator.toml", "etc/hostler/fleet-operator.toml", "unknown = true\n", "operator.toml"],
    ["host's key", "var/lib/hostler/identity/key.pem", "no key", "key.pem"],
    ["pinned certificates", "var/lib/hostler/identity/authority.json", "{}", "authority.json"],
    [
      "authority's certificates",
      "var/lib/hostler/authority/identity/authority.json",
      "{}",
      "authority.json",
    ],
  ])("%s that is wrong is a failure, told with its place", async (check, path, text, word) => {
    const report = await onHost({ [path]: text });
    expect(report.exitCode).toBe(111);
    expect(failed(report)).toMatchObject([{ subject: "host", check }]);
    expect(failed(report)[0]?.found).toContain(word);
  });

  test("what is right is read, and what is not there is no failure", async () => {
    const report = await onHost({ "etc/hostler/process.toml": "" });
    expect(failed(report)).toEqual([]);
    const host = report.checks.filter(({ subject }) => subject === "host");
    expect(host.map(({ check, status }) => `${check}: ${status}`)).toEqual([
      "this file: passed",
      "process.toml: passed",
      "vm.toml: absent",
      "master.toml: absent",
      "fleet-operator.toml: absent",
      "host's key: absent",
      "pinned certificates: absent",
      "authority's certificates: absent",
      "upgrade journal: absent",
    ]);
  });

  test("it needs no right, no network and no place to write", async () => {
    using folder = temporaryFolder();
    copyFileSync(hostler(), folder.file("hostler"));
    chmodSync(folder.path, 0o755);
    const script = 'mount -o bind,remount,ro / 2>/dev/null; exec "$@"';
    const report = await selfTest(
      [],
      [
        ...["unshare", "--mount", "--net", "sh", "-c", script, "sh"],
        ...["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"],
        join(folder.path, "hostler"),
      ],
    );
    expect(failed(report)).toEqual([]);
    expect(report.exitCode).toBe(0);
  });
});
