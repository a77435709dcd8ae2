import type { ScsiAnswer, ScsiCommand } from "../../../ffi/disk-commands.ts";
import type { DiskHealth } from "./health.ts";

export type SelfTestState =
  | { readonly kind: "running"; readonly percent: number }
  | { readonly kind: "ended" }
  | { readonly kind: "unknown"; readonly reason: string };

/** Sends a command and waits for its answer: `scsiCommand`, or a test. */
export type ScsiAsk = (command: ScsiCommand) => ScsiAnswer;

/** A disk that is asked by commands of our own. Every call blocks until the disk has answered. */
export interface AskedDisk {
  health(): DiskHealth;
  /** Begins a self-test, which goes on by itself. @returns why it does not */
  start(kind: "short" | "extended"): string | undefined;
  /** Of the self-test that runs. */
  state(): SelfTestState;
}
