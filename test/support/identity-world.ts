/** An authority with hosts and operators around it, without sockets: clocks, chance and faults. */
import { readFileSync } from "node:fs";
import * as v from "valibot";
import type { Principal } from "../../src/http/principal.ts";
import type { Route } from "../../src/http/route.ts";
import { Authority } from "../../src/identity/authority.ts";
import type { AuthorityStep, IdentityClock, Ledger } from "../../src/identity/authority-core.ts";
import type { IdentityEvent } from "../../src/identity/event-book.ts";
import { IdentityRefusal } from "../../src/identity/refusal.ts";
import {
  type Entry,
  matchesPattern,
  type PutOptions,
  type Revision,
  type Store,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "../../src/store/store.ts";
import { SeededChance } from "./chance.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

/** What a store can do to a write, once: none of it, all but its answer, or another one before. */
export type StoreFault = "unavailable" | "ambiguous-absent" | "ambiguous-landed" | "conflict";

/** A store in memory whose writes can go wrong, and which can be put back to what it was. */
export class FaultyStore implements Store {
  readonly capabilities = { acknowledgement: "memory", server: "test" } as const;
  readonly faults: StoreFault[] = [];
  writes = 0;
  /** Watchers are told nothing until it is released. */
  #isHeld = false;
  #entries = new Map<string, Entry>();
  #revision: Revision = 0;
  readonly #watchers = new Set<{ told: WatchEvent[]; wake: () => void }>();

  async get(bucket: string, key: string): Promise<Entry | undefined> {
    return this.#entries.get(`${bucket}/${key}`);
  }

  async put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision> {
    return this.#write({ bucket, key, value, operation: "put" }, options);
  }

  async delete(bucket: string, key: string, options: PutOptions): Promise<Revision> {
    return this.#write({ bucket, key, value: "", operation: "delete" }, options);
  }

  async *watch(
    bucket: string,
    pattern: string,
    { signal }: WatchOptions = {},
  ): AsyncGenerator<WatchEvent> {
    const watcher = { told: this.#listing(), wake: () => {} };
    this.#watchers.add(watcher);
    signal?.addEventListener("abort", () => watcher.wake());
    try {
      while (signal?.aborted !== true) {
        const event = this.#isHeld ? undefined : watcher.told.shift();
        if (event === undefined) {
          const { promise, resolve } = Promise.withResolvers<void>();
          watcher.wake = resolve;
          await promise;
          continue;
        }
        const isOurs = event.kind !== "entry" || event.entry.bucket === bucket;
        if (event.kind === "entry" && !matchesPattern(event.entry.key, pattern)) continue;
        if (isOurs) yield event;
      }
    } finally {
      this.#watchers.delete(watcher);
    }
  }

  async *link(): AsyncGenerator<"up"> {
    yield "up";
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  hold(): void {
    this.#isHeld = true;
  }

  /** Returns when the watchers were told all that was held up. */
  async release(): Promise<void> {
    this.#isHeld = false;
    this.#tell([]);
    await waitFor("all watchers", () => [...this.#watchers].every(({ told }) => told.length === 0));
  }

  /** A backup: what there is now. */
  backup(): ReadonlyMap<string, Entry> {
    return new Map(this.#entries);
  }

  /** Revisions go on where they were. */
  restore(entries: ReadonlyMap<string, Entry>): void {
    this.#entries = new Map(entries);
    this.#revision += 1_000;
    this.#tell([{ kind: "reset" }, ...this.#listing()]);
  }

  /** Another store, empty, whose revisions begin at the beginning. */
  beginAnew(): void {
    this.#entries = new Map();
    this.#revision = 0;
  }

  /** All that is stored, as text: nobody should find a secret in it. */
  text(): string {
    return JSON.stringify([...this.#entries.values()]);
  }

  #write(what: Pick<Entry, "bucket" | "key" | "value" | "operation">, options: PutOptions) {
    const place = `${what.bucket}/${what.key}`;
    const present = this.#entries.get(place);
    if (present?.writeId === options.writeId) return present.revision;
    const fault = this.faults.shift();
    if (fault === "unavailable" || fault === "ambiguous-absent") throw problem(fault);
    if (fault === "conflict" && present !== undefined) {
      this.#land({ ...present, writeId: "another" });
    }
    const now = this.#entries.get(place);
    const received = now === undefined || now.operation === "delete" ? 0 : now.revision;
    if (options.expect !== undefined && options.expect !== received) {
      throw new StoreError("conflict", { kind: "conflict", received });
    }
    const { revision } = this.#land({ ...what, writeId: options.writeId, time: 0, revision: 0 });
    this.writes += 1;
    if (fault === "ambiguous-landed") throw problem(fault);
    return revision;
  }

  #land(entry: Entry): Entry {
    this.#revision += 1;
    const landed = { ...entry, revision: this.#revision };
    this.#entries.set(`${entry.bucket}/${entry.key}`, landed);
    this.#tell([{ kind: "entry", entry: landed }]);
    return landed;
  }

  #listing(): WatchEvent[] {
    const entries = [...this.#entries.values()].filter(({ operation }) => operation === "put");
    const told = entries.map((entry): WatchEvent => ({ kind: "entry", entry }));
    return [...told, { kind: "synced", revision: this.#revision }];
  }

  #tell(events: readonly WatchEvent[]): void {
    for (const watcher of this.#watchers) {
      watcher.told.push(...events);
      watcher.wake();
    }
  }
}

function problem(fault: "unavailable" | "ambiguous-absent" | "ambiguous-landed"): StoreError {
  return new StoreError(fault, {
    kind: fault === "unavailable" ? "unavailable" : "ambiguous",
  });
}

/** Clocks that go when a test says so; both start at odd values. */
export class TestClock implements IdentityClock {
  boot = "0c1ad8a6-0000-4000-8000-00000000000a";
  #monotonic = 1_000_000;
  #wall: number;

  constructor(wall = 1_795_000_000_000) {
    this.#wall = wall;
  }

  readonly monotonic = () => this.#monotonic;
  readonly wall = () => this.#wall;

  pass(time: number): void {
    this.#monotonic += time;
    this.#wall += time;
  }

  setWall(wall: number): void {
    this.#wall = wall;
  }
}

export class MemoryLedger implements Ledger {
  readonly spent = new Set<string>();

  async spend({ kind, id }: { kind: string; id: string }): Promise<boolean> {
    const isNew = !this.spent.has(`${kind}/${id}`);
    this.spent.add(`${kind}/${id}`);
    return isNew;
  }

  isSpent({ kind, id }: { kind: string; id: string }): boolean {
    return this.spent.has(`${kind}/${id}`);
  }
}

/** A process died here, in the words of a test. */
export class Killed extends Error {}

export const localRoot: Principal = { kind: "local", user: 0, process: 1 };

export interface Answered {
  readonly status: number;
  readonly body: unknown;
}

/** One authority, over all the times that its process is started. */
export class IdentityWorld implements AsyncDisposable {
  readonly folder: TemporaryFolder = temporaryFolder();
  readonly store = new FaultyStore();
  readonly ledger = new MemoryLedger();
  readonly clock: TestClock;
  readonly events: IdentityEvent[] = [];
  readonly troubles: string[] = [];
  /** Sessions whose connection answers a ping. */
  readonly answering = new Set<string>();
  /** Sessions whose connection was asked, one for each ping. */
  readonly pinged: string[] = [];
  /** Records for the audit log, as the dispatcher would have them. */
  readonly audit: unknown[] = [];
  killAt: AuthorityStep | undefined;
  authority!: Authority;
  readonly #chance: SeededChance;

  private constructor(options: { readonly seed: number; readonly wall?: number }) {
    this.#chance = new SeededChance(options.seed);
    this.clock = new TestClock(options.wall);
  }

  static async open(options: { seed?: number; wall?: number } = {}): Promise<IdentityWorld> {
    const world = new IdentityWorld({ seed: 1, ...options });
    await world.start();
    return world;
  }

  readonly random = (count: number): Uint8Array => {
    return Uint8Array.from({ length: count }, () => this.#chance.below(256));
  };

  async start(): Promise<void> {
    this.authority = await Authority.open({
      folder: this.folder.file("authority"),
      address: "https://authority.test:7443",
      names: ["authority.test", "192.0.2.1"],
      store: this.store,
      ledger: this.ledger,
      clock: this.clock,
      random: this.random,
      answersPing: async (session) => {
        this.pinged.push(session);
        return this.answering.has(session);
      },
      onStep: (step) => {
        if (step !== this.killAt) return;
        this.killAt = undefined;
        throw new Killed(step);
      },
      onTrouble: (message) => this.troubles.push(message),
    });
    this.authority.onEvent((event) => this.events.push(event));
  }

  /** The process ends and another one begins; the store, the ledger and the folder stay. */
  async restart(): Promise<void> {
    await this.authority[Symbol.asyncDispose]();
    await this.start();
  }

  /** Calls a route as the dispatcher does. */
  async call(
    name: string,
    input: unknown = {},
    principal: Principal = localRoot,
  ): Promise<Answered> {
    const route = this.authority.routes.find((each) => each.name === name);
    if (route === undefined) throw new Error(`There is no route ${name}.`);
    return this.run(route, input, principal);
  }

  async run(route: Route, input: unknown, principal: Principal): Promise<Answered> {
    const parsed = v.safeParse(route.input, input);
    if (!parsed.success) return { status: 400, body: { type: "request", title: "wrong" } };
    const call = {
      principal,
      from: "192.0.2.9:1",
      signal: new AbortController().signal,
      changed: (change: unknown) => this.audit.push(change),
    };
    try {
      const result = await route.run(call, parsed.output);
      // What a socket would make of it.
      return { status: 200, body: JSON.parse(JSON.stringify(v.parse(route.output, result))) };
    } catch (error) {
      if (!(error instanceof IdentityRefusal)) throw error;
      return { status: error.problem.status, body: error.problem };
    }
  }

  /** Calls a route that must be fine. */
  async done<Result = Record<string, unknown>>(
    name: string,
    input: unknown = {},
    principal: Principal = localRoot,
  ): Promise<Result> {
    const { status, body } = await this.call(name, input, principal);
    if (status !== 200) throw new Error(`${name}: ${JSON.stringify(body)}`);
    return body as Result;
  }

  /** The kind of what a route refuses. */
  async refusal(name: string, input: unknown, principal: Principal = localRoot): Promise<string> {
    const { status, body } = await this.call(name, input, principal);
    if (status === 200) return "done";
    return (body as { type: string }).type.replace("urn:hostler:identity:", "");
  }

  async token(host: string, options: Record<string, unknown> = {}): Promise<string> {
    const { text } = await this.done<{ text: string }>("identity.tokens.create", {
      host,
      ...options,
    });
    return text;
  }

  kinds(): string[] {
    return this.events.map(({ kind }) => kind);
  }

  authorityFile(): string {
    return readFileSync(this.folder.file("authority/authority.json"), "utf8");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.authority[Symbol.asyncDispose]();
    this.folder[Symbol.dispose]();
  }
}
