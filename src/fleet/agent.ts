import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { ownTarget } from "../artifact/installed.ts";
import { bootClockNow, monotonicNow } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import { ignoreSignals } from "../logging/ignored-signals.ts";
import { LimitedLogger } from "../logging/limited-logger.ts";
import { createLogger, type Logger } from "../logging/logger.ts";
import { ServiceNotifier } from "../messaging/service-notify.ts";
import { ExitCode } from "../units/exit-code.ts";
import { formatDuration, type Milliseconds } from "../units/units.ts";
import { DeviceLink, type DeviceLinkParts, HeartbeatLink } from "./device-link.ts";
import type { Executor } from "./executor.ts";
import { agentRole } from "./lifecycle-roles.ts";
import { artifactSeam } from "./perform/artifact-seam.ts";
import { chooseExecutor } from "./perform/choose-executor.ts";
import { DeviceSession } from "./perform/device-session.ts";
import { hostCandidates, hostInstallation, hostVersions } from "./perform/host-parts.ts";
import { passAgentStep, passHandOver } from "./perform/kill-points.ts";
import { ownBuild } from "./perform/own-build.ts";
import { hostRoles } from "./perform/role-hands.ts";
import { staleMetadata, TrustWatch } from "./perform/trust-watch.ts";
import type { Build, Heartbeat, Marker, UpgradePhase } from "./protocol.ts";
import { UpgradeAgent } from "./upgrade-agent.ts";

/** What a candidate is told by whoever has started it. */
export interface CandidateTicket {
  readonly instance: string;
  readonly transaction: string;
  /** Between two of its heartbeats. */
  readonly every: Milliseconds;
}

export interface AgentOptions {
  /** Of the installation. */
  readonly folder: string;
  /** Of the host's identity. */
  readonly identity: string;
  /** undefined: this is the canonical agent. */
  readonly candidate: CandidateTicket | undefined;
}

/** Longest time until a candidate has hashed itself, and has tried to reach the operator. */
const CANDIDATE_READY: Milliseconds = 60_000;

/** What both of them are made of. */
interface Ground {
  readonly options: AgentOptions;
  readonly loop: EventLoop;
  readonly logger: Logger;
  readonly session: DeviceSession;
  readonly self: Build;
  readonly boot: string;
  /** Survived, and may come again and again. */
  readonly onTrouble: (message: string, cause: unknown) => void;
}

/**
 * Runs this host's agent, or a candidate for it, until SIGTERM or SIGINT. It is ready when it has
 * spoken with the operator, or has found that it is away: what is to be done here goes on without.
 * @throws HostRefused where this host is not enrolled; AgentRefused for a program that is no
 *   version of the installation; ExecutorRefused, FileRefused
 */
export async function runAgent(options: AgentOptions): Promise<number> {
  const { folder, identity, candidate } = options;
  const logger = createLogger("hostler fleet agent");
  const notifier = new ServiceNotifier();
  using loop = new EventLoop(startWorker);
  using limited = new LimitedLogger(logger, {
    now: monotonicNow,
    wakeAfter: (delay, call) => loop.wakeAfter(delay, call),
  });
  const ended = Promise.withResolvers<number>();
  loop.onFailure((failure) => {
    logger.error("stopped by a bug", { failure });
    ended.resolve(ExitCode.bug);
  });
  const tried = Promise.withResolvers<void>();
  const self = ownBuild(folder);
  await using session = new DeviceSession(loop, identity, {
    onOpen: (id) => {
      logger.info(`session ${id} is open`);
      notifier.tell("STATUS=in a session with its operator");
      tried.resolve();
    },
    onFailure: (reason) => {
      limited.say("warn", "the operator", `the operator is not reached, ignoring: ${reason}`);
      tried.resolve();
    },
    onRefused: (reason, wait) => {
      const again = `asked again in ${formatDuration(wait)}`;
      limited.say("warn", "a refusal", `the operator refuses this host, ${again}: ${reason}`);
      notifier.tell(`STATUS=refused by its operator, ${again}: ${reason}`);
    },
    onTrouble: (message) => limited.warn(message),
  });
  const ground: Ground = {
    ...{ options, loop, logger, session, self },
    boot: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    onTrouble: (message, cause) =>
      limited.say("warn", message, cause === undefined ? message : `${message}: ${wordsOf(cause)}`),
  };
  ignoreSignals((message) => logger.warn(message));
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => ended.resolve(ExitCode.done));
  }
  using _work = candidate === undefined ? runCanonical(ground) : runCandidate(ground, candidate);
  const who = candidate === undefined ? "the agent" : "a candidate";
  logger.info(`${self.version} runs as ${who} of ${session.device}`);
  using _watchdog = keepWatchdog(loop, notifier);
  void tried.promise.then(() => notifier.tell("READY=1"));
  const code = await ended.promise;
  notifier.tell("STOPPING=1");
  return code;
}

/** All that a candidate does is to be heard: nothing on this host is its own yet. */
function runCandidate(ground: Ground, ticket: CandidateTicket): Disposable {
  const { instance, transaction, every } = ticket;
  const roles = [agentRole(ground.self)];
  const own = { ...heartbeatOf(ground, { instance, transaction }), roles };
  const parts = { ...linkParts(ground, () => own), onHeard: () => {} };
  return new HeartbeatLink(parts, "candidate", every);
}

