/**
 * Files that are pure: lifecycle*.ts, protocol*.ts, the folders below, and what they import.
 * Time and chance are arguments there, and so is everything else that the world may answer.
 */
import { importsOf } from "./imports.ts";
import { codeOf, lineAt, type SourceFile, type Violation } from "./source.ts";

const impure = new RegExp(
  [
    /\b(Bun|Date|performance|crypto|console)\./,
    /\bnew Date\b/,
    /\bMath\.random\b/,
    /\bset(Timeout|Interval|Immediate)\b|\bqueueMicrotask\b/,
    /\bfetch\(/,
    // `process` is also what a variable of this house may be called: its own members are named.
    /\bprocess\.(argv|cwd|emit|env|exit\w*|get\w+id|hrtime|kill|memoryUsage)\b/,
    /\bprocess\.(nextTick|on|pid|platform)\b/,
    /\bprocess\.(ppid|std\w+|title|uptime|version\w*)\b/,
  ]
    .map((part) => part.source)
    .join("|"),
  "g",
);

const pureFolders = [
  "src/units/",
  "src/vetting/stages/",
  "src/vetting/spec/",
  "src/vetting/report/",
];

export function isPureByName(path: string): boolean {
  if (pureFolders.some((folder) => path.startsWith(folder))) return true;
  return /^src\/[^/]+\/([^/]+\/)?(lifecycle|protocol)[^/]*\.ts$/.test(path);
}

/** @param files all files: a pure one makes pure what it imports */
export function checkPurity(files: readonly SourceFile[]): Violation[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const seen = new Set<string>();
  const waiting = files.map((file) => file.path).filter(isPureByName);
  const violations: Violation[] = [];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const file = byPath.get(path);
    if (file === undefined || seen.has(path)) continue;
    seen.add(path);
    violations.push(...violationsIn(file));
    waiting.push(...importsOf(file).map((found) => found.to));
  }
  return violations;
}

function violationsIn(file: SourceFile): Violation[] {
  const code = codeOf(file.text);
  const why = isPureByName(file.path) ? "this file is pure" : "a pure file imports this one";
  const used = [...code.matchAll(impure)].map((match) => ({
    path: file.path,
    line: lineAt(code, match.index),
    message: `${match[0]}: ${why}; take it as an argument`,
  }));
  const imported = importsOf(file)
    .filter(({ to }) => /^(node:|bun(:|$)|ffi\/)/.test(to))
    .map(({ to, line }) => ({ path: file.path, line, message: `imports ${to}: ${why}` }));
  return [...used, ...imported];
}
