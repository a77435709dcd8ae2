import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { pollDescriptor } from "../../../../ffi/poll.ts";
import { boundPort, listenTcp } from "../../../../ffi/tcp-socket.ts";
import { parseAddress } from "../../../network/dhcp/address.ts";
import { nextTurn } from "../../../store/files.ts";
import type { Milliseconds } from "../../../units/units.ts";
import { IPERF3, iperf3ServerWords } from "../../tools/iperf3.ts";
import { findTool } from "../run-tool.ts";

/** How long an end of the client's is not seen, at most. */
const SLICE: Milliseconds = 100;
/** Letters of what it prints before it listens. */
const MOST_WORDS = 4_096;

export interface Iperf3Serving {
  /** undefined: every address of the host. */
  readonly address: string | undefined;
  /** When nobody waits for it any more. */
  readonly limit: Milliseconds;
  /** The client listens here for its port, and goes on to it. */
  readonly tellPort: (port: number) => void;
  readonly signal: AbortSignal;
}

/**
 * The server's end of one test, until it is over or the client's connection ends.
 * @returns why it could not be; undefined: it was
 */
export async function serveIperf3(
  client: OwnedDescriptor,
  { address, limit, tellPort, signal }: Iperf3Serving,
): Promise<string | undefined> {
  const program = findTool(IPERF3);
  if (program === null) return "iperf3 is not installed on the orchestrator's host";
  const port = freePort(address);
  await using child = Bun.spawn([program, ...iperf3ServerWords(port, address)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    env: { LC_ALL: "C", PATH: process.env["PATH"] ?? "" },
    timeout: limit,
    signal,
    killSignal: "SIGKILL",
  });
  const words = await wordsUntilItListens(child.stdout);
  if (words !== undefined) return `iperf3 does not listen: ${words.slice(-128) || "no word"}`;
  tellPort(port);
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  // The client says nothing more: what comes is its end.
  while (isRunning() && !signal.aborted && !pollDescriptor(client, "readable", SLICE)) {
    await nextTurn();
  }
  return undefined;
}

function freePort(text: string | undefined): number {
  const address = (text === undefined ? undefined : parseAddress(text)) ?? new Uint8Array(4);
  using listener = listenTcp({ address, port: 0 }, { backlog: 1 });
  return boundPort(listener);
}

/** @returns what it said in place of that */
async function wordsUntilItListens(
  stream: ReadableStream<Uint8Array>,
): Promise<string | undefined> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes("Server listening")) return undefined;
    if (text.length > MOST_WORDS) break;
  }
  return text.trim();
}
