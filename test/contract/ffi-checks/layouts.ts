/** Structures and numbers against what gcc says of them: test/contract/layouts.json. */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import * as constants from "../../../ffi/constants.ts";
import { layoutsOf } from "../../../ffi/layouts.ts";
import { Errno, errnoName } from "../../../ffi/system-call-error.ts";
import { SIGRTMAX, SIGRTMIN, Signal } from "../../../src/units/signals.ts";
import compiled from "../layouts.json" with { type: "json" };
import type { Check } from "./check.ts";

const architectures = ["x64", "arm64"] as const;

function kernelNumbers(): Record<string, number> {
  const numbers: Record<string, number> = {};
  for (const [name, value] of Object.entries(constants)) {
    if (typeof value === "number") numbers[name] = value;
  }
  return numbers;
}

export const layoutChecks: readonly Check[] = [
  {
    name: "numbers are gcc's on this architecture",
    run: () => deepStrictEqual(kernelNumbers(), compiled[constants.architecture].numbers),
  },
  ...architectures.map((architecture) => ({
    name: `numbers are gcc's on ${architecture}, by arithmetic`,
    run: () => {
      const numbers = { ...kernelNumbers(), ...constants.differingConstants(architecture) };
      deepStrictEqual(numbers, compiled[architecture].numbers);
    },
  })),
  ...architectures.map((architecture) => ({
    name: `structures are gcc's on ${architecture}`,
    run: () => deepStrictEqual(layoutsOf(architecture), compiled[architecture].structures),
  })),
  ...architectures.map((architecture) => ({
    name: `error numbers and signals are gcc's on ${architecture}`,
    run: () => {
      deepStrictEqual({ ...Errno }, compiled[architecture].errors);
      deepStrictEqual({ ...Signal, SIGRTMIN, SIGRTMAX }, compiled[architecture].signals);
    },
  })),
  {
    name: "an error number gets its usual name",
    run: () => {
      strictEqual(errnoName(11), "EAGAIN");
      strictEqual(errnoName(35), "EDEADLK");
      strictEqual(errnoName(95), "EOPNOTSUPP");
      strictEqual(errnoName(109), "ETOOMANYREFS");
      strictEqual(errnoName(4095), "E4095");
    },
  },
];
