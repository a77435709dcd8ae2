/**
 * Machines as far as the network goes: namespaces with an address each, on one bridge in the first
 * one's. They are gone with the processes that hold them.
 */
import { readlinkSync } from "node:fs";
import { type Program, runProgram, startProgram } from "./program.ts";
import { waitFor } from "./wait-for.ts";

export interface Network {
  /** "10.77.0.1" */
  readonly address: string;
  /** Words that run a program in it. */
  readonly enter: readonly string[];
}

/** @returns so many networks, the first of which has the bridge */
export async function makeNetworks(
  count: number,
): Promise<{ readonly networks: readonly Network[] } & AsyncDisposable> {
  await using owned = new AsyncDisposableStack();
  const holders: Program[] = [];
  for (let number = 0; number < count; number += 1) {
    holders.push(owned.use(startProgram(["unshare", "--net", "sleep", "infinity"])));
  }
  const ours = readlinkSync("/proc/self/ns/net");
  for (const { processId } of holders) {
    await waitFor("a network namespace", () => {
      return readlinkSync(`/proc/${processId}/ns/net`) !== ours;
    });
  }
  const networks = holders.map(({ processId }, number) => ({
    address: `10.77.0.${number + 1}`,
    enter: ["nsenter", `--net=/proc/${processId}/ns/net`, "--"],
  }));
  const [first] = networks;
  if (first === undefined) throw new RangeError("A network has one machine at least");
  const ip = async (network: Network, ...words: readonly string[]) => {
    const { exitCode, stderr } = await runProgram([...network.enter, "ip", ...words]);
    if (exitCode !== 0) throw new Error(`ip ${words.join(" ")}: ${stderr}`);
  };
  await ip(first, "link", "add", "bridge", "type", "bridge");
  await ip(first, "address", "add", `${first.address}/24`, "dev", "bridge");
  await ip(first, "link", "set", "bridge", "up");
  for (const [number, network] of networks.entries()) {
    await ip(network, "link", "set", "lo", "up");
    if (network === first) continue;
    const port = `port-${number}`;
    const peer = ["peer", "name", "wire", "netns", String(holders[number]?.processId)];
    await ip(first, "link", "add", port, "type", "veth", ...peer);
    await ip(first, "link", "set", port, "master", "bridge", "up");
    await ip(network, "address", "add", `${network.address}/24`, "dev", "wire");
    await ip(network, "link", "set", "wire", "up");
  }
  const kept = owned.move();
  return { networks, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}
