import * as v from "valibot";
import { ControlAnswers } from "../messaging/control-answers.ts";
import { type ControlClient, connectControl } from "../messaging/control-client.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";
import {
  consoleSchema,
  type DamagedSnapshot,
  type DesiredRequest,
  damagedSnapshotSchema,
  type MigrationProgressRecord,
  type MigrationResultRecord,
  migrationProgressSchema,
  migrationResultSchema,
  type Progress,
  progressSchema,
  type ReconciliationAnswer,
  reconciliationSchema,
  type SnapshotSummary,
  type Survivable,
  snapshotSummarySchema,
  survivableSchema,
  type VmDetail,
  type VmEventRecord,
  type VmMetrics,
  type VmSpec,
  type VmSummary,
  vmDetailSchema,
  vmEventSchema,
  vmMetricsSchema,
  vmSummarySchema,
  type WorkerStatus,
  workerStatusSchema,
} from "./protocol.ts";
import {
  type ExecCommand,
  type ExecEnd,
  type ExecItem,
  execEndSchema,
  execItemSchema,
  guestPingSchema,
} from "./protocol-exec.ts";
import { type MigrationTicket, ticketSchema } from "./protocol-migration.ts";

/** The worker is away, refused, or is not understood; the message has the mend. */
export class WorkerError extends Error {
  override readonly name = "WorkerError";
  readonly exitCode: ExitCode = ExitCode.refused;
}

const answers = new ControlAnswers(
  { daemon: "worker", start: "hostler vm worker", unknownName: "unknown-machine" },
  (message, options) => new WorkerError(message, options),
);

export type MachineVerb =
  | ("boot" | "pause" | "resume" | "shutdown" | "delete" | "replace-vmm")
  /** Says that it is this host's. */
  | "claim";

/** A client of the worker's control socket. Every answer is validated. */
export class WorkerClient implements Disposable {
  readonly #control: ControlClient;

  private constructor(control: ControlClient) {
    this.#control = control;
  }

  /** @throws WorkerError when nobody answers there in time */
  static async connect(path: string, limit?: Milliseconds): Promise<WorkerClient> {
    try {
      return new WorkerClient(await connectControl(path, limit));
    } catch (error) {
      throw answers.translate(error, path);
    }
  }

  create(spec: VmSpec, wanted: "created" | "running" | "paused"): Promise<VmSummary> {
    return this.#request(vmSummarySchema, "create", { spec, wanted });
  }

  /** Declares all machines, or asks what that would do. */
  declare(verb: "apply" | "diff", desired: DesiredRequest): Promise<ReconciliationAnswer> {
    return this.#request(reconciliationSchema, verb, { desired });
  }

  list(): Promise<VmSummary[]> {
    return this.#request(v.array(vmSummarySchema), "list");
  }

  show(name: string): Promise<VmDetail> {
    return this.#request(vmDetailSchema, "show", { name });
  }

  status(): Promise<WorkerStatus> {
    return this.#request(workerStatusSchema, "status");
  }

  survivable(name: string): Promise<Survivable> {
    return this.#request(survivableSchema, "survivable", { name });
  }

  metrics(name: string | undefined): Promise<VmMetrics[]> {
    return this.#request(v.array(vmMetricsSchema), "metrics", name === undefined ? {} : { name });
  }

  /** Runs a program in a guest; its output is given piece by piece, each after the one before. */
  async exec(
    name: string,
    command: ExecCommand,
    onOutput: (item: ExecItem) => Promise<void>,
  ): Promise<ExecEnd> {
    try {
      const items = this.#control.stream("exec", { name, ...command });
      for (;;) {
        const { done, value } = await items.next();
        if (done === true) return answers.validate(execEndSchema, value);
        await onOutput(answers.validate(execItemSchema, value));
      }
    } catch (error) {
      throw answers.translate(error);
    }
  }

