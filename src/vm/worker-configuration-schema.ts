import { isIP } from "node:net";
import * as v from "valibot";
import { FIRST_VLAN, LARGEST_MTU, LAST_VLAN, SMALLEST_MTU } from "../network/specification.ts";
import {
  absolutePath,
  backoff,
  flag,
  socketPath,
  someDuration,
  startLimit,
  wholeNumber,
} from "../toml/common-readers.ts";
import {
  list,
  namedTable,
  type Read,
  type Reader,
  table,
  value,
  word,
} from "../toml/configuration-reader.ts";
import { parseDuration } from "../units/units.ts";
import { masterLimits } from "./protocol-master.ts";
import { domainSchema, isNetworkName, networkLimits, networkNameRule } from "./protocol-network.ts";

/** What each key of the worker's configuration may be. */

/** Going over one is a refusal that a test shows. */
export const workerConfigurationLimits = {
  /** Bytes of the file: 1 MiB. */
  fileBytes: 1024 * 1024,
  /** IFNAMSIZ, less its end: <linux/if.h>. */
  interfaceNameBytes: 15,
  upstreamServers: 8,
  /** Longest and shortest prefix of the machines' subnet: from 2 to 16 million addresses. */
  shortestPrefix: 8,
  longestPrefix: 30,
  /** Milliseconds: one that is shorter fires while a worker is replaced by a newer one. */
  shortestWatchdog: 10_000,
  longestWatchdog: masterLimits.watchdogTime,
  /** Milliseconds between two reports at least; the wire says at most. */
  shortestReport: 500,
} as const;

/** A subnet of IPv4: "10.100.0.0" with 16 is 10.100.0.0/16. */
export interface Subnet {
  readonly base: string;
  readonly prefixLength: number;
}

/** A folder or a file that is named without a way back, and not the root. */
const plainPathSchema = v.pipe(
  absolutePath,
  v.check((path) => /^(\/[^/]+)+$/.test(path) && !/\/\.{1,2}(\/|$)/.test(path)),
);
const plainPath = value(
  'an absolute path without ".", ".." and a slash at its end',
  plainPathSchema,
);

/** dev_valid_name of net/core/dev.c; "%" is for names that the kernel completes. */
const isInterfaceName = (name: string) =>
  /^[^\s/:%\0]+$/.test(name) &&
  new TextEncoder().encode(name).length <= workerConfigurationLimits.interfaceNameBytes &&
  ![".", "..", "lo", "all", "default"].includes(name);

const interfaceName = value(
  'the name of a bridge of at most 15 bytes, without "/", ":", "%" and spaces',
  v.pipe(v.string(), v.check(isInterfaceName)),
  (received) => {
    const shorter = received.replace(/[\s/:%\0]/g, "-").slice(0, 15);
    return isInterfaceName(shorter) ? `For example ${JSON.stringify(shorter)}.` : undefined;
  },
);

const { shortestPrefix, longestPrefix } = workerConfigurationLimits;
const subnetExpected =
  `a subnet of IPv4 such as "10.100.0.0/16", with a prefix from ${shortestPrefix} to ` +
  `${longestPrefix}, no bit set behind it, of addresses for hosts`;

interface Written {
  readonly address: number;
  readonly prefixLength: number;
}

function parseSubnet(written: string): Written | undefined {
  const [, address, digits] = /^([\d.]+)\/(\d{1,2})$/.exec(written) ?? [];
  if (address === undefined || isIP(address) !== 4) return undefined;
  return { address: addressNumber(address), prefixLength: Number(digits) };
}

const addressNumber = (text: string) =>
  text.split(".").reduce((number, part) => number * 256 + Number(part), 0);

