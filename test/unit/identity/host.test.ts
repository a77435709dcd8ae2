/** The host's side: enrolled, in, and with another key, whatever happens in between. */
import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { hostSteps } from "../../../src/identity/host.ts";
import type { HttpRequest } from "../../../src/identity/http-caller.ts";
import { limits, statementText } from "../../../src/identity/protocol.ts";
import { identityPaths } from "../../../src/identity/protocol-paths.ts";
import { releaseTime } from "../../../src/identity/trusted-time.ts";
import { bootOf, TestHost } from "../../support/identity-host.ts";
import { IdentityWorld, Killed } from "../../support/identity-world.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const refusalOf = async (promise: Promise<unknown>) => {
  return (await rejectionOf(promise)) as Error & { kind?: string };
};

const year = 365 * 86_400_000;

describe("enrolment", () => {
  test("leaves a key and a journal that the owner alone can read", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    const { identityFolder: folder } = host;
    expect(readdirSync(folder).toSorted()).toEqual(["authority.json", "key.pem"]);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(folder)) {
      expect(statSync(`${folder}/${name}`).mode & 0o777).toBe(0o600);
    }
    const journal = host.identity().journal();
    expect(journal).toMatchObject({ host: "web-1", authority: world.authority.id });
    // The private key never left.
    const pem = readFileSync(`${folder}/key.pem`, "utf8");
    const middle = pem.split("\n")[1] ?? "";
    expect(JSON.stringify(host.requests)).not.toContain(middle);
  });

  test("a token that was mistyped or cut is told before anybody is asked", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    const token = await world.token("web-1");
    const broken = [token.slice(0, -1), token.replace("l", "1"), `${token.slice(0, 60)}`, "x"];
    for (const text of broken) {
      const refused = await refusalOf(host.identity().enrol({ token: text }));
      expect(refused.kind).toBe("bad-token");
      expect(refused.message).toContain("Copy the whole line once more");
    }
    expect(host.requests).toEqual([]);
    expect(existsSync(host.identityFolder)).toBe(false);
  });

  test("another server at the address is sent no secret", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    const token = await world.token("web-1");
    host.between = { pin: "1".repeat(64), answer: () => ({}) };
    const refused = await refusalOf(host.identity().enrol({ token }));
    expect(refused.kind).toBe("wrong-pin");
    expect(refused.message).toContain("received 1111 1111 1111 1111");
    expect(JSON.stringify(host.requests)).not.toContain("secret");
  });

  test("whoever has the TLS key alone is not taken for the authority", async () => {
    await using world = await IdentityWorld.open();
    await using evil = await IdentityWorld.open({ seed: 9 });
    using host = new TestHost(world);
    const token = await world.token("web-1");
    const { served, core, id } = world.authority;
    // Everything is as it should be, but for the key.
    const said = { ...evil.authority.certificates.statement(), authority: id, pins: [served.pin] };
    const statement = { ...said, signature: evil.authority.core.key.sign(statementText(said)) };
    const authority_key = evil.authority.core.key.publicKey;
    const enrolled = { version: 1, host: "web-1", authority_key, statement };
    const answer = ({ path }: HttpRequest) => {
      return path === identityPaths.challenges ? core.challenge() : enrolled;
    };
    host.between = { pin: served.pin, answer };
    expect((await refusalOf(host.identity().enrol({ token }))).kind).toBe("other-authority");
    host.between = { pin: served.pin, answer: () => evil.authority.core.challenge() };
    expect((await refusalOf(host.identity().enrol({ token }))).kind).toBe("other-authority");
    expect(host.identity().journal()).toBeUndefined();
  });

  test("at another authority is refused while the host is enrolled", async () => {
    await using world = await IdentityWorld.open();
    await using other = await IdentityWorld.open({ seed: 2 });
    using host = new TestHost(world);
    await host.enrol("web-1");
    const refused = await refusalOf(host.identity().enrol({ token: await other.token("web-1") }));
    expect(refused.kind).toBe("enrolled-elsewhere");
  });

  test("without it nothing is opened or rotated", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    expect((await refusalOf(host.identity().openSession())).kind).toBe("not-enrolled");
    expect((await refusalOf(host.identity().rotateKey())).kind).toBe("not-enrolled");
  });
});

