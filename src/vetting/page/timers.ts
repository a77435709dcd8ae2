/** The timers of a browser, which has no event loop of ours. */

/** @param pace milliseconds @returns ends it */
export function every(pace: number, act: () => void): () => void {
  const timer = setInterval(act, pace);
  return () => clearInterval(timer);
}

/** @param wait milliseconds @returns ends it, where it has not come */
export function after(wait: number, act: () => void): () => void {
  const timer = setTimeout(act, wait);
  return () => clearTimeout(timer);
}
