/** The compiled orchestrator, and agents that speak the wire to it as the live image does. */
import { join } from "node:path";
import type { HardwareIdentity } from "../../../src/hardware/inventory.ts";
import { HttpClient } from "../../../src/http/client.ts";
import { identityApi } from "../../../src/identity/api.ts";
import { type ClaimAnswer, VETTING_PROTOCOL_VERSION } from "../../../src/vetting/protocol.ts";
import { agentApi, vettingApi } from "../../../src/vetting/protocol-api.ts";
import type { Outcome, Stage } from "../../../src/vetting/protocol-result.ts";
import { hostlerWithFaults } from "../binary.ts";
import { DurableAuthority } from "../durable-authority.ts";
import { drawn, exampleSpec, mac, ownIdentity, report } from "./runs.ts";

const wellHost = { mac: mac as string, name: "node-7" };

export class DurableOrchestrator extends DurableAuthority {
  flags: readonly string[] = [];

  override get argv(): readonly string[] {
    return [
      ...[...this.before, hostlerWithFaults(), "vetting", "orchestrator", "--verbose"],
      ...["--listen", this.address],
      ...["--state-directory", this.state, "--control-socket", this.socket, ...this.flags],
    ];
  }

  get database(): string {
    return join(this.state, "vetting", "vetting.db");
  }

  /** A host with a run that waits for its boot, inside its window. @returns the run */
  async prepare(part: Partial<typeof wellHost> = {}): Promise<number> {
    await this.call(vettingApi.specPut, { spec: "rack", content: exampleSpec });
    const host = { ...wellHost, ...part, spec: "rack" };
    await this.call(vettingApi.hostAdd, host);
    const started = await this.call(vettingApi.start, { mac: host.mac, window_ms: 3_600_000 });
    return started.run;
  }

  /** Of a host that boots anew, as a rule: the session before it ends. */
  async mint(run: number, { replace } = { replace: true }): Promise<string> {
    return (await this.call(vettingApi.token, { run, replace })).token;
  }

  async agent(run: number, token: string, instance = drawn(1)): Promise<WireAgent> {
    const { shown } = await this.call(identityApi.certificatesList, {});
    return new WireAgent(this.url, shown, { run, token, instance });
  }
}

/** An agent by the wire alone: what it says is what a test says. */
export class WireAgent {
  readonly run: number;
  readonly instance: string;
  bootId = "boot-1";
  identity: HardwareIdentity = ownIdentity;
  protocol = VETTING_PROTOCOL_VERSION;
  /** The card that it was booted from, and the cards that its host has. */
  mac = mac;
  macs: readonly string[] | undefined;
  session: string;
  readonly #client: HttpClient;
  #drawn = 0;

  constructor(
    url: string,
    pin: string,
    who: { readonly run: number; readonly token: string; readonly instance: string },
  ) {
    this.run = who.run;
    this.instance = who.instance;
    this.session = who.token;
    this.#client = new HttpClient({ url, pins: [pin], token: () => this.session });
  }

  /** Asks what is an operator's to ask. */
  async trespasses(): Promise<unknown> {
    return await this.#client.call(vettingApi.runs, {});
  }

  draw(): string {
    this.#drawn += 1;
    return drawn(this.#drawn).replace(/^0{8}/, this.instance.slice(-8));
  }

  async claim(): Promise<ClaimAnswer> {
    const { run, instance, identity } = this;
    const answer = await this.#client.call(agentApi.claim, {
      ...{ run, protocol: this.protocol, version: "1.0.0", instance, boot_id: this.bootId },
      ...{ mac: this.mac, macs: [...(this.macs ?? [this.mac])], address: "127.0.0.1", identity },
    });
    this.session = answer.session;
    return answer;
  }

  /** Of the attempt that was asked for last. */
  lastDrawn = "";

  async attempt(stage: Stage, attempt = this.draw()) {
    this.lastDrawn = attempt;
    const { run, instance } = this;
    return {
      attempt,
      answer: await this.#client.call(agentApi.attempt, { run, attempt, instance, stage }),
    };
  }

  async result(stage: Stage, attempt: string, outcome: Outcome, result = this.draw()) {
    const told = { result, attempt, stage, cancelled: false, duration_ms: 5 };
    const answer = await this.#client.call(agentApi.result, {
      ...{ run: this.run, ...told, report: report(outcome, stage) },
    });
    return answer.next_state;
  }

  /** A stage from its attempt to its result. @returns the next state */
  async walks(stage: Stage, outcome: Outcome = "PASS") {
    const { attempt } = await this.attempt(stage);
    return await this.result(stage, attempt, outcome);
  }

  async beat(run = this.run) {
    return await this.#client.call(agentApi.heartbeat, {
      ...{ run, instance: this.instance, boot_id: this.bootId, dropped: 0 },
      ...{ activity: { kind: "idle" }, acknowledged: [] },
    });
  }

  async log(sequence: number, texts: readonly string[], time = new Date().toISOString()) {
    const lines = texts.map((text, index) => ({
      ...{ sequence: sequence + index, time, level: "info" as const, stage: null, text },
    }));
    await this.#client.call(agentApi.log, { run: this.run, instance: this.instance, lines });
  }

  /** One reading of so many sensors. */
  async readings(sequence: number, sensors: number) {
    const time = new Date().toISOString();
    const values = Array.from({ length: sensors }, (_one, index) => ({
      ...{ kind: "temperature" as const, key: `coretemp.0/Core ${index}`, critical: 100 },
      value: 40 + ((sequence + index) % 20),
    }));
    const reading = { sequence, time, stage: null, sensors: values, errors: {}, missing: [] };
    const { run, instance } = this;
    await this.#client.call(agentApi.sensors, { run, instance, readings: [reading] });
  }

  async hold(hostKey: string | null) {
    const { run, instance } = this;
    return await this.#client.call(agentApi.hold, {
      ...{ run, instance, address: "127.0.0.1", host_key: hostKey },
    });
  }
}
