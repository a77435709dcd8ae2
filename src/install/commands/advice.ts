import { changes, type InstallReport, SURVIVAL_RELEASE, unitNames } from "../install.ts";
import type { InstallOptions } from "../items.ts";

/** Where systemd looks for units by their names alone: systemd.unit(5). */
const searched = /^(\/etc|\/run|(\/usr)?(\/local)?\/lib)\/systemd\/system$/;

/** What the operator does next: install starts, enables and restarts nothing by itself. */
export function adviceOf(options: InstallOptions, report: InstallReport): string[] {
  const units = unitNames(report.steps.map(({ item }) => item));
  if (units.length === 0 || options.remove) return [];
  return [
    ...adviseConfiguration(units),
    ...adviseStart(options, report, units),
    ...adviseRestart(report),
    ...adviseSurvival(report, units),
  ];
}

function adviseConfiguration(units: readonly string[]): string[] {
  if (!units.includes("hostler-process-orchestrator.service")) return [];
  return ["The orchestrator keeps running what /etc/hostler/process.toml says."];
}

function adviseStart(
  options: InstallOptions,
  { active, isBooted, steps }: InstallReport,
  units: readonly string[],
): string[] {
  const names = units
    .filter((name) => !active.includes(name))
    .map((name) => {
      if (!searched.test(options.unitDirectory)) return `${options.unitDirectory}/${name}`;
      return name.replace(/\.service$/, "");
    });
  if (names.length === 0) return [];
  if (options.root !== "/") {
    return [
      `To have it started in the image: systemctl --root=${options.root} enable ${names.join(" ")}`,
    ];
  }
  const note = isBooted ? [] : ["systemd does not run here; where it does:"];
  const [before] = steps.some(({ action }) => action === "leave")
    ? ["To start it with the unit as it is"]
    : ["To start it now and at every boot"];
  return [...note, `${before}: systemctl enable --now ${names.join(" ")}`];
}

function adviseRestart({ active, steps }: InstallReport): string[] {
  if (active.length === 0 || !steps.some(({ action }) => changes(action))) return [];
  return [`What runs goes on as it was, until: systemctl restart ${active.join(" ")}`];
}

function adviseSurvival({ systemd }: InstallReport, units: readonly string[]): string[] {
  if (systemd === undefined || systemd >= SURVIVAL_RELEASE || !units.includes("luod.service")) {
    return [];
  }
  return [
    `systemd ${systemd} does not know SurviveFinalKillSignal=, as ${SURVIVAL_RELEASE} does: it ` +
      "would end luod and its holder on the way to a kexec. Enter kernels by " +
      "luoctl kexec --by reboot.",
  ];
}
