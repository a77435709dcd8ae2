/** The orchestrator's events, as its control socket streams them. */
import type { ControlClient } from "../../src/messaging/control-client.ts";
import type { ProcessEventRecord, ProcessSummary } from "../../src/process/protocol.ts";
import { Tidings } from "./deadline.ts";

/** How long a passing phase may take. */
const passingMilliseconds = 5_000;

export class EventWatch {
  readonly events: ProcessEventRecord[] = [];
  readonly #client: ControlClient;
  readonly #tidings = new Tidings();

  constructor(client: ControlClient) {
    this.#client = client;
    void this.#follow();
  }

  async #follow(): Promise<void> {
    try {
      for await (const item of this.#client.stream("subscribe", { after: 0, follow: true })) {
        this.events.push(item as ProcessEventRecord);
        this.#tidings.tell();
      }
    } catch (error) {
      this.#tidings.end(error instanceof Error ? error.message : String(error));
    }
  }

  /** A place in the stream: only what comes after it is of interest. */
  get position(): number {
    return this.events.length;
  }

  /** @returns the first event of this kind after the position, now or as soon as it comes */
  next(
    wanted: { readonly name: string; readonly what: string; readonly invocation?: string },
    position: number,
  ): Promise<ProcessEventRecord> {
    const description = `"${wanted.what}" of ${wanted.name}`;
    return this.#tidings.until(description, () =>
      this.events.slice(position).find((event) => matches(event, wanted)),
    );
  }

  /** What `list --json` prints, by name. */
  async list(): Promise<Map<string, ProcessSummary>> {
    const summaries = (await this.#client.request("list")) as ProcessSummary[];
    return new Map(summaries.map((summary) => [summary.name, summary]));
  }

  /** Answered by the orchestrator when the process is ready. */
  async ready(name: string): Promise<void> {
    await this.#client.request("wait", { name, until: "ready" });
  }

  /** The phase that follows a passing one, which ends without an event of its own. */
  async phaseAfter(passing: string, name: string): Promise<string | undefined> {
    const deadline = performance.now() + passingMilliseconds;
    for (;;) {
      const phase = (await this.list()).get(name)?.phase;
      if (phase !== passing || performance.now() > deadline) return phase;
    }
  }

  close(): void {
    this.#client.close();
  }
}

function matches(
  event: ProcessEventRecord,
  wanted: { readonly name: string; readonly what: string; readonly invocation?: string },
): boolean {
  const { name, what, invocation } = wanted;
  if (event.name !== name || event.what !== what) return false;
  return invocation === undefined || event.invocation === invocation;
}
