import * as v from "valibot";
import { macSchema } from "../hardware/inventory.ts";
import type { RouteDefinition, StreamDefinition } from "../http/route.ts";
import {
  agentPath,
  attemptAnswerSchema,
  attemptSchema,
  claimAnswerSchema,
  claimSchema,
  count,
  emptySchema,
  heartbeatAnswerSchema,
  heartbeatSchema,
  helloSchema,
  holdAnswerSchema,
  holdSchema,
  logLineSchema,
  logSchema,
  positive,
  resultAnswerSchema,
  resultSchema,
  runSchema,
  sensorsSchema,
  vettingLimits,
} from "./protocol.ts";
import {
  diffPartSchema,
  dossierSchema,
  hostViewSchema,
  liveEventSchema,
  outlierSchema,
  runViewSchema,
} from "./protocol-operator.ts";
import { stageSchema } from "./protocol-result.ts";
import { specNameSchema, specSchema } from "./protocol-spec.ts";

/** Names, paths and schemas of what an orchestrator is asked; what is done, its routes say. */

export const apiLimits = {
  /** Hosts, runs or lines that one answer tells; the next are asked for by `next`. */
  page: 1_000,
  hosts: 20_000,
  specs: 1_000,
  /** Revisions of one spec that are kept for runs to come; those of a kept run stay. */
  revisions: 100,
  /** Other hosts that a run is compared with: those of the newest runs. */
  compared: 256,
  /** Serials of disks that one retry gives up. */
  wipe: 64,
  reason: 512,
  /** Milliseconds: 30 days. */
  window: 30 * 86_400_000,
  /** Milliseconds: 7 days. */
  hold: 7 * 86_400_000,
} as const;

const reason = v.pipe(v.string(), v.maxLength(apiLimits.reason));
/** One line of authorized_keys: a type, the key in base64, perhaps a comment; no options. */
export const authorizedKeySchema = v.pipe(
  v.string(),
  v.maxLength(vettingLimits.authorizedKey),
  v.regex(
    /^(ssh-|ecdsa-sha2-|sk-(ssh|ecdsa)-)[a-z0-9@.-]{3,64} [A-Za-z0-9+/]+={0,3}( [^\r\n]*)?$/,
    "one line of a public key of OpenSSH",
  ),
);
const hostName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, "a name of letters, digits, dots, _ and -"),
);
const ofHost = v.strictObject({ mac: macSchema });
const ofRun = v.strictObject({ run: runSchema });
const ofSpec = v.strictObject({ spec: specNameSchema });
const time = v.pipe(v.string(), v.isoTimestamp());

const agentCall = { method: "POST", permission: "run", mutates: false } as const;

/**
 * What an agent calls. None but `claim` stands in the audit log: the run's own events and chain say
 * the same, and a thousand hosts call twice a second.
 */
export const agentApi = {
  hello: {
    ...agentCall,
    name: "vetting.agent.hello",
    path: agentPath("hello"),
    summary: "An agent is up, and says by which version",
    input: helloSchema,
    output: emptySchema,
  },
  claim: {
    ...agentCall,
    mutates: true,
    name: "vetting.agent.claim",
    path: agentPath("claim"),
    summary: "Takes a run up, by its one-shot token or by the session that it has",
    input: claimSchema,
    output: claimAnswerSchema,
  },
  attempt: {
    ...agentCall,
    name: "vetting.agent.attempt",
    path: agentPath("attempt"),
    summary: "A stage is about to start",
    input: attemptSchema,
    output: attemptAnswerSchema,
  },
  result: {
    ...agentCall,
    name: "vetting.agent.result",
    path: agentPath("result"),
    summary: "What a stage came to; the same id gives the same answer",
    input: resultSchema,
    output: resultAnswerSchema,
  },
  heartbeat: {
    ...agentCall,
    name: "vetting.agent.heartbeat",
    path: agentPath("heartbeat"),
    summary: "The agent is there, and asks for directives",
    input: heartbeatSchema,
    output: heartbeatAnswerSchema,
  },
  log: {
    ...agentCall,
    name: "vetting.agent.log",
    path: agentPath("log"),
    summary: "Lines of the host's log",
    input: logSchema,
    output: emptySchema,
  },
  sensors: {
    ...agentCall,
    name: "vetting.agent.sensors",
    path: agentPath("sensor"),
    summary: "Readings of the host's sensors",
    input: sensorsSchema,
    output: emptySchema,
  },
  hold: {
    ...agentCall,
    name: "vetting.agent.hold",
    path: agentPath("hold"),
    summary: "A host that holds asks for the key that an operator gave",
    input: holdSchema,
    output: holdAnswerSchema,
  },
} as const satisfies Record<string, RouteDefinition<v.GenericSchema, v.GenericSchema>>;

