/** A hundred clients of several kinds, two kexecs in a row: the word is "first" to "third". */
import type { crowdCases } from "./live-update-cases.ts";
import {
  ask,
  type Cast,
  claim,
  command,
  enterKernel,
  loadOwn,
  type Role,
  requireIdle,
  startCast,
  startLuod,
  tellBlackout,
  tellStory,
} from "./live-update-stage.ts";
import type { Case } from "./tell.ts";

const count = 100;
/** The rest are played by one process. */
const processes = 6;

const kinds: readonly Omit<Role, "id">[] = [
  { bare: true },
  {},
  { required: false, files: 2 },
  { parts: ["", "log"], deadline_ms: 30_000 },
];
const roles: readonly Role[] = Array.from({ length: count }, (_, index) => ({
  id: `client-${index}`,
  kib: 4,
  ...kinds[index % kinds.length],
}));
/** Of a fourth of the clients each: 1, 1, 2 and 2. */
const files = (count / kinds.length) * 6;

const casts: Cast[] = [];
async function play(does: "keep" | "carry"): Promise<void> {
  const playing = roles.map((role) => ({ ...role, does }));
  const alone = playing.slice(0, processes).map((role) => [role]);
  casts.push(...[playing.slice(processes), ...alone].map((some) => startCast(some)));
  const [many, ...others] = casts;
  await many?.says(/^cast subscribed/, count - processes);
  for (const other of others) await other.says(/^cast subscribed/);
}

function requireAll(lines: readonly string[]): string {
  const found = lines.filter((line) => line.startsWith("cast found")).length;
  const bad = lines.filter((line) => /^cast (spoilt|refused|unsubscribed)/.test(line));
  if (found !== files || bad.length > 0) throw new Error(`${found} of ${files}\n${bad.join("\n")}`);
  return `${found} files`;
}

async function subscribe(): Promise<string> {
  await startLuod();
  await play("keep");
  return await loadOwn();
}

async function carry(): Promise<string> {
  await startLuod();
  await play("carry");
  return requireAll(casts.flatMap(({ lines }) => lines));
}

async function claimAll(): Promise<string> {
  await startLuod();
  return requireAll(await claim(roles));
}

async function finishBare(): Promise<string> {
  const left = await ask((client) => client.sessions());
  for (const { client: id, state } of left) {
    if (state !== "claimed") throw new Error(`${id} is ${state}`);
    await ask((client) => client.finish(id));
  }
  await requireIdle("idle");
  return `${left.length} sessions`;
}

const stages: Readonly<Record<string, Readonly<Record<string, Case>>>> = {
  first: {
    "a hundred clients subscribe": subscribe,
  } satisfies Record<(typeof crowdCases)["first"][number], Case>,
  second: {
    "all claim, and subscribe again": carry,
    "where the first update's time went": tellBlackout,
    "the kernel is loaded for the second": async () => await loadOwn(),
  } satisfies Record<(typeof crowdCases)["second"][number], Case>,
  third: {
    "all claim what went through two kexecs": claimAll,
    "where the second update's time went": tellBlackout,
    "what bare clients left is finished by the operator": finishBare,
    "no session is left": async () => await command("status"),
  } satisfies Record<(typeof crowdCases)["third"][number], Case>,
};

const name = Bun.argv[2] ?? "";
await tellStory(stages[name] ?? {}, name === "third" ? undefined : () => enterKernel());
