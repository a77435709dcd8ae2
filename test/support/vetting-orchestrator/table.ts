import type { Run, RunInput, RunStep } from "../../../src/vetting/orchestrator/lifecycle-state.ts";
import { LOST_AFTER, runStates, stateOf } from "../../../src/vetting/protocol.ts";
import type { Stage } from "../../../src/vetting/protocol-result.ts";
import {
  brokenSpec,
  claimInput,
  drawn,
  exampleSpec,
  otherIdentity,
  RunWorld,
  report,
  resultInput,
} from "./runs.ts";

/** Every standing of a run × everything that can happen to it, as it is decided. */

const walked: readonly Stage[] = ["SMART", "CPUStress", "Storage", "Network", "GPU", "PSU"];

export interface Standing {
  readonly name: string;
  readonly make: () => RunWorld;
}

const failed = (stage: Stage) =>
  new RunWorld(exampleSpec).walksTo(stateOf(stage)).begins(stage).ends("FAIL");

function lostIn(stage: Stage): RunWorld {
  const world = new RunWorld().walksTo(stateOf(stage)).begins(stage);
  world.now += LOST_AFTER;
  world.happens({ kind: "tick" });
  return world;
}

export const standings: readonly Standing[] = [
  { name: "Queued", make: () => new RunWorld() },
  { name: "Booting", make: () => new RunWorld().boots() },
  { name: "InventoryCheck", make: () => new RunWorld().boots().claims() },
  {
    name: "InventoryCheck, in an attempt",
    make: () => new RunWorld().boots().claims().begins("Inventory"),
  },
  ...walked.flatMap((stage): Standing[] => [
    { name: stage, make: () => new RunWorld().walksTo(stateOf(stage)) },
    {
      name: `${stage}, in an attempt`,
      make: () => new RunWorld().walksTo(stateOf(stage)).begins(stage),
    },
  ]),
  {
    name: "Storage, in an attempt that is cancelled",
    make: () => {
      const world = new RunWorld().walksTo("Storage").begins("Storage");
      world.happens({ kind: "cancel", who: "operator alice", reason: "" });
      return world;
    },
  },
  {
    name: "Storage, told to be tried again",
    make: () => {
      const world = failed("Storage");
      world.happens(retryInput([]));
      return world;
    },
  },
  { name: "Lost, in Storage", make: () => lostIn("Storage") },
  { name: "FailedHolding, by Storage", make: () => failed("Storage") },
  {
    name: "FailedHolding, by the rules",
    make: () => new RunWorld(brokenSpec).boots().claims().begins("Inventory").ends("PASS"),
  },
  {
    name: "FailedHolding, by another machine",
    make: () => {
      const world = new RunWorld().walksTo("Storage").boots();
      return world.claims({ identity: otherIdentity, bootId: "boot-2" });
    },
  },
  {
    name: "FailedHolding, with a key",
    make: () => {
      const world = failed("GPU");
      world.happens(holdInput);
      return world;
    },
  },
  { name: "FailedHolding, released", make: () => released() },
  {
    name: "Completed",
    make: () => new RunWorld().walksTo("PSU").begins("PSU").ends("PASS"),
  },
  {
    name: "Cancelled",
    make: () => {
      const world = new RunWorld().walksTo("SMART");
      world.happens({ kind: "cancel", who: "operator alice", reason: "" });
      return world;
    },
  },
  {
    name: "Aborted, in an attempt",
    make: () => {
      const world = new RunWorld().walksTo("Storage").begins("Storage");
      world.happens({ kind: "abort", who: "operator alice", reason: "" });
      return world;
    },
  },
];

function released(): RunWorld {
  const world = failed("Storage");
  world.happens({ kind: "release", who: "operator alice", after: "shutdown", reason: "" });
  return world;
}

function retryInput(wipe: readonly string[], mayWipe = true): Extract<RunInput, { kind: "retry" }> {
  return { kind: "retry", who: "operator alice", stage: null, wipe, mayWipe, reason: "" };
}

const holdInput: RunInput = {
  ...{ kind: "hold", who: "operator alice", key: "ssh-ed25519 AAAA" },
  ...{ lasts: 3_600_000, untilTime: "1970-01-01T01:16:40.000Z" },
};

