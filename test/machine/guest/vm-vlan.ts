/** In a guest whose kernel has VLANs: a network of virtual machines that is in one. */
import { readInto, writeFrom } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openTap } from "../../../ffi/tun.ts";
import { applyNetwork, observeNetwork } from "../../../src/network/kernel-network.ts";
import { planNetwork } from "../../../src/network/plan.ts";
import type { NetworkCard } from "../../../src/network/specification.ts";
import { parseIpv4, parseMacAddress } from "../../../src/network/subnet.ts";
import { cardOf, desiredOf } from "../../support/network-world.ts";
import { type Case, requireEqual, tellCases } from "./tell.ts";
import type { vlanCases } from "./vm-vlan-cases.ts";

const virtioHeaderSize = 12;
const everyone = "ffffffffffff";
const gateway = "10.100.0.1";
const bridge = "br-procurator";

const first = cardOf(2, { vlan: 20 });
const second = cardOf(3, { vlan: 20 });
const elsewhere = cardOf(4, { vlan: 30 });
const cards = [first, second, elsewhere];

/** @returns what was refused, and what a second pass would do */
function apply(vlan: number | undefined) {
  const desired = desiredOf(cards, { vlan });
  const { operations, refusals } = planNetwork(desired, observeNetwork());
  const refused = applyNetwork(operations).map(({ reason }) => reason);
  const again = planNetwork(desired, observeNetwork()).operations.map(({ kind }) => kind);
  return { refusals, refused, again };
}

const nothing = { refusals: [], refused: [], again: [] };

const memory = new NativeMemory(70_000);
const taps = new Map<string, OwnedDescriptor>();

/** A machine's end of its TAP. */
function tapOf({ tap }: NetworkCard): OwnedDescriptor {
  const known = taps.get(tap);
  if (known !== undefined) return known;
  const opened = openTap({ name: tap, as: "existing" });
  if (typeof opened === "number") throw new Error(`${tap}: error ${-opened}`);
  taps.set(tap, opened);
  return opened;
}

/** Frames that came to it and wait. */
function heardBy(card: NetworkCard): string[] {
  const tap = tapOf(card);
  const frames: string[] = [];
  for (let size = readInto(tap, memory); size > 0; size = readInto(tap, memory)) {
    frames.push(memory.bytes.slice(virtioHeaderSize, size).toHex());
  }
  return frames;
}

const hexOf = (address: string) => (parseIpv4(address) ?? 0).toString(16).padStart(8, "0");
const macOf = ({ macAddress }: NetworkCard) => parseMacAddress(macAddress)?.toHex() ?? "";

/** A machine asks who has an address: the frame, as others hear it. */
function ask(card: NetworkCard, target: string): string {
  const mac = macOf(card);
  const body = `0001080006040001${mac}${hexOf(card.address)}000000000000${hexOf(target)}`;
  const frame = `${everyone}${mac}0806${body}`;
  const bytes = Uint8Array.fromHex(frame);
  memory.bytes.fill(0, 0, virtioHeaderSize);
  memory.bytes.set(bytes, virtioHeaderSize);
  writeFrom(tapOf(card), memory, virtioHeaderSize + bytes.length);
  return frame;
}

/** An answer to it from the gateway: the second kind of ARP, and the sender's address. */
const isAnswer = (frame: string) =>
  frame.slice(24, 44) === "08060001080006040002" && frame.slice(56, 64) === hexOf(gateway);

/** Asks until it is answered. @returns what all cards have heard meanwhile */
async function reaches(card: NetworkCard): Promise<ReadonlyMap<NetworkCard, string[]>> {
  const heard = new Map(cards.map((one) => [one, heardBy(one)]));
  const until = performance.now() + 30_000;
  while (performance.now() < until) {
    ask(card, gateway);
    for (const [one, frames] of heard) frames.push(...heardBy(one));
    if (heard.get(card)?.some(isAnswer) === true) return heard;
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  throw new Error(`nobody answers ${card.tap}`);
}

/** What came before is no matter any more. */
function forget(): void {
  for (const card of cards) heardBy(card);
}

/** Links, and the VLANs that each is in. */
function vlans(): Record<string, readonly number[]> {
  const { links, vlans: found } = observeNetwork();
  const ours = links.filter(({ name }) => name === bridge || name.startsWith("tap-"));
  return Object.fromEntries(ours.map(({ name, index }) => [name, found?.get(index) ?? []]));
}

const cases: Readonly<Record<(typeof vlanCases)[number], Case>> = {
  "a network in a VLAN is made, and a second pass does nothing": () => {
    return requireEqual(apply(20), nothing);
  },
  "bridge and cards are in it, and in no other": () =>
    requireEqual(vlans(), {
      [bridge]: [20],
      [first.tap]: [20],
      [second.tap]: [20],
      [elsewhere.tap]: [30],
    }),
  "a card reaches the gateway and another card of its VLAN": async () => {
    forget();
    const asked = ask(first, gateway);
    const heard = await reaches(first);
    return requireEqual(heard.get(second)?.includes(asked), true);
  },
  "a card of another VLAN reaches neither, and hears nothing": async () => {
    forget();
    const asked = ask(elsewhere, gateway);
    // Whoever is answered after it shows that it was not: a frame is forwarded when it is written.
    const heard = await reaches(first);
    requireEqual(heard.get(elsewhere), []);
    return requireEqual(heard.get(second)?.includes(asked), false);
  },
  "the gateway is moved into another VLAN, and who is there reaches it": async () => {
    requireEqual(apply(30), nothing);
    requireEqual(vlans()[bridge], [30]);
    forget();
    const asked = ask(first, gateway);
    const heard = await reaches(elsewhere);
    requireEqual(heard.get(elsewhere)?.includes(asked), false);
    return requireEqual(heard.get(first)?.some(isAnswer), false);
  },
  "all of it goes": () => {
    for (const tap of taps.values()) tap.close();
    const { operations } = planNetwork({ owner: "w1", networks: [] }, observeNetwork());
    requireEqual(applyNetwork(operations), []);
    return requireEqual(vlans(), {});
  },
};

process.exitCode = (await tellCases(cases)) === 0 ? 0 : 1;
