/**
 * The smallest guest that shows whether a virtual machine goes on: an ELF file of 4 KB without a
 * kernel in it. It counts in memory and tells each number on the first serial port. QEMU and
 * cloud-hypervisor start it by its PVH note, as they start a Linux kernel.
 *
 *   bun scripts/test-guest.ts FILE
 *
 * By hand: qemu-system-x86_64 -M microvm -m 64 -nodefaults -display none -serial stdio -kernel FILE
 */
import { readWords, runScript, ScriptError } from "./terminal.ts";

const usage = "Usage: bun scripts/test-guest.ts FILE";

/** Where the guest keeps its counter: physical, 32 bits, little-endian. */
export const COUNTER_ADDRESS = 0x20_0000;

/**
 * What it does when it reads one of these letters from its serial port; other letters do nothing.
 * It resets anywhere; it is off on QEMU's q35 and on cloud-hypervisor, whose registers for that it
 * knows; it panics where a pvpanic device is at its usual port.
 */
export const guestLetters = { panic: "p", reset: "r", off: "s" } as const;

/** One line of the guest: "T" and the counter as 8 digits, which are 0-9 and a-f. */
export const guestLine = /T([0-9a-f]{8})\n/;

/** Where it is loaded, and where its first instruction is. */
const LOAD_ADDRESS = 0x10_0000;
const STACK_TOP = 0x2_0000;
/** Of memory from the load address on, so that the counter lies in it. */
const MEMORY_SIZE = 0x11_0000;
/** Turns of an empty loop between two lines. */
const USUAL_PAUSE = 20_000;

/** Ports of a PC. The serial port's status is five above its data. */
const SERIAL_DATA = 0x3f8;
const SERIAL_STATUS = SERIAL_DATA + 5;
const TRANSMITTER_EMPTY = 0x20;
const KEYBOARD_CONTROLLER = 0x64;
/** Bytes that nobody writes: a table of interrupts that holds none. */
const NO_INTERRUPTS = COUNTER_ADDRESS + 0x100;
/** docs/specs/pvpanic in QEMU; bit 0: the guest has panicked. */
const PANIC_PORT = 0x505;
/** The sleep control register of cloud-hypervisor's ACPI: sleep type 5, sleep enable. */
const SLEEP_CONTROL = { port: 0x600, value: 0x34 };
/** PM1a_CNT of QEMU's q35, as its firmware lays it out: SLP_EN, sleep type 0. */
const POWER_CONTROL = { port: 0x604, value: 0x2000 };

/** Code of an 80386 in 32-bit mode, with labels. */
class Code {
  readonly bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  readonly #jumps: { readonly at: number; readonly size: 1 | 4; readonly label: string }[] = [];

  add(...bytes: number[]): this {
    this.bytes.push(...bytes);
    return this;
  }

  /** A number of 32 bits. */
  long(value: number): this {
    return this.add(value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >>> 24);
  }

  label(name: string): this {
    this.#labels.set(name, this.bytes.length);
    return this;
  }

  /** A jump whose target is at most 127 bytes away, by its opcode. */
  jump(opcode: number, label: string): this {
    this.#jumps.push({ at: this.bytes.length + 1, size: 1, label });
    return this.add(opcode, 0);
  }

  call(label: string): this {
    this.#jumps.push({ at: this.bytes.length + 1, size: 4, label });
    return this.add(0xe8, 0, 0, 0, 0);
  }

  /** mov dx, port */
  port(port: number): this {
    return this.add(0x66, 0xba, port & 0xff, port >> 8);
  }

  /** mov al, value */
  byte(value: number): this {
    return this.add(0xb0, value);
  }

