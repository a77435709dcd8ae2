/** As many devices as there may be, with one operator, in a network of their own. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { HEARTBEAT_EVERY } from "../../src/fleet/protocol.ts";
import type { Milliseconds } from "../../src/units/units.ts";
import { bunExecutable, tryCommand } from "../command.ts";
import { cacheFolder, repositoryRoot } from "../setup.ts";
import { ScriptError, type Step } from "../terminal.ts";
import type { CrowdFindings } from "./fleet-crowd-stage.ts";

export type { CrowdFindings, Passage } from "./fleet-crowd-stage.ts";

/** What is wanted. */
export const wantedDevices = 10_000;
/** The operator's front holds three descriptors for each connection: src/http/README.md. */
const DESCRIPTORS_EACH = 3;
/** Of the room for them: connections come and go while all are held. */
const HELD = 0.85;

export interface CrowdPlan {
  /** The compiled file. */
  readonly hostler: string;
  /** The program of a NATS server that the operators keep the fleet in; embedded without it. */
  readonly nats?: string;
  readonly devices: number;
  /** Seconds in which nothing happens but heartbeats. */
  readonly seconds: number;
  /** Of a device that is upgraded; the usual one without it. */
  readonly heartbeat?: Milliseconds;
}

/** Files that a process may hold open at most: proc_pid_limits(5). */
export function descriptorLimit(): number {
  const line = /^Max open files +\d+ +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
  return line === null ? Number.POSITIVE_INFINITY : Number(line[1]);
}

/** Whatever is wanted, or as many as one process may hold here. */
export function possibleDevices(wanted: number): number {
  return Math.min(wanted, Math.floor((HELD * descriptorLimit()) / DESCRIPTORS_EACH));
}

/** @throws ScriptError with what the stage said */
export async function measureCrowd(plan: CrowdPlan, step: Step): Promise<CrowdFindings> {
  const { hostler, nats = "", devices, seconds, heartbeat = HEARTBEAT_EVERY } = plan;
  // Where the repository is: /tmp may be memory, and fsync(2) nothing then.
  const folder = mkdtempSync(join(cacheFolder("bench"), "fleet-"));
  const stage = join(repositoryRoot, "scripts", "bench", "fleet-crowd-stage.ts");
  const processes = Math.max(1, navigator.hardwareConcurrency);
  const numbers = [devices, processes, seconds, heartbeat].map(String);
  try {
    step.say(`${devices} devices`);
    const words = ["unshare", "--net", bunExecutable, stage, folder, hostler, nats, ...numbers];
    const { exitCode, output } = await tryCommand(words);
    const last = output.trimEnd().split("\n").at(-1) ?? "";
    if (exitCode === 0) return JSON.parse(last) as CrowdFindings;
    throw new ScriptError(`The stage of ${devices} devices said: ${output}`, { exitCode: 1 });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
