import { closeOnExecFrom } from "../../../ffi/descriptor.ts";
import { execute, resetSignals } from "../../../ffi/process.ts";
import { errnoMessage } from "../../../ffi/system-call-error.ts";
import { ExecutorRefused } from "../executor.ts";

/**
 * Goes on as another program, with the same number and the same children: execve(2). Descriptors
 * are closed by it, and locks given back.
 * @throws ExecutorRefused when the kernel does not do it: all is as before then
 */
export function followSelf(
  argv: readonly [string, ...string[]],
  environment: Readonly<Record<string, string>>,
): never {
  closeOnExecFrom(3);
  const restoreSignals = resetSignals();
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  const errno = execute(argv[0], argv, variables);
  restoreSignals();
  throw new ExecutorRefused(
    `Cannot go on as ${argv[0]}: expected a program that can be run, received ` +
      `${errnoMessage(errno)}. Look at the file.`,
  );
}
