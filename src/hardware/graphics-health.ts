import type { HostTree } from "./host-tree.ts";
import { PCI_FOLDER } from "./pci-devices.ts";

/** What amdgpu says of errors of a card's memory: Documentation/gpu/amdgpu/ras.rst. */
export interface RasCounts {
  readonly corrected: number;
  readonly uncorrected: number;
  /** Pages of its memory that are taken out of use, and such as will be at the next start. */
  readonly retired: number;
  readonly pending: number;
}

/** null: the driver has none of it, or the card cannot. */
export function readRas(tree: HostTree, pci: string): RasCounts | null {
  const at = `${PCI_FOLDER}/${pci}/ras`;
  const files = tree.names(at).filter((name) => name.endsWith("_err_count"));
  if (files.length === 0) return null;
  let corrected = 0;
  let uncorrected = 0;
  for (const file of files) {
    const counts = parseRasCounts(tree.text(`${at}/${file}`).value ?? "");
    corrected += counts.corrected;
    uncorrected += counts.uncorrected;
  }
  const pages = parseBadPages(tree.text(`${at}/gpu_vram_bad_pages`).value ?? "");
  return { corrected, uncorrected, ...pages };
}

/** "ue: 0", "ce: 12". */
export function parseRasCounts(text: string): { corrected: number; uncorrected: number } {
  const count = (name: string) =>
    Number(new RegExp(`^${name}: (\\d{1,15})$`, "m").exec(text)?.[1] ?? 0);
  return { corrected: count("ce"), uncorrected: count("ue") };
}

/** "0x00001000 : 0x00001000 : R": retired, pending, or failed to be. */
export function parseBadPages(text: string): { retired: number; pending: number } {
  const of = (letter: string) =>
    text.split("\n").filter((line) => line.trim().endsWith(`: ${letter}`)).length;
  return { retired: of("R"), pending: of("P") + of("F") };
}
