import { readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { linkTarget } from "../../../ffi/descriptor.ts";
import { killPoint } from "../../../ffi/fault-hooks.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { ExitCode } from "../../units/exit-code.ts";
import {
  decodeState,
  type OrchestratorState,
  type StateOwner,
  type StateRefusal,
} from "../protocol-state.ts";
import { bootId, statusOf } from "./process-table.ts";

/** Where a fault test can kill the orchestrator while it becomes another program. */
export const reexecutionSteps = [
  "reexecute:tried",
  "reexecute:held",
  "reexecute:packed",
  "reexecute:begun",
  "reexecute:unpacked",
  "reexecute:told",
] as const;
export type ReexecutionStep = (typeof reexecutionSteps)[number];
export const reexecutionKillPoint = (step: ReexecutionStep): void => killPoint(step);

/** The environment variable with the number of the descriptor that has the state. */
export const STATE_VARIABLE = "HOSTLER_STATE";

/** What /proc shows of the file in memory; others have other names. */
export const STATE_FILE = "hostler-state";

/** The state of the program before this one cannot be gone on with. */
export class InheritanceRefused extends Error {
  override readonly name: string = "InheritanceRefused";
  readonly exitCode = ExitCode.refused;

  constructor({ expected, received }: StateRefusal, what: "did" | "had open" = "did") {
    super(
      `Cannot go on with what the program before this one ${what}: expected ${expected}, ` +
        `received ${received}. Start the orchestrator again: it ends what was left running, ` +
        "and starts anew.",
    );
  }
}

/** Who this process is: the same before and after an exec, and nobody else ever. */
export function ownIdentity(): StateOwner {
  const startTicks = statusOf(process.pid)?.startTicks ?? 0;
  return { boot: bootId(), processId: process.pid, startTicks };
}

/**
 * What the program that this process was before has left for it; undefined at an ordinary start.
 * The variable is taken out of the environment.
 * @throws InheritanceRefused when there is something, and it is not that
 */
export function inheritState(): OrchestratorState | undefined {
  const said = process.env[STATE_VARIABLE];
  if (said === undefined) return undefined;
  nameItself();
  reexecutionKillPoint("reexecute:begun");
  delete process.env[STATE_VARIABLE];
  const decoded = decodeState(readInherited(said));
  if ("refusal" in decoded) throw new InheritanceRefused(decoded.refusal);
  const own = JSON.stringify(ownIdentity());
  const { state } = decoded;
  if (JSON.stringify(state.owner) === own) return state;
  const received = `that of ${JSON.stringify(state.owner)}`;
  throw new InheritanceRefused({ expected: `the state of ${own}`, received });
}

/** It was run by the number of a descriptor: ps(1) is to show its name. prctl(2), PR_SET_NAME. */
function nameItself(): void {
  writeFileSync("/proc/self/comm", basename(process.argv0));
}

function readInherited(said: string): string {
  const expected = `a descriptor of ${STATE_FILE} in ${STATE_VARIABLE}`;
  if (!/^[1-9]\d{0,8}$/.test(said) || Number(said) < 3) {
    throw new InheritanceRefused({ expected, received: JSON.stringify(said.slice(0, 40)) });
  }
  const file = new OwnedDescriptor(Number(said));
  const is = linkTarget(file);
  if (is !== `/memfd:${STATE_FILE} (deleted)`) {
    file.release();
    throw new InheritanceRefused({ expected, received: is === "" ? "none" : is });
  }
  try {
    return readFileSync(`/proc/self/fd/${file.number}`, "utf8");
  } finally {
    file.close();
  }
}
