/** What is open ends with its key, its token or its operator, before anybody is told it is done. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { rmSync } from "node:fs";
import { COOKIE_NAME, CSRF_HEADER } from "../../src/http/credentials.ts";
import { connectControl } from "../../src/messaging/control-client.ts";
import { limits, storePath } from "../../src/store/wire/protocol.ts";
import { runHostler, TestAuthority, type TestOperator } from "../support/authority.ts";
import { hostler } from "../support/binary.ts";
import { startProgram } from "../support/program.ts";
import { askRaw, RawHost, RawLink, RawStream } from "../support/raw-host.ts";
import { root, skipUnless } from "../support/skips.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const bucket = "host-presence";
const presenceOf = (boot: string) => JSON.stringify({ boot, version: "1" });

async function rawHost(authority: TestAuthority, name: string): Promise<RawHost> {
  const host = new RawHost(await authority.token(name));
  await host.enrol();
  return host;
}

/** A link that was made, and has said something. */
async function linked(authority: TestAuthority, host: RawHost, name: string) {
  const bearer = await host.bearer(name);
  const link = new RawLink(authority.address, bearer);
  await link.heard("welcome");
  expect(await link.heard(link.put(bucket, name, presenceOf("before")))).toMatchObject({
    kind: "written",
  });
  return { link, bearer };
}

/** The boot that a host's last word tells, as the store has it. */
async function lastWord(authority: TestAuthority, name: string): Promise<string> {
  const client = await connectControl(authority.controlSocket);
  try {
    const said = (await client.request("identity.presence", { input: { hosts: [name] } })) as {
      hosts: { boot: string }[];
    };
    return said.hosts[0]?.boot ?? "none";
  } finally {
    client.close();
  }
}

const eventsPath = "/v1/identity/events";

async function streamOf(authority: TestAuthority, token: string): Promise<RawStream> {
  const headers = { authorization: `Bearer ${token}` };
  return await RawStream.open(`${authority.address}${eventsPath}`, headers);
}

/** A browser that has logged in. */
async function browserOf(authority: TestAuthority, operator: TestOperator) {
  const path = `${authority.address}/v1/browser-session`;
  const login = await askRaw(path, { method: "POST", body: { token: operator.token } });
  expect(login.status).toBe(200);
  const set = login.headers.get("set-cookie") ?? "";
  expect(set).toMatch(/^__Host-hostler=[^;]+; Path=\/; .*HttpOnly; Secure; SameSite=Strict$/);
  const [cookie = ""] = set.split(";");
  expect(cookie).toStartWith(COOKIE_NAME);
  return { headers: { cookie }, csrf: String(login.body["csrfToken"]) };
}

