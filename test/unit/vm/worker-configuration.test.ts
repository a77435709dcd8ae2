/** The worker's configuration: the seed's keys and defaults, and every refusal in its place. */
import { describe, expect, test } from "bun:test";

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defaultBackoff } from "../../../src/units/restarts.ts";
import { networkLimits } from "../../../src/vm/protocol-network.ts";
import {
  parseWorkerConfiguration,
  readWorkerConfiguration,
  workerDefaults,
} from "../../../src/vm/worker-configuration.ts";
import {
  workerConfigurationLimits,
  workerKeys,
} from "../../../src/vm/worker-configuration-schema.ts";
import { SeededChance } from "../../support/chance.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

function accept(text: string) {
  const outcome = parseWorkerConfiguration("x.toml", text);
  if (outcome.kind === "ok") return outcome;
  throw new Error(`Refused: ${JSON.stringify(outcome.errors, null, 2)}`);
}

/** "line:column key: expected; received (mend)" of each error. */
function told(text: string): string[] {
  const outcome = parseWorkerConfiguration("x.toml", text);
  if (outcome.kind === "ok") return [];
  return outcome.errors.map(({ line, column, key_path, expected, received, mend }) => {
    const advice = mend === undefined ? "" : ` (${mend})`;
    return `${line}:${column} ${key_path}: ${expected}; ${received}${advice}`;
  });
}

const everything = `
metrics_poll_interval = "500ms"
auto_restart = false
vm_artifacts_dir = "/srv/vms"
network_bridge = "br-test"
vm_subnet_base = "192.168.128.0/20"
hypervisor = "qemu"
cloud_hypervisor_path = "/opt/ch/cloud-hypervisor"
qemu_path = "/usr/bin/qemu-system-x86_64"
guest_agent = "vsock"
firmware_path = "/usr/share/OVMF/OVMF_CODE.fd"
firmware_variables_path = "/srv/VARS.fd"
nat = false
isolate = true
upstream_dns = ["192.0.2.53", "2001:db8::53"]
backoff = {first = "1s", factor = 3, cap = "1min", jitter = 0, reset_after = "1h"}
start_limit = {starts = 5, within = "1h"}
control_socket = "/run/vm.sock"
run_dir = "/run/vm"
cgroup = "/sys/fs/cgroup/vms"
[network.storage]
bridge = "br-storage"
subnet = "10.101.0.0/24"
gateway = "10.101.0.254"
nat = false
isolate = true
vlan = 20
mtu = 9000
allowed_domains = ["*.example.org"]
upstream_dns = ["192.0.2.54"]

[master]
identity = "/var/lib/hostler/host"
address = "https://master.example:7700"
authority = "${"5a".repeat(32)}"
labels = {zone = "a", "example.org/rack" = "R-1"}
watchdog = "/dev/watchdog0"
watchdog_timeout = "2min"
report_interval = "1s"
`;

describe("what is valid", () => {
  test("nothing at all: the seed's defaults", () => {
    const { configuration, warnings } = accept("");
    expect(configuration).toEqual(workerDefaults);
    expect(configuration).toMatchObject({
      metricsPollInterval: 5_000,
      autoRestart: true,
      artifactsFolder: "/var/lib/procurator/vms",
      networkBridge: "br-procurator",
      subnet: { base: "10.100.0.0", prefixLength: 16 },
      backoff: defaultBackoff,
    });
    expect(warnings).toEqual([]);
  });

  test("the seed's five keys, as they are by default", () => {
    const { configuration } = accept(`
metrics_poll_interval = "5s"
auto_restart = true
vm_artifacts_dir = "/var/lib/procurator/vms"
network_bridge = "br-procurator"
vm_subnet_base = "10.100.0.0/16"
`);
    expect(configuration).toEqual(workerDefaults);
  });

  test("every key, none at its default; what is set for nothing is told", () => {
    const { configuration, warnings } = accept(everything);
    expect(configuration).toEqual({
      metricsPollInterval: 500,
      autoRestart: false,
      artifactsFolder: "/srv/vms",
      networkBridge: "br-test",
      subnet: { base: "192.168.128.0", prefixLength: 20 },
      hypervisor: "qemu",
      programs: {
        cloudHypervisor: "/opt/ch/cloud-hypervisor",
        qemu: "/usr/bin/qemu-system-x86_64",
      },
      guestAgent: "vsock",
      firmware: "/usr/share/OVMF/OVMF_CODE.fd",
      firmwareVariables: "/srv/VARS.fd",
      nat: false,
      isolate: true,
      upstreamDns: ["192.0.2.53", "2001:db8::53"],
      cgroup: "/sys/fs/cgroup/vms",
      networks: [
        {
          name: "storage",
          specification: {
            ...{ bridge: "br-storage", subnet: "10.101.0.0/24", gateway: "10.101.0.254" },
            ...{ nat: false, isolation: true, ipv6: "drop", mtu: 9000, vlan: 20 },
            portForwards: [],
          },
          allowedDomains: ["*.example.org"],
          upstreamDns: ["192.0.2.54"],
        },
      ],
      backoff: { first: 1_000, factor: 3, cap: 60_000, jitter: 0, resetAfter: 3_600_000 },
      startLimit: { starts: 5, within: 3_600_000 },
      controlSocket: "/run/vm.sock",
      runFolder: "/run/vm",
      master: {
        identity: "/var/lib/hostler/host",
        address: "https://master.example:7700",
        authority: "5a".repeat(32),
        labels: { zone: "a", "example.org/rack": "R-1" },
        watchdog: { device: "/dev/watchdog0", timeout: 120_000 },
        reportInterval: 1_000,
      },
    });
    expect(warnings.map(({ line, key_path, message }) => [line, key_path, message])).toEqual([
      [16, "backoff", "nothing is restarted, because auto_restart is false"],
      [17, "start_limit", "nothing is restarted, because auto_restart is false"],
      [8, "cloud_hypervisor_path", 'it is not used: hypervisor is "qemu"'],
    ]);
  });

  test.each([
    ["10.0.0.0/8", { base: "10.0.0.0", prefixLength: 8 }],
    ["223.255.255.252/30", { base: "223.255.255.252", prefixLength: 30 }],
  ])("a subnet as large or as small as may be: %s", (written, subnet) => {
    expect(accept(`vm_subnet_base = "${written}"`).configuration.subnet).toEqual(subnet);
  });
});

