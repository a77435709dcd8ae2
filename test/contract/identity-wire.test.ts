/** What hosts and authorities of all versions say to each other, byte for byte. */
import { describe, expect, test } from "bun:test";
import { createPrivateKey } from "node:crypto";
import * as v from "valibot";
import { makeServerCertificate, pinOf } from "../../src/identity/certificate.ts";
import { IdentityKey } from "../../src/identity/host-key.ts";
import {
  addressSchema,
  bootSchema,
  enrolRequestSchema,
  enrolText,
  hashSchema,
  limits,
  nameSchema,
  publicKeySchema,
  rotateKeyText,
  sessionRequestSchema,
  sessionText,
  shortFingerprint,
  statementSchema,
  statementText,
} from "../../src/identity/protocol.ts";
import { identityPaths } from "../../src/identity/protocol-paths.ts";
import { refusalKindOf, refusals } from "../../src/identity/protocol-refusal.ts";
import { formatToken, parseToken } from "../../src/identity/protocol-token.ts";
import { IdentityRefusal } from "../../src/identity/refusal.ts";
import { isSignedBy, systemRandom } from "../../src/identity/secrets.ts";
import { rejectionOf } from "../support/wait-for.ts";

/** The key of RFC 8032, section 7.1, test 1, as PKCS#8. */
const seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const der = Buffer.from(`302e020100300506032b657004220420${seed}`, "hex");
const key = new IdentityKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" }));

const hash = (digit: string) => digit.repeat(64);
const nonce = "N".repeat(43);
const boot = "0c1ad8a6-0000-4000-8000-00000000000a";
const base = { authority: hash("a"), certificate: hash("c"), nonce };
const texts = {
  enrol: enrolText({ ...base, token: "0123456789abcdef0123", key: hash("b"), boot }),
  session: sessionText({
    ...base,
    host: "web-1",
    key: hash("b"),
    boot,
    pins: [hash("c"), hash("d")],
  }),
  rotate: rotateKeyText({ ...base, host: "web-1", key: hash("b"), next: hash("e") }),
  statement: statementText({
    authority: hash("a"),
    serial: 7,
    issued: 1_795_000_000_000,
    expires: 1_802_776_000_000,
    pins: [hash("c"), hash("d")],
  }),
};

