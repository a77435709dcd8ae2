import { createHash } from "node:crypto";
import { join } from "node:path";

/** The units of images/systemd name these. */
const PROGRAM = "/usr/bin/hostler";
const LUOD = "/usr/sbin/luod";

const seal = /^# SHA-256 of all that follows: ([0-9a-f]{64})\n/m;

/**
 * A unit as it is written: with the installed paths, and with the digest of its own text, by which
 * it is known later whether somebody has changed it, whatever version wrote it.
 */
export function renderUnit(name: string, text: string, prefix: string): string {
  const body = text
    .replaceAll(PROGRAM, join(prefix, "bin/hostler"))
    .replaceAll(LUOD, join(prefix, "sbin/luod"));
  return (
    "# hostler install wrote this, and replaces it as long as nobody changes it. Changes have\n" +
    `# their place in drop-ins: systemctl edit ${name}\n` +
    `# SHA-256 of all that follows: ${digest(body)}\n${body}`
  );
}

/** Whether install wrote this, in whatever version, and nobody has changed it since. */
export function isUntouched(text: string): boolean {
  const found = seal.exec(text);
  if (found === null) return false;
  return digest(text.slice(found.index + found[0].length)) === found[1];
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