const reading = { method: "GET", permission: "view", mutates: false } as const;
const changing = { method: "POST", permission: "operate", mutates: true } as const;

const specSummarySchema = v.strictObject({
  name: specNameSchema,
  revision: positive,
  description: v.string(),
  rules: count,
  changed: time,
});
export type SpecSummary = v.InferOutput<typeof specSummarySchema>;

/** What an operator gives a run's host after its hold. */
export const releases = ["stay", "shutdown", "reboot"] as const;

export const hostApi = {
  hosts: {
    ...reading,
    name: "vetting.host.list",
    path: "/v1/vetting/hosts",
    summary: "Hosts in the order of their cards, a page at a time; unknown ones that asked too",
    input: v.strictObject({ after: v.optional(macSchema) }),
    output: v.strictObject({
      hosts: v.array(hostViewSchema),
      total: count,
      next: v.nullable(macSchema),
    }),
  },
  hostAdd: {
    ...changing,
    name: "vetting.host.add",
    path: "/v1/vetting/hosts",
    summary: "Takes a host in, by the card that it boots from, or names it anew",
    input: v.strictObject({
      mac: macSchema,
      name: v.optional(hostName),
      /** Of runs for which none is said. */
      spec: v.optional(specNameSchema),
    }),
    output: hostViewSchema,
  },
  hostWindow: {
    ...changing,
    name: "vetting.host.window",
    path: "/v1/vetting/hosts/:mac/window",
    summary: "Lets a host boot into its open run for so long; 0 closes the window",
    input: v.strictObject({
      mac: macSchema,
      for_ms: v.pipe(count, v.maxValue(apiLimits.window)),
    }),
    output: hostViewSchema,
  },
  hostRemove: {
    ...changing,
    method: "DELETE",
    name: "vetting.host.remove",
    path: "/v1/vetting/hosts/:mac",
    summary: "Forgets a host that has no open run, with what it was known by",
    input: ofHost,
    output: emptySchema,
  },
} as const satisfies Record<string, RouteDefinition<v.GenericSchema, v.GenericSchema>>;

export const specApi = {
  specs: {
    ...reading,
    name: "vetting.spec.list",
    path: "/v1/vetting/specs",
    summary: "Specs by name, with their newest revision",
    input: emptySchema,
    output: v.strictObject({ specs: v.array(specSummarySchema) }),
  },
  spec: {
    ...reading,
    name: "vetting.spec.show",
    path: "/v1/vetting/specs/:spec",
    summary: "One spec, as its newest or another revision has it",
    input: v.strictObject({ spec: specNameSchema, revision: v.optional(runSchema) }),
    output: v.strictObject({ spec: specSchema, revision: positive, changed: time }),
  },
  specPut: {
    ...changing,
    method: "PUT",
    name: "vetting.spec.put",
    path: "/v1/vetting/specs/:spec",
    summary: "Makes a revision of a spec; runs that are under way keep theirs",
    input: v.strictObject({
      spec: specNameSchema,
      content: specSchema,
      /** What this one is made of; where another one is, it is a conflict. 0: there is none. */
      expected_revision: v.optional(count),
    }),
    output: specSummarySchema,
  },
  specRemove: {
    ...changing,
    method: "DELETE",
    name: "vetting.spec.remove",
    path: "/v1/vetting/specs/:spec",
    summary: "Takes a spec away; what runs were held to stays with them",
    input: ofSpec,
    output: emptySchema,
  },
} as const satisfies Record<string, RouteDefinition<v.GenericSchema, v.GenericSchema>>;

