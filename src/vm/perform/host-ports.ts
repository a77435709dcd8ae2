import { readFileSync } from "node:fs";
import type { Forward } from "../protocol-network.ts";

/** Ports of this host that programs of its own have: proc_pid_net(5). */

/** TCP_LISTEN, include/net/tcp_states.h; a socket of UDP that is bound has TCP_CLOSE. */
const states = { tcp: "0A", udp: "07" } as const;

/**
 * What a program of this host already has: a forward would take it away from that program.
 * @returns undefined where nobody has it, or on the loopback alone
 */
export function listenerAt({ protocol, hostPort }: Forward): string | undefined {
  for (const family of ["", "6"]) {
    const path = `/proc/self/net/${protocol}${family}`;
    for (const { address, port, state } of socketsOf(path)) {
      if (port === hostPort && state === states[protocol] && !isLoopback(address)) return path;
    }
  }
  return undefined;
}

function socketsOf(path: string) {
  let text: string;
  try {
    text = readFileSync(path, "latin1");
  } catch {
    // A kernel without IPv6 has no such file.
    return [];
  }
  return text.split("\n").flatMap((line) => {
    const [, address, port, state] =
      /^\s*\d+: ([\dA-F]+):([\dA-F]{4}) \S+ (\w{2}) /.exec(line) ?? [];
    if (address === undefined || port === undefined || state === undefined) return [];
    return [{ address, port: Number.parseInt(port, 16), state }];
  });
}

/** Words of 32 bits in the host's byte order: 127.0.0.1 is 0100007F. */
const isLoopback = (address: string) =>
  /^[\dA-F]{6}7F$/.test(address) || address === "00000000000000000000000001000000";
