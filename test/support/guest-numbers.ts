/** What the test guest counts: numbers that rise by one from line to line. */

/** Of whole lines: one that was cut in two is whole again where its parts are joined. */
export const numbersIn = (text: string): number[] =>
  [...text.matchAll(/T([0-9a-f]{8})\r?\n/g)].map(([, digits = ""]) => Number.parseInt(digits, 16));

/** @throws Error where one was lost, or came twice */
export function expectContinuous(numbers: readonly number[]): void {
  const [first = 0] = numbers;
  const at = numbers.findIndex((number, index) => number !== first + index);
  if (at >= 0) throw new Error(`${numbers[at - 1]} is followed by ${numbers[at]}`);
}
