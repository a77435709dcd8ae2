/** How fast an image is verified, beside programs that hash as well. */
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "../command.ts";
import type { Step } from "../terminal.ts";
import { shuffle } from "./statistics.ts";
import { millisecondsAfter, type VmBench } from "./vm-bench.ts";

const GIBIBYTE = 1024 ** 3;
const PIECE = 16 * 1024 ** 2;

export interface HashingFindings {
  readonly bytes: number;
  /** GiB/s of each program that is here. */
  readonly rows: readonly { readonly name: string; readonly samples: readonly number[] }[];
}

/** One file, which the kernel has in its memory; whole programs, from start to end. */
export async function measureHashing(bench: VmBench, step: Step): Promise<HashingFindings> {
  const bytes = (bench.quick ? 1 : 4) * (GIBIBYTE / 4);
  const folder = join(bench.files.folder, "hashed");
  mkdirSync(folder);
  const file = join(folder, "disk");
  writeChance(file, bytes);
  const rows = programsFor(bench.files.hostler, { folder, file }).map(({ name, argv }) => ({
    name,
    argv,
    samples: [] as number[],
  }));
  const rounds = bench.quick ? 3 : 7;
  // The first round reads the file once for all.
  for (let round = 0; round <= rounds; round += 1) {
    step.say(`round ${round} of ${rounds}`);
    for (const { argv, samples } of shuffle(rows, bench.chance)) {
      const output = await runCommand([bench.files.floor, "time", ...argv]);
      const seconds = millisecondsAfter("took", output) / 1_000;
      if (round > 0) samples.push(bytes / GIBIBYTE / seconds);
    }
  }
  return { bytes, rows: rows.map(({ name, samples }) => ({ name, samples })) };
}

function programsFor(hostler: string, paths: { readonly folder: string; readonly file: string }) {
  return [
    { name: "hostler vm hash", argv: [hostler, "vm", "hash", paths.folder] },
    { name: "sha256sum", argv: ["sha256sum", paths.file] },
    { name: "openssl dgst -sha256", argv: ["openssl", "dgst", "-sha256", paths.file] },
    { name: "nix hash path", argv: ["nix", "hash", "path", paths.folder] },
  ].filter(({ argv }) => Bun.which(argv[0] ?? "") !== null);
}

/** Bytes that no program can hash faster than others. */
function writeChance(path: string, bytes: number): void {
  const piece = new Uint8Array(PIECE);
  for (let at = 0; at < PIECE; at += 65_536)
    crypto.getRandomValues(piece.subarray(at, at + 65_536));
  const file = openSync(path, "wx");
  try {
    for (let written = 0; written < bytes; written += PIECE) writeSync(file, piece);
  } finally {
    closeSync(file);
  }
}
