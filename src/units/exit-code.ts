/** What the exit status of every hostler command means. */
export const ExitCode = {
  /** Done. */
  done: 0,
  /** The command line or a file that it names is wrong. */
  usage: 100,
  /** A bug of ours. */
  bug: 101,
  /** The system, or a daemon, refused. */
  refused: 111,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];
