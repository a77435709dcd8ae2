/**
 * Files of an authority damaged in every way: it refuses to start with the file, what it expected,
 * and the way to restore; that way is gone here, and hosts still speak.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { authorityApi } from "../../src/authority/protocol.ts";
import { identityApi } from "../../src/identity/api.ts";
import { DurableAuthority, type Saved } from "../support/durable-authority.ts";
import { rotating } from "../support/rotation.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let base: Saved;
let used = "";
let alice = "";

beforeAll(async () => {
  const authority = new DurableAuthority();
  base = authority.save();
  await authority.start();
  used = await authority.token("web-1");
  await authority.host("web-1").enrol({ token: used });
  // A database of several pages.
  for (const name of ["web-2", "web-3", "web-4", "web-5"]) await authority.enrol(name);
  const rights = { role: "admin" as const, special: [] };
  alice = (await authority.call(identityApi.operatorsAdd, { name: "alice", ...rights })).token;
  await authority.call(authorityApi.backup, { file: authority.folder.file("backup") });
  await authority.call(identityApi.hostsRevoke, { name: "web-2" });
  await authority.stop();
});
afterAll(() => base.folder[Symbol.dispose]());

const message = async (promise: Promise<unknown>) => (await rejectionOf(promise)).message;

const place = {
  database: "store/store.db",
  ledger: "store/spent.log",
  incarnation: "store/incarnation.json",
  file: "identity/authority.json",
  key: "identity/authority.pem",
  log: "audit/segment-0000000000000001.jsonl",
} as const;

/** What may happen to a file. */
const harm = {
  "bytes in its middle are others": (path: string) => {
    const bytes = readFileSync(path);
    const middle = bytes.length >> 1;
    for (let at = middle; at < middle + 16; at += 1) bytes[at] = (bytes[at] ?? 0) ^ 0x55;
    writeFileSync(path, bytes);
  },
  "its beginning is other": (path: string) => {
    const bytes = readFileSync(path);
    for (let at = 0; at < 16; at += 1) bytes[at] = (bytes[at] ?? 0) ^ 0x55;
    writeFileSync(path, bytes);
  },
  "it was cut to its half": (path: string) => truncateSync(path, readFileSync(path).length >> 1),
  "it is empty": (path: string) => truncateSync(path, 0),
  "it is a text": (path: string) => writeFileSync(path, "This is a text.\n"),
  "it is gone": (path: string) => rmSync(path),
} as const;
type Harm = keyof typeof harm;

interface Damage {
  readonly file: string;
  readonly by: readonly Harm[];
  /** What is said: what was expected, and the mend. */
  readonly said: readonly string[];
  /** Goes the way that was said. */
  readonly mend: (authority: DurableAuthority) => Promise<void> | void;
  /** Whether what was spent since the backup is still known. */
  readonly isSpentKnown?: boolean;
}

async function restore(authority: DurableAuthority, ...flags: string[]): Promise<void> {
  const file = authority.folder.file("backup");
  const restored = await authority.store("restore", file, ...flags);
  expect(restored).toMatchObject({ exitCode: 0, stderr: "" });
}

async function restoreWithoutLedger(authority: DurableAuthority): Promise<void> {
  // Without the word it is refused, and says which word.
  const refused = await authority.store("restore", authority.folder.file("backup"));
  expect(refused.exitCode).toBe(111);
  await restore(authority, "--without-ledger");
}

const all = Object.keys(harm) as Harm[];
const changed = all.filter((name) => name !== "it is gone");
const backUp = (name: string) => (authority: DurableAuthority) => {
  // The copy that an operator keeps of this folder.
  cpSync(base.folder.file(`state/${name}`), join(authority.state, name));
};

const damages: Readonly<Record<string, Damage>> = {
  database: {
    file: place.database,
    by: all,
    said: ["expected|damaged", "hostler store restore FILE"],
    mend: (authority) => restore(authority),
    isSpentKnown: true,
  },
  ledger: {
    file: place.ledger,
    // One that was cut is taken for what a power cut leaves: nothing after the cut was answered.
    by: all.filter((name) => name !== "it was cut to its half"),
    said: ["expected what the store wrote there", "store restore FILE --without-ledger"],
    mend: restoreWithoutLedger,
  },
  incarnation: {
    file: place.incarnation,
    by: changed,
    said: ["expected what a store wrote there", "remove it, .*restore FILE --without-ledger"],
    mend: async (authority) => {
      rmSync(join(authority.state, place.incarnation));
      await restoreWithoutLedger(authority);
    },
  },
  "missing incarnation": {
    file: place.incarnation,
    by: ["it is gone"],
    said: ["expected incarnation.json beside store.db", "move it away.*--without-ledger"],
    mend: async (authority) => {
      const database = join(authority.state, place.database);
      renameSync(database, authority.folder.file("moved"));
      await restoreWithoutLedger(authority);
    },
  },
  "authority's file": {
    file: place.file,
    by: changed,
    said: ["expected", "remove it, and they ask for one"],
    mend: (authority) => rmSync(join(authority.state, place.file)),
    isSpentKnown: true,
  },
  "authority's key": {
    file: place.key,
    by: all,
    said: ["expected (a private key|the key)", "Restore it from a copy of this folder"],
    mend: backUp(place.key),
    isSpentKnown: true,
  },
  "audit log": {
    file: place.log,
    by: ["bytes in its middle are others", "its beginning is other", "it is a text"],
    said: ["The audit log was changed", "Move the folder aside as evidence; a new log begins"],
    mend: (authority) => {
      renameSync(join(authority.state, "audit"), authority.folder.file("evidence"));
    },
    isSpentKnown: true,
  },
};

