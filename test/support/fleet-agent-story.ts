/**
 * An agent for tests, canonical or candidate: the real driver, links, journal and
 * executor, with files in the place of a store, whose clock runs faster. It is run by the compiled
 * file as its own Bun. Its roles are itself alone; or, with HOSTLER_STORY_ROLES=host, those of its
 * host, and then its candidates are there by name alone.
 */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { killPoint } from "../../ffi/fault-hooks.ts";
import { bootClockNow } from "../../src/event-loop/clock.ts";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import type { Executor } from "../../src/fleet/executor.ts";
import { chooseExecutor } from "../../src/fleet/perform/choose-executor.ts";
import {
  hostCandidates,
  hostInstallation,
  hostVersions,
} from "../../src/fleet/perform/host-parts.ts";
import { hostRoles } from "../../src/fleet/perform/role-hands.ts";
import { type Build, type DeviceStatus, markerSchema } from "../../src/fleet/protocol.ts";
import {
  type AgentCandidates,
  type AgentRoles,
  UpgradeAgent,
} from "../../src/fleet/upgrade-agent.ts";
import { ServiceNotifier } from "../../src/messaging/service-notify.ts";

/** How much faster its time goes: thirty seconds are six. */
const SPEED = 5;
const BEAT_EVERY = 200;

const [folder = "", store = "", version = "", candidate] = process.argv.slice(2);
const hasHostRoles = process.env["HOSTLER_STORY_ROLES"] === "host";
const notifier = new ServiceNotifier();
const now = () => Math.floor(bootClockNow() * SPEED);

function put(name: string, value: unknown): void {
  writeFileSync(join(store, `${name}.new`), JSON.stringify(value));
  renameSync(join(store, `${name}.new`), join(store, name));
}

function get(name: string): unknown {
  const path = join(store, name);
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
}

const loop = new EventLoop(() => {
  throw new Error("This kernel cannot wait for a descriptor by itself");
});

function every(time: number, act: () => void): void {
  act();
  loop.wakeAfter(time, () => every(time, act));
}

if (candidate === undefined) runCanonical();
else {
  let beats = 0;
  every(BEAT_EVERY, () => {
    beats += 1;
    put("candidate.json", { instance: candidate, version, beats });
  });
  notifier.tell("READY=1");
}

function candidates(executor: Executor): AgentCandidates {
  return hostCandidates(folder, {
    executor,
    plan: (_marker, instance) => ({
      words: ["fleet", "agent", "--candidate", instance],
      environment: {},
      readyWithin: 10_000,
    }),
  });
}

/** Each is ready and heard, and nothing runs. */
function namedCandidates(executor: Executor): AgentCandidates {
  return {
    ...candidates(executor),
    start: async ({ instance }) => {
      put("candidate.json", { instance, version: "a name", beats: 1 });
      return "ready";
    },
    isThere: async () => true,
    ended: () => new Promise(() => {}),
    stop: async () => null,
  };
}

function ownRole({ digest }: Build): AgentRoles {
  return {
    handOver: (_build, onLook) => {
      killPoint("fleet:hand-over:before");
      const looks = { isOver: false };
      const role = { role: "fleet agent", digest, healthy: true, reason: null };
      const look = () => {
        if (looks.isOver) return;
        onLook([role]);
        loop.wakeAfter(BEAT_EVERY, look);
      };
      loop.wakeAfter(BEAT_EVERY, look);
      killPoint("fleet:hand-over:after");
      return {
        [Symbol.dispose]: () => {
          looks.isOver = true;
        },
      };
    },
  };
}

function runCanonical(): void {
  const executor = chooseExecutor(loop, folder);
  const onTrouble = (message: string, cause: unknown) =>
    void process.stderr.write(`${message}: ${String(cause)}\n`);
  const installation = hostInstallation(folder, { onTrouble });
  const self = installation.readLinks().current;
  const device = { architecture: "x64", libc: "glibc", executor: executor.kind } as const;
  const roles = hasHostRoles ? hostRoles(loop, { self, folder, executor, onTrouble }) : undefined;
  const tell = (status: DeviceStatus) => put("status.json", { ...status, version: self.version });
  const agent = UpgradeAgent.open({
    ...{ device, self, installation, now, onTrouble },
    boot: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    versions: hostVersions(folder, {
      executor,
      artifacts: {
        check: async () => ({ floor: null, metadataVersion: 1 }),
        // The versions of the test are there already, and are kept: there are two.
        fetch: async () => {},
        fetchAgain: async () => {
          throw new Error("no source has it");
        },
      },
    }),
    candidates: hasHostRoles ? namedCandidates(executor) : candidates(executor),
    roles: roles ?? ownRole(self),
    wakeAfter: (wait, call) => loop.wakeAfter(wait / SPEED, call),
    nextInstance: () => randomBytes(16).toString("hex"),
    onStatus: tell,
  });
  tell(agent.status);
  notifier.tell("READY=1");
  let [marker, beats] = ["", 0];
  every(BEAT_EVERY / 4, () => {
    const text = JSON.stringify(get("marker.json"));
    if (text === undefined || text === marker) return;
    marker = text;
    agent.tell({ kind: "marker", marker: v.parse(markerSchema, JSON.parse(text)) });
  });
  every(BEAT_EVERY, () => {
    notifier.tell("WATCHDOG=1");
    if (roles !== undefined) put("heartbeat.json", roles.health);
    agent.tell({ kind: "heard", who: "canonical" });
    const beat = get("candidate.json") as { instance: string; beats: number } | undefined;
    if (beat === undefined || (beat.beats === beats && !hasHostRoles)) return;
    beats = beat.beats;
    agent.tell({ kind: "heard", who: "candidate", instance: beat.instance });
  });
}
