import { createHash } from "node:crypto";
import * as v from "valibot";
import type { Page } from "../../http/pages.ts";
import { ProblemError } from "../../http/problem.ts";
import { defineRoute, type Route } from "../../http/route.ts";
import { runSchema } from "../protocol.ts";
import { apiLimits, runApi } from "../protocol-api.ts";
import type { Dossier, KeptResult } from "../protocol-operator.ts";
import type { ReportFile, ReportKey } from "../report/manifest.ts";
import { reportStyle } from "../report/style.ts";
import { reportFileOf, reportsOf } from "../report-files.ts";
import { specDiff } from "../spec/diff.ts";
import { type HostFacts, outliers } from "../spec/outliers.ts";
import { dossierOf, inventoryOf } from "./dossier.ts";
import type { VettingOrchestrator } from "./orchestrator.ts";

/** What of a run is read as a file, or beside others. */

export interface ReportMaker {
  readonly orchestrator: VettingOrchestrator;
  readonly about: Dossier["orchestrator"];
  /** The authority's. */
  readonly key: ReportKey;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

export function reportRoutes(maker: ReportMaker): readonly Route[] {
  const { orchestrator } = maker;
  return [
    defineRoute({
      ...runApi.report,
      run: (_call, { run }) => reportsOf(toldOf(maker, run), maker.key, maker.now()),
    }),
    defineRoute({
      ...runApi.diff,
      run(_call, { run }) {
        const { spec } = orchestrator.entry(run);
        const inventory = inventoryOf(orchestrator.records.results(run));
        if (inventory !== null) return { parts: specDiff(spec, inventory) };
        throw new ProblemError("not-found", `Run ${run} has no inventory yet`, {
          expected: "a run whose stage Inventory has ended",
          received: "one that has not come so far",
        });
      },
    }),
    defineRoute({
      ...runApi.outliers,
      run(_call, { run }) {
        const { run: own } = orchestrator.entry(run);
        const others = othersOf(orchestrator, own);
        const found = outliers(factsOf(orchestrator, own), others);
        return { outliers: found, hosts: others.length };
      },
    }),
  ];
}

/** A host that was heard a moment ago says nothing of the hardware, and differs at each look. */
function toldOf({ orchestrator, about }: ReportMaker, run: number): Dossier {
  const dossier = dossierOf(orchestrator, run, about);
  return { ...dossier, view: { ...dossier.view, silent_ms: null } };
}

interface Told {
  readonly run: number;
  readonly mac: string;
}

function factsOf({ records }: VettingOrchestrator, { run, mac }: Told): HostFacts {
  const results = records.results(run);
  const last = new Map<KeptResult["stage"], KeptResult>();
  for (const result of results) last.set(result.stage, result);
  return {
    ...{ run, mac },
    inventory: inventoryOf(results),
    measurements: [...last.values()].flatMap(({ report }) => report.measurements),
  };
}

/** The newest run that ended of each other host of the spec. */
function othersOf(
  orchestrator: VettingOrchestrator,
  { mac, spec }: Told & { readonly spec: string },
): readonly HostFacts[] {
  const others = new Map<string, HostFacts>();
  let before = Number.MAX_SAFE_INTEGER;
  for (;;) {
    const limit = apiLimits.page;
    const runs = orchestrator.records.listRuns({
      ...{ mac: undefined, spec, isOpen: false, before, limit },
    });
    for (const run of runs) {
      if (run.mac === mac || others.has(run.mac)) continue;
      if (others.size === apiLimits.compared) return [...others.values()];
      others.set(run.mac, factsOf(orchestrator, run));
    }
    if (runs.length < limit) return [...others.values()];
    before = runs.at(-1)?.run ?? 0;
  }
}

const kinds = {
  html: { name: "report.html", type: "text/html; charset=utf-8" },
  json: { name: "report.json", type: "application/json" },
  ocp: { name: "report.ocp.jsonl", type: "application/jsonl" },
  manifest: { name: "manifest.json", type: "application/json" },
} as const satisfies Record<string, { name: ReportFile | "manifest.json"; type: string }>;

const styleHash = createHash("sha256").update(reportStyle).digest("base64");

/** What a report may do where it is looked at: be styled by its own style, and nothing else. */
const reportPolicy =
  `default-src 'none'; style-src 'sha256-${styleHash}'; base-uri 'none'; form-action 'none'; ` +
  "frame-ancestors 'none'; sandbox allow-downloads";

/** `/v1/vetting/runs/:run/report.html`, `.json`, `.ocp.jsonl`, and `manifest.json`. */
export function reportPages(maker: ReportMaker): readonly Page[] {
  return Object.entries(kinds).map(([kind, { name, type }]) => ({
    name: `vetting.run.file.${kind}`,
    method: "GET",
    path: `/v1/vetting/runs/:run/${name}`,
    summary: `The file ${name} of a run`,
    permission: "view",
    output: v.string(),
    mediaType: type.split(";", 1)[0] ?? type,
    serve({ parameters }) {
      const run = v.safeParse(runSchema, parameters["run"]);
      if (!run.success) {
        throw new ProblemError("request", "No such run", {
          expected: "the number of a run",
          received: String(parameters["run"]).slice(0, 64),
        });
      }
      const told = toldOf(maker, run.output);
      const text = reportFileOf(name, told, { key: maker.key, now: maker.now() });
      const shown = kind === "html" ? "inline" : "attachment";
      return new Response(text, {
        headers: {
          "content-type": type,
          "content-security-policy": reportPolicy,
          "content-disposition": `${shown}; filename="run-${run.output}-${name}"`,
        },
      });
    },
  }));
}
