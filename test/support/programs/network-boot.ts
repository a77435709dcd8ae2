/**
 * Network boot on an interface, as a system has it. What becomes of each card stands in OPTIONS;
 * what it counts is said when SIGUSR2 comes, and its log lines go to stderr.
 */
import { writeSync } from "node:fs";
import { createLogger } from "../../../src/logging/logger.ts";
import type { BootFolders } from "../../../src/network-boot/boot-files.ts";
import { type BootDecision, BootService } from "../../../src/network-boot/boot-service.ts";
import { testEventLoop } from "../event-loop.ts";

export interface NetworkBootOptions extends BootFolders {
  readonly interface: string;
  readonly address?: string;
  /** By card; others are unknown. "throw": it cannot be decided. */
  readonly decisions: Readonly<Record<string, BootDecision | "throw">>;
}

const options = JSON.parse(process.env["OPTIONS"] ?? "{}") as NetworkBootOptions;
const say = (line: string) => writeSync(1, `${line}\n`);
const loop = testEventLoop();

try {
  const { decisions, ...rest } = options;
  const service = await BootService.start({
    ...rest,
    loop,
    logger: createLogger("boot", { format: "text", level: "info" }),
    decide: (asked) => {
      say(`asked ${JSON.stringify(asked)}`);
      const decision = decisions[asked.mac] ?? { kind: "disk", reason: "unknown" };
      if (decision === "throw") return Promise.reject(new Error("The database is away"));
      return Promise.resolve(decision);
    },
  });
  process.on("SIGUSR2", () => {
    const { proxyDhcp, tftp, http, scripts } = service;
    const counters = {
      dhcp: proxyDhcp.counters,
      tftp: tftp.counters,
      http: http.counters,
      scripts: Object.fromEntries(scripts),
    };
    say(`counters ${JSON.stringify(counters)}`);
  });
  say(`serving ${service.base}`);
} catch (error) {
  say(`refused ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`);
  process.exitCode = 1;
}
