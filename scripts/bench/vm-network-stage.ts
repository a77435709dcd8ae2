/**
 * Runs in a network namespace of the bench, as a program: makes the network of so many machines by
 * hostler and by iproute2 with nftables in turn, from nothing each time, and compares the results.
 *
 *   vm-network-stage.ts FOLDER FLOOR MACHINES ROUNDS SEED
 *
 * Prints one line of JSON: NetworkFindings.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { macAddressOf, tapNameOf } from "../../src/network/addresses.ts";
import { applyNetwork, observeNetwork } from "../../src/network/kernel-network.ts";
import { describeOperation, planNetwork } from "../../src/network/plan.ts";
import {
  DEFAULT_BRIDGE,
  type DesiredNetworks,
  readNetworkSpecification,
} from "../../src/network/specification.ts";
import { formatIpv4, parseIpv4 } from "../../src/network/subnet.ts";
import { runCommand } from "../command.ts";
import { ScriptError } from "../terminal.ts";
import { chanceFrom, shuffle } from "./statistics.ts";
import { millisecondsAfter } from "./vm-bench.ts";
import { batchOf, canonical, differencesOf } from "./vm-network-batch.ts";

/** What the stage says. */
export interface NetworkFindings {
  readonly machines: number;
  /** Milliseconds, by round. */
  readonly hostler: readonly number[];
  readonly tools: readonly number[];
  /** Milliseconds of looking once more at what is as it should be, which changes nothing. */
  readonly again: readonly number[];
  /** What was compared: objects of nft's listing, links and addresses of ip's. */
  readonly compared: { readonly rules: number; readonly links: number; readonly addresses: number };
  /** Where the sides differ; empty when they do not. */
  readonly differences: readonly string[];
}

/** The first user that a VMM gets. */
const firstUser = 2_100_000_000;

/** The network that a worker makes for so many machines. */
function desire(machines: number): DesiredNetworks {
  const owner = DEFAULT_BRIDGE;
  const read = readNetworkSpecification({});
  if ("refusal" in read) throw new Error(`Bug: the default network: ${read.refusal.received}`);
  const gateway = parseIpv4(read.specification.gateway) ?? 0;
  const taken = new Set<string>();
  const cards = Array.from({ length: machines }, (_item, index) => {
    const machine = `machine-${index}`;
    const identity = { worker: owner, machine, card: "0" };
    const tap = tapNameOf(identity, (name) => taken.has(name)) ?? "";
    taken.add(tap);
    return {
      machine,
      tap,
      macAddress: macAddressOf(identity),
      address: formatIpv4(gateway + 1 + index),
      ipv6Address: undefined,
      ownerUser: firstUser + index,
      vlan: undefined,
      pin: true,
      allowList: undefined,
    };
  });
  return { owner, networks: [{ specification: read.specification, cards }] };
}

/** @returns milliseconds */
function makeByHostler(desired: DesiredNetworks): number {
  const begin = performance.now();
  const { operations, refusals } = planNetwork(desired, observeNetwork());
  const refused = applyNetwork(operations);
  const taken = performance.now() - begin;
  const [problem] = [
    ...refusals.map(({ reason }) => reason),
    ...refused.map(({ operation, reason }) => `${describeOperation(operation)}: ${reason}`),
  ];
  if (problem !== undefined) throw new ScriptError(problem, { exitCode: 1 });
  return taken;
}

/** @returns milliseconds of planning what is there already */
function planAgain(desired: DesiredNetworks): number {
  const begin = performance.now();
  const { operations } = planNetwork(desired, observeNetwork());
  const taken = performance.now() - begin;
  const [first] = operations;
  if (first === undefined) return taken;
  throw new ScriptError(`A second pass would ${describeOperation(first)}`, { exitCode: 1 });
}

interface Files {
  readonly floor: string;
  readonly batch: string;
  readonly rules: string;
}

/** @returns milliseconds of both programs together */
async function makeByTools({ floor, batch, rules }: Files): Promise<number> {
  const links = await runCommand([floor, "time", "ip", "-batch", batch]);
  const rest = await runCommand([floor, "time", "nft", "-f", rules]);
  return millisecondsAfter("took", links) + millisecondsAfter("took", rest);
}

const listingOf = async (...words: string[]) =>
  canonical(JSON.parse(await runCommand(words))) as unknown[];

/** All that there is, as the tools see it. */
async function observe() {
  const nft = JSON.parse(await runCommand(["nft", "-j", "list", "ruleset"])) as {
    readonly nftables: readonly unknown[];
  };
  return {
    rules: canonical(nft.nftables) as unknown[],
    links: await listingOf("ip", "-j", "-d", "link"),
    addresses: await listingOf("ip", "-j", "-4", "address"),
  };
}

/** All at once: one link after another takes the kernel a round of waiting each. */
async function clear(desired: DesiredNetworks, folder: string): Promise<void> {
  const names = desired.networks.flatMap(({ cards, specification }) => [
    ...cards.map(({ tap }) => tap),
    specification.bridge,
  ]);
  const path = join(folder, "clear");
  const lines = [...names.map((name) => `link set dev ${name} group 7`), "link delete group 7"];
  writeFileSync(path, `${lines.join("\n")}\n`);
  await runCommand(["nft", "flush", "ruleset"]);
  await runCommand(["ip", "-batch", path]);
}

async function main(): Promise<NetworkFindings> {
  const [folder = "", floor = "", machines = "", rounds = "", seed = ""] = process.argv.slice(2);
  const desired = desire(Number(machines));
  const files = { floor, batch: join(folder, "links"), rules: join(folder, "rules") };
  const { operations } = planNetwork(desired, observeNetwork());
  writeFileSync(files.batch, `${batchOf(operations)}\n`);
  makeByHostler(desired);
  writeFileSync(files.rules, await runCommand(["nft", "list", "ruleset"]));
  const ours = await observe();
  await clear(desired, folder);
  await makeByTools(files);
  const theirs = await observe();
  await clear(desired, folder);
  const samples = { hostler: [] as number[], tools: [] as number[], again: [] as number[] };
  const chance = chanceFrom(Number(seed));
  for (let round = 0; round < Number(rounds); round += 1) {
    for (const side of shuffle(["hostler", "tools"] as const, chance)) {
      const isOurs = side === "hostler";
      samples[side].push(isOurs ? makeByHostler(desired) : await makeByTools(files));
      if (isOurs) samples.again.push(planAgain(desired));
      await clear(desired, folder);
    }
  }
  return {
    machines: desired.networks[0]?.cards.length ?? 0,
    ...samples,
    compared: {
      rules: ours.rules.length,
      links: ours.links.length,
      addresses: ours.addresses.length,
    },
    differences: [
      ...differencesOf(ours.rules, theirs.rules),
      ...differencesOf(ours.links, theirs.links),
      ...differencesOf(ours.addresses, theirs.addresses),
    ],
  };
}

if (import.meta.main) console.log(JSON.stringify(await main()));
