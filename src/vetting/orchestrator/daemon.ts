import { hostname } from "node:os";
import { join } from "node:path";
import type { AdditionGround, AuthorityAddition } from "../../authority/addition.ts";
import { runAuthority } from "../../authority/daemon.ts";
import { type AuthorityOptions, usualBuckets } from "../../authority/options.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { HttpLimits } from "../../http/limits.ts";
import { systemRandom } from "../../identity/secrets.ts";
import type { BucketDefinition } from "../../store/store.ts";
import type { Milliseconds } from "../../units/units.ts";
import { hostlerVersion } from "../../units/version.ts";
import { vettingLimits } from "../protocol.ts";
import { validateSpec } from "../spec/validate.ts";
import { agentRoutes } from "./agent-routes.ts";
import { VettingDatabase } from "./database.ts";
import { measureOrchestrator } from "./gauges.ts";
import { VettingOrchestrator } from "./orchestrator.ts";
import { VettingRecords } from "./records.ts";
import { reportPages, reportRoutes } from "./report-routes.ts";
import { tendRecords, vettingBuckets } from "./retention.ts";
import { operatorRoutes, operatorStreams } from "./routes.ts";

/** All that `--retain` can set: of the authority, and of what is kept of runs. */
export const orchestratorBuckets: readonly BucketDefinition[] = [
  ...usualBuckets,
  ...vettingBuckets,
];

/** Below the state directory. */
export const databasePlace = join("vetting", "vetting.db");

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
  rememberedCallers: 4 * vettingLimits.runsUnderWay,
};

/** Between two looks at what is too old or too much. */
const TEND_EVERY: Milliseconds = 60_000;

/**
 * Runs an orchestrator until SIGTERM or SIGINT: an authority for its operators, with the routes of
 * vetting, and hosts that come with tokens of their own.
 * @throws as runAuthority; FileRefused for its database
 */
export async function runOrchestrator(options: AuthorityOptions): Promise<number> {
  const isOurs = ({ name }: BucketDefinition) => vettingBuckets.some((own) => own.name === name);
  const { buckets } = options.retention;
  const retention = { ...options.retention, buckets: buckets.filter((one) => !isOurs(one)) };
  const own = { path: join(options.stateDirectory, databasePlace), bounds: buckets.filter(isOurs) };
  const open = (ground: AdditionGround) => Promise.resolve(openAddition(ground, own));
  return await runAuthority({ ...options, retention }, { open });
}

function openAddition(
  ground: AdditionGround,
  own: { readonly path: string; readonly bounds: readonly BucketDefinition[] },
): AuthorityAddition {
  const { loop, logger } = ground;
  const database = VettingDatabase.open(own.path);
  const clock = steadyClock();
  const orchestrator = new VettingOrchestrator({
    ...{ records: new VettingRecords(database), ...clock, logger, random: systemRandom },
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
    validate: validateSpec,
    networkTest: () => null,
    version: hostlerVersion,
  });
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
    pages: reportPages(reports),
    streams: operatorStreams(orchestrator),
    authenticate: (token) => orchestrator.authenticate(token),
    requestBytes: vettingLimits.requestBytes,
    limits: orchestratorHttpLimits,
    measure: (metrics) => measureOrchestrator(metrics, orchestrator),
    async stop() {
      await tending.stop();
      orchestrator.stop();
      database[Symbol.dispose]();
    },
  };
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
