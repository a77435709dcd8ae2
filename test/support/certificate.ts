/**
 * Self-signed certificates for tests, written out as DER: the product makes its own with a
 * package, and these hold the server and the client to the format itself. RFC 5280, RFC 5480.
 */
import { createHash, generateKeyPairSync, sign } from "node:crypto";

export interface TestCertificate {
  /** PEM. */
  readonly certificate: string;
  /** PEM, PKCS #8. */
  readonly key: string;
  /** SHA-256 of the DER, in lower-case hex: what a client pins. */
  readonly pin: string;
}

/** @param options.until UTC as YYYYMMDDHHMMSS; 9999 unless given */
export function makeCertificate(
  name = "test",
  options: { readonly until?: string } = {},
): TestCertificate {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ecdsaWithSha256 = sequence(element(0x06, [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]));
  const commonName = element(0x06, [0x55, 0x04, 0x03]);
  const subject = sequence(element(0x31, sequence(commonName, element(0x0c, Buffer.from(name)))));
  const from = element(0x17, Buffer.from("700101000000Z"));
  const until = element(0x18, Buffer.from(`${options.until ?? "99991231235959"}Z`));
  const body = sequence(
    element(0xa0, element(0x02, [2])),
    element(0x02, [1, ...crypto.getRandomValues(new Uint8Array(8))]),
    ecdsaWithSha256,
    subject,
    sequence(from, until),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
  );
  const signature = sign("sha256", body, privateKey);
  const der = sequence(body, ecdsaWithSha256, element(0x03, [0, ...signature]));
  return {
    certificate: pemOf(der),
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    pin: createHash("sha256").update(der).digest("hex"),
  };
}

function sequence(...parts: readonly Uint8Array[]): Buffer {
  return element(0x30, Buffer.concat(parts));
}

/** Tag, length and value: X.690, distinguished encoding. */
function element(tag: number, value: ArrayLike<number>): Buffer {
  return Buffer.from([tag, ...lengthOf(value.length), ...Array.from(value)]);
}

function lengthOf(length: number): number[] {
  if (length < 0x80) return [length];
  return length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
}

function pemOf(der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}
