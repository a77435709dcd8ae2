/**
 * Numbers of the kernel and the C library, under their own names, by header. All that is the same
 * on x86-64 and arm64 stands here once; what differs stands in `differing`. A contract test holds
 * each of them against what gcc says for both.
 */

/** The architectures we run on, by the name that `process.arch` has for them. */
export type Architecture = "x64" | "arm64";

/** This machine's; any other than arm64 is x86-64, because there is no other build. */
export const architecture: Architecture = process.arch === "arm64" ? "arm64" : "x64";

const differing = {
  x64: {
    O_NOFOLLOW: 0o400000,
    SYS_rt_sigaction: 13,
    SYS_sendmsg: 46,
    SYS_recvmsg: 47,
    SYS_capget: 125,
    SYS_capset: 126,
    SYS_sched_getparam: 143,
    SYS_sched_setscheduler: 144,
    SYS_sched_getscheduler: 145,
    SYS_io_setup: 206,
    SYS_io_destroy: 207,
    SYS_io_getevents: 208,
    SYS_io_submit: 209,
    SYS_reboot: 169,
    SYS_sync: 162,
    SYS_kexec_file_load: 320,
  },
  arm64: {
    O_NOFOLLOW: 0o100000,
    SYS_rt_sigaction: 134,
    SYS_sendmsg: 211,
    SYS_recvmsg: 212,
    SYS_capget: 90,
    SYS_capset: 91,
    SYS_sched_setscheduler: 119,
    SYS_sched_getscheduler: 120,
    SYS_sched_getparam: 121,
    SYS_io_setup: 0,
    SYS_io_destroy: 1,
    SYS_io_submit: 2,
    SYS_io_getevents: 4,
    SYS_reboot: 142,
    SYS_sync: 81,
    SYS_kexec_file_load: 294,
  },
} as const;

/** Those numbers that differ, on the given architecture. */
export function differingConstants(of: Architecture): Readonly<Record<string, number>> {
  return differing[of];
}

// <fcntl.h>
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;
export const O_NOFOLLOW = differing[architecture].O_NOFOLLOW;
export const AT_RECURSIVE = 0x8000;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_SETFD = 2;
export const FD_CLOEXEC = 1;
export const F_DUPFD_CLOEXEC = 1030;

// <sys/stat.h>
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;

// <sys/file.h>
export const LOCK_EX = 2;
export const LOCK_NB = 4;

// <sys/eventfd.h>
export const EFD_CLOEXEC = 0o2000000;
export const EFD_NONBLOCK = 0o4000;

// <sys/epoll.h>
export const EPOLLIN = 0x001;
export const EPOLLPRI = 0x002;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
export const EPOLLRDHUP = 0x2000;
export const EPOLLONESHOT = 1 << 30;
export const EPOLL_CLOEXEC = 0o2000000;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLL_CTL_MOD = 3;

// <poll.h>
export const POLLIN = 0x1;
export const POLLHUP = 0x10;
export const POLLRDHUP = 0x2000;

// <linux/close_range.h>
export const CLOSE_RANGE_CLOEXEC = 4;

// <sys/syscall.h>
export const SYS_pidfd_send_signal = 424;
export const SYS_pidfd_open = 434;
export const SYS_close_range = 436;
export const SYS_pidfd_getfd = 438;
export const SYS_mount_setattr = 442;
export const SYS_rt_sigaction = differing[architecture].SYS_rt_sigaction;
export const SYS_sendmsg = differing[architecture].SYS_sendmsg;
export const SYS_recvmsg = differing[architecture].SYS_recvmsg;
export const SYS_capget = differing[architecture].SYS_capget;
export const SYS_capset = differing[architecture].SYS_capset;
export const SYS_sched_getparam = differing[architecture].SYS_sched_getparam;
export const SYS_sched_setscheduler = differing[architecture].SYS_sched_setscheduler;
export const SYS_sched_getscheduler = differing[architecture].SYS_sched_getscheduler;
export const SYS_io_setup = differing[architecture].SYS_io_setup;
export const SYS_io_destroy = differing[architecture].SYS_io_destroy;
export const SYS_io_submit = differing[architecture].SYS_io_submit;
export const SYS_io_getevents = differing[architecture].SYS_io_getevents;
export const SYS_reboot = differing[architecture].SYS_reboot;
export const SYS_sync = differing[architecture].SYS_sync;
export const SYS_kexec_file_load = differing[architecture].SYS_kexec_file_load;
// <linux/aio_abi.h>
export const IOCB_CMD_POLL = 5;
export const IOCB_FLAG_RESFD = 1;

