import * as v from "valibot";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import {
  type MachineSpecification,
  type MigrationArrival,
  type ReceiveRoute,
  type SendRoute,
  type VmmMigration,
  VmmRefused,
  VmmUnreachable,
} from "../driver.ts";
import {
  blockJobEventSchema,
  blockJobsSchema,
  blockNodesSchema,
  migrationSchema,
} from "./answers.ts";
import { nodeOf } from "./plan-disks.ts";
import type { QmpEvent } from "./qmp.ts";

/** How QEMU migrates; qapi/migration.json and qapi/block-core.json say what each of them means. */
export const migrationSettings = {
  /** Milliseconds that the guest may stand still for the last round of its memory. */
  downtime: 300 as Milliseconds,
  /** Bytes in a second: more than any network has, so that the network decides. */
  bandwidth: 100 * 1024 ** 3,
  /** Between two looks at how far it is. */
  lookAgainAfter: 200 as Milliseconds,
  /** In which what was given up must be over. */
  abandonTime: 5_000 as Milliseconds,
} as const;

/** Nodes and jobs of a migration, so that those of an earlier one are known. */
const PREFIX = "migrate-";
const jobOf = (disk: string) => `${PREFIX}${disk}`;

/** With which memory is sent, and taken: all of it, which a capture leaves where it is. */
const liveCapabilities = {
  events: true,
  "x-ignore-shared": false,
  "pause-before-switchover": true,
  "auto-converge": true,
} as const;

/** MigrationStatus: QEMU is about it, and says more by itself. */
const unfinished = [
  ...["setup", "active", "pre-switchover", "device", "cancelling"],
  ...["wait-unplug", "postcopy-active", "postcopy-paused", "colo"],
];

/** What QMP is asked by. */
interface Commands {
  /** Makes a machine that waits for its state, where it is not made yet. */
  complete(): Promise<void>;
  execute(command: string, words?: Readonly<Record<string, unknown>>): Promise<unknown>;
  ask<Schema extends v.GenericSchema>(
    command: string,
    schema: Schema,
  ): Promise<v.InferOutput<Schema>>;
}

/** Somebody who waits for an event; an answer that is an error ends the wait. */
interface Waiter {
  readonly hear: (event: QmpEvent) => void;
  readonly reject: (error: Error) => void;
}

/**
 * A running machine to another QEMU: its disks by mirrors to a server of NBD there, then memory
 * and devices. The order is that of QEMU's docs/interop/live-block-operations.rst.
 */
export class QemuMigration implements VmmMigration {
  readonly #loop: EventLoop;
  readonly #machine: MachineSpecification;
  readonly #commands: Commands;
  readonly #waiters = new Set<Waiter>();
  #lost: string | undefined;

  constructor(loop: EventLoop, machine: MachineSpecification, commands: Commands) {
    this.#loop = loop;
    this.#machine = machine;
    this.#commands = commands;
  }