skipUnless("what a revocation ends", root, () => {
  test("of a host: its link, its sessions, and what it still sends", async () => {
    await using authority = await TestAuthority.start();
    const host = await rawHost(authority, "web-1");
    const other = await rawHost(authority, "web-2");
    const { link, bearer } = await linked(authority, host, "web-1");
    const second = await linked(authority, host, "web-1");
    const spared = await linked(authority, other, "web-2");
    await authority.ask("host", "revoke", "web-1");
    // The revocation was answered: from here on not a word of this host counts.
    if (link.closed === undefined) link.put(bucket, "web-1", presenceOf("after"));
    expect((await host.ask("/v1/whoami", { bearer })).status).toBe(401);
    const end = { code: 1008, reason: "the session was ended" };
    expect(await link.ended()).toEqual(end);
    expect(await second.link.ended()).toEqual(end);
    expect(await lastWord(authority, "web-1")).toBe("none");
    expect((await host.open("web-1")).kind).toBe("host-revoked");
    const again = await askRaw(`${authority.address}${storePath}`, {
      bearer,
      headers: { upgrade: "websocket", connection: "upgrade" },
    });
    expect(again.status).toBe(401);
    // In the order in which it happened: first they end, then it is told.
    const kinds = (await authority.events()).map(({ kind }) => kind);
    expect(kinds.slice(-3)).toEqual(["session-ended", "session-ended", "host-revoked"]);
    // What the former host said last is not the next one's of its name.
    await (await rawHost(authority, "web-1")).bearer("web-1");
    expect(await lastWord(authority, "web-1")).toBe("none");
    // Of another host nothing has ended.
    const word = spared.link.put(bucket, "web-2", presenceOf("after"));
    expect(await spared.link.heard(word)).toMatchObject({ kind: "written" });
    expect(spared.link.closed).toBeUndefined();
    spared.link.close();
  });

  test("of a host by another in its place: its last word is not the other one's", async () => {
    await using authority = await TestAuthority.start();
    const { link } = await linked(authority, await rawHost(authority, "web-1"), "web-1");
    expect(await lastWord(authority, "web-1")).toBe("before");
    const replacing = await authority.ask("token", "create", "web-1", "--replace");
    await new RawHost(replacing.trim()).enrol();
    expect(await link.ended()).toMatchObject({ code: 1008 });
    expect(await lastWord(authority, "web-1")).toBe("none");
  });

  test("of a host by the program: it says why, and comes back for nothing", async () => {
    await using authority = await TestAuthority.start();
    const host = await authority.enrolled("web-1");
    const session = await authority.session(host);
    await authority.ask("host", "revoke", "web-1");
    const { exitCode, stdout, stderr } = await session.ended();
    expect(exitCode).toBe(111);
    expect(stdout).toContain("closed: the session was ended (1008)\nthe link is down\n");
    expect(stderr).toContain("The host was revoked. If this host is yours");
    expect(await host.refuses("rotate")).toContain("The host was revoked");
    // Who opened a session is an event; that a revoked key tried to is on record.
    const opening = { verb: "identity.session.open", object: "host web-1" };
    const records = (await authority.audit()).filter(({ verb }) => verb === opening.verb);
    expect(records.length).toBeGreaterThan(0);
    for (const record of records) {
      expect(record).toMatchObject({
        ...opening,
        who: "anonymous",
        result: "The host was revoked",
      });
    }
    await authority.auditVerifies();
    // As it is told to: with another key it is let in again.
    const again = await authority.enrolled("web-2");
    await authority.ask("host", "revoke", "web-2");
    rmSync(again.directory, { recursive: true });
    await again.enrol(await authority.token("web-2"));
    expect(await again.openOnce()).not.toContain("revoked");
    // Forgotten, the name is another host's, and the key nobody's.
    await authority.ask("host", "remove", "web-1");
    expect(await host.refuses("session --once")).toContain("refuses");
    expect(await host.refusesToEnrol(await authority.token("web-1"))).toContain("key was revoked");
  });

  test("of a key by its rotation: what it had open, and it opens nothing more", async () => {
    await using authority = await TestAuthority.start();
    const host = await authority.enrolled("web-1");
    const session = await authority.session(host);
    await host.does("rotate");
    await session.said(/closed: the session was ended \(1008\)[\s\S]*link is up/);
    const ended = await authority.eventsOf("session-ended");
    expect(ended.length).toBeGreaterThan(0);
    for (const event of ended) expect(event).toMatchObject({ reason: "key-rotated" });
    // Nothing of a rotation looks like a foreign key.
    const verbs = (await authority.audit()).map(({ verb }) => verb);
    expect(verbs).not.toContain("identity.session.open");
    session.kill("SIGTERM");
    expect((await session.ended()).exitCode).toBe(0);
  });

  test("of an operator: its streams by token and by cookie, and its browser", async () => {
    await using authority = await TestAuthority.start();
    const alice = await authority.operator("alice", "--role", "operate");
    const bob = await authority.operator("bob");
    const browser = await browserOf(authority, alice);
    const url = (path: string) => `${authority.address}${path}`;
    const streams = [
      await streamOf(authority, alice.token),
      await RawStream.open(url(eventsPath), browser.headers),
    ];
    const spared = await streamOf(authority, bob.token);
    const follower = authority.owns(
      startProgram([hostler(), ...alice.words("events", "--follow")]),
    );
    await authority.token("web-1");
    for (const stream of [...streams, spared]) {
      await waitFor("the event", () => stream.text.includes("token-created"));
    }
    await follower.said(/token-created/);
    expect((await askRaw(url("/v1/whoami"), browser)).body).toMatchObject({
      who: "operator alice",
    });
    await authority.ask("operator", "revoke", "alice");
    await authority.token("web-2");
    // By its answer it has happened: neither counts, nor is either told of what comes after.
    expect((await askRaw(url("/v1/whoami"), browser)).status).toBe(401);
    expect((await askRaw(url("/v1/whoami"), { bearer: alice.token })).status).toBe(401);
    for (const stream of streams) {
      await waitFor("the end of the stream", () => stream.end !== undefined);
      expect(stream.text).toContain("event: problem");
      expect(stream.text).not.toContain("web-2");
    }
    const { exitCode, stdout, stderr } = await follower.ended();
    expect({ exitCode, stderr }).toEqual({
      exitCode: 111,
      stderr: expect.stringContaining("counts for nobody"),
    });
    expect(stdout).not.toContain("web-2");
    const reopened = await rejectionOf(streamOf(authority, alice.token));
    expect(reopened.message).toContain("401");
    const login = { method: "POST", body: { token: alice.token } };
    expect((await askRaw(url("/v1/browser-session"), login)).status).toBe(401);
    await waitFor("bob to be told", () => spared.text.includes("web-2"));
    expect(spared.end).toBeUndefined();
    spared.close();
  });

  test("of a token by its rotation: at once, or when the overlap is over", async () => {
    await using authority = await TestAuthority.start();
    const alice = await authority.operator("alice");
    const before = await streamOf(authority, alice.token);
    const token = (await authority.ask("operator", "rotate", "alice", "--overlap", "1h")).trim();
    const after = await streamOf(authority, token);
    expect(before.end).toBeUndefined();
    expect(await alice.ask("whoami")).toContain("operator alice");
    // Once more, without an overlap: both of the older ones have ended.
    const last = (await authority.ask("operator", "rotate", "alice")).trim();
    for (const stream of [before, after]) {
      await waitFor("the end of the stream", () => stream.end !== undefined);
    }
    for (const old of [alice.token, token]) {
      expect((await askRaw(`${authority.address}/v1/whoami`, { bearer: old })).status).toBe(401);
    }
    const who = await askRaw(`${authority.address}/v1/whoami`, { bearer: last });
    expect(who.body).toMatchObject({ who: "operator alice", role: "view" });
  });

  test("a role may do what is its own, and each refusal is in the audit log", async () => {
    await using authority = await TestAuthority.start();
    await authority.enrolled("web-1");
    const view = await authority.operator("viewer", "--permit", "hold,exec");
    const operate = await authority.operator("operator", "--role", "operate");
    const admin = await authority.operator("admin", "--role", "admin");
    expect(await view.ask("whoami")).toBe("operator viewer, role view, permitted exec, hold\n");
    const refused = [
      view.words("host", "revoke", "web-1"),
      view.words("token", "create", "web-2"),
      operate.words("operator", "add", "mallory"),
      operate.words("operator", "revoke", "viewer"),
      operate.words("certificate", "rotate"),
      operate.words("host", "remove", "web-1"),
      // Who lacks a permission gives it to nobody, also not by taking another's token over.
      admin.words("operator", "add", "mallory", "--permit", "wipe"),
      admin.words("operator", "rotate", "viewer"),
    ];
    const before = (await authority.audit()).length;
    for (const words of refused) {
      const { exitCode, stderr } = await runHostler(words);
      expect({ words, exitCode, stderr }).toMatchObject({ exitCode: 111 });
      expect(stderr).toMatch(/lacks the permission|Not allowed/);
    }
    const records = (await authority.audit()).slice(before);
    expect(records.map(({ who, verb }) => `${who}: ${verb}`)).toEqual([
      "operator viewer: identity.hosts.revoke",
      "operator viewer: identity.tokens.create",
      "operator operator: identity.operators.add",
      "operator operator: identity.operators.revoke",
      "operator operator: identity.certificates.rotate",
      "operator operator: identity.hosts.remove",
      "operator admin: identity.operators.add",
      "operator admin: identity.operators.rotate",
    ]);
    for (const { result } of records) expect(result).not.toBe("done");
    await operate.ask("host", "revoke", "web-1");
    await admin.ask("host", "remove", "web-1");
    await authority.auditVerifies();
  });

  test("a browser's call that changes something needs its token, from the same site", async () => {
    await using authority = await TestAuthority.start();
    const alice = await authority.operator("alice", "--role", "operate");
    const { headers, csrf } = await browserOf(authority, alice);
    const create = async (more: Readonly<Record<string, string>>) => {
      const url = `${authority.address}/v1/identity/tokens`;
      const body = { host: "web-1" };
      return await askRaw(url, { method: "POST", body, headers: { ...headers, ...more } });
    };
    expect((await create({})).kind).toBe("cross-site");
    expect((await create({ [CSRF_HEADER]: `${csrf}x` })).kind).toBe("cross-site");
    const site = { [CSRF_HEADER]: csrf, origin: "https://elsewhere.example" };
    expect((await create(site)).kind).toBe("cross-site");
    expect((await create({ [CSRF_HEADER]: csrf, origin: authority.address })).status).toBe(200);
  });
});

