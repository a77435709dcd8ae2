import { monotonicNow } from "../event-loop/clock.ts";
import { FileRefused } from "../journal/file-refused.ts";
import type { Logger } from "../logging/logger.ts";
import type { ControlError } from "../messaging/control-server.ts";
import {
  checkSocketPath,
  isListenedAt,
  listenedAt,
  SocketPathError,
} from "../messaging/listener.ts";
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
import { MissingControllers } from "./perform/resources.ts";
import { type ChangeHost, ConfigurationChange } from "./reload-change.ts";
import { describePlan, isEmptyPlan, planReload, type ReloadPlan } from "./reload-plan.ts";
import type { Configuration } from "./specification.ts";

/** The driver, as it is asked to read its configuration anew. */
export interface Reloadable extends ChangeHost<LogFile> {
  /** Where the configuration is read from; undefined where the command line says it. */
  readonly file: string | undefined;
  readonly performer: Performer;
  readonly controlSocket: string;
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
  /** @param refused what processes that run could not be given */
  applied(refused: readonly { readonly name: string; readonly reason: string }[]): void;
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
    return `a reload, which waits for ${this.#waitsFor.join(", ")}`;
  }

  get #waitsFor(): readonly string[] {
    return this.#change?.change.waitsFor.slice(0, 5) ?? [];
  }

  /** Nobody waits for it: what comes of it stands in the log. */
  beginBySignal(): void {
    if (this.#obstacle()?.kind === "busy") {
      this.#again = true;
      return;
    }
    const nobody = () => {};
    const listener = { refused: nobody, impossible: nobody, planned: nobody, applied: nobody };
    this.begin({ dryRun: false }, listener).catch((failure) => this.#driver.fail(failure));
  }

  /** Tells the listener what it means, and then, without `dryRun`, when all of it is so. */
  async begin(request: { readonly dryRun: boolean }, listener: ReloadListener): Promise<void> {
    if (request.dryRun) {
      await this.#look(request, listener, "busy");
      return;
    }
    const told: ReloadListener = {
      ...listener,
      impossible: (error) => {
        this.#logger.warn(`cannot reload: ${error.message}`);
        listener.impossible(error);
      },
    };
    // What is wrong with the file is told, whatever else is under way.
    if (this.#obstacle() !== undefined) {
      await this.#look(request, told, "busy");
      return;
    }
    this.#isLooking = true;
    try {
      await this.#look(request, told, "free");
    } finally {
      this.#isLooking = false;
    }
    this.advance();
  }

  #obstacle(): ControlError | undefined {
    const what = this.underWay;
    if (what === undefined) return this.#driver.obstacle();
    const message = `Another reload is under way: ${what}`;
    const names = this.#waitsFor.join(" ");
    const end =
      names === "" ? "" : `. To end what it waits for: hostler process stop ${names} --now`;
    return { kind: "busy", message, hint: `Wait until it is over${end}` };
  }

  async #look(
    { dryRun }: { readonly dryRun: boolean },
    listener: ReloadListener,
    standing: "free" | "busy",
  ): Promise<void> {
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
    // What is under way is over by the time in which this one could be put in.
    const coming = dryRun ? this.#change?.change.next : undefined;
    const plan = planReload(coming ?? configuration, next);
    const obstacle = dryRun || standing === "free" ? undefined : this.#obstacle();
    const refusal = obstacle ?? this.#refuseNext(next, plan);
    if (refusal !== undefined) {
      listener.impossible(refusal);
      return;
    }
    if (dryRun) {
      const error = await refusalOf(() => performer.checkFor(next, isOtherBy(plan)));
      if (error === undefined) listener.planned(plan, warnings);
      else listener.impossible(error);
      return;
    }
    for (const warning of warnings) this.#logger.warn(formatWarning(warning));
    if (isEmptyPlan(plan)) {
      this.#logger.info(`${file}: nothing is another than before`);
      this.#driver.applied(read.text);
      listener.planned(plan, warnings);
      listener.applied([]);
      return;
    }
    const prepared = await prepare(performer, next, plan);
    if ("error" in prepared) {
      listener.impossible(prepared.error);
      return;
    }
    const { logFiles } = prepared;
    const late = this.#driver.obstacle();
    if (late !== undefined) {
      for (const log of logFiles.values()) log.close();
      listener.impossible(late);
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
    if (isOver) this.#end();
  }

  #end(): void {
    if (this.#change === undefined) return;
    const { text, listener, change } = this.#change;
    this.#change = undefined;
    this.#driver.applied(text);
    this.#driver.tellManager("over");
    this.#logger.info(`${this.#driver.file} is reloaded`);
    this.#driver.onStep("reload:applied");
    this.#rest = 0;
    listener.applied(change.refused);
    this.advance();
  }

  /** What no running orchestrator can put in. */
  #refuseNext(next: Configuration, plan: ReloadPlan): ControlError | undefined {
    const { configuration, controlSocket } = this.#driver;
    const { holder } = configuration;
    if (holder !== next.holder) {
      return {
        kind: "not-while-running",
        message: "[orchestrator] holder is another one",
        expected: `holder = ${holder}, as when the orchestrator was started`,
        received: `holder = ${next.holder}`,
        hint: "Restart the orchestrator, or leave the key as it is",
      };
    }
    if (next.processes.length === 0 && configuration.processes.length > 0) {
      return {
        kind: "empty",
        message: "The configuration has no process: all would be stopped",
        expected: "at least one table [process.NAME]",
        received: "none, as of a file that was cut short",
        hint: "hostler process stop NAME … stops them; to stop all, stop the orchestrator",
      };
    }
    return refuseSockets(configuration, { next, plan, controlSocket });
  }
}

