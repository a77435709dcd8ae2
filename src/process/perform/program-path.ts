import { accessSync, constants, statSync } from "node:fs";

/** Where programs are looked for when the child's environment has no PATH. */
export const defaultSearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * The file that a program's name means, as execvp(3) finds it with the child's own PATH. A name
 * with a slash is taken as it is. A name that is found nowhere is returned as it is: starting it
 * then fails with the kernel's own ENOENT.
 */
export function resolveProgram(name: string, environment: readonly string[]): string {
  if (name.includes("/") || name === "") return name;
  const variable = environment.find((entry) => entry.startsWith("PATH="));
  const folders = (variable?.slice("PATH=".length) || defaultSearchPath).split(":");
  let forbidden: string | undefined;
  for (const folder of folders) {
    const path = `${folder === "" ? "." : folder}/${name}`;
    try {
      if (!statSync(path).isFile()) continue;
      accessSync(path, constants.X_OK);
      return path;
    } catch (error) {
      const code = (error as { code?: string }).code;
      if (code === "EACCES") forbidden ??= path;
    }
  }
  // A bare name would be looked for in the working directory, which PATH does not name.
  return forbidden ?? `${folders[0] || "."}/${name}`;
}
