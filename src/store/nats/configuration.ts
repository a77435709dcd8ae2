import * as v from "valibot";
import { nonEmptyText, path } from "../../toml/common-readers.ts";
import { list, type Read, type Report, table, value } from "../../toml/configuration-reader.ts";
import type { TomlTable } from "../../toml/toml-tree.ts";
import type { Credentials } from "./credentials.ts";
import { type DurabilityProof, isMonitoringAddress } from "./durability.ts";
import { isServerAddress } from "./server-address.ts";

/** `[store]` of a role that keeps what it knows in NATS, as TOML says it. Pure. */

/** Where a store in NATS is, who this host is to it, and what its acknowledgements are worth. */
export interface NatsPlace {
  readonly servers: readonly string[];
  readonly credentials: Credentials;
  /** Files with PEM texts. */
  readonly tls: { readonly ca?: string; readonly certificate?: string; readonly key?: string };
  readonly proof: DurabilityProof;
}

/** Of whoever makes its buckets. */
export interface SharedStoreConfiguration extends NatsPlace {
  /** Of this process, shown to people; undefined: the host's name. */
  readonly name: string | undefined;
  readonly replicas: 1 | 3 | 5;
}

/** Going over it is a refusal that a test shows. */
export const mostNatsServers = 16;

const serverWords =
  '"tls://HOST:PORT", without a user; on loopback "nats://127.0.0.1:PORT" as well';

/** Of whoever makes its buckets, and may be one of several. */
export const readNatsOwner = table(
  {
    servers: list(value(serverWords, v.pipe(v.string(), v.check(isServerAddress))), {
      expected: `an array of 1 to ${mostNatsServers} addresses such as "tls://nats.example:4222"`,
      least: 1,
      most: mostNatsServers,
    }),
    credentials: value('"nkey", "jwt" or "token"', v.picklist(["nkey", "jwt", "token"])),
    credentials_file: path,
    ca_file: path,
    certificate_file: path,
    key_file: path,
    monitoring: value(
      'the address of its monitoring, such as "http://127.0.0.1:8222"',
      v.pipe(nonEmptyText, v.check(isMonitoringAddress)),
    ),
    durable_acknowledgements: value('"checked"', v.literal("checked")),
    name: value("a name of 1 to 64 letters", v.pipe(v.string(), v.nonEmpty(), v.maxLength(64))),
    replicas: value("1, 3 or 5", v.picklist([1, 3, 5])),
  },
  { expected: "servers, and who this one is to them", required: ["servers"] },
);

type ReadOwner = Read<typeof readNatsOwner>;

export function makeShared(read: ReadOwner): SharedStoreConfiguration {
  const { ca_file: ca, certificate_file: certificate, key_file: key, monitoring } = read;
  const { credentials: kind, credentials_file: file } = read;
  return {
    name: read.name,
    servers: read.servers ?? [],
    credentials: kind === undefined || file === undefined ? { kind: "none" } : { kind, file },
    tls: {
      ...(ca !== undefined && { ca }),
      ...(certificate !== undefined && { certificate }),
      ...(key !== undefined && { key }),
    },
    replicas: read.replicas ?? 1,
    proof: proofOf(monitoring, read.durable_acknowledgements === "checked"),
  };
}

function proofOf(monitoring: string | undefined, isChecked: boolean): DurabilityProof {
  if (monitoring !== undefined) return { kind: "monitoring", address: monitoring };
  return { kind: isChecked ? "operator" : "none" };
}

/** Of two keys of `[store]` that mean something together alone. */
export function checkNatsPairs(
  root: TomlTable,
  store: ReadOwner | undefined,
  report: Report,
): void {
  if (store === undefined) return;
  const pairs = [
    ["credentials", "credentials_file"],
    ["certificate_file", "key_file"],
  ] as const;
  for (const pair of pairs) {
    const [missing] = pair.filter((key) => store[key] === undefined);
    if (missing === undefined || pair.every((key) => store[key] === undefined)) continue;
    const at = root.entries.get("store")?.node.at ?? root.at;
    const expected = `${pair.join(" and ")} together`;
    report({ at, path: ["store", missing], expected, received: `no ${missing}` });
  }
}
