/** hostler audit list and verify, compiled, on logs that were written, changed, and are written. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { AuditLog } from "../../src/audit/log.ts";
import { callOf, LogFiles, rechain, testSigner, writeCalls } from "../support/audit.ts";
import { AuditWriter, writtenHeads } from "../support/audit-writer.ts";
import { hostler } from "../support/binary.ts";
import { runProgram, startProgram } from "../support/program.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const { signer, pem } = testSigner();
const now = () => Date.parse("2026-11-28T10:00:00Z");

async function audit(...words: readonly string[]) {
  return await runProgram([hostler(), "audit", ...words]);
}

describe("list", () => {
  test("a table: the oldest first, in columns, and nothing in it drives the terminal", async () => {
    using folder = temporaryFolder();
    await using log = await AuditLog.open({ directory: folder.path, now });
    await log.append(callOf(1));
    const driving = "\u001b[31mred\u001b[0m\n\r\u0007";
    await log.append(callOf(2, { who: "local uid 0", object: driving, after: { note: driving } }));
    const { exitCode, stdout, stderr } = await audit("list", "--directory", folder.path);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const [heading, first, second, ...rest] = stdout.split("\n");
    expect(heading).toMatch(/^SEQUENCE {2}TIME +WHO +FROM +VERB +OBJECT +RESULT +CHANGE$/);
    expect(first).toMatch(
      /^3 {9}2026-11-28T10:00:00.000Z {2}operator alice {2}192.0.2.1:40112 {2}identity/,
    );
    expect(first).toContain('{"state":"enrolled"} → {"state":"revoked","reason":"stolen"}');
    expect(second).toContain("\\u001b[31mred\\u001b[0m\\n");
    expect(rest).toEqual([""]);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
    expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f]/);
  });

  test("the newest hundred; -n, --after, filters; records as they are with --json", async () => {
    using folder = temporaryFolder();
    await writeCalls({ directory: folder.path, signer }, 250);
    const list = async (...words: readonly string[]) => {
      const options = ["--directory", folder.path, "--json"];
      const { exitCode, stdout } = await audit("list", ...options, ...words);
      expect(exitCode).toBe(0);
      const lines = stdout.split("\n").slice(0, -1);
      return lines.map((line) => JSON.parse(line));
    };
    const numbers = (records: readonly { object: string }[]) =>
      records.map(({ object }) => Number(object.replace("host web-", "")));
    const range = (first: number, last: number) =>
      Array.from({ length: last - first + 1 }, (_, index) => first + index);
    expect(numbers(await list())).toEqual(range(151, 250));
    expect(numbers(await list("-n", "3"))).toEqual([248, 249, 250]);
    expect(numbers(await list("-n", "all"))).toEqual(range(1, 250));
    expect(await list("-n", "0")).toEqual([]);
    const [last] = await list("-n", "1", "--object", "host web-2??");
    expect(last).toBeUndefined();
    const [found] = await list("-n", "1", "--object", "host web-19*", "--who", "* alice");
    expect(found).toMatchObject({ object: "host web-199", verb: "identity.hosts.revoke" });
    expect(numbers(await list("--after", String(found.sequence)))).toEqual(range(200, 250));
    const some = ["--after", String(found.sequence), "-n", "2"];
    expect(numbers(await list(...some))).toEqual([249, 250]);
    expect(await list("--verb", "store.*")).toEqual([]);
    expect((await list("--own", "-n", "1"))[0]).toMatchObject({ kind: "checkpoint" });
    const text = new LogFiles(folder.path).lines(0);
    expect((await list("--own", "-n", "all")).map((record) => JSON.stringify(record))).toEqual(
      text,
    );
  });

  test("-f shows what is there and what comes, in both forms", async () => {
    using folder = temporaryFolder();
    const directory = folder.file("audit");
    await using log = await AuditLog.open({ directory });
    await log.append(callOf(1));
    const words = ["audit", "list", "-f", "--directory", directory];
    await using table = startProgram([hostler(), ...words]);
    await using json = startProgram([hostler(), ...words, "--json"]);
    for (let number = 1; number < 20; number += 1) {
      await table.said(new RegExp(`host web-${number} `));
      await json.said(new RegExp(`"host web-${number}"`));
      await log.append(callOf(number + 1));
    }
    // Nothing is told twice, and the columns stay.
    const lines = table.output.stdout.trim().split("\n");
    expect(new Set(lines.map((line) => line.indexOf("identity.")).slice(1))).toHaveLength(1);
    expect(json.output.stdout.match(/"host web-1"/g)).toHaveLength(1);
  });

  test("changed lines are left out, and said: 112", async () => {
    using folder = temporaryFolder();
    await writeCalls({ directory: folder.path }, 3);
    const files = new LogFiles(folder.path);
    files.write(0, Buffer.from(files.bytes(0).toString().replace("web-2", "web-9")));
    const { exitCode, stdout, stderr } = await audit("list", "--directory", folder.path);
    expect(exitCode).toBe(112);
    expect(stdout).toContain("web-3");
    expect(stdout).not.toContain("web-9");
    expect(stderr).toBe(
      "1 line is not as it was written, and left out. Run hostler audit verify.\n",
    );
  });

  test("no folder: 111, with what to do; wrong words: 100", async () => {
    using folder = temporaryFolder();
    for (const command of ["list", "verify"]) {
      const none = await audit(command, "--directory", folder.file("none"));
      expect(none.exitCode).toBe(111);
      expect(none.stderr).toContain("or give the folder by --directory");
      mkdirSync(folder.file("empty"), { recursive: true });
      for (const directory of [folder.file("empty"), "/etc"]) {
        const other = await audit(command, "--directory", directory);
        expect(other).toMatchObject({ exitCode: 111, stdout: "" });
        expect(other.stderr).toContain("received a folder with neither");
      }
      writeFileSync(folder.file("file"), "");
      expect((await audit(command, "--directory", folder.file("file"))).exitCode).toBe(111);
      mkdirSync(folder.file(`${command}/segment-0000000000000001.jsonl`), { recursive: true });
      const odd = await audit(command, "--directory", folder.file(command));
      expect(odd.exitCode).toBe(111);
      expect(odd.stderr).toContain("expected a file");
      const links = folder.file(`${command}-links`);
      mkdirSync(links);
      symlinkSync("/dev/zero", `${links}/segment-0000000000000001.jsonl`);
      const linked = await audit(command, "--directory", links);
      expect(linked.exitCode).toBe(111);
      expect(linked.stderr).toContain("received a symbolic link. Somebody has put it there");
      expect(linked.stderr).not.toContain("ELOOP");
    }
    for (const words of [
      ["-n", "x"],
      ["-n", "-1"],
      ["--after", "x"],
    ]) {
      expect((await audit("list", ...words)).exitCode).toBe(100);
    }
  });
});

describe("verify", () => {
  test("intact: the head that it prints is the head that it takes", async () => {
    using folder = temporaryFolder();
    const directory = folder.file("audit");
    writeFileSync(folder.file("key"), pem);
    await writeCalls({ directory, signer }, 3);
    const first = await audit("verify", "--directory", directory);
    expect(first).toMatchObject({ exitCode: 0, stderr: "" });
    expect(first.stdout).toMatch(/^intact +6 records in 1 segment, /);
    const [head = ""] = /\b6:[0-9a-f]{64}/.exec(first.stdout) ?? [];
    expect(first.stdout).toContain("signed  up to 6 by ");
    expect(first.stdout).toContain("by a key that the log names itself");
    await writeCalls({ directory, signer }, 3);
    const words = ["--directory", directory, "--key", folder.file("key"), "--head", head];
    const second = await audit("verify", ...words);
    expect(second.exitCode).toBe(0);
    expect(second.stdout).toMatch(/noted +6: matches/);
    expect(second.stdout).not.toContain("names itself");
    const json = await audit("verify", ...words, "--json");
    expect(JSON.parse(json.stdout)).toMatchObject({
      verdict: "intact",
      faults: [],
      fault_count: 0,
      records: 11,
      keys_given: true,
      cut_short_bytes: 0,
      heads: [{ sequence: 6, status: "matches" }],
    });
  });

  test("one byte: 112, and where it is", async () => {
    using folder = temporaryFolder();
    await writeCalls({ directory: folder.path, signer }, 3);
    const files = new LogFiles(folder.path);
    const bytes = Buffer.from(files.bytes(0));
    const at = bytes.indexOf("alice", bytes.indexOf("web-1"));
    bytes[at] = (bytes[at] ?? 0) ^ 0x20;
    files.write(0, bytes);
    const { exitCode, stdout, stderr } = await audit("verify", "--directory", folder.path);
    expect({ exitCode, stderr }).toEqual({ exitCode: 112, stderr: "" });
    const row =
      /^segment-0000000000000001.jsonl {2}4 +4 +hash of the line +[0-9a-f]{64} +[0-9a-f]{64}$/m;
    expect(stdout).toMatch(row);
    expect(stdout).toMatch(/^broken +6 records in 1 segment, .*, 1 fault$/m);
    const json = await audit("verify", "--directory", folder.path, "--json");
    expect(json.exitCode).toBe(112);
    expect(JSON.parse(json.stdout).faults).toMatchObject([{ line: 4, sequence: 4 }]);
  });

  test("made anew without the key, cut off at its end, another key: 112", async () => {
    using folder = temporaryFolder();
    const directory = folder.file("audit");
    writeFileSync(folder.file("key"), pem);
    writeFileSync(folder.file("other"), testSigner().pem);
    await writeCalls({ directory, signer }, 3);
    const key = ["--directory", directory, "--key", folder.file("key")];
    const { stdout } = await audit("verify", ...key, "--json");
    const { head } = JSON.parse(stdout);
    const noted = ["--head", `${head.sequence}:${head.hash}`];
    const other = ["--directory", directory, "--key", folder.file("other")];
    expect((await audit("verify", ...other)).exitCode).toBe(112);
    expect((await audit("verify", ...other, "--key", folder.file("key"))).exitCode).toBe(0);
    const files = new LogFiles(directory);
    const lines = files.lines(0);
    files.write(0, lines.slice(0, -1));
    expect((await audit("verify", ...key)).exitCode).toBe(0);
    const cut = await audit("verify", ...key, ...noted);
    expect(cut.exitCode).toBe(112);
    expect(cut.stdout).toContain("a log that ends with record 5");
    const forged = lines.map((line) =>
      line.replace("web-1", "web-9").replace(/,"key":"[^"]*","signature":"[^"]*"/, ""),
    );
    files.write(0, rechain(forged, { sequence: 0, hash: "0".repeat(64) }));
    expect((await audit("verify", "--directory", directory)).exitCode).toBe(0);
    expect((await audit("verify", ...key)).exitCode).toBe(112);
  });

  test("keys and heads that are none: 100, and a private key is not read", async () => {
    using folder = temporaryFolder();
    const { privateKey } = generateKeyPairSync("ed25519");
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const bad = {
      private: privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
      curve: publicKey.export({ format: "pem", type: "spki" }).toString(),
      none: "x",
      broken: pem.replace(/\w{9}/, "x"),
      long: "x".repeat(70_000),
    };
    for (const [name, text] of Object.entries(bad)) {
      writeFileSync(folder.file(name), text);
      const words = ["--directory", folder.path, "--key", folder.file(name)];
      expect({ name, code: (await audit("verify", ...words)).exitCode }).toEqual({
        name,
        code: 100,
      });
    }
    for (const head of ["1", "1:ab", `x:${"0".repeat(64)}`, `0:${"0".repeat(64)}`]) {
      expect((await audit("verify", "--head", head)).exitCode).toBe(100);
    }
    const words = ["--directory", folder.path, "--key", folder.file("nowhere")];
    expect((await audit("verify", ...words)).exitCode).toBe(100);
  });

  test("while a daemon writes, drops and begins segments: intact each time", async () => {
    using folder = temporaryFolder();
    const writer = await AuditWriter.make(folder);
    const options = { segmentBytes: 64 * 1024, size: 1024 ** 2 };
    await using program = writer.start(["big:3000"], options);
    await program.said(/^written/m);
    const words = ["--directory", writer.directory, "--key", writer.publicKey];
    for (let pass = 0; pass < 12; pass += 1) {
      const heads = writtenHeads(program.output).slice(-1);
      const noted = heads.flatMap((head) => ["--head", head]);
      const { exitCode, stdout, stderr } = await audit("verify", ...words, ...noted, "--json");
      expect({ exitCode, stderr, stdout: exitCode === 0 ? "" : stdout }).toEqual({
        exitCode: 0,
        stderr: "",
        stdout: "",
      });
      const listed = await audit("list", "--directory", writer.directory, "-n", "all");
      expect(listed).toMatchObject({ exitCode: 0, stderr: "" });
    }
    await program.said(/^closed/m, 60_000);
    const last = JSON.parse((await audit("verify", ...words, "--json")).stdout);
    expect(last).toMatchObject({ verdict: "intact", dropped: { reason: expect.any(String) } });
    // Nothing of ours was written there.
    const modes = readdirSync(writer.directory).map(
      (name) => statSync(`${writer.directory}/${name}`).mode & 0o777,
    );
    expect(new Set(modes)).toEqual(new Set([0o600]));
  });

  test("on a terminal, nothing is left of how far it was", async () => {
    using folder = temporaryFolder();
    await using log = await AuditLog.open({ directory: folder.path });
    for (let turn = 0; turn < 100; turn += 1) {
      const calls = Array.from({ length: 500 }, (_, number) => callOf(number));
      await Promise.all(calls.map((call) => log.append(call)));
    }
    let shown = "";
    const child = Bun.spawn([hostler(), "audit", "verify", "--directory", folder.path], {
      terminal: {
        cols: 200,
        rows: 24,
        data: (_terminal, bytes) => {
          shown += new TextDecoder().decode(bytes);
        },
      },
    });
    expect(await child.exited).toBe(0);
    await waitFor("what it came to", () => shown.includes("head"));
    child.terminal?.close();
    // How far it was is drawn where it takes longer than a moment; a quick machine draws nothing.
    const [last = "", ...drawn] = shown.split("\r\u001b[K").toReversed();
    expect(last).toStartWith("intact");
    for (const line of drawn)
      expect(line).toMatch(/^(verifying: [\d.]+ MiB of [\d.]+ MiB, \d+ %)?$/);
  });
});

test("help lists the exit codes, and unreadable folders are told", async () => {
  for (const command of ["list", "verify"]) {
    const { exitCode, stdout } = await audit(command, "--help");
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^ {2}111 {2}the log cannot be read$/m);
    expect(stdout).toMatch(/^ {2}112 {2}/m);
  }
  using folder = temporaryFolder();
  const directory = folder.file("audit");
  await writeCalls({ directory }, 1);
  chmodSync(folder.path, 0o755);
  const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  const words = [hostler(), "audit", "verify", "--directory", directory];
  const { exitCode, stderr } = await runProgram([...asNobody, ...words]);
  expect(exitCode).toBe(111);
  expect(stderr).toContain("Run this as the owner of the folder");
});
