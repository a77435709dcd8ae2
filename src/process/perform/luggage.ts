import { existsSync, fstatSync } from "node:fs";
import { keepOnExec, linkTarget, setCloseOnExec } from "../../../ffi/descriptor.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { InheritedListener } from "../../messaging/kept-listener.ts";
import type { CarriedDescriptor, CarriedListener, StateRefusal } from "../protocol-state.ts";
import { InheritanceRefused } from "./inheritance.ts";
import { descriptorInformation } from "./process-table.ts";

/**
 * Which open file it is: pipes and sockets have a number of their own, and so have pidfds since
 * Linux 6.9; of a file the path may change at any time, and its device and inode do not.
 */
function identityOf(descriptor: OwnedDescriptor): string {
  const link = linkTarget(descriptor);
  if (!link.startsWith("/")) return link;
  const { dev, ino } = fstatSync(descriptor.number, { bigint: true });
  return `file ${dev}:${ino}`;
}

/** Descriptors on their way through an exec: what is packed stays open, and is found by number. */
export class Luggage {
  readonly #packed: OwnedDescriptor[] = [];

  /** Notes a descriptor, and what it is. Closed ones are a bug. */
  pack(descriptor: OwnedDescriptor): CarriedDescriptor {
    this.#packed.push(descriptor);
    return { number: descriptor.number, is: identityOf(descriptor) };
  }

  packListener(listener: InheritedListener | undefined): CarriedListener | undefined {
    if (listener === undefined) return undefined;
    return { socket: this.pack(listener.socket), file: listener.file };
  }

  /** Has an exec leave them open. */
  keep(): void {
    for (const { number } of this.#packed) keepOnExec(number);
  }

  /** The exec was refused: nobody else may get them. */
  keepNot(): void {
    for (const { number } of this.#packed) setCloseOnExec(number);
  }
}

/** A descriptor is not what the state says: nothing is done with any of them. */
export class WrongLuggage extends InheritanceRefused {
  override readonly name = "WrongLuggage";

  constructor(refusal: StateRefusal) {
    super(refusal, "had open");
  }
}

/** Takes what was packed, each once, and only when it is what it should be. */
export class Unpacking {
  readonly #taken = new Set<number>();

  /** @throws WrongLuggage when another file is open there, none, or it was taken already */
  take({ number, is }: CarriedDescriptor): OwnedDescriptor {
    const expected = `descriptor ${number} to be ${is}`;
    if (this.#taken.has(number)) {
      throw new WrongLuggage({ expected, received: "the same number twice" });
    }
    if (!existsSync(`/proc/self/fdinfo/${number}`)) {
      throw new WrongLuggage({ expected, received: "none" });
    }
    const descriptor = new OwnedDescriptor(number);
    if (identityOf(descriptor) !== is) {
      const found = linkTarget(descriptor);
      descriptor.release();
      throw new WrongLuggage({ expected, received: found });
    }
    setCloseOnExec(number);
    this.#taken.add(number);
    return descriptor;
  }

  /** @throws WrongLuggage */
  takeListener({ socket, file }: CarriedListener): InheritedListener {
    return { socket: this.take(socket), file };
  }

  /**
   * Takes the pidfd of a process. What /proc/self/fd shows of one is the same for all below Linux
   * 6.9; the number that the kernel says is its process's alone while it is not reaped.
   * @throws WrongLuggage
   */
  takeProcess(carried: CarriedDescriptor, processId: number): OwnedDescriptor {
    const process = this.take(carried);
    const said = descriptorInformation(process.number).get("Pid");
    // -1: it was reaped, by its parent or by the first process of its partition.
    if (said === String(processId) || said === "-1") return process;
    throw new WrongLuggage({
      expected: `descriptor ${carried.number} to be a pidfd of process ${processId}`,
      received: said === undefined ? "no pidfd" : `one of process ${said}`,
    });
  }
}