  hear(event: QmpEvent): void {
    for (const waiter of [...this.#waiters]) waiter.hear(event);
  }

  lose(reason: string): void {
    this.#lost ??= reason;
    const error = new VmmUnreachable(`QEMU was lost in the middle of a migration: ${reason}`);
    for (const waiter of [...this.#waiters]) waiter.reject(error);
  }

  async send(route: SendRoute): Promise<void> {
    const { signal, disks } = route;
    const { execute } = this.#commands;
    signal.throwIfAborted();
    await this.abandon();
    await this.#setCapabilities();
    const { downtime, bandwidth } = migrationSettings;
    await execute("migrate-set-parameters", {
      "downtime-limit": downtime,
      "max-bandwidth": bandwidth,
    });
    using watching = this.#watchProgress(route);
    await this.#mirror(route);
    watching.stage = "memory";
    using status = this.#migrationStatus(signal);
    await execute("migrate", { uri: `unix:${route.memory}` });
    await status.until("pre-switchover");
    route.onStopped();
    for (const { id } of disks) {
      using ended = this.#jobEvent(id, "BLOCK_JOB_COMPLETED", signal);
      // Of a mirror that is ready this is its end, with both sides the same.
      await execute("block-job-cancel", { device: jobOf(id) });
      await ended.promise;
      await execute("blockdev-del", { "node-name": jobOf(id) });
    }
    await route.onDisksSent();
    signal.throwIfAborted();
    await execute("migrate-continue", { state: "pre-switchover" });
    await status.until("completed");
  }

  /** Returns when each disk there is what it is here, and what the guest writes goes to both. */
  async #mirror({ disks, signal }: SendRoute): Promise<void> {
    const { execute } = this.#commands;
    using waits = new DisposableStack();
    const ready = disks.map(({ id }) => waits.use(this.#jobEvent(id, "BLOCK_JOB_READY", signal)));
    for (const { id, socket } of disks) {
      const node = jobOf(id);
      const server = { type: "unix", path: socket };
      await execute("blockdev-add", { driver: "nbd", "node-name": node, server, export: id });
      const disk = this.#machine.disks.find((one) => one.id === id);
      await execute("blockdev-mirror", {
        "job-id": node,
        device: nodeOf("disk", id),
        target: node,
        // What is below it, the other one has as well.
        sync: disk?.backing === undefined ? "full" : "top",
        // What the guest writes is written there at once: it cannot be faster than the network.
        "copy-mode": "write-blocking",
      });
    }
    await Promise.all(ready.map(({ promise }) => promise));
  }

  async abandon(): Promise<void> {
    const { execute, ask } = this.#commands;
    const deadline = AbortSignal.timeout(migrationSettings.abandonTime);
    const isUnfinished = async () => {
      const { status } = await ask("query-migrate", migrationSchema);
      return status !== undefined && unfinished.includes(status);
    };
    if (await isUnfinished()) {
      await execute("migrate_cancel");
      while (await isUnfinished()) await this.#pause("the migration to end", deadline);
    }
    const own = async () =>
      (await ask("query-block-jobs", blockJobsSchema)).filter(({ device }) =>
        device.startsWith(PREFIX),
      );
    for (const { device } of await own()) {
      // It may end by itself just now.
      await execute("block-job-cancel", { device, force: true }).catch(ignoreRefusal);
    }
    while ((await own()).length > 0) await this.#pause("the mirrors to end", deadline);
    const nodes = await ask("query-named-block-nodes", blockNodesSchema);
    for (const { "node-name": node } of nodes) {
      if (node?.startsWith(PREFIX) !== true) continue;
      await execute("blockdev-del", { "node-name": node }).catch(ignoreRefusal);
    }
  }

  async receive({ memory, disks }: ReceiveRoute): Promise<MigrationArrival> {
    const { execute, ask } = this.#commands;
    await this.#commands.complete();
    await this.#setCapabilities();
    const hasDisks = disks.ids.length > 0;
    if (hasDisks) {
      await execute("nbd-server-start", { addr: { type: "unix", data: { path: disks.socket } } });
    }
    for (const id of disks.ids) {
      const node = nodeOf("disk", id);
      const words = { type: "nbd", id: jobOf(id), "node-name": node, name: id, writable: true };
      await execute("block-export-add", words);
    }
    const status = this.#migrationStatus(new AbortController().signal);
    try {
      await execute("migrate-incoming", { uri: `unix:${memory}` });
    } catch (error) {
      status[Symbol.dispose]();
      throw error;
    }
    const wait = async () => {
      using _status = status;
      await status.until("completed");
      // It stands still already; with that word what came for its disks goes to the disks.
      await execute("stop");
      const { status: guest } = await ask("query-status", v.object({ status: v.string() }));
      if (guest === "paused") return;
      throw new VmmRefused(`Expected a paused machine after its memory, and QEMU says ${guest}`);
    };
    const arrived = wait();
    // Whoever is interested asks later.
    arrived.catch(() => undefined);
    return {
      arrived,
      endDisks: async () => {
        if (hasDisks) await execute("nbd-server-stop");
      },
    };
  }

  async #setCapabilities(): Promise<void> {
    const capabilities = Object.entries(liveCapabilities).map(([capability, state]) => ({
      capability,
      state,
    }));
    await this.#commands.execute("migrate-set-capabilities", { capabilities });
  }

  /** Where a migration is, from now on: each status that was waited for is told once it came. */
  #migrationStatus(signal: AbortSignal) {
    let wanted: string | undefined;
    let seen: string | undefined;
    let wait = Promise.withResolvers<void>();
    const waiting = this.#wait(signal, (event, reject) => {
      if (event.event !== "MIGRATION") return;
      const { status } = v.parse(migrationSchema, event.data);
      seen = status;
      if (status === "failed" || status === "cancelled") void this.#failed(status).then(reject);
      else if (status === wanted) wait.resolve();
    });
    return {
      until: async (status: string): Promise<void> => {
        if (seen === status) return;
        wanted = status;
        wait = Promise.withResolvers<void>();
        await Promise.race([wait.promise, waiting.failed]);
      },
      [Symbol.dispose]: () => waiting[Symbol.dispose](),
    };
  }

  async #failed(status: string): Promise<Error> {
    const told = await this.#commands.ask("query-migrate", migrationSchema).catch(() => undefined);
    const reason = told?.["error-desc"] ?? "it does not say why";
    return new VmmRefused(`The migration of QEMU is ${status}: ${reason}`);
  }

