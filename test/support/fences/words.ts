/** Fences that a look at the text can hold: one pattern each, and where it may stand. */
import { codeOf, lineAt, type SourceFile, type Violation } from "./source.ts";

export interface WordFence {
  readonly name: string;
  /** Global, so that every place is found. */
  readonly pattern: RegExp;
  /** code: comments and strings do not count. text: they do. */
  readonly within: "code" | "text";
  readonly files: RegExp;
  readonly except?: readonly string[];
  /** What to do instead. */
  readonly mend: string;
  /** A text that the fence must refuse. */
  readonly bad: string;
}

const typescript = /^(src|ffi|scripts|test)\/.*\.ts$/;
const product = /^(src|ffi)\/.*\.ts$/;
const tests = /^test\/.*\.ts$/;
const everything = /(^|\/)[^/]+$/;

/** The fences' own examples are bad on purpose. */
const thisFile = "test/support/fences/words.ts";

export const wordFences: readonly WordFence[] = [
  {
    name: "lines have at most 100 columns",
    pattern: /^.{101,}$/gm,
    within: "text",
    files: /\.ts$|^\.ci\//,
    mend: "break the line",
    bad: `const long = "${"x".repeat(90)}";`,
  },
  {
    name: "the builder's path stays out of the binary",
    pattern: /\b__(dirname|filename)\b/g,
    within: "code",
    files: typescript,
    mend: "use import.meta in scripts and tests; the product needs no path of its source",
    bad: "const here = __dirname;",
  },
  {
    name: "one process.exit",
    pattern: /\bprocess\.(exit|reallyExit|abort)\(/g,
    within: "code",
    files: typescript,
    except: ["src/main.ts"],
    mend: "return an exit code to src/main.ts; a script sets process.exitCode",
    bad: "process.exit(1);",
  },
  {
    name: "one Worker",
    pattern: /\bnew Worker\(/g,
    within: "code",
    files: product,
    except: ["src/main.ts"],
    mend: "a worker's path holds when compiled only in the entry, src/main.ts",
    bad: 'new Worker("x.ts");',
  },
  {
    name: "one dlopen",
    pattern: /\bdlopen\(/g,
    within: "code",
    files: product,
    except: ["ffi/c-library.ts"],
    mend: "add the function to ffi/c-library.ts",
    bad: 'dlopen("libc.so.6", {});',
  },
  {
    name: "no path of one machine",
    pattern: new RegExp(
      `(^|[\\s"'\`(=:])(/${"work"}/|(\\.\\./)+${"shared"}/|/home/[a-z]|/root/)`,
      "gm",
    ),
    within: "text",
    files: everything,
    except: [".ci/run"],
    mend: "take it from an environment variable or an option",
    bad: `const kernel = "/${"work"}/kernel";`,
  },
  {
    name: "no registry by name",
    pattern: new RegExp(`registry\\.${"npmjs"}|deb\\.${"debian"}|ftp\\.${"debian"}`, "g"),
    within: "text",
    files: everything,
    mend: "the package client knows where its packages come from",
    bad: `https://registry.${"npmjs"}.org/x`,
  },
  {
    name: "no test sleeps",
    pattern: /\bBun\.sleep(Sync)?\(|\bsetTimeout\(|timers\/promises/g,
    within: "code",
    files: tests,
    except: ["test/support/wait-for.ts"],
    mend: "wait for the event: waitFor, withDeadline, or said of test/support",
    bad: "await Bun.sleep(100);",
  },
  {
    name: "nothing sleeps to give something time",
    pattern: /\bBun\.sleep(Sync)?\(|timers\/promises/g,
    within: "code",
    files: /^(src|ffi|scripts)\/.*\.ts$/,
    mend: "wait for the event; a time to wake at is the event loop's",
    bad: "await Bun.sleep(100);",
  },
  {
    name: "timers are the event loop's",
    pattern: /\bset(Timeout|Interval)\(/g,
    within: "code",
    files: product,
    except: [
      "src/event-loop/event-loop.ts",
      "src/event-loop/clock.ts",
      // In a browser.
      "src/vetting/page/timers.ts",
    ],
    mend: "use wakeAt of the event loop",
    bad: "setTimeout(stop, 5);",
  },
  {
    name: "chance in tests comes from a seed",
    pattern: /\bMath\.random\(/g,
    within: "code",
    files: tests,
    mend: "draw from a generator whose seed is printed when the test fails",
    bad: "if (Math.random() < 0.5) lose(message);",
  },
  {
    name: "no test runs alone",
    pattern: /\b(test|it|describe)\.only\(/g,
    within: "code",
    files: tests,
    mend: "use run test --only PATTERN",
    bad: 'test.only("x", () => {});',
  },
  {
    name: "a skip has a name and a reason",
    pattern: /\b(test|it|describe)\.(skip|skipIf|todo|todoIf|if|failing)\(/g,
    within: "code",
    files: tests,
    except: ["test/support/skips.ts"],
    mend: "use skipUnless of test/support/skips.ts",
    bad: 'test.skip("x", () => {});',
  },
  {
    name: "rejections are awaited plainly",
    pattern: /\)\.(rejects|resolves)\./g,
    within: "code",
    files: tests,
    mend: "use rejectionOf of test/support/wait-for.ts, which says why",
    bad: 'await expect(work).rejects.toThrow("x");',
  },
  {
    name: "nothing is left for later",
    pattern: new RegExp(
      `\\b(${"TO"}DO|${"FIX"}ME|${"XX"}X|${"HA"}CK)\\b|not (yet )?implemented`,
      "g",
    ),
    within: "text",
    files: /\.(ts|md)$|^\.ci\//,
    mend: "do it, or leave it out and file an issue",
    bad: `// ${"TO"}DO: close it`,
  },
  {
    name: "names are whole words",
    pattern:
      /\b(const|let|function) (mgr|cfg|msg|ctx|tmp|idx|cnt|evt|cb|opts|req|str|num|arr|obj|val|buf|len|err|fn)\b/g,
    within: "code",
    files: typescript,
    mend: "write the word",
    bad: "const cfg = read();",
  },
];

/** @returns every place where this file breaks this fence */
export function checkWords(file: SourceFile, fence: WordFence): Violation[] {
  if (!fence.files.test(file.path)) return [];
  if (file.path === thisFile || fence.except?.includes(file.path) === true) return [];
  const text = fence.within === "code" ? codeOf(file.text) : file.text;
  return [...text.matchAll(fence.pattern)].map((match) => ({
    path: file.path,
    line: lineAt(text, match.index),
    message: `${fence.name}: ${fence.mend}`,
  }));
}
