/**
 * Signals whose default is the end of a process, and which are sent to daemons for other reasons:
 * a terminal or an SSH connection that hangs up, "read your files again", timers of a wrapper.
 */
const ignoredSignals = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"] as const;

/**
 * Says of each such signal that it came, and has it do nothing: a daemon that ended by it would
 * leave alone whatever it looks after. The programs that it starts have them at their default.
 * @param onReload in place of that, what SIGHUP has a daemon do that can read its files again
 */
export function ignoreSignals(say: (message: string) => void, onReload?: () => void): void {
  for (const signal of ignoredSignals) {
    if (signal === "SIGHUP" && onReload !== undefined) {
      process.on(signal, onReload);
      continue;
    }
    process.on(signal, () => {
      say(
        `received ${signal}, and ignores it: there is nothing to reload. Restart the daemon to ` +
          "have it read its configuration; SIGTERM ends it",
      );
    });
  }
}
