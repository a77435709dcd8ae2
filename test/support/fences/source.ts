/** The repository's files as the fences see them. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "../binary.ts";

export interface SourceFile {
  /** From the repository's root. */
  readonly path: string;
  readonly text: string;
}

export interface Violation {
  readonly path: string;
  /** From 1; 0 when it is about the file as a whole. */
  readonly line: number;
  readonly message: string;
}

const folders = ["src", "ffi", "scripts", "test", "images", ".ci"];

/** @returns every file that people write: the folders above, and the root's own files */
export function readSources(): SourceFile[] {
  const paths = readdirSync(repositoryRoot, { withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(md|json|toml)$/.test(entry.name))
    .map((entry) => entry.name);
  for (const folder of folders) paths.push(...filesIn(folder));
  return paths
    .toSorted()
    .map((path) => ({ path, text: readFileSync(join(repositoryRoot, path), "utf8") }));
}

function filesIn(folder: string): string[] {
  const absolute = join(repositoryRoot, folder);
  // Git keeps no empty folder.
  if (!existsSync(absolute)) return [];
  return readdirSync(absolute, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(repositoryRoot.length + 1));
}

/** @returns where a text begins that all rules print: "src/x.ts:3: message" */
export function formatViolation(violation: Violation): string {
  return `${violation.path}:${violation.line}: ${violation.message}`;
}

/** A regular expression; a slash begins one after these characters, and divides elsewhere. */
const expression = [
  /(?<=[(,=:[!&|?{};\n]\s*|return )/,
  /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[*])+\/[a-z]*/,
]
  .map((part) => part.source)
  .join("");
const noCode = new RegExp(
  [
    /\/\/[^\n]*/,
    /\/\*[\s\S]*?\*\//,
    /"(?:\\.|[^"\\\n])*"/,
    /'(?:\\.|[^'\\\n])*'/,
    /`(?:\\.|[^`\\])*`/,
    new RegExp(expression),
  ]
    .map((part) => part.source)
    .join("|"),
  "g",
);

/**
 * Blanks comments and the inside of strings, keeping every line where it is, so that a rule about
 * code does not take a sentence for it. A regular expression counts as a string.
 */
export function codeOf(text: string): string {
  return text.replace(noCode, (match) => {
    if (match.startsWith("`")) return blankTemplate(match);
    return match.replace(/[^\n]/g, (character, index: number) => {
      const isQuote = match[0] === '"' || match[0] === "'";
      return isQuote && (index === 0 || index === match.length - 1) ? character : " ";
    });
  });
}

/** What stands in ${…} is code. */
function blankTemplate(template: string): string {
  let depth = 0;
  let blanked = "";
  for (let index = 0; index < template.length; index += 1) {
    const character = template.charAt(index);
    if (character === "{" && template.charAt(index - 1) === "$") depth += 1;
    else if (character === "}" && depth > 0) depth -= 1;
    blanked += depth > 0 || character === "\n" || character === "`" ? character : " ";
  }
  return blanked;
}

/** @returns the line, from 1, in which the character of this index stands */
export function lineAt(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}
