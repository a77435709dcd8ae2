import * as v from "valibot";
import type { MetricPart } from "../http/metrics.ts";
import { ControlAnswers } from "../messaging/control-answers.ts";
import { type ControlClient, connectControl } from "../messaging/control-client.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";
import {
  type About,
  aboutSchema,
  changeAnswerSchema,
  type LogLine,
  logLineSchema,
  metricPartSchema,
  type PartitionSummary,
  type ProcessDetail,
  type ProcessEventRecord,
  type ProcessSummary,
  partitionSummarySchema,
  processDetailSchema,
  processEventSchema,
  processSummarySchema,
  type ReloadPart,
  type Reopened,
  reloadPartSchema,
  reopenedSchema,
} from "./protocol.ts";

/** The orchestrator is away, refused, or is not understood; the message has the mend. */
export class OrchestratorError extends Error {
  override readonly name = "OrchestratorError";
  readonly exitCode = ExitCode.refused;
}

const answers = new ControlAnswers(
  {
    daemon: "orchestrator",
    start: "hostler process orchestrator --config FILE",
    unknownName: "unknown-process",
  },
  (message, options) => new OrchestratorError(message, options),
);

/** What became of one name of a change. */
export type Changed =
  | { readonly name: string; readonly summary: ProcessSummary }
  | { readonly name: string; readonly error: OrchestratorError };

/** A client of the orchestrator's control socket. Every answer is validated. */
export class OrchestratorClient implements Disposable {
  readonly #control: ControlClient;

  private constructor(control: ControlClient) {
    this.#control = control;
  }

  /** @throws OrchestratorError when nobody answers there in time. */
  static async connect(path: string, limit?: Milliseconds): Promise<OrchestratorClient> {
    try {
      return new OrchestratorClient(await connectControl(path, limit));
    } catch (error) {
      throw answers.translate(error, path);
    }
  }

  /** All processes; with `usage` also what each uses. */
  list(options: { readonly usage?: boolean } = {}): Promise<ProcessSummary[]> {
    const fields = options.usage === true ? { usage: true } : {};
    return this.#request(v.array(processSummarySchema), "list", fields);
  }

  /** What a scraper is told, in parts. */
  metrics(): AsyncGenerator<MetricPart> {
    return this.#stream(metricPartSchema, "metrics", {});
  }

  partitions(): Promise<PartitionSummary[]> {
    return this.#request(v.array(partitionSummarySchema), "partitions");
  }

  /** Which program the orchestrator runs. */
  about(): Promise<About> {
    return this.#request(aboutSchema, "about");
  }

  /**
   * Has the orchestrator go on as another program, and gives what that one says of itself.
   * @throws OrchestratorError when it is refused, or the new program does not come to answer
   */
  reexecute(request: { readonly program?: string; readonly digest?: string } = {}): Promise<About> {
    return this.#request(aboutSchema, "reexecute", { ...request });
  }

  /** Has the configuration read anew: what it means, and then that all of it is put in. */
  reload(options: { readonly dryRun: boolean }): AsyncGenerator<ReloadPart> {
    return this.#stream(reloadPartSchema, "reload", options.dryRun ? { dry_run: true } : {});
  }

  show(name: string): Promise<ProcessDetail> {
    return this.#request(processDetailSchema, "show", { name });
  }

  /**
   * Says what is wanted of these processes at once; the answers tell how things are right after.
   * A name that is refused does not keep the others.
   */
  async change(
    what: "start" | "stop" | "restart",
    names: readonly string[],
    options: { readonly now?: boolean } = {},
  ): Promise<{ readonly since: number; readonly outcomes: readonly Changed[] }> {
    const now = what === "stop" && options.now === true ? { now: true } : {};
    const fields = { what, names, ...now };
    const { since, outcomes } = await this.#request(changeAnswerSchema, "change", fields);
    const translated = outcomes.map((outcome) =>
      "summary" in outcome
        ? outcome
        : { name: outcome.name, error: answers.describeRefusal(outcome.error) },
    );
    return { since, outcomes: translated };
  }

  async signal(name: string, signal: number): Promise<void> {
    await this.#request(v.null(), "signal", { name, signal });
  }

  /**
   * Answered when the process is in that state; never, if it does not come to it. With
   * `onceOnly` a start that is refused ends the waiting for "ready", though it is made again; with
   * `since` it counts that the process was ready at any time after that event.
   */
  wait(
    name: string,
    until: "ready" | "stopped",
    options: { readonly onceOnly?: boolean; readonly since?: number | undefined } = {},
  ): Promise<ProcessSummary> {
    const { since } = options;
    const once = options.onceOnly === true && until === "ready" ? { once_only: true } : {};
    const from = since === undefined ? {} : { since };
    return this.#request(processSummarySchema, "wait", { name, until, ...once, ...from });
  }

  /** Kept lines of one process or all, the oldest first; with `follow` the coming ones too. */
  logs(options: {
    readonly name?: string;
    readonly lines?: number;
    readonly follow?: boolean;
  }): AsyncGenerator<LogLine> {
    return this.#stream(logLineSchema, "logs", options);
  }

  /** Opens files of lines anew; what could not be opened is told for each. */
  reopenLogs(name: string | undefined): Promise<Reopened> {
    return this.#request(reopenedSchema, "reopen-logs", name === undefined ? {} : { name });
  }

  /** Kept events, the oldest first; with `follow` the coming ones too. */
  events(options: {
    readonly after?: number;
    readonly follow?: boolean;
  }): AsyncGenerator<ProcessEventRecord> {
    return this.#stream(processEventSchema, "subscribe", options);
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

  async *#stream<T>(
    schema: v.GenericSchema<unknown, T>,
    verb: string,
    fields: Readonly<Record<string, unknown>>,
  ): AsyncGenerator<T> {
    try {
      for await (const item of this.#control.stream(verb, fields))
        yield answers.validate(schema, item);
    } catch (error) {
      throw answers.translate(error);
    }
  }
}
