import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { AuthorityClient } from "../../authority/client.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { identityApi } from "../../identity/api.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { bootParameters, type RunState } from "../protocol.ts";
import { hostApi, runApi, specApi } from "../protocol-api.ts";
import type { Dossier, RunView } from "../protocol-operator.ts";
import { Companion } from "./companion.ts";
import { EmulatedHost } from "./emulated-host.ts";
import { type Fault, healthySensors, type Injection, proverSpec } from "./faults.ts";
import { hostAddress } from "./guest.ts";
import { type Proof, proofOf } from "./verdict.ts";

/**
 * Proves the tester: an orchestrator of its own on loopback, and for each fault an emulated host
 * that boots the live image, has that fault and no other, and must be told so.
 */

/** How long it may take until the orchestrator listens: it makes a key and a certificate. */
const ORCHESTRATOR_START: Milliseconds = 60_000;
/** Between two looks at a run. */
const LOOK_EVERY: Milliseconds = 500;
/** Looks from one injection to the next. */
const LOOKS_EACH = 2;
const BOOT_WINDOW: Milliseconds = 3_600_000;

export interface ProverOptions {
  /** Of this proof alone; it is made when it is not there. */
  readonly folder: string;
  readonly image: { readonly kernel: string; readonly initramfs: string };
  readonly qemu: string;
  /** This very file, which is the orchestrator. */
  readonly program: string;
  readonly memoryMebibytes: number;
  /** For one host, from its switch to the end of its run. */
  readonly patience: Milliseconds;
  /** Ends the host that is on, and what is said of it. */
  readonly signal: AbortSignal;
  readonly onProgress: (event: ProverEvent) => void;
}

export type ProverEvent =
  | { readonly kind: "orchestrator"; readonly address: string }
  | {
      readonly kind: "state";
      readonly name: string;
      readonly run: number;
      readonly state: RunState;
    }
  | { readonly kind: "injected"; readonly name: string; readonly what: string }
  | { readonly kind: "console"; readonly name: string; readonly text: string };

export interface Proven {
  /** "healthy", or the name of the fault. */
  readonly name: string;
  readonly wrong: string;
  readonly run: number | null;
  readonly proof: Proof;
  readonly took: Milliseconds;
  readonly dossier: Dossier | undefined;
}

const healthy = { name: "healthy", wrong: "nothing" } as const;
type Case = Pick<Fault, "name" | "wrong"> & Partial<Fault>;

export class Prover implements AsyncDisposable {
  readonly #loop: EventLoop;
  readonly #options: ProverOptions;
  readonly #orchestrator: Companion;
  readonly #client: AuthorityClient;
  readonly #port: number;
  #hosts = 0;

  private constructor(
    around: { loop: EventLoop; orchestrator: Companion; client: AuthorityClient; port: number },
    options: ProverOptions,
  ) {
    this.#loop = around.loop;
    this.#orchestrator = around.orchestrator;
    this.#client = around.client;
    this.#port = around.port;
    this.#options = options;
  }

