/**
 * Backups of an authority that writes on, and what a restored older one must never bring back:
 * spent tokens, revoked hosts, replaced operators' tokens, revisions, serials.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { AuthorityClient } from "../../src/authority/client.ts";
import { authorityApi } from "../../src/authority/protocol.ts";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { startWorker } from "../../src/event-loop/worker-factory.ts";
import { identityApi } from "../../src/identity/api.ts";
import { formatToken, parseToken } from "../../src/identity/protocol-token.ts";
import { type StoreStep, storeSteps } from "../../src/store/kill-points.ts";
import { verifyBackup } from "../../src/store/verify.ts";
import { DurableAuthority } from "../support/durable-authority.ts";
import { rotating } from "../support/rotation.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const message = async (promise: Promise<unknown>) => (await rejectionOf(promise)).message;

const serialOf = async (authority: DurableAuthority) =>
  (await authority.call(identityApi.statement, {})).serial;

/** Texts that were given out, and keys as they were when the backup was made. */
interface Issued {
  readonly used: string;
  readonly unused: string;
  readonly revoked: string;
  readonly alice: string;
  readonly bob: string;
  readonly serial: number;
}

async function operator(authority: DurableAuthority, name: string): Promise<string> {
  const rights = { role: "admin" as const, special: [] };
  return (await authority.call(identityApi.operatorsAdd, { name, ...rights })).token;
}

/** Three hosts and two operators, three tokens, and a backup. */
async function makeBackup(authority: DurableAuthority): Promise<Issued> {
  const used = await authority.token("web-1");
  await authority.host("web-1").enrol({ token: used });
  for (const name of ["web-2", "web-3", "web-5"]) await authority.enrol(name);
  const unused = await authority.token("web-4");
  const revoked = await authority.token("web-6");
  const alice = await operator(authority, "alice");
  const bob = await operator(authority, "bob");
  await authority.call(authorityApi.backup, { file: authority.folder.file("backup") });
  return { used, unused, revoked, alice, bob, serial: await serialOf(authority) };
}

/** All that a backup from before it does not know. @returns alice's token, and the last serial */
async function goOn(authority: DurableAuthority, issued: Issued) {
  await authority.host("web-4").enrol({ token: issued.unused });
  const { tokens } = await authority.call(identityApi.tokensList, {});
  const id = tokens.find(({ host }) => host === "web-6")?.id ?? "";
  await authority.call(identityApi.tokensRevoke, { id });
  await authority.call(identityApi.hostsRevoke, { name: "web-2" });
  cpSync(authority.hostFolder("web-3"), authority.hostFolder("web-3-old"), { recursive: true });
  await authority.host("web-3").rotateKey();
  const rotation = { name: "alice", overlap: 0 };
  const { token } = await authority.call(identityApi.operatorsRotate, rotation);
  await authority.call(identityApi.operatorsRevoke, { name: "bob" });
  await authority.call(identityApi.certificatesRotate, {});
  await authority.call(identityApi.certificatesFinish, { force: true });
  await authority.host("web-1").openSession();
  return { alice: token, serial: await serialOf(authority) };
}

/** What was spent, revoked and replaced since the backup stays so. */
async function expectNothingBack(authority: DurableAuthority, issued: Issued): Promise<void> {
  const enrolAs = (name: string, token: string) => message(authority.host(name).enrol({ token }));
  for (const token of [issued.used, issued.unused, issued.revoked]) {
    // Their pins are of before the rotation: a thief would have to know the new one.
    expect(await enrolAs("thief", token)).toMatch(/certificate|used|revoked/);
  }
  const list = (await authority.call(identityApi.tokensList, {})).tokens;
  expect(list.every(({ phase }) => phase !== "expired")).toBe(true);
  expect(await message(authority.host("web-2").openSession())).toMatch(/revoked/);
  expect(await message(authority.host("web-3-old").openSession())).toMatch(/revoked|unknown|key/);
  expect(await authority.whoHas(issued.alice)).toBe("");
  expect(await authority.whoHas(issued.bob)).toBe("");
  await expectShown(authority);
}

