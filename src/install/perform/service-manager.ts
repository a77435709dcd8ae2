import { statSync } from "node:fs";

/** Bytes that are told of what systemctl said. */
const SAID_LIMIT = 500;

/**
 * Whether systemd runs this host: sd_booted(3). In a chroot for an image it does not, whatever
 * process 1 is.
 */
export function isSystemdBooted(): boolean {
  return statSync("/run/systemd/system", { throwIfNoEntry: false })?.isDirectory() === true;
}

/** Has systemd read its units anew. @returns why not; undefined when it has */
export async function reloadUnits(): Promise<string | undefined> {
  const { code, said } = await systemctl(["daemon-reload"]);
  return code === 0 ? undefined : said || `exit ${code}`;
}

/** Which of these units run. */
export async function activeUnits(names: readonly string[]): Promise<string[]> {
  if (names.length === 0) return [];
  const states = (await systemctl(["is-active", ...names])).output.split("\n");
  return names.filter((_, index) => ["active", "activating"].includes(states[index] ?? ""));
}

/** systemd's release, such as 257; undefined when it does not say. */
export async function systemdRelease(): Promise<number | undefined> {
  const { output } = await systemctl(["--version"]);
  const release = Number(/^systemd (\d+)/.exec(output)?.[1]);
  return release > 0 ? release : undefined;
}

interface Answer {
  readonly code: number;
  readonly output: string;
  readonly said: string;
}

async function systemctl(words: readonly string[]): Promise<Answer> {
  try {
    const child = Bun.spawn(["systemctl", ...words], { stdin: "ignore", stderr: "pipe" });
    const [output, said, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { code, output, said: said.trim().slice(-SAID_LIMIT) };
  } catch (error) {
    return { code: -1, output: "", said: (error as Error).message };
  }
}
