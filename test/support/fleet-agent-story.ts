/**
 * An agent for tests, canonical or candidate: the real lifecycle, performer, links, journal and
 * executor, with files in the place of a store, whose clock runs faster. It is run by the compiled
 * file as its own Bun; its roles are itself alone.
 */
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { bootClockNow } from "../../src/event-loop/clock.ts";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { linked } from "../../src/fleet/layout.ts";
import { deadlineOf, step } from "../../src/fleet/lifecycle.ts";
import { decodeJournal } from "../../src/fleet/lifecycle-journal.ts";
import { recover } from "../../src/fleet/lifecycle-recovery.ts";
import type { AgentEvent, AgentState, Context } from "../../src/fleet/lifecycle-state.ts";
import { statusOf } from "../../src/fleet/lifecycle-status.ts";
import { chooseExecutor } from "../../src/fleet/perform/choose-executor.ts";
import { readLayout, readVerified } from "../../src/fleet/perform/layout-files.ts";
import { HostPerformer } from "../../src/fleet/perform/performer.ts";
import { type Build, markerSchema } from "../../src/fleet/protocol.ts";
import { ServiceNotifier } from "../../src/messaging/service-notify.ts";

/** How much faster its time goes: thirty seconds are six. */
const SPEED = 5;
const BEAT_EVERY = 200;

const [folder = "", store = "", version = "", candidate] = process.argv.slice(2);
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

function buildOf(link: "current" | "previous"): Build | null {
  const name = linked(readLayout(folder), link);
  const verified = name === undefined ? undefined : readVerified(folder, name);
  return verified === undefined ? null : { version: verified.version, digest: verified.digest };
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

function runCanonical(): void {
  const executor = chooseExecutor(loop, folder);
  const context: Context = {
    get now() {
      return now();
    },
    executor: executor.kind,
    get nextInstance() {
      return randomBytes(16).toString("hex");
    },
  };
  const [current, previous] = [buildOf("current"), buildOf("previous")];
  if (current === null) throw new Error("current leads nowhere");
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const path = join(folder, "journal.json");
  const recovered = recover(
    {
      ...{ links: { current, previous }, self: current, boot },
      journal: existsSync(path) ? decodeJournal(readFileSync(path, "utf8")) : { kind: "absent" },
    },
    context,
  );
  if (recovered.kind === "refused") throw new Error(recovered.reason);
  let state: AgentState = recovered.state;
  let deadline: Disposable | undefined;
  let handedOver: Build | undefined;

  const performer = new HostPerformer({
    ...{ folder, executor },
    artifacts: {
      check: async () => ({ floor: null, metadataVersion: 1 }),
      // The versions of the test are there already, and are kept: there are two.
      fetch: async () => {},
      fetchAgain: async () => {
        throw new Error("no source has it");
      },
    },
    candidate: (_marker, instance) => ({
      words: ["fleet", "agent", "--candidate", instance],
      environment: {},
      readyWithin: 10_000,
    }),
    handOver: (build) => {
      handedOver = build;
    },
    onEvent: tell,
    onTrouble: (message) => process.stderr.write(`${message}\n`),
  });

  function tell(event: AgentEvent): void {
    const outcome = step(state, event, context);
    state = outcome.state;
    performer.perform(outcome.effects);
    after();
  }

  function after(): void {
    const device = { architecture: "x64", libc: "glibc", executor: executor.kind } as const;
    put("status.json", { ...statusOf(state, device), version });
    deadline?.[Symbol.dispose]();
    const at = deadlineOf(state);
    if (at === undefined) return;
    deadline = loop.wakeAfter(Math.max(1, (at - now()) / SPEED), () => tell({ kind: "time" }));
  }

  performer.perform(recovered.effects);
  after();
  notifier.tell("READY=1");
  let [marker, beats] = ["", 0];
  every(BEAT_EVERY / 4, () => {
    const text = JSON.stringify(get("marker.json"));
    if (text === undefined || text === marker) return;
    marker = text;
    tell({ kind: "marker", marker: v.parse(markerSchema, JSON.parse(text)) });
  });
  every(BEAT_EVERY, () => {
    notifier.tell("WATCHDOG=1");
    put("canonical.json", { version });
    tell({ kind: "heard", who: "canonical" });
    const beat = get("candidate.json") as { instance: string; beats: number } | undefined;
    if (beat !== undefined && beat.beats !== beats) {
      beats = beat.beats;
      tell({ kind: "heard", who: "candidate", instance: beat.instance });
    }
    if (handedOver === undefined) return;
    const { digest } = current as Build;
    tell({ kind: "roles", roles: [{ role: "fleet agent", digest, healthy: true, reason: null }] });
  });
}
