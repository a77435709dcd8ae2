import type * as v from "valibot";
import { IpmiDevice } from "../../../../ffi/ipmi.ts";
import { SystemCallError } from "../../../../ffi/system-call-error.ts";
import { getDeviceId, type IpmiPort, IpmiRefused } from "../../../hardware/ipmi.ts";
import {
  isRedundancy,
  type PowerSensors,
  parseIpmitool,
  readPowerSensors,
} from "../../../hardware/power-sensors.ts";
import { milliseconds } from "../../../units/units.ts";
import {
  PSU_TASK,
  type PsuReport,
  psuInputSchema,
  psuLimits,
  psuReportSchema,
} from "../../tasks/psu.ts";
import { findTool, runTool } from "../run-tool.ts";
import { defineTask, type TaskContext } from "../task.ts";

/** Milliseconds that a service processor has for one answer; the driver tries again by itself. */
const ANSWER_WAIT = 10_000;
const TOOL_LIMIT = milliseconds(45_000);

/**
 * What the service processor says of the power supplies: by ipmitool where that is, which reaches
 * sensors of satellite controllers as well, and else, or where it fails, by the kernel's driver.
 */
export const psuTask = defineTask({
  name: PSU_TASK,
  input: psuInputSchema,
  report: psuReportSchema,
  run: (input, context) => askSupplies(input, findTool("ipmitool"), context),
});

export async function askSupplies(
  { device, engine }: v.InferOutput<typeof psuInputSchema>,
  tool: string | null,
  { signal, tell }: Pick<TaskContext, "signal" | "tell">,
): Promise<PsuReport> {
  if (engine === "own") return askDriver(device);
  const byTool =
    tool === null ? { refusal: "ipmitool is not installed" } : await askTool(tool, signal);
  if ("engine" in byTool) return byTool;
  if (engine === "tool") return refusedWith(byTool.refusal);
  if (tool !== null) {
    const text = `${byTool.refusal}; asking the driver`.slice(0, 512);
    tell({ kind: "log", level: "warn", text });
  }
  return askDriver(device);
}

const refusedWith = (refusal: string): PsuReport => {
  return { engine: null, refusal: refusal.slice(0, 256), sensors: [], unread: [] };
};

/** Redundancy stands among the sensors of power units, of which nothing else is asked. */
export async function askTool(
  tool: string,
  signal: AbortSignal,
): Promise<PsuReport | { readonly refusal: string }> {
  const ask = (...words: string[]) => runTool([tool, ...words], { limit: TOOL_LIMIT, signal });
  const answer = await ask("-v", "sdr", "type", "Power Supply");
  if (answer.kind === "failed") return { refusal: answer.reason };
  const supplies = parseIpmitool(answer.output);
  // It ends with 1 when a single sensor could not be read, and has told the others.
  if (answer.code !== 0 && supplies.sensors.length === 0) {
    return { refusal: `ipmitool ended with ${answer.code}: ${answer.said}` };
  }
  const more = await ask("-v", "sdr", "type", "Power Unit");
  const units = parseIpmitool(more.kind === "ended" ? more.output : "").sensors;
  const redundancy = units.filter(({ states }) => states.some(isRedundancy));
  const version = await ask("-V");
  const number = version.kind === "ended" ? /version (\S+)/.exec(version.output)?.[1] : undefined;
  return reportOf(
    { name: "ipmitool", version: number ?? null },
    { sensors: [...supplies.sensors, ...redundancy], unread: supplies.unread },
  );
}

export function askDriver(path: string): PsuReport {
  try {
    using device = new IpmiDevice(path);
    const port: IpmiPort = { ask: (command) => device.ask(command, ANSWER_WAIT) };
    return reportOf({ name: "hostler", version: null }, readPowerSensors(port, getDeviceId(port)));
  } catch (error) {
    if (!(error instanceof SystemCallError || error instanceof IpmiRefused)) throw error;
    return refusedWith(error.message);
  }
}

function reportOf(engine: NonNullable<PsuReport["engine"]>, found: PowerSensors): PsuReport {
  const short = (text: string) => text.slice(0, 256);
  return {
    engine,
    refusal: null,
    sensors: found.sensors
      .slice(0, psuLimits.sensors)
      .map(({ name, entity, states }) => ({ name: short(name), entity, states: [...states] })),
    unread: found.unread
      .slice(0, psuLimits.sensors)
      .map(({ name, reason }) => ({ name: short(name), reason: short(reason) })),
  };
}
