/** What luod refuses, and what it says then; and dry runs, with real preservation. */
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { createSession } from "../../../ffi/live-update.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { runProgram } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import type { refusalCases } from "./live-update-cases.ts";
import {
  ask,
  command,
  loadOwn,
  luoctl,
  type Role,
  refused,
  requireClients,
  requireIdle,
  requireMatch,
  startCast,
  startLuod,
  tellStory,
} from "./live-update-stage.ts";
import type { Case } from "./tell.ts";

await startLuod();

async function secondLuod(): Promise<string> {
  const { exitCode, stderr } = await runProgram(["luod"], { deadlineMilliseconds: 60_000 });
  if (exitCode !== 111) throw new Error(`exit ${exitCode}`);
  return requireMatch(stderr, /Another luod has the state directory.*/);
}

function loadOf(bytes: Uint8Array | string, check: RegExp): Case {
  return async () => {
    writeFileSync("/tmp/kernel", bytes);
    return requireMatch(await refused("load", "/tmp/kernel", "--reuse-cmdline"), check);
  };
}

async function loadWithout(): Promise<string> {
  const words = ["load", "/boot/vmlinuz", "--cmdline", "console=ttyS0 kho=on"];
  requireMatch(await refused(...words), /not loaded: liveupdate_on\. --force loads it/);
  await requireIdle("idle");
  await command(...words, "--force");
  await requireIdle("loaded");
  await command("unload");
  await requireIdle("idle");
  return "refused, then forced";
}

/** One is there, the other is told why not. */
async function twins(): Promise<string> {
  await using cast = startCast([{ id: "twin" }]);
  await cast.says(/^cast subscribed/);
  await using other = startCast([{ id: "twin" }]);
  await other.says(/^cast unsubscribed twin .*"kind": "taken"/);
  await using bare = startCast([{ id: "twin", bare: true }]);
  await bare.says(/^cast refused twin .*"kind": "taken"/);
  await bare.ended();
  await requireClients(1);
  return (await other.ended()).join("; ");
}

async function lengths(): Promise<string> {
  await using long = startCast([{ id: "n".repeat(63) }]);
  await long.says(/^cast subscribed/);
  for (const size of [64, 200]) {
    await using cast = startCast([{ id: "n".repeat(size) }]);
    await cast.says(
      new RegExp(`^cast unsubscribed .*expected 1 to 63 bytes instead of ${size} bytes in id`),
    );
  }
  return requireMatch(await command("kexec", "--dry-run"), /1 of 1 client ready/);
}

/** Another program has a session of that name. */
async function takenName(): Promise<string> {
  const session = createSession("taken");
  if (!(session instanceof OwnedDescriptor)) throw new Error(`error ${-session}`);
  using _other = session;
  await using cast = startCast([{ id: "taken" }, { id: "witness" }]);
  await cast.says(/^cast subscribed/, 2);
  const told = await refused("kexec", "--dry-run");
  requireMatch(told, /taken is required: its session taken cannot be made: .*\(EEXIST\)/);
  await requireIdle("idle");
  await using optional = startCast([{ id: "taken2", required: false }]);
  const second = createSession("taken2");
  if (!(second instanceof OwnedDescriptor)) throw new Error(`error ${-second}`);
  using _second = second;
  await optional.says(/^cast subscribed/);
  session.close();
  const went = await command("kexec", "--dry-run");
  requireMatch(went, /taken2 +left-out.*EEXIST/);
  return requireMatch(went, /2 of 3 clients ready/);
}

/** Waits for whoever has the device, and goes on. */
async function deviceHeld(): Promise<string> {
  await using cast = startCast([{ id: "waits" }]);
  await cast.says(/^cast subscribed/);
  const device = openSync("/dev/liveupdate", "r+");
  const run = luoctl("kexec", "--dry-run");
  await waitFor("the update to wait", async () => {
    const [client] = await ask((luod) => luod.list());
    return client?.state === "creating";
  });
  const begin = performance.now();
  await waitFor("a second", () => performance.now() - begin >= 1_000);
  closeSync(device);
  const { exitCode, stdout, stderr } = await run;
  if (exitCode !== 0) throw new Error(`exit ${exitCode}: ${stderr}`);
  return requireMatch(stdout, /1 of 1 client ready after .*/);
}

async function deviceTaken(): Promise<string> {
  await using cast = startCast([{ id: "waits" }]);
  await cast.says(/^cast subscribed/);
  const device = openSync("/dev/liveupdate", "r+");
  const told = await refused("kexec", "--dry-run");
  closeSync(device);
  await requireIdle("idle");
  requireMatch(await command("kexec", "--dry-run"), /1 of 1 client ready/);
  return requireMatch(told, /waits cannot be made: .*EBUSY\)/);
}

const savers: readonly Role[] = [
  { id: "database", kib: 4096, files: 2 },
  { id: "machine", parts: ["", "disk"], kib: 1024 },
  { id: "bare", bare: true },
];

/** Time and bytes of each; then all of it is their own again. */
async function dryRun(): Promise<string> {
  await using cast = startCast(savers);
  await cast.says(/^cast subscribed/, 3);
  const told = await command("kexec", "--dry-run");
  requireMatch(told, /database +ready +\S+ m?s +8 MiB/);
  requireMatch(told, /machine +ready +\S+ m?s +2 MiB/);
  requireMatch(told, /left out: bare, bare: needs --include-bare/);
  requireMatch(told, /2 of 2 clients ready after/);
  await cast.says(/^cast free/, 2);
  requireMatch(await command("kexec", "--dry-run", "--include-bare"), /3 of 3 clients ready after/);
  await cast.says(/^cast free/, 5);
  await cast.says(/^cast subscribed bare/, 2);
  await requireIdle("idle");
  return told;
}

const cases: Record<(typeof refusalCases)[number], Case> = {
  "a second luod": secondLuod,
  "kexec without a loaded kernel": async () =>
    requireMatch(await refused("kexec"), /No kernel is loaded.*/),
  "load of a text file": loadOf("no kernel\n".repeat(1000), /format .*/),
  "load of a bzImage that is cut off": loadOf(
    readFileSync("/boot/vmlinuz").subarray(0, 2 ** 20),
    /complete .*/,
  ),
  "load without liveupdate=on, and in spite of it": loadWithout,
  "two clients with one id": twins,
  "ids of 63, 64 and 200 bytes": lengths,
  "a session's name that another has": takenName,
  "the device, held by another for a second": deviceHeld,
  "the device, held by another for too long": deviceTaken,
  "dry runs with real memory": dryRun,
  "a kernel is loaded after all that": loadOwn,
};

await tellStory(cases);
