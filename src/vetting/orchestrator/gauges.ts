import type { MetricsRegistry } from "../../http/metrics.ts";
import { runStates } from "../protocol.ts";
import { verdicts } from "../protocol-operator.ts";
import type { VettingOrchestrator } from "./orchestrator.ts";
import { keptNames } from "./records.ts";

/** What an orchestrator tells Prometheus. */
export function measureOrchestrator(metrics: MetricsRegistry, own: VettingOrchestrator): void {
  const count = <Item>(items: readonly Item[], is: (item: Item) => boolean) =>
    items.filter(is).length;
  metrics.collect(
    { name: "hostler_vetting_runs", help: "Runs that have not ended, by state" },
    "gauge",
    () => {
      const open = own.liveRuns.filter(({ ended }) => ended === null);
      return runStates.map((state) => ({
        labels: { state },
        value: count(open, (run) => run.state === state),
      }));
    },
  );
  metrics.collect(
    { name: "hostler_vetting_hosts", help: "Known hosts, by their last verdict" },
    "gauge",
    () => {
      const hosts = own.hosts.filter(({ enrolled }) => enrolled);
      return [...verdicts, "none" as const].map((verdict) => ({
        labels: { verdict },
        value: count(hosts, (host) => (host.verdict?.verdict ?? "none") === verdict),
      }));
    },
  );
  metrics.gauge(
    { name: "hostler_vetting_unknown_hosts", help: "Cards that asked for a boot script unknown" },
    () => count(own.hosts, ({ enrolled }) => !enrolled),
  );
  metrics.gauge(
    { name: "hostler_vetting_database_bytes", help: "Of the database of vetting" },
    () => own.records.bytes,
  );
  metrics.collect(
    { name: "hostler_vetting_kept_bytes", help: "What is kept, by the name of its bound" },
    "gauge",
    () => keptNames.map((name) => ({ labels: { name }, value: own.records.total(name) })),
  );
  metrics.collect(
    { name: "hostler_vetting_commits_total", help: "Transactions of the database" },
    "counter",
    () => [
      { labels: { result: "done" }, value: own.commits.done },
      { labels: { result: "failed" }, value: own.commits.failed },
    ],
  );
}
