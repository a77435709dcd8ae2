/**
 * TFTP transfers over a wire that loses, doubles and delays, with clients of several kinds: each
 * ends, what is whole is right, and nobody is sent more than the bounds allow.
 */
import { expect, test } from "bun:test";
import {
  agree,
  begin,
  type Outcome,
  step,
  type TransferEffect,
  type TransferState,
} from "../../src/network-boot/lifecycle-transfer.ts";
import { MOST_REPEATS, UNANSWERED_REPEATS } from "../../src/network-boot/limits.ts";
import { readAskedOptions } from "../../src/network-boot/protocol-tftp.ts";
import { SeededChance } from "../support/chance.ts";

const RUNS = 400;
const seed = Number(process.env["HOSTLER_TEST_SEED"] ?? 20_261_130);

interface Wire {
  readonly loses: number;
  readonly doubles: number;
  readonly longestDelay: number;
}

type Packet =
  | { readonly to: "client"; readonly block: number }
  | { readonly to: "server"; readonly block: number }
  | { readonly to: "clock" };

/** A client of RFC 1350 and 7440: it takes blocks in their order, and tells how far it is. */
class Client {
  /** Blocks that it has, counted on beyond 65,535. */
  has = 0;
  #inWindow = 0;
  readonly #window: number;
  readonly #last: number;

  constructor(window: number, last: number) {
    this.#window = window;
    this.#last = last;
  }

  get isWhole(): boolean {
    return this.has === this.#last;
  }

  /** @returns the block that it acknowledges, or undefined */
  take(block: number): number | undefined {
    const ahead = (block - this.has) & 0xffff;
    if (ahead !== 1) {
      this.#inWindow = 0;
      return this.has & 0xffff;
    }
    this.has += 1;
    this.#inWindow += 1;
    if (this.#inWindow < this.#window && !this.isWhole) return undefined;
    this.#inWindow = 0;
    return this.has & 0xffff;
  }
}

class Simulation {
  readonly #chance: SeededChance;
  readonly #wire: Wire;
  readonly #agenda: { at: number; packet: Packet }[] = [];
  #now = 1_000;
  sent = 0;
  state: TransferState;
  readonly client: Client;

  constructor(chance: SeededChance, wire: Wire, size: number) {
    this.#chance = chance;
    this.#wire = wire;
    const options: [string, string][] = [];
    if (chance.happens(0.7)) options.push(["blksize", chance.pick(["8", "512", "1468"])]);
    if (chance.happens(0.5)) options.push(["windowsize", String(1 + chance.below(40))]);
    if (chance.happens(0.3)) options.push(["tsize", "0"]);
    const terms = agree(readAskedOptions(new Map(options)), size, this.#now);
    this.client = new Client(terms.windowBlocks, terms.lastBlock);
    const first = begin(terms, this.#now);
    this.state = first.state;
    this.#perform(first.effects);
  }

  run(): void {
    for (let turns = 0; this.#agenda.length > 0 && this.state.phase !== "ended"; turns += 1) {
      if (turns > 200_000) throw new Error("It goes on for ever");
      const next = this.#agenda.shift();
      if (next === undefined) return;
      this.#now = Math.max(this.#now, next.at);
      this.#deliver(next.packet);
    }
  }

  #deliver(packet: Packet): void {
    if (packet.to === "clock") {
      this.#apply(step(this.state, { kind: "time" }, this.#now));
      return;
    }
    if (packet.to === "server") {
      const before = this.state;
      const outcome = step(before, { kind: "acknowledge", block: packet.block }, this.#now);
      this.#apply(outcome);
      return;
    }
    const answer = packet.block < 0 ? 0 : this.client.take(packet.block);
    if (answer !== undefined) this.#send({ to: "server", block: answer });
  }

  #apply({ state, effects }: Outcome): void {
    this.state = state;
    this.#perform(effects);
  }

  #perform(effects: readonly TransferEffect[]): void {
    for (const effect of effects) {
      if (effect.kind === "wake") this.#put(effect.at, { to: "clock" });
      if (effect.kind === "send-options") this.#send({ to: "client", block: -1 });
      if (effect.kind !== "send-blocks") continue;
      for (let block = effect.first; block <= effect.last; block += 1) {
        this.#send({ to: "client", block: block & 0xffff });
      }
    }
  }

