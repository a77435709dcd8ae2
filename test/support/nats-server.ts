/** Real NATS servers for tests: their own ports, folders and configurations. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findNatsServer, type NatsRelease } from "../../scripts/nats-server.ts";
import { type Program, startProgram } from "./program.ts";
import { type Feature, feature } from "./skips.ts";
import { waitFor } from "./wait-for.ts";

export function natsServer(release: NatsRelease): Feature {
  const reason = `nats-server of Debian ${release.suite} is not in .cache`;
  return feature(reason, () => findNatsServer(release) !== undefined);
}

export interface NatsServerOptions {
  readonly release: NatsRelease;
  readonly folder: string;
  /** Lines of nats-server.conf beyond the address and the folders. */
  readonly lines?: readonly string[];
  /** sync_interval: always, which 2.9 does not know. */
  readonly syncs?: boolean;
}

export interface NatsServer extends AsyncDisposable {
  readonly port: number;
  /** "nats://127.0.0.1:port" */
  readonly address: string;
  /** Of the monitoring: "http://127.0.0.1:port". */
  readonly monitoring: string;
  readonly processId: number;
  /** Where the streams lie. */
  readonly data: string;
  readonly output: Program["output"];
  kill(signal: NodeJS.Signals): void;
  /** Ends it (SIGKILL). */
  stop(): Promise<void>;
  /** Starts it again at the same ports, with these in place of the former. */
  start(changes?: Partial<Pick<NatsServerOptions, "lines" | "syncs">>): Promise<void>;
}

interface Ports {
  readonly nats: readonly string[];
  readonly monitoring: readonly string[];
}

/** Starts one, on ports that it chooses; they stay its own when it is started again. */
export async function startNatsServer(options: NatsServerOptions): Promise<NatsServer> {
  const { release, folder } = options;
  const program = findNatsServer(release);
  if (program === undefined) throw new Error(`No nats-server of ${release.suite}`);
  const data = join(folder, "jetstream");
  const configuration = join(folder, "nats-server.conf");
  let ports: Ports | undefined;
  let running: Program | undefined;
  const run = async ({ lines = [], syncs = false }: Partial<NatsServerOptions>) => {
    const [listen, monitoring] = [portOf(ports?.nats[0]), portOf(ports?.monitoring[0])];
    const sync = syncs ? ", sync_interval: always" : "";
    const text = [
      `listen: 127.0.0.1:${listen}`,
      `http: 127.0.0.1:${monitoring}`,
      `ports_file_dir: "${folder}"`,
      `jetstream { store_dir: "${data}", max_mem: 64M, max_file: 256M${sync} }`,
      ...lines,
    ];
    writeFileSync(configuration, `${text.join("\n")}\n`);
    const started = startProgram([program, "--config", configuration]);
    running = started;
    await started.said(/Server is ready/);
    const file = join(folder, `nats-server_${started.processId}.ports`);
    ports = await waitFor("the file with the ports", () => {
      const found = JSON.parse(readFileSync(file, "utf8")) as Ports;
      return found.nats.length > 0 ? found : undefined;
    });
    rmSync(file, { force: true });
  };
  await run(options);
  const now = () => {
    if (running === undefined || ports === undefined) throw new Error("It was not started");
    return { running, ports };
  };
  const port = portOf(now().ports.nats[0]);
  return {
    port,
    address: `nats://127.0.0.1:${port}`,
    monitoring: now().ports.monitoring[0] ?? "",
    get processId() {
      return now().running.processId;
    },
    data,
    get output() {
      return now().running.output;
    },
    kill: (signal) => now().running.kill(signal),
    stop: () => now().running[Symbol.asyncDispose]() as Promise<void>,
    start: (changes = {}) => run({ ...options, ...changes }),
    [Symbol.asyncDispose]: () => now().running[Symbol.asyncDispose]() as Promise<void>,
  };
}

/** -1 has the server choose. */
const portOf = (address: string | undefined) => Number(/:(\d+)$/.exec(address ?? "")?.[1] ?? -1);