describe("killed after any step, the host goes on", () => {
  for (const step of hostSteps) {
    test(step, async () => {
      await using world = await IdentityWorld.open();
      using host = new TestHost(world);
      const token = await world.token("web-1");
      host.killAt = step;
      let deaths = 0;
      const acts = [
        () => host.identity().enrol({ token }),
        () => host.identity().openSession(),
        () => host.identity().rotateKey(),
      ];
      for (const act of acts) {
        const outcome = await act().catch((error: unknown) => error);
        if (outcome instanceof Killed) {
          deaths += 1;
          await act();
        } else if (outcome instanceof Error) throw outcome;
      }
      expect(deaths).toBe(1);
      const session = await host.identity().openSession();
      expect(session.key).toBe(host.identity().fingerprint() ?? "");
      expect(readdirSync(host.identityFolder)).not.toContain("key.next.pem");
      const { keys, phase } = await world.done<{ keys: string[]; phase: string }>(
        "identity.hosts.show",
        { name: "web-1" },
      );
      expect({ keys, phase }).toEqual({ keys: [session.key], phase: "enrolled" });
    });
  }

  test("or between any two of its calls, with or without its answer", async () => {
    for (const lost of ["/v1/session/key", "/v1/sessions", "/v1/challenges", "/v1/enrolments"]) {
      await using world = await IdentityWorld.open();
      using host = new TestHost(world);
      await host.enrol("web-1");
      const old = host.identity().fingerprint();
      let count = 0;
      host.loseAnswer = ({ path }) => {
        count += path === lost ? 1 : 0;
        return path === lost && count <= 2;
      };
      for (let attempt = 0; attempt < 4; attempt += 1) {
        const outcome = await host
          .identity()
          .rotateKey()
          .catch(() => undefined);
        if (outcome !== undefined) break;
      }
      const session = await host.identity().openSession();
      expect(session.key).not.toBe(old ?? "");
    }
  });
});

describe("a key that is rotated", () => {
  test("opens sessions beside the old one until it was used, then alone", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    const before = await host.enrol("web-1");
    const old = readFileSync(`${host.identityFolder}/key.pem`, "utf8");
    host.killAt = "rotation-asked";
    await rejectionOf(host.identity().rotateKey());
    const shown = await world.done("identity.hosts.show", { name: "web-1" });
    expect(shown).toMatchObject({ phase: "rotating" });
    expect(world.authority.authenticate(before.bearer)).toBeDefined();
    const after = await host.identity().rotateKey();
    expect(after.key).not.toBe(before.key);
    expect(world.authority.authenticate(before.bearer)).toBeUndefined();
    expect(world.events.find(({ kind }) => kind === "session-ended")).toMatchObject({
      reason: "key-rotated",
    });
    // Whoever has a copy of the old file has nothing.
    writeFileSync(`${host.identityFolder}/key.pem`, old, { mode: 0o600 });
    expect((await refusalOf(host.identity().openSession())).kind).toBe("key-unknown");
  });

  test("is asked for by both keys: a thief of the session alone cannot", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    for (const field of ["signature", "next_signature"]) {
      host.tamper = (request) => {
        return request.path === "/v1/session/key"
          ? { ...request, body: { ...(request.body as object), [field]: "A".repeat(86) } }
          : request;
      };
      expect((await refusalOf(host.identity().rotateKey())).kind).toBe("signature-wrong");
    }
  });
});

