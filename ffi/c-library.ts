import { dlopen, type FFIFunction, FFIType, type Library } from "bun:ffi";

/** Which C library answered. */
export interface CLibrary {
  readonly name: "glibc" | "musl";
  /** Such as "2.36"; musl does not tell. */
  readonly version: string | undefined;
}

const int = FFIType.i32;
const long = FFIType.i64_fast;
const address = FFIType.ptr;

/**
 * Every function we call, with its C signature. `int` is i32, `size_t`, `ssize_t` and `long` are
 * i64_fast (a number while it fits), pointers are addresses as numbers. Variadic functions
 * (syscall, fcntl, ioctl, prctl, open) take their arguments in the same registers as others do on
 * x86-64 and arm64 Linux (System V ABI; AAPCS64).
 */
const signatures = {
  syscall: { args: [long, long, long, long, long, long, long], returns: long },
  __errno_location: { args: [], returns: address },
  strerror: { args: [int], returns: address },

  read: { args: [int, address, long], returns: long },
  write: { args: [int, address, long], returns: long },
  close: { args: [int], returns: int },
  pipe2: { args: [address, int], returns: int },
  open: { args: [address, int, int], returns: int },
  mkfifo: { args: [address, int], returns: int },
  lseek: { args: [int, long, int], returns: long },
  readlink: { args: [address, address, long], returns: long },
  memfd_create: { args: [address, int], returns: int },
  futimens: { args: [int, address], returns: int },
  flock: { args: [int, int], returns: int },
  fcntl: { args: [int, int, long], returns: int },
  dup3: { args: [int, int, int], returns: int },
  ioctl: { args: [int, long, address], returns: int },
  eventfd: { args: [int, int], returns: int },

  mmap: { args: [address, long, int, int, int, long], returns: long },
  munmap: { args: [address, long], returns: int },
  madvise: { args: [address, long, int], returns: int },
  mlock: { args: [address, long], returns: int },
  memcpy: { args: [address, address, long], returns: address },
  memcmp: { args: [address, address, long], returns: int },
  sched_getcpu: { args: [], returns: int },
  sched_setaffinity: { args: [int, long, address], returns: int },

  epoll_create1: { args: [int], returns: int },
  epoll_ctl: { args: [int, int, int, address], returns: int },
  epoll_wait: { args: [int, address, int, int], returns: int },

  socket: { args: [int, int, int], returns: int },
  socketpair: { args: [int, int, int, address], returns: int },
  bind: { args: [int, address, int], returns: int },
  listen: { args: [int, int], returns: int },
  getsockname: { args: [int, address, address], returns: int },
  accept4: { args: [int, address, address, int], returns: int },
  connect: { args: [int, address, int], returns: int },
  shutdown: { args: [int, int], returns: int },
  poll: { args: [address, long, int], returns: int },
  getsockopt: { args: [int, int, int, address, address], returns: int },
  setsockopt: { args: [int, int, int, address, int], returns: int },
  send: { args: [int, address, long, int], returns: long },
  recvfrom: { args: [int, address, long, int, address, address], returns: long },

  kill: { args: [int, int], returns: int },
  waitid: { args: [int, int, address, int], returns: int },
  prlimit: { args: [int, int, address, address], returns: int },
  getpriority: { args: [int, int], returns: int },
  setpriority: { args: [int, int, int], returns: int },
  prctl: { args: [int, long, long, long, long], returns: int },
  umask: { args: [int], returns: int },
  chdir: { args: [address], returns: int },
  execve: { args: [address, address, address], returns: int },
  unshare: { args: [int], returns: int },
  mount: { args: [address, address, address, long, address], returns: int },
  umount2: { args: [address, int], returns: int },
  mknod: { args: [address, int, long], returns: int },
  clock_gettime: { args: [int, address], returns: int },
  sigemptyset: { args: [address], returns: int },
  pthread_sigmask: { args: [int, address, address], returns: int },

  posix_spawn: { args: [address, address, address, address, address, address], returns: int },
  posix_spawn_file_actions_init: { args: [address], returns: int },
  posix_spawn_file_actions_destroy: { args: [address], returns: int },
  posix_spawn_file_actions_addopen: {
    args: [address, int, address, int, int],
    returns: int,
  },
  posix_spawn_file_actions_adddup2: { args: [address, int, int], returns: int },
  posix_spawn_file_actions_addchdir_np: { args: [address, address], returns: int },
  posix_spawnattr_init: { args: [address], returns: int },
  posix_spawnattr_destroy: { args: [address], returns: int },
  posix_spawnattr_setflags: { args: [address, FFIType.i16], returns: int },
  posix_spawnattr_setsigdefault: { args: [address, address], returns: int },
  posix_spawnattr_setsigmask: { args: [address, address], returns: int },
  posix_spawnattr_setschedpolicy: { args: [address, int], returns: int },
  posix_spawnattr_setschedparam: { args: [address, address], returns: int },
} as const satisfies Record<string, FFIFunction>;

type Symbols = Library<typeof signatures>["symbols"];

interface Opened {
  readonly library: CLibrary;
  readonly symbols: Symbols;
}

/**
 * glibc's file name, to which musl's loader answers as well. It must be a name that is loaded
 * already: for another one Bun looks into the working directory at last.
 */
const file = "libc.so.6";

/** glibc is known by a function of its own. */
function openGlibc(): Opened {
  const version = { gnu_get_libc_version: { args: [], returns: FFIType.cstring } } as const;
  const { symbols } = dlopen(file, { ...signatures, ...version });
  const text = String(symbols.gnu_get_libc_version());
  return { library: { name: "glibc", version: text }, symbols };
}

function openMusl(): Opened {
  return {
    library: { name: "musl", version: undefined },
    symbols: dlopen(file, signatures).symbols,
  };
}

function open(): Opened {
  const refusals: unknown[] = [];
  for (const candidate of [openGlibc, openMusl]) {
    try {
      return candidate();
    } catch (refusal) {
      refusals.push(refusal);
    }
  }
  throw new AggregateError(
    refusals,
    `Cannot call the C library ${file}, neither as glibc nor as musl. ` +
      "hostler needs glibc 2.34 or newer, or musl 1.2, and a process that may make memory " +
      "executable: no MemoryDenyWriteExecute=, and execmem where SELinux rules.",
  );
}

const opened = open();

/** The C library that this process runs on. */
export const cLibrary: CLibrary = opened.library;

/** A C function as we call it: i64_fast gives a number for all that our calls can return. */
type AsNumber<Call> = Call extends (...values: infer Values) => infer Result
  ? (...values: Values) => bigint extends Result ? number : Result
  : never;

/** The functions of the C library. Only the wrappers in this folder call them. */
export const libc = opened.symbols as unknown as {
  readonly [Name in keyof typeof signatures]: AsNumber<Symbols[Name]>;
};
