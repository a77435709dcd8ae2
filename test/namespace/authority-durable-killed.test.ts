/**
 * The authority killed (SIGKILL) at every step of identity, store and audit log that it passes,
 * in every act that passes it: what was answered is there, what was not can be asked again.
 */
import { Database as Sqlite } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, existsSync, readdirSync, readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import type { AuditStep } from "../../src/audit/steps.ts";
import { authorityApi } from "../../src/authority/protocol.ts";
import { identityApi } from "../../src/identity/api.ts";
import type { AuthorityStep } from "../../src/identity/authority-core.ts";
import type { StoreStep } from "../../src/store/kill-points.ts";
import { verifyBackup } from "../../src/store/verify.ts";
import { DurableAuthority, type Saved } from "../support/durable-authority.ts";
import { rotating } from "../support/rotation.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

/** An act of somebody, who gets an answer, or none because the authority died. */
interface Act {
  /** Of the record that is there when it was answered. */
  readonly verb?: string;
  /** "nothing": it begins with an empty state directory. */
  readonly from?: "nothing";
  /** Before the authority is started with its kill point. */
  readonly prepare?: (authority: DurableAuthority) => Promise<void> | void;
  readonly perform?: (authority: DurableAuthority) => Promise<unknown>;
  /** Asks again, as whoever got no answer does; then all of it is done. */
  readonly settle: (authority: DurableAuthority, answer: unknown) => Promise<void>;
}

/** What stands in the authority that the acts begin with. */
let base: Saved;
const known = { used: "", fresh: "", replacing: "", revocable: "", alice: "", steady: "" };

beforeAll(async () => {
  const authority = new DurableAuthority();
  base = authority.save();
  await authority.start();
  for (const name of ["steady", "web-1", "web-2", "gone-1"]) await authority.enrol(name);
  known.used = await authority.token("web-3");
  await authority.host("web-3").enrol({ token: known.used });
  await authority.call(identityApi.hostsRevoke, { name: "gone-1" });
  known.fresh = await authority.token("new-1");
  known.replacing = await authority.token("web-2", true);
  known.revocable = await authority.token("new-9");
  known.alice = await addOperator(authority, "alice");
  known.steady = await addOperator(authority, "steady");
  await authority.call(authorityApi.backup, { file: authority.folder.file("backup") });
  await authority.stop();
});
afterAll(() => base.folder[Symbol.dispose]());

const message = async (promise: Promise<unknown>) => (await rejectionOf(promise)).message;

const idOf = async (authority: DurableAuthority, host: string) => {
  const { tokens } = await authority.call(identityApi.tokensList, {});
  return tokens.find((token) => token.host === host)?.id ?? "";
};

async function keysOf(authority: DurableAuthority, name: string): Promise<readonly string[]> {
  return (await authority.call(identityApi.hostsShow, { name })).keys;
}

