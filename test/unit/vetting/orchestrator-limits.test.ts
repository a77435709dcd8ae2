/** What an orchestrator may be asked at once. */
import { expect, test } from "bun:test";
import * as v from "valibot";
import { monotonicNow } from "../../../src/event-loop/clock.ts";
import { Dispatcher } from "../../../src/http/dispatch.ts";
import { defaultHttpLimits } from "../../../src/http/limits.ts";
import { MetricsRegistry } from "../../../src/http/metrics.ts";
import { RequestHandler } from "../../../src/http/request-handler.ts";
import { defineRoute } from "../../../src/http/route.ts";
import { orchestratorHttpLimits } from "../../../src/vetting/orchestrator/daemon.ts";
import { vettingLimits } from "../../../src/vetting/protocol.ts";

/** Answers a commit that takes its time, to so many at once. @returns how many had which status */
async function statusesOf(calls: number): Promise<Record<string, number>> {
  const commit = Promise.withResolvers<void>();
  const route = defineRoute({
    ...{ name: "test.slow", method: "GET", path: "/v1/slow", summary: "Waits for a commit" },
    ...{ permission: "anyone", mutates: false, input: v.object({}), output: v.object({}) },
    run: async () => {
      await commit.promise;
      return {};
    },
  });
  const clock = { now: monotonicNow, wakeAfter: () => ({ [Symbol.dispose]() {} }) };
  const onBug = (message: string) => {
    throw new Error(message);
  };
  const handler = new RequestHandler({
    places: [{ ...route, kind: "route", route }],
    dispatcher: new Dispatcher({ onRecord: () => {}, onBug, clock }),
    authenticate: () => ({ principal: { kind: "anonymous" } }),
    limits: { ...defaultHttpLimits, ...orchestratorHttpLimits },
    ...{ metrics: new MetricsRegistry(), clock, stopping: new AbortController().signal, onBug },
  });
  const answers = Array.from({ length: calls }, (_, call) =>
    handler.handle({
      request: new Request("https://vetting.example/v1/slow"),
      origin: { address: "192.0.2.1", from: `192.0.2.1:${call}` },
      upgrade: () => false,
    }),
  );
  // Who is refused is answered before the commit.
  commit.resolve();
  const statuses = (await Promise.all(answers)).map((answer) => String(answer?.status));
  return Object.fromEntries(
    [...Map.groupBy(statuses, (status) => status)].map(([status, all]) => [status, all.length]),
  );
}

test("a thousand agents may each have a heartbeat and lines under way", async () => {
  expect(await statusesOf(2_000)).toEqual({ "200": 2_000 });
});

test("beyond one call for each run that there may be, more are told to come again", async () => {
  const most = vettingLimits.runsUnderWay;
  expect(await statusesOf(most + 3)).toEqual({ "200": most, "503": 3 });
});
