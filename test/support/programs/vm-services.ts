/**
 * The DHCP server and the DNS forwarder as a worker has them, on a bridge. What they go by stands
 * in a file, which is read at every question, and what they tell is said as lines.
 */
import { existsSync, readFileSync, writeSync } from "node:fs";
import { DhcpServer } from "../../../src/network/dhcp/dhcp-server.ts";
import type { Reservation } from "../../../src/network/dhcp/reservation.ts";
import { DnsForwarder } from "../../../src/network/dns/dns-forwarder.ts";
import { policyOf } from "../../../src/network/dns/policy.ts";
import { testEventLoop } from "../event-loop.ts";
import { waitFor } from "../wait-for.ts";

export interface ServiceOptions {
  readonly interface: string;
  readonly serverAddress: string;
  readonly prefixLength: number;
  readonly services: readonly ("dhcp" | "dns")[];
  /** The file with `ServiceFacts`. */
  readonly facts: string;
}

export interface ServiceFacts {
  readonly reservations?: readonly Reservation[];
  /** By address: patterns, or everything. */
  readonly policies?: Readonly<Record<string, readonly string[] | "everything">>;
  readonly names?: Readonly<Record<string, string>>;
  readonly upstreams?: readonly string[];
  /** An answer waits until this file is there; "refuse" for one that is not allowed. */
  readonly gate?: string;
}

const options = JSON.parse(process.env["OPTIONS"] ?? "{}") as ServiceOptions;
const facts = () => JSON.parse(readFileSync(options.facts, "utf8")) as ServiceFacts;
const loop = testEventLoop();
const say = (line: string) => writeSync(1, `${line}\n`);
const { interface: name, serverAddress, prefixLength } = options;
const place = { loop, interface: name, serverAddress, prefixLength };

function startDhcp() {
  const reservations = () =>
    new Map((facts().reservations ?? []).map((one) => [one.macAddress, one]));
  const onEvent = (event: object) => say(`event ${JSON.stringify(event)}`);
  return DhcpServer.start({ ...place, domain: "vm.internal", reservations, onEvent });
}

function startDns() {
  return DnsForwarder.start({
    ...place,
    policyOf: (address) => {
      const domains = facts().policies?.[address];
      if (domains === undefined) return undefined;
      if (domains === "everything") return { kind: "everything" };
      const made = policyOf(domains as readonly string[]);
      if (!made.ok) throw new Error(made.reason);
      return made.policy;
    },
    namesFor: () => new Map(Object.entries(facts().names ?? {})),
    upstreams: () => (facts().upstreams ?? []).map((address) => ({ address, port: 53 })),
    onAllowed: async (allowed) => {
      say(`allowed ${JSON.stringify(allowed)}`);
      const { gate } = facts();
      if (gate === "refuse") throw new Error("The firewall refused");
      if (gate !== undefined) await waitFor("the gate", () => existsSync(gate));
    },
  });
}

try {
  const dhcp = options.services.includes("dhcp") ? startDhcp() : undefined;
  const dns = options.services.includes("dns") ? startDns() : undefined;
  process.on("SIGUSR2", () => {
    say(`counters ${JSON.stringify({ dhcp: dhcp?.counters, dns: dns?.counters })}`);
  });
  say("serving");
} catch (error) {
  say(`refused ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`);
  process.exitCode = 1;
}
