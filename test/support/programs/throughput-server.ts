/**
 * An orchestrator's throughput server: admits one run. Words: ADDRESS PORT RUN KEY PROGRAM
 * [tool], where its spec asks for one.
 */
import { writeSync } from "node:fs";
import { createLogger } from "../../../src/logging/logger.ts";
import { parseAddress } from "../../../src/network/dhcp/address.ts";
import { ipv6Bytes } from "../../../src/network/dns/upstream.ts";
import { isSameKey, ThroughputServer } from "../../../src/vetting/perform/throughput/server.ts";
import { testEventLoop } from "../event-loop.ts";

const [host = "", port = "0", run = "1", key = "", program = "", tool = ""] = process.argv.slice(2);
const address = parseAddress(host) ?? ipv6Bytes(host);
if (address === undefined) throw new Error(`Expected an address, received ${host}`);
const server = ThroughputServer.start({
  listen: { address, port: Number(port) },
  admit: (asked, given) => asked === Number(run) && isSameKey(given, key),
  asksForTool: () => tool === "tool",
  logger: createLogger("throughput"),
  loop: testEventLoop(),
  own: { path: program, words: [program] },
});
writeSync(1, `listening on ${server.port}\n`);
