/** Disks that are full, read-only, or of others: the authority's, and a host's. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { AuthorityClient } from "../../src/authority/client.ts";
import { authorityApi } from "../../src/authority/protocol.ts";
import { HttpRefusal } from "../../src/http/client-error.ts";
import { identityApi } from "../../src/identity/api.ts";
import { DurableAuthority } from "../support/durable-authority.ts";
import { root, skipUnless } from "../support/skips.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const message = async (promise: Promise<unknown>) => (await rejectionOf(promise)).message;
const noRoom = "make room there (df and df -i say how much there is)";

async function healthOf(authority: DurableAuthority): Promise<{ status: number; body: unknown }> {
  const { shown } = await authority.call(identityApi.certificatesList, {});
  const certificate = { rejectUnauthorized: false, checkServerIdentity: () => undefined };
  expect(shown).toHaveLength(64);
  const answer = await fetch(`${authority.url}/healthz`, { tls: certificate });
  return { status: answer.status, body: await answer.json() };
}

skipUnless("disks of an authority", root, () => {
  test("a full one: what changes is refused, all else goes on; with room it goes on", async () => {
    await using authority = new DurableAuthority();
    using disk = new SmallDisk(authority.state, "16m");
    await authority.start();
    await authority.enrol("web-1");
    const fresh = await authority.token("web-2");
    const { token: alice } = await authority.call(identityApi.operatorsAdd, {
      name: "alice",
      role: "admin",
      special: [],
    });
    const before = await authority.call(identityApi.tokensList, {});
    const certificates = await authority.call(identityApi.certificatesList, {});
    disk.fill();

    const changes = {
      token: () => authority.token("web-3"),
      revoke: () => authority.call(identityApi.hostsRevoke, { name: "web-1" }),
      operator: () => authority.call(identityApi.operatorsRotate, { name: "alice", overlap: 0 }),
      certificate: () => authority.call(identityApi.certificatesRotate, {}),
      backup: () => authority.call(authorityApi.backup, { file: authority.folder.file("b") }),
    };
    for (const change of Object.values(changes)) {
      const said = await message(change());
      expect(said).toContain(noRoom);
      expect(said).toContain("Nothing is changed that cannot be written into the audit log");
      expect(said).not.toContain("..");
    }
    // Hosts are told the same by a status, and what to do.
    const enrolled = await message(authority.host("web-2").enrol({ token: fresh }));
    expect(enrolled).toContain("The authority has no room. Nothing was changed; make room");
    expect(await message(authority.host("web-1").rotateKey())).toContain("make room");
    // And the operator by the log, once, however many were refused.
    const logged = () => authority.program?.output.stderr.split("\n") ?? [];
    const refusals = logged().filter((line) => line.includes("changes something is refused"));
    expect(refusals).toEqual([expect.stringContaining(noRoom)]);
    // An operator elsewhere: 507.
    const place = {
      kind: "https",
      url: authority.url,
      pins: [certificates.shown],
      token: alice,
    } as const;
    using client = await AuthorityClient.connect(place);
    const refused = await rejectionOf(
      client.call(identityApi.tokensRevoke, { id: "0".repeat(20) }),
    );
    expect(refused).toBeInstanceOf(HttpRefusal);
    expect((refused as HttpRefusal).problem.status).toBe(507);
    expect((refused as HttpRefusal).message).not.toContain("..");

    // Reads and sessions go on, and nothing is half-done.
    expect((await authority.host("web-1").openSession()).host).toBe("web-1");
    expect(await authority.whoHas(alice)).toBe("operator alice");
    expect(await authority.call(identityApi.tokensList, {})).toEqual(before);
    expect(await authority.call(identityApi.certificatesList, {})).toEqual(certificates);
    expect(existsSync(authority.folder.file("b"))).toBe(false);
    expect(await healthOf(authority)).toMatchObject({
      status: 503,
      body: { reasons: [expect.stringContaining(noRoom)] },
    });

    disk.clear();
    expect(await healthOf(authority)).toMatchObject({ status: 200, body: { reasons: [] } });
    await authority.host("web-2").enrol({ token: fresh });
    expect(logged().filter((line) => line.includes("is taken again"))).toHaveLength(1);
    const { key } = await authority.host("web-1").rotateKey();
    expect((await authority.host("web-1").openSession()).key).toBe(key);
    for (const change of Object.values(changes)) await change();
    await authority.records();
    expect(await authority.stop()).toMatchObject({ exitCode: 0 });
    expect(await authority.store("verify")).toMatchObject({ exitCode: 0 });
  });

  test("one that is full at the start: it starts, and hosts speak", async () => {
    await using authority = new DurableAuthority();
    using disk = new SmallDisk(authority.state, "16m");
    await authority.start();
    await authority.enrol("web-1");
    await authority.stop();
    disk.fill();
    await authority.start();
    // It has given up what the store keeps for this.
    disk.fill();
    expect((await authority.host("web-1").openSession()).host).toBe("web-1");
    expect(await message(authority.token("web-2"))).toContain(noRoom);
    await authority.stop();
    expect(await authority.start()).toBe(true);
    expect((await authority.host("web-1").openSession()).host).toBe("web-1");
    disk.clear();
    await authority.enrol("web-2");
    await authority.records();
  });

  test("a read-only one is refused, and started from when it can be written", async () => {
    await using authority = new DurableAuthority();
    using disk = new SmallDisk(authority.state, "16m");
    await authority.start();
    await authority.enrol("web-1");
    await authority.stop();
    disk.remount("ro");
    const { exitCode, stderr } = await authority.refused();
    expect(exitCode).toBe(111);
    expect(stderr).toContain(
      `${authority.state}/store: expected a file system that can be written`,
    );
    expect(stderr).toContain("Mount it for writing");
    disk.remount("rw");
    await authority.start();
    expect((await authority.host("web-1").openSession()).host).toBe("web-1");
  });
});

skipUnless("disks of a host", root, () => {
  test("a full one: nothing half-done, sessions go on, the same again with room", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    using disk = new SmallDisk(authority.hostFolder("web-1"), "64k");
    const host = () => authority.host("web-1");
    const files = () => readdirSync(disk.path).toSorted();
    const token = await authority.token("web-1");
    disk.fill();
    expect(await message(host().enrol({ token }))).toContain("Make room there");
    expect(files()).toEqual(["filler"]);
    disk.clear();
    await host().enrol({ token });

    disk.fill();
    expect(await message(host().rotateKey())).toContain("Make room there");
    expect(files()).toEqual(["authority.json", "filler", "key.pem"]);
    await authority.call(identityApi.certificatesRotate, {});
    // What it cannot keep it has not learned, and does not confirm.
    const { pins } = await host().openSession();
    expect(pins).toHaveLength(1);
    expect(authority.troubles).toEqual([expect.stringContaining("Going on with what was known")]);
    expect(await message(authority.call(identityApi.certificatesFinish, {}))).toContain("web-1");
    const words = ["identity", "session", "--once", "--directory", disk.path];
    const said = await authority.run(words);
    expect(said).toMatchObject({ exitCode: 0 });
    expect(said.stdout).toContain("web-1: session");
    expect(said.stderr).toContain("Make room there");

    disk.clear();
    const { key } = await host().rotateKey();
    expect((await host().openSession()).pins).toHaveLength(2);
    const { keys } = await authority.call(identityApi.hostsShow, { name: "web-1" });
    expect(keys).toEqual([key]);
    await authority.call(identityApi.certificatesFinish, {});
    expect((await host().openSession()).pins).toHaveLength(1);
    expect(files()).toEqual(["authority.json", "key.pem"]);
  });

  test("full while a certificate was forced on: refused with the mend", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    using disk = new SmallDisk(authority.hostFolder("web-1"), "64k");
    await authority.enrol("web-1");
    disk.fill();
    await authority.call(identityApi.certificatesRotate, {});
    await authority.call(identityApi.certificatesFinish, { force: true });
    expect(await message(authority.host("web-1").openSession())).toContain("Make room there");
    disk.clear();
    expect((await authority.host("web-1").openSession()).host).toBe("web-1");
  });

  test("a read-only one: sessions go on, a rotation is refused", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    using disk = new SmallDisk(authority.hostFolder("web-1"), "64k");
    await authority.enrol("web-1");
    disk.remount("ro");
    const host = () => authority.host("web-1");
    expect(await message(host().rotateKey())).toContain("Mount it for writing");
    expect((await host().openSession()).host).toBe("web-1");
    disk.remount("rw");
    await host().rotateKey();
    expect((await host().openSession()).host).toBe("web-1");
  });
});

skipUnless("a state directory", root, () => {
  const wrong: [string, (state: string) => void, RegExp][] = [
    ["others may write in it", (state) => chmodSync(state, 0o777), /mode 0700, received mode 0777/],
    ["others may read it", (state) => chmodSync(state, 0o755), /Run chmod 700 \S+state\.$/m],
    ["it is another user's", (state) => chownSync(state, 65_534, 65_534), /uid 0, received uid/],
    ["its identity is read by others", (s) => chmodSync(join(s, "identity"), 0o750), /chmod 700/],
    ["its log is written by others", (s) => chmodSync(join(s, "audit"), 0o777), /chmod 700/],
    ["its store is written by others", (s) => chmodSync(join(s, "store"), 0o777), /chmod 700/],
    [
      "its key is read by others",
      (s) => chmodSync(join(s, "identity/authority.pem"), 0o644),
      /0600/,
    ],
  ];
  test.each(wrong)("%s: refused with the mend", async (_what, spoil, expected) => {
    await using authority = new DurableAuthority();
    await authority.start();
    await authority.stop();
    spoil(authority.state);
    const { exitCode, stderr } = await authority.refused();
    expect({ exitCode, stderr }).toEqual({
      exitCode: 111,
      stderr: expect.stringMatching(expected),
    });
    expect(stderr).toContain(authority.state);
  });

  test("a file in its place, and in the place of a folder above it", async () => {
    await using authority = new DurableAuthority();
    const place = authority.state;
    writeFileSync(place, "");
    for (const state of [place, join(place, "below")]) {
      authority.state = state;
      const { exitCode, stderr } = await authority.refused();
      expect(exitCode).toBe(111);
      expect(stderr).toContain("Remove that file, or name another folder");
    }
    rmSync(place);
    mkdirSync(place, { mode: 0o700 });
    authority.state = place;
    expect(await authority.start()).toBe(true);
  });
});

describe("a host's folder", () => {
  test("of a wrong mode is refused with the mend", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    await authority.enrol("web-1");
    chmodSync(join(authority.hostFolder("web-1"), "key.pem"), 0o640);
    const said = await message(authority.host("web-1").openSession());
    expect(said).toContain("expected mode 0600, received mode 0640");
  });
});