  #send(packet: Packet): void {
    if (packet.to === "client") this.sent += 1;
    const { loses, doubles, longestDelay } = this.#wire;
    for (const _copy of this.#chance.happens(doubles) ? [1, 2] : [1]) {
      if (this.#chance.happens(loses)) continue;
      this.#put(this.#now + 1 + this.#chance.below(longestDelay), packet);
    }
  }

  /** In the order of their times. */
  #put(at: number, packet: Packet): void {
    // There is one clock: a later time takes the place of the one before.
    const before = this.#agenda.findIndex((one) => one.packet.to === "clock");
    if (packet.to === "clock" && before >= 0) this.#agenda.splice(before, 1);
    const place = this.#agenda.findLastIndex((one) => one.at <= at);
    this.#agenda.splice(place + 1, 0, { at, packet });
  }
}

function simulate(run: number, wire: Wire, size: number): Simulation {
  const simulation = new Simulation(new SeededChance(seed + run), wire, size);
  simulation.run();
  return simulation;
}

test("whatever becomes of the packets, each transfer ends, and what is done is whole", () => {
  const chance = new SeededChance(seed);
  let done = 0;
  for (let run = 0; run < RUNS; run += 1) {
    const wire = {
      loses: chance.pick([0, 0.02, 0.2]),
      doubles: chance.pick([0, 0.05, 0.5]),
      longestDelay: chance.pick([1, 20, 300]),
    };
    const size = chance.pick([0, 1, 511, 512, 513, 5_000]);
    const { state, client } = simulate(run, wire, size);
    expect({ run, phase: state.phase }).toEqual({ run, phase: "ended" });
    if (state.phase !== "ended") continue;
    if (state.ending === "done") {
      done += 1;
      expect({ run, whole: client.isWhole }).toEqual({ run, whole: true });
    } else expect({ run, ending: state.ending }).toEqual({ run, ending: "no answer" });
  }
  // A wire that loses a fifth is the worst: most come through all the same.
  expect(done).toBeGreaterThan(RUNS * 0.8);
});

test("doubled packets double nothing but themselves", () => {
  for (let run = 0; run < 100; run += 1) {
    const wire = { loses: 0, doubles: 1, longestDelay: 5 };
    const { state, sent } = simulate(run, wire, 5_000);
    if (state.phase !== "ended") throw new Error("It goes on");
    const single = simulate(run, { ...wire, doubles: 0 }, 5_000);
    // A window may be repeated once for each ACK; blocks without windows never are.
    expect(sent).toBeLessThanOrEqual(2 * single.sent + 1);
  }
});

test("numbers go on after 65,535 on a bad wire", () => {
  const wire = { loses: 0.001, doubles: 0.01, longestDelay: 1 };
  // 8 bytes a block, where the chance is so: 66,000 blocks.
  let long = 0;
  for (let run = 0; long < 2 && run < 40; run += 1) {
    const chance = new SeededChance(seed + run);
    if (!chance.happens(0.7) || chance.pick(["8", "512", "1468"]) !== "8") continue;
    long += 1;
    const { state, client } = simulate(run, wire, 66_000 * 8);
    expect(state).toEqual({ phase: "ended", ending: "done" });
    expect(client.has).toBe(66_001);
  }
  expect(long).toBe(2);
});

test("a client that is not there is sent no more than the bounds say", () => {
  for (let run = 0; run < 100; run += 1) {
    const { state, sent } = simulate(run, { loses: 1, doubles: 0, longestDelay: 1 }, 5_000);
    expect(state).toEqual({ phase: "ended", ending: "no answer" });
    expect(sent).toBe(1 + UNANSWERED_REPEATS);
    expect(UNANSWERED_REPEATS).toBeLessThan(MOST_REPEATS);
  }
});
