import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";
import type { DeviceStatus, LastWords } from "./protocol.ts";

/**
 * Who starts and ends agents on this host: the one seam between an upgrade that was decided and the
 * service manager, or parent, that this host has. Links are none of its business.
 */
export interface Executor {
  readonly kind: DeviceStatus["executor"];
  /**
   * Starts a candidate beside the canonical agent, and waits until it says that it is ready. It
   * lives on when whoever asked for it ends. What is left of another candidate is ended before.
   * @throws ExecutorRefused when nothing was started
   */
  startCandidate(start: CandidateStart): Promise<CandidateOutcome>;
  /** One that an agent before this one has started: whether it runs. @throws ExecutorRefused */
  findCandidate(instance: string): Promise<boolean>;
  /** Resolves when it has ended, by itself or not; at once where there is none. */
  candidateEnd(instance: string): Promise<LastWords>;
  /** Ends it, and all that it has started. Gives what it left. @throws ExecutorRefused */
  stopCandidate(instance: string): Promise<LastWords>;
  /**
   * Has the canonical agent end, and start again from what `current` leads to by then. It returns
   * before that: whoever asks is what ends.
   * @throws ExecutorRefused
   */
  restartCanonical(): Promise<void>;
  /**
   * What the canonical agent before this one left, as far as it is known here; null: nothing is. Of
   * one that failed its log says why. @throws ExecutorRefused
   */
  formerCanonicalEnd(): Promise<LastWords | null>;
  /**
   * Runs a program to its end with as little as this host can leave it: to read, and nothing else.
   * One that takes longer is killed.
   */
  runConfined(argv: readonly string[], limit: Milliseconds): Promise<CommandAnswer>;
}

export interface CommandAnswer {
  /** -1: it could not be started, or did not end in time. */
  readonly code: number;
  readonly output: string;
  /** The end of what it said on stderr. */
  readonly said: string;
  /** That ended it; SIGKILL where its time was over. */
  readonly signal?: string;
}

export interface CandidateStart {
  /** 32 hexadecimal digits, new for each start. */
  readonly instance: string;
  /** Its file, in the folder of its version. */
  readonly program: string;
  readonly words: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** The dead man's switch: then it is ended, whoever lives. */
  readonly endsAfter: Milliseconds;
  /** Longest time until it says that it is ready. */
  readonly readyWithin: Milliseconds;
}

export type CandidateOutcome =
  | { readonly kind: "ready" }
  /** It has ended, or was ended, before it was ready. */
  | { readonly kind: "ended"; readonly lastWords: LastWords };

/** The service manager, or the host, does not do it. */
export class ExecutorRefused extends Error {
  override readonly name = "ExecutorRefused";
  readonly exitCode = ExitCode.refused;
}

/** What is known of one of which nothing is left to be asked. */
export const unknownEnding: LastWords = {
  ending: "it is gone, and nobody saw how",
  log: "",
  processor_seconds: null,
  memory_peak_bytes: null,
};
