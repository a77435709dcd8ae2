/** Tries single system calls, on this process, on a pair of sockets and on a child. */
import { closeOnExecFrom } from "../../ffi/descriptor.ts";
import { EPOLLIN, EpollWaiter, epollAdd, makeEpoll } from "../../ffi/epoll.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import {
  isThere,
  openProcess,
  processInformation,
  signalProcessGroup,
  waitForChild,
} from "../../ffi/pidfd.ts";
import { PreparedSpawn } from "../../ffi/posix-spawn.ts";
import { SystemCallError } from "../../ffi/system-call-error.ts";
import { makeSocketPair, peerProcess } from "../../ffi/unix-socket.ts";
import type { CallFeature, Trial } from "./findings.ts";

/** Above all descriptors that a process can have: the call is made, and marks none. */
const NO_DESCRIPTOR = 0x7fff_ffff;

/** Each feature is tried by itself; what the kernel refuses hinders no other trial. */
export function tryCalls(): Record<CallFeature, Trial> {
  return {
    pidfd_open: attempt(tryOpenProcess),
    ...tryWithChild(),
    peer_process: attempt(tryPeerProcess),
    close_range: attempt(() => {
      closeOnExecFrom(NO_DESCRIPTOR);
      return { outcome: "works", detail: "close-on-exec for a range" };
    }),
  };
}

/** What the kernel refuses is absent here; anything else is a bug. */
function attempt(trial: () => Trial): Trial {
  try {
    return trial();
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return { outcome: "absent", detail: error.message };
  }
}

function tryOpenProcess(): Trial {
  using self = openProcess(process.pid);
  if (self === undefined || !isThere(self)) {
    return { outcome: "absent", detail: "we do not find ourselves: is /proc another namespace's?" };
  }
  return { outcome: "works", detail: "opened and signalled this process" };
}

function tryPeerProcess(): Trial {
  const [left, right] = makeSocketPair();
  using one = left;
  using _other = right;
  using peer = peerProcess(one);
  return peer === undefined
    ? { outcome: "absent", detail: "no SO_PEERPIDFD" }
    : { outcome: "works", detail: "SO_PEERPIDFD on a pair of sockets" };
}

/** A child of this very file, which ends by itself: /proc/self/exe --version. */
function tryWithChild(): Record<"exit_information" | "process_group_signal", Trial> {
  using spawn = new PreparedSpawn({
    path: "/proc/self/exe",
    argv: ["hostler", "--version"],
    environment: [],
    descriptors: [],
  });
  const result = spawn.spawn();
  if (result.kind === "refused") {
    const { message } = new SystemCallError("posix_spawn", result.errno, "/proc/self/exe");
    const untried: Trial = { outcome: "untried", detail: message };
    return { exit_information: untried, process_group_signal: untried };
  }
  using child = result.process;
  // While it runs or is a zombie, it is a member of the group that it leads.
  const process_group_signal = attempt(() => tryGroupSignal(child));
  waitUntilEnded(child);
  const ending = waitForChild(child, "reap");
  return { process_group_signal, exit_information: attempt(() => tryInformation(child, ending)) };
}

function waitUntilEnded(child: OwnedDescriptor): void {
  using epoll = makeEpoll();
  epollAdd(epoll, child, { events: EPOLLIN, key: 1 });
  while (new EpollWaiter(epoll.number, 1).wait().length === 0);
}

function tryGroupSignal(child: OwnedDescriptor): Trial {
  return signalProcessGroup(child, 0) === "unsupported"
    ? { outcome: "absent", detail: "no PIDFD_SIGNAL_PROCESS_GROUP" }
    : { outcome: "works", detail: "asked for a child's group" };
}

function tryInformation(child: OwnedDescriptor, ending: ReturnType<typeof waitForChild>): Trial {
  const information = processInformation(child);
  if (information === "unsupported") return { outcome: "absent", detail: "no PIDFD_GET_INFO" };
  if (information === "gone" || information.ending === undefined) {
    return { outcome: "absent", detail: "PIDFD_GET_INFO without the exit status" };
  }
  return Bun.deepEquals(information.ending, ending)
    ? { outcome: "works", detail: "exit status of a child that was reaped" }
    : { outcome: "absent", detail: "PIDFD_GET_INFO tells another exit status than waitid" };
}