/** What happens, made for where the run is. */
export const happenings: Readonly<Record<string, (run: Run) => RunInput>> = {
  "boot script": () => ({ kind: "boot", token: "another-token", who: null }),
  "token that an operator takes": () => ({
    ...{ kind: "boot", token: "another-token", who: "operator alice" },
  }),
  "token that is to replace": () => ({
    ...{ kind: "boot", token: "another-token", who: "operator alice", replaces: true },
  }),
  "claim by token": () => ({ ...claimInput, bootId: "boot-2", session: "another-session" }),
  "claim by token, a second one": () => ({ ...claimInput, instance: drawn(2) }),
  "claim by session": () => ({ ...claimInput, by: "session", instance: drawn(2) }),
  "claim of another machine": () => ({ ...claimInput, identity: otherIdentity }),
  "claim of a machine with other cards": () => ({ ...claimInput, macs: ["52:54:00:ee:ee:01"] }),
  attempt: (run) => ({
    ...{ kind: "attempt", attempt: drawn(50), instance: drawn(1) },
    stage: walked.find((stage) => stateOf(stage) === run.state) ?? "Inventory",
  }),
  "attempt told again": (run) => ({
    ...{ kind: "attempt", attempt: run.attempt?.id ?? run.spent[0] ?? drawn(51) },
    ...{ instance: drawn(1), stage: run.attempt?.stage ?? "Inventory" },
  }),
  "attempt of another stage": (run) => ({
    ...{ kind: "attempt", attempt: drawn(52), instance: drawn(1) },
    stage: run.state === "PSU" ? "GPU" : "PSU",
  }),
  "attempt of another process": () => ({
    ...{ kind: "attempt", attempt: drawn(53), instance: drawn(3), stage: "Storage" },
  }),
  "result PASS": (run) => resultInput(run, report("PASS", run.attempt?.stage)),
  "result WARN": (run) => resultInput(run, report("WARN", run.attempt?.stage)),
  "result SKIP": (run) => resultInput(run, report("SKIP", run.attempt?.stage)),
  "result FAIL": (run) => resultInput(run, report("FAIL")),
  "result ERROR": (run) => resultInput(run, report("ERROR")),
  "result cancelled": (run) => resultInput(run, report("ERROR"), { cancelled: true }),
  "result told again": (run) =>
    resultInput(run, report("FAIL"), { result: run.answers[0]?.result ?? drawn(60) }),
  "result of another attempt": (run) => resultInput(run, report("PASS"), { attempt: drawn(61) }),
  heartbeat: () => heartbeat([]),
  "heartbeat, directives done": (run) =>
    heartbeat(run.directives.map(({ id }) => ({ id, result: "done", reason: null }))),
  "heartbeat, directives refused": (run) =>
    heartbeat(run.directives.map(({ id }) => ({ id, result: "refused", reason: "not now" }))),
  "heartbeat of another process": () => ({ ...heartbeat([]), instance: drawn(3) }),
  "heartbeat of another boot": () => ({ ...heartbeat([]), bootId: "boot-9" }),
  "log or sensors": () => ({ kind: "spoke" }),
  "hold asked": () => ({
    ...{ kind: "hold-asked", instance: drawn(1), address: "10.0.0.8", hostKey: "SHA256:abc" },
  }),
  "a second passes": () => ({ kind: "tick" }),
  "a minute of silence": () => ({ kind: "tick" }),
  "a day of silence": () => ({ kind: "tick" }),
  restart: () => ({ kind: "restart" }),
  cancel: () => ({ kind: "cancel", who: "operator alice", reason: "" }),
  abort: () => ({ kind: "abort", who: "operator alice", reason: "" }),
  retry: () => retryInput([]),
  "retry of Storage, with a wipe": () => ({ ...retryInput(["S1"]), stage: "Storage" }),
  "retry with a wipe, not permitted": () => ({ ...retryInput(["S1"], false), stage: "Storage" }),
  "override of Storage": () => override("Storage"),
  "override of the rules": () => override("SpecValidate"),
  "override of the identity": () => override("identity"),
  hold: () => holdInput,
  "release, to stay": () => ({ ...release, after: "stay" }),
  "release, and shut down": () => ({ ...release, after: "shutdown" }),
};

const release = { kind: "release", who: "operator alice", reason: "" } as const;

function override(what: "Storage" | "SpecValidate" | "identity"): RunInput {
  return { kind: "override", who: "operator alice", what, reason: "it may be so" };
}

function heartbeat(
  acknowledged: Extract<RunInput, { kind: "heartbeat" }>["acknowledged"],
): Extract<RunInput, { kind: "heartbeat" }> {
  return { kind: "heartbeat", instance: drawn(1), bootId: "boot-1", acknowledged };
}

const waits: Readonly<Record<string, number>> = {
  "a second passes": 1_000,
  "a minute of silence": LOST_AFTER,
  "a day of silence": 24 * 3_600_000,
};

export function observe(standing: Standing, happening: string): { before: Run; taken: RunStep } {
  const world = standing.make();
  const before = world.run;
  world.now += waits[happening] ?? 0;
  const input = happenings[happening]?.(before);
  if (input === undefined) throw new Error(`There is no ${happening}`);
  return { before, taken: world.happens(input) };
}

/** The table, for people and for a comparison. */
export function writeTable(): string {
  const lines = [
    "# A run: every standing × everything that can happen",
    "",
    "Made by what `lifecycle.ts` decides; a unit test compares. Written anew by",
    "`UPDATE_TABLES=1 bun test test/unit/vetting/orchestrator-lifecycle.test.ts`. SpecValidate and",
    "Reporting resolve inside the answer to a result: no run rests there.",
    "",
    "= stays where it is; then what is answered, which directives wait, what is written of it.",
  ];
  for (const standing of standings) {
    lines.push("", `## ${standing.name}`, "");
    lines.push("| what happens | state | answer | waits | written |", "|---|---|---|---|---|");
    for (const happening of Object.keys(happenings)) {
      const { before, taken } = observe(standing, happening);
      lines.push(`| ${happening} | ${cellsOf(before, taken).join(" | ")} |`);
    }
  }
  return `${lines.join("\n")}\n`;
}

function cellsOf(before: Run, { run, answer, writes }: RunStep): string[] {
  const ended = before.ended === null && run.verdict !== null ? `, ${run.verdict}` : "";
  const state = run.state === before.state ? `=${ended}` : `→ ${run.state}${ended}`;
  const told = run.directives.map(({ kind }) => kind).join(", ");
  const events = writes.flatMap((write) => (write.kind === "event" ? [write.event.what] : []));
  const other = writes.flatMap((write) => (write.kind === "event" ? [] : [write.kind]));
  return [state, answerText(answer), told, [...other, ...events].join(", ")];
}

function answerText(answer: RunStep["answer"]): string {
  switch (answer.kind) {
    case "none":
      return "";
    case "state":
      return answer.state;
    case "start":
      return `start ${answer.number}${answer.wipe.length > 0 ? ` wiping ${answer.wipe}` : ""}`;
    case "key":
      return "the key";
    case "refused":
      return `refused: ${answer.refusal.kind}`;
  }
}

/** States that no run rests in. */
export const passing = ["SpecValidate", "Reporting"];
export const restingStates = runStates.filter((state) => !passing.includes(state));
