import { parseMacAddress } from "../network/subnet.ts";
import { LONGEST_COMMAND_LINE, LONGEST_SERIAL, MOST_PARAMETERS } from "./limits.ts";

/**
 * Scripts for iPXE (https://ipxe.org/scripting), and what it asks for them with. iPXE expands
 * ${…} everywhere in a line, splits it at white space, and has no way to quote: so what goes into
 * a script is checked to be one word without any of that, and what a client sent is never in it.
 * Pure.
 */

/** What iPXE says of the machine, in the query of the script's address. */
export interface ScriptQuery {
  /** Of the card that it booted from; in lower case. */
  readonly mac: string;
  readonly serial: string | undefined;
  readonly uuid: string | undefined;
}

export type ReadQuery =
  | { readonly kind: "whole"; readonly query: ScriptQuery }
  /** It was not told yet what to send. */
  | { readonly kind: "bare" }
  | { readonly kind: "refused"; readonly reason: string };

/** @param search with its question mark, or empty */
export function readQuery(search: string): ReadQuery {
  const values = new URLSearchParams(search);
  for (const name of ["mac", "serial", "uuid"]) {
    if (values.getAll(name).length > 1) {
      return { kind: "refused", reason: `expected ${name} once, received it several times` };
    }
  }
  const mac = values.get("mac");
  if (mac === null) return { kind: "bare" };
  const lower = mac.toLowerCase().replaceAll("-", ":");
  const bytes = parseMacAddress(lower);
  if (bytes === undefined || ((bytes[0] as number) & 1) === 1) {
    return { kind: "refused", reason: "expected mac as the address of one card" };
  }
  const serial = values.get("serial") ?? "";
  if (serial.length > LONGEST_SERIAL || /[^\x20-\x7e]/.test(serial)) {
    const expected = `expected serial as up to ${LONGEST_SERIAL} printable characters`;
    return { kind: "refused", reason: expected };
  }
  const uuid = (values.get("uuid") ?? "").toLowerCase();
  if (uuid !== "" && !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid)) {
    return { kind: "refused", reason: "expected uuid as 8-4-4-4-12 hexadecimal digits" };
  }
  return {
    kind: "whole",
    query: {
      mac: lower,
      serial: serial.trim() === "" ? undefined : serial.trim(),
      uuid: uuid === "" ? undefined : uuid,
    },
  };
}

/** What iPXE takes as it is, wherever in a line: no white space, no ${, no command of its own. */
const WORD = /^[A-Za-z0-9_][A-Za-z0-9_.:/,=+@%?[\]-]*$/;

/** @throws RangeError for what is no plain word: it came from us, and is a bug */
function word(text: string): string {
  if (WORD.test(text)) return text;
  throw new RangeError(`Not a plain word for a boot script: ${JSON.stringify(text)}`);
}

/** Has the client come again with what it knows of itself. */
export function chainScript(scriptUrl: string): string {
  // netX is the card that was opened last: the one it booted from, which need not be net0.
  const serial = `serial=${setting("serial:uristring")}`;
  const query = [`mac=${setting("netX/mac")}`, serial, `uuid=${setting("uuid")}`].join("&");
  return scriptOf([`chain --replace ${word(scriptUrl)}?${query}`]);
}

export interface BootLine {
  /** "http://10.0.0.1:8067" */
  readonly base: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** Parameters of the kernel's command line, in their order; a value of undefined has no "=". */
  readonly parameters: readonly (readonly [name: string, value: string | undefined])[];
}

/** @returns why a parameter cannot be on a command line that goes through a script */
export function refuseParameters(line: Pick<BootLine, "parameters">): string | undefined {
  const { parameters } = line;
  if (parameters.length > MOST_PARAMETERS) {
    return `expected at most ${MOST_PARAMETERS} parameters, received ${parameters.length}`;
  }
  const wrong = parameters.find(([name, value]) => !WORD.test(wordOf(name, value)));
  // Its value may be a token.
  if (wrong !== undefined) return `expected ${wrong[0]} as one plain word without spaces or $`;
  const length = commandLine(parameters).length;
  if (length <= LONGEST_COMMAND_LINE) return undefined;
  return `expected at most ${LONGEST_COMMAND_LINE} characters of parameters, received ${length}`;
}

function wordOf(name: string, value: string | undefined): string {
  return value === undefined ? name : `${name}=${value}`;
}

function commandLine(parameters: BootLine["parameters"]): string {
  return parameters.map(([name, value]) => wordOf(name, value)).join(" ");
}

/**
 * Boots the live image.
 * @throws RangeError for parameters that `refuseParameters` refuses
 */
export function bootScript(line: BootLine): string {
  const reason = refuseParameters(line);
  if (reason !== undefined) throw new RangeError(reason);
  const { base, kernel, initramfs, parameters } = line;
  const words = parameters.length === 0 ? "" : ` ${commandLine(parameters)}`;
  // The kernel's own EFI stub finds the archive by the name that initrd= has.
  return scriptOf([
    "imgfree",
    `kernel ${word(`${base}/${kernel}`)} initrd=${word(initramfs)}${words}`,
    `initrd --name ${word(initramfs)} ${word(`${base}/${initramfs}`)}`,
    "boot",
  ]);
}

/** Why a machine is sent on to its disk. */
export const diskReasons = {
  "no-run": "This machine has no run to boot for.",
  "window-closed": "The boot window of the run of this machine is closed.",
  unknown: "This machine is not known, and was noted for enrolment.",
  unavailable: "Nothing can be decided for this machine now.",
} as const;
export type DiskReason = keyof typeof diskReasons;

/** Leaves iPXE, so that the firmware goes on to what comes next in its order. */
export function diskScript(reason: DiskReason): string {
  return scriptOf([
    `echo hostler: ${diskReasons[reason]} Booting from its disk.`,
    // UEFI takes an end without an error for "it has booted", and shows its menu.
    `iseq ${setting("platform")} efi && exit 1 ||`,
    "exit 0",
  ]);
}

/** What iPXE puts in the place of a setting's name. */
function setting(name: string): string {
  return `$\{${name}}`;
}

function scriptOf(lines: readonly string[]): string {
  return `#!ipxe\n${lines.join("\n")}\n`;
}
