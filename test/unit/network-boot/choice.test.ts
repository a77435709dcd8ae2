/** What firmware is answered: real clients' messages, every architecture, every port. */
import { describe, expect, test } from "bun:test";
import { type DhcpMessage, parseMessage } from "../../../src/network/dhcp/message.ts";
import {
  architectures,
  choose,
  type Offering,
  platforms,
  react,
} from "../../../src/network-boot/lifecycle-choice.ts";
import {
  LONGEST_OFFER,
  MOST_ARCHITECTURES,
  SHORTEST_OFFER,
} from "../../../src/network-boot/limits.ts";
import {
  type BootClient,
  encodeBootAnswer,
  parseBootClient,
} from "../../../src/network-boot/protocol-pxe.ts";
import { ipxeDiscover, ovmfPxeDiscover } from "../../support/boot-clients.ts";
import { SeededChance } from "../../support/chance.ts";
import { type ClientMessage, clientMessage } from "../../support/dhcp-messages.ts";

const offering: Offering = {
  programs: {
    bios: "undionly.kpxe",
    "uefi-x64": "snponly.efi",
    "uefi-arm64": "snponly-arm64.efi",
  },
  base: "http://10.0.0.1:8067",
  serverAddress: "10.0.0.1",
};

const text = (words: string) => new TextEncoder().encode(words);

function whole(bytes: Uint8Array): DhcpMessage {
  const parsed = parseMessage(bytes);
  if (!parsed.ok) throw new Error(parsed.refusal.key);
  return parsed.value;
}

function clientOf(message: DhcpMessage): BootClient | undefined {
  const parsed = parseBootClient(message);
  if (!parsed.ok) throw new Error(`${parsed.refusal.key}: ${parsed.refusal.received}`);
  return parsed.value;
}

/** A client that says these options of itself. */
function asking(options: ClientMessage["options"]): BootClient | undefined {
  return clientOf(clientMessage("discover", { options: options ?? [] }));
}

const pxe = (architecture: number) =>
  [
    [93, Uint8Array.of(0, architecture)],
    [60, text("PXEClient")],
  ] as const;
const http = (architecture: number) =>
  [
    [93, Uint8Array.of(0, architecture)],
    [60, text("HTTPClient")],
  ] as const;

describe("real clients", () => {
  test("OVMF", () => {
    expect(clientOf(whole(ovmfPxeDiscover))).toEqual({
      class: "PXEClient",
      architectures: [7],
      isIpxe: false,
      machine: Uint8Array.fromHex("0033221100554477668899aabbccddeeff"),
      bootItem: undefined,
      wantsOptions: true,
    });
  });

  test("iPXE, which says PXEClient as well", () => {
    expect(clientOf(whole(ipxeDiscover))).toMatchObject({
      class: "PXEClient",
      architectures: [0],
      isIpxe: true,
    });
  });

  test("the answer to OVMF, byte by byte", () => {
    const message = whole(ovmfPxeDiscover);
    const client = clientOf(message);
    if (client === undefined) throw new Error("It boots");
    const bytes = encodeBootAnswer(message, client, {
      type: "offer",
      serverAddress: offering.serverAddress,
      bootFile: "snponly.efi",
    });
    const hex = bytes.toHex();
    const at = (from: number, length: number) => hex.slice(2 * from, 2 * (from + length));
    // Its transaction, and the address of nobody.
    expect(at(0, 12)).toBe("0201060096ea18bd00008000");
    expect(at(16, 4)).toBe("00000000");
    // siaddr
    expect(at(20, 4)).toBe("0a000001");
    expect(at(28, 6)).toBe("525400000007");
    expect(new TextDecoder().decode(bytes.subarray(108, 120))).toBe("snponly.efi\0");
    expect(hex.slice(2 * 236).replace(/(00)+$/, "")).toBe(
      [
        "63825363",
        "350102",
        "36040a000001",
        `3c09${text("PXEClient").toHex()}`,
        `4208${text("10.0.0.1").toHex()}`,
        "2b04060108ff",
        `430b${text("snponly.efi").toHex()}`,
        "61110033221100554477668899aabbccddeeff",
        "ff",
      ].join(""),
    );
  });
});

