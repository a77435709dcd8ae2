import type { Platform } from "./lifecycle-choice.ts";

/** Which machine a program is for, by its first bytes: Microsoft's PE format, 3.3.1. Pure. */

const machines: Readonly<Partial<Record<Platform, number>>> = {
  "uefi-x86": 0x014c,
  "uefi-x64": 0x8664,
  "uefi-arm64": 0xaa64,
};

/** @returns why a program cannot run there, or undefined */
export function whyNotFor(head: Uint8Array, platform: Platform): string | undefined {
  const machine = machineOf(head);
  const wanted = machines[platform];
  if (wanted === undefined) {
    return machine === undefined ? undefined : "expected a boot program of BIOS, found one of UEFI";
  }
  if (machine === undefined) return "expected a program of UEFI (PE), found something else";
  if (machine === wanted) return undefined;
  return `expected machine ${hex(wanted)}, found ${hex(machine)}`;
}

function hex(number: number): string {
  return `0x${number.toString(16).padStart(4, "0")}`;
}

function machineOf(head: Uint8Array): number | undefined {
  if (head.length < 64 || head[0] !== 0x4d || head[1] !== 0x5a) return undefined;
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const start = view.getUint32(60, true);
  if (start + 6 > head.length || view.getUint32(start, false) !== 0x5045_0000) return undefined;
  return view.getUint16(start + 4, true);
}
