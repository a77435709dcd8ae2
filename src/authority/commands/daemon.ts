import { resolve } from "node:path";
import * as v from "valibot";
import { wholeNumber } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { configureLogging } from "../../logging/logger.ts";
import type { BucketDefinition } from "../../store/store.ts";
import {
  type AuthorityOptions,
  type ListenPlace,
  parseListen,
  reachableAddressSchema,
  usualBuckets,
} from "../options.ts";
import { defaultListen } from "../protocol.ts";
import { type Retention, readRetention } from "../retention.ts";

export interface AuthorityFlags {
  readonly listen: readonly string[];
  readonly address: string | undefined;
  readonly "state-directory": string;
  readonly "control-socket": string;
  readonly "command-uid": readonly string[];
  readonly retain: readonly string[];
  readonly "log-json": boolean;
  readonly verbose: boolean;
}

/** (uid_t)-1 means "no user" to the kernel. */
const LARGEST_ID = 2 ** 32 - 2;
/** Addresses that one authority listens at. */
const MOST_ADDRESSES = 16;

export async function runAuthorityCommand(flags: AuthorityFlags): Promise<number> {
  const options = readFlags(flags, process.getuid?.() ?? 0);
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  const { runAuthority } = await import("../daemon.ts");
  return await runAuthority(options);
}

/**
 * @param ownUser may command when nobody is named
 * @param buckets all that is kept, with its usual bounds
 * @throws UsageError
 */
export function readFlags(
  flags: AuthorityFlags,
  ownUser: number,
  buckets: readonly BucketDefinition[] = usualBuckets,
): AuthorityOptions {
  const { listen, address } = flags;
  const given = listen.length === 0 ? [defaultListen] : listen;
  if (given.length > MOST_ADDRESSES) {
    throw new UsageError(
      `Expected at most ${MOST_ADDRESSES} times --listen, received ${given.length}`,
    );
  }
  if (address !== undefined && !v.is(reachableAddressSchema, address)) {
    throw new UsageError(
      `Expected https://NAME:PORT, a port from 1 to 65535, after --address, received ${address}`,
    );
  }
  const users = flags["command-uid"]
    .flatMap((text) => text.split(","))
    .map((text) => wholeNumber(text, { name: "--command-uid", least: 0, most: LARGEST_ID }));
  return {
    listen: given.map(readListen),
    address,
    stateDirectory: resolve(flags["state-directory"]),
    controlSocket: resolve(flags["control-socket"]),
    commandUsers: users.length === 0 ? [ownUser] : users,
    retention: readRetain(flags.retain, buckets),
  };
}

function readRetain(given: readonly string[], buckets: readonly BucketDefinition[]): Retention {
  const read = readRetention(buckets, given);
  if ("retention" in read) return read.retention;
  throw new UsageError(`Expected ${read.expected}, after --retain, received ${read.received}`);
}

function readListen(text: string): ListenPlace {
  const place = parseListen(text);
  if (place !== undefined) return place;
  throw new UsageError(
    `Expected ADDRESS:PORT, such as 0.0.0.0:7443 or [::]:7443, after --listen, received ${text}`,
  );
}
