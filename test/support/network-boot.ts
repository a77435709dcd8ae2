/** `programs/network-boot.ts` on the bridge of a host, with files of the test's own. */
import { writeFileSync } from "node:fs";
import { SeededChance } from "./chance.ts";
import { type Program, runProgram } from "./program.ts";
import type { NetworkBootOptions } from "./programs/network-boot.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";
import { bridge, hostAddress, type Place, startInPlace } from "./vm-network.ts";

export const base = `http://${hostAddress}:8067`;

export interface BootCounters {
  readonly dhcp: Record<string, number> & { readonly unanswered: Record<string, number> };
  readonly tftp: Record<string, number> & { readonly endings: Record<string, number> };
  readonly http: Record<string, number>;
  readonly scripts: Record<string, number>;
}

export interface NetworkBoot extends AsyncDisposable {
  readonly program: Program;
  counters(): Promise<BootCounters>;
}

export async function startNetworkBoot(
  place: Place,
  options: Partial<NetworkBootOptions> & Pick<NetworkBootOptions, "bootFolder">,
): Promise<NetworkBoot> {
  const all: NetworkBootOptions = {
    interface: bridge,
    // Not the machine's own: what is served is what the test made.
    ipxeFolder: options.bootFolder,
    decisions: {},
    ...options,
  };
  const program = startInPlace(place, "network-boot.ts", all);
  await program.said(/^(serving|refused .*)/m);
  const counters = async () => {
    const before = [...program.output.stdout.matchAll(/^counters .*$/gm)].length;
    program.kill("SIGUSR2");
    const [, text = ""] = await program.said(
      new RegExp(`(?:^counters .*$[^]*?){${before}}^counters (.*)$`, "m"),
    );
    return JSON.parse(text) as BootCounters;
  };
  return { program, counters, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() };
}

/** A program of UEFI as far as anybody looks at it who does not run it. */
export function efiProgram(machine: number, size: number): Uint8Array {
  const bytes = someBytes(size, machine);
  bytes.set([0x4d, 0x5a]);
  const view = new DataView(bytes.buffer);
  view.setUint32(60, 128, true);
  view.setUint32(128, 0x5045_0000, false);
  view.setUint16(132, machine, true);
  return bytes;
}

export function someBytes(size: number, seed: number): Uint8Array<ArrayBuffer> {
  const chance = new SeededChance(seed);
  return Uint8Array.from({ length: size }, () => chance.below(256));
}

export const X64 = 0x8664;

/** A folder with all that has to be there; sizes are those that TFTP ends differently with. */
export function bootFolder(
  folder: TemporaryFolder,
  change: Readonly<Record<string, Uint8Array | undefined>> = {},
): { readonly path: string; readonly files: ReadonlyMap<string, Uint8Array> } {
  const all: Readonly<Record<string, Uint8Array | undefined>> = {
    vmlinuz: someBytes(300_000, 1),
    initramfs: someBytes(1_000_003, 2),
    // Whole blocks of 512 and of 1,024 bytes.
    "undionly.kpxe": someBytes(64 * 1_024, 3),
    "snponly.efi": efiProgram(X64, 173_792),
    ...change,
  };
  const files = new Map<string, Uint8Array>();
  for (const [name, bytes] of Object.entries(all)) {
    if (bytes === undefined) continue;
    writeFileSync(folder.file(name), bytes);
    files.set(name, bytes);
  }
  return { path: folder.path, files };
}

/** @returns what curl was answered: the status, and all that came after the head */
export async function curl(
  place: Place,
  url: string,
  words: readonly string[] = [],
): Promise<{ readonly status: number; readonly text: string; readonly head: string }> {
  const format = ["-w", "\n%{http_code}"];
  const argv = [...place.enter, "curl", "-s", "-i", "-m", "20", ...format, ...words, url];
  const { stdout } = await runProgram(argv);
  const end = stdout.lastIndexOf("\n");
  const all = stdout.slice(0, end);
  const body = all.indexOf("\r\n\r\n");
  return {
    status: Number(stdout.slice(end + 1)),
    head: all.slice(0, body),
    text: all.slice(body + 4),
  };
}