/** Which file it names; of a store, perhaps by its folder. */
function nameOf(file: string): string {
  return file.startsWith("store/") ? "state/store" : file;
}

const cases = Object.entries(damages).flatMap(([what, damage]) =>
  damage.by.map((name) => [what, name, damage] as const),
);

for (const [what, name, damage] of rotating("damaged files", cases, { outOf: 5 })) {
  test(`the ${what}: ${name}`, async () => {
    await using authority = new DurableAuthority(base);
    harm[name](join(authority.state, damage.file));
    const before = filesOf(authority.state);
    const { exitCode, stderr, stdout } = await authority.refused();
    expect({ exitCode, stdout }).toEqual({ exitCode: 111, stdout: "" });
    expect(stderr).toContain(nameOf(damage.file));
    for (const words of damage.said) expect(stderr).toMatch(new RegExp(words));
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    // Refused once more: nothing was made or mended by the attempt.
    expect((await authority.refused()).stderr).toBe(stderr);
    expect(filesOf(authority.state)).toEqual(before);
    await damage.mend(authority);
    await authority.start();
    await expectSpeaking(authority, damage.isSpentKnown === true);
  });
}

/** All but what SQLite keeps beside a database for the moment. */
function filesOf(folder: string): readonly string[] {
  const names = readdirSync(folder, { recursive: true }).map(String);
  return names.filter((name) => !/-(shm|wal)$/.test(name)).toSorted();
}

async function expectSpeaking(authority: DurableAuthority, isSpentKnown: boolean): Promise<void> {
  expect((await authority.host("web-1").openSession()).host).toBe("web-1");
  await authority.host("web-3").rotateKey();
  const stolen = await message(authority.host("thief").enrol({ token: used }));
  // Where the certificate is another one, an old token cannot even find its authority.
  expect(stolen).toMatch(/used by another key|used before|certificate/);
  if (isSpentKnown) {
    expect(await message(authority.host("web-2").openSession())).toMatch(/revoked/);
  }
  expect(await authority.whoHas(alice)).toBe("operator alice");
  await authority.enrol("web-9");
  await authority.records();
  expect(await authority.stop()).toMatchObject({ exitCode: 0 });
  expect(await authority.store("verify")).toMatchObject({ exitCode: 0, stderr: "" });
}

test("a key is not made anew beside hosts that trust the former one", async () => {
  await using authority = new DurableAuthority(base);
  rmSync(join(authority.state, "identity"), { recursive: true });
  const { exitCode, stderr } = await authority.refused();
  expect(exitCode).toBe(111);
  expect(stderr).toMatch(/authority\.pem: expected the key that host web-\d was here with/);
  expect(existsSync(join(authority.state, place.key))).toBe(false);
  cpSync(base.folder.file("state/identity"), join(authority.state, "identity"), {
    recursive: true,
  });
  await authority.start();
  await expectSpeaking(authority, true);
});

test("what a damaged database is restored from says so itself when it is damaged", async () => {
  await using authority = new DurableAuthority(base);
  const file = authority.folder.file("backup");
  harm["bytes in its middle are others"](file);
  const state = readFileSync(join(authority.state, place.database));
  const { exitCode, stderr } = await authority.store("restore", file);
  expect(exitCode).toBe(111);
  expect(stderr).toContain(file);
  expect(stderr).toContain("Take another backup");
  expect(readFileSync(join(authority.state, place.database))).toEqual(state);
  await authority.start();
  await expectSpeaking(authority, true);
});

test("verify says what is damaged, and what is not", async () => {
  await using authority = new DurableAuthority(base);
  const whole = await authority.store("verify");
  expect(whole).toMatchObject({ exitCode: 0, stderr: "" });
  expect(whole.stdout).toMatch(/^intact: \d+ entries in .*, format 2; \d+ things spent\n$/);
  harm["bytes in its middle are others"](join(authority.state, place.database));
  const damaged = await authority.store("verify");
  expect(damaged).toMatchObject({ exitCode: 111, stdout: "" });
  expect(damaged.stderr).toContain("it is damaged");
  authority.state = authority.folder.file("nowhere");
  const none = await authority.store("verify", "--json");
  expect(none).toMatchObject({ exitCode: 111, stdout: "" });
  expect(none.stderr).toContain("expected a store there, received none");
  expect(existsSync(authority.state)).toBe(false);
});
