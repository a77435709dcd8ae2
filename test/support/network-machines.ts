/**
 * A host in a network namespace, with machines in others: each has a cable from its TAP, which a
 * relay plays. What is made in the host is made by the code that is tested.
 */
import { readlinkSync } from "node:fs";
import { join } from "node:path";
import type { DesiredNetworks, NetworkCard } from "../../src/network/specification.ts";
import { type Program, runProgram, startProgram } from "./program.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

const stage = join(import.meta.dirname, "network-stage.ts");

/** What `apply` tells. */
export interface Applied {
  readonly operations: readonly string[];
  readonly refusals: readonly { readonly machine?: string; readonly reason: string }[];
  readonly refused: readonly string[];
  /** What a second pass would do. */
  readonly again: readonly string[];
  readonly planMilliseconds: number;
  readonly applyMilliseconds: number;
  readonly againMilliseconds: number;
}

/** A network namespace that lives as long as this object. */
export class Namespace implements AsyncDisposable {
  readonly processId: number;
  readonly #holder: AsyncDisposable | undefined;

  /** @param processId of whoever is in it; it lives as long as that process does */
  constructor(processId: number, holder?: AsyncDisposable) {
    this.processId = processId;
    this.#holder = holder;
  }

  static async make(): Promise<Namespace> {
    const ours = readlinkSync("/proc/self/ns/net");
    const holder = startProgram(["unshare", "--net", "sleep", "infinity"]);
    await waitFor("a network namespace", () => {
      return readlinkSync(`/proc/${holder.processId}/ns/net`) !== ours;
    });
    const namespace = new Namespace(holder.processId, holder);
    await namespace.run("ip", "link", "set", "lo", "up");
    return namespace;
  }

  words(argv: readonly string[]): string[] {
    return ["nsenter", `--net=/proc/${this.processId}/ns/net`, "--", ...argv];
  }

  /** @returns what it printed @throws Error when it fails */
  async run(...argv: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await runProgram(this.words(argv));
    if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${stderr}${stdout}`);
    return stdout;
  }

  /** One command of network-stage.ts. */
  async stage<Answer>(...words: readonly string[]): Promise<Answer> {
    return JSON.parse(await this.run(process.execPath, stage, ...words)) as Answer;
  }

  /** A command of network-stage.ts that goes on. */
  start(...words: readonly string[]): Program {
    return startProgram(this.words([process.execPath, stage, ...words]));
  }

  async apply(desired: DesiredNetworks): Promise<Applied> {
    return await this.stage<Applied>("apply", JSON.stringify(desired));
  }

  /** Links as `ip` tells them, by name. */
  async links(): Promise<Map<string, IpLink>> {
    const links = JSON.parse(await this.run("ip", "-d", "-j", "link")) as IpLink[];
    return new Map(links.map((link) => [link.ifname, link]));
  }

  /** Packets that each counting rule of a table has seen, by its comment. */
  async counted(family: string, table: string): Promise<Map<string, number>> {
    const text = await this.run("nft", "-j", "list", "table", family, table);
    const { nftables } = JSON.parse(text) as { nftables: { rule?: NftRule }[] };
    const counted = new Map<string, number>();
    for (const { rule } of nftables) {
      const counter = rule?.expr.find((one) => one.counter !== undefined)?.counter;
      if (rule === undefined || counter === undefined) continue;
      const name = family === "netdev" ? `${rule.chain}: ${rule.comment}` : rule.comment;
      counted.set(name, counter.packets);
    }
    return counted;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#holder?.[Symbol.asyncDispose]();
  }
}

/** Of `ip -d -j link`, what is looked at. */
export interface IpLink {
  readonly ifindex: number;
  readonly ifname: string;
  readonly flags: readonly string[];
  readonly mtu: number;
  readonly address: string;
  readonly ifalias?: string;
  readonly master?: string;
  readonly linkinfo?: {
    readonly info_kind?: string;
    readonly info_data?: Readonly<Record<string, unknown>>;
    readonly info_slave_data?: Readonly<Record<string, unknown>>;
  };
}

interface NftRule {
  readonly chain: string;
  readonly comment: string;
  readonly expr: readonly { readonly counter?: { readonly packets: number } }[];
}

/** Two ends of a cable: "HOST-END" in one namespace, and "wire" in the other. */
export async function connect(
  host: Namespace,
  other: Namespace,
  names: { readonly link: string; readonly address: string; readonly otherAddress: string },
): Promise<void> {
  const peer = ["peer", "name", "wire", "netns", String(other.processId)];
  await host.run("ip", "link", "add", names.link, "type", "veth", ...peer);
  await host.run("ip", "address", "add", names.address, "dev", names.link);
  await host.run("ip", "link", "set", names.link, "up");
  await other.run("ip", "address", "add", names.otherAddress, "dev", "wire");
  await other.run("ip", "link", "set", "wire", "up");
}

/** A machine: its namespace, with the card that the host made for it. */
export class Machine implements AsyncDisposable {
  readonly namespace: Namespace;
  readonly relay: Program;
  readonly #socket: string;

  private constructor(namespace: Namespace, relay: Program, socket: string) {
    this.namespace = namespace;
    this.relay = relay;
    this.#socket = socket;
  }

  static async start(
    host: Namespace,
    card: NetworkCard,
    folder: TemporaryFolder,
  ): Promise<Machine> {
    await using owned = new AsyncDisposableStack();
    const namespace = owned.use(await Namespace.make());
    const peer = `peer-${card.machine}`;
    const socket = folder.file(`${card.machine}.sock`);
    const relay = owned.use(host.start("relay", card.tap, peer, socket));
    await relay.said(/ready/);
    await host.run("ip", "link", "set", peer, "netns", String(namespace.processId));
    await namespace.run("ip", "link", "set", peer, "name", "eth0", "address", card.macAddress);
    await namespace.run("ip", "address", "add", `${card.address}/16`, "dev", "eth0");
    await namespace.run("ip", "link", "set", "eth0", "up");
    await namespace.run("ip", "route", "add", "default", "via", "10.100.0.1");
    owned.move();
    return new Machine(namespace, relay, socket);
  }

  /** Sends frames as the machine's, whatever stands in them. */
  async send(frames: readonly string[]): Promise<void> {
    const before = [...this.relay.output.stdout.matchAll(/^sent$/gm)].length;
    const socket = await Bun.connect({ unix: this.#socket, socket: { data: () => {} } });
    socket.end(frames.map((frame) => `${frame.replace(/\s/g, "")}\n`).join(""));
    await waitFor("the frames to be sent", () => {
      return [...this.relay.output.stdout.matchAll(/^sent$/gm)].length === before + frames.length;
    });
  }

  /** Frames that came to the machine. */
  get frames(): string[] {
    return [...this.relay.output.stdout.matchAll(/^frame (\w+)$/gm)].map(([, hex]) => hex ?? "");
  }

  /** @returns what it was answered */
  async ask(protocol: "tcp" | "udp", address: string, port: number): Promise<string> {
    return await askFrom(this.namespace, protocol, address, port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.relay[Symbol.asyncDispose]();
    await this.namespace[Symbol.asyncDispose]();
  }
}

export async function askFrom(
  namespace: Namespace,
  protocol: "tcp" | "udp",
  address: string,
  port: number,
): Promise<string> {
  await using program = namespace.start("ask", protocol, address, String(port));
  const [, answer = ""] = await program.said(/answer (\S+)/);
  return answer;
}
