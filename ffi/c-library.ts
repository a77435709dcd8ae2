import { dlopen, type FFIFunction, FFIType, type Library } from "bun:ffi";

/** Which C library answered, and under which file name it was opened. */
export interface CLibrary {
  readonly name: "glibc" | "musl";
  readonly file: string;
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
  flock: { args: [int, int], returns: int },
  fcntl: { args: [int, int, long], returns: int },
  ioctl: { args: [int, long, address], returns: int },
  eventfd: { args: [int, int], returns: int },

  epoll_create1: { args: [int], returns: int },
  epoll_ctl: { args: [int, int, int, address], returns: int },
  epoll_wait: { args: [int, address, int, int], returns: int },

  socket: { args: [int, int, int], returns: int },
  socketpair: { args: [int, int, int, address], returns: int },
  bind: { args: [int, address, int], returns: int },
  listen: { args: [int, int], returns: int },
  accept4: { args: [int, address, address, int], returns: int },
  connect: { args: [int, address, int], returns: int },
  shutdown: { args: [int, int], returns: int },
  sendmsg: { args: [int, address, int], returns: long },
  recvmsg: { args: [int, address, int], returns: long },
  getsockopt: { args: [int, int, int, address, address], returns: int },
  setsockopt: { args: [int, int, int, address, int], returns: int },

  kill: { args: [int, int], returns: int },
  waitid: { args: [int, int, address, int], returns: int },
  prlimit: { args: [int, int, address, address], returns: int },
  getpriority: { args: [int, int], returns: int },
  setpriority: { args: [int, int, int], returns: int },
  prctl: { args: [int, long, long, long, long], returns: int },
  umask: { args: [int], returns: int },
  chdir: { args: [address], returns: int },
  setgroups: { args: [long, address], returns: int },
  setresgid: { args: [int, int, int], returns: int },
  setresuid: { args: [int, int, int], returns: int },
  execve: { args: [address, address, address], returns: int },
  clock_gettime: { args: [int, address], returns: int },
  sigemptyset: { args: [address], returns: int },
  pthread_sigmask: { args: [int, address, address], returns: int },
  sigaction: { args: [int, address, address], returns: int },
  signal: { args: [int, long], returns: long },

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

const candidates: readonly CLibrary[] = [
  { name: "glibc", file: "libc.so.6" },
  {
    name: "musl",
    file: process.arch === "arm64" ? "libc.musl-aarch64.so.1" : "libc.musl-x86_64.so.1",
  },
];

function open(): { library: CLibrary; symbols: Library<typeof signatures>["symbols"] } {
  const refusals: unknown[] = [];
  for (const library of candidates) {
    try {
      return { library, symbols: dlopen(library.file, signatures).symbols };
    } catch (refusal) {
      refusals.push(refusal);
    }
  }
  const tried = candidates.map((candidate) => candidate.file).join(", then ");
  throw new AggregateError(
    refusals,
    `Cannot open the C library: tried ${tried}. hostler needs glibc 2.34 or newer, or musl 1.2.`,
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
  readonly [Name in keyof typeof signatures]: AsNumber<(typeof opened.symbols)[Name]>;
};