test("a network says its bridge and its subnet, and has the usual for the rest", () => {
  const { configuration } = accept(`
[network.storage]
bridge = "br-storage"
subnet = "10.101.0.0/24"
`);
  expect(configuration.networks).toEqual([
    {
      name: "storage",
      specification: {
        ...{ bridge: "br-storage", subnet: "10.101.0.0/24", gateway: "10.101.0.1", nat: true },
        ...{ isolation: false, ipv6: "drop", mtu: undefined, vlan: undefined, portForwards: [] },
      },
      allowedDomains: undefined,
      upstreamDns: [],
    },
  ]);
});

const subnetExpected =
  'a subnet of IPv4 such as "10.100.0.0/16", with a prefix from 8 to 30, no bit set behind it, ' +
  "of addresses for hosts";
const pathExpected = 'an absolute path without ".", ".." and a slash at its end';
const bridgeExpected = 'the name of a bridge of at most 15 bytes, without "/", ":", "%" and spaces';
const durationExpected =
  'a duration such as "100ms", "1.5s" or "2min", more than nothing and at most 24 days';

const reportExpected = 'a duration such as "5s", from 500 ms to 5000 ms';
const watchdogExpected = 'a duration such as "5s", from 10000 ms to 3600000 ms';
const labelExpected = "a label of 1 to 63 of a-z, 0-9, ., _, / and -";

