import { escapeControls } from "../logging/format.ts";
import type { ConfigurationWarning } from "./configuration-file.ts";
import type { ConfigurationError } from "./configuration-reader.ts";

/** file:line:column: key: expected …, received …. One line each. */
export function formatErrors(errors: readonly ConfigurationError[]): string {
  return errors
    .map((error) => {
      const { expected, received, mend } = error;
      const advice = mend === undefined ? "" : ` (${mend})`;
      const beyond = error.beyond_syntax_error === true ? " (found beyond a syntax error)" : "";
      return `${place(error)}: expected ${expected}; received ${received}${advice}${beyond}`;
    })
    .map((line) => `${escapeControls(line)}\n`)
    .join("");
}

export function formatWarning(warning: ConfigurationWarning): string {
  return escapeControls(`${place(warning)}: warning: ${warning.message}. ${warning.mend}`);
}

function place(found: {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly key_path: string;
}): string {
  const where = found.line === 0 ? [found.file] : [found.file, found.line, found.column];
  return `${where.join(":")}${found.key_path === "" ? "" : `: ${found.key_path}`}`;
}
