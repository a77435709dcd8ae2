import { LONGEST_SOCKET_PATH } from "../../../ffi/unix-socket.ts";
import { connectWithin } from "../../messaging/connect-within.ts";
import { listenerProcess } from "../../messaging/listener.ts";
import {
  type ConnectOptions,
  type HypervisorDriver,
  type HypervisorProgram,
  type MachineFiles,
  MachineRefused,
  type MachineSpecification,
  type VmmConnection,
  type VmmPlan,
  VmmUnreachable,
} from "../driver.ts";
import { pingSchema } from "./answers.ts";
import { CloudHypervisorApi } from "./api.ts";
import { type LandlockRule, vmConfigOf } from "./config.ts";
import { CloudHypervisorConnection, MIGRATION_SUFFIX } from "./connection.ts";
import { EventPipe } from "./event-pipe.ts";
import { type MonitorEvent, meaningOf } from "./events.ts";
import { type CloudHypervisorLimits, cloudHypervisorLimits } from "./limits.ts";
import { continueStopped, STOPPED_SUFFIX } from "./stopped-process.ts";

export interface CloudHypervisorOptions {
  /** Confines the VMM's file access, with these files beside its own; undefined does not. */
  readonly landlock?: readonly LandlockRule[];
  readonly limits?: Partial<CloudHypervisorLimits>;
  /** What an operator should read: bytes of the event monitor that are no event. */
  readonly onTrouble?: (message: string) => void;
}

/** The driver with nothing set: no Landlock, the usual limits. */
export const cloudHypervisorDriver: HypervisorDriver = makeCloudHypervisorDriver();

/**
 * The first that keeps running when its guest is off (--no-shutdown), and that moves a paused
 * machine ("CompletePaused").
 */
const FIRST_VERSION = 52;

/** The first whose send-migration is a thread of its own ("MigrationWorker"). */
const FIRST_SENDING = 53;
/** The first that writes what it keeps of qcow2 files when it is paused (its commit b68e7f3d9). */
const FIRST_FLUSHING = 54;

/** Speaks to cloud-hypervisor by its REST API and its event monitor. */
export function makeCloudHypervisorDriver(options: CloudHypervisorOptions = {}): HypervisorDriver {
  const { landlock } = options;
  return {
    hypervisor: "cloud-hypervisor",
    plan: (machine, files, program, _beginning) => {
      checkVersion(program);
      checkFiles(files);
      // Refused before anything is started, though it is told only when the VMM runs.
      vmConfigOf(machine, files, { landlock });
      return { ...planOf(machine, files, landlock !== undefined), program: program.path };
    },
    boundToBuild: () => [
      "cloud-hypervisor promises to take no state of another major version (its docs/releases.md)",
    ],
    whyStays: ({ disks }, version) => {
      const major = Number(/^v?(\d+)\./.exec(version)?.[1]);
      if (!(major >= FIRST_SENDING)) {
        return `cloud-hypervisor ${version} answers nobody while it sends a machine`;
      }
      const isOverlay = disks.some(({ readOnly, format }) => !readOnly && format === "qcow2");
      if (!isOverlay || major >= FIRST_FLUSHING) return undefined;
      return `cloud-hypervisor ${version} keeps parts of qcow2 files to itself while it is paused`;
    },
    // Its TAPs and locks of disks are opened when it takes the machine.
    takesAlone: () => true,
    connect: (files, connectOptions) => connect(files, connectOptions, options),
  };
}

function planOf(
  { networks }: MachineSpecification,
  files: MachineFiles,
  isConfined: boolean,
): Omit<VmmPlan, "program"> {
  return {
    arguments: [
      "--api-socket",
      `path=${files.control}`,
      "--event-monitor",
      `path=${files.events}`,
      "--seccomp",
      "true",
      "--no-shutdown",
      ...(isConfined ? ["--landlock"] : []),
    ],
    // Guest memory is a memfd of the VMM's own, and comes to us when the machine moves.
    descriptors: [],
    pipes: [files.events],
    devices: [
      "/dev/kvm",
      "/dev/null",
      "/dev/urandom",
      ...(networks.length > 0 ? ["/dev/net/tun"] : []),
    ],
  };
}

