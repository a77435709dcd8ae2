import { makeBackoff, makeStartLimit } from "../toml/common-readers.ts";
import {
  type ConfigurationWarning,
  type Refused,
  readConfigurationText,
  validateText,
} from "../toml/configuration-file.ts";
import type { Mistake, Report } from "../toml/configuration-reader.ts";
import type { TomlTable } from "../toml/toml-tree.ts";
import type { Backoff, StartLimit } from "../units/restarts.ts";
import type { Milliseconds } from "../units/units.ts";
import type { AgentChannel } from "./agent-channel.ts";
import { masterLimits } from "./protocol-master.ts";
import {
  readWorker,
  type Subnet,
  type WorkerTable,
  workerConfigurationLimits,
} from "./worker-configuration-schema.ts";
import { checkNetworks, makeNetworks, type NetworkConfiguration } from "./worker-networks.ts";

export type { ConfigurationWarning } from "../toml/configuration-file.ts";
export type { ConfigurationError } from "../toml/configuration-reader.ts";
export type { Subnet } from "./worker-configuration-schema.ts";

/** Whom this worker follows. */
export interface MasterConfiguration {
  /** Folder of this host's key, as hostler identity enrol makes it. */
  readonly identity: string;
  /** What the host must be enrolled at; undefined: whatever it is enrolled at. */
  readonly address: string | undefined;
  readonly authority: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly watchdog: { readonly device: string; readonly timeout: Milliseconds } | undefined;
  readonly reportInterval: Milliseconds;
}

/** What `hostler vm worker --config FILE` says, with the defaults of all that it does not say. */
export interface WorkerConfiguration {
  /** Between two looks at what the machines use. */
  readonly metricsPollInterval: Milliseconds;
  /** A machine that failed is started again. */
  readonly autoRestart: boolean;
  /** Images, and the disks of each machine. */
  readonly artifactsFolder: string;
  readonly networkBridge: string;
  readonly subnet: Subnet;
  /** "auto": what this host can do best. */
  readonly hypervisor: "auto" | "cloud-hypervisor" | "qemu";
  /** Programs by absolute path; undefined is looked for by its usual names. */
  readonly programs: {
    readonly cloudHypervisor: string | undefined;
    readonly qemu: string | undefined;
  };
  /** How the agents of QEMU's new machines are reached; vsock where this host has vhost-vsock. */
  readonly guestAgent: AgentChannel;
  /** Firmware of this host, for machines without a kernel of their own; undefined: Debian's. */
  readonly firmware: string | undefined;
  /** What each machine's variables of it are copied from; undefined: what lies beside it. */
  readonly firmwareVariables: string | undefined;
  /** What the machines send beyond the bridge goes out under the host's address. */
  readonly nat: boolean;
  /** Machines of the bridge do not reach each other. */
  readonly isolate: boolean;
  /** Where names are asked for; empty: where this host asks. */
  readonly upstreamDns: readonly string[];
  /** Beside the default one, which the keys above are about. */
  readonly networks: readonly NetworkConfiguration[];
  /** In which each VMM gets a cgroup; "auto": beside the worker's own. */
  readonly cgroup: string;
  readonly backoff: Backoff | "none";
  readonly startLimit: StartLimit | "none";
  readonly controlSocket: string;
  /** Sockets of the machines, and what has to outlive this worker only until the next boot. */
  readonly runFolder: string;
  /** undefined: it has what is declared here. */
  readonly master: MasterConfiguration | undefined;
}

/** Where Debian's package ovmf has its firmware. */
export const debianFirmware = "/usr/share/OVMF/OVMF_CODE_4M.fd";

/** As the seed has them, and more. */
export const workerDefaults = {
  metricsPollInterval: 5_000,
  autoRestart: true,
  artifactsFolder: "/var/lib/procurator/vms",
  networkBridge: "br-procurator",
  subnet: { base: "10.100.0.0", prefixLength: 16 },
  hypervisor: "auto",
  programs: { cloudHypervisor: undefined, qemu: undefined },
  guestAgent: "virtio-serial",
  firmware: undefined,
  firmwareVariables: undefined,
  nat: true,
  isolate: false,
  upstreamDns: [],
  networks: [],
  cgroup: "auto",
  backoff: makeBackoff(undefined),
  startLimit: "none",
  controlSocket: "/run/hostler/vm.sock",
  runFolder: "/run/hostler/vm",
  master: undefined,
} as const satisfies WorkerConfiguration;

export type WorkerOutcome =
  | {
      readonly kind: "ok";
      readonly configuration: WorkerConfiguration;
      readonly warnings: readonly ConfigurationWarning[];
    }
  | Refused;

/** Reads and validates a file. What keeps it from being read is an error of the file as well. */
export function readWorkerConfiguration(file: string): WorkerOutcome {
  const read = readConfigurationText(file, workerConfigurationLimits.fileBytes);
  return read.kind === "text" ? parseWorkerConfiguration(file, read.text) : read;
}

