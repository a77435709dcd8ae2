import { monotonicNow } from "../../../event-loop/clock.ts";
import type { LinkHealth } from "../../../network/rtnetlink.ts";
import {
  LINK_TASK,
  type LinkInput,
  type LinkReport,
  linkInputSchema,
  linkReportSchema,
  type Throughput,
} from "../../tasks/link.ts";
import { LinkState } from "../link-state.ts";
import { defineTask, type TaskContext } from "../task.ts";
import { measureThroughput } from "../throughput/measure.ts";

/** One network card: brought up where it is down, used both ways, and put back. */
export const linkTask = defineTask({
  name: LINK_TASK,
  input: linkInputSchema,
  report: linkReportSchema,
  run,
});

/** What a card that has no address of this kind yet is waited for: duplicates are looked for. */
const ADDRESS_WITHIN = 5_000;

async function run(input: LinkInput, context: TaskContext): Promise<LinkReport> {
  using link = new LinkState(input);
  const broughtUp = !link.health().isUp;
  if (broughtUp) link.setUp(true);
  try {
    return await look(link, input, { broughtUp, context });
  } finally {
    if (broughtUp) link.setUp(false);
  }
}

async function look(
  link: LinkState,
  input: LinkInput,
  { broughtUp, context }: { readonly broughtUp: boolean; readonly context: TaskContext },
): Promise<LinkReport> {
  const { signal } = context;
  const begin = monotonicNow();
  const connected = await link.wait(
    () => {
      const health = link.health();
      return health.isUp && health.carrier !== false ? health : undefined;
    },
    input.carrier_wait_s * 1_000,
    signal,
  );
  const waited_s = Math.round(monotonicNow() - begin) / 1_000;
  const before = connected ?? link.health();
  const settings = connected === undefined ? undefined : link.settings();
  const throughput = await use(link, input, { health: connected, signal });
  if (connected !== undefined && throughput.kind === "not-seen" && input.duration_s > 0) {
    // A link that nothing is sent through may lose its carrier all the same.
    const how = `its carrier is watched for ${input.duration_s} s`;
    const text = `nothing is sent, because ${throughput.reason}: ${how}`;
    context.tell({ kind: "log", level: "info", text });
    await link.wait(() => undefined, input.duration_s * 1_000, signal);
  }
  const after = link.health();
  const { name, mac } = input;
  return {
    ...{ name, mac, brought_up: broughtUp, carrier: connected !== undefined, waited_s },
    speed_mbps: settings?.speed ?? null,
    duplex: settings?.duplex ?? null,
    carrier_changes:
      before.carrierChanges === undefined || after.carrierChanges === undefined
        ? null
        : Math.max(0, after.carrierChanges - before.carrierChanges),
    errors: [...after.errors].flatMap(([error, count]) => {
      const rose = count - (before.errors.get(error) ?? 0);
      return rose > 0 ? [{ name: error, rose }] : [];
    }),
    throughput,
  };
}

async function use(
  link: LinkState,
  { test, duration_s, turn_wait_s, name, engine }: LinkInput,
  { health, signal }: { readonly health: LinkHealth | undefined; readonly signal: AbortSignal },
): Promise<Throughput> {
  if (health === undefined) return { kind: "not-seen", reason: "it has no carrier" };
  if (test === null) return { kind: "not-seen", reason: "the orchestrator has no throughput test" };
  if (duration_s === 0) return { kind: "not-seen", reason: "its duration is 0 s" };
  const { index } = health;
  const some = () => {
    const found = link.addresses(index);
    return found.ipv4.length + found.ipv6.length > 0 ? found : undefined;
  };
  const addresses = await link.wait(some, ADDRESS_WITHIN, signal);
  if (addresses === undefined) return { kind: "not-seen", reason: "it has no address" };
  return await measureThroughput({
    test,
    card: { name, index },
    addresses,
    duration: duration_s * 1_000,
    turnWithin: turn_wait_s * 1_000,
    isByTool: engine === "tool",
    signal,
  });
}
