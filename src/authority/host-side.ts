import { HttpClient } from "../http/client.ts";
import { HttpPinRefused } from "../http/client-error.ts";
import type { PinnedTls } from "../http/pinned-connection.ts";
import { HostIdentity, type HostSession } from "../identity/host.ts";
import {
  type HttpAnswer,
  type HttpCaller,
  type HttpRequest,
  WrongPin,
} from "../identity/http-caller.ts";
import { passStep, readBootId } from "./perform.ts";

/** A host, and how what else it opens is held to the certificates that it knows by now. */
export interface HostSide {
  readonly identity: HostIdentity;
  /** For a connection in this session. @throws HttpPinRefused, HttpUnreachable */
  tlsOf(session: Pick<HostSession, "address" | "pins">): Promise<PinnedTls | undefined>;
}

/**
 * A host's identity, whose authority is reached by the pinned client.
 * @param onTrouble told of what does not keep the host from speaking, and should be mended
 */
export function openHostSide(folder: string, onTrouble: (message: string) => void): HostSide {
  const caller = new PinnedCaller();
  const identity = new HostIdentity({
    folder,
    boot: readBootId(),
    caller,
    onStep: (step) => passStep("host", step),
    onTrouble,
  });
  return { identity, tlsOf: (session) => caller.tlsOf(session) };
}

/** As openHostSide, for who opens nothing else. */
export function openHost(folder: string, onTrouble: (message: string) => void): HostIdentity {
  return openHostSide(folder, onTrouble).identity;
}

/** Clients that are kept, each with the certificate that it knows; a host has one authority. */
const KEPT_CLIENTS = 4;
/** No certificate has this hash: whoever is asked by it shows its own. */
const NOBODY = "0".repeat(64);

interface KeptClient {
  readonly client: HttpClient;
  bearer: string | undefined;
}

/** The identity's calls, over TLS to whoever shows a certificate with one of the pins. */
class PinnedCaller implements HttpCaller {
  readonly #clients = new Map<
    string,
    { readonly client: HttpClient; bearer: string | undefined }
  >();

  async call(request: HttpRequest): Promise<HttpAnswer> {
    const { address, method, path, body, bearer } = request;
    const pins = request.pins === "any" ? [await shownBy(address)] : request.pins;
    const kept = this.#clientOf(address, pins);
    kept.bearer = bearer;
    try {
      const answer = await kept.client.exchange({
        method,
        path,
        ...(body !== undefined && { body }),
      });
      return { ...answer, certificate: kept.client.certificateHash ?? "" };
    } catch (error) {
      if (!(error instanceof HttpPinRefused) || error.received === undefined) throw error;
      throw new WrongPin(error.received, { cause: error });
    }
  }

  /** A certificate that was seen is not looked at once more: that would be a handshake. */
  async tlsOf({ address, pins }: Pick<HostSession, "address" | "pins">) {
    const { client } = this.#clientOf(address, pins);
    await client.connect();
    return client.tls;
  }

  #clientOf(url: string, pins: readonly string[]): KeptClient {
    const key = `${url} ${pins.join(" ")}`;
    const found = this.#clients.get(key);
    if (found !== undefined) return found;
    const [oldest] = this.#clients;
    if (this.#clients.size >= KEPT_CLIENTS && oldest !== undefined) {
      oldest[1].client[Symbol.dispose]();
      this.#clients.delete(oldest[0]);
    }
    const kept: KeptClient = {
      client: new HttpClient({ url, pins, token: () => kept.bearer }),
      bearer: undefined,
    };
    this.#clients.set(key, kept);
    return kept;
  }
}

/** The pin of whoever answers there. @throws HttpUnreachable */
async function shownBy(url: string): Promise<string> {
  try {
    await new HttpClient({ url, pins: [NOBODY] }).connect();
  } catch (error) {
    if (error instanceof HttpPinRefused && error.received !== undefined) return error.received;
    throw error;
  }
  throw new Error("A certificate has the hash of nobody's");
}
