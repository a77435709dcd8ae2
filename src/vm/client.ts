import * as v from "valibot";
import {
  type ControlClient,
  ControlRefusal,
  ControlUnreachable,
  connectControl,
} from "../messaging/control-client.ts";
import { ExitCode } from "../units/exit-code.ts";
import { nearest } from "../units/nearest.ts";
import type { Milliseconds } from "../units/units.ts";
import {
  consoleSchema,
  type DesiredRequest,
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

/** The worker is away, refused, or is not understood; the message has the mend. */
export class WorkerError extends Error {
  override readonly name = "WorkerError";
  readonly exitCode: ExitCode = ExitCode.refused;
}

export type MachineVerb = "boot" | "pause" | "resume" | "shutdown" | "delete" | "replace-vmm";

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
      throw translate(error, path);
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
        if (done === true) return validate(execEndSchema, value);
        await onOutput(validate(execItemSchema, value));
      }
    } catch (error) {
      throw translate(error);
    }
  }

  /** How long the agent in a guest took to answer. */
  async pingGuest(name: string): Promise<Milliseconds> {
    return (await this.#request(guestPingSchema, "guest-ping", { name })).milliseconds;
  }

  async console(name: string): Promise<string> {
    return (await this.#request(consoleSchema, "console", { name })).path;
  }

  /** Says what is wanted; the answer tells how the machine is right after. */
  change(
    verb: MachineVerb,
    name: string,
    options: { readonly now?: boolean; readonly grace_ms?: Milliseconds } = {},
  ): Promise<VmSummary> {
    return this.#request(vmSummarySchema, verb, { name, ...options });
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
  ): Promise<VmSummary> {
    return this.#follow("snapshot", { name, snapshot }, onProgress);
  }

  /** Returns when all of the snapshot was verified, and the machine is on its way. */
  restore(
    name: string,
    snapshot: string,
    onProgress: (progress: Progress) => void = () => {},
  ): Promise<VmSummary> {
    return this.#follow("restore", { name, snapshot }, onProgress);
  }

  snapshots(name: string | undefined): Promise<SnapshotSummary[]> {
    const schema = v.array(snapshotSummarySchema);
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
        onProgress(validate(progressSchema, next.value));
      }
      return validate(vmSummarySchema, next.value);
    } catch (error) {
      throw translate(error);
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
        yield validate(vmEventSchema, item);
      }
    } catch (error) {
      throw translate(error);
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
      return validate(schema, await this.#control.request(verb, fields));
    } catch (error) {
      throw translate(error);
    }
  }
}

function validate<T>(schema: v.GenericSchema<unknown, T>, answer: unknown): T {
  const outcome = v.safeParse(schema, answer);
  if (outcome.success) return outcome.output;
  const [issue] = outcome.issues;
  const where = v.getDotPath(issue) ?? "the answer";
  throw new WorkerError(
    `The worker's answer is not understood: ${where}: expected ${issue.expected}, ` +
      `received ${issue.received}. Are both of the same version?`,
  );
}

/** What went wrong, with what the reader can do. */
function translate(error: unknown, path?: string): unknown {
  if (error instanceof ControlRefusal) {
    const { kind, message, expected, received, hint } = error.error;
    const known = kind === "unknown-machine" ? (expected ?? "").split(", ") : [];
    const meant = nearest(received ?? "", known);
    const mend = meant === undefined ? hint : `Did you mean ${meant}?`;
    return new WorkerError(mend === undefined ? message : `${message}. ${mend}`);
  }
  if (!(error instanceof ControlUnreachable)) return error;
  const { code } = error;
  if (path !== undefined && (code === "ENOENT" || code === "ECONNREFUSED")) {
    return new WorkerError(
      `The worker does not run, or its control socket is elsewhere: ${path} (${code}). ` +
        "Start it by hostler vm worker, or give --control-socket PATH.",
    );
  }
  if (path !== undefined && (code === "EACCES" || code === "EPERM")) {
    return new WorkerError(
      `The control socket ${path} is for the worker's own user alone (${code}). ` +
        "Run this as that user.",
    );
  }
  return new WorkerError(error.message, { cause: error.cause });
}
