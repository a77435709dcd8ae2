import type { HostView, RunView } from "../protocol-operator.ts";
import { badge, button, type Column, element, keepFocus, rowOf, tableOf } from "./dom.ts";
import { openStart, openTakeIn } from "./fleet-actions.ts";
import { percentText, reasonText, timeText } from "./format.ts";
import type { Shell } from "./shell.ts";
import { SILENT_AFTER, silenceText, type ToldRun } from "./silence.ts";
import { stageDots } from "./stages.ts";

/**
 * The rows of all hosts. One is made anew when its host or run was told anew, and no other is
 * touched: with a thousand hosts at work something is told all the time.
 */
export class FleetBoard {
  readonly place: HTMLElement;
  readonly #body = element("tbody");
  readonly #rows = new Map<string, HTMLElement>();
  readonly #dirty = new Set<string>();
  readonly #columns: readonly Column<HostView>[];
  readonly #runs: ReadonlyMap<number, ToldRun>;
  /** By their cards, in the order of the last picture: what is nearly sorted is sorted at once. */
  #order: readonly string[] = [];

  constructor(runs: ReadonlyMap<number, ToldRun>, shell: Shell) {
    this.#runs = runs;
    this.#columns = columnsOf(runs, shell);
    this.place = tableOf(this.#columns, this.#body, "hosts");
    this.place.classList.add("board");
    this.place.hidden = true;
  }

  /** What the row says is not so any more. */
  soil(mac: string): void {
    this.#dirty.add(mac);
  }

  soilSilent({ mac, silent_ms: silent, verdict }: RunView): void {
    if (verdict === null && silent !== null && silent >= SILENT_AFTER) this.#dirty.add(mac);
  }

  draw(hosts: readonly HostView[]): void {
    this.place.hidden = hosts.length === 0;
    const left = new Map(hosts.map((host) => [host.mac, host]));
    const before = this.#order.flatMap((mac) => left.get(mac) ?? []);
    for (const { mac } of before) left.delete(mac);
    const ranked = [...before, ...left.values()].map((host) => {
      return { host, rank: rankOf(host, this.#runs) };
    });
    const sorted = ranked.toSorted(byNeed).map(({ host }) => host);
    this.#order = sorted.map(({ mac }) => mac);
    const rows = sorted.map((host) => this.#rowOf(host));
    keepFocus(this.#body, () => place(this.#body, rows));
  }

  #rowOf(host: HostView): HTMLElement {
    const { mac } = host;
    const known = this.#rows.get(mac);
    if (known !== undefined && !this.#dirty.has(mac)) return known;
    const made = rowOf(host, this.#columns, mac);
    this.#dirty.delete(mac);
    this.#rows.set(mac, made);
    return made;
  }
}

/** Moves what does not stand where it should, and takes away what is not among them. */
function place(body: HTMLElement, rows: readonly HTMLElement[]): void {
  const wanted = new Set<Element>(rows);
  for (const row of [...body.children]) if (!wanted.has(row)) row.remove();
  let at = body.firstElementChild;
  for (const row of rows) {
    if (row === at) at = at.nextElementSibling;
    else body.insertBefore(row, at);
  }
}

const names = new Intl.Collator(undefined, { numeric: true });

interface Ranked {
  readonly host: HostView;
  readonly rank: number;
}

const byNeed = (left: Ranked, right: Ranked) =>
  left.rank - right.rank || names.compare(left.host.name, right.host.name);

/** Who holds first, who is lost, what is under way, what waits for its host, what is not well. */
function rankOf({ verdict, run }: HostView, runs: ReadonlyMap<number, ToldRun>): number {
  if (run !== null) {
    const state = runs.get(run)?.view.state;
    if (state === "FailedHolding") return 0;
    if (state === "Lost") return 1;
    return state === "Queued" ? 3 : 2;
  }
  return ["failed", "lost", "aborted", "warned"].includes(verdict?.verdict ?? "") ? 4 : 5;
}

const columnsOf = (
  runs: ReadonlyMap<number, ToldRun>,
  shell: Shell,
): readonly Column<HostView>[] => [
  {
    title: "host",
    cell: ({ name, mac }) =>
      element("span", {}, element("b", {}, name), element("small", { class: "tight" }, mac)),
  },
  { title: "verdict", cell: verdictCell },
  {
    title: "under way",
    cell: ({ run }) => (run === null ? undefined : underWay(runs.get(run), run)),
  },
  { title: "spec", cell: ({ spec }) => spec },
  { title: "heard", kind: "tight", cell: ({ last_seen }) => timeText(last_seen) || "never" },
  { title: "", kind: "actions", cell: (host) => actionsOf(host, shell) },
];

function verdictCell({ verdict }: HostView): HTMLElement {
  if (verdict === null) return element("span", { class: "faint" }, "none yet");
  return element(
    "span",
    {},
    runLink(verdict.run, badge(verdict.verdict), `run ${verdict.run}`),
    verdict.reason === "" ? undefined : element("small", {}, reasonText(verdict.reason)),
  );
}

const runLink = (run: number, mark: HTMLElement | undefined, words: string) =>
  element("a", { class: "to-run", href: `#/runs/${run}` }, mark, " ", element("u", {}, words));

function underWay(told: ToldRun | undefined, number: number): HTMLElement {
  if (told === undefined) return runLink(number, undefined, `run ${number}`);
  const { activity, state, run } = told.view;
  const progress =
    activity?.kind === "stage" && activity.progress !== null
      ? `, ${percentText(activity.progress)}`
      : "";
  const silence = silenceText(told, performance.now());
  return element(
    "span",
    {},
    runLink(run, badge(state), `run ${run}${progress}`),
    " ",
    stageDots(told.view),
    silence === undefined ? undefined : element("small", { class: "warn" }, silence),
  );
}

function actionsOf(host: HostView, shell: Shell): HTMLElement | undefined {
  if (host.run !== null) return undefined;
  const named = (word: string) => ({ "aria-label": `${word} ${host.name}` });
  if (!host.enrolled) return button("Take in", () => openTakeIn(host, shell), named("Take in"));
  return button("Vet", () => void openStart(host, shell), named("Vet"));
}