  /** How long the agent in a guest took to answer. */
  async pingGuest(name: string): Promise<Milliseconds> {
    return (await this.#request(guestPingSchema, "guest-ping", { name })).milliseconds;
  }

  async console(name: string): Promise<string> {
    return (await this.#request(consoleSchema, "console", { name })).path;
  }

  /**
   * Says what is wanted; the answer tells how the machine is right after. null: a machine with a
   * damaged record was removed.
   */
  change(
    verb: MachineVerb,
    name: string,
    options: {
      readonly now?: boolean;
      readonly recreate?: boolean;
      readonly grace_ms?: Milliseconds;
    } = {},
  ): Promise<VmSummary | null> {
    return this.#request(v.nullable(vmSummarySchema), verb, { name, ...options });
  }

  /** Answered when the machine is in that phase: null when it is removed. */
  wait(
    name: string,
    until: "created" | "running" | "paused" | "off" | "removed",
  ): Promise<VmSummary | null> {
    return this.#request(v.nullable(vmSummarySchema), "wait", { name, until });
  }

  /** Returns when the snapshot is there. @throws WorkerError when it could not be made */
  takeSnapshot(
    name: string,
    snapshot: string,
    onProgress: (progress: Progress) => void = () => {},
    /** The public key that it is encrypted to. */
    encryptTo?: string,
  ): Promise<VmSummary> {
    const words = encryptTo === undefined ? {} : { encrypt_to: encryptTo };
    return this.#follow("snapshot", { name, snapshot, ...words }, onProgress);
  }

  /** Returns when all of the snapshot was verified, and the machine is on its way. */
  restore(
    name: string,
    snapshot: string,
    onProgress: (progress: Progress) => void = () => {},
    /** The secret key of one that is encrypted. */
    key?: string,
  ): Promise<VmSummary> {
    const words = key === undefined ? {} : { key };
    return this.#follow("restore", { name, snapshot, ...words }, onProgress);
  }

  /** The ticket of a listener for a machine of another host. */
  receive(request: {
    readonly name: string;
    readonly host: string;
    readonly port: number;
    readonly time_ms?: Milliseconds;
    readonly networks?: VmSpec["networks"];
  }): Promise<MigrationTicket> {
    return this.#request(ticketSchema, "receive", request);
  }

  async cancelReceive(name: string): Promise<void> {
    await this.#request(v.null(), "cancel-receive", { name });
  }

  /** @throws WorkerError when none of that name was given away */
  async forgetMigrated(name: string): Promise<void> {
    await this.#request(v.null(), "forget-migrated", { name });
  }

  /** Returns when the other host has the machine. @throws WorkerError when it goes on here */
  async migrate(
    name: string,
    ticket: string,
    onProgress: (progress: MigrationProgressRecord) => void,
  ): Promise<MigrationResultRecord> {
    try {
      const items = this.#control.stream("migrate", { name, ticket });
      let next = await items.next();
      for (; next.done !== true; next = await items.next()) {
        onProgress(answers.validate(migrationProgressSchema, next.value));
      }
      return answers.validate(migrationResultSchema, next.value);
    } catch (error) {
      throw answers.translate(error);
    }
  }

  snapshots(name: string | undefined): Promise<(SnapshotSummary | DamagedSnapshot)[]> {
    const schema = v.array(v.union([snapshotSummarySchema, damagedSnapshotSchema]));
    return this.#request(schema, "snapshots", name === undefined ? {} : { name });
  }

  async deleteSnapshot(name: string, snapshot: string): Promise<void> {
    await this.#request(v.null(), "delete-snapshot", { name, snapshot });
  }

  /** A request that takes its time, and tells how far it is. */
  async #follow(
    verb: string,
    fields: Readonly<Record<string, unknown>>,
    onProgress: (progress: Progress) => void,
  ): Promise<VmSummary> {
    try {
      const items = this.#control.stream(verb, fields);
      let next = await items.next();
      for (; next.done !== true; next = await items.next()) {
        onProgress(answers.validate(progressSchema, next.value));
      }
      return answers.validate(vmSummarySchema, next.value);
    } catch (error) {
      throw answers.translate(error);
    }
  }

  /** Kept events, the oldest first; with `follow` the coming ones too. */
  async *events(options: {
    readonly name?: string;
    readonly after?: number;
    readonly follow?: boolean;
  }): AsyncGenerator<VmEventRecord> {
    try {
      for await (const item of this.#control.stream("events", options)) {
        yield answers.validate(vmEventSchema, item);
      }
    } catch (error) {
      throw answers.translate(error);
    }
  }

  [Symbol.dispose](): void {
    this.#control.close();
  }

  async #request<T>(
    schema: v.GenericSchema<unknown, T>,
    verb: string,
    fields: Readonly<Record<string, unknown>> = {},
  ): Promise<T> {
    try {
      return answers.validate(schema, await this.#control.request(verb, fields));
    } catch (error) {
      throw answers.translate(error);
    }
  }
}
