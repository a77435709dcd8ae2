/** `run bench`: measures hostler beside its peers; without a word it lists what there is. */
import { randomInt } from "node:crypto";
import { benchProcess } from "./bench/process.ts";
import { formatJson, formatMarkdown, writeReadme } from "./bench/report.ts";
import { readWords, runScript, ScriptError } from "./terminal.ts";

const usage = `Usage: run bench process [--quick] [--json] [--write-readme] [--seed N]
                         [--only PART-OF-ROW …] [--against FILE]

  process   from SIGKILL to the next start: hostler, its peers and a floor in C (10 minutes)

  --quick          fewer samples: 2 minutes
  --json           print JSON
  --write-readme   also replace the tables in README.md
  --seed N         the order of the rows
  --only WORD      only rows with this in their names, and the floor
  --against FILE   another build of hostler beside it`;

async function main(): Promise<number> {
  const { values, positionals } = readWords(usage, {
    allowPositionals: true,
    options: {
      quick: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      "write-readme": { type: "boolean", default: false },
      seed: { type: "string" },
      only: { type: "string", multiple: true, default: [] },
      against: { type: "string" },
    },
  });
  const [name, ...more] = positionals;
  if (name === undefined) {
    console.log(usage);
    return 0;
  }
  if (name !== "process" || more.length > 0) throw new ScriptError(usage, { exitCode: 100 });
  const seed = values.seed === undefined ? randomInt(2 ** 31) : Number(values.seed);
  if (!Number.isSafeInteger(seed)) throw new ScriptError(usage, { exitCode: 100 });
  const { quick, only, against } = values;
  const result = await benchProcess({ quick, only, seed, against });
  const markdown = formatMarkdown(result);
  console.log(values.json ? formatJson(result) : markdown);
  if (values["write-readme"]) writeReadme(markdown);
  return 0;
}

if (import.meta.main) await runScript(main);
