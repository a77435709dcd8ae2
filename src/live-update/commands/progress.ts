import { tellText } from "../../command-line/output.ts";
import { alignColumns } from "../../command-line/table.ts";
import type { LiveUpdateClient } from "../client.ts";
import type { ClientSummary, Status, UpdateEventRecord } from "../protocol.ts";
import { eventText } from "./follow.ts";
import { detailText, updateText } from "./show.ts";
import { bytesText, durationText } from "./words.ts";

/** Shows how an update goes, on stderr: stdout is for what it came to. */
export interface Progress {
  note(event: UpdateEventRecord): void;
  /** Nothing is shown after it. @param keep leaves what stands on a terminal */
  end(options: { readonly keep: boolean }): void;
}

/** One block that changes in its place where there is a terminal; else a line for each event. */
export function openProgress(client: LiveUpdateClient): Progress {
  const { stderr } = process;
  if (!stderr.isTTY) {
    return { note: (event) => tellText(eventText(event)), end: () => {} };
  }
  return new LiveBlock(client, () => ({
    columns: stderr.columns || 80,
    rows: stderr.rows || 24,
  }));
}

interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** Milliseconds between two drawings when nothing happens: the time that is left goes on. */
const REDRAW = 1_000;
/** And at least: a list of a thousand clients costs the luod that is busy with them. */
const REST = 100;

const after = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => {
    AbortSignal.timeout(milliseconds).addEventListener("abort", () => resolve());
  });

/** Asks luod how things are at every event and every second, and draws that. */
class LiveBlock implements Progress {
  readonly #client: LiveUpdateClient;
  readonly #size: () => Size;
  /** Lines that stand on the terminal above the cursor. */
  #lines = 0;
  #wake = Promise.withResolvers<void>();
  #isDrawing = false;
  #isOver = false;

  constructor(client: LiveUpdateClient, size: () => Size) {
    this.#client = client;
    this.#size = size;
  }

  /** The first one starts it: before it there is no update to be seen. */
  note(): void {
    this.#wake.resolve();
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    void this.#draw();
  }

  /** What happens while it draws is drawn together. */
  async #draw(): Promise<void> {
    while (!this.#isOver) {
      const wake = Promise.withResolvers<void>();
      this.#wake = wake;
      const looked = await this.#look();
      // A luod that is away is told by whoever waits for its answer.
      if (looked === undefined || this.#isOver) return;
      this.#replace(renderProgress(looked.status, looked.clients, this.#size()));
      await after(REST);
      await Promise.race([wake.promise, after(REDRAW - REST)]);
    }
  }

  async #look(): Promise<{ status: Status; clients: ClientSummary[] } | undefined> {
    try {
      const [status, clients] = await Promise.all([this.#client.status(), this.#client.list()]);
      return { status, clients };
    } catch {
      return undefined;
    }
  }

  #replace(lines: readonly string[]): void {
    const back = this.#lines === 0 ? "" : `\u001b[${this.#lines}A`;
    tellText(`${back}\r\u001b[J${lines.map((line) => `${line}\n`).join("")}`);
    this.#lines = lines.length;
  }

  end({ keep }: { readonly keep: boolean }): void {
    if (!this.#isOver && !keep) this.#replace([]);
    this.#isOver = true;
    this.#wake.resolve();
  }
}

/** The lines of the block: who is not ready stands first, and no line is wider than the screen. */
export function renderProgress(
  status: Status,
  clients: readonly ClientSummary[],
  { columns, rows }: Size,
): string[] {
  const { phase, update } = status;
  const isOver = (client: ClientSummary) => client.state === "ready" || client.state === "left-out";
  // Who is only subscribed came too late for this update, or is no part of a dry run.
  const taking = clients.filter(({ state }) => update === null || state !== "subscribed");
  const sorted = [
    ...taking.filter((client) => !isOver(client)),
    ...taking.filter((client) => isOver(client)),
  ];
  // The first line, the last one that says how many are left out, and the cursor's.
  const shown = sorted.slice(0, Math.max(1, rows - 3));
  const lines = alignColumns([
    ...shown.map((client) => [
      `  ${client.id}`,
      client.state,
      durationText(client.ready_ms),
      bytesText(client.bytes),
      detailText(client),
    ]),
  ]);
  const more = sorted.length - shown.length;
  const [heading = ""] = alignColumns([
    [update === null ? phase : `${phase}: ${updateText(update)}`],
  ]);
  const all = [heading, ...lines, ...(more > 0 ? [`  … and ${more} more`] : [])];
  // A line that wrapped would be two, and the block would creep.
  return all.map((line) => Bun.sliceAnsi(line, 0, columns - 1, "…"));
}