describe("the authority's certificate", () => {
  const rotate = (world: IdentityWorld) => world.done("identity.certificates.rotate");
  const finish = (world: IdentityWorld, force = false) =>
    world.call("identity.certificates.finish", { force });

  test("is rotated with an overlap that all hosts confirm", async () => {
    await using world = await IdentityWorld.open();
    using here = new TestHost(world);
    using away = new TestHost(world);
    const session = await here.enrol("web-1");
    await away.enrol("web-2");
    const served: string[] = [];
    world.authority.onServe(({ pin }) => served.push(pin));
    const old = world.authority.served.pin;
    const certificateHint = { body: { hint: expect.stringContaining("certificate list") } };
    expect(await finish(world)).toMatchObject(certificateHint);
    await rotate(world);
    expect(await world.refusal("identity.certificates.rotate", {})).toBe("wrong-state");
    expect(await world.call("identity.certificates.rotate")).toMatchObject(certificateHint);
    await here.identity().refresh(session);
    expect(here.identity().journal()?.pins).toHaveLength(2);
    const list = await world.done("identity.certificates.list");
    expect(list).toMatchObject({ shown: old, unconfirmed: ["web-2"] });
    expect(await world.refusal("identity.certificates.finish", {})).toBe("unconfirmed");
    await away.identity().openSession();
    expect((await finish(world)).status).toBe(200);
    expect(served).toEqual([world.authority.served.pin]);
    expect(world.authority.served.pin).not.toBe(old);
    // Both get in with what they have, and forget the old one then.
    for (const host of [here, away]) {
      await host.identity().openSession();
      expect(host.identity().journal()?.pins).toEqual([world.authority.served.pin]);
    }
  });

  test("is trusted by who was let in over it, also before its first session", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    const token = await world.token("web-1");
    const confirmed = async () => {
      return (await world.done("identity.hosts.show", { name: "web-1" }))["confirmed"];
    };
    await host.identity().enrol({ token });
    expect(await confirmed()).toBe(true);
    await rotate(world);
    expect(await confirmed()).toBe(false);
  });

  test("after a restart is the one that was announced or shown", async () => {
    await using world = await IdentityWorld.open();
    const first = world.authority.served.pin;
    await rotate(world);
    const { announced } = world.authority.certificates;
    await world.restart();
    expect(world.authority.certificates.announced).toBe(announced);
    expect(world.authority.served.pin).toBe(first);
    await finish(world, true);
    await world.restart();
    expect(world.authority.served.pin).toBe(announced ?? "");
  });

  test("was forced on: a host that was away asks for the authority's signed word", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    for (const _rotation of [1, 2, 3]) {
      await rotate(world);
      await finish(world, true);
    }
    const session = await host.identity().openSession();
    expect(session.pins).toEqual([world.authority.served.pin]);
    const unpinned = host.requests.filter(({ pins }) => pins === "any");
    expect(unpinned.map(({ path, body, bearer }) => ({ path, body, bearer }))).toEqual([
      { path: "/v1/statement", body: undefined, bearer: undefined },
    ]);
  });

  test("stays as it is while the store does not answer", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    const served: string[] = [];
    world.authority.onServe(({ pin }) => served.push(pin));
    const before = world.authority.certificates.statement();
    world.store.faults.push("unavailable");
    expect(await world.refusal("identity.certificates.rotate", {})).toBe("unavailable");
    expect(world.authority.certificates.statement()).toEqual(before);
    await rotate(world);
    const announced = world.authority.certificates.announced ?? "";
    world.store.faults.push("unavailable");
    expect(await world.refusal("identity.certificates.finish", { force: true })).toBe(
      "unavailable",
    );
    expect({ served, shown: world.authority.served.pin }).toEqual({
      served: [],
      shown: before.pins[0] ?? "",
    });
    await finish(world, true);
    expect(served).toEqual([announced]);
  });

  test("of somebody in between is a wrong pin, whatever they say", async () => {
    await using world = await IdentityWorld.open();
    await using evil = await IdentityWorld.open({ seed: 9 });
    using host = new TestHost(world);
    await host.enrol("web-1");
    const { identityFolder: folder } = host;
    const before = readFileSync(`${folder}/authority.json`, "utf8");
    const pin = evil.authority.served.pin;
    const known = world.authority.certificates.statement();
    const says: Record<string, unknown> = {
      "wrong-pin": known,
      "other-authority": evil.authority.certificates.statement(),
      "bad-answer": { hello: "world" },
    };
    for (const [kind, statement] of Object.entries(says)) {
      host.between = { pin, answer: () => statement };
      expect((await refusalOf(host.identity().openSession())).kind).toBe(kind);
    }
    // The authority's signature does not fit other pins.
    host.between = { pin, answer: () => ({ ...known, serial: known.serial + 1, pins: [pin] }) };
    expect((await refusalOf(host.identity().openSession())).kind).toBe("other-authority");
    expect(readFileSync(`${folder}/authority.json`, "utf8")).toBe(before);
  });

  test("an older statement is not taken again", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    await rotate(world);
    const old = world.authority.certificates.statement();
    await host.identity().openSession();
    await finish(world);
    await host.identity().openSession();
    // The old TLS key was stolen, and stands in between with the statement of its time.
    const [pin = ""] = old.pins;
    host.between = { pin, answer: () => old };
    const refused = await refusalOf(host.identity().openSession());
    expect(refused.kind).toBe("bad-answer");
    expect(refused.message).toContain("serial above");
  });

  test("changes between the challenge and the session: tried again", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    await rotate(world);
    await host.identity().openSession();
    let isDone = false;
    host.tamper = (request) => {
      if (request.path === "/v1/sessions" && !isDone) {
        isDone = true;
        void finish(world);
        world.clock.pass(limits.nonceLifetime);
      }
      return request;
    };
    expect((await host.identity().openSession()).host).toBe("web-1");
  });
});

