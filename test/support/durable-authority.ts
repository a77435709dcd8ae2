/**
 * The compiled authority, with kill points, in a folder of its own, started as often as a test
 * wants, and what a test does with it: calls over its control socket, hosts, looks at its logs.
 */
import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type * as v from "valibot";
import { type ReadItem, readAudit } from "../../src/audit/read.ts";
import type { AuditRecord } from "../../src/audit/record.ts";
import { keyText } from "../../src/audit/signature.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { AuthorityClient } from "../../src/authority/client.ts";
import { openHost } from "../../src/authority/host-side.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import { HttpClient } from "../../src/http/client.ts";
import type { RouteDefinition } from "../../src/http/route.ts";
import { identityApi } from "../../src/identity/api.ts";
import type { HostIdentity } from "../../src/identity/host.ts";
import { storePath } from "../../src/store/wire/protocol.ts";
import { RemoteStore } from "../../src/store/wire/remote-store.ts";
import { hostlerWithFaults } from "./binary.ts";
import { type Program, type ProgramResult, runProgram, startProgram } from "./program.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";

/** Each process of tests has addresses of loopback of its own: ports need not be looked for. */
let addresses = 0;
function nextAddress(): string {
  addresses += 1;
  const { pid } = process;
  return `127.${1 + ((pid >> 8) & 0x7f)}.${pid & 0xff}.${1 + (addresses % 250)}:7443`;
}

const HOUR = 3_600_000;

/** An authority that was stopped, to begin many cases with. */
export interface Saved {
  readonly folder: TemporaryFolder;
  readonly address: string;
}

export class DurableAuthority implements AsyncDisposable {
  readonly folder: TemporaryFolder;
  /** "127.0.0.1:7443": the same after each start. */
  address: string;
  socket: string;
  /** Where everything of the authority is. */
  state: string;
  /** Words before the authority's, such as a program that changes how it runs. */
  before: readonly string[] = [];
  /** The process that was started last. */
  program: Program | undefined;
  /** What hosts lived with. */
  readonly troubles: string[] = [];
  #client: AuthorityClient | undefined;

  constructor(saved?: Saved) {
    this.folder = temporaryFolder();
    this.address = saved?.address ?? nextAddress();
    this.socket = this.folder.file("control.sock");
    this.state = this.folder.file("state");
    if (saved === undefined) return;
    for (const name of ["state", "hosts", "backup"]) {
      cpSync(saved.folder.file(name), this.folder.file(name), { recursive: true });
    }
  }

  get url(): string {
    return `https://${this.address}`;
  }

  get argv(): readonly string[] {
    return [
      ...[...this.before, hostlerWithFaults(), "identity", "authority", "--verbose"],
      ...["--listen", this.address],
      ...["--state-directory", this.state, "--control-socket", this.socket],
    ];
  }

  /** A process that may end before it listens. @param killAt such as "store:commit:begun#2" */
  launch(killAt?: string, environment: Readonly<Record<string, string>> = {}): Program {
    this.#forget();
    this.program = startProgram(this.argv, {
      environment: { ...environment, ...(killAt !== undefined && { HOSTLER_KILL_AT: killAt }) },
    });
    return this.program;
  }

  /** @returns false: it was killed before it listened */
  async start(killAt?: string): Promise<boolean> {
    const program = this.launch(killAt);
    const isListening = await Promise.race([
      program.said(/listening at/).then(
        () => true,
        () => false,
      ),
      program.ended().then(() => false),
    ]);
    if (isListening || killAt !== undefined) return isListening;
    throw new Error(`The authority does not start: ${program.output.stderr}`);
  }

  async stop(): Promise<ProgramResult> {
    this.#forget();
    const { program } = this;
    if (program === undefined) throw new Error("Nothing was started");
    program.kill("SIGTERM");
    return await program.ended();
  }

  async kill(): Promise<void> {
    this.#forget();
    this.program?.kill("SIGKILL");
    await this.program?.ended();
  }

  /** As a start of it that is refused. */
  async refused(): Promise<ProgramResult> {
    return await this.launch().ended();
  }

