/** A network for a hundred machines, by hostler and by iproute2 with nftables. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { bunExecutable, runCommand } from "../command.ts";
import { repositoryRoot } from "../setup.ts";
import { ScriptError } from "../terminal.ts";
import type { VmBench } from "./vm-bench.ts";
import type { NetworkFindings } from "./vm-network-stage.ts";

const machines = 100;

/** In a network namespace that is gone with the program in it. */
export async function measureNetwork(bench: VmBench): Promise<NetworkFindings> {
  const folder = join(bench.files.folder, "network");
  mkdirSync(folder);
  const stage = join(repositoryRoot, "scripts", "bench", "vm-network-stage.ts");
  const rounds = bench.quick ? 5 : 20;
  const seed = Math.floor(bench.chance() * 2 ** 31);
  const numbers = [machines, rounds, seed].map(String);
  const output = await runCommand([
    ...["unshare", "--net", bunExecutable, stage, folder, bench.files.floor],
    ...numbers,
  ]);
  try {
    return JSON.parse(output) as NetworkFindings;
  } catch (cause) {
    throw new ScriptError(`The network's stage said: ${output}`, { exitCode: 1, cause });
  }
}
