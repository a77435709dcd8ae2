/** A real orchestrator in the test's own process, over TLS, of which a test can break each call. */
import { join } from "node:path";
import * as v from "valibot";
import { monotonicNow } from "../../../src/event-loop/clock.ts";
import { ProblemError, type ProblemKind } from "../../../src/http/problem.ts";
import type { Route } from "../../../src/http/route.ts";
import { HttpServer } from "../../../src/http/server.ts";
import { systemRandom } from "../../../src/identity/secrets.ts";
import { createLogger } from "../../../src/logging/logger.ts";
import { agentRoutes } from "../../../src/vetting/orchestrator/agent-routes.ts";
import { VettingDatabase } from "../../../src/vetting/orchestrator/database.ts";
import type { Run, RunInput } from "../../../src/vetting/orchestrator/lifecycle-state.ts";
import { VettingOrchestrator } from "../../../src/vetting/orchestrator/orchestrator.ts";
import { VettingRecords } from "../../../src/vetting/orchestrator/records.ts";
import { vettingLimits } from "../../../src/vetting/protocol.ts";
import type { KeptResult } from "../../../src/vetting/protocol-operator.ts";
import { type Spec, specSchema } from "../../../src/vetting/protocol-spec.ts";
import { validateSpec } from "../../../src/vetting/spec/validate.ts";
import { makeCertificate } from "../certificate.ts";
import { testEventLoop } from "../event-loop.ts";
import { temporaryFolder } from "../temporary-folder.ts";

export const testMac = "52:54:00:12:34:56";

/** Makes of a command one that sees these cards alone, on whatever machine the test runs. */
export function withCards(macs: readonly string[]): readonly string[] {
  const folder = "/sys/class/net";
  const script = [
    ...["set -e", `mount -t tmpfs cards ${folder}`],
    ...macs.flatMap((mac, index) => [
      `mkdir -p ${folder}/card${index}/device`,
      `echo 1 > ${folder}/card${index}/type`,
      `echo ${mac} > ${folder}/card${index}/address`,
    ]),
    'exec "$@"',
  ].join("\n");
  // Who is not root may mount in a namespace of users of its own.
  const user = process.getuid?.() === 0 ? [] : ["--map-root-user"];
  return ["unshare", ...user, "--mount", "sh", "-c", script, "sh"];
}

/** @returns a problem to answer with in place of doing it; undefined: it is done */
export type Interference = (call: string, input: unknown) => ProblemError | undefined;

export interface VettingHost extends AsyncDisposable {
  readonly orchestrator: VettingOrchestrator;
  readonly url: string;
  readonly pin: string;
  readonly number: number;
  /** Of the boot script. */
  readonly token: string;
  readonly run: Run;
  readonly results: readonly KeptResult[];
  /** Every call that came, with what it said. */
  readonly calls: readonly { readonly call: string; readonly input: unknown }[];
  /** Before each call. */
  interfere: Interference;
  /** After each call was done, in place of its answer. */
  interfereAfter: Interference;
  order(input: RunInput): Promise<Run>;
  lines(level?: string): readonly string[];
}

/** @param stages settings of stages that are not the usual ones */
export async function startVettingHost(
  stages: Record<string, unknown> = {},
  pace: { readonly heartbeat?: number; readonly log?: number; readonly sensors?: number } = {},
): Promise<VettingHost> {
  const folder = temporaryFolder();
  const loop = testEventLoop();
  const database = VettingDatabase.open(join(folder.path, "vetting.db"));
  const offset = Date.now() - monotonicNow();
  const now = () => monotonicNow() + offset;
  const records = new VettingRecords(database);
  const orchestrator = new VettingOrchestrator({
    ...{ records, now, random: systemRandom, validate: validateSpec, version: "0" },
    time: (at = Date.now()) => new Date(at).toISOString(),
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
    logger: createLogger("orchestrator", { write: () => true, journal: false }),
    networkTest: () => null,
  });
  const spec: Spec = v.parse(specSchema, { name: "test", stages });
  await orchestrator.putSpec(spec, undefined);
  await orchestrator.addHost({ mac: testMac, name: "node", spec: "test" });
  const { run: number } = await orchestrator.startRun(testMac, {
    ...{ spec: "test", who: "operator alice", window: 3_600_000 },
  });
  await orchestrator.openWindow(testMac, 3_600_000);
  const minted = await orchestrator.mintBootToken(testMac);
  if (!("token" in minted)) throw new Error(minted.message);
  const calls: { call: string; input: unknown }[] = [];
  const certificate = makeCertificate();
  let host: Pick<VettingHost, "interfere" | "interfereAfter"> = {
    interfere: () => undefined,
    interfereAfter: () => undefined,
  };
  const paced = (call: string, answer: unknown) =>
    call === "claim"
      ? {
          ...(answer as object),
          heartbeat_ms: pace.heartbeat ?? 100,
          log_ms: pace.log ?? 50,
          sensor_ms: pace.sensors ?? 100,
        }
      : answer;
  const routes = agentRoutes(orchestrator, now).map((route) => {
    const call = route.name.split(".").at(-1) ?? "";
    const run: Route["run"] = async (context, input) => {
      calls.push({ call, input });
      const before = host.interfere(call, input);
      if (before !== undefined) throw before;
      const answer = await route.run(context, input as never);
      const after = host.interfereAfter(call, input);
      if (after !== undefined) throw after;
      return paced(call, answer) as never;
    };
    return { ...route, run };
  });
  const server = HttpServer.start({
    listen: { hostname: "127.0.0.1", port: 0 },
    ...{ certificate, routes, loop, title: "test", version: "1" },
    authenticate: (credentials) => {
      if (credentials.kind === "none") return { principal: { kind: "anonymous" } };
      const known = orchestrator.authenticate(credentials.token);
      if (known === undefined) throw new ProblemError("unauthenticated", "No such token");
      return known;
    },
    onRecord: () => {},
    limits: {
      bodyBytes: vettingLimits.requestBytes,
      addressRate: { burst: 20_000, perSecond: 20_000 },
      principalRate: { burst: 20_000, perSecond: 20_000 },
    },
    logger: createLogger("test", { write: () => true, journal: false }),
  });
  const made: VettingHost = {
    ...{ interfere: host.interfere, interfereAfter: host.interfereAfter },
    ...{ orchestrator, url: server.url, pin: certificate.pin, number, token: minted.token, calls },
    get run() {
      return orchestrator.entry(number).run;
    },
    get results() {
      return records.results(number);
    },
    order: async (input: RunInput) => (await orchestrator.post(number, input)).run,
    lines: (level?: string) =>
      records
        .lastLines(number, 10_000)
        .filter((line) => level === undefined || line.level === level)
        .map(({ text }) => text),
    [Symbol.asyncDispose]: async () => {
      await server.stop();
      orchestrator.stop();
      database[Symbol.dispose]();
      loop[Symbol.dispose]();
      folder[Symbol.dispose]();
    },
  };
  host = made;
  return made;
}

export const problem = (kind: ProblemKind, retryAfter?: number): ProblemError =>
  new ProblemError(kind, `told to say ${kind}`, { retryAfter });