skipUnless("the link of a host with its authority", root, () => {
  test("carries the longest value that the store takes, and not one byte more", async () => {
    await using authority = await TestAuthority.start();
    const host = await rawHost(authority, "web-1");
    const { link } = await linked(authority, host, "web-1");
    // Each of these is six letters in JSON.
    const longest = "\u0001".repeat(512 * 1024);
    expect(JSON.stringify(longest).length).toBeLessThan(limits.messageBytes);
    expect(await link.heard(link.put(bucket, "web-1", longest))).toMatchObject({ kind: "written" });
    link.put(bucket, "web-1", `${longest}\u0001`);
    expect(await link.ended()).toMatchObject({ code: 4000 });
  });

  test("is for its own key alone", async () => {
    await using authority = await TestAuthority.start();
    const host = await rawHost(authority, "web-1");
    await linked(authority, await rawHost(authority, "web-2"), "web-2");
    const { link } = await linked(authority, host, "web-1");
    const asked = [
      link.put(bucket, "web-2", presenceOf("forged")),
      link.put("identity-hosts", "web-2", "{}"),
      link.put("identity-operators", "mallory", "{}"),
    ];
    for (const id of asked) {
      expect(await link.heard(id)).toMatchObject({ kind: "refused", problem: { kind: "denied" } });
    }
    link.say({ kind: "get", id: 100, bucket: "identity-operators", key: "alice" });
    link.say({ kind: "watch", id: 101, bucket: "identity-tokens", pattern: "" });
    link.say({ kind: "watch", id: 102, bucket, pattern: "" });
    link.say({ kind: "delete", id: 103, bucket, key: "web-1", write_id: "x" });
    for (const id of [100, 101, 102, 103]) {
      expect(await link.heard(id)).toMatchObject({ kind: "refused", problem: { kind: "denied" } });
    }
    expect(await lastWord(authority, "web-2")).toBe("before");
    link.close();
  });
});