export const runApi = {
  runs: {
    ...reading,
    name: "vetting.run.list",
    path: "/v1/vetting/runs",
    summary: "Runs, the newest first, a page at a time",
    input: v.strictObject({
      /** Runs of a lower number. */
      before: v.optional(runSchema),
      mac: v.optional(macSchema),
      spec: v.optional(specNameSchema),
      /** Those alone that have not ended. */
      open: v.optional(v.picklist(["true", "false"])),
    }),
    output: v.strictObject({
      runs: v.array(runViewSchema),
      total: count,
      next: v.nullable(positive),
    }),
  },
  start: {
    ...changing,
    name: "vetting.run.start",
    path: "/v1/vetting/runs",
    summary: "Begins a run of a host, which waits until the host boots",
    input: v.strictObject({
      mac: macSchema,
      /** The host's own, when none is said. */
      spec: v.optional(specNameSchema),
      /** Opens the boot window for so long. */
      window_ms: v.optional(v.pipe(positive, v.maxValue(apiLimits.window))),
    }),
    output: runViewSchema,
  },
  run: {
    ...reading,
    name: "vetting.run.show",
    path: "/v1/vetting/runs/:run",
    summary: "One run: where it is, and what became of its stages",
    input: ofRun,
    output: runViewSchema,
  },
  dossier: {
    ...reading,
    name: "vetting.run.dossier",
    path: "/v1/vetting/runs/:run/dossier",
    summary: "All of a run: spec, inventory, rules, results, events, sensors, the end of its log",
    input: ofRun,
    output: dossierSchema,
  },
  report: {
    ...reading,
    name: "vetting.run.report",
    path: "/v1/vetting/runs/:run/report",
    summary: "The reports of a run as files, and the signed manifest that proves them",
    input: ofRun,
    output: v.strictObject({
      "report.html": v.string(),
      "report.json": v.string(),
      "report.ocp.jsonl": v.string(),
      "manifest.json": v.string(),
    }),
  },
  diff: {
    ...reading,
    name: "vetting.run.diff",
    path: "/v1/vetting/runs/:run/diff",
    summary: "A run's host beside the spec that the run is held to, part by part",
    input: ofRun,
    output: v.strictObject({ parts: v.array(diffPartSchema) }),
  },
  outliers: {
    ...reading,
    name: "vetting.run.outliers",
    path: "/v1/vetting/runs/:run/outliers",
    summary: "What of a run is far from the last runs of other hosts of the same spec",
    input: ofRun,
    output: v.strictObject({
      outliers: v.array(outlierSchema),
      /** Others that were looked at. */
      hosts: count,
    }),
  },
  log: {
    ...reading,
    name: "vetting.run.log",
    path: "/v1/vetting/runs/:run/log",
    summary: "Lines of a run's log in the order in which they came, a page at a time",
    input: v.strictObject({
      run: runSchema,
      after: v.optional(runSchema),
      stage: v.optional(stageSchema),
    }),
    output: v.strictObject({
      lines: v.array(logLineSchema),
      /** To ask on with; null: there is no more just now. */
      next: v.nullable(positive),
      /** Of the last line that this answer looked at. */
      last: count,
    }),
  },
  token: {
    ...changing,
    name: "vetting.run.token",
    path: "/v1/vetting/runs/:run/token",
    summary: "A one-shot token for a host that boots by other means than a boot script of ours",
    input: v.strictObject({
      run: runSchema,
      /** Ends the session of a host that speaks; without it that is a conflict. */
      replace: v.optional(v.boolean()),
    }),
    output: v.strictObject({ run: positive, mac: macSchema, token: v.string() }),
  },
  cancel: {
    ...changing,
    name: "vetting.run.cancel",
    path: "/v1/vetting/runs/:run/cancel",
    summary: "Ends the stage that runs, then the run; the host powers off",
    input: v.strictObject({ run: runSchema, reason: v.optional(reason) }),
    output: runViewSchema,
  },
  abort: {
    ...changing,
    name: "vetting.run.abort",
    path: "/v1/vetting/runs/:run/abort",
    summary: "Ends all that the agent does, at once; the host holds without a key",
    input: v.strictObject({ run: runSchema, reason: v.optional(reason) }),
    output: runViewSchema,
  },
  retry: {
    ...changing,
    name: "vetting.run.retry",
    path: "/v1/vetting/runs/:run/retry",
    summary: "Has a host that holds do its failed stage, or an earlier one, again",
    input: v.strictObject({
      run: runSchema,
      stage: v.optional(stageSchema),
      /** Serials of disks whose contents are given up for this attempt: asks for "wipe". */
      wipe: v.optional(
        v.pipe(
          v.array(v.pipe(v.string(), v.minLength(1), v.maxLength(256))),
          v.maxLength(apiLimits.wipe),
        ),
      ),
      reason: v.optional(reason),
    }),
    output: runViewSchema,
  },
  override: {
    ...changing,
    name: "vetting.run.override",
    path: "/v1/vetting/runs/:run/override",
    summary: "Accepts what failed, and goes on after it; the verdict says so for ever",
    input: v.strictObject({
      run: runSchema,
      /** What is accepted has to be what failed. */
      what: v.union([stageSchema, v.picklist(["SpecValidate", "identity"])]),
      reason: v.pipe(reason, v.minLength(1)),
    }),
    output: runViewSchema,
  },
  hold: {
    ...changing,
    permission: "hold",
    name: "vetting.run.hold",
    path: "/v1/vetting/runs/:run/key",
    summary: "Gives a host that holds a key by which a person may come in, for so long",
    input: v.strictObject({
      run: runSchema,
      key: authorizedKeySchema,
      for_ms: v.pipe(positive, v.maxValue(apiLimits.hold)),
    }),
    output: runViewSchema,
  },
  release: {
    ...changing,
    name: "vetting.run.release",
    path: "/v1/vetting/runs/:run/release",
    summary: "Takes the key of a hold back, and ends the run unless it is to stay",
    input: v.strictObject({
      run: runSchema,
      after: v.picklist(releases),
      reason: v.optional(reason),
    }),
    output: runViewSchema,
  },
} as const satisfies Record<string, RouteDefinition<v.GenericSchema, v.GenericSchema>>;

export const vettingApi = { ...hostApi, ...specApi, ...runApi } as const;

export const vettingStreams = {
  events: {
    ...reading,
    name: "vetting.events",
    path: "/v1/vetting/events",
    summary: "Hosts and runs as they change, and what happens in each",
    input: emptySchema,
    output: liveEventSchema,
  },
  runEvents: {
    ...reading,
    name: "vetting.run.events",
    path: "/v1/vetting/runs/:run/events",
    summary: "What happens in one run, with its log and sensors",
    input: ofRun,
    output: liveEventSchema,
  },
  logs: {
    ...reading,
    name: "vetting.run.logs",
    path: "/v1/vetting/runs/:run/logs",
    summary: "A run's log from its first line, or after an id, as it grows; ends after the run",
    input: v.strictObject({ run: runSchema, stage: v.optional(stageSchema) }),
    output: logLineSchema,
  },
} as const satisfies Record<string, StreamDefinition<v.GenericSchema, v.GenericSchema>>;
