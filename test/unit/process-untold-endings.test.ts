/** How many dead instances wait to be reaped. */
import { expect, test } from "bun:test";
import { UNTOLD_LIMIT, UntoldEndings } from "../../src/process/perform/untold-endings.ts";

/** Whose numbers stand in no process table. */
class Instance {
  readonly processId = 2 ** 31 - 1;
  readonly isLeftUnreaped: boolean;
  isGivenUp = false;

  constructor(isLeftUnreaped = true) {
    this.isLeftUnreaped = isLeftUnreaped;
  }

  giveUp(): void {
    this.isGivenUp = true;
  }
}

const several = (count: number) => Array.from({ length: count }, () => new Instance());

test("over the limit of a process its oldest is given up, and none of another", () => {
  const untold = new UntoldEndings(() => {});
  const instances = several(UNTOLD_LIMIT + 2);
  const other = new Instance();
  untold.add("other", other);
  for (const instance of instances) untold.add("it", instance);
  const givenUp = instances.map(({ isGivenUp }) => isGivenUp);
  expect(givenUp).toEqual([true, true, ...Array(UNTOLD_LIMIT).fill(false)]);
  expect(other.isGivenUp).toBe(false);
});

test("who was told makes room", () => {
  const untold = new UntoldEndings(() => {});
  const instances = several(UNTOLD_LIMIT);
  for (const instance of instances) untold.add("it", instance);
  for (const instance of instances) untold.delete("it", instance);
  for (const instance of several(UNTOLD_LIMIT)) untold.add("it", instance);
  expect(instances.some(({ isGivenUp }) => isGivenUp)).toBe(false);
});

test("that nobody reaps is said once, and only where it is so", () => {
  const said: string[] = [];
  const untold = new UntoldEndings((message) => said.push(message));
  for (let count = 0; count < 2 * UNTOLD_LIMIT; count += 1) untold.add("it", new Instance(false));
  expect(said).toEqual([]);
  for (const instance of several(3 * UNTOLD_LIMIT)) untold.add("it", instance);
  expect(said).toEqual([expect.stringContaining("nobody reaps what an agent that is gone")]);
});