describe("the clock", () => {
  const clocks = { "at 1970": 0, "at 2045": Date.UTC(2045, 0, 1) };
  for (const [name, wall] of Object.entries(clocks)) {
    test(`of the authority stands ${name}: hosts enrol, speak, rotate, and stay`, async () => {
      await using world = await IdentityWorld.open({ wall });
      using host = new TestHost(world);
      await host.enrol("web-1");
      await host.identity().rotateKey();
      await world.done("identity.certificates.rotate");
      await host.identity().openSession();
      await world.done("identity.certificates.finish");
      await host.identity().openSession();
      const time = host.identity().journal()?.time ?? 0;
      expect(time).toBeGreaterThanOrEqual(Math.max(releaseTime, wall));
      // Set right, or wrong in the other way, nobody is locked out, and no time goes back.
      for (const other of [1_795_000_000_000, 0, Date.UTC(2045, 5, 1), 1_795_000_000_000]) {
        world.clock.setWall(other);
        await world.restart();
        await world.done("identity.certificates.rotate");
        await host.identity().openSession();
        await world.done("identity.certificates.finish");
        await host.identity().openSession();
      }
      expect(host.identity().journal()?.time).toBeGreaterThanOrEqual(time);
      expect(host.identity().journal()?.pins).toEqual([world.authority.served.pin]);
    });
  }

  test("of the host is never asked", () => {
    const sources = ["host", "host-journal", "host-key", "pins", "trusted-time"];
    for (const name of sources) {
      const path = new URL(`../../../src/identity/${name}.ts`, import.meta.url);
      expect(readFileSync(path, "utf8")).not.toMatch(/\bDate\b|performance/);
    }
  });

  test("a statement is taken until its end, by trusted time, and pins outlive it", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    await world.done("identity.certificates.rotate");
    const build = world.clock.wall() + year;
    const refused = await refusalOf(host.identity({ build }).openSession());
    expect(refused.message).toContain("ended at");
    world.clock.setWall(build);
    expect((await host.identity({ build }).openSession()).host).toBe("web-1");
  });
});

describe("the journal", () => {
  test("of another version, or damaged, is refused with the mend", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    const path = `${host.identityFolder}/authority.json`;
    const text = readFileSync(path, "utf8");
    for (const bad of ["", "{", text.slice(0, -9), text.replace('"version":1', '"version":2')]) {
      writeFileSync(path, bad);
      const { message } = await rejectionOf(host.identity().openSession());
      expect(message).toContain("Remove it, and enrol this host again: its key stays.");
    }
    writeFileSync(path, text);
    chmodSync(path, 0o644);
    expect((await rejectionOf(host.identity().openSession())).message).toContain("mode 0600");
  });

  test("lost, the host enrols again with its key", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    const { key } = await host.enrol("web-1");
    rmSync(`${host.identityFolder}/authority.json`);
    const again = await host.enrol("web-1", { replace: true });
    expect(again.key).toBe(key);
  });

  test("a clone of the files is reported, wherever it speaks first", async () => {
    await using world = await IdentityWorld.open();
    using host = new TestHost(world);
    await host.enrol("web-1");
    const copy = host.identity({ boot: bootOf("c") });
    await copy.openSession();
    await host.identity().openSession();
    expect(world.kinds()).toContain("host-clone");
  });
});