describe("what is signed", () => {
  test("enrol", () => {
    expect(texts.enrol).toBe(
      `hostler enrol v1\nauthority ${hash("a")}\ntoken 0123456789abcdef0123\n` +
        `key ${hash("b")}\nboot ${boot}\ncertificate ${hash("c")}\nnonce ${nonce}\n`,
    );
  });
  test("session", () => {
    expect(texts.session).toBe(
      `hostler session v1\nauthority ${hash("a")}\nhost web-1\nkey ${hash("b")}\nboot ${boot}\n` +
        `certificate ${hash("c")}\npins ${hash("c")},${hash("d")}\nnonce ${nonce}\n`,
    );
  });
  test("rotate key", () => {
    expect(texts.rotate).toBe(
      `hostler rotate key v1\nauthority ${hash("a")}\nhost web-1\nkey ${hash("b")}\n` +
        `next ${hash("e")}\ncertificate ${hash("c")}\nnonce ${nonce}\n`,
    );
  });
  test("pins", () => {
    expect(texts.statement).toBe(
      `hostler pins v1\nauthority ${hash("a")}\nserial 7\nissued 1795000000000\n` +
        `expires 1802776000000\npins ${hash("c")},${hash("d")}\n`,
    );
  });

  test("golden signatures, by the key of RFC 8032", () => {
    expect(key.publicKey).toBe("MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    const signatures = Object.values(texts).map((text) => key.sign(text));
    expect([key.fingerprint, ...signatures]).toMatchSnapshot();
    for (const [index, text] of Object.values(texts).entries()) {
      const signature = signatures[index] ?? "";
      expect(isSignedBy({ text, signature, spki: key.publicKey })).toBe(true);
      // A signature for one purpose is none for another.
      const others = Object.values(texts).filter((other) => other !== text);
      for (const other of others) {
        expect(isSignedBy({ text: other, signature, spki: key.publicKey })).toBe(false);
      }
    }
  });

  test("no field can hold another one", () => {
    const forged = { ...base, host: `web-1\nkey ${hash("f")}`, key: hash("b"), next: hash("e") };
    expect(() => rotateKeyText(forged)).toThrow("host holds what cannot be signed");
  });
});

describe("the token's text", () => {
  const token = {
    address: "https://authority.test:7443",
    pins: [hash("c")],
    authority: hash("a"),
    id: "0123456789abcdef0123",
    secret: "S".repeat(43),
  };

  test("golden, and read as it was written", () => {
    const text = formatToken(token);
    expect(text).toMatchSnapshot();
    expect(text).not.toMatch(/\s/);
    expect(parseToken(`  ${text}\n`)).toEqual({ kind: "token", token });
  });

  test("every letter that is mistyped, left out, doubled or swapped is told", () => {
    const text = formatToken(token);
    for (let index = 0; index < text.length; index += 1) {
      const letter = text.charAt(index);
      const after = text.slice(index + 1);
      const before = text.slice(0, index);
      const other = letter === "0" ? "1" : "0";
      const swapped = before + after.charAt(0) + letter + after.slice(1);
      const broken = [before + other + after, before + after, before + letter + letter + after];
      if (swapped !== text) broken.push(swapped);
      for (const bad of broken) {
        const parsed = parseToken(bad);
        expect(parsed.kind).toBe("refused");
        expect(JSON.stringify(parsed)).not.toContain("SSSS");
      }
    }
  });

  test("one that is too long is not looked at", () => {
    const long = `hostler-token-v1.${"A".repeat(limits.tokenTextCharacters)}.00000000`;
    expect(parseToken(long)).toMatchObject({ kind: "refused" });
  });
});

describe("schemas", () => {
  const accepts = (schema: v.GenericSchema, value: unknown) => v.safeParse(schema, value).success;

  test("take what is right, and nothing else", () => {
    const cases: [v.GenericSchema, unknown[], unknown[]][] = [
      [nameSchema, ["web-1", "a", "a.b_c"], ["", "A", "a b", "-a", "a.", "a\n", "x".repeat(64)]],
      [hashSchema, [hash("a")], [hash("A"), "a".repeat(63), `${hash("a")}\n`, 7]],
      [bootSchema, [boot], [boot.toUpperCase(), `${boot} `, ""]],
      [publicKeySchema, [key.publicKey], [`${key.publicKey}=`, "MCow", key.publicKey.slice(1)]],
      [
        addressSchema,
        ["https://a.test:7443", "https://[2001:db8::1]:1", "https://192.0.2.1:65535"],
        ["http://a.test:7443", "https://a.test", "https://a.test:7443/x", "https://a@b:1"],
      ],
    ];
    for (const [schema, good, bad] of cases) {
      for (const value of good) expect(accepts(schema, value)).toBe(true);
      for (const value of bad) expect(accepts(schema, value)).toBe(false);
    }
  });

  test("requests of another version, or with more in them, are refused", () => {
    const signature = "A".repeat(86);
    const enrol = {
      version: 1,
      token: "0123456789abcdef0123",
      secret: nonce,
      key: key.publicKey,
      boot,
      nonce,
      certificate: hash("c"),
      signature,
    };
    const session = {
      version: 1,
      host: "web-1",
      key: hash("b"),
      boot,
      nonce,
      certificate: hash("c"),
      pins: [hash("c")],
      signature,
    };
    const statement = {
      version: 1,
      authority: hash("a"),
      serial: 1,
      issued: 1,
      expires: 2,
      pins: [hash("c")],
      signature,
    };
    const all = { enrol, session, statement };
    const schemas = {
      enrol: enrolRequestSchema,
      session: sessionRequestSchema,
      statement: statementSchema,
    };
    for (const name of ["enrol", "session", "statement"] as const) {
      expect(accepts(schemas[name], all[name])).toBe(true);
      expect(accepts(schemas[name], { ...all[name], version: 2 })).toBe(false);
      expect(accepts(schemas[name], { ...all[name], more: 1 })).toBe(false);
    }
    const pins = Array.from({ length: limits.pins + 1 }, () => hash("c"));
    expect(accepts(sessionRequestSchema, { ...session, pins })).toBe(false);
    expect(accepts(sessionRequestSchema, { ...session, pins: [] })).toBe(false);
  });

  test("paths and kinds of refusals are the wire", () => {
    expect(identityPaths).toMatchSnapshot();
    expect(Object.keys(refusals)).toMatchSnapshot();
    const { problem } = new IdentityRefusal("token-used", { expected: "a", received: "b" });
    expect(problem).toMatchSnapshot();
    expect(refusalKindOf(problem.type)).toBe("token-used");
    expect(refusalKindOf("urn:hostler:identity:toString")).toBeUndefined();
    expect(refusalKindOf("about:blank")).toBeUndefined();
  });

  test("a fingerprint for people", () => {
    expect(shortFingerprint(`3f9a02c177be51d0${"0".repeat(48)}`)).toBe("3f9a 02c1 77be 51d0");
  });
});

describe("a certificate on a socket of Bun", () => {
  test("is taken by its pin alone, over TLS 1.3", async () => {
    const make = () => makeServerCertificate({ names: ["authority.test"], random: systemRandom });
    const [own, other] = [await make(), await make()];
    // The types of Bun do not know `minVersion`, which it obeys.
    const tls = { cert: own.certificate, key: own.key, minVersion: 0x0304 };
    using server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      tls,
      fetch: () => new Response("here"),
    });
    const get = async (pem: string, pin: string) => {
      let seen: string | undefined;
      const answer = await fetch(`https://127.0.0.1:${server.port}/`, {
        tls: {
          ca: [pem],
          checkServerIdentity: (_host: string, certificate: { raw: Uint8Array }) => {
            seen = pinOf(certificate.raw);
            return seen === pin ? undefined : new Error("another pin");
          },
        },
      });
      return { text: await answer.text(), seen };
    };
    expect(await get(own.certificate, own.pin)).toEqual({ text: "here", seen: own.pin });
    expect((await rejectionOf(get(own.certificate, other.pin))).message).toContain("another pin");
    await rejectionOf(get(other.certificate, other.pin));
  });
});