  /** @throws CompanionFailed, AuthorityError */
  static async start(loop: EventLoop, options: ProverOptions): Promise<Prover> {
    mkdirSync(options.folder, { recursive: true, mode: 0o700 });
    const control = join(options.folder, "control");
    await using owned = new AsyncDisposableStack();
    const orchestrator = owned.use(
      Companion.start(loop, "the orchestrator", {
        argv: [
          ...[options.program, "vetting", "orchestrator", "--listen", "127.0.0.1:0"],
          ...["--state-directory", join(options.folder, "state"), "--control-socket", control],
        ],
      }),
    );
    const listening = /listening at (https:\/\/[^\s"]+)/;
    const [, address = ""] = await orchestrator.says(listening, ORCHESTRATOR_START);
    const client = owned.use(await AuthorityClient.connect({ kind: "control", path: control }));
    await client.call(specApi.specPut, { spec: proverSpec.name, content: proverSpec });
    options.onProgress({ kind: "orchestrator", address });
    owned.move();
    return new Prover({ loop, orchestrator, client, port: Number(new URL(address).port) }, options);
  }

  /** A host without a fault: whatever is told of it is a false alarm. */
  async proveHealthy(): Promise<Proven> {
    return await this.#prove(healthy);
  }

  async proveFault(fault: Fault): Promise<Proven> {
    return await this.#prove(fault);
  }

  async #prove(one: Case): Promise<Proven> {
    const began = monotonicNow();
    const about = { name: one.name, wrong: one.wrong };
    const end = (run: number | null, proof: Proof, dossier?: Dossier): Proven => {
      return { ...about, run, proof, dossier, took: monotonicNow() - began };
    };
    let run: number | null = null;
    try {
      const mac = await this.#addHost(one.name);
      const view = await this.#client.call(runApi.start, {
        ...{ mac, spec: proverSpec.name, window_ms: BOOT_WINDOW },
      });
      run = view.run;
      await this.#walk(one, { mac, run });
      const dossier = await this.#client.call(runApi.dossier, { run });
      return end(run, proofOf(dossier, one.expected), dossier);
    } catch (error) {
      return end(run, { kind: "broken", reason: chainOf(error) });
    }
  }

  /** A card of its own for each: a host is known by what it was found to be before. */
  async #addHost(name: string): Promise<string> {
    this.#hosts += 1;
    const mac = `52:54:00:76:00:${this.#hosts.toString(16).padStart(2, "0")}`;
    await this.#client.call(hostApi.hostAdd, { mac, name, spec: proverSpec.name });
    return mac;
  }

  /** From the switch of the host until its run goes no further; the host is off afterwards. */
  async #walk(one: Case, { mac, run }: { readonly mac: string; readonly run: number }) {
    const { image, qemu, memoryMebibytes, folder, onProgress, patience } = this.#options;
    await using host = await EmulatedHost.start(this.#loop, {
      folder: join(folder, one.name),
      ...{ image, qemu, mac, memoryMebibytes },
      kernelWords: await this.#bootWords(run),
      change: one.change ?? {},
      sensors: one.sensors ?? healthySensors,
      onConsole: (text) => onProgress({ kind: "console", name: one.name, text }),
    });
    if (one.atPower !== undefined) await this.#inject(one.name, host, one.atPower);
    const until = monotonicNow() + patience;
    let state: RunState | undefined;
    let looks = 0;
    for (;;) {
      if (this.#options.signal.aborted) throw new Error("it was called off");
      const view = await this.#client.call(runApi.run, { run });
      if (view.state !== state) {
        state = view.state;
        onProgress({ kind: "state", name: one.name, run, state });
      }
      await this.#hurt(one, { state, host, looks });
      looks += 1;
      if (isAtEnd(view)) return;
      if (host.isGone) throw new Error(`The host is gone in ${state}. ${host.lastWords()}`);
      if (monotonicNow() > until) {
        const how = `It was in ${state} after ${formatDuration(patience)}`;
        throw new Error(`${how}. ${host.lastWords()}`);
      }
      await this.#pause();
    }
  }

  /** The kernel's command line of a host that boots without a boot script. */
  async #bootWords(run: number): Promise<string[]> {
    const { shown } = await this.#client.call(identityApi.certificatesList, {});
    const { token, mac } = await this.#client.call(runApi.token, { run });
    return [
      `${bootParameters.orchestrator}=https://${hostAddress}:${this.#port}`,
      `${bootParameters.run}=${run}`,
      `${bootParameters.token}=${token}`,
      `${bootParameters.mac}=${mac}`,
      `${bootParameters.pin}=${shown}`,
    ];
  }

  /** The step whose turn it is, while the run is in the state that it is for. */
  async #hurt(
    { name, during }: Case,
    at: { readonly state: RunState; readonly host: EmulatedHost; readonly looks: number },
  ): Promise<void> {
    if (during === undefined || during.state !== at.state || at.looks % LOOKS_EACH !== 0) return;
    const step = during.steps[(at.looks / LOOKS_EACH) % during.steps.length];
    if (step !== undefined) await this.#inject(name, at.host, step);
  }

  async #inject(name: string, host: EmulatedHost, step: Injection): Promise<void> {
    await host.inject(step);
    const what = [step.command, ...Object.values(step.words)].join(" ");
    this.#options.onProgress({ kind: "injected", name, what });
  }

  #pause(): Promise<void> {
    const passed = Promise.withResolvers<void>();
    this.#loop.wakeAfter(LOOK_EVERY, () => passed.resolve());
    return passed.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client[Symbol.dispose]();
    await this.#orchestrator.stop("SIGTERM");
  }
}

const lastStates: readonly RunState[] = [
  "Completed",
  "FailedHolding",
  "Cancelled",
  "Aborted",
  "Lost",
];

function isAtEnd({ state }: RunView): boolean {
  return lastStates.includes(state);
}

function chainOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${chainOf(error.cause)}`;
}
