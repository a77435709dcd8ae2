/**
 * luod is killed in the middle of an update: the next one takes everything back, all are told, and
 * another update works. Each word is a kill point, and what leads to it is a dry run or a kexec.
 */
import type { Program } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import { deathBefore, type KillPoint, killPointsBefore } from "./live-update-cases.ts";
import {
  ask,
  command,
  killed,
  loadOwn,
  luoctl,
  type Role,
  requireClients,
  requireIdle,
  requireMatch,
  startCast,
  startLuod,
  stopLuod,
  tellStory,
} from "./live-update-stage.ts";
import type { Case } from "./tell.ts";

const everybody: readonly Role[] = [
  { id: "bare", bare: true },
  { id: "plain" },
  { id: "two", parts: ["", "log"] },
];

let luod: Program = await startLuod();
// What luod does at last before the kexec, it does to these as well.
process.on("SIGTERM", () => {});
await using cast = startCast(everybody, { stubborn: true });
await cast.says(/^cast subscribed/, everybody.length);
await loadOwn();

const subscribed = async () => (await ask((client) => client.list())).length === everybody.length;

async function dieAt({ by, at }: KillPoint): Promise<string> {
  await stopLuod(luod);
  await using dying = await startLuod({ killAt: `live-update:${at}` });
  const dead = killed(dying);
  const there = waitFor("the clients to subscribe", subscribed, 60_000);
  const first = await Promise.race([dead.then(() => "dead"), there.then(() => "there")]);
  // It may be killed before they can.
  if (first === "there") {
    await luoctl("kexec", ...(by === "dry-run" ? ["--dry-run", "--include-bare"] : []));
  } else there.catch(() => {});
  await dead;
  luod = await startLuod();
  return await requireAsBefore();
}

async function requireAsBefore(): Promise<string> {
  await requireClients(everybody.length);
  await requireIdle("loaded");
  const asked = cast.count(/^cast preserved/);
  await cast.says(/^cast free/, asked);
  const told = await command("kexec", "--dry-run", "--include-bare");
  await cast.says(/^cast free/, asked + everybody.length);
  await requireClients(everybody.length);
  return requireMatch(told, /3 of 3 clients ready/);
}

const chosen = Bun.argv.slice(2);
const points = killPointsBefore.filter((point) => chosen.includes(deathBefore(point)));
const cases: Record<string, Case> = Object.fromEntries(
  points.map((point) => [deathBefore(point), () => dieAt(point)]),
);
await tellStory(cases);
