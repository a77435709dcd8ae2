import * as v from "valibot";
import { addressSchema } from "../identity/protocol.ts";
import { identityBuckets } from "../identity/records.ts";
import type { BucketDefinition } from "../store/store.ts";
import type { Retention } from "./retention.ts";

/** What an authority was told when it was started. */
export interface AuthorityOptions {
  /** TLS addresses; the first is the one whose port tokens tell, unless `address` is given. */
  readonly listen: readonly ListenPlace[];
  /** How hosts reach it: "https://NAME:PORT"; undefined: the first of `listen`. */
  readonly address: string | undefined;
  readonly stateDirectory: string;
  readonly controlSocket: string;
  /** Users who may command over the control socket. */
  readonly commandUsers: readonly number[];
  readonly retention: Retention;
}

export interface ListenPlace {
  readonly hostname: string;
  readonly port: number;
}

/**
 * That a host is there: each writes its own key, the host's name. It is gone with the authority's
 * process, because nothing may be decided by it.
 */
export const presenceBucket: BucketDefinition = {
  name: "host-presence",
  age: 24 * 3_600_000,
  size: 16 * 1024 * 1024,
  expendable: true,
  volatile: true,
};

/** All that an authority keeps, with the usual bounds. */
export const usualBuckets: readonly BucketDefinition[] = [...identityBuckets, presenceBucket];

/** An address that somebody can call: port 0 is for listening alone. */
export const reachableAddressSchema = v.pipe(
  addressSchema,
  v.check((text) => {
    const [, port = 0] = /:(\d+)$/.exec(text) ?? [];
    return Number(port) >= 1 && Number(port) <= 65_535;
  }, "https://NAME:PORT"),
);

/** "127.0.0.1:7443" or "[::1]:7443"; undefined for anything else. */
export function parseListen(text: string): ListenPlace | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+)):(\d{1,5})$/i.exec(text);
  const hostname = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return hostname === undefined || port > 65_535 ? undefined : { hostname, port };
}

/** A place as a URL has it. */
export function addressOf({ hostname, port }: ListenPlace): string {
  return `https://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** Names for its certificate: hosts go by the hash alone, other tools by these. */
export function certificateNames(options: AuthorityOptions): readonly string[] {
  const own = options.listen.map(({ hostname }) => hostname);
  const told = options.address === undefined ? [] : [new URL(options.address).hostname];
  return [...new Set([...told, ...own].map((name) => name.replace(/^\[|\]$/g, "")))];
}
