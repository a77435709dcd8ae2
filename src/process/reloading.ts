import { monotonicNow } from "../event-loop/clock.ts";
import { FileRefused } from "../journal/file-refused.ts";
import type { Logger } from "../logging/logger.ts";
import type { ControlError } from "../messaging/control-server.ts";
import { checkSocketPath, SocketPathError } from "../messaging/listener.ts";
import { readConfigurationText } from "../toml/configuration-file.ts";
import { formatErrors, formatWarning } from "../toml/format-errors.ts";
import type { Milliseconds } from "../units/units.ts";
import {
  type ConfigurationError,
  type ConfigurationWarning,
  configurationLimits,
  parseConfiguration,
} from "./configuration.ts";
import type { LogFile } from "./perform/log-file.ts";
import { type Performer, TooFewDescriptors } from "./perform/performer.ts";
import { type ChangeHost, ConfigurationChange } from "./reload-change.ts";
import { describePlan, isEmptyPlan, planReload, type ReloadPlan } from "./reload-plan.ts";
import type { Configuration } from "./specification.ts";

/** The driver, as it is asked to read its configuration anew. */
export interface Reloadable extends ChangeHost<LogFile> {
  /** Where the configuration is read from; undefined where the command line says it. */
  readonly file: string | undefined;
  readonly performer: Performer;
  /** Why nothing can be changed now. */
  obstacle(): ControlError | undefined;
  /** Calls once, unless disposed before. */
  wakeAfter(delay: Milliseconds, call: () => void): Disposable;
  /** A bug, in what nobody waits for. */
  fail(failure: unknown): void;
  /** To the service manager. */
  tellManager(standing: "begins" | "over"): void;
  /** All of this text is put in: another program goes on with it. */
  applied(text: string): void;
}

/** Whoever asked for it, as it is told. */
export interface ReloadListener {
  refused(errors: readonly ConfigurationError[]): void;
  impossible(error: ControlError): void;
  planned(plan: ReloadPlan, warnings: readonly ConfigurationWarning[]): void;
  applied(): void;
}

/** Names of each kind in a line of the log; the command that asks prints all. */
const LOGGED_NAMES = 20;

/**
 * Has the orchestrator go by another configuration: all of it is looked at first, then it is put
 * in. One that is killed meanwhile is followed by one that finds the file, and does the same.
 */
export class Reloading {
  readonly #driver: Reloadable;
  readonly #logger: Logger;
  #isLooking = false;
  #change:
    | {
        readonly change: ConfigurationChange<LogFile>;
        readonly text: string;
        readonly listener: ReloadListener;
      }
    | undefined;
  /** The next look at who can be put in. */
  #next: Disposable | undefined;
  /** So long others have their turn before it. */
  #rest: Milliseconds = 0;
  /** Asked for by a signal when it could not be begun. */
  #again = false;

  constructor(driver: Reloadable, logger: Logger) {
    this.#driver = driver;
    this.#logger = logger;
  }

  /** What is under way, in words. */
  get underWay(): string | undefined {
    if (this.#change === undefined) return this.#isLooking ? "a reload" : undefined;
    const names = this.#change.change.waitsFor;
    return `a reload, which waits for ${names.slice(0, 5).join(", ")}`;
  }

  /** Nobody waits for it: what comes of it stands in the log. */
  beginBySignal(): void {
    if (this.#obstacle()?.kind === "busy") {
      this.#again = true;
      return;
    }
    const listener: ReloadListener = {
      refused: () => {},
      impossible: ({ message }) => this.#logger.warn(`cannot reload: ${message}`),
      planned: () => {},
      applied: () => {},
    };
    this.begin({ dryRun: false }, listener).catch((failure) => this.#driver.fail(failure));
  }

  /** Tells the listener what it means, and then, without `dryRun`, when all of it is so. */
  async begin(request: { readonly dryRun: boolean }, listener: ReloadListener): Promise<void> {
    const obstacle = this.#obstacle();
    if (obstacle !== undefined) {
      listener.impossible(obstacle);
      return;
    }
    this.#isLooking = true;
    try {
      await this.#look(request, listener);
    } finally {
      this.#isLooking = false;
    }
    this.advance();
  }

  #obstacle(): ControlError | undefined {
    const what = this.underWay;
    if (what === undefined) return this.#driver.obstacle();
    const message = `Another reload is under way: ${what}`;
    return { kind: "busy", message, hint: "Wait until it is over" };
  }

  async #look({ dryRun }: { readonly dryRun: boolean }, listener: ReloadListener): Promise<void> {
    const { file, configuration, performer } = this.#driver;
    if (file === undefined) {
      const message = "There is no configuration to read: the command line says what runs";
      listener.impossible({ kind: "no-file", message });
      return;
    }
    const read = readConfigurationText(file, configurationLimits.fileBytes);
    const outcome = read.kind === "text" ? parseConfiguration(file, read.text) : read;
    if (outcome.kind === "refused" || read.kind === "refused") {
      const errors = outcome.kind === "refused" ? outcome.errors : [];
      if (!dryRun) this.#sayRefused(file, errors);
      listener.refused(errors);
      return;
    }
    const { configuration: next, warnings } = outcome;
    const plan = planReload(configuration, next);
    const refusal = refuseNext(configuration, next, plan);
    if (refusal !== undefined) {
      listener.impossible(refusal);
      return;
    }
    if (dryRun) {
      listener.planned(plan, warnings);
      return;
    }
    for (const warning of warnings) this.#logger.warn(formatWarning(warning));
    if (isEmptyPlan(plan)) {
      this.#logger.info(`${file}: nothing is another than before`);
      this.#driver.applied(read.text);
      listener.planned(plan, warnings);
      listener.applied();
      return;
    }
    const prepared = await prepare(performer, next, plan);
    if ("error" in prepared) {
      listener.impossible(prepared.error);
      return;
    }
    const { logFiles } = prepared;
    const obstacle = this.#driver.obstacle();
    if (obstacle !== undefined) {
      for (const log of logFiles.values()) log.close();
      listener.impossible(obstacle);
      return;
    }
    const what = describePlan(plan, LOGGED_NAMES).join("; ");
    this.#logger.info(`reloading ${file}: ${what}`);
    listener.planned(plan, warnings);
    this.#driver.tellManager("begins");
    const change = new ConfigurationChange(this.#driver, { plan, next, logFiles });
    this.#change = { change, text: read.text, listener };
    change.begin();
  }

  #sayRefused(file: string, errors: readonly ConfigurationError[]): void {
    this.#logger.error(`${file} is not reloaded: all stays as it was`);
    for (const line of formatErrors(errors).trimEnd().split("\n")) this.#logger.error(line);
  }

