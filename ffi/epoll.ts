import { libc } from "./c-library.ts";
import { EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory, nullAddress } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { check, Errno, errorNumber, SystemCallError } from "./system-call-error.ts";

export {
  EPOLLERR,
  EPOLLHUP,
  EPOLLIN,
  EPOLLONESHOT,
  EPOLLOUT,
  EPOLLPRI,
  EPOLLRDHUP,
} from "./constants.ts";

const layout = layouts.epoll_event;

/** A new epoll instance: epoll_create1(2). */
export function makeEpoll(): OwnedDescriptor {
  return new OwnedDescriptor(check("epoll_create1", libc.epoll_create1(EPOLL_CLOEXEC)));
}

const scratch = new NativeMemory(layout.size);

function change(epoll: OwnedDescriptor, operation: number, watched: number, fields: EpollEvent) {
  scratch.view.setUint32(layout.events, fields.events >>> 0, true);
  scratch.setUnsigned64(layout.data, fields.key);
  return libc.epoll_ctl(epoll.number, operation, watched, scratch.address);
}

/** What is watched for, or what is ready, under the key given at registration. */
export interface EpollEvent {
  readonly events: number;
  readonly key: number;
}

/** Watches a descriptor: epoll_ctl(2). @throws SystemCallError (EPERM: a regular file). */
export function epollAdd(
  epoll: OwnedDescriptor,
  watched: OwnedDescriptor,
  event: EpollEvent,
): void {
  check("epoll_ctl", change(epoll, EPOLL_CTL_ADD, watched.number, event), "(add)");
}

/** Changes what a watched descriptor is watched for, and arms a one-shot watch again. */
export function epollModify(
  epoll: OwnedDescriptor,
  watched: OwnedDescriptor,
  event: EpollEvent,
): void {
  check("epoll_ctl", change(epoll, EPOLL_CTL_MOD, watched.number, event), "(modify)");
}

/** Stops watching a descriptor; one that is not watched (ENOENT) is no error. */
export function epollRemove(epoll: OwnedDescriptor, watched: OwnedDescriptor): void {
  const result = libc.epoll_ctl(epoll.number, EPOLL_CTL_DEL, watched.number, nullAddress);
  if (result === -1) {
    const errno = errorNumber();
    if (errno !== Errno.ENOENT) throw new SystemCallError("epoll_ctl", errno, "(remove)");
  }
}

/** Takes what is ready: epoll_wait(2). */
export class EpollWaiter {
  readonly #epoll: number;
  readonly #limit: number;
  readonly #memory: NativeMemory;

  constructor(epoll: number, limit: number) {
    this.#epoll = epoll;
    this.#limit = limit;
    this.#memory = new NativeMemory(limit * layout.size);
  }

  /** Blocks this thread until something is ready; empty after EINTR. */
  wait(): number[] {
    const WITHOUT_LIMIT = -1;
    return this.#take(WITHOUT_LIMIT);
  }

  /** What is ready now; empty when nothing is. */
  poll(): number[] {
    return this.#take(0);
  }

  /** Key and events in turn, flat, for as many descriptors as are ready. */
  #take(milliseconds: number): number[] {
    const count = libc.epoll_wait(this.#epoll, this.#memory.address, this.#limit, milliseconds);
    if (count === -1) {
      const errno = errorNumber();
      if (errno === Errno.EINTR) return [];
      throw new SystemCallError("epoll_wait", errno);
    }
    const ready: number[] = [];
    for (let index = 0; index < count; index++) {
      const offset = index * layout.size;
      ready.push(this.#memory.getUnsigned64(offset + layout.data));
      ready.push(this.#memory.view.getUint32(offset + layout.events, true));
    }
    return ready;
  }
}
