import { addressBytes, NO_ADDRESS } from "../network/dhcp/address.ts";
import { type DhcpMessage, encodeMessage } from "../network/dhcp/message.ts";
import { optionCodes, type Parsed, refuse } from "../network/dhcp/options.ts";
import { BOOT_FILE_FIELD, LONGEST_OFFER, MOST_ARCHITECTURES, SHORTEST_OFFER } from "./limits.ts";

/**
 * What DHCP messages say of booting: PXE 2.1, RFC 4578, and UEFI 2.10, 24.7 for HTTP. Pure.
 */

/** Beginnings of option 60, and what an answer has there. */
export const bootClasses = ["PXEClient", "HTTPClient"] as const;
export type BootClass = (typeof bootClasses)[number];

/** Tags in option 43: PXE 2.1, table 2-1. */
const vendorTags = { discoveryControl: 6, bootItem: 71, end: 255 } as const;
/** The file in this answer is loaded at once: no menu, no search for boot servers. */
const USE_THE_FILE = 8;

/** What firmware says of itself when it asks for something to boot. */
export interface BootClient {
  readonly class: BootClass;
  /** Option 93, the one it likes most first; else what stands in option 60. May be empty. */
  readonly architectures: readonly number[];
  readonly isIpxe: boolean;
  /** Option 97, which is sent back as it came: type 0 and the UUID. */
  readonly machine: Uint8Array | undefined;
  /** Tag 71 of option 43: which entry of a menu it asks for, at port 4011. */
  readonly bootItem: Uint8Array | undefined;
  /** It asked for the options 66 and 67. */
  readonly wantsOptions: boolean;
}

/** @returns undefined for a message of somebody who does not boot: it is another server's */
export function parseBootClient({ options }: DhcpMessage): Parsed<BootClient | undefined> {
  const named = textOf(options.get(optionCodes.vendorClass));
  const bootClass = bootClasses.find((one) => named === one || named.startsWith(`${one}:`));
  if (bootClass === undefined) return { ok: true, value: undefined };
  const architectures = architecturesOf(options, named);
  if (!architectures.ok) return architectures;
  const machine = options.get(optionCodes.clientMachine);
  const vendor = options.get(optionCodes.vendorInformation);
  return {
    ok: true,
    value: {
      class: bootClass,
      architectures: architectures.value,
      isIpxe: saysIpxe(options),
      // Another length is no machine's: it is left out, and nobody is refused for it.
      machine: machine?.length === 17 && machine[0] === 0 ? machine : undefined,
      bootItem: vendor === undefined ? undefined : bootItemIn(vendor),
      wantsOptions:
        options.get(optionCodes.parameterRequest)?.includes(optionCodes.bootFile) ?? false,
    },
  };
}

function architecturesOf(
  options: ReadonlyMap<number, Uint8Array>,
  named: string,
): Parsed<readonly number[]> {
  const bytes = options.get(optionCodes.clientArchitecture);
  if (bytes === undefined) {
    // "PXEClient:Arch:00007:UNDI:003016": PXE 2.1, 2.2.3.
    const text = /:Arch:(\d{5})(:|$)/.exec(named)?.[1];
    return { ok: true, value: text === undefined ? [] : [Number(text)] };
  }
  const count = bytes.length / 2;
  if (!Number.isInteger(count) || count < 1 || count > MOST_ARCHITECTURES) {
    return refuse(
      `option ${optionCodes.clientArchitecture}`,
      `1 to ${MOST_ARCHITECTURES} numbers of 2 bytes`,
      `${bytes.length} bytes`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    ok: true,
    value: Array.from({ length: count }, (_, at) => view.getUint16(2 * at, false)),
  };
}

/** iPXE writes its name without the length that RFC 3004 has before it; others may have both. */
function saysIpxe(options: ReadonlyMap<number, Uint8Array>): boolean {
  if (options.has(optionCodes.ipxe)) return true;
  const named = textOf(options.get(optionCodes.userClass));
  return named === "iPXE" || named === "\u0004iPXE";
}

function bootItemIn(vendor: Uint8Array): Uint8Array | undefined {
  let at = 0;
  while (at + 1 < vendor.length) {
    const tag = vendor[at] as number;
    if (tag === vendorTags.end) return undefined;
    if (tag === 0) {
      at += 1;
      continue;
    }
    const length = vendor[at + 1] as number;
    const value = vendor.subarray(at + 2, at + 2 + length);
    if (tag === vendorTags.bootItem) return value.length === 4 ? value : undefined;
    at += 2 + length;
  }
  return undefined;
}

function textOf(bytes: Uint8Array | undefined): string {
  // Some ROMs end it with a zero.
  return bytes === undefined ? "" : String.fromCharCode(...bytes).replace(/\0+$/, "");
}

export interface BootAnswer {
  /** "acknowledge" at port 4011. */
  readonly type: "offer" | "acknowledge";
  readonly serverAddress: string;
  /** A file's name for TFTP, or a URL. */
  readonly bootFile: string;
}

/** The bytes of an answer: it never gives an address. */
export function encodeBootAnswer(
  request: DhcpMessage,
  client: BootClient,
  { type, serverAddress, bootFile }: BootAnswer,
): Uint8Array<ArrayBuffer> {
  const options = new Map<number, Uint8Array>();
  options.set(optionCodes.serverIdentifier, addressBytes(serverAddress));
  options.set(optionCodes.vendorClass, new TextEncoder().encode(client.class));
  const fitsField = bootFile.length < BOOT_FILE_FIELD;
  if (client.class === "PXEClient") {
    if (client.wantsOptions) {
      options.set(optionCodes.bootServer, new TextEncoder().encode(serverAddress));
    }
    options.set(optionCodes.vendorInformation, vendorInformation(client));
  }
  // A URL is looked for in option 67, before the field: UEFI 2.10, 24.7.3.
  if (client.wantsOptions || !fitsField || client.class === "HTTPClient") {
    options.set(optionCodes.bootFile, new TextEncoder().encode(bootFile));
  }
  if (client.machine !== undefined) options.set(optionCodes.clientMachine, client.machine);
  // RFC 6842.
  const identifier = request.options.get(optionCodes.clientIdentifier);
  if (identifier !== undefined) options.set(optionCodes.clientIdentifier, identifier);
  const message: DhcpMessage = {
    direction: "reply",
    type,
    transaction: request.transaction,
    broadcast: request.broadcast,
    clientAddress: type === "acknowledge" ? request.clientAddress : NO_ADDRESS,
    yourAddress: NO_ADDRESS,
    nextServer: serverAddress,
    relayAddress: NO_ADDRESS,
    hardwareAddress: request.hardwareAddress,
    ...(fitsField && { bootFile }),
    options,
  };
  return encodeMessage(message, { least: SHORTEST_OFFER, most: LONGEST_OFFER });
}

function vendorInformation({ bootItem }: BootClient): Uint8Array {
  const control = [vendorTags.discoveryControl, 1, USE_THE_FILE];
  const item = bootItem === undefined ? [] : [vendorTags.bootItem, bootItem.length, ...bootItem];
  return Uint8Array.from([...control, ...item, vendorTags.end]);
}
