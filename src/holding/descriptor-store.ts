import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { type HolderRefusal, refuseName } from "./protocol.ts";

/** Descriptors by name. What is in it is closed by `drop`, and by nothing else. */
export class DescriptorStore {
  readonly #kept = new Map<string, OwnedDescriptor>();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#kept.size;
  }

  get names(): string[] {
    return [...this.#kept.keys()];
  }

  get(name: string): OwnedDescriptor | undefined {
    return this.#kept.get(name);
  }

  /** Why nothing more can be kept under this name; asked before anything is made. */
  refuse(name: string): HolderRefusal | undefined {
    const refusal = refuseName(name);
    if (refusal !== undefined) return refusal;
    if (this.#kept.has(name)) {
      const message = `Something is kept under ${JSON.stringify(name)} already: drop it first`;
      return { code: "EEXIST", message };
    }
    if (this.#kept.size < this.#most) return undefined;
    const message = `Expected at most ${this.#most} kept descriptors, received one more`;
    return { code: "EMFILE", message };
  }

  /** Takes the descriptor over. */
  keep(name: string, descriptor: OwnedDescriptor): void {
    if (this.#kept.has(name)) throw new Error("Bug: a kept descriptor would have been lost");
    this.#kept.set(name, descriptor);
  }

  /** False when nothing was kept under the name. */
  drop(name: string): boolean {
    this.#kept.get(name)?.close();
    return this.#kept.delete(name);
  }
}
