/** What is kept to, and what is told of what cannot be. */
import { expect, test } from "bun:test";
import { DesiredState, type Reconciled } from "../../../src/vm/desired-state.ts";
import type { DesiredMachine } from "../../../src/vm/reconcile.ts";

const assigned = { owner_generation: 9, movable: false, fencing: "none" } as const;
const web: DesiredMachine = { spec: { name: "web" }, power: "running", assigned };

test("a machine that could not be made is told, until it is, or is declared no more", () => {
  let answer: () => string | undefined = () => "no network nosuch";
  const worker: Reconciled = {
    file: undefined,
    observe: () => [],
    refuse: () => undefined,
    create: () => answer(),
    declare: () => {},
    adopt: () => {},
    adjust: () => {},
    handle: () => {},
    kill: () => {},
    onTrouble: () => {},
  };
  const desired = new DesiredState(worker);
  const follow = (machines: readonly DesiredMachine[]) =>
    desired.follow({ generation: 1, machines, removals: new Map() }, new Map());
  follow([web]);
  expect(desired.unmade).toEqual([{ name: "web", reason: "no network nosuch", assigned }]);
  // It is not tried again and again, and is told all the same.
  desired.reconcile();
  expect(desired.unmade).toHaveLength(1);
  answer = () => {
    throw new Error("No space left on device");
  };
  follow([web]);
  expect(desired.unmade).toMatchObject([{ reason: "No space left on device" }]);
  answer = () => undefined;
  desired.reconcile();
  expect(desired.unmade).toEqual([]);
  answer = () => "no network nosuch";
  follow([web]);
  follow([]);
  expect(desired.unmade).toEqual([]);
});
