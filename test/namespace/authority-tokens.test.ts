/** Enrolment tokens and sessions of the compiled authority, by a client that lies over the wire. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { identityPaths } from "../../src/identity/protocol-paths.ts";
import { runHostler, TestAuthority } from "../support/authority.ts";
import { askRaw, RawHost } from "../support/raw-host.ts";
import { root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

interface TokenLine {
  readonly id: string;
  readonly host: string;
  readonly phase: string;
  readonly stolen: boolean;
}

skipUnless("enrolment tokens of a compiled authority", root, () => {
  test("a stolen token used twice: refused, in the list, an event, in the audit log", async () => {
    await using authority = await TestAuthority.start();
    const token = await authority.token("web-1");
    const host = authority.host("web-1");
    const thief = authority.host("thief");
    expect(await host.enrol(token)).toStartWith(`enrolled as web-1 at ${authority.address}`);
    // The answer was lost, say: the same key asks again, and is told the same.
    await host.enrol(token);
    expect(await authority.eventsOf("token-stolen")).toEqual([]);
    expect(await thief.refusesToEnrol(token)).toContain("was used by another key");
    expect(await authority.askJson<TokenLine[]>("token", "list")).toMatchObject([
      { host: "web-1", phase: "used", stolen: true },
    ]);
    expect(await authority.ask("token", "list")).toMatch(/ web-1 +used +yes /);
    const [stolen, ...more] = await authority.eventsOf("token-stolen");
    expect(more).toEqual([]);
    expect(stolen).toMatchObject({ host: "web-1", from: expect.stringMatching(/^127\.0\.0\.1:/) });
    // Who looks at the log alone is told as well.
    await authority.daemon.said(/token-stolen: token [0-9a-f]{20}, host web-1/);
    const used = (await authority.audit()).filter(({ verb }) => verb === "identity.enrol");
    expect(used.map(({ result }) => result)).toEqual([
      "done",
      "done",
      "The enrolment token was used by another key",
    ]);
    // Whoever was let in first goes on, and the thief is nobody.
    await host.openOnce();
    expect(await thief.refuses("session --once")).toContain("Expected an enrolled host");
    await authority.auditVerifies();
  });

  test("the thief was faster: the real host is refused, and an operator mends it", async () => {
    await using authority = await TestAuthority.start();
    const token = await authority.token("web-1");
    const thief = authority.host("thief");
    await thief.enrol(token);
    const session = await authority.session(thief);
    const host = authority.host("web-1");
    expect(await host.refusesToEnrol(token)).toContain("revoke the host that it let in");
    await authority.ask("host", "revoke", "web-1");
    expect((await session.ended()).exitCode).toBe(111);
    await host.enrol(await authority.token("web-1"));
    await host.openOnce();
    expect(await thief.refuses("session --once")).toContain("key is not this host's");
    // Not by another token, nor under another name: a revoked key never counts again.
    const another = await authority.token("web-2");
    expect(await thief.refusesToEnrol(another)).toContain("key was revoked");
  });

  test("expired, revoked, mistyped, cut, of another authority", async () => {
    await using authority = await TestAuthority.start();
    const short = await authority.token("web-1", "--expires", "1ms");
    await waitFor("the end of the token", async () => {
      const [token] = await authority.askJson<TokenLine[]>("token", "list");
      return token?.phase === "expired";
    });
    const host = authority.host("web-1");
    expect(await host.refusesToEnrol(short)).toContain("has expired");
    const revoked = await authority.token("web-1");
    const { id } = new RawHost(revoked).token;
    await authority.ask("token", "revoke", id);
    expect(await host.refusesToEnrol(revoked)).toContain("was revoked");
    expect(await authority.refuses("token", "revoke", "0".repeat(20))).toContain(
      "No such enrolment token",
    );
    const good = await authority.token("web-1");
    const middle = Math.floor(good.length / 2);
    const letter = good[middle] === "A" ? "B" : "A";
    const bad = {
      cut: good.slice(0, -9),
      shortened: good.slice(0, middle),
      mistyped: `${good.slice(0, middle)}${letter}${good.slice(middle + 1)}`,
      other: good.replace("hostler-token-v1", "hostler-token-v2"),
      empty: "",
      long: "x".repeat(3_000),
    };
    const audited = (await authority.audit()).length;
    for (const [name, text] of Object.entries(bad)) {
      const said = await host.refusesToEnrol(text);
      expect({ name, said }).toMatchObject({
        said: expect.stringMatching(/Expected a token|three parts|checksum/),
      });
      // Nothing of what may be a secret is said again.
      if (text.length > 20) expect(said).not.toContain(text.slice(20, 40));
    }
    // Nobody was asked.
    expect((await authority.audit()).length).toBe(audited);
    const wrong = new RawHost(good);
    const answer = await wrong.enrol({ secret: randomBytes(32).toString("base64url") });
    expect([answer.status, answer.kind]).toEqual([403, "token-unknown"]);
    // None of it has spent the token.
    await host.enrol(good);
    await using other = await TestAuthority.start();
    expect(await host.refusesToEnrol(await other.token("web-1"))).toContain("one of authority");
  });
});

skipUnless("sessions of a compiled authority", root, () => {
  test("a nonce counts once, for one request, and only when the authority gave it", async () => {
    await using authority = await TestAuthority.start();
    const host = new RawHost(await authority.token("web-1"));
    const enrolNonce = await host.nonce();
    expect((await host.enrol({ nonce: enrolNonce })).status).toBe(200);
    const kindOf = async (nonce: string) => (await host.open("web-1", { nonce })).kind;
    expect(await kindOf(enrolNonce)).toBe("nonce-spent");
    const nonce = await host.nonce();
    expect(await kindOf(nonce)).toBeUndefined();
    expect(await kindOf(nonce)).toBe("nonce-spent");
    expect(await kindOf(randomBytes(32).toString("base64url"))).toBe("nonce-spent");
    // Two requests with one nonce at the same time: one of them is it.
    const twice = await host.nonce();
    const both = await Promise.all([kindOf(twice), kindOf(twice)]);
    expect(both.toSorted()).toEqual(["nonce-spent", undefined]);
    // A nonce of another life of the authority.
    const before = await host.nonce();
    await authority.restart();
    expect(await kindOf(before)).toBe("nonce-spent");
    // And a whole request, word for word: the session that it opened is not opened again.
    expect((await authority.eventsOf("session-opened")).length).toBe(0);
  });

  test("a signature for another certificate, authority, host, boot, nonce, key", async () => {
    await using authority = await TestAuthority.start();
    const host = new RawHost(await authority.token("web-1"));
    await host.enrol();
    const other = new RawHost(await authority.token("web-2"));
    await other.enrol();
    const boot = "11111111-2222-4333-8444-555555555555";
    const hash = "ab".repeat(32);
    const nonce = await host.nonce();
    // Signed for something else than what is said.
    const kinds = {
      certificate: (await host.open("web-1", {}, { certificate: hash })).kind,
      authority: (await host.open("web-1", {}, { authority: hash })).kind,
      host: (await host.open("web-1", {}, { host: "web-2" })).kind,
      boot: (await host.open("web-1", {}, { boot })).kind,
      nonce: (await host.open("web-1", {}, { nonce })).kind,
      key: (await host.open("web-1", {}, { key: other.fingerprint })).kind,
      // Said and signed: it does not hold for this authority.
      relayed: (await host.open("web-1", { certificate: hash })).kind,
      otherHost: (await host.open("web-2")).kind,
      otherKey: (await host.open("web-1", { key: other.fingerprint })).kind,
      nobody: (await host.open("web-3")).kind,
    };
    expect(kinds).toEqual({
      certificate: "signature-wrong",
      authority: "signature-wrong",
      host: "signature-wrong",
      boot: "signature-wrong",
      nonce: "signature-wrong",
      key: "signature-wrong",
      relayed: "certificate-other",
      otherHost: "key-unknown",
      otherKey: "key-unknown",
      nobody: "key-unknown",
    });
    // None of them has hurt the host.
    await host.bearer("web-1");
    await other.bearer("web-2");
    const opened = await authority.eventsOf("session-opened");
    expect(opened.map((event) => "host" in event && event.host)).toEqual(["web-1", "web-2"]);
  });

  test("a session's token is one host's, and no operator's", async () => {
    await using authority = await TestAuthority.start();
    const host = new RawHost(await authority.token("web-1"));
    await host.enrol();
    const bearer = await host.bearer("web-1");
    const who = await host.ask("/v1/whoami", { bearer });
    expect(who.body).toMatchObject({ kind: "host", who: "host web-1" });
    const denied = {
      list: await host.ask("/v1/identity/hosts", { bearer }),
      revoke: await host.ask("/v1/identity/hosts/web-2/revoke", {
        bearer,
        method: "POST",
        body: {},
      }),
      events: await host.ask("/v1/identity/events", { bearer }),
      metrics: await host.ask("/metrics", { bearer }),
      backup: await host.ask("/v1/store/backup", { bearer, method: "POST", body: { file: "/x" } }),
    };
    for (const [name, { status }] of Object.entries(denied)) {
      expect({ name, status }).toEqual({ name, status: 403 });
    }
    const closed = await host.ask(identityPaths.close, { bearer, method: "POST", body: {} });
    expect(closed.status).toBe(200);
    expect((await host.ask("/v1/whoami", { bearer })).status).toBe(401);
    const wrong = await askRaw(`${authority.address}/v1/whoami`, { bearer: `${bearer}x` });
    expect(wrong.status).toBe(401);
  });
});

describe("what is typed wrongly", () => {
  test("is told with the exit code of usage, and nobody is asked", async () => {
    const cases = [
      ["token", "create", "web-1", "--expires", "soon"],
      ["whoami", "--pin", "ab".repeat(32)],
      ["whoami", "--authority", "https://127.0.0.1:1"],
      ["whoami", "--authority", "https://127.0.0.1:1", "--pin", "ab", "--token-file", "/dev/null"],
      ["operator", "add", "a", "--permit", "everything"],
      ["authority", "--listen", "nowhere"],
      ["authority", "--address", "http://plain:1"],
      ["authority", "--address", "https://10.0.0.1:0"],
      ["authority", "--address", "https://10.0.0.1:65536"],
    ];
    for (const words of cases) {
      const { exitCode } = await runHostler(["identity", ...words]);
      expect({ words, exitCode }).toEqual({ words, exitCode: 100 });
    }
  });

  test("a name or an id that is none: no daemon has to say so", async () => {
    await using authority = await TestAuthority.start();
    const cases = [
      [["token", "create", "A"], "Expected a name of a-z"],
      [["operator", "add", "a..b"], "Expected a name of a-z"],
      [["host", "revoke", "x".repeat(200)], "characters"],
      [["token", "revoke", "3f"], "Expected a token's id in id, received"],
    ] as const;
    for (const [words, said] of cases) {
      const { exitCode, stderr } = await runHostler(authority.local(...words));
      expect({ words, exitCode, stderr }).toEqual({
        words,
        exitCode: 100,
        stderr: expect.stringContaining(said),
      });
    }
    // What could be, and is not, is the authority's to refuse.
    await authority.refuses("host", "revoke", "web-1");
  });

  test("a file that is named and cannot be used: which, why, and what to do", async () => {
    await using authority = await TestAuthority.start();
    const { folder } = authority;
    const none = folder.file("none");
    const alice = await authority.operator("alice");
    const { address } = authority;
    const remote = ["whoami", "--authority", address, "--pin", alice.pin, "--token-file"];
    const ofIdentity = [
      [["enrol", "--directory", folder.file("host"), "--token-file", none], `${none}: expected a`],
      [[...remote, none], "expected a file there, received nothing (ENOENT). Look at its name, or"],
      [[...remote, folder.path], "expected a file, received a folder (EISDIR)"],
      [[...remote, `${alice.file}/x`], "received a file in the place of one (ENOTDIR)"],
    ] as const;
    const cases = [
      ...ofIdentity.map(([words, said]) => [["identity", ...words], said] as const),
      [["audit", "verify", "--key", none], "expected a file there, received nothing (ENOENT)"],
      [
        ["store", "restore", none, "--state-directory", folder.file("other")],
        "expected a backup there, received nothing",
      ],
    ] as const;
    for (const [words, said] of cases) {
      const { exitCode, stderr } = await runHostler(words);
      expect({ words, exitCode, stderr }).toEqual({
        words,
        exitCode: 100,
        stderr: expect.stringContaining(said),
      });
      expect(stderr).not.toContain("mkdir");
    }
  });
});
