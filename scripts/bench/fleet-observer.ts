/**
 * Hears what one device says, as whoever has its identity may: FOLDER of that identity. Each word
 * is a line of JSON, with the milliseconds since this program began.
 */
import { join } from "node:path";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { DeviceSession } from "../../src/fleet/perform/device-session.ts";
import { candidateKey, canonicalKey, fleetBuckets } from "../../src/fleet/protocol.ts";
import { readHeartbeat } from "../../src/fleet/protocol-read.ts";
import { repositoryRoot } from "../setup.ts";

/** A word of a device. */
export interface Heard {
  readonly at: number;
  readonly what: "canonical" | "candidate" | "status";
  /** The instance that beats, or the phase that it is in. */
  readonly who: string;
  readonly version: string;
}

const [folder = ""] = process.argv.slice(2);
const loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
const session = new DeviceSession(loop, folder, {
  onOpen: () => {},
  onFailure: (reason) => console.error(reason),
  onTrouble: (message) => console.error(message),
});

const say = (heard: Omit<Heard, "at">) =>
  process.stdout.write(`${JSON.stringify({ at: performance.now(), ...heard })}\n`);

async function follow(bucket: string, key: string, hear: (value: string) => void): Promise<void> {
  let isListed = true;
  for await (const event of session.store.watch(bucket, key)) {
    if (event.kind === "synced") {
      isListed = false;
      process.stdout.write("listening\n");
    } else if (event.kind === "entry" && !isListed) hear(event.entry.value);
  }
}

function hearBeats(what: "canonical" | "candidate", key: string): Promise<void> {
  return follow(fleetBuckets.heartbeats, key, (value) => {
    const read = readHeartbeat(value);
    if (read.kind !== "ok") return;
    const { instance: who, version } = read.value;
    say({ what, who, version });
  });
}

const { device } = session;
await Promise.all([
  hearBeats("canonical", canonicalKey(device)),
  hearBeats("candidate", candidateKey(device)),
  follow(fleetBuckets.statuses, device, (value) => {
    const { phase, current } = JSON.parse(value);
    say({ what: "status", who: phase, version: current.version });
  }),
]);
