import { resolve } from "node:path";
import { type AuthorityFlags, readFlags } from "../../authority/commands/daemon.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { configureLogging } from "../../logging/logger.ts";
import { parseAddress } from "../../network/dhcp/address.ts";
import { MOST_PARAMETERS } from "../../network-boot/limits.ts";
import { refuseParameters } from "../../network-boot/protocol-script.ts";
import { type BootSettings, splitParameter } from "../orchestrator/boot.ts";
import type { OrchestratorConfiguration } from "../orchestrator/daemon.ts";
import { bootParameters } from "../protocol.ts";

export interface BootFlags {
  readonly "listen-boot": string | undefined;
  readonly "boot-dir": string;
  readonly "ipxe-dir": string;
  readonly "boot-address": string | undefined;
  readonly "boot-parameter": readonly string[];
}

interface OrchestratorFlags extends AuthorityFlags, BootFlags {
  readonly throughput: string | undefined;
}

/** @throws UsageError, and what the daemon throws */
export async function runOrchestratorCommand(flags: OrchestratorFlags): Promise<number> {
  const { orchestratorBuckets, runOrchestrator } = await import("../orchestrator/daemon.ts");
  const options = readFlags(flags, process.getuid?.() ?? 0, orchestratorBuckets);
  const throughput = readThroughput(flags);
  const boot = readBootFlags(flags, options);
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  return await runOrchestrator(options, { throughput, boot });
}

/** @throws UsageError */
function readThroughput({
  throughput,
  address: own,
}: OrchestratorFlags): OrchestratorConfiguration["throughput"] {
  if (throughput === undefined) return undefined;
  const [, address = "", digits = ""] = /^([\d.]+):(\d{1,5})$/.exec(throughput) ?? [];
  const port = Number(digits);
  if (parseAddress(address) === undefined || port > 65_535) {
    throw new UsageError(
      `Expected IPV4:PORT, such as 10.0.0.1:7445, after --throughput, received ${throughput}`,
    );
  }
  const host = own === undefined ? address : new URL(own).hostname;
  if (host !== "0.0.0.0") return { address, port, host };
  throw new UsageError(
    "Expected --address beside --throughput 0.0.0.0, because hosts are told where to go, " +
      "received none",
  );
}

/**
 * @returns undefined where no host boots from here
 * @throws UsageError
 */
export function readBootFlags(
  flags: BootFlags,
  { address, listen }: Pick<ReturnType<typeof readFlags>, "address" | "listen">,
): BootSettings | undefined {
  const device = flags["listen-boot"];
  const given = flags["boot-parameter"];
  if (device === undefined) {
    const other = given.length > 0 ? "--boot-parameter" : "--boot-address";
    if (given.length === 0 && flags["boot-address"] === undefined) return undefined;
    throw new UsageError(`Expected --listen-boot INTERFACE beside ${other}, received none`);
  }
  if (!/^[^\s/]{1,15}$/.test(device)) {
    throw new UsageError(
      `Expected the name of an interface after --listen-boot, received ${JSON.stringify(device)}`,
    );
  }
  const [first] = listen;
  if (
    address === undefined &&
    /^(0\.0\.0\.0|::|127\..*|::1|localhost)$/.test(first?.hostname ?? "")
  ) {
    throw new UsageError(
      "Expected --address https://NAME:PORT beside --listen-boot, received none: hosts that boot " +
        `are told it, and do not reach ${first?.hostname}`,
    );
  }
  checkParameters(given);
  return {
    interface: device,
    bootFolder: resolve(flags["boot-dir"]),
    ipxeFolder: resolve(flags["ipxe-dir"]),
    address: flags["boot-address"],
    parameters: given,
  };
}

function checkParameters(given: readonly string[]): void {
  const own = Object.keys(bootParameters).length;
  if (given.length > MOST_PARAMETERS - own) {
    throw new UsageError(
      `Expected at most ${MOST_PARAMETERS - own} times --boot-parameter, received ${given.length}`,
    );
  }
  const reason = refuseParameters({ parameters: given.map(splitParameter) });
  if (reason !== undefined) throw new UsageError(`After --boot-parameter: ${reason}`);
  const taken = given.find((text) => text.startsWith("hostler.vetting."));
  if (taken !== undefined) {
    throw new UsageError(`Expected no name of the orchestrator's own, received ${taken}`);
  }
}
