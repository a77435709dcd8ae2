/** The smallest file of QEMU's own format: nothing is written in it yet. */

const CLUSTER = 0x1_0000;
const NAME_AT = 0x200;

/**
 * docs/interop/qcow2 in QEMU, version 3.
 * @param options backing: what the file itself says is below it, whether anybody believes it
 */
export function emptyQcow2(size: number, options: { readonly backing?: string } = {}): Uint8Array {
  const file = new Uint8Array(4 * CLUSTER);
  const view = new DataView(file.buffer);
  const name = new TextEncoder().encode(options.backing ?? "");
  view.setUint32(0, 0x5146_49fb);
  view.setUint32(4, 3);
  view.setBigUint64(8, name.length === 0 ? 0n : BigInt(NAME_AT));
  view.setUint32(16, name.length);
  view.setUint32(20, 16);
  view.setBigUint64(24, BigInt(size));
  // One table of one cluster: up to 512 MiB.
  view.setUint32(36, 1);
  view.setBigUint64(40, BigInt(3 * CLUSTER));
  view.setBigUint64(48, BigInt(CLUSTER));
  view.setUint32(56, 1);
  // Counts of references have 16 bits; the header has 104 bytes.
  view.setUint32(96, 4);
  view.setUint32(100, 104);
  file.set(name, NAME_AT);
  view.setBigUint64(CLUSTER, BigInt(2 * CLUSTER));
  for (let cluster = 0; cluster < 4; cluster += 1) view.setUint16(2 * CLUSTER + 2 * cluster, 1);
  return file;
}
