/** The command line is wrong: exit code 100. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  /** The words of the command that refused, where it is not the one that was called. */
  readonly path: string | undefined;

  constructor(message: string, options: { readonly path?: string } = {}) {
    super(message);
    this.path = options.path;
  }
}
