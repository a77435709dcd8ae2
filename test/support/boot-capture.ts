/**
 * What went over the wire in a boot, in a line for each packet that says something: read from what
 * QEMU writes down (filter-dump; https://wiki.wireshark.org/Development/LibpcapFileFormat). A boot
 * that stops says by it where it stopped.
 */
import { NO_ADDRESS } from "../../src/network/dhcp/address.ts";
import { parseMessage } from "../../src/network/dhcp/message.ts";
import { optionCodes } from "../../src/network/dhcp/options.ts";

const FILE_HEAD = 24;
const RECORD_HEAD = 16;
const ETHERNET_HEAD = 14;
/** `file` of a DHCP message: RFC 2131, figure 1. */
const fileField = [108, 236] as const;
const bootPorts = new Set([67, 68, 4_011]);
const tftpWords = ["", "read", "write", "DATA", "ACK", "ERROR", "OACK"];

/** Several of the same kind in a row are one line: `12 × 10.0.0.1 → 10.0.0.2 TFTP DATA`. */
export function bootStory(capture: Uint8Array): string[] {
  const story: { text: string; count: number }[] = [];
  for (const text of packetsOf(capture).flatMap((frame) => describe(frame) ?? [])) {
    const last = story.at(-1);
    const before = story.at(-2);
    // Blocks and their ACKs take turns.
    const same = [last, before].find((one) => one?.text === text);
    if (same === undefined) story.push({ text, count: 1 });
    else same.count += 1;
  }
  return story.map(({ text, count }) => (count === 1 ? text : `${count} × ${text}`));
}

/** Whole records alone: QEMU may be writing the last one. */
function packetsOf(capture: Uint8Array): Uint8Array[] {
  const view = new DataView(capture.buffer, capture.byteOffset, capture.length);
  const frames: Uint8Array[] = [];
  for (let at = FILE_HEAD; at + RECORD_HEAD <= capture.length; ) {
    const length = view.getUint32(at + 8, true);
    const start = at + RECORD_HEAD;
    if (start + length <= capture.length) frames.push(capture.subarray(start, start + length));
    at = start + length;
  }
  return frames;
}

function describe(frame: Uint8Array): string | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (frame.length < ETHERNET_HEAD + 28 || view.getUint16(12, false) !== 0x0800) return undefined;
  const head = ETHERNET_HEAD + ((frame[ETHERNET_HEAD] as number) & 15) * 4;
  const end = ETHERNET_HEAD + view.getUint16(ETHERNET_HEAD + 2, false);
  const [from, to] = [12, 16].map((at) => {
    return frame.subarray(ETHERNET_HEAD + at, ETHERNET_HEAD + at + 4).join(".");
  });
  const ports = [view.getUint16(head, false), view.getUint16(head + 2, false)] as const;
  const protocol = frame[ETHERNET_HEAD + 9];
  const who = `${from} → ${to}`;
  if (protocol === 17) {
    const data = frame.subarray(head + 8, end);
    const isBoot = ports.some((port) => bootPorts.has(port));
    return `${who} ${isBoot ? describeDhcp(data, ports) : describeTftp(data)}`;
  }
  if (protocol !== 6) return undefined;
  const data = frame.subarray(head + ((frame[head + 12] as number) >> 4) * 4, end);
  const text = describeTcp(frame[head + 13] as number, data);
  return text === undefined ? undefined : `${who} ${text}`;
}

function describeDhcp(data: Uint8Array, ports: readonly [number, number]): string {
  const parsed = parseMessage(data);
  const way = `port ${ports[1]}`;
  if (!parsed.ok) return `${way} no DHCP: ${parsed.refusal.key}`;
  const { type, options, yourAddress } = parsed.value;
  const text = (code: number) => {
    const bytes = options.get(code);
    return bytes === undefined ? "" : String.fromCharCode(...bytes).replace(/[^\x20-\x7e]/g, "?");
  };
  const field = String.fromCharCode(...data.subarray(...fileField)).replace(/\0.*$/s, "");
  const said: Record<string, string> = {
    class: text(optionCodes.vendorClass),
    "user class": text(optionCodes.userClass),
    address: yourAddress === NO_ADDRESS ? "" : yourAddress,
    file: text(optionCodes.bootFile) || field,
  };
  const words = Object.entries(said).filter(([, value]) => value !== "");
  return [`${way} DHCP ${type}`, ...words.map((pair) => pair.join(" "))].join(", ");
}

function describeTftp(data: Uint8Array): string {
  const operation = data[1] ?? 0;
  const words = () => String.fromCharCode(...data.subarray(2)).replace(/[^\x20-\x7e]+/g, " ");
  const isBlock = operation === 3 || operation === 4;
  return `TFTP ${tftpWords[operation] ?? operation}${isBlock ? "" : ` ${words().trim()}`}`;
}

function describeTcp(flags: number, data: Uint8Array): string | undefined {
  const line = /^[A-Z]{3,7}[ /][\x20-\x7e]*/.exec(String.fromCharCode(...data.subarray(0, 200)));
  if (line !== null) return `HTTP ${line[0]}`;
  if ((flags & 0x04) !== 0) return "TCP reset";
  if ((flags & 0x02) !== 0) return (flags & 0x10) !== 0 ? "TCP open, taken" : "TCP open";
  if ((flags & 0x01) !== 0) return "TCP end";
  return data.length > 0 ? "TCP data" : undefined;
}
