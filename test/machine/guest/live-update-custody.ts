/**
 * What came over a kexec, while whoever keeps it is killed at every point: the first word is
 * "before" or "after" it.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Program } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import { type custodyCases, killPointsAfter } from "./live-update-cases.ts";
import {
  ask,
  claim,
  command,
  enterKernel,
  holders,
  killed,
  killHolder,
  loadOwn,
  type Role,
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

/** The client whose claim meets this point. */
const idOf = (point: string) => point.replaceAll(/[:#]/g, "-");
const others = ["nobody", "held", "crashes", "unhurt", "bare", "policy"];

const everybody: readonly Role[] = [
  ...killPointsAfter.map((point) => ({ id: idOf(point), parts: ["", "log"], kib: 16 })),
  ...others.map((id) => ({ id, bare: id === "bare", kib: 16 })),
];

let luod: Program | undefined;
async function withLuod(...words: string[]): Promise<void> {
  if (luod !== undefined) await stopLuod(luod);
  luod = await startLuod({ words });
}

async function begin(): Promise<string> {
  await withLuod();
  await startCast(everybody).says(/^cast subscribed/, everybody.length);
  return await loadOwn();
}

function requireFound(lines: readonly string[], count: number): string {
  const found = lines.filter((line) => line.startsWith("cast found"));
  const bad = lines.find((line) => /^cast (spoilt|refused)/.test(line));
  if (found.length !== count || bad !== undefined) throw new Error(lines.join("\n"));
  return lines.join("; ");
}

/** luod dies at the point, while a client claims; the next luod gives all of it. */
async function dieAt(point: (typeof killPointsAfter)[number]): Promise<string> {
  if (luod !== undefined) await stopLuod(luod);
  await using dying = await startLuod({ killAt: point });
  await using client = startCast([{ id: idOf(point), parts: ["", "log"], kib: 16, does: "claim" }]);
  await killed(dying);
  luod = await startLuod();
  return requireFound(await client.ended(), 2);
}

/** The first finds nothing amiss; it dies with what it has, and another goes on. */
async function crashAndClaim(): Promise<string> {
  const lines = await claim([{ id: "crashes", kib: 16, ending: "crash" }]);
  requireMatch(lines.join("\n"), /cast crashed crashes/);
  return requireFound(lines, 2);
}

function holdsSession(processId: number): boolean {
  const folder = `/proc/${processId}/fd`;
  return readdirSync(folder).some(
    (number) => readlinkSync(`${folder}/${number}`) === "anon_inode:[luo_session] held",
  );
}

async function loseHolder(): Promise<string> {
  await using client = startCast([{ id: "held", kib: 16, does: "claim", ending: "hold" }]);
  await client.says(/^cast holds held/);
  const told = await killHolder();
  await waitFor("the next holder to have it", () => holders().some(holdsSession));
  client.program.kill("SIGKILL");
  // The next holder has to keep it: luod's own is gone with it.
  luod?.kill("SIGKILL");
  if (luod !== undefined) await killed(luod);
  luod = await startLuod();
  return `${told}; ${requireFound(await claim([{ id: "held", kib: 16 }]), 1)}`;
}

/** What nobody has retrieved is the kernel's, and needs neither of them. */
async function loseBoth(): Promise<string> {
  const [holder = 0] = holders();
  luod?.kill("SIGSTOP");
  process.kill(holder, "SIGKILL");
  luod?.kill("SIGKILL");
  if (luod !== undefined) await killed(luod);
  luod = await startLuod();
  return requireFound(await claim([{ id: "unhurt", kib: 16 }]), 1);
}

async function claimBare(): Promise<string> {
  const told = requireFound(await claim([{ id: "bare", kib: 16, bare: true }]), 1);
  const sessions = await ask((client) => client.sessions());
  requireMatch(JSON.stringify(sessions), /"name":"bare".*?"state":"claimed"/);
  await command("finish", "bare");
  return told;
}

async function keepForever(): Promise<string> {
  await withLuod("--unclaimed", "keep");
  const told = await command("sessions");
  requireMatch(told, /nobody +nobody +incoming +unclaimed +0 +never/);
  requireMatch(await command("status"), /unclaimed +keep/);
  return told;
}

/** A following luod is told another policy, whose time began when the sessions were offered. */
async function finishAfter(): Promise<string> {
  const [uptime = "0"] = readFileSync("/proc/uptime", "latin1").split(" ");
  await withLuod("--unclaimed", `${Math.ceil(Number(uptime)) + 8}s`);
  requireMatch(await command("sessions"), /policy +policy +incoming +unclaimed +0 +in /);
  const isSettled = async () => (await ask((client) => client.sessions())).length === 0;
  await waitFor("the policy's time", isSettled, 180_000);
  const lines = await claim([{ id: "policy", kib: 16 }]);
  return requireLines(lines, [/^cast refused policy .*"kind": "unknown"/, /^cast over 1$/]);
}

const before: Record<(typeof custodyCases)["before"][number], Case> = {
  "clients subscribe, a kernel is loaded": begin,
};

type Death = `luod dies at ${(typeof killPointsAfter)[number]}`;
const deaths = Object.fromEntries(
  killPointsAfter.map((point) => [`luod dies at ${point}`, () => dieAt(point)]),
) as Record<Death, Case>;

const after: Record<(typeof custodyCases)["after"][number], Case> = {
  ...deaths,
  "the holder dies, then luod, and a claimed session is claimed again": loseHolder,
  "holder and luod die at once: what nobody claimed is there": loseBoth,
  "a client dies after its claim, and claims again": crashAndClaim,
  "a bare client's session is kept until the operator finishes it": claimBare,
  "nobody claims: kept": keepForever,
  "nobody claims: finished after a time": finishAfter,
  "the blackout is told": tellBlackout,
  "all is settled": async () => {
    await withLuod();
    await requireIdle("idle");
    return await command("status");
  },
};

if (Bun.argv[2] === "before") await tellStory(before, () => enterKernel());
else await tellStory(after);