// <sys/wait.h>
export const P_PID = 1;
export const P_PIDFD = 3;
export const WNOHANG = 1;
export const WEXITED = 4;
export const WNOWAIT = 0x0100_0000;

// <bits/siginfo-consts.h>
export const CLD_EXITED = 1;
export const CLD_DUMPED = 3;

// <signal.h>
export const SIG_SETMASK = 2;

// <linux/pidfd.h>: Linux 6.13, the 64-byte form; the exit bit 6.15; the group flag 6.9.
export const PIDFD_GET_INFO = 0xc040_ff0b;
export const PIDFD_INFO_EXIT = 8;
export const PIDFD_SIGNAL_PROCESS_GROUP = 4;

// <linux/nsfs.h>
export const NS_GET_PARENT = 0xb702;

// <sys/socket.h>, <linux/socket.h>
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_VSOCK = 40;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SHUT_WR = 1;
export const SOL_SOCKET = 1;
export const SO_TYPE = 3;
export const SO_ERROR = 4;
export const SO_PASSCRED = 16;
export const SO_PEERCRED = 17;
export const SO_PEERSEC = 31;
export const SO_DOMAIN = 39;
export const SO_PEERPIDFD = 77;
export const SCM_RIGHTS = 1;
export const SCM_CREDENTIALS = 2;
export const MSG_CTRUNC = 8;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_CMSG_CLOEXEC = 0x4000_0000;

// <spawn.h>, equal in glibc and musl
export const POSIX_SPAWN_SETSIGDEF = 0x04;
export const POSIX_SPAWN_SETSIGMASK = 0x08;
export const POSIX_SPAWN_SETSCHEDULER = 0x20;
export const POSIX_SPAWN_SETSID = 0x80;

// <sched.h>, <sys/resource.h>, <time.h>
export const CLONE_NEWNS = 0x2_0000;
export const SCHED_OTHER = 0;
export const SCHED_RESET_ON_FORK = 0x4000_0000;
export const RLIMIT_NOFILE = 7;
export const PRIO_PROCESS = 0;
export const CLOCK_REALTIME = 0;
export const CLOCK_MONOTONIC = 1;

// <linux/mount.h>: the attributes are of Linux 5.12.
export const MS_NOSUID = 2;
export const MS_NOEXEC = 8;
export const MS_BIND = 0x1000;
export const MS_REC = 0x4000;
export const MS_PRIVATE = 0x4_0000;
export const MOUNT_ATTR_RDONLY = 1;
export const MOUNT_ATTR_NOSUID = 2;
export const MOUNT_ATTR_NODEV = 4;
export const MOUNT_ATTR_NOEXEC = 8;

// <sys/mount.h>
export const MNT_DETACH = 2;

// <linux/memfd.h>
export const MFD_CLOEXEC = 1;
export const MFD_ALLOW_SEALING = 2;

// <linux/liveupdate.h>: Linux 6.19; the name 7.2. No ioctl of these has size or direction bits.
export const LIVEUPDATE_IOCTL_CREATE_SESSION = 0xba00;
export const LIVEUPDATE_IOCTL_RETRIEVE_SESSION = 0xba01;
export const LIVEUPDATE_SESSION_PRESERVE_FD = 0xba40;
export const LIVEUPDATE_SESSION_RETRIEVE_FD = 0xba41;
export const LIVEUPDATE_SESSION_FINISH = 0xba42;
export const LIVEUPDATE_SESSION_GET_NAME = 0xba43;

// <linux/kexec.h>
export const KEXEC_FILE_UNLOAD = 1;
export const KEXEC_FILE_NO_INITRAMFS = 4;

// <linux/reboot.h>
export const LINUX_REBOOT_MAGIC1 = 0xfee1_dead;
export const LINUX_REBOOT_MAGIC2 = 672_274_793;
export const LINUX_REBOOT_CMD_RESTART = 0x0123_4567;
export const LINUX_REBOOT_CMD_HALT = 0xcdef_0123;
export const LINUX_REBOOT_CMD_POWER_OFF = 0x4321_fedc;
export const LINUX_REBOOT_CMD_KEXEC = 0x4558_4543;

// <linux/prctl.h>
export const PR_SET_KEEPCAPS = 8;
export const PR_CAPBSET_DROP = 24;
export const PR_SET_NO_NEW_PRIVS = 38;
export const PR_CAP_AMBIENT = 47;
export const PR_CAP_AMBIENT_RAISE = 2;
export const PR_CAP_AMBIENT_CLEAR_ALL = 4;

// <linux/capability.h>
export const LINUX_CAPABILITY_VERSION_3 = 0x2008_0522;