describe("which file for which architecture", () => {
  test("of IANA's list, over TFTP and over HTTP", () => {
    const chosen = (client: BootClient | undefined) => {
      const choice = client === undefined ? undefined : choose(client, offering);
      return choice?.kind === "boot" ? choice.bootFile : choice?.reason;
    };
    const all = Array.from({ length: 40 }, (_, number) => number);
    const table = new Map(
      all.map((number) => [number, [chosen(asking(pxe(number))), chosen(asking(http(number)))]]),
    );
    const url = `${offering.base}/snponly.efi`;
    const arm = `${offering.base}/snponly-arm64.efi`;
    expect(table.get(0)?.[0]).toBe("undionly.kpxe");
    expect(table.get(0)?.[1]).toMatch(/HTTP boot of a BIOS/);
    for (const number of [7, 9, 16]) expect(table.get(number)).toEqual(["snponly.efi", url]);
    for (const number of [11, 19]) expect(table.get(number)).toEqual(["snponly-arm64.efi", arm]);
    for (const number of [6, 15]) {
      expect(table.get(number)?.[0]).toMatch(/no program for uefi-x86: put snponly-i386.efi or/);
    }
    for (const number of all.filter((one) => !architectures.has(one))) {
      expect(table.get(number)?.[0]).toBe(
        `architecture ${number} is none that iPXE is handed out for`,
      );
    }
  });

  test("iPXE gets the script, wherever it runs and however it says its name", () => {
    for (const option of [
      [77, text("iPXE")],
      [77, text("\u0004iPXE")],
      [175, Uint8Array.of(0xeb, 3, 1, 0, 0)],
    ] as const) {
      for (const rest of [pxe(0), pxe(7), http(16), pxe(33)]) {
        const client = asking([...rest, option]);
        if (client === undefined) throw new Error("It boots");
        expect(choose(client, offering)).toEqual({
          kind: "boot",
          bootFile: "http://10.0.0.1:8067/boot.ipxe",
          platform: "ipxe",
        });
      }
    }
    expect(asking([...pxe(0), [77, text("iPXEx")]])?.isIpxe).toBe(false);
  });

  test("of several the first that there is a program for", () => {
    const client = asking([
      [93, Uint8Array.of(0, 33, 0, 6, 0, 9, 0, 0)],
      [60, text("PXEClient")],
    ]);
    if (client === undefined) throw new Error("It boots");
    expect(choose(client, offering)).toMatchObject({ bootFile: "snponly.efi" });
  });

  test("without option 93 what stands in option 60 counts", () => {
    expect(asking([[60, text("PXEClient:Arch:00009:UNDI:003016")]])?.architectures).toEqual([9]);
    const none = asking([[60, text("PXEClient\0")]]);
    if (none === undefined) throw new Error("It boots");
    expect(choose(none, offering)).toEqual({
      kind: "refuse",
      reason: "it names no architecture",
    });
  });

  test("every platform has an architecture", () => {
    expect(new Set(architectures.values())).toEqual(new Set(platforms));
  });
});