  /** Everything is to be stopped: the next orchestrator finds the file. */
  abandon(): void {
    this.#again = false;
    if (this.#change === undefined) return;
    const { change, listener } = this.#change;
    this.#change = undefined;
    this.#next?.[Symbol.dispose]();
    this.#next = undefined;
    for (const file of change.abandon()) file.close();
    const message = "The orchestrator is stopping: what was not put in is not put in any more";
    listener.impossible({ kind: "shutdown", message });
  }

  /**
   * Something has happened: whoever can be put in is, with others that can be by then. Each time
   * costs as much as there are processes, and a fifth of all time is spent on it at most.
   */
  advance(): void {
    if (this.#change !== undefined) {
      this.#next ??= this.#driver.wakeAfter(this.#rest, () => this.#advanceNow());
      return;
    }
    if (!this.#again || this.#obstacle()?.kind === "busy") return;
    this.#again = false;
    this.beginBySignal();
  }

  #advanceNow(): void {
    const begun = monotonicNow();
    const isOver = this.#change?.change.advance() === true;
    this.#next = undefined;
    this.#rest = 4 * (monotonicNow() - begun);
    if (isOver && this.#change !== undefined) this.#end(this.#change);
  }

  #end({ text, listener }: { readonly text: string; readonly listener: ReloadListener }): void {
    this.#change = undefined;
    this.#driver.applied(text);
    this.#driver.tellManager("over");
    this.#logger.info(`${this.#driver.file} is reloaded`);
    this.#driver.onStep("reload:applied");
    this.#rest = 0;
    listener.applied();
    this.advance();
  }
}

/** What no running orchestrator can put in. */
function refuseNext(
  { holder }: Configuration,
  next: Configuration,
  plan: ReloadPlan,
): ControlError | undefined {
  if (holder !== next.holder) {
    return {
      kind: "not-while-running",
      message: "[orchestrator] holder is another one",
      expected: `holder = ${holder}, as when the orchestrator was started`,
      received: `holder = ${next.holder}`,
      hint: "Restart the orchestrator, or leave the key as it is",
    };
  }
  const others = new Set([
    ...plan.partitions.added,
    ...plan.partitions.changed.map(({ name }) => name),
  ]);
  for (const { name, endpoint } of next.partitions) {
    if (endpoint.kind !== "listen" || !others.has(name)) continue;
    try {
      checkSocketPath(endpoint.path);
    } catch (error) {
      if (!(error instanceof SocketPathError)) throw error;
      return { kind: "socket", message: `partition ${name}: ${error.message}` };
    }
  }
  return undefined;
}

/** Room for what is new, and files of lines that are open. */
async function prepare(
  performer: Performer,
  next: Configuration,
  { processes: { added, changed } }: ReloadPlan,
): Promise<{ readonly logFiles: ReadonlyMap<string, LogFile> } | { readonly error: ControlError }> {
  const others = new Set([
    ...added,
    ...changed.flatMap(({ name, keys }) => (keys.includes("log_file") ? [name] : [])),
  ]);
  try {
    return { logFiles: await performer.prepareFor(next, (name) => others.has(name)) };
  } catch (error) {
    if (!(error instanceof FileRefused || error instanceof TooFewDescriptors)) throw error;
    return { error: { kind: "refused", message: error.message } };
  }
}