/** Validates a whole text; all its mistakes are reported at once. Pure. */
export function parseWorkerConfiguration(file: string, text: string): WorkerOutcome {
  const limit = workerConfigurationLimits.fileBytes;
  const options = { limit, reader: readWorker, relations: checkRelations };
  const outcome = validateText(file, text, options);
  if (outcome.kind === "refused") return outcome;
  const configuration = makeConfiguration(outcome.read);
  return { kind: "ok", configuration, warnings: warningsOf(file, outcome.root, configuration) };
}

function makeConfiguration(read: WorkerTable): WorkerConfiguration {
  const usual = workerDefaults;
  return {
    metricsPollInterval: read.metrics_poll_interval ?? usual.metricsPollInterval,
    autoRestart: read.auto_restart ?? usual.autoRestart,
    artifactsFolder: read.vm_artifacts_dir ?? usual.artifactsFolder,
    networkBridge: read.network_bridge ?? usual.networkBridge,
    subnet: read.vm_subnet_base ?? usual.subnet,
    hypervisor: read.hypervisor ?? usual.hypervisor,
    programs: { cloudHypervisor: read.cloud_hypervisor_path, qemu: read.qemu_path },
    guestAgent: read.guest_agent ?? usual.guestAgent,
    firmware: read.firmware_path,
    firmwareVariables: read.firmware_variables_path,
    nat: read.nat ?? usual.nat,
    isolate: read.isolate ?? usual.isolate,
    upstreamDns: read.upstream_dns ?? usual.upstreamDns,
    networks: makeNetworks(read.network),
    cgroup: read.cgroup ?? usual.cgroup,
    backoff: makeBackoff(read.backoff),
    startLimit: makeStartLimit(read.start_limit),
    controlSocket: read.control_socket ?? usual.controlSocket,
    runFolder: read.run_dir ?? usual.runFolder,
    master: makeMaster(read.master),
  };
}

/** Seconds are what watchdogs count. */
const WATCHDOG_TIMEOUT: Milliseconds = 60_000;

function makeMaster(read: WorkerTable["master"]): MasterConfiguration | undefined {
  if (read?.identity === undefined) return undefined;
  const { identity, address, authority, labels, watchdog } = read;
  const timeout = read.watchdog_timeout ?? WATCHDOG_TIMEOUT;
  return {
    identity,
    address,
    authority,
    labels: Object.fromEntries(labels ?? []),
    watchdog: watchdog === undefined ? undefined : { device: watchdog, timeout },
    reportInterval: read.report_interval ?? masterLimits.reportEvery,
  };
}

/** What the keys must be to each other. */
function checkRelations(root: TomlTable, read: WorkerTable, report: Report): void {
  const complain = (key: string, mistake: Pick<Mistake, "expected" | "received" | "mend">) => {
    report({ at: root.entries.get(key)?.node.at ?? root.at, path: [key], ...mistake });
  };
  const artifacts = read.vm_artifacts_dir ?? workerDefaults.artifactsFolder;
  const run = read.run_dir ?? workerDefaults.runFolder;
  if (isWithin(artifacts, run) || isWithin(run, artifacts)) {
    complain(read.run_dir === undefined ? "vm_artifacts_dir" : "run_dir", {
      expected: "run_dir and vm_artifacts_dir apart: one is emptied at boot, the other is kept",
      received: `${run} and ${artifacts}`,
    });
  }
  const defaultNetwork = {
    bridge: read.network_bridge ?? workerDefaults.networkBridge,
    subnet: read.vm_subnet_base ?? workerDefaults.subnet,
  };
  checkNetworks(root, { first: defaultNetwork, tables: read.network }, report);
  const { watchdog, watchdog_timeout: timeout } = read.master ?? {};
  if (watchdog === undefined && timeout !== undefined) {
    complain("master", {
      expected: "watchdog_timeout beside watchdog alone",
      received: "watchdog_timeout, and no watchdog",
      mend: "Name the device, or take the timeout away.",
    });
  }
  const { backoff } = read;
  if (typeof backoff !== "object") return;
  const { first, cap } = makeBackoff(backoff) as Backoff;
  if (first <= cap) return;
  complain("backoff", {
    expected: "first up to cap",
    received: `first ${first} ms, cap ${cap} ms`,
  });
}

const isWithin = (inner: string, outer: string) => inner === outer || inner.startsWith(`${outer}/`);

function warningsOf(
  file: string,
  root: TomlTable,
  configuration: WorkerConfiguration,
): ConfigurationWarning[] {
  const warnings: ConfigurationWarning[] = [];
  const warn = (key: string, message: string, mend: string) => {
    const entry = root.entries.get(key);
    if (entry === undefined) return;
    const { line, column } = entry.keyAt;
    warnings.push({ file, line, column, key_path: key, message, mend });
  };
  const { autoRestart, hypervisor } = configuration;
  if (!autoRestart) {
    for (const key of ["backoff", "start_limit"]) {
      warn(key, "nothing is restarted, because auto_restart is false", "Take one of them away.");
    }
  }
  const other = { "cloud-hypervisor": "qemu_path", qemu: "cloud_hypervisor_path", auto: "" };
  warn(other[hypervisor], `it is not used: hypervisor is "${hypervisor}"`, "Take it away.");
  return warnings;
}
