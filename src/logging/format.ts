/** Turns a message and its fields into the text of one log entry. Pure. */

export type LogLevel = "error" | "warn" | "info" | "debug";
export type LogFields = Readonly<Record<string, unknown>>;

/** Characters of one entry; what is longer is cut, and says so. */
export const LONGEST_MESSAGE = 8_192;
/** Causes of an error that are told. */
const MOST_CAUSES = 8;

/** Priorities of sd-daemon(3), which are those of syslog(3). */
const priorities: Readonly<Record<LogLevel, number>> = { error: 3, warn: 4, info: 6, debug: 7 };

export interface LogEntry {
  readonly level: LogLevel;
  readonly component: string;
  readonly message: string;
  readonly fields: LogFields;
  readonly date: Date;
}

/** "component: message (name=value …)"; each line has a priority when the journal reads. */
export function formatText(entry: LogEntry, forJournal: boolean): string {
  const fields = Object.entries(entry.fields)
    .map(([name, value]) => `${name}=${fieldText(value)}`)
    .join(" ");
  const text = cut(fields === "" ? entry.message : `${entry.message} (${fields})`);
  const prefix = forJournal ? `<${priorities[entry.level]}>` : "";
  return `${prefix}${escapeControls(entry.component)}: ${escapeControls(text)}\n`;
}

/** One JSON object in a line: time, level, component, message, fields. */
export function formatJson(entry: LogEntry): string {
  const { level, component } = entry;
  const fields = Object.entries(entry.fields).map(([name, value]) => [name, fieldValue(value)]);
  const object = {
    time: entry.date.toISOString(),
    level,
    component,
    message: cut(entry.message),
    ...(fields.length > 0 && { fields: Object.fromEntries(fields) }),
  };
  return `${JSON.stringify(object)}\n`;
}

/** An error's message and those of its causes, each once. */
export function describeError(error: unknown): string {
  const messages: string[] = [];
  let current = error;
  for (let depth = 0; depth < MOST_CAUSES; depth += 1) {
    if (current === undefined || current === null) break;
    const message = current instanceof Error ? current.message || current.name : textOf(current);
    if (messages.every((told) => !told.includes(message))) messages.push(message);
    current = current instanceof Error ? current.cause : undefined;
  }
  return messages.join(": ");
}

/** Nothing that comes from elsewhere drives a terminal or begins a line of its own. */
export function escapeControls(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (character) => {
    if (character === "\n") return "\\n";
    if (character === "\t") return "\\t";
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

function cut(text: string): string {
  if (text.length <= LONGEST_MESSAGE) return text;
  return `${text.slice(0, LONGEST_MESSAGE)}… (${text.length - LONGEST_MESSAGE} more characters)`;
}

function fieldText(value: unknown): string {
  const plain = fieldValue(value);
  return typeof plain === "string" && /^[\w./:@+-]+$/.test(plain) ? plain : textOf(plain);
}

/** What JSON can say of a value: an error is its messages and its stack. */
function fieldValue(value: unknown): unknown {
  if (value instanceof Error) return cut(`${describeError(value)}\n${value.stack ?? ""}`);
  const text = textOf(value);
  if (text.length > LONGEST_MESSAGE) return cut(text);
  return typeof value === "string" ? value : (JSON.parse(text) as unknown);
}

/** The value as JSON; a value that JSON cannot say, as JSON's string of its name. */
function textOf(value: unknown): string {
  if (typeof value === "bigint") return String(value);
  try {
    return JSON.stringify(value) ?? JSON.stringify(String(value));
  } catch {
    return JSON.stringify(Object.prototype.toString.call(value));
  }
}
