import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** Users that are named at most. */
const MOST_NAMED = 5;

function hasOpen(processId: string, device: string): boolean {
  try {
    const folder = `/proc/${processId}/fd`;
    return readdirSync(folder).some((number) => readlinkSync(`${folder}/${number}`) === device);
  } catch {
    // It ended meanwhile, or is not ours to look at.
    return false;
  }
}

function nameOf(processId: string): string {
  try {
    return `${readFileSync(`/proc/${processId}/comm`, "utf8").trim()} (process ${processId})`;
  } catch {
    return `process ${processId}`;
  }
}

/** Who has a device open, such as "systemd (process 1)", as far as /proc shows it to us. */
export function usersOf(device: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && hasOpen(name, device))
    .slice(0, MOST_NAMED)
    .map(nameOf);
}
