import { PacketSocket } from "../../../../ffi/packet-socket.ts";
import { pollDescriptor } from "../../../../ffi/poll.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { nextTurn } from "../../../store/files.ts";
import type { Milliseconds, MonotonicTime } from "../../../units/units.ts";
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
/** Frames under way: so many of the longest fit into the memory that a socket has by itself. */
const WINDOW = 8;
/** How long a frame may be under way. */
const ARRIVES_WITHIN: Milliseconds = 500;

interface Port {
  readonly name: string;
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly socket: PacketSocket;
}

/** One direction, and the frames by which it is found out whether there is a way at all. */
interface Way {
  readonly from: Port;
  readonly to: Port;
  readonly probe: PairFrames;
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
  const ways = ports.flatMap((from) =>
    ports
      .filter((to) => to !== from)
      .map((to): Way => ({ from, to, probe: new PairFrames(LEAST_FRAME) })),
  );
  // Behind a card that has just come up a switch may take nothing for a while.
  const isNew = links.some(({ wasDown }) => wasDown);
  const patience = isNew ? input.carrier_wait_s * 1_000 : 0;
  const probes = await findWays(ways, {
    ...{ until: monotonicNow() + patience, signal: context.signal },
  });
  const pairs: Pair[] = [];
  for (const { from, to } of ways) {
    if (context.signal.aborted) break;
    const isWay = ways.some(
      ({ probe, ...way }) =>
        probe.received > 0 && [from, to].includes(way.from) && [from, to].includes(way.to),
    );
    const none = { from: from.name, to: to.name, sent: probes, received: 0, wrong: 0 };
    const options = { frames: input.frames, signal: context.signal };
    pairs.push(isWay ? await tryPair(from, to, options) : none);
    context.tell({ kind: "progress", done: pairs.length, total: ways.length });
  }
  return { pairs };
}

/** Put back when all is done. @returns undefined: it is not there, which its own test tells */
function bringUp(card: PairsInput["cards"][number], owned: DisposableStack) {
  const link = owned.use(new LinkState(card));
  try {
    const wasDown = !link.health().isUp;
    if (wasDown) {
      link.setUp(true);
      owned.defer(() => link.setUp(false));
    }
    return { link, name: card.name, wasDown };
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

/**
 * Sends a frame by each way of which nothing came yet, once at least, and until the time is over.
 * @returns how many were sent by a way of which nothing came
 */
async function findWays(
  ways: readonly Way[],
  { until, signal }: { readonly until: MonotonicTime; readonly signal: AbortSignal },
): Promise<number> {
  for (let sent = 0; ; ) {
    const silent = ways.filter(({ probe }) => probe.received === 0);
    if (silent.length === 0 || signal.aborted || (sent > 0 && monotonicNow() >= until)) return sent;
    for (const { from, to, probe } of silent) send(from, to, probe.frame(sent));
    sent += 1;
    const end = monotonicNow() + ARRIVES_WITHIN;
    for (const { to } of silent) {
      const coming = silent.filter((way) => way.to === to);
      receive(to.socket, end, (bytes) => {
        for (const { probe } of coming) probe.take(bytes);
        return coming.every(({ probe }) => probe.received > 0);
      });
      await nextTurn();
    }
  }
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
    const window = Math.min(WINDOW, frames - sent);
    const wanted = sending.received + window;
    for (const next = sent + window; sent < next; sent += 1) send(from, to, sending.frame(sent));
    const end = monotonicNow() + ARRIVES_WITHIN;
    receive(to.socket, end, (bytes) => sending.take(bytes) && sending.received >= wanted);
    await nextTurn();
  }
  // One of an earlier window that came late has let the last one go too soon.
  const end = monotonicNow() + ARRIVES_WITHIN;
  if (sending.received < sent) {
    receive(to.socket, end, (bytes) => sending.take(bytes) && sending.received >= sent);
  }
  const { received, wrong } = sending;
  return { from: from.name, to: to.name, sent, received, wrong };
}

/** A card without room is waited for; what it does not take then is lost as any other. */
function send({ socket }: Port, to: Port, frame: Uint8Array): void {
  if (socket.send(frame, to.mac) >= 0) return;
  if (pollDescriptor(socket.descriptor, "writable", ARRIVES_WITHIN)) socket.send(frame, to.mac);
}

/** Until `take` says that it is enough, or the time is over: others send such frames as well. */
function receive(
  socket: PacketSocket,
  end: MonotonicTime,
  take: (bytes: Uint8Array) => boolean,
): void {
  for (let left = 1; left > 0; left = end - monotonicNow()) {
    const packet = socket.receive();
    if (typeof packet !== "number") {
      if (packet.kind === "host" && take(packet.bytes)) return;
    } else if (!pollDescriptor(socket.descriptor, "readable", left)) return;
  }
}