/** The lists say what is so, and another token brings nobody back who was revoked. */
async function expectShown(authority: DurableAuthority): Promise<void> {
  const { hosts } = await authority.call(identityApi.hostsList, {});
  const { tokens } = await authority.call(identityApi.tokensList, {});
  const { operators } = await authority.call(identityApi.operatorsList, {});
  expect(hosts.find(({ name }) => name === "web-2")).toMatchObject({ phase: "revoked" });
  expect(tokens.filter(({ phase }) => phase === "unused")).toEqual([]);
  expect(operators).toEqual([
    expect.objectContaining({ name: "alice", phase: "active" }),
    expect.objectContaining({ name: "bob", phase: "revoked", tokens: 0 }),
  ]);
  const rotated = authority.call(identityApi.operatorsRotate, { name: "bob", overlap: 0 });
  expect(await message(rotated)).toContain("bob, who is revoked");
}

/** The token with the pin of the certificate that is shown now, as a thief would mend it. */
async function withPresentPin(authority: DurableAuthority, text: string): Promise<string> {
  const { shown } = await authority.call(identityApi.certificatesList, {});
  const parsed = parseToken(text);
  if (parsed.kind !== "token") throw new Error("No token");
  return formatToken({ ...parsed.token, pins: [shown] });
}

describe("an older backup", () => {
  test("brings nothing back that was spent, revoked or replaced since", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    const issued = await makeBackup(authority);
    const after = await goOn(authority, issued);
    const file = authority.folder.file("backup");
    const running = await authority.store("restore", file);
    expect(running).toMatchObject({ exitCode: 111, stdout: "" });
    expect(running.stderr).toContain("another process has it. Stop that one");
    expect((await authority.host("web-1").openSession()).host).toBe("web-1");
    await authority.stop();
    const restored = await authority.store("restore", file);
    expect(restored).toMatchObject({ exitCode: 0, stderr: "" });
    const [first, second, ...rest] = restored.stdout.split("\n");
    expect(first).toMatch(/^restored \d+ entries of \S+$/);
    expect(second).toMatch(/^the former database is kept as \S+$/);
    expect(rest).toEqual(["what was spent since the backup stays spent", ""]);
    await authority.start();
    expect(authority.program?.output.stderr).toMatch(/2 of the hosts, 2 of the tokens, 1 of the/);
    await expectNothingBack(authority, issued);
    for (const token of [issued.unused, issued.revoked]) {
      const mended = await withPresentPin(authority, token);
      const said = await message(authority.host("thief").enrol({ token: mended }));
      expect(said).toMatch(/was used/);
    }
    // Hosts accept what is said after it.
    expect(await serialOf(authority)).toBeGreaterThanOrEqual(after.serial);
    await authority.call(identityApi.certificatesRotate, {});
    expect(await serialOf(authority)).toBeGreaterThan(after.serial);
    for (const name of ["web-1", "web-5"]) {
      expect((await authority.host(name).openSession()).pins).toHaveLength(2);
    }
    // Who came or changed since comes by another token; its key is the one that it has.
    for (const [name, replace] of [
      ["web-4", false],
      ["web-3", true],
    ] as const) {
      const key = authority.host(name).fingerprint() ?? "";
      expect(await message(authority.host(name).openSession())).toContain("refuses");
      await authority.host(name).enrol({ token: await authority.token(name, replace) });
      expect((await authority.host(name).openSession()).key).toBe(key);
    }
    await authority.records();
  });

  test("gives no revision twice, and watchers are told everything anew", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    await makeBackup(authority);
    using loop = new EventLoop(startWorker);
    const word = JSON.stringify({ boot: "b", version: "v" });
    const put = async (writeId: string) => {
      await using store = await authority.storeOf("web-1", loop);
      return await store.put("host-presence", "web-1", word, { writeId });
    };
    const before = await put("first");
    await authority.stop();
    await authority.store("restore", authority.folder.file("backup"));
    await authority.start();
    expect(await put("second")).toBeGreaterThan(before + 2 ** 31);
    await using store = await authority.storeOf("web-1", loop);
    const done = new AbortController();
    const watch = store.watch("host-presence", "web-1", { since: before, signal: done.signal });
    const kinds: string[] = [];
    for await (const event of watch) {
      kinds.push(event.kind);
      if (event.kind === "synced") break;
    }
    done.abort();
    expect(kinds).toEqual(["reset", "entry", "synced"]);
  });

  test("on another machine: all older tokens are spent, hosts of before still speak", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    const issued = await makeBackup(authority);
    await authority.stop();
    // What is carried there: the backup, and the authority's own folder.
    const there = authority.folder.file("there");
    mkdirSync(there, { mode: 0o700 });
    cpSync(join(authority.state, "identity"), join(there, "identity"), { recursive: true });
    authority.state = there;
    const file = authority.folder.file("backup");
    const plain = await authority.store("restore", file);
    expect(plain).toMatchObject({ exitCode: 111, stdout: "" });
    expect(plain.stderr).toContain("say --without-ledger");
    const restored = await authority.store("restore", file, "--without-ledger", "--json");
    expect(restored).toMatchObject({ exitCode: 0, stderr: "" });
    expect(JSON.parse(restored.stdout)).toMatchObject({ fenced: true });
    await authority.start();
    for (const token of [issued.used, issued.unused, issued.revoked]) {
      const said = await message(authority.host("thief").enrol({ token }));
      expect(said).toMatch(/was used/);
    }
    for (const name of ["web-1", "web-2", "web-3", "web-5"]) {
      expect((await authority.host(name).openSession()).host).toBe(name);
    }
    expect(await authority.whoHas(issued.alice)).toBe("operator alice");
    await authority.call(identityApi.certificatesRotate, {});
    expect(await serialOf(authority)).toBeGreaterThan(issued.serial);
    expect((await authority.host("web-1").openSession()).pins).toHaveLength(2);
    await authority.host("web-1").rotateKey();
    await authority.enrol("web-9");
    await authority.records();
  });
});

