import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { PacketSocket } from "../../../../ffi/packet-socket.ts";
import { pollDescriptor } from "../../../../ffi/poll.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { nextTurn } from "../../../store/files.ts";
import type { Milliseconds } from "../../../units/units.ts";
import {
  PAIRS_TASK,
  type Pair,
  type PairsInput,
  type PairsReport,
  pairsInputSchema,
  pairsReportSchema,
} from "../../tasks/pairs.ts";
import { LinkState } from "../link-state.ts";
import { defineTask, type TaskContext, TaskRefused } from "../task.ts";
import { LEAST_FRAME, PairFrames } from "../throughput/pair-frames.ts";

/** Frames from each card of the host to each other one. */
export const pairsTask = defineTask({
  name: PAIRS_TASK,
  input: pairsInputSchema,
  report: pairsReportSchema,
  run: tryPairs,
});

/** "Local experimental", of IEEE 802: nobody else's, and no address is needed for it. */
const ETHER_TYPE = 0x88b5;
/** Frames under way: so many fit into the memory of any card, and of our socket. */
const WINDOW = 16;
/** How long a frame may be under way. */
const ARRIVES_WITHIN: Milliseconds = 500;

interface Port {
  readonly name: string;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly socket: PacketSocket;
}

async function tryPairs(input: PairsInput, context: TaskContext): Promise<PairsReport> {
  using owned = new DisposableStack();
  const ports: Port[] = [];
  const until = monotonicNow() + input.carrier_wait_s * 1_000;
  const links = input.cards.flatMap((card) => bringUp(card, owned) ?? []);
  for (const link of links) {
    const port = await openPort(link, { until, signal: context.signal });
    if (port !== undefined) ports.push(owned.adopt(port, ({ socket }) => socket[Symbol.dispose]()));
  }
  const pairs: Pair[] = [];
  const total = ports.length * (ports.length - 1);
  for (const from of ports) {
    for (const to of ports) {
      if (from === to || context.signal.aborted) continue;
      pairs.push(await tryPair(from, to, { frames: input.frames, signal: context.signal }));
      context.tell({ kind: "progress", done: pairs.length, total });
    }
  }
  return { pairs };
}

/** Put back when all is done. @returns undefined: it is not there, which its own test tells */
function bringUp(card: PairsInput["cards"][number], owned: DisposableStack) {
  const link = owned.use(new LinkState(card));
  try {
    if (!link.health().isUp) {
      link.setUp(true);
      owned.defer(() => link.setUp(false));
    }
    return { link, name: card.name };
  } catch (error) {
    if (error instanceof TaskRefused) return undefined;
    throw error;
  }
}

async function openPort(
  { link, name }: { readonly link: LinkState; readonly name: string },
  { until, signal }: { readonly until: number; readonly signal: AbortSignal },
): Promise<Port | undefined> {
  const look = () => {
    const health = link.health();
    return health.isUp && health.carrier !== false ? health : undefined;
  };
  const health = await link.wait(look, Math.max(0, until - monotonicNow()), signal);
  if (health?.macAddress === undefined) return undefined;
  const mtu = Math.max(LEAST_FRAME, health.mtu);
  const socket = PacketSocket.open({ interface: health.index, protocol: ETHER_TYPE, longest: mtu });
  return { name, mac: Uint8Array.fromHex(health.macAddress.replaceAll(":", "")), mtu, socket };
}

/** A window at a time, so that what is lost was lost by the link, and not by us. */
async function tryPair(
  from: Port,
  to: Port,
  { frames, signal }: { readonly frames: number; readonly signal: AbortSignal },
): Promise<Pair> {
  const sending = new PairFrames(Math.min(from.mtu, to.mtu));
  let sent = 0;
  while (sent < frames && !signal.aborted) {
    const end = Math.min(frames, sent + WINDOW);
    for (; sent < end; sent += 1) from.socket.send(sending.frame(sent), to.mac);
    receive(to.socket, sending, sent);
    await nextTurn();
    // Nothing of the first ones came: there is no way between them.
    if (sending.received === 0) break;
  }
  const { received, wrong } = sending;
  return { from: from.name, to: to.name, sent, received, wrong };
}

/** Until all that was sent is there, or nothing has come for too long. */
function receive(socket: PacketSocket, frames: PairFrames, sent: number): void {
  let until = monotonicNow() + ARRIVES_WITHIN;
  while (frames.received < sent) {
    const packet = socket.receive();
    if (typeof packet !== "number") {
      if (packet.kind === "host" && frames.take(packet.bytes)) {
        until = monotonicNow() + ARRIVES_WITHIN;
      }
      continue;
    }
    const left = until - monotonicNow();
    if (left <= 0 || !waitsFor(socket.descriptor, left)) return;
  }
}

const waitsFor = (descriptor: OwnedDescriptor, time: Milliseconds): boolean =>
  pollDescriptor(descriptor, "readable", time);
