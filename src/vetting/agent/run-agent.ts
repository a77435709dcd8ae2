import { readFileSync } from "node:fs";
import { monotonicNow } from "../../event-loop/clock.ts";
import { EventLoop } from "../../event-loop/event-loop.ts";
import { startWorker } from "../../event-loop/worker-factory.ts";
import { ignoreSignals } from "../../logging/ignored-signals.ts";
import { createLogger } from "../../logging/logger.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { AgentFolder } from "../perform/agent-folder.ts";
import { changePower } from "../perform/change-power.ts";
import { HoldKey, hostKeyFingerprint } from "../perform/hold-key.ts";
import { TaskRunner } from "../perform/task-runner.ts";
import { definitions } from "../stages/index.ts";
import { IDENTITY_TASK, type IdentityReport, identityReportSchema } from "../tasks/identity.ts";
import { VettingAgent } from "./agent.ts";
import { askTask, wordsOfEnding } from "./ask-task.ts";
import type { BootParameters } from "./boot-parameters.ts";
import { CrashReader } from "./crash-reader.ts";
import { OrchestratorLink } from "./orchestrator-link.ts";

export interface AgentOptions {
  readonly parameters: BootParameters;
  /** Of what is kept in memory. */
  readonly folder: string;
  readonly authorizedKeys: string;
  /** false: what would be done to the power is printed, and ends the agent. */
  readonly changesPower: boolean;
}

/** A read of SMBIOS takes milliseconds. */
const IDENTITY_WITHIN = 30_000;

/**
 * Runs the agent of one run until its host leaves, or the run does not know it any more.
 * @throws FileRefused, HttpAddressRefused
 */
export async function runAgent(options: AgentOptions): Promise<number> {
  const { parameters, folder: path, authorizedKeys, changesPower } = options;
  const logger = createLogger("hostler vetting agent");
  using folder = AgentFolder.open(path);
  using loop = new EventLoop(startWorker);
  const runner = new TaskRunner({ loop, folder: folder.path });
  const left = await runner.records.endLeft(loop);
  if (left.length > 0) {
    logger.warn(`children of an earlier agent are stuck in the kernel: ${left.join(", ")}`);
  }
  const hold = new HoldKey(loop, { authorizedKeys, folder: folder.path });
  const { orchestrator: url, pins } = parameters;
  const identity = rememberedIdentity(runner, (why) => logger.warn(why));
  ignoreSignals((message) => logger.warn(message));
  using agent = new VettingAgent({
    ...{ loop, logger, parameters, store: folder, runner, definitions, identity },
    crashes: new CrashReader(runner, {
      removes: changesPower,
      onTrouble: (why) => logger.warn(why),
    }),
    bootId: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    link: (token) => new OrchestratorLink({ url, pins, token }),
    hold: {
      install: (key) => hold.install(key),
      remove: () => hold.remove(),
      hostKey: () => hostKeyFingerprint(),
    },
    changePower: async (how) => {
      if (changesPower) return await changePower(runner, how);
      logger.warn(`the host would ${how} now: --no-power`);
      return "";
    },
    now: monotonicNow,
  });
  const bug = Promise.withResolvers<number>();
  loop.onFailure((failure) => {
    logger.error("stopped by a bug", { failure });
    bug.resolve(ExitCode.bug);
  });
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => void agent.stop());
  }
  const code = await Promise.race([agent.ended, bug.promise]);
  // Before its children end: it would start its sampler again.
  agent[Symbol.dispose]();
  await runner.endAll();
  return code;
}

/** Read once: hardware does not change its serial while it runs. Unreadable, it is nobody. */
function rememberedIdentity(runner: TaskRunner, onTrouble: (why: string) => void) {
  let known: IdentityReport | undefined;
  return async (): Promise<IdentityReport> => {
    if (known !== undefined) return known;
    const order = { task: IDENTITY_TASK, input: {} };
    const asked = { within: IDENTITY_WITHIN, schema: identityReportSchema };
    const answer = await askTask(runner, order, asked);
    if ("found" in answer) {
      known = answer.found;
      return known;
    }
    onTrouble(`what this host is cannot be read: ${wordsOfEnding(answer.ending)}`);
    return { uuid: null, system_serial: null, board_serial: null, macs: [] };
  };
}
