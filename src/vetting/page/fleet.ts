import type { SpecSummary } from "../protocol-api.ts";
import type { HostView, LiveEvent, RunView } from "../protocol-operator.ts";
import { ask } from "./ask.ts";
import { badge, button, element, field, replace, table } from "./dom.ts";
import { durationText, percentText, timeText } from "./format.ts";
import type { Shell, View } from "./shell.ts";
import { stageDots } from "./stages.ts";

/** All hosts: the verdict of the last run stays until the next one has its own. */

export function fleetView(shell: Shell): View {
  const hosts = new Map<string, HostView>();
  const runs = new Map<number, RunView>();
  const board = element("div", {}, element("p", { class: "faint" }, "Waits for the orchestrator"));
  const counts = element("p", { class: "counts", role: "status" });
  const filter = element("input", { type: "search", placeholder: "Name, card, spec, verdict" });
  const draw = later(() => {
    const shown = [...hosts.values()].filter((host) => isShown(host, filter.value));
    replace(counts, countsText([...hosts.values()]));
    const empty = "There is no host yet: hostler vetting host add MAC, or let one boot.";
    replace(
      board,
      shown.length === 0
        ? element("p", { class: "faint" }, hosts.size === 0 ? empty : "Nothing fits")
        : boardOf(shown, runs, shell),
    );
  });
  filter.addEventListener("input", draw);
  const stop = shell.follow("/v1/vetting/events", (event: LiveEvent) => {
    if (event.kind === "host") hosts.set(event.view.mac, event.view);
    else if (event.kind === "run") runs.set(event.view.run, event.view);
    else return;
    draw();
  });
  const place = element(
    "div",
    {},
    element("h1", {}, "Fleet"),
    counts,
    field("Find", filter),
    board,
  );
  return { title: "Fleet", place, stop };
}

/** Once for all that comes before the next picture. */
function later(act: () => void): () => void {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      act();
    });
  };
}

function isShown(host: HostView, words: string): boolean {
  const text = [host.name, host.mac, host.spec, host.verdict?.verdict].join(" ").toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

function countsText(hosts: readonly HostView[]): string {
  const open = hosts.filter(({ run }) => run !== null).length;
  const verdicts = Map.groupBy(hosts, ({ verdict }) => verdict?.verdict ?? "never vetted");
  const told = [...verdicts].map(([word, those]) => `${those.length} ${word}`);
  return [`${hosts.length} hosts`, `${open} under way`, ...told].join(" · ");
}

/** What is under way first, then what is not well. */
function rank({ verdict, run }: HostView): number {
  if (run !== null) return 0;
  return ["failed", "lost", "aborted", "warned"].includes(verdict?.verdict ?? "") ? 1 : 2;
}

function boardOf(hosts: readonly HostView[], runs: Map<number, RunView>, shell: Shell) {
  const sorted = hosts.toSorted(
    (left, right) => rank(left) - rank(right) || left.name.localeCompare(right.name),
  );
  const made = table(sorted, [
    {
      title: "host",
      cell: ({ name, mac }) => element("span", {}, name, element("small", {}, mac)),
    },
    { title: "verdict", cell: verdictCell },
    {
      title: "under way",
      cell: ({ run }) => underWay(run === null ? undefined : runs.get(run), run),
    },
    { title: "spec", cell: ({ spec }) => spec ?? "—" },
    { title: "heard", cell: ({ last_seen }) => timeText(last_seen) || "never" },
    { title: "", cell: (host) => actionsOf(host, shell) },
  ]);
  made.classList.add("board");
  return made;
}

function verdictCell({ verdict }: HostView): HTMLElement {
  if (verdict === null) return element("span", { class: "faint" }, "none yet");
  return element(
    "span",
    {},
    element("a", { href: `#/runs/${verdict.run}` }, badge(verdict.verdict), ` run ${verdict.run}`),
    verdict.reason === "" ? undefined : element("small", {}, verdict.reason),
  );
}

function underWay(run: RunView | undefined, number: number | null): HTMLElement | string {
  if (number === null) return "—";
  if (run === undefined) return element("a", { href: `#/runs/${number}` }, `run ${number}`);
  const { activity, state, silent_ms: silent } = run;
  const progress =
    activity?.kind === "stage" && activity.progress !== null ? percentText(activity.progress) : "";
  const quiet = silent !== null && silent > 30_000 ? `silent for ${durationText(silent)}` : "";
  return element(
    "span",
    {},
    element("a", { href: `#/runs/${run.run}` }, badge(state), ` run ${run.run} ${progress}`),
    stageDots(run),
    quiet === "" ? undefined : element("small", { class: "warn" }, quiet),
  );
}

function actionsOf(host: HostView, shell: Shell): HTMLElement | undefined {
  if (host.run !== null) return undefined;
  if (!host.enrolled) return button("Take in", () => openTakeIn(host, shell));
  return button("Vet", () => void openStart(host, shell));
}

function openTakeIn(host: HostView, shell: Shell): void {
  const name = element("input", { name: "name", value: host.name, required: true });
  shell.dialog({
    title: `Take ${host.mac} in`,
    content: [field("Name", name)],
    action: "Take in",
    act: () => ask("POST", "/v1/vetting/hosts", { mac: host.mac, name: name.value }),
  });
}

async function openStart(host: HostView, shell: Shell): Promise<void> {
  const told = await shell.attempt(() =>
    ask<{ readonly specs: readonly SpecSummary[] }>("GET", "/v1/vetting/specs"),
  );
  if (told === undefined) return;
  const options = told.specs.map(({ name, revision }) =>
    element(
      "option",
      { value: name, selected: name === host.spec },
      `${name}, revision ${revision}`,
    ),
  );
  const spec = element("select", { name: "spec", required: true }, ...options);
  const minutes = element("input", {
    ...{ name: "window", type: "number", min: 1, max: 43_200, value: 30, required: true },
  });
  shell.dialog({
    title: `Vet ${host.name}`,
    content: [
      field("Spec", spec),
      field("It may boot for so many minutes", minutes, "Then it gets no token any more"),
    ],
    action: "Begin the run",
    act: () =>
      ask("POST", "/v1/vetting/runs", {
        ...{ mac: host.mac, spec: spec.value, window_ms: Number(minutes.value) * 60_000 },
      }),
  });
}
