import type { LiveEvent } from "../protocol-operator.ts";
import { after } from "./timers.ts";

/** What happens as it happens. A browser goes on by itself after the last event that it saw. */

const kinds = ["run", "host", "log", "sensors", "result", "event"] as const;

/** Milliseconds until a stream that was refused is asked for again: doubled, up to the longest. */
const waits = { first: 2_000, longest: 30_000 } as const;

export type LinkState = "live" | "away";

export interface Follower {
  readonly event: (event: LiveEvent) => void;
  readonly state: (state: LinkState) => void;
  /** It goes on after a gap: what happened in between may not come any more. */
  readonly again: () => void;
  /** Refused, not lost: whether to ask again, because this browser is still logged in. */
  readonly mayGoOn: () => Promise<boolean>;
}

export function follow(path: string, on: Follower): () => void {
  let source: EventSource;
  let endWaiting = () => {};
  let wait: number = waits.first;
  let isOver = false;
  let wasAway = false;
  const askAgain = async () => {
    if (!(await on.mayGoOn()) || isOver) return;
    endWaiting = after(wait, open);
    wait = Math.min(wait * 2, waits.longest);
  };
  const open = () => {
    source = new EventSource(path);
    for (const kind of kinds) {
      source.addEventListener(kind, (message) => {
        on.event(JSON.parse((message as MessageEvent<string>).data) as LiveEvent);
      });
    }
    source.addEventListener("open", () => {
      wait = waits.first;
      on.state("live");
      if (wasAway) on.again();
      wasAway = false;
    });
    source.addEventListener("error", () => {
      if (isOver) return;
      wasAway = true;
      on.state("away");
      if (source.readyState === EventSource.CLOSED) void askAgain();
    });
  };
  open();
  return () => {
    isOver = true;
    endWaiting();
    source.close();
  };
}