/** Where agents cannot be waited for. */
function refuseSockets(
  configuration: Configuration,
  what: {
    readonly next: Configuration;
    readonly plan: ReloadPlan;
    readonly controlSocket: string;
  },
): ControlError | undefined {
  const { next, plan, controlSocket } = what;
  const { added, changed } = plan.partitions;
  const others = new Set([...added, ...changed.map(({ name }) => name)]);
  const own = new Set(
    configuration.partitions.flatMap(({ endpoint }) =>
      endpoint.kind === "listen" ? [endpoint.path] : [],
    ),
  );
  for (const { name, endpoint } of next.partitions) {
    if (endpoint.kind !== "listen" || !others.has(name)) continue;
    const { path } = endpoint;
    try {
      checkSocketPath(path);
      const isTaken = !own.has(path) && isListenedAt(path);
      if (path === controlSocket || isTaken) throw listenedAt(path);
    } catch (error) {
      if (!(error instanceof SocketPathError)) throw error;
      return { kind: "socket", message: `partition ${name}: ${error.message}` };
    }
  }
  return undefined;
}

/** Whose files of lines are others, or new. */
function isOtherBy({ processes: { added, changed } }: ReloadPlan): (name: string) => boolean {
  const others = new Set([
    ...added,
    ...changed.flatMap(({ name, keys }) => (keys.includes("log_file") ? [name] : [])),
  ]);
  return (name) => others.has(name);
}

/** Room for what is new, and files of lines that are open. */
async function prepare(
  performer: Performer,
  next: Configuration,
  plan: ReloadPlan,
): Promise<{ readonly logFiles: ReadonlyMap<string, LogFile> } | { readonly error: ControlError }> {
  let logFiles: ReadonlyMap<string, LogFile> = new Map();
  const error = await refusalOf(async () => {
    logFiles = await performer.prepareFor(next, isOtherBy(plan));
  });
  return error === undefined ? { logFiles } : { error };
}

/** What this host has no room for, or cannot do. */
const refusals = [FileRefused, TooFewDescriptors, MissingControllers] as const;

async function refusalOf(act: () => Promise<void>): Promise<ControlError | undefined> {
  try {
    await act();
    return undefined;
  } catch (error) {
    const isRefusal = refusals.some((kind) => error instanceof kind);
    if (!isRefusal) throw error;
    return { kind: "refused", message: (error as Error).message };
  }
}
