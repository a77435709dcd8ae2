import { fstatSync, writeSync } from "node:fs";
import { createConsola } from "consola/core";
import { formatJson, formatText, type LogFields, type LogLevel } from "./format.ts";

/** What drivers and commands say on stderr while they work. */
export interface Logger {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
}

export interface LogSettings {
  readonly format: "text" | "json";
  /** Entries below this level are left out. */
  readonly level: LogLevel;
  /** Lines carry the priorities that journald reads. */
  readonly journal: boolean;
  /** Writes whole lines; false when they were lost. */
  readonly write: (lines: string) => boolean;
}

/** Consola's numbers. */
const consolaLevels: Readonly<Record<LogLevel, number>> = { error: 0, warn: 1, info: 3, debug: 4 };

let chosen: Partial<LogSettings> = {};

/** Settings for every logger that is made after this. */
export function configureLogging(settings: Partial<LogSettings>): void {
  chosen = { ...chosen, ...settings };
}

/** A logger that never throws and never waits; lines that stderr does not take are counted. */
export function createLogger(component: string, options: Partial<LogSettings> = {}): Logger {
  const settings: LogSettings = {
    format: "text",
    level: "info",
    journal: isStderrTheJournal(),
    write: writeToStderr,
    ...chosen,
    ...options,
  };
  const consola = createConsola({
    level: consolaLevels[settings.level],
    // Consola holds repeated entries back; a daemon's log leaves nothing out.
    throttle: Number.NEGATIVE_INFINITY,
    reporters: [new Reporter(component, settings)],
  });
  return {
    error: (message, fields = {}) => consola.error(message, fields),
    warn: (message, fields = {}) => consola.warn(message, fields),
    info: (message, fields = {}) => consola.info(message, fields),
    debug: (message, fields = {}) => consola.debug(message, fields),
  };
}

/** Writes the entries of one component. */
class Reporter {
  readonly #component: string;
  readonly #settings: LogSettings;
  #lost = 0;

  constructor(component: string, settings: LogSettings) {
    this.#component = component;
    this.#settings = settings;
  }

  log(entry: { readonly type: string; readonly args: unknown[]; readonly date: Date }): void {
    const [message, fields] = entry.args;
    const level = entry.type as LogLevel;
    const text = this.#format(level, String(message), fields as LogFields, entry.date);
    const lost = this.#lost;
    const notice =
      lost === 0 ? "" : this.#format("warn", `${lost} log entries were lost`, {}, entry.date);
    if (this.#settings.write(notice + text)) this.#lost = 0;
    else this.#lost += 1;
  }

  #format(level: LogLevel, message: string, fields: LogFields, date: Date): string {
    const entry = { level, component: this.#component, message, fields, date };
    if (this.#settings.format === "json") return formatJson(entry);
    return formatText(entry, this.#settings.journal);
  }
}

/** A reader that is gone, or a full disk, must not hurt the one who only tells. */
function writeToStderr(lines: string): boolean {
  let bytes = Buffer.from(lines);
  try {
    while (bytes.length > 0) bytes = bytes.subarray(writeSync(2, bytes));
    return true;
  } catch {
    return false;
  }
}

/** JOURNAL_STREAM names the device and inode of the journal's socket: systemd.exec(5). */
export function isStderrTheJournal(): boolean {
  const named = process.env["JOURNAL_STREAM"];
  if (named === undefined) return false;
  try {
    const { dev, ino } = fstatSync(2, { bigint: true });
    return named === `${dev}:${ino}`;
  } catch {
    return false;
  }
}