function runCanonical(ground: Ground): Disposable {
  const { loop, self, boot, onTrouble, options, logger } = ground;
  const { folder } = options;
  const executor = chooseExecutor(loop, folder);
  const installation = hostInstallation(folder, { onTrouble });
  const device = ownTarget();
  const artifacts = artifactSeam({
    ...{ folder, device },
    metadataVersion: () => {
      const read = installation.readJournal();
      return read.kind === "ok" ? read.journal.metadataVersion : 0;
    },
    onNotice: (message) => onTrouble(message, undefined),
  });
  const roles = hostRoles(loop, { self, folder, executor, onTrouble });
  let link: DeviceLink | undefined;
  let phase: UpgradePhase | undefined;
  const trust = new TrustWatch({
    look: () => staleMetadata(folder, Date.now()),
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
    onChange: () => link?.tellStatus(trust.with(agent.status)),
  });
  const agent = UpgradeAgent.open({
    ...{ self, boot, installation, onTrouble },
    device: { ...device, executor: executor.kind },
    versions: hostVersions(folder, { executor, artifacts }),
    candidates: hostCandidates(folder, { executor, plan: candidatePlan(options) }),
    roles: passHandOver(roles),
    now: () => Math.floor(bootClockNow()),
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
    nextInstance: newInstance,
    onStatus: (status) => {
      if (status.phase !== phase) logger.info(wordsOfPhase(status));
      phase = status.phase;
      if (link === undefined) return;
      link.beatEvery(agent.pace.every);
      link.tellStatus(trust.with(status));
      passAgentStep("status-told");
    },
  });
  passAgentStep("opened");
  const own = heartbeatOf(ground, { instance: newInstance(), transaction: null });
  link = new DeviceLink({
    ...linkParts(ground, () => ({ ...own, roles: roles.health })),
    onHeard: () => agent.tell({ kind: "heard", who: "canonical" }),
    onMarker: (marker) => {
      passAgentStep("marker-heard");
      agent.tell({ kind: "marker", marker });
    },
    onCandidateHeard: (instance) => {
      passAgentStep("candidate-heard");
      agent.tell({ kind: "heard", who: "candidate", instance });
    },
  });
  link.beatEvery(agent.pace.every);
  link.tellStatus(trust.with(agent.status));
  if (agent.state.life.phase === "reverting") void askFormer(executor, agent, onTrouble);
  passAgentStep("followed");
  const { [Symbol.dispose]: close } = link;
  return {
    [Symbol.dispose]: () => {
      agent[Symbol.dispose]();
      trust[Symbol.dispose]();
      roles[Symbol.dispose]();
      close.call(link);
    },
  };
}

/** Why the version that was left did not go on is in its own last words. */
async function askFormer(
  executor: Executor,
  agent: UpgradeAgent,
  onTrouble: Ground["onTrouble"],
): Promise<void> {
  try {
    const lastWords = await executor.formerCanonicalEnd();
    if (lastWords !== null) agent.tell({ kind: "former-ended", lastWords });
  } catch (error) {
    onTrouble("nobody tells how the version before ended, ignoring", error);
  }
}

/** Whatever it is started as, it is this host, in this installation. */
function candidatePlan({ folder, identity }: AgentOptions) {
  return ({ transaction, limits }: Marker, instance: string) => ({
    words: [
      ...["fleet", "agent", "--folder", folder, "--identity", identity],
      ...["--candidate", instance, "--transaction", transaction],
      ...(limits.heartbeat_ms === undefined ? [] : ["--heartbeat", `${limits.heartbeat_ms}ms`]),
    ],
    environment: {},
    readyWithin: CANDIDATE_READY,
  });
}

function heartbeatOf(
  ground: Ground,
  who: Pick<Heartbeat, "instance" | "transaction">,
): Omit<Heartbeat, "protocol" | "sequence" | "roles"> {
  const { self, boot } = ground;
  return { ...who, ...self, boot };
}

function linkParts(
  { session, loop, onTrouble }: Ground,
  heartbeat: DeviceLinkParts["heartbeat"],
): Omit<DeviceLinkParts, "onHeard"> {
  const { store, device } = session;
  return { store, loop, device, onTrouble, heartbeat };
}

function keepWatchdog(loop: EventLoop, notifier: ServiceNotifier): Disposable {
  const { watchdog } = notifier;
  let wake: Disposable | undefined;
  const tell = (interval: Milliseconds) => {
    notifier.tell("WATCHDOG=1");
    wake = loop.wakeAfter(interval / 2, () => tell(interval));
  };
  if (watchdog !== undefined) tell(watchdog);
  return { [Symbol.dispose]: () => wake?.[Symbol.dispose]() };
}

const newInstance = (): string => randomBytes(16).toString("hex");

const wordsOfPhase = (status: {
  readonly phase: UpgradePhase;
  readonly reason: string | null;
}): string => `upgrade: ${status.phase}${status.reason === null ? "" : `: ${status.reason}`}`;

const wordsOf = (cause: unknown): string => (cause instanceof Error ? cause.message : `${cause}`);
