/**
 * A host killed (SIGKILL) at every step that it makes durable: the same command goes on, either
 * key counts until the new one was used, and none is left behind that counts.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, readdirSync, writeFileSync } from "node:fs";
import { identityApi } from "../../src/identity/api.ts";
import type { HostStep } from "../../src/identity/host.ts";
import { keyPaths, readKey } from "../../src/identity/host-key.ts";
import { DurableAuthority } from "../support/durable-authority.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

type Act = "enrol" | "rotate" | "session";

/** Which commands pass a step. */
const passed: Readonly<Record<HostStep, readonly [Act, ...Act[]]>> = {
  "key-made": ["enrol"],
  enrolled: ["enrol"],
  "journal-written": ["enrol", "session"],
  "next-key-made": ["rotate"],
  "rotation-asked": ["rotate"],
  "next-key-used": ["rotate"],
  "key-promoted": ["rotate"],
};

let authority: DurableAuthority;
let names = 0;

beforeAll(async () => {
  authority = new DurableAuthority();
  await authority.start();
});
afterAll(async () => {
  await authority[Symbol.asyncDispose]();
});

const nextName = () => {
  names += 1;
  return `web-${names}`;
};

/** The compiled command of a host. */
async function command(name: string, words: readonly string[], killAt?: string) {
  const directory = ["--directory", authority.hostFolder(name)];
  const environment: Record<string, string> =
    killAt === undefined ? {} : { HOSTLER_KILL_AT: `identity:host:${killAt}` };
  return await authority.run(["identity", ...words, ...directory], environment);
}

async function killedIn(name: string, words: readonly string[], step: string): Promise<void> {
  const killed = await command(name, words, step);
  expect(killed).toMatchObject({ signal: "SIGKILL", stdout: "" });
}

const keysOf = async (name: string) => (await authority.call(identityApi.hostsShow, { name })).keys;

/** One key, the host's, and no file of another one. */
async function expectOneKey(name: string): Promise<void> {
  const folder = authority.hostFolder(name);
  expect(readdirSync(folder).toSorted()).toEqual(["authority.json", "key.pem"]);
  const own = readKey(keyPaths(folder).present)?.fingerprint ?? "";
  expect(await keysOf(name)).toEqual([own]);
  expect((await authority.host(name).openSession()).key).toBe(own);
}

const acts: Readonly<Record<Act, (step: HostStep) => Promise<void>>> = {
  enrol: async (step) => {
    const name = nextName();
    const token = authority.folder.file(`${name}.token`);
    writeFileSync(token, await authority.token(name), { mode: 0o600 });
    const words = ["enrol", "--token-file", token];
    await killedIn(name, words, step);
    const made = readKey(keyPaths(authority.hostFolder(name)).present)?.fingerprint;
    expect(await command(name, words)).toMatchObject({ exitCode: 0, stderr: "" });
    // The key that was made is the one that is used: the token is bound to it.
    expect(readKey(keyPaths(authority.hostFolder(name)).present)?.fingerprint).toBe(made);
    await expectOneKey(name);
    const stolen = await command(`${name}-thief`, words);
    expect(stolen).toMatchObject({ exitCode: 111, stdout: "" });
    expect(stolen.stderr).toContain("was used by another key");
    await expectOneKey(name);
  },
  rotate: async (step) => {
    const name = nextName();
    await authority.enrol(name);
    const old = `${name}-old`;
    cpSync(authority.hostFolder(name), authority.hostFolder(old), { recursive: true });
    await killedIn(name, ["rotate"], step);
    const isUsed = step === "next-key-used" || step === "key-promoted";
    // Either key opens sessions until the next one was used; then the old one is spent.
    if (isUsed) {
      const refused = await rejectionOf(authority.host(old).openSession());
      expect(refused.message).toMatch(/key/);
    } else {
      expect((await authority.host(old).openSession()).host).toBe(name);
    }
    const both = `${name}-both`;
    cpSync(authority.hostFolder(name), authority.hostFolder(both), { recursive: true });
    expect((await authority.host(both).openSession()).host).toBe(name);
    const again = await command(name, ["rotate"]);
    expect(again).toMatchObject({ exitCode: 0, stderr: "" });
    await expectOneKey(name);
    const refused = await rejectionOf(authority.host(old).openSession());
    expect(refused.message).toMatch(/key/);
  },
  session: async (step) => {
    const name = nextName();
    await authority.enrol(name);
    const before = authority.host(name).journal()?.serial ?? 0;
    await authority.call(identityApi.certificatesRotate, {});
    try {
      await killedIn(name, ["session", "--once"], step);
      // It is on the disk, and not yet said: the authority waits for it.
      expect(authority.host(name).journal()?.serial).toBeGreaterThan(before);
      const asked = await authority.call(identityApi.certificatesList, {});
      const again = await command(name, ["session", "--once"]);
      expect(again).toMatchObject({ exitCode: 0, stderr: "" });
      const { unconfirmed } = await authority.call(identityApi.certificatesList, {});
      expect(asked.announced).not.toBeNull();
      expect(unconfirmed).not.toContain(name);
    } finally {
      await authority.call(identityApi.certificatesFinish, { force: true });
    }
    await expectOneKey(name);
  },
};

describe("a host killed", () => {
  for (const [step, by] of Object.entries(passed) as [HostStep, readonly Act[]][]) {
    for (const act of by) {
      test(`at ${step}: ${act}`, async () => await acts[act](step));
    }
  }
});
