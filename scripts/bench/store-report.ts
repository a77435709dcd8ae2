/** The result as Markdown for people and the room's README, and as JSON. */
import { summarize } from "./statistics.ts";
import type { StoreBenchResult } from "./store.ts";
import { describe, describeMemory, type Place, table } from "./tables.ts";

export const place: Place = { file: "src/store/README.md", bench: "store" };

/** Tables, the machine, and how it was measured. */
export function formatMarkdown(result: StoreBenchResult): string {
  const { rows, writers, watchers } = result;
  const puts = table(
    ["store", "acknowledged", "puts/s, 1 writer", `puts/s, ${writers} writers`, "put → watch, ms"],
    rows.map(({ name, acknowledged, alone, together, heard }) => [
      name,
      acknowledged,
      ...[alone, together, heard].map((samples) => describe(summarize(samples))),
    ]),
  );
  const fan = table(
    [
      `${watchers} watchers, ms`,
      "one put, until all heard",
      "a put for each, until each heard its own",
      "connected and synced",
    ],
    rows.map(({ name, one, each, connected }) => [
      name,
      ...[one, each, connected].map((samples) => describe(summarize(samples))),
    ]),
  );
  const memory = table(
    ["the server, MiB", "idle: RSS", "PSS", "anonymous", `${watchers} watchers: RSS`, "PSS", "an."],
    rows.map(({ name, idle, watched }) => [
      name,
      ...describeMemory(idle),
      ...describeMemory(watched),
    ]),
  );
  return [puts, fan, memory, legend(result)].join("\n\n");
}

function legend({ seed, host }: StoreBenchResult): string {
  const { processor, cores, kernel, hostler } = host;
  return [
    "**Median** (10th–90th percentile), number of samples. One run, all stores in every round, in",
    `an order drawn from the seed ${seed}. Values of some 250 bytes; writers and watchers each`,
    "have a connection of their own over loopback without TLS; all of them are in one process of",
    "Bun, which shares the processors with the server: of many connections its own work is a good",
    "part. A watcher watches a key of its own and one for all. The embedded store is served as",
    "daemons serve it, by Bun and not compiled; NATS is spoken by hostler's own client.",
    `Measured on ${processor}, ${cores} cores, Linux ${kernel};`,
    `hostler ${hostler["hostler"]} (${hostler["commit"]?.slice(0, 12)}), Bun ${hostler["Bun"]}.`,
  ].join("\n");
}

export function formatJson({ host, seed, writers, watchers, rows }: StoreBenchResult): string {
  const summaries = rows.map(({ name, acknowledged, idle, watched, ...samples }) => ({
    name,
    acknowledged,
    alone: summarize(samples.alone),
    together: summarize(samples.together),
    heard: summarize(samples.heard),
    one: summarize(samples.one),
    each: summarize(samples.each),
    connected: summarize(samples.connected),
    idle,
    watched,
  }));
  return JSON.stringify({ machine: host, seed, writers, watchers, rows: summaries }, undefined, 2);
}
