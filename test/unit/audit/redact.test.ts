/** Secrets stay out, and what is too long is replaced. */
import { describe, expect, test } from "bun:test";
import { createHash, createPrivateKey, generateKeyPairSync } from "node:crypto";
import { auditLimits } from "../../../src/audit/limits.ts";
import {
  boundText,
  isSecretName,
  redact,
  redacted,
  redactText,
} from "../../../src/audit/redact.ts";

test.each([
  ...["token", "Token", "enrolmentToken", "enrolment_token", "TOKEN", "session-token"],
  ...["secret", "clientSecret", "password", "old_password", "passphrase", "credentials"],
  ...["privateKey", "private_key", "secretKey", "apiKey", "signing-key", "keyMaterial", "keyPem"],
  ...["cookie", "authorization", "seed", "tokenHash", "jwt", "d", "keyBytes"],
])("%s is a secret's name", (name) => {
  expect(isSecretName(name)).toBe(true);
});

test.each([
  ...["key", "publicKey", "tokenId", "token_name", "tokenExpires", "passwordChanged", "host"],
  ...["keyFingerprint", "hostKey", "tokens_count", "secretary", "tokenise", "pin", "pins", ""],
])("%s is none", (name) => {
  expect(isSecretName(name)).toBe(false);
});

test("values behind such names, at any depth; null tells nothing", () => {
  const value = { name: "web-1", token: "abc", list: [{ password: { a: 1 } }], secret: null };
  expect(redact(value)).toEqual({
    name: "web-1",
    token: redacted,
    list: [{ password: redacted }],
    secret: null,
  });
});

describe("texts", () => {
  const { privateKey } = generateKeyPairSync("ed25519");
  const pem = privateKey.export({ format: "pem", type: "pkcs8" }).toString();

  test("private keys, also cut off; public ones may be read", () => {
    expect(redactText(`a ${pem} b`)).toBe(`a ${redacted}\n b`);
    expect(redactText(`a ${pem.slice(0, 60)}`)).toBe(`a ${redacted}`);
    expect(redactText(pem.replaceAll("PRIVATE", "PUBLIC"))).toContain("BEGIN PUBLIC");
    expect(redact({ note: pem })).toEqual({ note: `${redacted}\n` });
  });

  test.each([
    ["Authorization: Bearer abcdefgh.ijk-l", `Authorization: Bearer ${redacted}`],
    ["GET /x?token=abc&a=1", `GET /x?token=${redacted}&a=1`],
    ['{"password": "a b", "x": 1}', `{"password": ${redacted}, "x": 1}`],
    ["--enrolment-token=abc", `--enrolment-token=${redacted}`],
    ["the token of host web-1", "the token of host web-1"],
  ])("%s", (text, expected) => {
    expect(redactText(text)).toBe(expected);
  });

  test("nothing of the key is left, in whatever form it is given", () => {
    const jwk = privateKey.export({ format: "jwk" });
    const key = createPrivateKey(pem);
    const bytes = privateKey.export({ format: "der", type: "pkcs8" });
    const told = JSON.stringify(
      redact({ jwk, key, bytes, buffer: new ArrayBuffer(4), pem: [pem] }),
    );
    expect(told).not.toContain(String(jwk.d));
    expect(told).not.toContain("MC4C");
    expect(told).toContain("[48 bytes]");
  });
});

describe("bounds", () => {
  test("a text at its limit, and one byte over it", () => {
    const most = "x".repeat(auditLimits.textBytes - 2);
    expect(boundText(most)).toBe(most);
    const cut = boundText(`${most}x`);
    expect(Buffer.byteLength(JSON.stringify(cut))).toBeLessThanOrEqual(auditLimits.textBytes);
    expect(cut).toEndWith(`… (cut; ${most.length + 1} characters)`);
  });

  test.each(["\u0000", "é", "😀", "\ud800", '"', "\\"])("a long text of %j", (character) => {
    const cut = boundText(character.repeat(50_000));
    const bytes = Buffer.byteLength(JSON.stringify(cut));
    expect(bytes).toBeLessThanOrEqual(auditLimits.textBytes);
    expect(bytes).toBeGreaterThan(auditLimits.textBytes - 20);
  });

  test("a change over its limit is its length and its hash", () => {
    const most = "x".repeat(auditLimits.changeBytes - 2);
    expect(redact(most)).toBe(most);
    const text = JSON.stringify(`${most}x`);
    expect(redact(`${most}x`)).toEqual({
      replaced: "too long",
      bytes: auditLimits.changeBytes + 1,
      sha256: createHash("sha256").update(text).digest("hex"),
    });
  });

  test("depth, number of values, circles", () => {
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    expect(JSON.stringify(redact(circle))).toContain("[too deep]");
    const many = JSON.stringify(redact(Array(20_000).fill(1)));
    expect(many.length).toBeLessThan(auditLimits.changeBytes + 200);
    const exact = redact(Array(auditLimits.changeValues + 5).fill([]));
    expect(exact).toMatchObject({ replaced: "too long" });
  });

  test("what JSON cannot say", () => {
    const value = {
      ...{ big: 2n ** 70n, not: Number.NaN, no: undefined, map: new Map(), call: () => 1 },
      ...{ date: new Date(0), list: [undefined, Symbol("x")], bare: Object.create(null) },
    };
    expect(redact(value)).toEqual({
      ...{ big: "1180591620717411303424", not: "NaN", map: "[Map]", call: "[function]" },
      ...{ date: "1970-01-01T00:00:00.000Z", list: [null, "[symbol]"], bare: {} },
    });
    expect(redact(undefined)).toBeUndefined();
    const odd = JSON.parse('{"__proto__": {"token": "x"}}');
    expect(JSON.stringify(redact(odd))).toBe(`{"__proto__":{"token":"${redacted}"}}`);
  });
});