/** @throws MachineRefused */
function checkVersion({ version }: HypervisorProgram): void {
  const major = Number(/^v?(\d+)\./.exec(version)?.[1]);
  if (major >= FIRST_VERSION) return;
  throw new MachineRefused({
    key: "hypervisor.version",
    expected: `cloud-hypervisor ${FIRST_VERSION} or newer`,
    received: JSON.stringify(version),
    mend: "install a newer one, or choose qemu as hypervisor",
  });
}

/** @throws MachineRefused for a path that the VMM would read otherwise, or that is no socket's */
function checkFiles(files: MachineFiles): void {
  for (const [key, path] of Object.entries(files)) {
    const more = key === "control" ? MIGRATION_SUFFIX : "";
    const size = new TextEncoder().encode(path + more).length;
    const mend = "choose another run folder";
    if (size > LONGEST_SOCKET_PATH) {
      const expected = `a path of at most ${LONGEST_SOCKET_PATH - more.length} bytes`;
      throw new MachineRefused({ key: `files.${key}`, expected, received: path, mend });
    }
    // option_parser of cloud-hypervisor divides by them.
    if (!/[,="[\]<>\0]/.test(path)) continue;
    const expected = 'a path without , = " [ ] < >';
    throw new MachineRefused({ key: `files.${key}`, expected, received: path, mend });
  }
}

async function connect(
  files: MachineFiles,
  { loop, machine, onEvent, onLost, signal }: ConnectOptions,
  options: CloudHypervisorOptions,
): Promise<VmmConnection> {
  const limits = { ...cloudHypervisorLimits, ...options.limits };
  const config = vmConfigOf(machine, files, { landlock: options.landlock });
  const stop = new AbortController();
  // It calls the connecting off, and nothing of what comes after that.
  const callOff = () => stop.abort(signal.reason);
  signal.addEventListener("abort", callOff);
  if (signal.aborted) callOff();
  let connection: CloudHypervisorConnection | undefined;
  const tell = (event: MonitorEvent) => {
    const meaning = meaningOf(event, { isEnding: connection?.isEnding ?? false });
    connection?.migration.hear(event);
    if (meaning === undefined) return;
    if (meaning.kind === "guest-panic") connection?.setPanicked(true);
    if (meaning.kind === "guest-reset") connection?.setPanicked(false);
    onEvent(meaning);
  };
  // First of all: a VMM that starts waits until somebody reads its events.
  const pipe = new EventPipe(loop, files.events, {
    eventBytes: limits.eventBytes,
    handlers: {
      onEvent: tell,
      onGarbage: (reason) => options.onTrouble?.(`events of ${machine.name}: ${reason}`),
      onEnd: () => {
        if (connection === undefined) stop.abort();
        else if (!connection.isEnding) onLost("the VMM closed its pipe of events: it has ended");
      },
    },
  });
  try {
    const limit = limits.connectTime;
    const connected = await connectWithin(loop, files.control, { limit, signal: stop.signal });
    if (connected.kind === "failed") {
      throw new VmmUnreachable(`${files.control} does not listen: ${connected.reason}`);
    }
    connected.socket.close();
    // It was stopped on its way to another host, and is this host's after all.
    continueStopped(() => listenerProcess(files.control), files.control + STOPPED_SUFFIX);
    const api = new CloudHypervisorApi(files.control, limits, stop.signal);
    const { version: said } = await api.get("vmm.ping", pingSchema);
    const version = said.replace(/^v/, "");
    const parts = { loop, api, pipe, version, machine, files, config, limits, stop };
    connection = new CloudHypervisorConnection(parts);
    return connection;
  } catch (failure) {
    pipe[Symbol.dispose]();
    throw failure;
  } finally {
    signal.removeEventListener("abort", callOff);
  }
}
