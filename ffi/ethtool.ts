import { libc } from "./c-library.ts";
import {
  AF_INET,
  DUPLEX_FULL,
  DUPLEX_HALF,
  ETHTOOL_GDRVINFO,
  ETHTOOL_GPERMADDR,
  ETHTOOL_GSET,
  SIOCETHTOOL,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
} from "./constants.ts";
import { control } from "./descriptor.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { check } from "./system-call-error.ts";

/** What a card's driver says of itself; undefined where it does not. */
export interface DriverInformation {
  readonly firmware: string | undefined;
  /** Of the card's own memory, whatever it was given since: six bytes. */
  readonly permanentAddress: Uint8Array | undefined;
}

const NAME = 32;
const ETHERNET_ADDRESS = 6;

/** Asks the driver of an interface, in this network namespace: SIOCETHTOOL, netdevice(7). */
export function askCardDriver(interfaceName: string): DriverInformation {
  const socket = new OwnedDescriptor(
    check("socket", libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
  );
  try {
    const information = new NativeMemory(layouts.ethtool_drvinfo.size);
    information.view.setUint32(layouts.ethtool_drvinfo.cmd, ETHTOOL_GDRVINFO, true);
    const isTold = ask(socket, interfaceName, information);
    const layout = layouts.ethtool_perm_addr;
    const address = new NativeMemory(layout.size + NAME);
    address.view.setUint32(layout.cmd, ETHTOOL_GPERMADDR, true);
    address.view.setUint32(layout.length, NAME, true);
    const hasAddress = ask(socket, interfaceName, address);
    const length = address.view.getUint32(layout.length, true);
    return {
      firmware: isTold ? text(information, layouts.ethtool_drvinfo.fw_version) : undefined,
      permanentAddress:
        hasAddress && length === ETHERNET_ADDRESS
          ? address.bytes.slice(layout.size, layout.size + ETHERNET_ADDRESS)
          : undefined,
    };
  } finally {
    socket.close();
  }
}

export interface LinkSettings {
  /** Megabits a second; undefined where the driver does not know it: a link without a carrier. */
  readonly speed: number | undefined;
  readonly duplex: "full" | "half" | undefined;
}

/** SPEED_UNKNOWN of <linux/ethtool.h>, which is -1; a driver may tell 16 bits of it alone. */
const unknownSpeeds = [0xffff_ffff, 0xffff, 0];
const duplexes = new Map<number, "full" | "half">([
  [DUPLEX_FULL, "full"],
  [DUPLEX_HALF, "half"],
]);

/**
 * What a link runs at, in this process's network namespace (/sys shows that which it was mounted
 * in); undefined where its driver has no such call (EOPNOTSUPP) or it is gone: ETHTOOL_GSET, which
 * the kernel answers for every driver that tells its speed at all.
 */
export function linkSettings(interfaceName: string): LinkSettings | undefined {
  using socket = new OwnedDescriptor(
    check("socket", libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
  );
  const layout = layouts.ethtool_cmd;
  const command = new NativeMemory(layout.size);
  command.view.setUint32(layout.cmd, ETHTOOL_GSET, true);
  if (!ask(socket, interfaceName, command)) return undefined;
  const low = command.view.getUint16(layout.speed, true);
  const speed = command.view.getUint16(layout.speed_hi, true) * 0x1_0000 + low;
  const duplex = duplexes.get(command.view.getUint8(layout.duplex));
  return { speed: unknownSpeeds.includes(speed) ? undefined : speed, duplex };
}

/** Whether the driver answered: EOPNOTSUPP and ENODEV are an answer of their own. */
function ask(socket: OwnedDescriptor, interfaceName: string, data: NativeMemory): boolean {
  const request = new NativeMemory(layouts.ifreq.size);
  const name = new TextEncoder().encode(interfaceName).subarray(0, 15);
  request.bytes.set(name, layouts.ifreq.ifr_name);
  request.setPointer(layouts.ifreq.ifr_data, data.address);
  return control(socket, SIOCETHTOOL, request) >= 0;
}

function text(memory: NativeMemory, offset: number): string | undefined {
  const bytes = memory.bytes.subarray(offset, offset + NAME);
  const end = bytes.indexOf(0);
  const word = new TextDecoder().decode(bytes.subarray(0, end === -1 ? NAME : end)).trim();
  return word === "" ? undefined : word;
}
