import type { LiveEvent } from "../protocol-operator.ts";

/** What happens as it happens. A browser goes on by itself after the last event that it saw. */

const kinds = ["run", "host", "log", "sensors", "result", "event"] as const;

export type LinkState = "live" | "away";

export function follow(
  path: string,
  on: {
    readonly event: (event: LiveEvent) => void;
    readonly state: (state: LinkState) => void;
    /** The server refuses to go on: this browser is not logged in any more, or there is no run. */
    readonly end: () => void;
  },
): () => void {
  const source = new EventSource(path);
  for (const kind of kinds) {
    source.addEventListener(kind, (message) => {
      on.event(JSON.parse((message as MessageEvent<string>).data) as LiveEvent);
    });
  }
  source.addEventListener("open", () => on.state("live"));
  source.addEventListener("error", () => {
    on.state("away");
    if (source.readyState === EventSource.CLOSED) on.end();
  });
  return () => source.close();
}
