/** An orchestrator in the test's own process, and hosts that speak to it as their agents do. */
import { createHash, generateKeyPairSync, randomBytes } from "node:crypto";
import { join } from "node:path";
import * as v from "valibot";
import { OperatorCookies } from "../../src/authority/browser-sessions.ts";
import { monotonicNow } from "../../src/event-loop/clock.ts";
import { type Inventory, identityOf } from "../../src/hardware/inventory.ts";
import type { HttpClient } from "../../src/http/client.ts";
import type { Principal } from "../../src/http/principal.ts";
import { ProblemError } from "../../src/http/problem.ts";
import type { Authenticate } from "../../src/http/request-handler.ts";
import { IdentityKey } from "../../src/identity/host-key.ts";
import { createLogger } from "../../src/logging/logger.ts";
import { agentRoutes } from "../../src/vetting/orchestrator/agent-routes.ts";
import { VettingDatabase } from "../../src/vetting/orchestrator/database.ts";
import { VettingOrchestrator } from "../../src/vetting/orchestrator/orchestrator.ts";
import { vettingPages } from "../../src/vetting/orchestrator/page-files.ts";
import { VettingRecords } from "../../src/vetting/orchestrator/records.ts";
import { reportPages, reportRoutes } from "../../src/vetting/orchestrator/report-routes.ts";
import { operatorRoutes, operatorStreams } from "../../src/vetting/orchestrator/routes.ts";
import { type LogLine, VETTING_PROTOCOL_VERSION } from "../../src/vetting/protocol.ts";
import { agentApi } from "../../src/vetting/protocol-api.ts";
import type { Stage, StageReport } from "../../src/vetting/protocol-result.ts";
import { type Spec, specSchema } from "../../src/vetting/protocol-spec.ts";
import { validateSpec } from "../../src/vetting/spec/validate.ts";
import { operators, startTestServer, type TestServer, testLoop } from "./http-server.ts";
import { temporaryFolder } from "./temporary-folder.ts";

export interface VettingServer extends AsyncDisposable {
  readonly http: TestServer;
  readonly orchestrator: VettingOrchestrator;
  readonly key: IdentityKey;
  putSpec(spec: v.InferInput<typeof specSchema>): Promise<Spec>;
  /** Takes the host in, begins a run, boots it, and has its agent claim. */
  bootHost(host: {
    readonly mac: string;
    readonly name: string;
    readonly spec: string;
    readonly inventory: Inventory;
  }): Promise<TestAgent>;
}

/** Who may also give a key to a host that holds. */
const keeper: Readonly<Record<string, Principal>> = {
  "keeper-token": { kind: "operator", name: "dave", role: "operate", special: ["hold"] },
};

/** @param now milliseconds since 1970, of the orchestrator */
export function startVettingServer(now: () => number = () => Date.now()): VettingServer {
  const folder = temporaryFolder();
  const loop = testLoop();
  const database = VettingDatabase.open(join(folder.path, "vetting", "vetting.db"));
  const logger = createLogger("test", { write: () => true, journal: false });
  const orchestrator = new VettingOrchestrator({
    ...{ records: new VettingRecords(database), now, logger, random: (size) => randomBytes(size) },
    time: (at = now()) => new Date(at).toISOString(),
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
    validate: validateSpec,
    networkTest: () => null,
    version: "0.1.0",
  });
  const key = new IdentityKey(generateKeyPairSync("ed25519").privateKey);
  const about = { version: "0.1.0", name: "control" };
  const reports = { orchestrator, about, key, now };
  const admit = (token: string) => {
    const principal = operators[token] ?? keeper[token];
    return principal === undefined
      ? undefined
      : { principal, signal: new AbortController().signal };
  };
  const cookies = new OperatorCookies(admit, monotonicNow);
  const authenticate: Authenticate = (credentials) => {
    if (credentials.kind === "none") return { principal: { kind: "anonymous" } };
    const { kind, token } = credentials;
    const found =
      kind === "cookie" ? cookies.find(token) : (orchestrator.authenticate(token) ?? admit(token));
    if (found !== undefined) return found;
    throw new ProblemError("unauthenticated", "No such token");
  };
  const http = startTestServer({
    ...{ loop, authenticate, browserSessions: cookies },
    routes: [
      ...agentRoutes(orchestrator, now),
      ...operatorRoutes(orchestrator, about),
      ...reportRoutes(reports),
    ],
    streams: operatorStreams(orchestrator),
    pages: [...reportPages(reports), ...vettingPages()],
    limits: { bodyBytes: 16 * 1024 ** 2 },
  });
  return {
    ...{ http, orchestrator, key },
    async putSpec(content) {
      const spec = v.parse(specSchema, content);
      await orchestrator.putSpec(spec, undefined);
      return spec;
    },
    async bootHost({ mac, name, spec, inventory }) {
      await orchestrator.addHost({ mac, name, spec });
      const asked = { spec, who: "operator alice", window: 0 };
      const { run } = await orchestrator.startRun(mac, asked);
      await orchestrator.openWindow(mac, 600_000);
      const minted = await orchestrator.mintBootToken(mac);
      if (!("token" in minted)) throw new Error(minted.message);
      const agent = new TestAgent(http, run);
      await agent.claim(minted.token, { mac, inventory });
      return agent;
    },
    async [Symbol.asyncDispose]() {
      orchestrator.stop();
      await http[Symbol.asyncDispose]();
      loop[Symbol.dispose]();
      database[Symbol.dispose]();
      folder[Symbol.dispose]();
    },
  };
}

