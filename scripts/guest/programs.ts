/** What comes along with a program of this machine that goes into a guest. */
import { spawnSync } from "node:child_process";

/** What ldd(1) names; nothing for a file that is linked with nothing. */
export function librariesOf(path: string): string[] {
  const { stdout } = spawnSync("ldd", [path], { encoding: "utf8" });
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, library = ""]) => library);
}

/** Links for all that busybox can do. @param folder in the guest, where busybox itself is */
export function busyboxLinks(folder: string): Record<string, string> {
  const { stdout } = spawnSync("/bin/busybox", ["--list"], { encoding: "utf8" });
  const applets = stdout.trim().split("\n");
  const names = applets.filter((name) => name !== "busybox" && name !== "init");
  return Object.fromEntries(names.map((name) => [`${folder}/${name}`, "busybox"]));
}