describe("what is refused, and where", () => {
  test.each([
    ["[master]", "1:1 master.identity: the key identity; nothing"],
    ["master = 1", "1:10 master: a table with identity; 1"],
    [
      '[master]\nidentity = "/x"\naddress = "http://a/b"',
      '3:11 master.address: an address such as "https://master.example:7700", without a path; ' +
        '"http://a/b"',
    ],
    [
      '[master]\nidentity = "/x"\nauthority = "5a"',
      `3:13 master.authority: the fingerprint of the authority's key: 64 hexadecimal digits; "5a"`,
    ],
    [
      '[master]\nidentity = "/x"\nlabels = {Zone = "a"}',
      `3:11 master.labels.Zone: ${labelExpected}; "Zone"`,
    ],
    [
      '[master]\nidentity = "/x"\nreport_interval = "6s"',
      `3:19 master.report_interval: ${reportExpected}; "6s"`,
    ],
    [
      '[master]\nidentity = "/x"\nwatchdog = "/dev/watchdog"\nwatchdog_timeout = "1s"',
      `4:20 master.watchdog_timeout: ${watchdogExpected}; "1s"`,
    ],
    [
      '[master]\nidentity = "/x"\nwatchdog_timeout = "1min"',
      "1:1 master: watchdog_timeout beside watchdog alone; watchdog_timeout, and no watchdog " +
        "(Name the device, or take the timeout away.)",
    ],
    ["metrics_poll_interval = 5", `1:25 metrics_poll_interval: ${durationExpected}; 5`],
    ['metrics_poll_interval = "0s"', `1:25 metrics_poll_interval: ${durationExpected}; "0s"`],
    ['auto_restart = "yes"', '1:16 auto_restart: true or false; "yes"'],
    ['\nvm_artifacts_dir = "vms"', `2:20 vm_artifacts_dir: ${pathExpected}; "vms"`],
    ['vm_artifacts_dir = "/"', `1:20 vm_artifacts_dir: ${pathExpected}; "/"`],
    ['vm_artifacts_dir = "/a/../b"', `1:20 vm_artifacts_dir: ${pathExpected}; "/a/../b"`],
    ['run_dir = "/run/x/"', `1:11 run_dir: ${pathExpected}; "/run/x/"`],
    [
      'network_bridge = "br-procurator-xy"',
      `1:18 network_bridge: ${bridgeExpected}; "br-procurator-xy" (For example "br-procurator-x".)`,
    ],
    ['network_bridge = "lo"', `1:18 network_bridge: ${bridgeExpected}; "lo"`],
    [
      'network_bridge = "a b"',
      `1:18 network_bridge: ${bridgeExpected}; "a b" (For example "a-b".)`,
    ],
    [
      'vm_subnet_base = "10.100.0.1/16"',
      `1:18 vm_subnet_base: ${subnetExpected}; "10.100.0.1/16" (Did you mean 10.100.0.0/16?)`,
    ],
    ['vm_subnet_base = "10.0.0.0/7"', `1:18 vm_subnet_base: ${subnetExpected}; "10.0.0.0/7"`],
    ['vm_subnet_base = "10.0.0.0/31"', `1:18 vm_subnet_base: ${subnetExpected}; "10.0.0.0/31"`],
    ['vm_subnet_base = "127.0.0.0/16"', `1:18 vm_subnet_base: ${subnetExpected}; "127.0.0.0/16"`],
    ['vm_subnet_base = "224.0.0.0/16"', `1:18 vm_subnet_base: ${subnetExpected}; "224.0.0.0/16"`],
    ['vm_subnet_base = "fd00::/64"', `1:18 vm_subnet_base: ${subnetExpected}; "fd00::/64"`],
    [
      'hypervisor = "qmu"',
      '1:14 hypervisor: "auto" or "cloud-hypervisor" or "qemu"; "qmu" (Did you mean qemu?)',
    ],
    [
      'upstream_dns = ["dns.example"]',
      '1:17 upstream_dns[0]: an address such as "192.0.2.53" or "2001:db8::53"; "dns.example"',
    ],
    [
      'control_socket = "vm.sock"',
      '1:18 control_socket: an absolute path of at most 107 bytes; "vm.sock"',
    ],
    [
      'backoff = {first = "1min", cap = "1s"}',
      "1:11 backoff: first up to cap; first 60000 ms, cap 1000 ms",
    ],
    [
      'run_dir = "/var/lib/procurator/vms/run"',
      "1:11 run_dir: run_dir and vm_artifacts_dir apart: one is emptied at boot, the other is " +
        "kept; /var/lib/procurator/vms/run and /var/lib/procurator/vms",
    ],
    [
      "metrics_pol_interval = 1",
      "1:1 metrics_pol_interval: a known key; metrics_pol_interval " +
        "(Did you mean metrics_poll_interval?)",
    ],
    [
      '[network.storage]\nsubnet = "10.101.0.0/24"',
      "1:1 network.storage.bridge: the key bridge; nothing",
    ],
    [
      '[network.storage]\nbridge = "br-procurator"\nsubnet = "10.101.0.0/24"',
      "2:10 network.storage.bridge: a bridge of its own; br-procurator, which default has",
    ],
    [
      '[network.storage]\nbridge = "br-storage"\nsubnet = "10.100.7.0/24"',
      "3:10 network.storage.subnet: addresses of its own; 10.100.7.0/24, which overlaps that of " +
        "default",
    ],
    [
      '[network.storage]\nbridge = "br-storage"\nsubnet = "10.101.0.0/24"\ngateway = "10.102.0.1"',
      "4:11 network.storage.gateway: a host's address in 10.101.0.0/24; 10.102.0.1 " +
        "(Leave it out: the first address is taken.)",
    ],
    [
      '[network.storage]\nbridge = "br-storage"\nsubnet = "10.101.0.0/24"\nvlan = 4095',
      "4:8 network.storage.vlan: a VLAN from 1 to 4094; 4095",
    ],
    [
      '[network.default]\nbridge = "br-other"\nsubnet = "10.101.0.0/24"',
      '1:10 network.default: another name; "default" (network_bridge, vm_subnet_base, nat, ' +
        "isolate and upstream_dns say what it is.)",
    ],
    [
      '[network.Storage]\nbridge = "br-storage"\nsubnet = "10.101.0.0/24"',
      "1:10 network.Storage: 1 to 31 characters of a-z, 0-9 and -, with a letter or a digit at " +
        'each end; "Storage"',
    ],
    [
      'cgroup = "on"',
      '1:10 cgroup: "auto", "off", or the folder of cgroup v2 in which each machine\'s process ' +
        'gets one; "on"',
    ],
    ['cgroup = "off"\nnat = 1', "2:7 nat: true or false; 1"],
    ['nat = "', "1:8 : a quote that ends the text; the end of the line"],
  ])("%s", (text, expected) => {
    expect(told(text)).toEqual([expected]);
  });

  test("all mistakes at once, in the order of the file", () => {
    const places = told('nat = 1\nisolate = 2\nhypervisor = "x"').map((line) => line.split(" ")[0]);
    expect(places).toEqual(["1:7", "2:11", "3:14"]);
  });
});

