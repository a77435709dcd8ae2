/** What the numbers were made on. */
import { cpus, release } from "node:os";
import { runCommand, tryCommand } from "../command.ts";

/** The machine, and the file under measurement. */
export interface Host {
  readonly processor: string;
  readonly cores: number;
  readonly kernel: string;
  /** What hostler says of itself, by the first word: hostler, commit, Bun, libc. */
  readonly hostler: Readonly<Record<string, string>>;
}

export interface Machine extends Host {
  /** Name and version of each peer. */
  readonly peers: Readonly<Record<string, string>>;
}

/** @param hostler the file under measurement */
export async function describeHost(hostler: string): Promise<Host> {
  const words = (await runCommand([hostler, "--version"])).trim().split("\n");
  const processors = cpus();
  return {
    processor: processors[0]?.model.trim() ?? "unknown",
    cores: processors.length,
    kernel: release(),
    hostler: Object.fromEntries(
      words.map((line) => [line.split(" ")[0] ?? "", line.slice(line.indexOf(" ") + 1)]),
    ),
  };
}

/** @param hostler the file under measurement @param pm2 the version that was installed */
export async function describeMachine(hostler: string, pm2: string): Promise<Machine> {
  const debian = async (name: string) => {
    const { exitCode, output } = await tryCommand(["dpkg-query", "--show", name]);
    return (exitCode === 0 ? output.trim().split("\t")[1] : undefined) ?? "of unknown version";
  };
  return {
    ...(await describeHost(hostler)),
    peers: {
      s6: await debian("s6"),
      runit: await debian("runit"),
      supervisord: await debian("supervisor"),
      pm2,
      node: (await tryCommand(["node", "--version"])).output.trim().replace(/^v/, ""),
    },
  };
}
