import { accessSync, constants, statSync } from "node:fs";
import { killPoint } from "../../../ffi/fault-hooks.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { ProgramEnding } from "../guest-agent/protocol.ts";
import { GuestProgram } from "./guest-program.ts";

/** Bytes of what a hook says that are told when it fails. */
const OUTPUT_BYTES = 2_048;

export interface HookPlan {
  /** The program by absolute path, and its words; the worker's name is added as the last one. */
  readonly command: readonly string[];
  readonly timeLimit: Milliseconds;
}

/**
 * Runs the program that cuts a worker's power, without a shell, in a session of its own. Its exit
 * status 0 says that the power is off; anything else says nothing.
 * @returns undefined for 0, else why it is no proof
 */
export async function runFenceHook(
  loop: EventLoop,
  plan: HookPlan,
  asked: { readonly worker: string; readonly boot: string | null },
): Promise<string | undefined> {
  const { worker, boot } = asked;
  killPoint("vm-master:hook:before");
  const ended = Promise.withResolvers<string | undefined>();
  const said: Uint8Array[] = [];
  const program = GuestProgram.start(
    loop,
    {
      argv: [...plan.command, worker],
      environment: [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        `HOSTLER_WORKER=${worker}`,
        ...(boot === null ? [] : [`HOSTLER_BOOT=${boot}`]),
      ],
      input: false,
      time_limit: plan.timeLimit,
      output_limit: OUTPUT_BYTES,
      streams: "together",
      outlives: false,
    },
    {
      onOutput: (_stream, bytes) => said.push(bytes),
      onEnded: ({ ending, killed }) => {
        killPoint("vm-master:hook:after");
        if (killed !== undefined) {
          ended.resolve(`it was killed, because it took longer than ${plan.timeLimit} ms`);
        } else ended.resolve(failureOf(ending, Buffer.concat(said).toString("utf8")));
      },
    },
  );
  if (typeof program === "string") return program;
  return await ended.promise;
}

/**
 * What is known of a hook before it is needed, without running it.
 * @returns why it cannot be run, with what to do; undefined where nothing is in the way
 */
export function whyHookCannotRun({ command: [program = ""] }: HookPlan): string | undefined {
  const trouble = (received: string) =>
    `fence.command: expected a program that can be run, received ${program}: ${received}. Until ` +
    "it can be, it proves no lost worker dead, and their machines stay where they are";
  try {
    if (!statSync(program).isFile()) return trouble("no file");
    accessSync(program, constants.X_OK);
    return undefined;
  } catch (error) {
    return trouble(error instanceof Error ? error.message : String(error));
  }
}

function failureOf(ending: ProgramEnding, said: string): string | undefined {
  if (ending.kind === "exited" && ending.status === 0) return undefined;
  const how = ending.kind === "exited" ? `exit status ${ending.status}` : `signal ${ending.signal}`;
  const words =
    said
      .trim()
      .split("\n")
      .at(-1)
      ?.replace(/[^\x20-\x7e]/g, "?") ?? "";
  return words === "" ? `it ended with ${how}` : `it ended with ${how}: ${words}`;
}
