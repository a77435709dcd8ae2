import { createHash, randomBytes } from "node:crypto";
import { readFileSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import {
  allProcesses,
  descriptorInformation,
  hasNoEnvironmentYet,
  isLivingProcess,
} from "./process-table.ts";

/** Says of a process whose it is: the value is `PLACE/RUN/LOCK/NAME`. */
export const OWNER_VARIABLE = "HOSTLER_ORCHESTRATOR";

/** What every process of an orchestrator carries, so that it is found without the crash journal. */
export interface OwnerMark {
  /** The same for every orchestrator with this control socket, on this root and file system. */
  readonly place: string;
  /** New for each orchestrator. */
  readonly run: string;
  /** The lock as /proc/locks names it: "00:1b:5678"; empty where the kernel does not say. */
  readonly lock: string;
}

/** A living process that an orchestrator of the same place started, and no living one holds. */
export interface LeftProcess {
  readonly processId: number;
  readonly invocation: string;
  readonly name: string;
}

/** @param lock the descriptor that holds the lock beside the control socket */
export function ownerMark(controlSocket: string, lock: OwnedDescriptor): OwnerMark {
  const folder = realpathSync(dirname(controlSocket));
  const root = statSync("/", { bigint: true });
  const whereabouts = [
    join(folder, basename(controlSocket)),
    // The same path in a container is another place, and its processes are none of ours.
    statSync(folder, { bigint: true }).dev,
    root.dev,
    root.ino,
  ];
  const hash = createHash("sha256").update(whereabouts.join("\0")).digest("hex");
  const held = /\s([0-9a-f]+:[0-9a-f]+:\d+)\s/.exec(
    descriptorInformation(lock.number).get("lock") ?? "",
  );
  return { place: hash.slice(0, 32), run: randomBytes(4).toString("hex"), lock: held?.[1] ?? "" };
}

export function ownerVariable({ place, run, lock }: OwnerMark, name: string): string {
  return `${OWNER_VARIABLE}=${place}/${run}/${lock}/${name}`;
}

/** Finds what earlier orchestrators of this place left, by its environment alone. */
export function findLeft(mark: OwnerMark): {
  readonly left: readonly LeftProcess[];
  /** Somebody had no environment to look at, as one in the middle of its exec. */
  readonly isSure: boolean;
} {
  const left: LeftProcess[] = [];
  let isSure = true;
  let locks: string | undefined;
  for (const processId of allProcesses()) {
    const environment = environmentOf(processId);
    if (environment === undefined) continue;
    if (environment === "" && hasNoEnvironmentYet(processId)) isSure = false;
    const found = parseOwner(environment, mark.place);
    if (found === undefined || found.run === mark.run || !isLivingProcess(processId)) continue;
    if (found.lock !== "" && found.lock !== mark.lock) {
      // Two private folders may have the same path: the other's lock is held while it lives.
      locks ??= readFileSync("/proc/locks", "latin1");
      if (locks.includes(` ${found.lock} `)) continue;
    }
    left.push({ processId, invocation: found.invocation, name: found.name });
  }
  return { left, isSure };
}

function environmentOf(processId: number): string | undefined {
  try {
    return readFileSync(`/proc/${processId}/environ`, "latin1");
  } catch {
    return undefined;
  }
}

function parseOwner(environment: string, place: string) {
  const own = `${OWNER_VARIABLE}=${place}/`;
  if (!environment.includes(own)) return undefined;
  const variables = environment.split("\0");
  const value = variables.find((variable) => variable.startsWith(own))?.slice(own.length);
  const invocation = /^INVOCATION_ID=([0-9a-f]{32})$/;
  const id = variables.map((variable) => invocation.exec(variable)?.[1]).find(Boolean);
  const [run, lock, name] = value?.split("/") ?? [];
  if (run === undefined || lock === undefined || !name || id === undefined) return undefined;
  return { run, lock, name, invocation: id };
}
