/** `run` and `hold`: what knows nothing of live update, over a kexec ("before" and "after" it). */
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import type { Program } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import type { carriedCases } from "./live-update-cases.ts";
import {
  ask,
  command,
  enterKernel,
  loadOwn,
  requireClients,
  requireIdle,
  requireMatch,
  startLasting,
  startLuod,
  tellBlackout,
  tellStory,
} from "./live-update-stage.ts";
import { type Case, requireEqual } from "./tell.ts";

const folder = "/tmp/held";
const text = "what the files have in them\n".repeat(10_000);
/** Lasts over the kexec: what the program said before it. */
const noted = "/scenario/ledger-before";
const time = 1_500_000_000;

let running: Program | undefined;
function start(): void {
  const hostler = (...words: string[]) => startLasting(["hostler", "live-update", ...words]);
  const ledger = ["--", "python3", "/scenario/ledger.py"];
  running = hostler("run", "--id", "ledger", "--ready", "notify", ...ledger);
  hostler("hold", "--id", "files", folder);
}

async function ledgerSays(kind: "new" | "old"): Promise<string> {
  await running?.said(/^ledger is up/m, 60_000);
  const lines = (running?.output.stdout ?? "").split("\n");
  const told = lines.filter((line) => line.startsWith(`ledger ${kind} `));
  requireEqual(told.length, 2);
  return told.map((line) => line.replace(`ledger ${kind} `, "")).join("\n");
}

async function begin(): Promise<string> {
  mkdirSync(`${folder}/inner`, { recursive: true });
  writeFileSync(`${folder}/inner/file`, text);
  chmodSync(`${folder}/inner/file`, 0o640);
  chownSync(`${folder}/inner/file`, 42, 43);
  utimesSync(`${folder}/inner/file`, time, time);
  await startLuod();
  start();
  const told = await ledgerSays("new");
  writeFileSync(noted, told);
  await requireClients(2);
  await loadOwn();
  return `${told}\n${await command("list")}`;
}

async function restored(): Promise<string> {
  await startLuod();
  start();
  const told = await ledgerSays("old");
  requireEqual(told, readFileSync(noted, "utf8"));
  return told;
}

async function filesRestored(): Promise<string> {
  const path = `${folder}/inner/file`;
  await requireIdle("idle");
  const { mode, uid, gid, mtimeMs } = statSync(path);
  requireEqual(readFileSync(path, "utf8") === text, true);
  return requireEqual([mode & 0o7777, uid, gid, mtimeMs], [0o640, 42, 43, time * 1000]);
}

/** Both take part again, with what they have got. */
async function again(): Promise<string> {
  await waitFor("both to subscribe", async () => (await ask((luod) => luod.list())).length === 2);
  return requireMatch(await command("kexec", "--dry-run"), /2 of 2 clients ready.*/);
}

/** Killed itself, it would leave the program to go on. */
async function end(): Promise<string> {
  running?.kill("SIGTERM");
  const ended = await running?.ended(60_000);
  return requireEqual(ended?.exitCode, 128 + 15);
}

const before: Record<(typeof carriedCases)["before"][number], Case> = {
  "run and hold take part": begin,
};
const after: Record<(typeof carriedCases)["after"][number], Case> = {
  "the program has its memory, and what it parked": restored,
  "the files have their content, mode, owner and time": filesRestored,
  "both take part in the next update": again,
  "where the time went": tellBlackout,
  "SIGTERM to run ends the program": end,
};

if (Bun.argv[2] === "before") await tellStory(before, () => enterKernel());
else await tellStory(after);
