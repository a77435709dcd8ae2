import { EVERYBODY, NO_ADDRESS } from "../network/dhcp/address.ts";
import type { DhcpMessage } from "../network/dhcp/message.ts";
import type { BootClient } from "./protocol-pxe.ts";

/** What firmware that asks for something to boot is given. Pure. */

/** What a program for a network card's firmware is made for. */
export const platforms = ["bios", "uefi-x86", "uefi-x64", "uefi-arm64"] as const;
export type Platform = (typeof platforms)[number];

/** Files of iPXE by platform, the one that is taken first first. */
export const ipxeFiles: Readonly<Record<Platform, readonly string[]>> = {
  bios: ["undionly.kpxe"],
  "uefi-x86": ["snponly-i386.efi", "ipxe-i386.efi"],
  "uefi-x64": ["snponly.efi", "ipxe.efi"],
  "uefi-arm64": ["snponly-arm64.efi", "ipxe-arm64.efi"],
};

/**
 * Numbers of option 93: RFC 4578, 2.1, with its erratum, and IANA's "Processor Architecture Types"
 * (https://www.iana.org/assignments/dhcpv6-parameters). What is not here is refused.
 */
export const architectures: ReadonlyMap<number, Platform> = new Map<number, Platform>([
  [0, "bios"],
  [6, "uefi-x86"],
  // RFC 4578 calls 7 "EFI BC" and 9 "EFI x86-64"; firmware says 7 for x64 (erratum 4625).
  [7, "uefi-x64"],
  [9, "uefi-x64"],
  [11, "uefi-arm64"],
  [15, "uefi-x86"],
  [16, "uefi-x64"],
  [19, "uefi-arm64"],
]);

/** What this host has to give. */
export interface Offering {
  /** The file of each platform, as it is named over TFTP and HTTP. */
  readonly programs: Readonly<Partial<Record<Platform, string>>>;
  /** "http://10.0.0.1:8067" */
  readonly base: string;
  readonly serverAddress: string;
}

export const SCRIPT_PATH = "/boot.ipxe";

export type Choice =
  | { readonly kind: "boot"; readonly bootFile: string; readonly platform: Platform | "ipxe" }
  | { readonly kind: "refuse"; readonly reason: string };

/** Which file for which client. */
export function choose(client: BootClient, { programs, base }: Offering): Choice {
  // It reads scripts, whatever it runs on.
  if (client.isIpxe) return { kind: "boot", bootFile: `${base}${SCRIPT_PATH}`, platform: "ipxe" };
  const known = client.architectures.flatMap((number) => architectures.get(number) ?? []);
  const platform = known.find((one) => programs[one] !== undefined);
  const file = platform === undefined ? undefined : programs[platform];
  if (platform === undefined || file === undefined) {
    return { kind: "refuse", reason: whyNot(client, known) };
  }
  if (client.class === "PXEClient") return { kind: "boot", bootFile: file, platform };
  if (platform === "bios") {
    return { kind: "refuse", reason: "HTTP boot of a BIOS: there is no program for it" };
  }
  return { kind: "boot", bootFile: `${base}/${file}`, platform };
}

function whyNot(client: BootClient, known: readonly Platform[]): string {
  const [first] = known;
  if (first !== undefined) {
    const names = ipxeFiles[first].join(" or ");
    return `there is no program for ${first}: put ${names} into the folder of --boot-dir`;
  }
  const said = client.architectures.join(", ");
  return said === ""
    ? "it names no architecture"
    : `architecture ${said} is none that iPXE is handed out for`;
}

export type PortOfBoot = 67 | 4_011;

/** Why a message is not answered. */
export type Unanswered =
  /** Of a client that does not boot, or of another kind: another server's matter. */
  "not of firmware that boots" | "not for this port" | "of a relay" | "refused";

export type Reaction =
  | {
      readonly kind: "answer";
      readonly type: "offer" | "acknowledge";
      readonly choice: Choice & { kind: "boot" };
      /** undefined: to whoever sent it. */
      readonly to: string | undefined;
    }
  | { readonly kind: "refuse"; readonly reason: string }
  | { readonly kind: "ignore"; readonly why: Unanswered };

/**
 * What a message is answered: at 67 a DISCOVER alone, which another server answers as well, with
 * an address; at 4011 a REQUEST, from an address that the client has by then (PXE 2.1, 2.2.5).
 */
export function react(
  message: DhcpMessage,
  client: BootClient | undefined,
  { port, offering }: { readonly port: PortOfBoot; readonly offering: Offering },
): Reaction {
  if (client === undefined) return { kind: "ignore", why: "not of firmware that boots" };
  const wanted = port === 67 ? "discover" : "request";
  if (message.direction !== "request" || message.type !== wanted) {
    return { kind: "ignore", why: "not for this port" };
  }
  if (message.relayAddress !== NO_ADDRESS) return { kind: "ignore", why: "of a relay" };
  const choice = choose(client, offering);
  if (choice.kind === "refuse") return choice;
  return port === 67
    ? { kind: "answer", type: "offer", choice, to: EVERYBODY }
    : { kind: "answer", type: "acknowledge", choice, to: undefined };
}