const acts = {
  "a first start": { from: "nothing", settle: async () => {} },
  "a start": { settle: async () => {} },
  "a start after a line was cut short": {
    prepare: (authority) => {
      const audit = join(authority.state, "audit");
      const [segment = ""] = readdirSync(audit).filter((name) => name.endsWith(".jsonl"));
      const path = join(audit, segment);
      truncateSync(path, readFileSync(path).length - 7);
    },
    settle: async () => {},
  },
  "a host is let in": {
    verb: "identity.enrol",
    perform: (authority) => authority.host("new-1").enrol({ token: known.fresh }),
    settle: async (authority) => {
      const token = known.fresh;
      expect(await authority.host("new-1").enrol({ token })).toEqual({ host: "new-1" });
      expect((await authority.host("new-1").openSession()).host).toBe("new-1");
      const own = authority.host("new-1").fingerprint() ?? "";
      expect(await message(authority.host("thief").enrol({ token }))).toContain("by another key");
      expect(await keysOf(authority, "new-1")).toEqual([own]);
    },
  },
  "a host is replaced": {
    verb: "identity.enrol",
    perform: (authority) => authority.host("anew").enrol({ token: known.replacing }),
    settle: async (authority) => {
      const token = known.replacing;
      expect(await authority.host("anew").enrol({ token })).toEqual({ host: "web-2" });
      expect((await authority.host("anew").openSession()).host).toBe("web-2");
      expect(await keysOf(authority, "web-2")).toEqual([
        authority.host("anew").fingerprint() ?? "",
      ]);
      expect(await message(authority.host("web-2").openSession())).toMatch(/refuses/);
    },
  },
  "a host opens a session": {
    perform: (authority) => authority.host("web-1").openSession(),
    settle: async (authority) => {
      expect((await authority.host("web-1").openSession()).host).toBe("web-1");
    },
  },
  "a host rotates its key": {
    verb: "identity.key.rotate",
    prepare: (authority) => {
      cpSync(authority.hostFolder("web-1"), authority.hostFolder("old"), { recursive: true });
    },
    perform: (authority) => authority.host("web-1").rotateKey(),
    settle: async (authority) => {
      const { key } = await authority.host("web-1").rotateKey();
      expect(await keysOf(authority, "web-1")).toEqual([key]);
      expect((await authority.host("web-1").openSession()).key).toBe(key);
      expect(existsSync(join(authority.hostFolder("web-1"), "key.next.pem"))).toBe(false);
      expect(await message(authority.host("old").openSession())).toMatch(/refuses/);
    },
  },
  "a host is revoked": {
    verb: "identity.hosts.revoke",
    perform: (authority) => authority.call(identityApi.hostsRevoke, { name: "web-2" }),
    settle: async (authority) => {
      await authority.call(identityApi.hostsRevoke, { name: "web-2" });
      expect(await message(authority.host("web-2").openSession())).toContain("was revoked");
      const replaced = authority.host("anew").enrol({ token: known.replacing });
      expect(await message(replaced)).toContain("was revoked");
    },
  },
  "a revoked host is removed": {
    verb: "identity.hosts.remove",
    perform: (authority) => authority.call(identityApi.hostsRemove, { name: "gone-1" }),
    settle: async (authority, answer) => {
      const again = authority.call(identityApi.hostsRemove, { name: "gone-1" });
      const outcome = await again.then(
        () => "removed",
        (error: Error) => error.message,
      );
      expect(outcome).toMatch(answer === undefined ? /removed|enrolled host/ : /enrolled host/);
      // Its key is spent for ever.
      const token = await authority.token("gone-1");
      expect(await message(authority.host("gone-1").enrol({ token }))).toContain("key was");
    },
  },
  "a token is made": {
    verb: "identity.tokens.create",
    perform: (authority) => authority.token("new-2"),
    settle: async (authority, answer) => {
      const token = (answer as string | undefined) ?? (await authority.token("new-2"));
      expect(await authority.host("new-2").enrol({ token })).toEqual({ host: "new-2" });
    },
  },
  "a token is revoked": {
    verb: "identity.tokens.revoke",
    perform: async (authority) => {
      return await authority.call(identityApi.tokensRevoke, { id: await idOf(authority, "new-9") });
    },
    settle: async (authority) => {
      const id = await idOf(authority, "new-9");
      await authority.call(identityApi.tokensRevoke, { id }).catch((error: Error) => {
        expect(error.message).toContain("not used");
      });
      const enrolled = authority.host("new-9").enrol({ token: known.revocable });
      expect(await message(enrolled)).toContain("was revoked");
    },
  },
  "an operator is added": {
    verb: "identity.operators.add",
    perform: (authority) => addOperator(authority, "carol"),
    settle: async (authority, answer) => {
      const token =
        (answer as string | undefined) ??
        (await addOperator(authority, "carol").catch(() => rotateOperator(authority, "carol")));
      expect(await authority.whoHas(token)).toBe("operator carol");
    },
  },
  "an operator's token is rotated": {
    verb: "identity.operators.rotate",
    perform: (authority) => rotateOperator(authority, "alice"),
    settle: async (authority, answer) => {
      const token = (answer as string | undefined) ?? (await rotateOperator(authority, "alice"));
      expect(await authority.whoHas(token)).toBe("operator alice");
      expect(await authority.whoHas(known.alice)).toBe("");
    },
  },
  "an operator is revoked": {
    verb: "identity.operators.revoke",
    perform: (authority) => authority.call(identityApi.operatorsRevoke, { name: "alice" }),
    settle: async (authority) => {
      await authority.call(identityApi.operatorsRevoke, { name: "alice" });
      expect(await authority.whoHas(known.alice)).toBe("");
      const { operators } = await authority.call(identityApi.operatorsList, {});
      expect(operators.find(({ name }) => name === "alice")?.phase).toBe("revoked");
    },
  },
  "a certificate is announced": {
    verb: "identity.certificates.rotate",
    perform: (authority) => authority.call(identityApi.certificatesRotate, {}),
    settle: async (authority) => {
      const { announced } = await authority.call(identityApi.certificatesList, {});
      if (announced === null) await authority.call(identityApi.certificatesRotate, {});
      const session = await authority.host("steady").openSession();
      const after = await authority.call(identityApi.certificatesList, {});
      expect(session.pins).toEqual([after.shown, after.announced ?? ""]);
      expect(after.unconfirmed).not.toContain("steady");
    },
  },
  "a certificate is finished": {
    verb: "identity.certificates.finish",
    prepare: async (authority) => {
      await authority.start();
      await authority.call(identityApi.certificatesRotate, {});
      await authority.stop();
    },
    perform: (authority) => authority.call(identityApi.certificatesFinish, { force: true }),
    settle: async (authority) => {
      const { announced } = await authority.call(identityApi.certificatesList, {});
      const force = { force: true };
      if (announced !== null) await authority.call(identityApi.certificatesFinish, force);
      const { shown } = await authority.call(identityApi.certificatesList, {});
      // Away all the while: it believes the signed statement.
      expect((await authority.host("web-1").openSession()).pins).toEqual([shown]);
    },
  },
  "a backup is made": {
    verb: "store.backup",
    perform: (authority) => {
      return authority.call(authorityApi.backup, { file: authority.folder.file("made") });
    },
    settle: async (authority, answer) => {
      const file = authority.folder.file("made");
      // Whole, or not there.
      if (!existsSync(file)) {
        expect(answer).toBeUndefined();
        await authority.call(authorityApi.backup, { file });
      }
      expect(verifyBackup(file).entries).toBeGreaterThan(10);
    },
  },
  "the database's format is raised": {
    verb: "store.upgrade",
    prepare: (authority) => {
      // Taken back to format 1, as an older hostler would have made it.
      using database = new Sqlite(join(authority.state, "store/store.db"));
      database.run("ALTER TABLE entries DROP COLUMN checksum");
      database.run("PRAGMA user_version = 1");
    },
    perform: (authority) => authority.call(authorityApi.upgrade, {}),
    settle: async (authority, answer) => {
      const formatOf = async () => (await authority.call(authorityApi.usage, {})).database.format;
      if (answer !== undefined) expect(await formatOf()).toBe(2);
      await authority.call(authorityApi.upgrade, {});
      expect(await formatOf()).toBe(2);
    },
  },
} satisfies Record<string, Act>;
type ActName = keyof typeof acts;

