/** The command line is wrong: exit code 100. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}
