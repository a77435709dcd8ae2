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
      files.push([name.replace(/\.ts$/, ".js"), forBrowser(transpiler.transformSync(text()))]);
    } else if (name.endsWith(".css") || name.endsWith(".html")) files.push([name, text()]);
  }
  const uplot = (name: string) =>
    readFileSync(Bun.resolveSync(`uplot/dist/${name}`, import.meta.dir), "utf8");
  files.push(["uplot.js", minifier.transformSync(uplot("uPlot.esm.js"))]);
  files.push(["uplot.css", uplot("uPlot.min.css")]);
  return Object.fromEntries(files);
}

/** Modules name each other as they are served. */
function forBrowser(text: string): string {
  return text
    .replaceAll(/(from\s*")(\.\/[\w-]+)\.ts"/g, '$1$2.js"')
    .replaceAll(/from\s*"uplot"/g, 'from "./uplot.js"');
}
