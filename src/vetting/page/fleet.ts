import type { HostView, LiveEvent } from "../protocol-operator.ts";
import { button, element, field, later, replace } from "./dom.ts";
import { FleetBoard } from "./fleet-board.ts";
import type { Shell, View } from "./shell.ts";
import type { ToldRun } from "./silence.ts";
import { every } from "./timers.ts";

/** All hosts: the verdict of the last run stays until the next one has its own. */

/** Milliseconds between two looks at who is silent. */
const SILENCE_PACE = 5_000;
/** Milliseconds between two pictures of the board: of a thousand rows the browser lays out all. */
const BOARD_PACE = 100;

export function fleetView(shell: Shell): View {
  const hosts = new Map<string, HostView>();
  const runs = new Map<number, ToldRun>();
  const board = new FleetBoard(runs, shell);
  const empty = element("p", { class: "faint" }, "Waits for the orchestrator");
  const counts = element("div", { class: "counts", role: "group", "aria-label": "show only" });
  const filter = element("input", { type: "search", placeholder: "Name, card, spec, verdict" });
  const draw = later(() => {
    const all = [...hosts.values()];
    const told = all.map((host) => ({ host, state: stateOf(host, runs) }));
    const shown = told.filter((one) => isShown(one, filter.value)).map(({ host }) => host);
    drawCounts(counts, told, filter, draw);
    board.draw(shown);
    replace(empty, emptyWords(all.length, shown.length));
  }, BOARD_PACE);
  filter.addEventListener("input", draw);
  const take = (event: LiveEvent) => {
    if (event.kind === "host") {
      announce(hosts.get(event.view.mac), event.view, shell);
      hosts.set(event.view.mac, event.view);
      board.soil(event.view.mac);
    } else if (event.kind === "run") {
      runs.set(event.view.run, { view: event.view, at: performance.now() });
      board.soil(event.view.mac);
    } else return;
    draw();
  };
  const stop = shell.follow("/v1/vetting/events", take);
  const endLooking = every(SILENCE_PACE, () => {
    for (const { view } of runs.values()) board.soilSilent(view);
    draw();
  });
  return {
    title: "Fleet",
    place: element(
      "div",
      {},
      ...[element("h1", {}, "Fleet"), counts, field("Find", filter), empty, board.place],
    ),
    stop: () => {
      endLooking();
      stop();
    },
  };
}

function emptyWords(hosts: number, shown: number): string {
  if (hosts === 0) return "There is no host yet: hostler vetting host add MAC, or let one boot.";
  if (shown === 0) return `None of ${hosts} hosts fits`;
  return shown === hosts ? "" : `${shown} of ${hosts} hosts`;
}

/** A verdict is news for who does not look; the first picture of all hosts is not. */
function announce(before: HostView | undefined, { name, verdict }: HostView, shell: Shell): void {
  if (before === undefined || verdict === null || before.verdict?.run === verdict.run) return;
  shell.announce(`${name}: ${verdict.verdict}`);
}

/** A host, and the state of its run that is open; "" where there is none. */
interface ToldHost {
  readonly host: HostView;
  readonly state: string;
}

/** One that waits for an operator "holds": "failed" is the verdict of one that has ended. */
function stateOf({ run }: HostView, runs: ReadonlyMap<number, ToldRun>): string {
  const state = run === null ? "" : (runs.get(run)?.view.state ?? "");
  return state === "FailedHolding" ? "holds" : state.toLowerCase();
}

const wordsOf = ({ host: { name, mac, spec, verdict, run, enrolled }, state }: ToldHost) =>
  [
    ...[name, mac, spec, verdict?.verdict ?? "never vetted", state],
    run === null ? "" : "under way",
    enrolled ? "" : "not taken in",
  ]
    .join(" ")
    .toLowerCase();

function isShown(host: ToldHost, words: string): boolean {
  const text = wordsOf(host);
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

/** How many there are of each kind; a press shows those alone. */
function drawCounts(
  place: HTMLElement,
  all: readonly ToldHost[],
  filter: HTMLInputElement,
  draw: () => void,
): void {
  const hosts = all.map(({ host }) => host);
  const counted = Map.groupBy(hosts, ({ verdict }) => verdict?.verdict ?? "never vetted");
  const told: [word: string, count: number][] = [
    ["holds", all.filter(({ state }) => state === "holds").length],
    ["under way", hosts.filter(({ run }) => run !== null).length],
    ...[...counted].map(([word, those]): [string, number] => [word, those.length]),
    ["not taken in", hosts.filter(({ enrolled }) => !enrolled).length],
  ];
  const chips = told
    .filter(([, count]) => count > 0)
    .map(([word, count]) => {
      const isPressed = filter.value === word;
      const press = () => {
        filter.value = isPressed ? "" : word;
        draw();
      };
      const state = { class: "chip", "aria-pressed": String(isPressed), "data-key": word };
      return button(`${count} ${word}`, press, state);
    });
  const heading = hosts.length === 1 ? "1 host" : `${hosts.length} hosts`;
  const words = [heading, ...told.map(([word, count]) => `${count} ${word}`), filter.value].join(
    "\n",
  );
  // Most of what happens changes none of the numbers.
  if (place.dataset["drawn"] === words) return;
  place.dataset["drawn"] = words;
  replace(place, element("span", { class: "all" }, heading), ...chips);
}