  finish(): Uint8Array {
    const view = new DataView(Uint8Array.from(this.bytes).buffer);
    for (const { at, size, label } of this.#jumps) {
      const distance = (this.#labels.get(label) ?? Number.NaN) - (at + size);
      const isReached = size === 4 || (distance >= -128 && distance <= 127);
      if (Number.isNaN(distance) || !isReached) throw new RangeError(`No jump to ${label}`);
      if (size === 4) view.setInt32(at, distance, true);
      else view.setInt8(at, distance);
    }
    return new Uint8Array(view.buffer);
  }
}

const JUMP = 0xeb;
const JUMP_IF_BELOW = 0x72;
const JUMP_IF_ZERO = 0x74;
const JUMP_IF_NOT_ZERO = 0x75;
const letter = (text: string) => text.charCodeAt(0);

function guestCode(pause: number): Uint8Array {
  const code = new Code();
  code.add(0xfa); // cli: nobody handles an interrupt
  code.add(0xbc).long(STACK_TOP); // mov esp, STACK_TOP
  code.label("turn");
  code.add(0xff, 0x05).long(COUNTER_ADDRESS); // inc dword [COUNTER_ADDRESS]
  code.byte(letter("T")).call("print");
  code.add(0x8b, 0x1d).long(COUNTER_ADDRESS); // mov ebx, [COUNTER_ADDRESS]
  code.add(0xb9).long(8); // mov ecx, 8
  code.label("digit");
  code.add(0xc1, 0xc3, 4); // rol ebx, 4
  code.add(0x88, 0xd8, 0x24, 0x0f); // mov al, bl; and al, 15
  code.add(0x3c, 10).jump(JUMP_IF_BELOW, "decimal"); // cmp al, 10
  code.add(0x04, letter("a") - letter("0") - 10); // add al, …
  code.label("decimal");
  code.add(0x04, letter("0")).call("print"); // add al, '0'
  code.add(0x49).jump(JUMP_IF_NOT_ZERO, "digit"); // dec ecx
  code.byte(letter("\n")).call("print");
  code.add(0xb9).long(pause); // mov ecx, pause
  code.label("pause");
  code.add(0x49).jump(JUMP_IF_NOT_ZERO, "pause"); // dec ecx
  code.port(SERIAL_STATUS).add(0xec, 0xa8, 1); // in al, dx; test al, 1: is there a letter?
  code.jump(JUMP_IF_ZERO, "turn");
  code.port(SERIAL_DATA).add(0xec); // in al, dx
  code.add(0x3c, letter(guestLetters.panic)).jump(JUMP_IF_ZERO, "panic"); // cmp al, letter
  code.add(0x3c, letter(guestLetters.reset)).jump(JUMP_IF_ZERO, "reset");
  code.add(0x3c, letter(guestLetters.off)).jump(JUMP_IF_ZERO, "off");
  code.label("again").jump(JUMP, "turn");
  code.label("panic").port(PANIC_PORT).byte(1).add(0xee).jump(JUMP, "again"); // out dx, al
  // Where there is no such controller: lidt [NO_INTERRUPTS]; int3, a fault for whose fault nobody
  // is there either.
  code.label("reset").port(KEYBOARD_CONTROLLER).byte(0xfe).add(0xee);
  code.add(0x0f, 0x01, 0x1d).long(NO_INTERRUPTS).add(0xcc);
  code.label("off").port(SLEEP_CONTROL.port).byte(SLEEP_CONTROL.value).add(0xee);
  code.port(POWER_CONTROL.port).add(0xb8).long(POWER_CONTROL.value); // mov eax, value
  code.add(0x66, 0xef).jump(JUMP, "again"); // out dx, ax
  // A port that has no room takes the byte and forgets it: whoever listens may be slow.
  code.label("print").add(0x88, 0xc4).port(SERIAL_STATUS); // mov ah, al
  code.label("busy").add(0xec, 0xa8, TRANSMITTER_EMPTY).jump(JUMP_IF_ZERO, "busy"); // in al, dx
  code.add(0x88, 0xe0).port(SERIAL_DATA).add(0xee, 0xc3); // mov al, ah; out dx, al; ret
  return code.finish();
}

const ELF_HEADER_SIZE = 64;
const PROGRAM_HEADER_SIZE = 56;
const PAGE = 0x1000;
const LOADABLE = 1;
const NOTE = 4;
/** XEN_ELFNOTE_PHYS32_ENTRY, include/xen/interface/elfnote.h of Linux. */
const PVH_ENTRY = 18;

function programHeader(view: DataView, at: number, segment: readonly [number, ...number[]]): void {
  const [type, flags = 0, ...longs] = segment;
  view.setUint32(at, type, true);
  view.setUint32(at + 4, flags, true);
  longs.forEach((value, index) => {
    view.setBigUint64(at + 8 + 8 * index, BigInt(value), true);
  });
}

/**
 * The guest as an ELF file: elf(5).
 * @param options pause: turns of an empty loop between two lines; more of them, fewer lines
 */
export function makeTestGuest(options: { readonly pause?: number } = {}): Uint8Array {
  const code = guestCode(options.pause ?? USUAL_PAUSE);
  const noteAt = ELF_HEADER_SIZE + 2 * PROGRAM_HEADER_SIZE;
  const noteSize = 20;
  const file = new Uint8Array(PAGE + code.length);
  const view = new DataView(file.buffer);
  // 64 bits, little-endian, version 1.
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  // A program for the x86-64, version 1.
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, BigInt(LOAD_ADDRESS), true);
  view.setBigUint64(32, BigInt(ELF_HEADER_SIZE), true);
  view.setUint16(52, ELF_HEADER_SIZE, true);
  view.setUint16(54, PROGRAM_HEADER_SIZE, true);
  view.setUint16(56, 2, true);
  const load = [PAGE, LOAD_ADDRESS, LOAD_ADDRESS, code.length, MEMORY_SIZE, PAGE];
  programHeader(view, ELF_HEADER_SIZE, [LOADABLE, 7, ...load]);
  const note = [noteAt, 0, 0, noteSize, noteSize, 4];
  programHeader(view, ELF_HEADER_SIZE + PROGRAM_HEADER_SIZE, [NOTE, 4, ...note]);
  [4, 4, PVH_ENTRY].forEach((value, index) => {
    view.setUint32(noteAt + 4 * index, value, true);
  });
  file.set(new TextEncoder().encode("Xen\0"), noteAt + 12);
  view.setUint32(noteAt + 16, LOAD_ADDRESS, true);
  file.set(code, PAGE);
  return file;
}

async function main(): Promise<number> {
  const { positionals } = readWords(usage, { allowPositionals: true });
  const [path] = positionals;
  if (path === undefined || positionals.length > 1) throw new ScriptError(usage, { exitCode: 100 });
  await Bun.write(path, makeTestGuest());
  return 0;
}

if (import.meta.main) await runScript(main);