const addOperator = async (authority: DurableAuthority, name: string) =>
  (await authority.call(identityApi.operatorsAdd, { name, role: "view", special: [] })).token;
const rotateOperator = async (authority: DurableAuthority, name: string) =>
  (await authority.call(identityApi.operatorsRotate, { name, overlap: 0 })).token;

const mutating = (Object.keys(acts) as ActName[]).filter((name) => "verb" in acts[name]);
const enrolling = ["a host is let in", "a host is replaced"] as const;
const ending = ["an operator's token is rotated", "an operator is revoked"] as const;
const onFiles: readonly ActName[] = ["a backup is made", "the database's format is raised"];
const writing = mutating.filter((name) => !onFiles.includes(name));
const certificates = ["a certificate is announced", "a certificate is finished"] as const;
const spending = [
  ...enrolling,
  ...ending,
  ...(["a host rotates its key", "a host is revoked", "a token is revoked"] as const),
] as const;

/** Acts that pass a step; or why no authority that runs does. */
type Passed = readonly [ActName, ...ActName[]] | readonly ActName[] | string;
const identityPassed: Readonly<Record<AuthorityStep, Passed>> = {
  "token-used": enrolling,
  "token-spent": enrolling,
  "host-enrolled": enrolling,
  "keys-spent": ["a host is replaced", "a host rotates its key", "a host is revoked"],
  "host-stored": [
    ...enrolling,
    "a host opens a session",
    "a host rotates its key",
    "a host is revoked",
  ],
  "operator-tokens-spent": ending,
  "operator-stored": [...ending, "an operator is added"],
  "pins-stored": ["a first start", ...certificates],
  "certificate-written": ["a first start", ...certificates],
};
const offline = "a command does, while the authority is stopped: authority-durable-backup";
const never = "nothing that an authority does: namespace/store-killed";
const storePassed: Readonly<Record<StoreStep, Passed>> = {
  "create:intended": ["a first start"],
  "create:made": ["a first start"],
  "create:ready": ["a first start"],
  "commit:begun": writing,
  "commit:written": writing,
  "commit:committed": writing,
  "commit:acknowledged": writing,
  "reserve:promised": ["a first start", "a start"],
  "spend:written": spending,
  "spend:synced": spending,
  "compact:written": never,
  "upgrade:column": ["the database's format is raised"],
  "upgrade:some": ["the database's format is raised"],
  "upgrade:all": ["the database's format is raised"],
  "upgrade:done": ["the database's format is raised"],
  "backup:copied": ["a backup is made"],
  "backup:synced": ["a backup is made"],
  "backup:linked": ["a backup is made"],
  "restore:copied": offline,
  "restore:merged": offline,
  "restore:intended": offline,
  "restore:ledger": offline,
  "restore:kept-log": offline,
  "restore:kept": offline,
  "restore:placed": offline,
  "restore:ready": offline,
};
const auditPassed: Readonly<Record<AuditStep, Passed>> = {
  "segment-made": ["a first start"],
  "half-written": [...mutating, "a first start", "a start"],
  written: [...mutating, "a first start", "a start"],
  synced: [...mutating, "a first start", "a start"],
  "before-cut": ["a start after a line was cut short"],
  cut: ["a start after a line was cut short"],
  "segment-removed": "after ten years, or 10 GiB: namespace/audit-killed",
};

