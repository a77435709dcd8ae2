/**
 * Looks at this host as one for virtual machines. No machine is started, and nothing of its
 * network is changed: a device is opened and closed, and the kernel is asked what there is.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  realpathSync,
  statfsSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { cgroupPathOf } from "../event-loop/own-cgroup.ts";
import { observeHypervisors } from "../hypervisor/observe.ts";
import { hasOpen, readHolder } from "../journal/lock-holder.ts";
import { placeOf } from "../vm/cgroup-place.ts";
import { debianFirmware, type WorkerConfiguration } from "../vm/worker-configuration.ts";
import { codeOf, probeCgroup, probeOwnStatus, readText } from "./probes.ts";
import type {
  FolderFindings,
  NetworkFindings,
  Opening,
  VmFindings,
  WorkerPlace,
} from "./vm-findings.ts";

/** What is absent, or not ours to use, is a finding and no error. */
export async function probeVm(configuration: WorkerConfiguration): Promise<VmFindings> {
  const firmware = configuration.firmware ?? debianFirmware;
  const cgroup = probeCgroup();
  return {
    configuration,
    ownStatus: probeOwnStatus(),
    hypervisors: await observeHypervisors({ programs: configuration.programs }),
    // Without a name nothing is made: the kernel makes a link by TUNSETIFF alone.
    tun: tryOpening("/dev/net/tun", constants.O_RDWR),
    vsock: tryOpening("/dev/vhost-vsock", constants.O_RDWR),
    network: await probeNetwork(configuration),
    cgroup,
    worker: probeWorker(configuration, cgroup.mount),
    artifacts: probeFolder(configuration.artifactsFolder),
    run: probeFolder(configuration.runFolder),
    firmware: { path: firmware, opening: tryOpening(firmware, constants.O_RDONLY) },
  };
}

export function tryOpening(path: string, flags: number): Opening {
  try {
    closeSync(openSync(path, flags | constants.O_NONBLOCK));
    return { outcome: "opened" };
  } catch (error) {
    return { outcome: "refused", code: codeOf(error) };
  }
}

/** It is imported here and not above: where memory may not be executable, ffi/ throws. */
async function probeNetwork(configuration: WorkerConfiguration): Promise<NetworkFindings> {
  const { networkBridge, networks, artifactsFolder: folder } = configuration;
  const bridges = [networkBridge, ...networks.map(({ specification: { bridge } }) => bridge)];
  try {
    const { observeNetwork } = await import("../network/kernel-network.ts");
    const { otherBridgeUser } = await import("../network/bridge-lock.ts");
    const observed = observeNetwork();
    const users = bridges.flatMap((bridge): [string, string][] => {
      const user = otherBridgeUser(bridge, { folder, observed });
      return user === undefined ? [] : [[bridge, user.folder]];
    });
    return { outcome: "observed", observed, otherUsers: new Map(users) };
  } catch (error) {
    return { outcome: "refused", reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Whom the artifacts folder's lock names, and who still has it open. */
function probeWorker(
  { artifactsFolder, cgroup: configured }: WorkerConfiguration,
  mount: string | undefined,
): WorkerPlace | undefined {
  const lock = canonical(join(artifactsFolder, "lock"));
  const processId = lock === undefined ? undefined : readHolder(lock);
  if (lock === undefined || processId === undefined || !hasOpen(processId, lock)) return undefined;
  const own = cgroupPathOf(processId);
  const place = placeOf(configured, { mount, own });
  if (place.kind === "off") return { processId, place, controllers: [] };
  const offered = readText(join(place.base, "cgroup.controllers"));
  return { processId, place, controllers: offered ? offered.split(" ") : [] };
}

/** undefined for what is not there. */
function canonical(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** The nearest folder that is there decides: the others are made in it. */
export function probeFolder(path: string): FolderFindings {
  let found = path;
  while (!existsSync(found) && found !== "/") found = dirname(found);
  return { path, found, refusal: refusalOf(found), freeBytes: freeBytesOf(found) };
}

function refusalOf(folder: string): string | undefined {
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    return codeOf(error);
  }
}

/** What is kept for root alone is left out, as df(1) does. */
function freeBytesOf(folder: string): number | undefined {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    return undefined;
  }
}
