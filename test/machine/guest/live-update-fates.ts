/**
 * Updates that are rolled back, one after another, and at last one that goes through: the first
 * word is "before" or "after" its kexec.
 */
import { rmSync, writeFileSync } from "node:fs";
import type { Program } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import type { fateCases } from "./live-update-cases.ts";
import {
  ask,
  type Cast,
  claim,
  command,
  enterKernel,
  killed,
  killHolder,
  loadOwn,
  luoctl,
  type Role,
  refused,
  requireClients,
  requireIdle,
  requireLines,
  requireMatch,
  startCast,
  startLuod,
  stopLuod,
  tellBlackout,
  tellStory,
} from "./live-update-stage.ts";
import type { Case } from "./tell.ts";

const gate = "/run/gate";
/** What the hook /scenario/hook is to do. */
const hookOrder = "/run/hook";

/** Always ready: whatever becomes of others, these are told and go on. */
const steady: readonly Role[] = [
  { id: "steady" },
  { id: "bare", bare: true },
  { id: "two", parts: ["", "log"], files: 2 },
];
const culprit: Role = {
  id: "culprit",
  deadline_ms: 15_000,
  fates: ["die", "late", "abort", "ready", "ready", `wait:${gate}`, "ready"],
};
const rounds = 7;
const ready = new Array<string>(rounds).fill("ready");
/** The first rounds are not theirs to fail in. */
const optional: readonly Role[] = [
  { id: "option-dies", required: false, fates: [...ready, "die"] },
  { id: "option-late", required: false, fates: [...ready, "late"], deadline_ms: 3_000 },
  { id: "option-aborts", required: false, fates: [...ready, "abort"] },
  { id: "option-ready", required: false, fates: [...ready, `wait:${gate}`] },
];
const everybody = [...steady, culprit, ...optional];

let luod: Program | undefined;
let cast: Cast | undefined;
const onCast = () => {
  if (cast === undefined) throw new Error("nobody is there");
  return cast;
};
/** How many updates were taken back so far. */
let backs = 0;

/** All are told why, and what they had preserved is their own again; luod is as before. */
async function requireBack(reason: RegExp, phase: "idle" | "loaded" = "loaded"): Promise<string> {
  backs += 1;
  for (const { id } of steady) await onCast().says(new RegExp(`^cast free ${id} `), backs);
  for (const id of ["steady", "two"])
    await onCast().says(new RegExp(`^cast aborted ${id} `), backs);
  const told =
    onCast()
      .lines.filter((line) => line.startsWith("cast aborted steady"))
      .at(-1) ?? "";
  requireMatch(told, reason);
  await requireIdle(phase);
  await requireClients(everybody.length);
  return told;
}

const rolledBack = (reason: RegExp, phase?: "idle") => async () => {
  requireMatch(await refused("kexec"), reason);
  return await requireBack(reason, phase);
};

async function begin(): Promise<string> {
  await startLuod({ words: ["--kexec-hook", "/scenario/hook"] });
  // SIGTERM does not end it: before the kernel is entered, SIGKILL has to.
  cast = startCast(everybody, { stubborn: true });
  await onCast().says(/^cast subscribed/, everybody.length);
  await loadOwn();
  return await command("list");
}

/** Its process is gone in the middle of its work. */
async function crash(): Promise<string> {
  await using other = startCast([{ id: "crashes", fates: ["crash"] }]);
  await other.says(/^cast subscribed/);
  requireMatch(await refused("kexec"), /crashes is required: its connection ended/);
  return await requireBack(/crashes is required/);
}

async function abortByOperator(): Promise<string> {
  const update = luoctl("kexec");
  await waitFor("the others to be ready", async () => {
    const { update: now } = await ask((client) => client.status());
    return now !== null && now.waiting_for.join() === "culprit";
  });
  await command("abort", "--reason", "the backup runs");
  writeFileSync(gate, "");
  const { exitCode, stderr } = await update;
  rmSync(gate);
  if (exitCode !== 111) throw new Error(`exit ${exitCode}`);
  requireMatch(stderr, /the backup runs/);
  return await requireBack(/the backup runs/);
}

function withHook(order: string, reason: RegExp, phase?: "idle"): Case {
  return async () => {
    writeFileSync(hookOrder, order);
    const told = await rolledBack(reason, phase)();
    rmSync(hookOrder);
    return told;
  };
}

/** Everything goes on; who is late meanwhile is optional. */
async function loseHolder(): Promise<never> {
  const update = enterKernel();
  await waitFor("the barrier", async () => {
    const clients = await ask((client) => client.list());
    return clients.filter(({ state }) => state === "ready").length === everybody.length - 4;
  });
  const told = await killHolder();
  writeFileSync(gate, "");
  console.log(`HOSTLER-NOTE the holder was ${told}`);
  return await update;
}

const before: Record<(typeof fateCases)["before"][number], Case> = {
  "clients subscribe, a kernel is loaded": begin,
  "a required client's connection ends": rolledBack(/culprit is required: its connection ended/),
  "a required client is late": rolledBack(/culprit is required: it was not ready within 15\.00 s/),
  "a required client aborts": rolledBack(/culprit is required: it aborts: its disk is full/),
  "a required client is killed": crash,
  "a hook fails": withHook("exit 3", /the hook .* failed \(exit 3\)/),
  "the operator aborts": abortByOperator,
  // Somebody has taken the loaded kernel out again.
  "the kernel refuses": withHook("guest-bun /scenario/unload.js", /the kernel refused/, "idle"),
  "a kernel is loaded again": async () => {
    await loadOwn();
    return await command("status");
  },
};

async function claimKept(): Promise<string> {
  const kept = [...steady, { id: "culprit" }, { id: "option-ready" }];
  const lines = await claim(kept);
  const found = lines.filter((line) => line.startsWith("cast found"));
  if (found.length !== 8) throw new Error(lines.join("\n"));
  return found.join("; ");
}

async function claimLeftOut(): Promise<string> {
  const lost = ["option-dies", "option-late", "option-aborts"];
  const lines = await claim(lost.map((id) => ({ id })));
  const patterns = lost.map((id) => new RegExp(`^cast refused ${id} .*"kind": "unknown"`));
  return requireLines(lines, [...patterns, /^cast over 3$/]);
}

let dying: Program | undefined;
const release = "live-update:release-registry";

/** It will die when the last session is settled. */
async function keepBare(): Promise<string> {
  if (luod !== undefined) await stopLuod(luod);
  dying = await startLuod({ killAt: `${release}:before` });
  await dying.said(/listening at/, 60_000);
  const told = await command("sessions");
  return requireMatch(told, /bare +bare +incoming +claimed/);
}

/** The registry is let go of with the last session; another luod tries it again. */
async function releaseAndDie(): Promise<string> {
  await luoctl("finish", "bare");
  if (dying !== undefined) await killed(dying);
  await killed(await startLuod({ killAt: `${release}:after` }));
  await startLuod();
  await requireIdle("idle");
  return await command("status");
}

const after: Record<(typeof fateCases)["after"][number], Case> = {
  "luod finds what came over": async () => {
    luod = await startLuod();
    return await command("sessions");
  },
  "who was ready finds everything": claimKept,
  "an optional client that failed has nothing to claim": claimLeftOut,
  "the blackout is told": tellBlackout,
  "a bare client's session is kept for the next luod": keepBare,
  "luod dies before and after it lets the registry go": releaseAndDie,
};

if (Bun.argv[2] === "before") await tellStory(before, loseHolder);
else await tellStory(after);
