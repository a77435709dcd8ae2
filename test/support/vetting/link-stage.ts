/** An orchestrator and a host under test, with a cable between them that the test made. */
import type { TaskLine } from "../../../src/vetting/protocol-task.ts";
import { LINK_TASK, type LinkInput, linkReportSchema } from "../../../src/vetting/tasks/link.ts";
import { hostler, repositoryRoot } from "../binary.ts";
import { makeNetworks, type Network } from "../networks.ts";
import { runProgram, startProgram } from "../program.ts";
import { reportOfTask, startTask } from "./run-task.ts";

export const LINK_KEY = "00112233445566778899aabbccddeeff";

interface LinkFacts {
  readonly address: string;
  readonly flags: readonly string[];
  readonly stats64: { readonly rx: { readonly bytes: number } };
}

export async function ip(of: Network, ...words: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await runProgram([...of.enter, "ip", ...words]);
  if (exitCode !== 0) throw new Error(`ip ${words.join(" ")}: ${stderr}`);
  return stdout;
}

export async function linkOf(of: Network, name: string): Promise<LinkFacts> {
  const [link] = JSON.parse(await ip(of, "-s", "-j", "link", "show", name)) as LinkFacts[];
  if (link === undefined) throw new Error(`No link ${name}`);
  return link;
}

/** An orchestrator at one end of a cable, a host under test with the card "wire" at the other. */
export async function makeLinkStage(
  options: { readonly tool?: boolean; readonly serverPath?: string } = {},
) {
  await using owned = new AsyncDisposableStack();
  const made = owned.use(await makeNetworks(2));
  const [orchestrator, host] = made.networks;
  if (orchestrator === undefined || host === undefined) throw new Error("Expected two networks");
  const script = `${repositoryRoot}/test/support/programs/throughput-server.ts`;
  const words = [process.execPath, script, "::", "0", "7", LINK_KEY, hostler()];
  if (options.tool === true) words.push("tool");
  const path = options.serverPath ?? process.env["PATH"] ?? "";
  const server = owned.use(startProgram([...orchestrator.enter, "env", `PATH=${path}`, ...words]));
  const port = Number((await server.said(/listening on (\d+)/))[1]);
  const { address: mac } = await linkOf(host, "wire");
  const input = (parts: Partial<LinkInput> = {}): LinkInput => ({
    ...{ name: "wire", mac, carrier_wait_s: 10, duration_s: 0.5, turn_wait_s: 20 },
    test: { host: orchestrator.address, port, run: 7, key: LINK_KEY },
    ...parts,
  });
  const start = (
    parts: Partial<LinkInput> = {},
    onLine: (line: TaskLine) => void = () => {},
    tools: string = process.env["PATH"] ?? "",
  ) => {
    const order = { task: LINK_TASK, input: input(parts) };
    const program = [...host.enter, "env", `PATH=${tools}`, hostler()];
    return startTask(program, order, { onLine });
  };
  const run = (parts: Partial<LinkInput> = {}, tools?: string) =>
    reportOfTask(start(parts, undefined, tools), linkReportSchema);
  const kept = owned.move();
  return {
    ...{ orchestrator, host, server, mac, port, start, run },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** One more card of the host. @returns its address */
export async function addCard(
  { orchestrator, host }: { readonly orchestrator: Network; readonly host: Network },
  { name, at }: { readonly name: string; readonly at: "bridge" | "nothing" },
): Promise<string> {
  const port = `port-${name}`;
  const process = /\/proc\/(\d+)\/ns/.exec(host.enter.join(" "))?.[1] ?? "";
  await ip(
    orchestrator,
    ...["link", "add", port, "type", "veth", "peer", "name", name, "netns", process],
  );
  if (at === "bridge") await ip(orchestrator, "link", "set", port, "master", "bridge");
  await ip(orchestrator, "link", "set", port, "up");
  await ip(host, "link", "set", name, "up");
  return (await linkOf(host, name)).address;
}
