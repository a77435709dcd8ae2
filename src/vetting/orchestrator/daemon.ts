import { hostname } from "node:os";
import { join } from "node:path";
import type { AdditionGround, AuthorityAddition } from "../../authority/addition.ts";
import { runAuthority } from "../../authority/daemon.ts";
import { type AuthorityOptions, usualBuckets } from "../../authority/options.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { HttpLimits } from "../../http/limits.ts";
import { ListenRefused } from "../../http/server.ts";
import { systemRandom } from "../../identity/secrets.ts";
import { addressBytes } from "../../network/dhcp/address.ts";
import type { BucketDefinition } from "../../store/store.ts";
import { whyNotListening } from "../../units/listen-failure.ts";
import type { Milliseconds } from "../../units/units.ts";
import { hostlerVersion } from "../../units/version.ts";
import { ThroughputServer } from "../perform/throughput/server.ts";
import { vettingLimits } from "../protocol.ts";
import { validateSpec } from "../spec/validate.ts";
import { agentRoutes } from "./agent-routes.ts";
import { backUpDatabase, besideBackup } from "./backup.ts";
import { type BootSettings, startBoot } from "./boot.ts";
import { VettingDatabase } from "./database.ts";
import { measureOrchestrator } from "./gauges.ts";
import { VettingOrchestrator } from "./orchestrator.ts";
import { vettingPages } from "./page-files.ts";
import { databasePlace } from "./place.ts";
import { VettingRecords } from "./records.ts";
import { reportPages, reportRoutes } from "./report-routes.ts";
import { tendRecords, vettingBuckets } from "./retention.ts";
import { operatorRoutes, operatorStreams } from "./routes.ts";

/** All that `--retain` can set: of the authority, and of what is kept of runs. */
export const orchestratorBuckets: readonly BucketDefinition[] = [
  ...usualBuckets,
  ...vettingBuckets,
];

/**
 * A rack's agents may all stand behind one address: each calls about once a second, and all of them
 * at once when the orchestrator comes back.
 */
export const orchestratorHttpLimits: Partial<HttpLimits> = {
  connections: 2 * vettingLimits.runsUnderWay,
  connectionsPerAddress: 2 * vettingLimits.runsUnderWay,
  unproven: 4_096,
  unprovenPerAddress: 2_048,
  addressRate: { burst: 20_000, perSecond: 4_000 },
  // A thousand agents have two thousand calls under way when one commit takes its time.
  concurrentRequests: vettingLimits.runsUnderWay,
  rememberedCallers: 4 * vettingLimits.runsUnderWay,
};

/** Between two looks at what is too old or too much. */
const TEND_EVERY: Milliseconds = 60_000;

/** What an orchestrator is told beside what an authority is. */
export interface OrchestratorConfiguration {
  /** Where it serves tests of links, and by what name hosts reach that; undefined: nowhere. */
  readonly throughput:
    | { readonly address: string; readonly port: number; readonly host: string }
    | undefined;
  /** undefined: no host boots from here. */
  readonly boot: BootSettings | undefined;
}

/**
 * Runs an orchestrator until SIGTERM or SIGINT: an authority for its operators, with the routes of
 * vetting, and hosts that come with tokens of their own.
 * @throws as runAuthority; FileRefused for its database; NetworkBootRefused
 */
export async function runOrchestrator(
  options: AuthorityOptions,
  configuration: OrchestratorConfiguration,
): Promise<number> {
  const isOurs = ({ name }: BucketDefinition) => vettingBuckets.some((own) => own.name === name);
  const { buckets } = options.retention;
  const retention = { ...options.retention, buckets: buckets.filter((one) => !isOurs(one)) };
  const path = join(options.stateDirectory, databasePlace);
  const own = { ...configuration, path, bounds: buckets.filter(isOurs) };
  const open = (ground: AdditionGround) => openAddition(ground, own);
  return await runAuthority({ ...options, retention }, { name: "vetting orchestrator", open });
}

