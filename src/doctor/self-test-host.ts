import { createHash } from "node:crypto";
import { createReadStream, lstatSync, readFileSync, readlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import {
  places as authorityPlaces,
  defaultHostDirectory,
  defaultStateDirectory,
} from "../authority/protocol.ts";
import { decodeJournal, journalFormat } from "../fleet/lifecycle-journal.ts";
import { readOperatorConfiguration } from "../fleet/operator/configuration.ts";
import { digestSchema } from "../fleet/protocol.ts";
import { readAuthorityFile } from "../identity/authority-file.ts";
import { readHostJournal } from "../identity/host-journal.ts";
import { keyPaths, readKey } from "../identity/host-key.ts";
import { readConfiguration } from "../process/configuration.ts";
import { formatErrors } from "../toml/format-errors.ts";
import { readMasterConfiguration } from "../vm/master/configuration.ts";
import { readWorkerConfiguration } from "../vm/worker-configuration.ts";

/** Where this host's files are looked for. */
export interface HostPlaces {
  /** Of configurations. */
  readonly configurations: string;
  readonly identity: string;
  readonly authority: string;
  /** An installation that is upgraded; undefined: the one that this file lies in, if any. */
  readonly installation: string | undefined;
}

export const usualPlaces: HostPlaces = {
  configurations: "/etc/hostler",
  identity: defaultHostDirectory,
  authority: defaultStateDirectory,
  installation: undefined,
};

/** undefined: there is nothing of it on this host. */
export type HostCheck = () => Found | Promise<Found>;
type Found = string | undefined | Warning;

/** What is wrong on this host, and is no reason against this file. */
export interface Warning {
  readonly warning: string;
}

/** What this host has for us, read as the roles read it; nothing is written. */
export function hostChecks(
  places: HostPlaces,
  wanted: string | undefined,
): Readonly<Record<string, HostCheck>> {
  const { configurations, identity, authority } = places;
  const own = readlinkSync("/proc/self/exe");
  const installation = places.installation ?? installationOf(own);
  return {
    "this file": () => checkDigest(own, wanted),
    "process.toml": () =>
      readTomlFile(join(configurations, "process.toml"), (path) => readConfiguration(path)),
    "vm.toml": () =>
      readTomlFile(join(configurations, "vm.toml"), (path) => readWorkerConfiguration(path)),
    "master.toml": () =>
      readTomlFile(join(configurations, "master.toml"), (path) => readMasterConfiguration(path)),
    "fleet-operator.toml": () =>
      readTomlFile(join(configurations, "fleet-operator.toml"), (path) =>
        readOperatorConfiguration(path),
      ),
    "host's key": () => {
      const key = readKey(keyPaths(identity).present);
      return key === undefined ? undefined : `a key in ${identity}`;
    },
    "pinned certificates": () => {
      const journal = readHostJournal(join(identity, "authority.json"));
      return journal && `${journal.pins.length} of the authority at ${journal.address}`;
    },
    "authority's certificates": () => {
      const facts = readAuthorityFile(join(authority, authorityPlaces.identity, "authority.json"));
      return facts && `serial ${facts.serial}`;
    },
    "upgrade journal": () =>
      installation === undefined ? undefined : checkJournal(join(installation, "journal.json")),
  };
}

/** A file in the folder of an installation's version. */
function installationOf(program: string): string | undefined {
  return /^(.+)\/versions\/[^/]+\/hostler$/.exec(program)?.[1];
}

const verifiedSchema = v.looseObject({ digest: digestSchema });

/** What runs is hashed and compared with what was asked for, and with what lies beside it. */
async function checkDigest(own: string, wanted: string | undefined): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream("/proc/self/exe")) hash.update(chunk as Uint8Array);
  const digest = hash.digest("hex");
  const stamp = join(dirname(own), "verified");
  const beside =
    installationOf(own) === undefined
      ? undefined
      : v.parse(v.pipe(v.string(), v.parseJson(), verifiedSchema), readFileSync(stamp, "utf8"));
  for (const expected of [wanted, beside?.digest]) {
    if (expected === undefined || expected === digest) continue;
    throw new Error(`Expected SHA-256 ${expected}, received ${digest}`);
  }
  return `SHA-256 ${digest}`;
}

type Outcome =
  | { readonly kind: "refused"; readonly errors: Parameters<typeof formatErrors>[0] }
  | { readonly kind: "ok" };

function readTomlFile(path: string, read: (path: string) => Outcome): string | undefined {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
  const outcome = read(path);
  if (outcome.kind === "refused") throw new Error(formatErrors(outcome.errors).trim());
  return path;
}

/**
 * Read as the agent reads it, and never written: the version that wrote it goes on with it. One of
 * a form that this file does not know is against it. What is no journal at all is damaged.
 */
function checkJournal(path: string): string | undefined | Warning {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
  const text = readFileSync(path, "utf8");
  const decoded = decodeJournal(text);
  if (decoded.kind === "ok") return `${path}, step ${decoded.journal.step}`;
  const found = `${path}: ${decoded.kind === "refused" ? decoded.reason : "there is none"}`;
  if (journalFormat(text) === undefined) return { warning: `${found}. The agent does without` };
  const mend = "where no version can read it, move it away: only an upgrade under way is lost";
  throw new Error(`${found}; ${mend}`);
}
