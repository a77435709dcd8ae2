import { resolve } from "node:path";
import { printJsonLine, printText, tellText } from "../../command-line/output.ts";
import { durationArgument } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import type { Milliseconds } from "../../units/units.ts";
import { limits, refuseName } from "../protocol.ts";
import type { Say } from "../run/words.ts";
import { streamLine } from "./words.ts";

/** What `run` and `hold` have in common. */

export interface ClientFlags {
  readonly id: string;
  readonly socket: string;
  readonly optional: boolean;
  readonly required: boolean;
  readonly deadline: string;
  readonly wait: string;
  readonly "skip-others": boolean;
  readonly json: boolean;
}

export interface ClientChoices {
  readonly id: string;
  readonly socket: string;
  readonly required: boolean;
  readonly deadline: Milliseconds;
  readonly wait: Milliseconds;
  readonly skipOthers: boolean;
}

/** @throws UsageError */
export function readClientFlags(flags: ClientFlags): ClientChoices {
  const { id, optional, required } = flags;
  const refusal = refuseName(id);
  if (refusal !== undefined) {
    const { expected, received } = refusal;
    throw new UsageError(`Expected an id of ${expected} after --id, received ${received}`);
  }
  if (optional && required) {
    throw new UsageError("Expected --required or --optional, received both");
  }
  const most = limits.longestDeadline;
  const deadline = durationArgument("--deadline", flags.deadline, { most });
  if (deadline < 1) {
    throw new UsageError(`Expected at least 1ms after --deadline, received ${flags.deadline}`);
  }
  return {
    id,
    socket: resolve(flags.socket),
    required: !optional,
    deadline,
    wait: durationArgument("--wait", flags.wait),
    skipOthers: flags["skip-others"],
  };
}

/** Says what happens on stderr: stdout is the program's. */
export function sayBeside(id: string, json: boolean): Say {
  return (word) => {
    if (json) tellText(`${JSON.stringify({ id, ...word })}\n`);
    else tellText(streamLine([`${id}: ${word.text}`]));
  };
}

/** Says what happens on stdout. */
export function sayAloud(id: string, json: boolean): Say {
  return (word) => {
    // Written at once; a reader that is gone has no part in what is carried.
    const said = json
      ? printJsonLine({ id, ...word })
      : printText(streamLine([`${id}: ${word.text}`]));
    said.catch(() => {});
  };
}
