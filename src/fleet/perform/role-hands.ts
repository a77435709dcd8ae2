import * as v from "valibot";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { LiveUpdateClient, LiveUpdateError } from "../../live-update/client.ts";
import {
  type ControlClient,
  ControlRefusal,
  connectControl,
  expiry,
} from "../../messaging/control-client.ts";
import type { Milliseconds } from "../../units/units.ts";
import { type Executor, ExecutorRefused } from "../executor.ts";
import { HostRoles, type HostRolesParts } from "../host-roles.ts";
import { folderOf } from "../layout.ts";
import {
  type Asked,
  type FoundRole,
  type HandOverWay,
  type JudgedRole,
  parseUnitState,
  type UnitState,
  unitProperties,
} from "../lifecycle-roles.ts";
import type { Build } from "../protocol.ts";
import { findRoles } from "./find-roles.ts";
import { passAgentStep, passStep } from "./kill-points.ts";
import { programOf } from "./layout-files.ts";
import { RoleBook } from "./role-book.ts";
import { runCommand } from "./run-command.ts";
import { SuperviseExecutor } from "./supervise-executor.ts";
import { isSystemdBooted } from "./systemd.ts";

/** Longest time of systemctl to take an order, or to tell. */
const SYSTEMCTL_TIME: Milliseconds = 20_000;
/** Longest time of an orchestrator to be another program: src/process allows itself 15 s. */
const REEXECUTE_TIME: Milliseconds = 30_000;

/** What is said of an attempt; when it was is the caller's to know. */
export type AskedNow =
  | Exclude<Asked, { kind: "refused" }>
  | { readonly kind: "refused"; readonly reason: string };

/** The roles of this host, looked at from now on. */
export function hostRoles(
  loop: Pick<EventLoop, "wakeAfter">,
  {
    self,
    folder,
    executor,
    onTrouble,
  }: Pick<HostRolesParts, "self" | "folder" | "onTrouble"> & { readonly executor: Executor },
): HostRoles {
  const supervisor = executor instanceof SuperviseExecutor ? executor : undefined;
  const socket = supervisor?.socket ?? null;
  const book = new RoleBook(folder, onTrouble);
  return new HostRoles({
    ...{ self, folder, askUnit, onTrouble },
    supervisor: socket,
    look: () => lookAtRoles(folder, socket),
    handOver: async (role, way, build) => {
      passStep("role-noted");
      const program = programOf(folder, folderOf(build));
      const asked = await handOverRole(role, way, { build, program, supervisor });
      passStep("role-asked");
      return asked;
    },
    readBook: () => book.read(),
    writeBook: (roles) => book.write(roles),
    now: monotonicNow,
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
  });
}

/**
 * All roles that run here. Those of this installation, and the supervisor of its agent, are asked
 * whether they answer; a copy of somebody's is that one's to look after.
 * @param supervisor its control socket
 */
export async function lookAtRoles(folder: string, supervisor: string | null): Promise<FoundRole[]> {
  return await Promise.all(
    findRoles(folder).map(async (one) => {
      const isOurs = one.build !== null || (supervisor !== null && one.socket === supervisor);
      const silence = isOurs ? (one.silence ?? (await silenceOf(one.socket))) : null;
      return { ...one, silence };
    }),
  );
}

/** Every control socket of ours answers to "ping", whatever version serves it. */
async function silenceOf(socket: string | null): Promise<string | null> {
  if (socket === null) return null;
  let client: ControlClient | undefined;
  try {
    client = await connectControl(socket);
    await client.request("ping");
    return null;
  } catch (error) {
    return (error as Error).message;
  } finally {
    client?.close();
  }
}

/** undefined where there is no systemd, or it does not say. */
export async function askUnit(unit: string): Promise<UnitState | undefined> {
  if (!isSystemdBooted()) return undefined;
  const argv = ["systemctl", "show", `--property=${unitProperties}`, "--", unit];
  const { code, output } = await runCommand(argv, SYSTEMCTL_TIME);
  return code === 0 ? parseUnitState(output) : undefined;
}

/** Has a role go on from the file of a version, which `current` leads to. */
export async function handOverRole(
  role: JudgedRole,
  way: HandOverWay,
  to: {
    readonly build: Build;
    /** The version's own file. */
    readonly program: string;
    readonly supervisor: SuperviseExecutor | undefined;
  },
): Promise<AskedNow> {
  switch (way) {
    case "restart-when-idle":
      return (await whyBusy(role)) ?? (await restart(role));
    case "restart":
      return await restart(role);
    case "reexecute":
      return await reexecute(role, to);
    case "renew":
      return await renew(role, to.supervisor);
  }
}

/** It is only told: what becomes of it is looked at. */
async function restart({ unit, process }: JudgedRole): Promise<AskedNow> {
  const argv = ["systemctl", "--no-block", "restart", "--", unit ?? ""];
  const { code, said } = await runCommand(argv, SYSTEMCTL_TIME);
  if (code === 0) return { kind: "asked", process };
  const word = said === "" ? "no word" : said;
  return { kind: "refused", reason: `systemctl restart ${unit}: exit ${code}, ${word}` };
}

/** An update of the kernel that is under way is not disturbed. One that is gone is not asked. */
async function whyBusy({ process, socket }: JudgedRole): Promise<AskedNow | undefined> {
  if (process === null || socket === null) return undefined;
  try {
    using client = await LiveUpdateClient.connect(socket);
    const { phase } = await client.status();
    if (phase === "idle" || phase === "loaded") return undefined;
    const reason = `it is ${phase}: it is started again when all its clients have finished`;
    return { kind: "waits", reason };
  } catch (error) {
    if (!(error instanceof LiveUpdateError)) throw error;
    return { kind: "waits", reason: `it does not say whether it is idle: ${error.message}` };
  }
}

const answerSchema = v.looseObject({ digest: v.string() });

/** src/process: "reexecute", whose answer comes from the new program. */
async function reexecute(
  { socket, unit, process }: JudgedRole,
  { build, program }: { readonly build: Build; readonly program: string },
): Promise<AskedNow> {
  if (socket === null) throw new Error("An orchestrator has a control socket");
  let client: ControlClient | undefined;
  try {
    client = await connectControl(socket);
    const { digest } = build;
    const order = client.request("reexecute", { program, digest });
    const answer = await Promise.race([order, expiry(REEXECUTE_TIME)]);
    if (v.is(answerSchema, answer)) return { kind: "asked", process };
    return { kind: "refused", reason: `${socket}: no answer that is understood to reexecute` };
  } catch (error) {
    const { message } = error as Error;
    if (error instanceof ControlRefusal && error.error.kind === "request") {
      const again = unit === null ? "start it again by hand" : `systemctl restart ${unit}`;
      const reason = `its version cannot go on as another file: ${again}, which stops what it runs`;
      return { kind: "unsupported", reason };
    }
    return { kind: "refused", reason: message };
  } finally {
    client?.close();
  }
}

async function renew(
  { process }: JudgedRole,
  supervisor: SuperviseExecutor | undefined,
): Promise<AskedNow> {
  if (supervisor === undefined) throw new Error("This agent has no supervisor");
  passAgentStep("renew");
  try {
    await supervisor.renewSupervisor();
    return { kind: "asked", process };
  } catch (error) {
    if (!(error instanceof ExecutorRefused)) throw error;
    return { kind: "refused", reason: error.message };
  }
}
