import { libc } from "./c-library.ts";
import { Errno, errorNumber } from "./system-call-error.ts";

/**
 * A file descriptor that somebody owns: closed once, by whoever holds this object. Using the
 * number after closing is a bug and throws.
 */
export class OwnedDescriptor implements Disposable {
  #number: number;

  constructor(number: number) {
    this.#number = number;
  }

  /** The descriptor's number, for a system call made now; do not keep it. */
  get number(): number {
    if (this.#number < 0) throw new Error("Bug: a descriptor was used after it was closed");
    return this.#number;
  }

  get isOpen(): boolean {
    return this.#number >= 0;
  }

  /** Gives the number away: the caller closes it from now on. */
  release(): number {
    const number = this.number;
    this.#number = -1;
    return number;
  }

  /**
   * Closes the descriptor. Closing twice does nothing; that somebody else closed it is a bug, as
   * its number may be another file by then. close(2) is never retried on Linux.
   */
  close(): void {
    if (this.#number < 0) return;
    const number = this.#number;
    this.#number = -1;
    if (libc.close(number) === -1 && errorNumber() === Errno.EBADF) {
      throw new Error(`Bug: descriptor ${number} was closed by somebody else`);
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