  /** The event of that job, or the end of it before that. */
  #jobEvent(disk: string, name: string, signal: AbortSignal) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = this.#wait(signal, (event, reject) => {
      if (!event.event.startsWith("BLOCK_JOB_")) return;
      const parsed = v.safeParse(blockJobEventSchema, event.data);
      if (!parsed.success || parsed.output.device !== jobOf(disk)) return;
      const { error } = parsed.output;
      const isOver = ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"].includes(event.event);
      if (event.event === name && error === undefined) resolve();
      else if (isOver) {
        reject(
          new VmmRefused(`The copy of the disk ${disk} ended: ${error ?? "it was cancelled"}`),
        );
      }
    });
    return {
      promise: Promise.race([promise, waiting.failed]),
      [Symbol.dispose]: () => waiting[Symbol.dispose](),
    };
  }

  /** Hears events until it is disposed of; `failed` tells why there will be no more. */
  #wait(
    signal: AbortSignal,
    hear: (event: QmpEvent, reject: (error: Error) => void) => void,
  ): Disposable & { readonly failed: Promise<never> } {
    const { promise, reject } = Promise.withResolvers<never>();
    // Nobody may be waiting when it comes.
    promise.catch(() => undefined);
    const waiter: Waiter = { hear: (event) => hear(event, reject), reject };
    const callOff = () => reject(signal.reason);
    signal.addEventListener("abort", callOff);
    if (this.#lost !== undefined) reject(new VmmUnreachable(this.#lost));
    else if (signal.aborted) callOff();
    else this.#waiters.add(waiter);
    return {
      failed: promise,
      [Symbol.dispose]: () => {
        this.#waiters.delete(waiter);
        signal.removeEventListener("abort", callOff);
      },
    };
  }

  /** Asks now and then how far it is, and tells it, until it is disposed of. */
  #watchProgress({ onProgress }: SendRoute): Disposable & { stage: "disks" | "memory" } {
    let timer: Disposable | undefined;
    let isOver = false;
    const watching = {
      stage: "disks" as "disks" | "memory",
      [Symbol.dispose]: () => {
        isOver = true;
        timer?.[Symbol.dispose]();
      },
    };
    const look = async () => {
      try {
        if (watching.stage === "disks") {
          const jobs = await this.#commands.ask("query-block-jobs", blockJobsSchema);
          const sum = (key: "offset" | "len") => jobs.reduce((all, job) => all + job[key], 0);
          if (!isOver)
            onProgress({ stage: "disks", done: sum("offset"), of: sum("len"), rounds: 0 });
        } else {
          const { ram } = await this.#commands.ask("query-migrate", migrationSchema);
          if (ram !== undefined && !isOver) {
            const { total, remaining, "dirty-sync-count": rounds } = ram;
            onProgress({ stage: "memory", done: total - remaining, of: total, rounds });
          }
        }
      } catch {
        // Whoever waits for the migration itself is told why.
      }
      if (!isOver)
        timer = this.#loop.wakeAfter(migrationSettings.lookAgainAfter, () => void look());
    };
    timer = this.#loop.wakeAfter(migrationSettings.lookAgainAfter, () => void look());
    return watching;
  }

  async #pause(what: string, deadline: AbortSignal): Promise<void> {
    if (deadline.aborted) {
      const time = formatDuration(migrationSettings.abandonTime);
      throw new VmmUnreachable(`QEMU was waited for ${time} for ${what}`);
    }
    const again = 20;
    await new Promise<void>((resolve) => {
      this.#loop.wakeAfter(again, resolve);
    });
  }
}

/** What is gone already need not be removed. */
function ignoreRefusal(error: unknown): void {
  if (!(error instanceof VmmRefused)) throw error;
}