  async client(): Promise<AuthorityClient> {
    this.#client ??= await AuthorityClient.connect({ kind: "control", path: this.socket });
    return this.#client;
  }

  /** As root of this host. */
  async call<Input extends v.GenericSchema, Output extends v.GenericSchema>(
    route: RouteDefinition<Input, Output>,
    input: v.InferInput<Input>,
  ): Promise<v.InferOutput<Output>> {
    return await (await this.client()).call(route, input);
  }

  async token(host: string, replace = false): Promise<string> {
    const created = await this.call(identityApi.tokensCreate, { host, lifetime: HOUR, replace });
    return created.text;
  }

  hostFolder(name: string): string {
    return this.folder.file(`hosts/${name}`);
  }

  /** A process of this host, begun anew. */
  host(name: string): HostIdentity {
    return openHost(this.hostFolder(name), (message) => this.troubles.push(message));
  }

  async enrol(name: string): Promise<HostIdentity> {
    await this.host(name).enrol({ token: await this.token(name) });
    await this.host(name).openSession();
    return this.host(name);
  }

  /** As the operator who has this token, or "" when it counts for nobody. */
  async whoHas(token: string): Promise<string> {
    const { shown } = await this.call(identityApi.certificatesList, {});
    const place = { kind: "https", url: this.url, pins: [shown], token } as const;
    try {
      using client = await AuthorityClient.connect(place);
      return (await client.call(identityApi.whoami, {})).who;
    } catch (error) {
      if (String(error).includes("counts for nobody")) return "";
      throw error;
    }
  }

  /** The store, as this host reaches it in a session; closed with `loop`. */
  async storeOf(name: string, loop: EventLoop): Promise<RemoteStore> {
    const { bearer, pins, address } = await this.host(name).openSession();
    const client = new HttpClient({ url: address, pins });
    await client.connect();
    const { tls } = client;
    return new RemoteStore(loop, {
      address: `${address.replace(/^https/, "wss")}${storePath}`,
      program: "test",
      headers: async () => ({ authorization: `Bearer ${bearer}` }),
      ...(tls !== undefined && { tls }),
      onFailure: (reason) => this.troubles.push(reason),
    });
  }

  /** The compiled commands, beside a daemon or without one. */
  async run(words: readonly string[], environment = {}): Promise<ProgramResult> {
    return await runProgram([hostlerWithFaults(), ...words], { environment });
  }

  async store(...words: readonly string[]): Promise<ProgramResult> {
    const isOnline = words[0] === "storage" || words[0] === "backup";
    const place = isOnline ? ["--control-socket", this.socket] : ["--state-directory", this.state];
    return await this.run(["store", ...words, ...place]);
  }

  /** Of calls, all that is in the log; throws when anything in it is not as it was written. */
  async records(): Promise<readonly Extract<AuditRecord, { kind: "call" }>[]> {
    const directory = join(this.state, "audit");
    const pem = readFileSync(join(this.state, "identity/authority.pem"));
    const key = createPublicKey(createPrivateKey(pem));
    const found = await verifyAudit({ directory, keys: new Set([keyText(key)]) });
    if (found.verdict !== "intact") throw new Error(`Broken: ${Bun.inspect(found.faults)}`);
    const records: Extract<AuditRecord, { kind: "call" }>[] = [];
    for await (const item of readAudit({ directory }) as AsyncGenerator<ReadItem>) {
      if (item.kind === "record" && item.record.kind === "call") records.push(item.record);
    }
    return records;
  }

  /** Keeps it for other cases; it is stopped. */
  save(): Saved {
    return { folder: this.folder, address: this.address };
  }

  #forget(): void {
    this.#client?.[Symbol.dispose]();
    this.#client = undefined;
  }

  /** Ends the process; the folder stays for `save`. */
  async end(): Promise<void> {
    this.#forget();
    await this.program?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    this.folder[Symbol.dispose]();
  }
}

/** What a file holds, to be compared later. */
export function digestOf(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}