describe("a restore that is killed", () => {
  const decided = storeSteps.restore.indexOf("restore:intended");
  const steps: readonly StoreStep[] = storeSteps.restore;
  for (const step of rotating("a restore killed", steps, { outOf: 4 })) {
    test(`at ${step}: one or the other is there, and nothing comes back`, async () => {
      await using authority = new DurableAuthority();
      await authority.start();
      const issued = await makeBackup(authority);
      await goOn(authority, issued);
      // So that there is a log of the database to be put aside.
      await authority.kill();
      const file = authority.folder.file("backup");
      const words = ["store", "restore", file, "--state-directory", authority.state];
      const killed = await authority.run(words, { HOSTLER_KILL_AT: `store:${step}` });
      expect(killed).toMatchObject({ signal: "SIGKILL", stdout: "" });
      await authority.start();
      const isRestored = steps.indexOf(step) >= decided;
      const { hosts } = await authority.call(identityApi.hostsList, {});
      expect(hosts.some(({ name }) => name === "web-4")).toBe(!isRestored);
      await expectNothingBack(authority, issued);
      await authority.stop();
      expect(await authority.store("restore", file)).toMatchObject({ exitCode: 0, stderr: "" });
      await authority.start();
      await expectNothingBack(authority, issued);
      expect((await authority.host("web-1").openSession()).host).toBe("web-1");
      await authority.records();
    });
  }
});

