import type { Architecture, Libc } from "./protocol.ts";

/** For whom a file was built: by its ELF header, elf(5). */
export type LookedAt =
  | { readonly kind: "executable"; readonly architecture: Architecture; readonly libc: Libc }
  | { readonly kind: "other"; readonly received: string };

/** So many bytes of its begin say it: the headers, and the interpreter's name behind them. */
export const executableHeadBytes = 4_096;

/** e_machine: EM_X86_64 and EM_AARCH64 of elf.h. */
const machines: Readonly<Record<number, Architecture>> = { 62: "x64", 183: "arm64" };
const PT_INTERP = 3;
const programHeaderBytes = 56;

/** @param head the first `executableHeadBytes` of a file, or all of it */
export function lookAtExecutable(head: Uint8Array): LookedAt {
  const other = (received: string): LookedAt => ({ kind: "other", received });
  const isElf = head[0] === 0x7f && head[1] === 0x45 && head[2] === 0x4c && head[3] === 0x46;
  if (!isElf || head.length < 64) return other("no ELF file");
  if (head[4] !== 2 || head[5] !== 1) return other("an ELF file of another word size or order");
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const machine = view.getUint16(18, true);
  const architecture = machines[machine];
  if (architecture === undefined) return other(`an ELF file for machine ${machine}`);
  const interpreter = interpreterOf(head, view);
  if (interpreter === undefined) return other("an ELF file without an interpreter");
  if (/\/ld-linux[^/]*$/.test(interpreter))
    return { kind: "executable", architecture, libc: "glibc" };
  if (/\/ld-musl[^/]*$/.test(interpreter))
    return { kind: "executable", architecture, libc: "musl" };
  return other(`an ELF file for ${JSON.stringify(interpreter.slice(0, 80))}`);
}

/** The name that PT_INTERP leads to. */
function interpreterOf(head: Uint8Array, view: DataView): string | undefined {
  const start = Number(view.getBigUint64(32, true));
  const count = view.getUint16(56, true);
  for (let index = 0; index < count; index += 1) {
    const header = start + index * programHeaderBytes;
    if (header + programHeaderBytes > head.length) return undefined;
    if (view.getUint32(header, true) !== PT_INTERP) continue;
    const offset = Number(view.getBigUint64(header + 8, true));
    const size = Number(view.getBigUint64(header + 32, true));
    if (offset + size > head.length) return undefined;
    return new TextDecoder().decode(head.subarray(offset, offset + size)).replace(/\0.*$/s, "");
  }
  return undefined;
}