const cases = [
  ...Object.entries(identityPassed).map(([step, by]) => [`identity:authority:${step}`, by]),
  ...Object.entries(storePassed).map(([step, by]) => [`store:${step}`, by]),
  ...Object.entries(auditPassed).map(([step, by]) => [`audit-${step}`, by]),
].flatMap(([place, by]) =>
  typeof by === "string" ? [] : (by as ActName[]).map((name) => [place as string, name] as const),
);

describe("killed", () => {
  for (const [place, name] of rotating("authority killed", cases, { outOf: 10 })) {
    test(`at ${place}: ${name}`, async () => {
      const kills = await killedAtEveryPass(place, acts[name]);
      expect(kills).toBeGreaterThan(0);
    });
  }
});

/** How often a start passes a place: that is looked at once, and not with each act. */
const startPasses = new Map<string, number>();

/** Kills at the first pass, at the second …, until it lives. @returns how often it was killed */
async function killedAtEveryPass(place: string, act: Act): Promise<number> {
  const key = `${act.from ?? ""}${place}`;
  const isStart = act.perform === undefined;
  let pass = isStart ? 1 : 1 + (startPasses.get(key) ?? 0);
  for (let kills = 0; ; kills += 1, pass += 1) {
    await using authority = new DurableAuthority(act.from === "nothing" ? undefined : base);
    await act.prepare?.(authority);
    const isListening = await authority.start(`${place}#${pass}`);
    if (!isListening) startPasses.set(key, pass);
    const answer = isListening
      ? await act.perform?.(authority).catch((error: Error) => expectUnanswered(error))
      : undefined;
    // Stopping passes steps as well.
    const { signal, exitCode, stderr } = await authority.stop();
    await authority.start();
    await act.settle(authority, answer);
    await expectWhole(authority, act, answer);
    if (signal === null) {
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
      return kills;
    }
    expect(signal).toBe("SIGKILL");
  }
}

/** No answer is one that says so, and no other. */
function expectUnanswered(error: Error): undefined {
  expect(error.message).toMatch(/ended before|socket|connect|closed|reach/i);
  return undefined;
}

async function expectWhole(authority: DurableAuthority, act: Act, answer: unknown): Promise<void> {
  if (act.from !== "nothing") {
    expect((await authority.host("steady").openSession()).host).toBe("steady");
    expect(await authority.whoHas(known.steady)).toBe("operator steady");
    const stolen = authority.host("second").enrol({ token: known.used });
    expect(await message(stolen)).toMatch(/by another key|certificate/);
  }
  if (answer !== undefined && act.verb !== undefined) {
    const records = await authority.records();
    const done = records.filter(({ verb, result }) => verb === act.verb && result === "done");
    expect(done.length).toBeGreaterThan(0);
  }
  await authority.records();
  expect(await authority.stop()).toMatchObject({ exitCode: 0 });
  expect(authority.program?.output.stderr).not.toContain("bug");
  expect(await authority.store("verify")).toMatchObject({ exitCode: 0, stderr: "" });
}
