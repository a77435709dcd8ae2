import * as v from "valibot";
import {
  type ControlClient,
  ControlRefusal,
  ControlUnreachable,
  connectControl,
} from "../messaging/control-client.ts";
import { ExitCode } from "../units/exit-code.ts";
import { nearest } from "../units/nearest.ts";
import { hostlerVersion } from "../units/version.ts";
import type { EntryWay } from "./options.ts";
import {
  type ClientSummary,
  clientSummarySchema,
  type KexecResult,
  kexecResultSchema,
  type LoadReport,
  loadReportSchema,
  type Metric,
  metricSchema,
  type SessionSummary,
  type Status,
  sessionSummarySchema,
  statusSchema,
  type UpdateEventRecord,
  updateEventSchema,
} from "./protocol.ts";

/** luod is away, refused, or is not understood; the message has the mend. */
export class LiveUpdateError extends Error {
  override readonly name = "LiveUpdateError";
  readonly exitCode = ExitCode.refused;
}

/** The connection ended before the answer: luod died, or the machine goes. */
export class ConnectionLost extends LiveUpdateError {}

export interface LoadRequest {
  readonly kernel: string;
  readonly initrd?: string;
  readonly commandLine: string;
  readonly force: boolean;
}

export interface KexecRequest {
  readonly dryRun: boolean;
  readonly includeBare: boolean;
  readonly discardUnclaimed: boolean;
  readonly by: EntryWay;
}

/** A client of luod's control socket. Every answer is validated. */
export class LiveUpdateClient implements Disposable {
  readonly #control: ControlClient;

  private constructor(control: ControlClient) {
    this.#control = control;
  }

  /** @throws LiveUpdateError when nobody answers there. */
  static async connect(path: string): Promise<LiveUpdateClient> {
    try {
      return new LiveUpdateClient(await connectControl(path));
    } catch (error) {
      throw translate(error, path);
    }
  }

  status(): Promise<Status> {
    return this.#request(statusSchema, "status");
  }

  list(): Promise<ClientSummary[]> {
    return this.#request(v.array(clientSummarySchema), "list");
  }

  sessions(): Promise<SessionSummary[]> {
    return this.#request(v.array(sessionSummarySchema), "sessions");
  }

  metrics(): Promise<Metric[]> {
    return this.#request(v.array(metricSchema), "metrics");
  }

  /** The report says whether the kernel is loaded. */
  load(request: LoadRequest): Promise<LoadReport> {
    const { kernel, initrd, commandLine, force } = request;
    return this.#request(loadReportSchema, "load", {
      kernel,
      ...(initrd !== undefined && { initrd }),
      command_line: commandLine,
      force,
    });
  }

  async unload(): Promise<void> {
    await this.#request(v.unknown(), "unload");
  }

  async abort(reason?: string): Promise<void> {
    await this.#request(v.unknown(), "abort", reason === undefined ? {} : { reason });
  }

  async finish(client: string): Promise<void> {
    await this.#request(v.unknown(), "finish", { client });
  }

  /**
   * What happens, and at last what it came to.
   * @throws ConnectionLost when the machine goes, among other causes
   */
  async *kexec(request: KexecRequest): AsyncGenerator<UpdateEventRecord, KexecResult> {
    const answer = yield* this.#stream(updateEventSchema, "kexec", {
      dry_run: request.dryRun,
      include_bare: request.includeBare,
      discard_unclaimed: request.discardUnclaimed,
      by: request.by,
    });
    return validate(kexecResultSchema, answer);
  }

  /** Kept events, the oldest first; with `follow` the coming ones too. */
  events(options: {
    readonly after?: number;
    readonly follow?: boolean;
  }): AsyncGenerator<UpdateEventRecord, unknown> {
    return this.#stream(updateEventSchema, "subscribe", options);
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

  async *#stream<T>(
    schema: v.GenericSchema<unknown, T>,
    verb: string,
    fields: Readonly<Record<string, unknown>>,
  ): AsyncGenerator<T, unknown> {
    const items = this.#control.stream(verb, fields);
    try {
      for (;;) {
        const next = await items.next();
        if (next.done === true) return next.value;
        yield validate(schema, next.value);
      }
    } catch (error) {
      throw translate(error);
    }
  }
}

/** Restarting luod loses nothing, because its holder keeps every session meanwhile. */
const otherVersion =
  `This is hostler ${hostlerVersion}, and the luod that runs is another version. ` +
  "Restart it by systemctl restart luod; no session is lost by that.";

function validate<T>(schema: v.GenericSchema<unknown, T>, answer: unknown): T {
  const outcome = v.safeParse(schema, answer);
  if (outcome.success) return outcome.output;
  const [issue] = outcome.issues;
  const where = v.getDotPath(issue) ?? "the answer";
  throw new LiveUpdateError(
    `luod's answer is not understood: ${where}: expected ${issue.expected}, ` +
      `received ${issue.received}. ${otherVersion}`,
  );
}

/** What went wrong, with what the reader can do. @param path given while it connects */
function translate(error: unknown, path?: string): unknown {
  if (error instanceof ControlRefusal) return translateRefusal(error);
  if (!(error instanceof ControlUnreachable)) return error;
  const { code } = error;
  if (path === undefined) return new ConnectionLost(error.message, { cause: error.cause });
  if (code === "ENOENT" || code === "ECONNREFUSED") {
    return new LiveUpdateError(
      `luod does not run, or its control socket is elsewhere: ${path} (${code}). ` +
        "Start it by systemctl start luod or hostler live-update daemon, " +
        "or give --control-socket PATH.",
    );
  }
  if (code === "EACCES" || code === "EPERM") {
    return new LiveUpdateError(
      `The control socket ${path} is not for this user (${code}). ` +
        "Run this as the user of luod, which is root as a rule.",
    );
  }
  return new LiveUpdateError(error.message, { cause: error.cause });
}

function translateRefusal({ error }: ControlRefusal): LiveUpdateError {
  const { kind, message, expected = "", received = "" } = error;
  const mend = mendOf(kind, { expected, received }) ?? error.hint;
  return new LiveUpdateError(mend === undefined ? message : `${message}. ${mend}`);
}

function mendOf(
  kind: string,
  { expected, received }: { readonly expected: string; readonly received: string },
): string | undefined {
  if (kind === "request") return otherVersion;
  if (kind === "refused" && expected.startsWith("user")) {
    return "Run this as that user, or start luod with --command-uid for this one.";
  }
  // The daemon names what it knows, as it does for processes.
  if (!kind.startsWith("unknown-")) return undefined;
  const meant = nearest(received, expected.split(", "));
  return meant === undefined ? undefined : `Did you mean ${meant}?`;
}