/** What an agent tells, when a test says so. */
export class TestAgent {
  readonly run: number;
  readonly #client: HttpClient;
  readonly #instance = randomBytes(16).toString("hex");
  readonly #boot = `boot-${this.#instance}`;
  #token = "";
  #sequence = 0;
  #attempts = 0;
  #inventory: Inventory | undefined;

  constructor(http: TestServer, run: number) {
    this.run = run;
    this.#client = http.client({ token: () => this.#token });
  }

  async claim(token: string, host: { readonly mac: string; readonly inventory: Inventory }) {
    this.#token = token;
    this.#inventory = host.inventory;
    const answer = await this.#client.call(agentApi.claim, {
      ...{
        run: this.run,
        protocol: VETTING_PROTOCOL_VERSION,
        version: "0.1.0",
        instance: this.#instance,
      },
      ...{ boot_id: this.#boot, mac: host.mac, macs: [host.mac], address: "10.0.0.7" },
      identity: identityOf(host.inventory),
    });
    this.#token = answer.session;
  }

  /** @returns the attempt, which is under way now */
  async begin(stage: Stage): Promise<string> {
    this.#attempts += 1;
    const id = createHash("sha256").update(`${this.#instance}${stage}${this.#attempts}`);
    const attempt = id.digest("hex").slice(0, 32);
    const asked = { run: this.run, attempt, instance: this.#instance, stage };
    const answer = await this.#client.call(agentApi.attempt, asked);
    if (answer.decision === "go") throw new Error(`${stage} is not next: ${answer.next_state}`);
    return attempt;
  }

  /** @param during what it tells meanwhile @returns the state after it */
  async stage(stage: Stage, report: StageReport, during = async () => {}): Promise<string> {
    const attempt = await this.begin(stage);
    await during();
    const inventory = stage === "Inventory" ? { inventory: this.#inventory } : {};
    const told = await this.#client.call(agentApi.result, {
      ...{ run: this.run, result: randomBytes(16).toString("hex"), attempt, stage },
      ...{ cancelled: false, duration_ms: 1_000, report: { ...report, ...inventory } },
    });
    return told.next_state;
  }

  async heartbeat(stage: Stage | null, progress = 0.5) {
    const activity =
      stage === null ? ({ kind: "idle" } as const) : ({ kind: "stage", stage, progress } as const);
    return await this.#client.call(agentApi.heartbeat, {
      ...{ run: this.run, instance: this.#instance, boot_id: this.#boot },
      ...{ activity, acknowledged: [], dropped: 0 },
    });
  }

  async log(text: string, more: Partial<LogLine> = {}): Promise<void> {
    this.#sequence += 1;
    const time = new Date().toISOString();
    const line = { sequence: this.#sequence, time, level: "info" as const, stage: null, text };
    const lines = [{ ...line, ...more }];
    await this.#client.call(agentApi.log, { run: this.run, instance: this.#instance, lines });
  }

  async sensors(
    values: Readonly<Record<string, number>>,
    errors: Readonly<Record<string, number>> = {},
  ): Promise<void> {
    this.#sequence += 1;
    const sensors = Object.entries(values).map(([key, value]) => {
      const kind = key.startsWith("psu") ? ("power" as const) : ("temperature" as const);
      return { kind, key, value, critical: kind === "power" ? null : 95 };
    });
    const time = new Date().toISOString();
    const reading = { sequence: this.#sequence, time, stage: null, sensors, errors, missing: [] };
    const told = { run: this.run, instance: this.#instance, readings: [reading] };
    await this.#client.call(agentApi.sensors, told);
  }

  async hold(): Promise<string | null> {
    const asked = { run: this.run, instance: this.#instance, address: "10.0.0.7" };
    const answer = await this.#client.call(agentApi.hold, {
      ...asked,
      host_key: "SHA256:uNiVztksCsDhcc0u9e8BrhjCpQ8Fz9Yhb0cX5G0qk1c",
    });
    return answer.authorized_key;
  }
}
