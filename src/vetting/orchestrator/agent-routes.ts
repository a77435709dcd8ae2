import { credentialsOf } from "../../http/credentials.ts";
import type { HttpCall } from "../../http/pages.ts";
import { ProblemError } from "../../http/problem.ts";
import { type Call, defineRoute, type Route } from "../../http/route.ts";
import { hashOf } from "../../identity/secrets.ts";
import type { Milliseconds } from "../../units/units.ts";
import { VETTING_PROTOCOL_VERSION } from "../protocol.ts";
import { agentApi } from "../protocol-api.ts";
import type { LiveEvent } from "../protocol-operator.ts";
import type { VettingOrchestrator } from "./orchestrator.ts";

/** What a host that is being vetted calls, about its own run alone. */
export function agentRoutes(
  orchestrator: VettingOrchestrator,
  now: () => Milliseconds,
): readonly Route[] {
  return [
    ...arrivalRoutes(orchestrator),
    ...stageRoutes(orchestrator),
    ...tellingRoutes(orchestrator, now),
  ];
}

function arrivalRoutes(orchestrator: VettingOrchestrator): readonly Route[] {
  return [
    defineRoute({
      ...agentApi.hello,
      run(call, { run, protocol }) {
        checkRun(call, run);
        checkProtocol(protocol);
        return {};
      },
    }),
    defineRoute({
      ...agentApi.claim,
      async run(call, body) {
        const { run, protocol, boot_id: bootId, ...rest } = body;
        const held = checkRun(call, run);
        checkProtocol(protocol);
        const fresh = orchestrator.newSession(run);
        // Who has a session keeps it: an answer that is lost costs nothing then.
        const session = held ?? hashOf(fresh.secret);
        const token = held === null ? fresh.token : bearerOf(call);
        const facts = { by: held === null ? "token" : "session", session, bootId } as const;
        const { instance, mac, macs, address, version, identity, evidence } = rest;
        const claimed = { instance, mac, macs, address, version, identity, evidence };
        await orchestrator.post(run, { kind: "claim", ...facts, ...claimed });
        const entry = orchestrator.entry(run);
        call.changed({ object: `run ${run}`, after: { state: entry.run.state, identity, macs } });
        return orchestrator.claimAnswer(entry, token);
      },
    }),
  ];
}

function stageRoutes(orchestrator: VettingOrchestrator): readonly Route[] {
  return [
    defineRoute({
      ...agentApi.attempt,
      async run(call, { run, attempt, instance, stage }) {
        checkSession(call, run);
        const asked = { kind: "attempt", attempt, instance, stage } as const;
        const { answer, run: after } = await orchestrator.post(run, asked);
        if (answer.kind === "start") {
          return { decision: "start" as const, number: answer.number, wipe: [...answer.wipe] };
        }
        return { decision: "go" as const, next_state: after.state };
      },
    }),
    defineRoute({
      ...agentApi.result,
      async run(call, { run, result, attempt, stage, cancelled, duration_ms, report }) {
        checkSession(call, run);
        const { answer, run: after } = await orchestrator.post(run, {
          ...{ kind: "result", result, attempt, stage, cancelled },
          ...{ duration: duration_ms, report },
        });
        return { next_state: answer.kind === "state" ? answer.state : after.state };
      },
    }),
    defineRoute({
      ...agentApi.heartbeat,
      async run(call, { run, instance, boot_id: bootId, activity, acknowledged, dropped }) {
        checkSession(call, run);
        const told = { kind: "heartbeat", instance, bootId, acknowledged } as const;
        const { run: after } = await orchestrator.post(run, told);
        orchestrator.setPresence(run, { activity, dropped });
        return { state: after.state, directives: orchestrator.directivesOf(after) };
      },
    }),
    defineRoute({
      ...agentApi.hold,
      async run(call, { run, instance, address, host_key: hostKey }) {
        checkSession(call, run);
        const asked = { kind: "hold-asked", instance, address, hostKey } as const;
        const { answer } = await orchestrator.post(run, asked);
        if (answer.kind !== "key") return { authorized_key: null, expires_in_ms: null };
        return { authorized_key: answer.line, expires_in_ms: answer.lasts };
      },
    }),
  ];
}

function tellingRoutes(orchestrator: VettingOrchestrator, now: () => Milliseconds): Route[] {
  const { records } = orchestrator;
  const spoke = (run: number) => orchestrator.post(run, { kind: "spoke" });
  return [
    defineRoute({
      ...agentApi.log,
      async run(call, { run, instance, lines }) {
        checkSession(call, run);
        await spoke(run);
        const told = { taken: now(), lines };
        const event: LiveEvent = { kind: "log", run, lines };
        await orchestrator.write(
          () => records.addLines(run, instance, told),
          () => [event],
        );
        return {};
      },
    }),
    defineRoute({
      ...agentApi.sensors,
      async run(call, { run, instance, readings }) {
        checkSession(call, run);
        await spoke(run);
        const at = Math.round(now());
        const kept = readings.map(({ sequence, sensors, errors }) => ({
          sequence,
          reading: {
            at,
            errors,
            sensors: sensors.map(
              ({ kind, key, value, critical }) => [kind, key, value, critical] as const,
            ),
          },
        }));
        await orchestrator.write(
          () => records.addReadings(run, instance, kept),
          () => kept.map(({ reading }) => sensorEvent(run, reading)),
        );
        return {};
      },
    }),
  ];
}

function sensorEvent(
  run: number,
  reading: {
    readonly at: Milliseconds;
    readonly errors: Readonly<Record<string, number>>;
    readonly sensors: readonly (readonly [string, string, number, number | null])[];
  },
): LiveEvent {
  const { at, errors, sensors } = reading;
  const values = sensors.map(
    ([kind, key, value]) => [kind, key, value] as [string, string, number],
  );
  return { kind: "sensors", run, at, sensors: values, errors };
}

/**
 * @returns the hash of the caller's session; null: it has the token of its boot alone
 * @throws ProblemError forbidden, for another run
 */
function checkRun({ principal }: Call, run: number): string | null {
  if (principal.kind !== "run") throw new Error("Bug: the dispatcher lets runs in alone");
  if (principal.run === run) return principal.session;
  throw new ProblemError("forbidden", `This token is of another run than ${run}`, {
    expected: `the token of run ${run}`,
    received: `that of run ${principal.run}`,
    hint: "A host speaks of its own run alone",
  });
}

/** @throws ProblemError forbidden, for another run, and for who has not claimed */
function checkSession(call: Call, run: number): void {
  if (checkRun(call, run) !== null) return;
  throw new ProblemError("forbidden", "The token of a boot is good for a claim alone", {
    expected: "the session that the claim gave",
    received: "the token of a boot",
    hint: "Claim the run first",
  });
}

function checkProtocol(protocol: number): void {
  if (protocol === VETTING_PROTOCOL_VERSION) return;
  throw new ProblemError("request", "This agent speaks another protocol", {
    expected: `protocol ${VETTING_PROTOCOL_VERSION}`,
    received: `protocol ${protocol}`,
    hint: "Make the live image of the same hostler as its orchestrator's",
  });
}

function bearerOf(call: Call): string {
  const credentials = credentialsOf((call as HttpCall).requestHeaders);
  if (credentials.kind === "none") throw new Error("Bug: a run came without a token");
  return credentials.token;
}
