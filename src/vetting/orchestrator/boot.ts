import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Logger } from "../../logging/logger.ts";
import { type BootDecision, BootService } from "../../network-boot/boot-service.ts";
import type { DiskReason } from "../../network-boot/protocol-script.ts";
import { bootParameters } from "../protocol.ts";
import type { BootRefusal, VettingOrchestrator } from "./orchestrator.ts";

/** Hosts that boot over the network, into the runs that an orchestrator has for them. */

/** What an orchestrator was told of it. */
export interface BootSettings {
  readonly interface: string;
  readonly bootFolder: string;
  readonly ipxeFolder: string;
  /** undefined: the interface's first one. */
  readonly address: string | undefined;
  /** Further words of the kernel's command line: NAME, or NAME=VALUE. */
  readonly parameters: readonly string[];
}

/** Of the authority that the orchestrator is. */
export interface BootGround {
  readonly loop: EventLoop;
  readonly logger: Logger;
  readonly address: () => string;
  readonly pins: () => readonly string[];
}

const diskReasons: Readonly<Record<BootRefusal["reason"], DiskReason>> = {
  unknown: "unknown",
  "not-enrolled": "unknown",
  "no-run": "no-run",
  "no-window": "window-closed",
  unavailable: "unavailable",
};

/** @throws NetworkBootRefused with what to do */
export async function startBoot(
  { loop, logger, address, pins }: BootGround,
  orchestrator: Pick<VettingOrchestrator, "mintBootToken">,
  settings: BootSettings,
): Promise<BootService> {
  const { address: bootAddress, parameters, ...places } = settings;
  return await BootService.start({
    ...places,
    ...(bootAddress !== undefined && { address: bootAddress }),
    loop,
    logger,
    decide: async ({ mac }) => {
      // The authority opens after this does: a token that is told nowhere would be spent.
      if (address() === "") return { kind: "disk", reason: "unavailable" };
      const minted = await orchestrator.mintBootToken(mac);
      return decisionOf(mac, minted, { orchestrator: address(), pins: pins(), parameters });
    },
  });
}

/** What a minted token makes of a boot: all that the agent is told, by its names. */
export function decisionOf(
  mac: string,
  minted: Awaited<ReturnType<VettingOrchestrator["mintBootToken"]>>,
  told: {
    readonly orchestrator: string;
    readonly pins: readonly string[];
    readonly parameters: readonly string[];
  },
): BootDecision {
  if ("reason" in minted) return { kind: "disk", reason: diskReasons[minted.reason] };
  return {
    kind: "run",
    parameters: [
      ...told.parameters.map(splitParameter),
      [bootParameters.orchestrator, told.orchestrator],
      [bootParameters.run, String(minted.run)],
      [bootParameters.token, minted.token],
      [bootParameters.mac, mac],
      [bootParameters.pin, told.pins.join(",")],
    ],
  };
}

/** "quiet", and "console=ttyS0,115200n8". */
export function splitParameter(text: string): readonly [name: string, value: string | undefined] {
  const at = text.indexOf("=");
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}
