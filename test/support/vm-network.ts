/**
 * A host with a bridge for machines and a way out, in network namespaces of the test's own: what
 * leaves by the way out is seen by a sniffer at its other end.
 */
import { readlinkSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "./binary.ts";
import { type Program, runProgram, startProgram } from "./program.ts";
import { waitFor } from "./wait-for.ts";

export const bridge = "vms";
export const hostAddress = "10.100.0.1";
/** The host at its way out, and who is at the other end. */
export const outsideHostAddress = "10.88.0.1";
export const outsideAddress = "10.88.0.2";

export interface Place {
  /** Words that run a program in it. */
  readonly enter: readonly string[];
}

export interface VmPlace extends Place {
  readonly macAddress: string;
  /** What it may have on the bridge. */
  readonly address: string;
}

export interface VmNetwork extends AsyncDisposable {
  readonly host: Place;
  readonly outside: Place;
  readonly machines: readonly VmPlace[];
}

/** Runs `ip` in a place. @throws Error with its words */
export async function ip(place: Place, words: string): Promise<void> {
  const { exitCode, stderr } = await runProgram([...place.enter, "ip", ...words.split(" ")]);
  if (exitCode !== 0) throw new Error(`ip ${words}: ${stderr}`);
}

async function makePlace(owned: AsyncDisposableStack): Promise<Place & { holder: Program }> {
  const holder = owned.use(startProgram(["unshare", "--net", "sleep", "infinity"]));
  const ours = readlinkSync("/proc/self/ns/net");
  const theirs = `/proc/${holder.processId}/ns/net`;
  await waitFor("a network namespace", () => readlinkSync(theirs) !== ours);
  return { holder, enter: ["nsenter", `--net=${theirs}`, "--"] };
}

/** Without addresses of IPv6, so that nothing speaks by itself. */
async function quiet(place: Place, link: string): Promise<void> {
  await ip(place, `link set ${link} addrgenmode none`);
}

/** @param count machines, whose cards are up and have no addresses */
export async function makeVmNetwork(count: number): Promise<VmNetwork> {
  await using owned = new AsyncDisposableStack();
  const host = await makePlace(owned);
  const outside = await makePlace(owned);
  await ip(host, "link set lo up");
  await ip(outside, "link set lo up");
  await ip(host, `link add ${bridge} type bridge`);
  await quiet(host, bridge);
  await ip(host, `address add ${hostAddress}/16 dev ${bridge}`);
  await ip(host, `link set ${bridge} up`);
  const { processId } = outside.holder;
  await ip(host, `link add out type veth peer name far netns ${processId}`);
  await quiet(host, "out");
  await quiet(outside, "far");
  await ip(host, `address add ${outsideHostAddress}/24 dev out`);
  await ip(outside, `address add ${outsideAddress}/24 dev far`);
  await ip(host, "link set out up");
  await ip(outside, "link set far up");
  await ip(host, `route add default via ${outsideAddress}`);
  const machines: VmPlace[] = [];
  for (let number = 0; number < count; number += 1) {
    const machine = await makePlace(owned);
    const macAddress = `52:54:00:00:01:0${number}`;
    const port = `port-${number}`;
    const peer = `peer name eth0 address ${macAddress} netns ${machine.holder.processId}`;
    await ip(host, `link add ${port} type veth ${peer}`);
    await quiet(host, port);
    await quiet(machine, "eth0");
    await ip(host, `link set ${port} master ${bridge} up`);
    await ip(machine, "link set eth0 up");
    machines.push({ enter: machine.enter, macAddress, address: `10.100.1.${number + 1}` });
  }
  const kept = owned.move();
  return { host, outside, machines, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/**
 * Starts one of the tests' own programs in a place, under the Bun that runs the tests: it is no
 * role of the compiled file, whose way to libc test/contract/ffi-compiled.test.ts holds.
 */
export function startInPlace(
  place: Place,
  name: string,
  options: object,
  words: readonly string[] = [],
): Program {
  const file = join(repositoryRoot, "test/support/programs", name);
  const argv = [...place.enter, process.execPath, "run", file, ...words];
  return startProgram(argv, { environment: { OPTIONS: JSON.stringify(options) } });
}

export interface Sniffer extends AsyncDisposable {
  /** All that came until now, in hexadecimal from the network layer on, but this question. */
  frames(): Promise<string[]>;
}

/** Looks at all that comes from the host's way out. */
export async function startSniffer(network: VmNetwork): Promise<Sniffer> {
  const program = startInPlace(network.outside, "packet-sniffer.ts", { interface: "far" });
  await program.said(/listening/);
  let asked = 0;
  const frames = async () => {
    asked += 1;
    const text = `marker-${asked}`;
    const marker = Buffer.from(text).toString("hex");
    const send = startInPlace(network.host, "send-marker.ts", { to: outsideAddress, text });
    await using _sending = send;
    await program.said(new RegExp(`frame \\S*${marker}`));
    const all = [...program.output.stdout.matchAll(/^frame (\S+)$/gm)].map(([, hex = ""]) => hex);
    const isOwn = (hex: string) =>
      hex.includes(Buffer.from("marker-").toString("hex")) || hex.startsWith("00010800");
    return all.filter((hex) => !isOwn(hex));
  };
  return { frames, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() };
}