test("a backup is one moment, while many write", async () => {
  await using authority = new DurableAuthority();
  await authority.start();
  await authority.enrol("web-1");
  let isOver = false;
  const made: string[] = [];
  const writer = async (number: number) => {
    const place = { kind: "control", path: authority.socket } as const;
    using client = await AuthorityClient.connect(place);
    for (let count = 0; !isOver; count += 1) {
      const host = `host-${number}-${count}`;
      const asked = { host, lifetime: 3_600_000, replace: false };
      made.push((await client.call(identityApi.tokensCreate, asked)).token.id);
    }
  };
  const writers = [1, 2, 3, 4].map(writer);
  for (const number of [1, 2, 3]) {
    const before = [...made];
    const file = authority.folder.file(`backup-${number}`);
    const { exitCode, stdout, stderr } = await authority.store("backup", file);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const { entries, sha256 } = verifyBackup(file);
    expect(stdout).toBe(`${file}: ${entries} entries, sha256 ${sha256}\n`);
    expect(entries).toBeGreaterThanOrEqual(before.length);
    expect(statSync(file).mode & 0o777).toBe(0o600);
  }
  isOver = true;
  await Promise.all(writers);
  const again = await authority.store("backup", authority.folder.file("backup-1"));
  expect(again.exitCode).toBe(111);
  expect(again.stderr).toContain("backup-1");
  await authority.stop();
  expect(await authority.store("restore", authority.folder.file("backup-3"))).toMatchObject({
    exitCode: 0,
  });
  await authority.start();
  expect((await authority.host("web-1").openSession()).host).toBe("web-1");
});

describe("the commands", () => {
  test("storage: a table, and as JSON", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    await authority.enrol("web-1");
    const table = await authority.store("storage");
    expect(table).toMatchObject({ exitCode: 0, stderr: "" });
    const [heading = "", first = ""] = table.stdout.split("\n");
    expect(heading).toMatch(/^BUCKET +ENTRIES +BYTES +AT MOST +OLDEST +A DAY +FULL$/);
    expect(first).toMatch(/^identity-hosts +1 +\d+ B +64 MiB /);
    expect(table.stdout).toMatch(/^database .*format 2$/m);
    const json = await authority.store("storage", "--json");
    const usage = JSON.parse(json.stdout);
    expect(usage.buckets.map(({ bucket }: { bucket: string }) => bucket)).toContain(
      "host-presence",
    );
    expect(usage).toMatchObject({ ledger_entries: 1, database: { format: 2 } });
    const verified = await authority.store("verify");
    expect(verified).toMatchObject({ exitCode: 111, stdout: "" });
    expect(verified.stderr).toContain("another process has it");
    await authority.stop();
    const alone = await authority.store("storage");
    expect(alone).toMatchObject({ exitCode: 111, stdout: "" });
    expect(alone.stderr).toContain("Start it by hostler identity authority");
    const whole = JSON.parse((await authority.store("verify", "--json")).stdout);
    expect(whole).toMatchObject({ format: 2, ledgerEntries: 1 });
  });

  test("what is wrong is refused, and changes nothing", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    await authority.enrol("web-1");
    const { folder } = authority;
    const nowhere = await authority.store("backup", folder.file("no/such/folder"));
    expect(nowhere).toMatchObject({ exitCode: 111, stdout: "" });
    expect(nowhere.stderr).toContain("no/such");
    const long = await authority.store("backup", folder.file("x".repeat(256)));
    expect(long).toMatchObject({ exitCode: 111, stdout: "" });
    expect(long.stderr).toContain("expected a name of at most 255 bytes");
    using disk = new SmallDisk(folder.file("disk"), "4m");
    disk.remount("ro");
    const readOnly = await authority.store("backup", join(disk.path, "backup"));
    expect(readOnly).toMatchObject({ exitCode: 111, stdout: "" });
    expect(readOnly.stderr).toContain("expected a file system that can be written, received one");
    expect(readOnly.stderr).not.toContain("bug");
    await authority.stop();
    const missing = await authority.store("restore", folder.file("missing"));
    expect(missing).toMatchObject({ exitCode: 100, stdout: "" });
    expect(missing.stderr).toContain("expected a backup there, received nothing");
    await Bun.write(folder.file("text"), "no backup");
    const text = await authority.store("restore", folder.file("text"));
    expect(text).toMatchObject({ exitCode: 111, stdout: "" });
    expect(text.stderr).toContain(folder.file("text"));
    expect(await authority.store("restore")).toMatchObject({ exitCode: 100, stdout: "" });
    expect(existsSync(join(authority.state, "store/store.db.before-restore"))).toBe(false);
    rmSync(folder.file("text"));
    await authority.start();
    expect((await authority.host("web-1").openSession()).host).toBe("web-1");
  });
});
