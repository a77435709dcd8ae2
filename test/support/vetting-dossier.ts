import { createHash } from "node:crypto";
import * as v from "valibot";
import { chainHash, chainStart } from "../../src/vetting/protocol-chain.ts";
import {
  type Dossier,
  dossierSchema,
  type KeptResult,
  type RunView,
} from "../../src/vetting/protocol-operator.ts";
import type { Finding, Stage, StageReport } from "../../src/vetting/protocol-result.ts";
import { stages } from "../../src/vetting/protocol-result.ts";
import { specSchema } from "../../src/vetting/protocol-spec.ts";
import { validateSpec } from "../../src/vetting/spec/validate.ts";
import { exampleInventory } from "./vetting-inventory.ts";

/** A run that has ended, with a spec that it breaks in two places, and something of everything. */

const begin = Date.parse("2026-11-30T01:00:00.000Z");
export const timeAt = (seconds: number) => new Date(begin + seconds * 1_000).toISOString();
export const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

const outcomes: Readonly<Record<Stage, StageReport["outcome"]>> = {
  Inventory: "PASS",
  SMART: "WARN",
  CPUStress: "PASS",
  Storage: "FAIL",
  Network: "PASS",
  GPU: "SKIP",
  PSU: "ERROR",
};

export function exampleFinding(outcome: Finding["outcome"], component: string): Finding {
  return {
    outcome,
    code: "read-errors",
    component,
    message: `${outcome} of ${component}`,
    expected: "0 errors",
    found: "3 errors",
  };
}

function reportOf(stage: Stage): StageReport {
  const outcome = outcomes[stage];
  return {
    outcome,
    summary: `${stage} came to ${outcome}`,
    findings: [exampleFinding(outcome, "disk S64ANX0R0"), exampleFinding("PASS", "host")],
    coverage: [
      { component: "disk S64ANX0R0", unit: "bytes", covered: 5e11, total: 1e12, least: 0.4 },
      { component: "host", unit: "sensors", covered: 3, total: null, least: 0 },
    ],
    engines: [{ task: "scan", engine: "hostler", version: "0.1.0" }],
    measurements: [
      { name: "sequential-read", component: "disk S64ANX0R0", value: 3012.5, unit: "MB/s" },
    ],
    deltas: [{ source: "memory-corrected", component: "mc0/dimm1", before: 1, after: 4 }],
    evidence: stage === "Storage" ? [{ name: "kernel-log", component: "host", text: "I/O" }] : [],
    ...(stage === "Inventory" && { inventory: exampleInventory() }),
  };
}

type Unhashed = Omit<KeptResult, "hash">;

function resultOf(stage: Stage, index: number): Unhashed {
  return {
    stage,
    attempt: stage === "Storage" ? 2 : 1,
    source: stage === "PSU" ? "orchestrator" : "agent",
    cancelled: false,
    started: timeAt(60 + index * 120),
    ended: timeAt(170 + index * 120),
    duration_ms: 110_000,
    report: reportOf(stage),
  };
}

function exampleView(): RunView {
  return {
    run: 12,
    mac: "52:54:00:00:00:00",
    host: "rack-7",
    spec: "r1",
    spec_revision: 3,
    state: "FailedHolding",
    verdict: "failed",
    reason: "Storage: FAIL of disk S64ANX0R0",
    created: timeAt(0),
    changed: timeAt(900),
    ended: timeAt(900),
    silent_ms: 1_200,
    address: "10.0.0.7",
    agent_version: "0.1.0",
    activity: { kind: "holding", key: false },
    stages: stages.map((stage, index) => ({
      stage,
      outcome: outcomes[stage],
      summary: `${stage} came to ${outcomes[stage]}`,
      attempts: 1,
      started: timeAt(60 + index * 120),
      ended: timeAt(170 + index * 120),
    })),
    overrides: [],
    hold: { since: timeAt(900), key_until: null, host_key: null },
    directives: [],
    dropped: 0,
  };
}

function sensors(): Dossier["sensors"] {
  const at = Array.from({ length: 160 }, (_, index) => begin + 60_000 + index * 5_000);
  const wave = (base: number, high: number) =>
    at.map((time, index): [number, number] => [time, base + high * Math.sin(index / 20) ** 2]);
  return [
    {
      ...{ kind: "temperature", key: "coretemp.0/Core 0", unit: "°C", critical: 100 },
      points: wave(40, 45),
    },
    { kind: "temperature", key: "nvme/S64ANX0R0", unit: "°C", critical: 85, points: wave(35, 20) },
    { kind: "power", key: "psu/PSU1", unit: "W", critical: null, points: wave(120, 300) },
  ];
}

/** @param change made before the results are hashed */
export function exampleDossier(change: (dossier: Dossier) => void = () => {}): Dossier {
  const spec = v.parse(specSchema, {
    name: "r1",
    rules: [
      { path: "memory.slots.count", match: { is: "equal", value: 4 } },
      { path: "memory.slots[DIMM_A1].part", match: { is: "equal", value: "OTHER" } },
      { path: "firmware.version", match: { is: "one-of", values: ["2.2"] }, outcome: "WARN" },
    ],
  });
  const dossier: Dossier = {
    view: exampleView(),
    spec,
    inventory: exampleInventory(),
    rules: validateSpec(spec, exampleInventory()),
    results: stages.map((stage, index) => ({ ...resultOf(stage, index), hash: "" })),
    events: [
      {
        ...{ sequence: 1, at: timeAt(0), who: "operator alice", what: "created" },
        ...{ state: "Queued", message: "of rack-7" },
      },
    ],
    sensors: sensors(),
    log: [{ sequence: 1, time: timeAt(61), level: "info", stage: "SMART", text: "looks at it" }],
    orchestrator: { version: "0.1.0", name: "control" },
  };
  change(dossier);
  let before = chainStart({ ...dossier.view, spec: dossier.spec }, sha256);
  dossier.results = dossier.results.map((result) => {
    before = chainHash(result, before, sha256);
    return { ...result, hash: before };
  });
  return v.parse(dossierSchema, dossier);
}