describe("who is answered, and where", () => {
  const reaction = (
    type: Parameters<typeof clientMessage>[0],
    said: ClientMessage,
    port: 67 | 4_011,
  ): string => {
    const message = clientMessage(type, said);
    const told = react(message, clientOf(message), { port, offering });
    if (told.kind === "answer") return `${told.type} ${told.choice.bootFile} to ${told.to ?? "it"}`;
    return told.kind === "refuse" ? "refused" : told.why;
  };
  const boots = { options: pxe(7) };

  test.each([
    ["discover", boots, 67, "offer snponly.efi to 255.255.255.255"],
    [
      "discover",
      { options: http(16) },
      67,
      `offer ${offering.base}/snponly.efi to 255.255.255.255`,
    ],
    // Another server's answer is taken: it is that one's.
    ["request", boots, 67, "not for this port"],
    ["inform", boots, 67, "not for this port"],
    ["release", boots, 67, "not for this port"],
    ["discover", {}, 67, "not of firmware that boots"],
    ["discover", { options: [[60, text("android-dhcp-13")]] }, 67, "not of firmware that boots"],
    ["discover", { options: [[60, text("PXEClientele")]] }, 67, "not of firmware that boots"],
    ["discover", { ...boots, relayAddress: "10.9.9.9" }, 67, "of a relay"],
    ["discover", { ...boots, direction: "reply" }, 67, "not for this port"],
    ["offer", boots, 67, "not for this port"],
    ["request", { ...boots, clientAddress: "10.0.0.7" }, 4_011, "acknowledge snponly.efi to it"],
    ["discover", boots, 4_011, "not for this port"],
    ["request", {}, 4_011, "not of firmware that boots"],
    ["discover", { options: pxe(33) }, 67, "refused"],
  ] as const)("%s %p at %p", (type, said, port, expected) => {
    expect(reaction(type, said as ClientMessage, port)).toBe(expected);
  });

  test("the entry of a menu is answered as it was asked for", () => {
    const item = Uint8Array.of(71, 4, 0, 1, 0, 0, 255);
    const message = clientMessage("request", {
      clientAddress: "10.0.0.7",
      options: [...pxe(0), [43, item]],
    });
    const client = clientOf(message);
    if (client === undefined) throw new Error("It boots");
    const bytes = encodeBootAnswer(message, client, {
      type: "acknowledge",
      serverAddress: "10.0.0.1",
      bootFile: "undionly.kpxe",
    });
    const { options, type, yourAddress, clientAddress } = whole(bytes);
    expect({ type, yourAddress, clientAddress }).toEqual({
      type: "acknowledge",
      yourAddress: "0.0.0.0",
      clientAddress: "10.0.0.7",
    });
    expect(options.get(43)?.toHex()).toBe("060108470400010000ff");
    // Nobody asked for it.
    expect(options.has(67)).toBe(false);
    expect(bytes.length).toBeGreaterThanOrEqual(SHORTEST_OFFER);
  });

  test("a file that the field has no room for goes in its option", () => {
    const message = clientMessage("discover", { options: pxe(0) });
    const client = clientOf(message);
    if (client === undefined) throw new Error("It boots");
    const long = `${"a".repeat(128)}.kpxe`;
    const answer = { type: "offer", serverAddress: "10.0.0.1", bootFile: long } as const;
    const bytes = encodeBootAnswer(message, client, answer);
    expect(whole(bytes).options.get(67)).toEqual(text(long));
    expect(bytes[108]).toBe(0);
    expect(bytes.length).toBeLessThanOrEqual(LONGEST_OFFER);
  });
});

describe("hostile messages", () => {
  test("lists of architectures that are none", () => {
    const refusal = (bytes: Uint8Array) => {
      const options = [
        [93, bytes],
        [60, text("PXEClient")],
      ] as const;
      const parsed = parseBootClient(clientMessage("discover", { options }));
      return parsed.ok ? "none" : `${parsed.refusal.expected}, not ${parsed.refusal.received}`;
    };
    expect(refusal(new Uint8Array(0))).toBe("1 to 8 numbers of 2 bytes, not 0 bytes");
    expect(refusal(new Uint8Array(3))).toBe("1 to 8 numbers of 2 bytes, not 3 bytes");
    expect(refusal(new Uint8Array(2 * MOST_ARCHITECTURES))).toBe("none");
    expect(refusal(new Uint8Array(2 * MOST_ARCHITECTURES + 2))).toMatch(/not 18 bytes/);
  });

  test("a UUID of another length is not sent back; an item that runs out is none", () => {
    expect(asking([...pxe(0), [97, new Uint8Array(200)]])?.machine).toBeUndefined();
    expect(asking([...pxe(0), [97, new Uint8Array(0)]])?.machine).toBeUndefined();
    for (const vendor of ["", "47", "47ff", "470400", "00000047", "ff4704000100"]) {
      expect(asking([...pxe(0), [43, Uint8Array.fromHex(vendor)]])?.bootItem).toBeUndefined();
    }
  });

  test("no options at all can make it throw, and no answer is too long", () => {
    const chance = new SeededChance(4_578);
    const codes = [43, 55, 60, 61, 66, 67, 77, 93, 94, 97, 175];
    for (let round = 0; round < 20_000; round += 1) {
      const options = codes
        .filter(() => chance.happens(0.5))
        .map((code) => {
          // A message with a shorter option 61 is refused before.
          const size = Math.max(2, chance.below(chance.pick([3, 18, 135]) + 1));
          return [code, Uint8Array.from({ length: size }, () => chance.below(256))] as const;
        })
        .concat(chance.happens(0.9) ? [[60, text("PXEClient:Arch:00000")]] : []);
      const message = clientMessage("discover", { options });
      const parsed = parseBootClient(message);
      if (!parsed.ok || parsed.value === undefined) continue;
      const answer = {
        type: "offer",
        serverAddress: "10.0.0.1",
        bootFile: "undionly.kpxe",
      } as const;
      const bytes = encodeBootAnswer(message, parsed.value, answer);
      expect(bytes.length).toBeLessThanOrEqual(LONGEST_OFFER);
      expect(whole(bytes).yourAddress).toBe("0.0.0.0");
    }
  });
});
