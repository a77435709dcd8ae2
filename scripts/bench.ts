/** `run bench`: measures hostler beside its peers; without a word it lists what there is. */
import { randomInt } from "node:crypto";
import { benchLiveUpdate } from "./bench/live-update.ts";
import * as liveUpdateReport from "./bench/live-update-report.ts";
import { benchProcess } from "./bench/process.ts";
import * as processReport from "./bench/report.ts";
import { benchStore } from "./bench/store.ts";
import * as storeReport from "./bench/store-report.ts";
import { type Place, writeReadme } from "./bench/tables.ts";
import { ensureDependencies } from "./setup.ts";
import { readWords, runScript, ScriptError } from "./terminal.ts";

const usage = `Usage: run bench process [--quick] [--json] [--write-readme] [--seed N]
                         [--only PART-OF-ROW …] [--against FILE]
       run bench live-update [--quick] [--json] [--write-readme] [--seed N]
       run bench store [--quick] [--json] [--write-readme] [--seed N]
       run bench vm [--quick] [--json] [--write-readme] [--seed N]
       run bench fleet [--quick] [--json] [--write-readme] [--only pairs|gap|crowd …]
       run bench vetting [--quick] [--json] [--write-readme] [--seed N] [--only PART …]

  process       from SIGKILL to the next start: hostler, its peers and a floor in C (10 minutes)
  live-update   from the command to the call that enters the next kernel, and from CLAIM to the
                session: luod beside a floor in C (5 minutes)
  store         puts, watches and 2,000 watchers: the embedded store beside NATS (5 minutes)
  vm            from create to a guest's first letter beside bare QEMU and libvirt, memory of 50
                machines, their adoption, a VMM's replacement, 100 networks, hashing (5 minutes)
  fleet         bytes over the wire of an upgrade beside zsync, casync, rsync and patches; the
                silence of a commit; as many devices as one operator holds (15 minutes)
  vetting       a host from its switch to its verdict, 1,000 agents at one orchestrator, its page in
                Chromium, disks, memory, links and boot files beside fio, memtester and others
                (20 minutes); parts: run, agents, page, image, storage, memory, busy, flips, link,
                boot

  --quick          fewer samples: 2 minutes
  --json           print JSON
  --write-readme   also replace the tables in the system's README.md
  --seed N         the order of the rows
  --only WORD      only rows with this in their names, and the floor; of fleet and vetting a part
  --against FILE   another build of hostler beside it`;

interface Options {
  readonly quick: boolean;
  readonly only: readonly string[];
  readonly against: string | undefined;
  readonly seed: number;
}

interface Report {
  readonly place: Place;
  readonly markdown: string;
  readonly json: string;
}

async function measure(name: string, options: Options): Promise<Report> {
  if (name === "live-update") {
    const { formatJson, formatMarkdown, place } = liveUpdateReport;
    const result = await benchLiveUpdate(options);
    return { place, markdown: formatMarkdown(result), json: formatJson(result) };
  }
  if (name === "store") {
    const { formatJson, formatMarkdown, place } = storeReport;
    const result = await benchStore(options);
    return { place, markdown: formatMarkdown(result), json: formatJson(result) };
  }
  if (name === "vm") {
    // Only now: a fresh clone has no packages before.
    await ensureDependencies();
    const { benchVm } = await import("./bench/vm.ts");
    const { formatJson, formatMarkdown, place } = await import("./bench/vm-report.ts");
    const result = await benchVm(options);
    return { place, markdown: formatMarkdown(result), json: formatJson(result) };
  }
  if (name === "fleet") {
    await ensureDependencies();
    const { benchFleet } = await import("./bench/fleet.ts");
    const { formatJson, formatMarkdown, place } = await import("./bench/fleet-report.ts");
    const result = await benchFleet(options);
    return { place, markdown: formatMarkdown(result), json: formatJson(result) };
  }
  if (name === "vetting") {
    await ensureDependencies();
    const { benchVetting } = await import("./bench/vetting.ts");
    const { formatJson, formatMarkdown, place } = await import("./bench/vetting-report.ts");
    const result = await benchVetting(options);
    return { place, markdown: formatMarkdown(result), json: formatJson(result) };
  }
  const { formatJson, formatMarkdown, place } = processReport;
  const result = await benchProcess(options);
  return { place, markdown: formatMarkdown(result), json: formatJson(result) };
}

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
  const isKnown = ["process", "live-update", "store", "vm", "fleet", "vetting"].includes(name);
  if (!isKnown || more.length > 0) throw new ScriptError(usage, { exitCode: 100 });
  const seed = values.seed === undefined ? randomInt(2 ** 31) : Number(values.seed);
  if (!Number.isSafeInteger(seed)) throw new ScriptError(usage, { exitCode: 100 });
  const { quick, only, against } = values;
  const { place, markdown, json } = await measure(name, { quick, only, seed, against });
  console.log(values.json ? json : markdown);
  if (values["write-readme"]) writeReadme(place, markdown);
  return 0;
}

if (import.meta.main) await runScript(main);
