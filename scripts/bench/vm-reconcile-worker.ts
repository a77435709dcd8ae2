/** What a worker decides about a thousand declared machines. */
import {
  type Desired,
  type DesiredMachine,
  type ObservedMachine,
  reconcile,
} from "../../src/vm/reconcile.ts";
import { ScriptError } from "../terminal.ts";

const machines = 1_000;

export interface DecisionFindings {
  readonly machines: number;
  /** Milliseconds of deciding, where nothing is there. */
  readonly first: readonly number[];
  /** The same, where all is as declared: no command follows. */
  readonly second: readonly number[];
  /** Commands of both. */
  readonly commands: { readonly first: number; readonly second: number };
}

/** Deciding alone, as the worker does it after everything that happens. */
export function measureDecisions(rounds: number): DecisionFindings {
  const desired: Desired = { generation: 1, machines: Array.from({ length: machines }, declare) };
  const converged = desired.machines.map(observe);
  const found = { first: [] as number[], second: [] as number[] };
  const commands = { first: 0, second: 0 };
  for (let round = 0; round < rounds; round += 1) {
    for (const [pass, observed] of [
      ["first", []],
      ["second", converged],
    ] as const) {
      const begin = performance.now();
      const result = reconcile(desired, observed);
      found[pass].push(performance.now() - begin);
      commands[pass] = result.commands.length;
    }
  }
  if (commands.first === machines && commands.second === 0) return { machines, ...found, commands };
  const received = `received ${commands.first} and ${commands.second}`;
  const message = `Expected ${machines} commands and then none, ${received}`;
  throw new ScriptError(message, { exitCode: 1 });
}

function declare(_item: unknown, index: number): DesiredMachine {
  const hash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
  return {
    spec: { name: `machine-${index}`, imagePath: "/nix/store/image", hash, cpu: 2 },
    power: "running",
  };
}

const observe = ({ spec, power }: DesiredMachine): ObservedMachine => ({
  name: spec.name,
  phase: "running",
  wanted: power,
  declaredPower: power,
  spec,
  owner: "declared",
  reason: undefined,
});
