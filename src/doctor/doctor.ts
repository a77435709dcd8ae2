import { printJson, printText } from "../command-line/output.ts";
import { renderTable } from "../command-line/table.ts";
import type { ExaminedPlaces } from "../fleet/perform/examination.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { WorkerConfiguration } from "../vm/worker-configuration.ts";
import { judgeFleet } from "./fleet-judgement.ts";
import { type Advice, isFit, judge, type Subject } from "./judgement.ts";
import { judgeLiveUpdate } from "./live-update-judgement.ts";
import { probeLiveUpdate } from "./live-update-probes.ts";
import { probeHost } from "./probes.ts";
import type { VettingPlace } from "./vetting-findings.ts";
import { judgeLiveImage, judgeOrchestrator } from "./vetting-judgement.ts";
import { probeLiveImage, probeOrchestrator } from "./vetting-probes.ts";
import { judgeVm } from "./vm-judgement.ts";
import { probeVm } from "./vm-probes.ts";

/**
 * Examines this host and says what it found.
 * @returns the exit code: refused when something is missing that was asked for
 */
export async function examine(options: {
  readonly subjects: readonly Subject[];
  /** Of a worker for virtual machines. */
  readonly configuration: WorkerConfiguration;
  /** Of a device of a fleet. */
  readonly places: ExaminedPlaces;
  /** Of an orchestrator of vetting. */
  readonly place: VettingPlace;
  readonly json: boolean;
}): Promise<ExitCode> {
  const advice = await diagnose(options);
  if (options.json) await printJson(advice);
  else await printText(renderAdvice(advice, options.subjects));
  return isFit(advice) ? ExitCode.done : ExitCode.refused;
}

async function diagnose({
  subjects,
  configuration,
  places,
  place,
}: Omit<Parameters<typeof examine>[0], "json">): Promise<Advice[]> {
  return [
    ...(subjects.includes("process") ? judge(await probeHost(), subjects) : []),
    ...(subjects.includes("live-update") ? judgeLiveUpdate(probeLiveUpdate()) : []),
    ...(subjects.includes("vm") ? judgeVm(await probeVm(configuration)) : []),
    ...(subjects.includes("fleet") ? await diagnoseFleet(places) : []),
    ...(subjects.includes("vetting") ? judgeOrchestrator(await probeOrchestrator(place)) : []),
    ...(subjects.includes("vetting-agent") ? judgeLiveImage(probeLiveImage()) : []),
  ];
}

/** It is imported here and not above: where memory may not be executable, ffi/ throws. */
async function diagnoseFleet(places: ExaminedPlaces): Promise<Advice[]> {
  const { examineFleet } = await import("../fleet/perform/examination.ts");
  return judgeFleet(await examineFleet(places));
}

/** A table, then what to change, then the sum of it. */
export function renderAdvice(advice: readonly Advice[], subjects: readonly Subject[]): string {
  const rows = advice.map((line) => [line.check, line.status, line.found, line.needed_by]);
  const mends = advice
    .filter((line) => line.mend !== null)
    .map((line) => `${line.check}: ${line.mend}\n`);
  const missing = advice.filter((line) => line.status === "missing").length;
  const warnings = advice.filter((line) => line.status === "warning").length;
  const verdict = isFit(advice) ? "can do" : `lacks ${missing} of what it needs for`;
  const sum = `This host ${verdict} what was asked for: ${subjects.join(", ")}.`;
  return [
    renderTable(["check", "status", "found", "needed by"], rows),
    mends.length === 0 ? "" : `\nTo mend:\n${mends.join("")}`,
    `\n${sum} Warnings: ${warnings}.\n`,
  ].join("");
}