async function openAddition(
  ground: AdditionGround,
  own: OrchestratorConfiguration & {
    readonly path: string;
    readonly bounds: readonly BucketDefinition[];
  },
): Promise<AuthorityAddition> {
  const { loop, logger } = ground;
  let place: { readonly host: string; readonly port: number } | null = null;
  const database = VettingDatabase.open(own.path);
  const clock = steadyClock();
  const orchestrator = new VettingOrchestrator({
    ...{ records: new VettingRecords(database), ...clock, logger, random: systemRandom },
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
    validate: validateSpec,
    networkTest: () => place,
    version: hostlerVersion,
  });
  const throughput = own.throughput && serveThroughput(ground, orchestrator, own.throughput);
  if (throughput !== undefined) place = { host: throughput.host, port: throughput.server.port };
  const service = own.boot && (await startBoot(ground, orchestrator, own.boot));
  const tending = new Tending(ground, () =>
    tendRecords(orchestrator.records, { bounds: own.bounds, now: clock.now() }),
  );
  const about = { version: hostlerVersion, name: hostname() };
  const reports = { orchestrator, about, key: ground.key, now: clock.now };
  return {
    routes: [
      ...agentRoutes(orchestrator, clock.now),
      ...operatorRoutes(orchestrator, about),
      ...reportRoutes(reports),
    ],
    pages: [...reportPages(reports), ...vettingPages()],
    streams: operatorStreams(orchestrator),
    authenticate: (token) => orchestrator.authenticate(token),
    requestBytes: vettingLimits.requestBytes,
    limits: orchestratorHttpLimits,
    backUp: async (file) => await backUpDatabase(own.path, besideBackup(file)),
    measure(metrics) {
      measureOrchestrator(metrics, orchestrator);
      service?.measure(metrics);
    },
    async stop() {
      throughput?.server[Symbol.dispose]();
      service?.[Symbol.dispose]();
      await tending.stop();
      orchestrator.stop();
      database[Symbol.dispose]();
    },
  };
}

/** @throws ListenRefused */
function serveThroughput(
  { loop, logger }: AdditionGround,
  orchestrator: VettingOrchestrator,
  { address, port, host }: NonNullable<OrchestratorConfiguration["throughput"]>,
): { readonly server: ThroughputServer; readonly host: string } {
  try {
    const server = ThroughputServer.start({
      listen: { address: addressBytes(address), port },
      admit: (run, key) => orchestrator.admitsTest(run, key),
      asksForTool: (run) => orchestrator.asksForNetworkTool(run),
      ...{ logger, loop },
    });
    logger.info(`tests links at ${address}:${server.port}`);
    return { server, host };
  } catch (failure) {
    const why = whyNotListening(failure);
    throw new ListenRefused(`Cannot test links at ${address}:${port}: ${why}`, { cause: failure });
  }
}

/** The wall clock of the start, and from then on the monotonic one: nobody can set it back. */
function steadyClock() {
  const offset = Date.now() - monotonicNow();
  return {
    now: () => monotonicNow() + offset,
    time: (at: Milliseconds = Date.now()) => new Date(at).toISOString(),
  };
}

/** Forgets what is over its bounds, again and again. */
class Tending {
  readonly #ground: AdditionGround;
  readonly #act: () => Promise<void>;
  #timer: Disposable | undefined;
  #running: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(ground: AdditionGround, act: () => Promise<void>) {
    this.#ground = ground;
    this.#act = act;
    this.#wake();
  }

  #wake(): void {
    if (this.#isStopped) return;
    this.#timer = this.#ground.loop.wakeAfter(TEND_EVERY, () => {
      this.#running = this.#act()
        .catch((error: Error) => this.#ground.logger.warn(`cannot tidy runs: ${error.message}`))
        .then(() => this.#wake());
    });
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.[Symbol.dispose]();
    await this.#running;
  }
}
