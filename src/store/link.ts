import type { LinkState } from "./store.ts";

/** The link to a store of this process: up until it is gone. It ends with `signal`. */
export async function* linkWhile(
  gone: AbortSignal,
  signal: AbortSignal,
): AsyncGenerator<LinkState, void> {
  if (!gone.aborted && !signal.aborted) {
    yield "up";
    await abortOf(gone, signal);
  }
  if (signal.aborted) return;
  yield "down";
  await abortOf(signal);
}

/** Waits for the first of these. */
async function abortOf(...signals: readonly AbortSignal[]): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signals.some((signal) => signal.aborted)) return;
  const tell = () => resolve();
  for (const signal of signals) signal.addEventListener("abort", tell);
  await promise;
  for (const signal of signals) signal.removeEventListener("abort", tell);
}
