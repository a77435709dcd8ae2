import { expect, test } from "bun:test";
import { encodeDatagram } from "../../../src/network/dhcp/datagram.ts";
import { encodeData } from "../../../src/network-boot/protocol-tftp.ts";
import { bootStory } from "../../support/boot-capture.ts";
import { ovmfPxeDiscover } from "../../support/boot-clients.ts";
import { acknowledgeBytes, requestBytes } from "../../support/tftp-packets.ts";

const server = { address: "10.0.0.1", port: 40_000 };
const client = { address: "10.0.0.2", port: 2_070 };

/** As QEMU writes it down: a head of the file, and one for each frame. */
function capture(packets: readonly Uint8Array[]): Uint8Array {
  const records = packets.map((packet) => {
    const record = new Uint8Array(16 + 14 + packet.length);
    new DataView(record.buffer).setUint32(8, 14 + packet.length, true);
    record.set([8, 0], 16 + 12);
    record.set(packet, 16 + 14);
    return record;
  });
  return Buffer.concat([new Uint8Array(24), ...records]);
}

test("a story of a boot has a line for what it was asked and given", () => {
  const everybody = { address: "255.255.255.255", port: 67 };
  const nobody = { address: "0.0.0.0", port: 68 };
  const down = (payload: Uint8Array) => encodeDatagram({ from: server, to: client, payload });
  const up = (payload: Uint8Array) => encodeDatagram({ from: client, to: server, payload });
  const packets = [
    encodeDatagram({ from: nobody, to: everybody, payload: ovmfPxeDiscover }),
    up(requestBytes("snponly.efi", { blksize: 1_468 })),
    ...[1, 2, 3].flatMap((block) => [
      down(encodeData(block, new Uint8Array(8))),
      up(acknowledgeBytes(block)),
    ]),
  ];
  expect(bootStory(capture(packets))).toEqual([
    "0.0.0.0 → 255.255.255.255 port 67 DHCP discover, class PXEClient:Arch:00007:UNDI:003000",
    "10.0.0.2 → 10.0.0.1 TFTP read snponly.efi octet blksize 1468",
    "3 × 10.0.0.1 → 10.0.0.2 TFTP DATA",
    "3 × 10.0.0.2 → 10.0.0.1 TFTP ACK",
  ]);
});

test("a record that is not whole yet is left out", () => {
  const whole = capture([
    encodeDatagram({ from: client, to: server, payload: acknowledgeBytes(1) }),
  ]);
  expect(bootStory(whole)).toEqual(["10.0.0.2 → 10.0.0.1 TFTP ACK"]);
  expect(bootStory(whole.subarray(0, whole.length - 1))).toEqual([]);
});
