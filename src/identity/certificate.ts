import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { pinOfDer } from "../http/pinned-connection.ts";
import type { Random } from "./secrets.ts";

/** A certificate that a server shows, with its private key. */
export interface ServerCertificate {
  /** PEM. */
  readonly certificate: string;
  /** PKCS#8 in PEM: never in a log, an event, or the store. */
  readonly key: string;
  /** SHA-256 of the certificate's DER: what hosts pin. */
  readonly pin: string;
}

/**
 * From the beginning to the end of what X.509 can say (RFC 5280, section 4.1.2.5): outside its
 * dates a certificate fails before anybody looks at its pin, and a host whose clock battery is
 * flat would never come back. Trust ends by pins and revocation.
 */
export const validFrom = "1970-01-01T00:00:00Z";
export const validUntil = "9999-12-31T23:59:59Z";

/**
 * A self-signed one, ECDSA P-256.
 * @param request names: under which people and browsers reach the server; hosts look at the pin
 */
export async function makeServerCertificate(request: {
  readonly names: readonly string[];
  readonly random: Random;
}): Promise<ServerCertificate> {
  // Half a megabyte of source, which only an authority that makes a certificate evaluates.
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialFrom(request.random),
    name: "CN=hostler",
    notBefore: new Date(validFrom),
    notAfter: new Date(validUntil),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        request.names.map((name) => {
          return { type: isIP(name) === 0 ? ("dns" as const) : ("ip" as const), value: name };
        }),
      ),
    ],
  });
  const pem = certificate.toString("pem");
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey));
  const lines = pkcs8.toString("base64").match(/.{1,64}/g) ?? [];
  const key = `-----BEGIN PRIVATE KEY-----\n${lines.join("\n")}\n-----END PRIVATE KEY-----\n`;
  return { certificate: `${pem}\n`, key, pin: pinOf(pem) };
}

/** @param certificate PEM or DER. @throws Error when it is none */
export function pinOf(certificate: string | Uint8Array): string {
  return pinOfDer(new X509Certificate(certificate).raw);
}

/** 127 bits of chance: positive, and never with a zero byte in front (RFC 5280, 4.1.2.2). */
function serialFrom(random: Random): string {
  const bytes = Buffer.from(random(16));
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString("hex");
}
