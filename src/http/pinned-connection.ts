import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { connect, type PeerCertificate } from "node:tls";
import { formatDuration, type Milliseconds } from "../units/units.ts";
import {
  codeOf,
  HttpAddressRefused,
  HttpPinRefused,
  HttpUnreachable,
  isNoWay,
  translateFailure,
} from "./client-error.ts";

/** What Bun's fetch and WebSocket take as `tls`. */
export interface PinnedTls {
  readonly ca: readonly string[];
  readonly checkServerIdentity: (host: string, certificate: PeerCertificate) => Error | undefined;
}

/**
 * The certificates that a client takes. A pin is a hash, and Bun's TLS wants the certificate
 * itself; so the first connection only looks at what the server shows, compares its hash, and
 * keeps the certificate; every connection after it takes that alone, and compares again.
 */
export class PinnedCertificates {
  readonly #url: URL;
  readonly #pins: ReadonlySet<string>;
  /** PEM by pin: those of the pins whose certificate is known. */
  readonly #known = new Map<string, string>();
  #seen: string | undefined;

  /** @throws HttpAddressRefused for a pin that is none */
  constructor(
    url: URL,
    given: { readonly pins: readonly string[]; readonly certificates: readonly string[] },
  ) {
    this.#url = url;
    for (const certificate of given.certificates) {
      this.#known.set(pinOfCertificate(certificate), certificate);
    }
    this.#pins = new Set([...given.pins.map(readPin), ...this.#known.keys()]);
    if (this.#pins.size > 0) return;
    throw new HttpAddressRefused(`Expected a pin for ${url.origin}, received none`);
  }

  get hasKnown(): boolean {
    return this.#known.size > 0;
  }

  /** SHA-256 of the certificate that the last connection showed, in hex. */
  get seen(): string | undefined {
    return this.#seen;
  }

  get tls(): PinnedTls {
    return {
      ca: [...this.#known.values()],
      checkServerIdentity: (_host, certificate) => this.#check(certificate.raw),
    };
  }

  /**
   * Looks at what the server shows, and keeps it when it is pinned.
   * @throws HttpPinRefused, HttpUnreachable
   */
  async learn(limit: Milliseconds): Promise<void> {
    const der = await this.#look(limit);
    const refusal = this.#check(der);
    if (refusal !== undefined) throw refusal;
    this.#known.set(pinOfDer(der), pemOf(der));
  }

  #check(der: Uint8Array): Error | undefined {
    const pin = pinOfDer(der);
    this.#seen = pin;
    if (this.#pins.has(pin)) return undefined;
    return new HttpPinRefused(
      `Refused ${this.#url.origin}: expected a certificate with the pin ` +
        `${[...this.#pins].join(" or ")}, received one with ${pin}`,
      { received: pin },
    );
  }

  /** @returns the DER of the server's certificate; nobody has been trusted, and nothing was said */
  #look(limit: Milliseconds): Promise<Uint8Array> {
    const { hostname, port, origin } = this.#url;
    const host = hostname.replace(/^\[|\]$/g, "");
    const shown = Promise.withResolvers<Uint8Array>();
    const socket = connect({
      host,
      port: Number(port || 443),
      rejectUnauthorized: false,
      minVersion: "TLSv1.3",
      ...(isIP(host) === 0 && { servername: host }),
    });
    const signal = AbortSignal.timeout(limit);
    const onLate = () => {
      const said = `No answer at ${origin} within ${formatDuration(limit)}`;
      shown.reject(new HttpUnreachable(said, { ambiguous: false }));
      socket.destroy();
    };
    signal.addEventListener("abort", onLate, { once: true });
    socket.once("secureConnect", () => {
      const { raw } = socket.getPeerCertificate();
      if (raw === undefined) {
        shown.reject(new HttpPinRefused(`Refused ${origin}: it has no certificate`));
      } else {
        shown.resolve(raw);
      }
      socket.destroy();
    });
    const asked = { url: origin, mutates: false };
    let hasFailed = false;
    socket.on("error", (failure) => {
      hasFailed = true;
      void trueFailure(origin, failure, signal).then((found) =>
        shown.reject(translateFailure(found, asked)),
      );
    });
    socket.once("close", () => {
      if (hasFailed) return;
      signal.removeEventListener("abort", onLate);
      const said = `Cannot reach ${origin}: it closed the connection; does it speak TLS 1.3?`;
      shown.reject(new HttpUnreachable(said, { ambiguous: false }));
    });
    return shown.promise;
  }
}

/** SHA-256 of a certificate's DER, in lower-case hex. */
export function pinOfDer(der: Uint8Array): string {
  return createHash("sha256").update(der).digest("hex");
}

/** The pin of the first certificate of a PEM. @throws HttpAddressRefused */
function pinOfCertificate(pem: string): string {
  const body = /-----BEGIN CERTIFICATE-----([\sA-Za-z0-9+/=]+)-----END CERTIFICATE-----/.exec(pem);
  if (body?.[1] !== undefined) return pinOfDer(Buffer.from(body[1], "base64"));
  throw new HttpAddressRefused("Expected a certificate as PEM, received something else");
}

/** Hex with or without colons, as openssl prints it. */
function readPin(text: string): string {
  const pin = text.replaceAll(":", "").toLowerCase();
  if (/^[0-9a-f]{64}$/.test(pin)) return pin;
  throw new HttpAddressRefused(
    `Expected a pin of 64 hexadecimal digits, received ${JSON.stringify(text.slice(0, 100))}`,
  );
}

function pemOf(der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

/**
 * Bun's TLS calls whatever keeps it from connecting ECONNREFUSED; its fetch has the kernel's word.
 * Nothing is said to whoever answers that meanwhile: every certificate is refused.
 */
async function trueFailure(origin: string, failure: Error, signal: AbortSignal): Promise<unknown> {
  if (codeOf(failure) !== "ECONNREFUSED") return failure;
  const checkServerIdentity = () => new Error("Nobody is spoken to");
  try {
    await fetch(origin, {
      method: "HEAD",
      redirect: "manual",
      signal,
      tls: { checkServerIdentity },
    });
  } catch (error) {
    if (isNoWay(codeOf(error))) return error;
  }
  return failure;
}
