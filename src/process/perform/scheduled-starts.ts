import type { Instance, ProcessEvent, Refusal } from "../lifecycle.ts";
import type { ManagedProcess, Partition } from "./partition.ts";
import { limitResources, type ResourceResult } from "./resources.ts";
import { schedule } from "./scheduling.ts";

/** What of a process has to be known. */
interface Place {
  readonly process: ManagedProcess;
  readonly partition: Partition;
}

/** Told what became of the limits of a process. */
export type TellResources = (name: string, result: ResourceResult) => void;

/** A start that was made, and may not stay. */
interface RefusedStart {
  readonly refusal: Refusal;
  readonly instance: Instance;
  /** The word that is waited for. */
  readonly answer: "start-refused" | "not-found";
}

/**
 * Starts are told when their processes are scheduled as they are to be. One that may not have it
 * is ended, all of it, and then told as a start that was refused.
 */
export class ScheduledStarts {
  readonly #tell: TellResources;
  readonly #refused = new Map<string, RefusedStart>();

  constructor(tell: TellResources) {
    this.#tell = tell;
  }

  /** Some are being ended. */
  get isBusy(): boolean {
    return this.#refused.size > 0;
  }

  /** What is told in the place of this event; undefined when nothing is. */
  pass({ process, partition }: Place, event: ProcessEvent): ProcessEvent | undefined {
    if (event.kind === "started" || event.kind === "found") {
      return this.#passStart({ process, partition }, event);
    }
    if (this.#refused.size === 0 || !("invocation" in event)) return event;
    const { invocation } = event;
    const refused = this.#refused.get(invocation);
    if (refused === undefined) return event;
    const { refusal, instance, answer } = refused;
    if (event.kind === "died") partition.clear(process, instance);
    if (event.kind !== "cleared") return undefined;
    this.#refused.delete(invocation);
    if (answer === "not-found") return { kind: answer, invocation };
    return { kind: answer, invocation, refusal };
  }

  #passStart(
    { process, partition }: Place,
    event: Extract<ProcessEvent, { kind: "started" | "found" }>,
  ): ProcessEvent | undefined {
    const { invocation, processId } = event;
    const refusal = reschedule({ process, partition }, { invocation, processId }, this.#tell);
    if (refusal === undefined) return event;
    const instance: Instance = { invocation, processId, startedAt: 0 };
    const answer = event.kind === "started" ? "start-refused" : "not-found";
    this.#refused.set(invocation, { refusal, instance, answer });
    partition.kill(process, instance);
    return undefined;
  }
}

/** Has a process that runs scheduled as its configuration says now; why that cannot be. */
export function reschedule(
  { process, partition }: Place,
  { invocation, processId }: Pick<Instance, "invocation" | "processId">,
  tell: TellResources,
): Refusal | undefined {
  const descriptor = partition.processOf(invocation);
  if (descriptor === undefined) return undefined;
  const { specification } = process;
  const scheduled = { processId, process: descriptor };
  const limited = limitResources(scheduled, invocation, specification);
  tell(specification.name, limited);
  const result = schedule(scheduled, specification.scheduling);
  return limited.refusal ?? (typeof result === "string" ? undefined : result);
}