describe("limits", () => {
  test("bytes of the file", () => {
    const { fileBytes } = workerConfigurationLimits;
    const text = `#${" ".repeat(fileBytes)}`;
    expect(told(text)).toEqual([`0:0 : at most ${fileBytes} bytes; ${fileBytes + 1} bytes`]);
    using folder = temporaryFolder();
    writeFileSync(folder.file("x.toml"), text);
    expect(readWorkerConfiguration(folder.file("x.toml")).kind).toBe("refused");
  });

  test("servers that are asked for names", () => {
    const many = Array.from({ length: workerConfigurationLimits.upstreamServers + 1 });
    const text = `upstream_dns = [${many.map(() => '"192.0.2.1"').join(", ")}]`;
    expect(told(text)).toEqual([
      "1:16 upstream_dns: an array of at most 8 addresses; an array of 9 values",
    ]);
  });

  test("networks", () => {
    const most = networkLimits.networks - 1;
    const tables = Array.from({ length: most + 1 }, (_value, index) => {
      return `[network.n${index}]\nbridge = "br-${index}"\nsubnet = "10.${index}.0.0/24"\n`;
    });
    expect(told(tables.slice(1).join(""))).toEqual([]);
    expect(told(tables.join(""))).toEqual([
      `1:1 network: networks by their names, at most ${most}; ${most + 1} of them`,
    ]);
  });
});

test("a file is read; one that is not there is an error of the file", () => {
  using folder = temporaryFolder();
  writeFileSync(folder.file("worker.toml"), "isolate = true\n");
  expect(readWorkerConfiguration(folder.file("worker.toml"))).toMatchObject({
    kind: "ok",
    configuration: { isolate: true },
  });
  expect(readWorkerConfiguration(folder.file("none"))).toMatchObject({
    kind: "refused",
    errors: [{ received: "nothing: there is no such file" }],
  });
});

test("2000 mutated texts: every one is taken or refused, with places in the file", () => {
  const chance = new SeededChance(5);
  for (let round = 0; round < 2_000; round += 1) {
    const characters = [...everything];
    for (let count = 0; count <= chance.below(5); count += 1) {
      characters[chance.below(characters.length)] = chance.pick([..."\"'[]{}=#\n0a-./\0"]);
    }
    const outcome = parseWorkerConfiguration("x.toml", characters.join(""));
    if (outcome.kind === "ok") continue;
    const lines = characters.filter((letter) => letter === "\n").length + 1;
    for (const { line } of outcome.errors) expect(line).toBeLessThanOrEqual(lines);
  }
}, 60_000);

test("src/vm/CONFIGURATION.md has every key, and the defaults that the program has", () => {
  const path = join(import.meta.dirname, "../../../src/vm/CONFIGURATION.md");
  const text = readFileSync(path, "utf8").split(/^## (?!The worker)/m)[0] ?? "";
  const keys = [...everything.matchAll(/^(\w+) =/gm)].map(([, key = ""]) => key);
  for (const key of keys) expect(text).toContain(`\`${key}\``);
  // As many as there are readers; whoever adds one is to tell of it.
  const [own = ""] = everything.split("[network.storage]");
  const [, masters = ""] = everything.split("[master]");
  const ownKeys = [own, masters].flatMap((part) =>
    [...part.matchAll(/^(\w+) =/gm)].map(([, key = ""]) => key),
  );
  expect([...ownKeys, "network"].toSorted()).toEqual(workerKeys.toSorted());
  // Those of [master] stand below it.
  const [above = ""] = text.split("`[master]`");
  const rows = [...above.matchAll(/^\| `(\w+)` \| `(.+?)` \|/gm)];
  expect(rows.length).toBeGreaterThan(10);
  const told = rows.map(([, key, value]) => `${key} = ${value}`).join("\n");
  expect(accept(told).configuration).toEqual(workerDefaults);
});
