/** A cgroup v2 folder for tests, where the machine has one that can be written. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { type Feature, feature } from "./skips.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";

/** Where cgroup v2 is mounted; undefined when it is nowhere. */
function cgroupMount(): string | undefined {
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  return mounts.map((line) => line.split(" ")).find((fields) => fields[2] === "cgroup2")?.[1];
}

export const writableCgroup: Feature = feature("no writable cgroup v2 with cgroup.kill", () => {
  const mount = cgroupMount();
  if (mount === undefined) return false;
  try {
    const folder = mkdtempSync(join(mount, "hostler-test-"));
    const hasKill = existsSync(join(folder, "cgroup.kill"));
    rmdirSync(folder);
    return hasKill;
  } catch {
    return false;
  }
});

/** A new folder below the mount; at the end it goes with its empty folders. */
export function cgroupFolder(): TemporaryFolder {
  const path = mkdtempSync(join(cgroupMount() ?? "", "hostler-test-"));
  const remove = (folder: string) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) remove(join(folder, entry.name));
    }
    rmdirSync(folder);
  };
  return {
    path,
    file: (name) => {
      const folder = join(path, name);
      mkdirSync(folder, { recursive: true });
      return folder;
    },
    [Symbol.dispose]: () => remove(path),
  };
}
