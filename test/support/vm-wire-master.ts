/**
 * A master that says what a test tells it, on the real wire: an authority with real sessions, whose
 * two routes for workers answer by what came on a Unix socket. Run as a program, so that it is in
 * the namespaces of its worker: bun FILE LISTEN STATE-DIRECTORY CONTROL-SOCKET SOCKET.
 */
import * as v from "valibot";
import { runAuthority } from "../../src/authority/daemon.ts";
import { usualBuckets } from "../../src/authority/options.ts";
import { readRetention } from "../../src/authority/retention.ts";
import { defineRoute } from "../../src/http/route.ts";
import { MASTER_PROTOCOL_VERSION, masterApi, masterLimits } from "../../src/vm/protocol-master.ts";
import type { WireMasterState } from "./vm-mastered-host.ts";

const [listen = "", stateDirectory = "", controlSocket = "", socketPath = ""] =
  process.argv.slice(2);

let state: WireMasterState = {
  assignment: null,
  stale: [],
  unknown: [],
  lease_ms: masterLimits.leaseTime,
  raw: null,
  mute: false,
  waits: null,
};
const waiting = new Set<() => void>();
const watchers = new Set<{ write(text: string): unknown }>();
const tell = (line: unknown) => {
  for (const watcher of watchers) watcher.write(`${JSON.stringify(line)}\n`);
};

/** Until the test says something else, or the time is over. */
function change(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  waiting.add(resolve);
  signal.addEventListener("abort", () => resolve());
  return promise.finally(() => waiting.delete(resolve));
}

const placeOf = ({ assignment }: WireMasterState) =>
  assignment ?? { incarnation: "0".repeat(32), generation: 0, revision: 0 };

const routes = [
  defineRoute({
    ...masterApi.assignment,
    output: v.unknown(),
    async run(call, asked) {
      tell({ asked: asked.last_seen });
      const limit = AbortSignal.any([call.signal, AbortSignal.timeout(asked.wait_ms)]);
      for (;;) {
        if (state.raw !== null) return rawOf(state.raw);
        const { incarnation, generation, revision } = placeOf(state);
        const seen = asked.last_seen;
        const isKnown =
          seen?.incarnation === incarnation &&
          seen.generation === generation &&
          seen.revision === revision;
        if (state.assignment !== null && !isKnown && !state.mute) {
          return { kind: "assignment", version: MASTER_PROTOCOL_VERSION, ...state.assignment };
        }
        if (limit.aborted) return { kind: "unchanged", version: MASTER_PROTOCOL_VERSION };
        await change(limit);
      }
    },
  }),
  defineRoute({
    ...masterApi.report,
    output: v.unknown(),
    async run(call, report) {
      tell({ report });
      while (state.mute && !call.signal.aborted) await change(call.signal);
      const { incarnation, generation, revision } = placeOf(state);
      if (state.waits !== null) {
        return { kind: "heard", version: MASTER_PROTOCOL_VERSION, reason: state.waits };
      }
      return {
        kind: "answered",
        version: MASTER_PROTOCOL_VERSION,
        stale: state.stale,
        unknown: state.unknown,
        assignment: { incarnation, generation, revision },
        lease_ms: state.lease_ms,
      };
    },
  }),
];

/** What is no answer; "huge" is more than a client takes. */
function rawOf(raw: unknown): unknown {
  return raw === "huge" ? { kind: "x".repeat(20 * 1024 * 1024) } : raw;
}

Bun.listen({
  unix: socketPath,
  socket: {
    open: (socket) => {
      watchers.add(socket);
    },
    close: (socket) => {
      watchers.delete(socket);
    },
    data(socket, bytes) {
      // The test writes one short line and waits for its answer.
      state = { ...state, ...(JSON.parse(bytes.toString()) as Partial<WireMasterState>) };
      for (const wake of [...waiting]) wake();
      socket.write(`${JSON.stringify({ done: true })}\n`);
    },
  },
});

const [hostname = "", port = ""] = listen.split(":");
const retention = readRetention(usualBuckets, []);
if (!("retention" in retention)) throw new Error("The usual bounds are refused");
process.exitCode = await runAuthority(
  {
    listen: [{ hostname, port: Number(port) }],
    address: undefined,
    stateDirectory,
    controlSocket,
    commandUsers: [0],
    retention: retention.retention,
  },
  {
    open: async () => ({
      routes,
      requestBytes: masterLimits.reportBytes,
      measure: () => undefined,
      stop: async () => undefined,
    }),
  },
);
