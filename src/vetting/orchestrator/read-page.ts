import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/**
 * The files of the page, as a browser takes them. Runs when hostler is built (a macro of Bun's
 * bundler), and in a run from source when this is loaded: what is compiled has the texts in it. A
 * bundle of them was ruled out: the bundler cannot be called while it runs.
 */
export function readPage(): Readonly<Record<string, string>> {
  const folder = join(import.meta.dir, "../page");
  const transpiler = new Bun.Transpiler({ loader: "ts", target: "browser" });
  const minifier = new Bun.Transpiler({ loader: "js", minifyWhitespace: true });
  const files: [string, string][] = [];
  for (const name of readdirSync(folder).toSorted()) {
    const text = () => readFileSync(join(folder, name), "utf8");
    if (name.endsWith(".ts")) {
      const script = made(name, () => forBrowser(transpiler.transformSync(text())));
      files.push([name.replace(/\.ts$/, ".js"), script]);
    } else if (name.endsWith(".css") || name.endsWith(".html")) files.push([name, text()]);
  }
  const uplot = (name: string) =>
    made(`uplot/dist/${name}`, () =>
      readFileSync(Bun.resolveSync(`uplot/dist/${name}`, import.meta.dir), "utf8"),
    );
  files.push(["uplot.js", minifier.transformSync(uplot("uPlot.esm.js"))]);
  files.push(["uplot.css", uplot("uPlot.min.css")]);
  return Object.fromEntries(files);
}

/** @throws Error that names the file, after it was printed */
function made(name: string, make: () => string): string {
  try {
    return make();
  } catch (cause) {
    const mend = name.startsWith("uplot/") ? " Get the packages: bun install." : "";
    const why = cause instanceof Error ? cause.message : String(cause);
    const words = `Cannot put ${name} into the page of vetting: ${why}.${mend}`;
    // Of a macro that throws a build (Bun 1.4.5) says "cannot coerce Exception", and nothing else.
    console.error(words);
    throw new Error(words, { cause });
  }
}

/** Modules name each other as they are served. */
function forBrowser(text: string): string {
  return text
    .replaceAll(/(from\s*")(\.\/[\w-]+)\.ts"/g, '$1$2.js"')
    .replaceAll(/from\s*"uplot"/g, 'from "./uplot.js"');
}