const addressText = (number: number) =>
  [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join(".");

const baseOf = ({ address, prefixLength }: Written) =>
  address - (address % 2 ** (32 - prefixLength));

/** Nothing of the first block, of the loopback's, of multicast's and of what is beyond. */
function isUsable({ address, prefixLength }: Written): boolean {
  if (prefixLength < shortestPrefix || prefixLength > longestPrefix) return false;
  const first = Math.floor(address / 2 ** 24);
  return first !== 0 && first !== 127 && first < 224;
}

const subnet: Reader<Subnet> = value(
  subnetExpected,
  v.pipe(
    v.string(),
    v.transform(parseSubnet),
    v.object({ address: v.number(), prefixLength: v.number() }),
    v.check((written) => isUsable(written) && baseOf(written) === written.address),
    v.transform(({ address, prefixLength }) => ({ base: addressText(address), prefixLength })),
  ),
  (received) => {
    const written = parseSubnet(received);
    if (written === undefined || !isUsable(written)) return undefined;
    return `Did you mean ${addressText(baseOf(written))}/${written.prefixLength}?`;
  },
);

const { upstreamServers } = workerConfigurationLimits;
const address = value(
  'an address such as "192.0.2.53" or "2001:db8::53"',
  v.pipe(
    v.string(),
    v.check((text) => isIP(text) !== 0 && !text.includes("%")),
  ),
);

const upstreams = list(address, {
  expected: `an array of at most ${upstreamServers} addresses`,
  least: 0,
  most: upstreamServers,
});

const { allowedDomains } = networkLimits;
const domains = list(value('a domain such as "example.org" or "*.example.org"', domainSchema), {
  expected: `an array of at most ${allowedDomains} domains`,
  least: 0,
  most: allowedDomains,
});

/** One network beside the default one. */
const network = table(
  {
    bridge: interfaceName,
    subnet,
    gateway: value(
      'an address such as "10.101.0.1"',
      v.pipe(
        v.string(),
        v.check((text) => isIP(text) === 4),
      ),
    ),
    nat: flag,
    isolate: flag,
    vlan: value(`a VLAN from ${FIRST_VLAN} to ${LAST_VLAN}`, wholeNumber(FIRST_VLAN, LAST_VLAN)),
    mtu: value(
      `bytes from ${SMALLEST_MTU} to ${LARGEST_MTU}`,
      wholeNumber(SMALLEST_MTU, LARGEST_MTU),
    ),
    allowed_domains: domains,
    upstream_dns: upstreams,
  },
  { expected: "keys of a network", required: ["bridge", "subnet"] },
);
export type NetworkTable = Read<typeof network>;

const { labels: mostLabels } = masterLimits;
const label = /^[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?$/;
const { shortestWatchdog, longestWatchdog } = workerConfigurationLimits;

const duration = (least: number, most: number) =>
  value(
    `a duration such as "5s", from ${least} ms to ${most} ms`,
    v.pipe(
      v.string(),
      v.transform((written) => parseDuration(written) ?? Number.NaN),
      v.number(),
      v.minValue(least),
      v.maxValue(most),
    ),
  );

const masterReaders = {
  identity: plainPath,
  address: value(
    'an address such as "https://master.example:7700", without a path',
    v.pipe(v.string(), v.regex(/^https:\/\/[^/\s]+$/)),
  ),
  authority: value(
    "the fingerprint of the authority's key: 64 hexadecimal digits",
    v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  ),
  labels: namedTable(
    value(
      "1 to 63 of A-Z, a-z, 0-9, ., _ and -, with a letter or a digit at each end",
      v.pipe(v.string(), v.regex(/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/)),
    ),
    {
      expected: "labels",
      most: mostLabels,
      isName: (name) => label.test(name),
      expectedName: "a label of 1 to 63 of a-z, 0-9, ., _, / and -",
    },
  ),
  watchdog: plainPath,
  watchdog_timeout: duration(shortestWatchdog, longestWatchdog),
  report_interval: duration(workerConfigurationLimits.shortestReport, masterLimits.reportEvery),
};
const master = table(masterReaders, { expected: "a table with identity", required: ["identity"] });

const readers = {
  metrics_poll_interval: someDuration,
  auto_restart: flag,
  vm_artifacts_dir: plainPath,
  network_bridge: interfaceName,
  vm_subnet_base: subnet,
  hypervisor: word(["auto", "cloud-hypervisor", "qemu"]),
  cloud_hypervisor_path: plainPath,
  qemu_path: plainPath,
  guest_agent: word(["virtio-serial", "vsock"]),
  firmware_path: plainPath,
  firmware_variables_path: plainPath,
  nat: flag,
  isolate: flag,
  upstream_dns: upstreams,
  network: namedTable(network, {
    expected: "networks by their names",
    // One more is the default one.
    most: networkLimits.networks - 1,
    isName: isNetworkName,
    expectedName: networkNameRule,
  }),
  cgroup: value(
    '"auto", "off", or the folder of cgroup v2 in which each machine\'s process gets one',
    v.union([v.picklist(["auto", "off"]), plainPathSchema]),
  ),
  backoff,
  start_limit: startLimit,
  master,
  control_socket: socketPath,
  run_dir: plainPath,
};

/** Every key that there is, those of [master] among them. */
export const workerKeys: readonly string[] = [
  ...Object.keys(readers).filter((key) => key !== "master"),
  ...Object.keys(masterReaders),
];

export const readWorker = table(readers, { expected: "keys" });
export type WorkerTable = Read<typeof readWorker>;
