/**
 * A kernel, its initramfs and its command line as one program that UEFI starts: sections behind
 * those of systemd's stub, which finds them by their names. systemd-stub(7), Microsoft's "PE
 * Format".
 */
import { ByteImage, roundUp } from "../byte-image.ts";

/** Of the COFF header and the optional header, from where each of them begins. */
const coff = { sections: 2, symbols: 8, symbolCount: 12, optionalBytes: 16, bytes: 20 } as const;
const optional = { fileAlignment: 36, imageBytes: 56, headerBytes: 60 } as const;
const section = {
  bytes: 40,
  size: 8,
  address: 12,
  fileSize: 16,
  filePlace: 20,
  flags: 36,
} as const;
/** Initialised data, that is read. */
const DATA = 0x4000_0040;
const PAGE = 4096;

/** @param options.stub linuxx64.efi.stub of systemd-boot-efi */
export function makeUnifiedKernel(options: {
  readonly stub: Uint8Array;
  readonly kernel: Uint8Array;
  readonly initramfs: Uint8Array;
  readonly commandLine: string;
  readonly release: string;
}): Uint8Array {
  const text = (value: string) => new TextEncoder().encode(value);
  return withSections(options.stub, [
    [".osrel", text("ID=hostler-live\nNAME=hostler live\nVERSION_ID=1\n")],
    [".cmdline", text(`${options.commandLine}\0`)],
    [".uname", text(options.release)],
    [".linux", options.kernel],
    [".initrd", options.initramfs],
  ]);
}

/** What follows the stub's own sections, its symbols, is left out. */
function withSections(
  stub: Uint8Array,
  added: readonly (readonly [name: string, content: Uint8Array])[],
): Uint8Array {
  const old = new ByteImage(stub.length);
  old.bytes.set(stub);
  const file = old.getLong(60) + 4;
  const count = old.getShort(file + coff.sections);
  const table = file + coff.bytes + old.getShort(file + coff.optionalBytes);
  const header = file + coff.bytes;
  const alignment = old.getLong(header + optional.fileAlignment);
  const room = old.getLong(header + optional.headerBytes) - table;
  if ((count + added.length) * section.bytes > room) {
    throw new RangeError(`The stub's header has room for ${room} bytes of sections`);
  }
  let [place, address] = [0, 0];
  for (let index = 0; index < count; index++) {
    const at = table + index * section.bytes;
    place = Math.max(
      place,
      old.getLong(at + section.filePlace) + old.getLong(at + section.fileSize),
    );
    address = Math.max(address, old.getLong(at + section.address) + old.getLong(at + section.size));
  }
  const placed = added.map(([name, content]) => {
    const at = { place: roundUp(place, alignment), address: roundUp(address, PAGE) };
    place = at.place + roundUp(content.length, alignment);
    address = at.address + content.length;
    return { name, content, ...at };
  });
  const image = new ByteImage(place);
  image.bytes.set(stub.subarray(0, placed[0]?.place));
  for (const [index, { name, content, ...at }] of placed.entries()) {
    const entry = table + (count + index) * section.bytes;
    image.text(entry, name);
    image.long(entry + section.size, content.length);
    image.long(entry + section.address, at.address);
    image.long(entry + section.fileSize, roundUp(content.length, alignment));
    image.long(entry + section.filePlace, at.place);
    image.long(entry + section.flags, DATA);
    image.bytes.set(content, at.place);
  }
  image.short(file + coff.sections, count + added.length);
  image.long(file + coff.symbols, 0);
  image.long(file + coff.symbolCount, 0);
  image.long(header + optional.imageBytes, roundUp(address, PAGE));
  return image.bytes;
}
