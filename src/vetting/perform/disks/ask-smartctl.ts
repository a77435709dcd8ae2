import {
  decodeSmartctl,
  SMARTCTL_BYTES,
  type SmartctlAnswer,
} from "../../../hardware/disk/smartctl.ts";

/** Asks smartctl of a disk, where there is one. It ends with the signal, or by SIGKILL. */
export async function askSmartctl(
  device: string,
  signal: AbortSignal,
): Promise<SmartctlAnswer | undefined> {
  const program = Bun.which("smartctl", { PATH: process.env["PATH"] ?? "" });
  if (program === null) return undefined;
  const child = Bun.spawn([program, "--json=c", "-x", device], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    env: { LC_ALL: "C" },
    signal,
    killSignal: "SIGKILL",
  });
  const output = await readSome(child.stdout, SMARTCTL_BYTES);
  if (output === undefined) {
    child.kill("SIGKILL");
    await child.exited;
    return { kind: "no-answer", reason: `it prints more than ${SMARTCTL_BYTES} bytes` };
  }
  const status = await child.exited;
  const { signalCode } = child;
  if (signalCode !== null) return { kind: "no-answer", reason: `it died: ${signalCode}` };
  return decodeSmartctl(output, status);
}

/** undefined where it is more than that. */
export async function readSome(
  stream: ReadableStream<Uint8Array>,
  most: number,
): Promise<string | undefined> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > most) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
