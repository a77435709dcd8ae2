/**
 * Marsaglia's xorshift32: the same words of 32 bits for the same seed, on every host. A state of
 * nothing but zeros would stay one.
 */
export function randomWords(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}
