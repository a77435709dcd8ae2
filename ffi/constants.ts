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
    O_DIRECT: 0o40000,
    O_NOFOLLOW: 0o400000,
    SYS_rt_sigaction: 13,
    SYS_sendmsg: 46,
    SYS_recvmsg: 47,
    SYS_capget: 125,
    SYS_capset: 126,
    SYS_setgroups: 116,
    SYS_setresuid: 117,
    SYS_setresgid: 119,
    SYS_sched_getparam: 143,
    SYS_sched_setscheduler: 144,
    SYS_sched_getscheduler: 145,
    SYS_io_setup: 206,
    SYS_io_destroy: 207,
    SYS_io_getevents: 208,
    SYS_io_submit: 209,
    SYS_reboot: 169,
    SYS_mbind: 237,
    SYS_sync: 162,
    SYS_kcmp: 312,
    SYS_kexec_file_load: 320,
  },
  arm64: {
    O_DIRECT: 0o200000,
    O_NOFOLLOW: 0o100000,
    SYS_rt_sigaction: 134,
    SYS_sendmsg: 211,
    SYS_recvmsg: 212,
    SYS_capget: 90,
    SYS_capset: 91,
    SYS_setgroups: 159,
    SYS_setresuid: 147,
    SYS_setresgid: 149,
    SYS_sched_setscheduler: 119,
    SYS_sched_getscheduler: 120,
    SYS_sched_getparam: 121,
    SYS_io_setup: 0,
    SYS_io_destroy: 1,
    SYS_io_submit: 2,
    SYS_io_getevents: 4,
    SYS_reboot: 142,
    SYS_mbind: 235,
    SYS_sync: 81,
    SYS_kcmp: 272,
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
export const O_EXCL = 0o200;
export const O_DIRECT = differing[architecture].O_DIRECT;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
/** lseek(2) */
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
export const O_PATH = 0o10000000;
export const O_NOFOLLOW = differing[architecture].O_NOFOLLOW;
export const AT_RECURSIVE = 0x8000;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_SETFD = 2;
export const FD_CLOEXEC = 1;
export const F_DUPFD_CLOEXEC = 1030;
export const F_OFD_SETLK = 37;
export const F_WRLCK = 1;
export const F_ADD_SEALS = 1033;
export const F_SEAL_SEAL = 1;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;

// <sys/stat.h>
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
// <linux/fs.h>
export const FICLONE = 0x4004_9409;
export const BLKROGET = 0x125e;
export const BLKSSZGET = 0x1268;
export const BLKGETSIZE64 = 0x8008_1272;
// <linux/nvme_ioctl.h>
export const NVME_IOCTL_ADMIN_CMD = 0xc048_4e41;
// <scsi/sg.h>
export const SG_IO = 0x2285;
export const SG_DXFER_NONE = -1;
export const SG_DXFER_FROM_DEV = -3;

// <linux/watchdog.h>
export const WDIOC_GETSUPPORT = 0x8028_5700;
export const WDIOC_KEEPALIVE = 0x8004_5705;
export const WDIOC_SETTIMEOUT = 0xc004_5706;
export const WDIOC_GETTIMEOUT = 0x8004_5707;
export const WDIOF_SETTIMEOUT = 0x0080;
export const WDIOF_MAGICCLOSE = 0x0100;

// <linux/ipmi.h>
export const IPMICTL_SEND_COMMAND = 0x8028_690d;
export const IPMICTL_RECEIVE_MSG_TRUNC = 0xc030_690b;
export const IPMI_SYSTEM_INTERFACE_ADDR_TYPE = 0x0c;
export const IPMI_BMC_CHANNEL = 0xf;
export const IPMI_RESPONSE_RECV_TYPE = 1;
export const IPMI_MAX_MSG_LENGTH = 272;

// <linux/kvm.h>
export const KVM_GET_API_VERSION = 0xae00;
export const KVM_CREATE_VM = 0xae01;
export const KVM_CHECK_EXTENSION = 0xae03;
export const KVM_CAP_USER_MEMORY = 3;
export const KVM_CAP_SPLIT_IRQCHIP = 121;

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
export const POLLOUT = 0x4;
export const POLLHUP = 0x10;
export const POLLRDHUP = 0x2000;

// <linux/kcmp.h>
export const KCMP_FILE = 0;

// <linux/close_range.h>
export const CLOSE_RANGE_CLOEXEC = 4;

// <sys/syscall.h>
export const SYS_pidfd_send_signal = 424;
export const SYS_pidfd_open = 434;
export const SYS_close_range = 436;
export const SYS_pidfd_getfd = 438;
export const SYS_mount_setattr = 442;
export const SYS_kcmp = differing[architecture].SYS_kcmp;
export const SYS_rt_sigaction = differing[architecture].SYS_rt_sigaction;
export const SYS_sendmsg = differing[architecture].SYS_sendmsg;
export const SYS_recvmsg = differing[architecture].SYS_recvmsg;
export const SYS_capget = differing[architecture].SYS_capget;
export const SYS_capset = differing[architecture].SYS_capset;
export const SYS_setgroups = differing[architecture].SYS_setgroups;
export const SYS_setresuid = differing[architecture].SYS_setresuid;
export const SYS_setresgid = differing[architecture].SYS_setresgid;
export const SYS_sched_getparam = differing[architecture].SYS_sched_getparam;
export const SYS_sched_setscheduler = differing[architecture].SYS_sched_setscheduler;
export const SYS_sched_getscheduler = differing[architecture].SYS_sched_getscheduler;
export const SYS_io_setup = differing[architecture].SYS_io_setup;
export const SYS_io_destroy = differing[architecture].SYS_io_destroy;
export const SYS_io_submit = differing[architecture].SYS_io_submit;
export const SYS_io_getevents = differing[architecture].SYS_io_getevents;
export const SYS_reboot = differing[architecture].SYS_reboot;
export const SYS_mbind = differing[architecture].SYS_mbind;
export const SYS_sync = differing[architecture].SYS_sync;
export const SYS_kexec_file_load = differing[architecture].SYS_kexec_file_load;
// <linux/aio_abi.h>
export const IOCB_CMD_PREAD = 0;
export const IOCB_CMD_PWRITE = 1;
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
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SHUT_WR = 1;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_TYPE = 3;
export const SO_ERROR = 4;
export const SO_BINDTODEVICE = 25;
export const SO_ATTACH_FILTER = 26;
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

// <linux/if_packet.h>, <linux/if_ether.h>, <linux/sockios.h>
export const SOL_PACKET = 263;
export const PACKET_AUXDATA = 8;
export const TP_STATUS_CSUMNOTREADY = 8;
export const ETH_P_IP = 0x0800;
export const ETH_P_ALL = 0x0003;
export const SIOCGIFINDEX = 0x8933;
export const SIOCETHTOOL = 0x8946;

// <linux/ethtool.h>
export const ETHTOOL_GSET = 1;
export const ETHTOOL_GDRVINFO = 3;
export const ETHTOOL_GPERMADDR = 0x20;
export const DUPLEX_HALF = 0;
export const DUPLEX_FULL = 1;

// <spawn.h>, equal in glibc and musl
export const POSIX_SPAWN_SETSIGDEF = 0x04;
export const POSIX_SPAWN_SETSIGMASK = 0x08;
export const POSIX_SPAWN_SETSCHEDULER = 0x20;
export const POSIX_SPAWN_SETSID = 0x80;

// <sched.h>, <sys/resource.h>, <time.h>
export const CLONE_NEWNS = 0x2_0000;
export const SCHED_OTHER = 0;
export const SCHED_FIFO = 1;
export const SCHED_RR = 2;
export const SCHED_BATCH = 3;
export const SCHED_IDLE = 5;
export const SCHED_RESET_ON_FORK = 0x4000_0000;
export const RLIMIT_NOFILE = 7;
export const PRIO_PROCESS = 0;
export const CLOCK_REALTIME = 0;
export const CLOCK_MONOTONIC = 1;
export const CLOCK_THREAD_CPUTIME_ID = 3;
export const CLOCK_BOOTTIME = 7;

// <sys/mman.h>
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_PRIVATE = 2;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MADV_HUGEPAGE = 14;
export const MADV_DONTDUMP = 16;

// <linux/mempolicy.h>
export const MPOL_BIND = 2;

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
export const PR_SET_PDEATHSIG = 1;
export const PR_SET_KEEPCAPS = 8;
export const PR_CAPBSET_DROP = 24;
export const PR_SET_NO_NEW_PRIVS = 38;
export const PR_CAP_AMBIENT = 47;
export const PR_CAP_AMBIENT_RAISE = 2;
export const PR_CAP_AMBIENT_CLEAR_ALL = 4;

// <linux/capability.h>
export const LINUX_CAPABILITY_VERSION_3 = 0x2008_0522;

// <sys/socket.h>, for netlink
export const AF_BRIDGE = 7;
export const AF_NETLINK = 16;
export const SOCK_RAW = 3;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const SOL_NETLINK = 270;

// <linux/netlink.h>
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
export const NETLINK_ADD_MEMBERSHIP = 1;
export const NETLINK_CAP_ACK = 10;
export const NETLINK_EXT_ACK = 11;
export const NETLINK_GET_STRICT_CHK = 12;
export const NLM_F_REQUEST = 1;
export const NLM_F_ACK = 4;
export const NLM_F_DUMP = 0x300;
export const NLM_F_DUMP_INTR = 16;
export const NLM_F_CAPPED = 0x100;
export const NLM_F_ACK_TLVS = 0x200;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSGERR_ATTR_MSG = 1;
export const NLA_F_NESTED = 0x8000;
export const NLA_F_NET_BYTEORDER = 0x4000;

// <linux/rtnetlink.h>
export const RTNLGRP_LINK = 1;
export const RTNLGRP_IPV4_IFADDR = 5;
export const RTNLGRP_IPV6_IFADDR = 9;
export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTM_SETLINK = 19;
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
export const RTM_GETROUTE = 26;
export const RTEXT_FILTER_BRVLAN = 2;
export const RTA_DST = 1;
export const RTA_OIF = 4;
export const RTA_GATEWAY = 5;
export const RTA_TABLE = 15;
export const RTN_UNICAST = 1;

// <linux/if.h>
export const IFF_UP = 1;
export const IFNAMSIZ = 16;
export const IFALIASZ = 256;

// <linux/if_link.h>
export const IFLA_ADDRESS = 1;
export const IFLA_IFNAME = 3;
export const IFLA_MTU = 4;
export const IFLA_MASTER = 10;
export const IFLA_LINKINFO = 18;
export const IFLA_IFALIAS = 20;
export const IFLA_STATS64 = 23;
export const IFLA_AF_SPEC = 26;
export const IFLA_EXT_MASK = 29;
export const IFLA_CARRIER = 33;
export const IFLA_CARRIER_CHANGES = 35;
export const IFLA_MAX_MTU = 51;
export const IFLA_INFO_KIND = 1;
export const IFLA_INFO_DATA = 2;
export const IFLA_INFO_SLAVE_KIND = 4;
export const IFLA_INFO_SLAVE_DATA = 5;
export const IFLA_BR_VLAN_FILTERING = 7;
export const IFLA_BRPORT_MODE = 4;
export const IFLA_GROUP = 27;
export const IFLA_BRPORT_GUARD = 5;
export const IFLA_BRPORT_PROTECT = 6;
export const IFLA_BRPORT_LEARNING = 8;
export const IFLA_BRPORT_UNICAST_FLOOD = 9;
export const IFLA_BRPORT_MCAST_FLOOD = 27;
export const IFLA_BRPORT_ISOLATED = 33;
export const IFLA_TUN_OWNER = 1;
export const IFLA_TUN_GROUP = 2;
export const IFLA_TUN_TYPE = 3;
export const IFLA_TUN_VNET_HDR = 5;
export const IFLA_TUN_PERSIST = 6;

// <linux/if_bridge.h>
export const IFLA_BRIDGE_FLAGS = 0;
export const IFLA_BRIDGE_VLAN_INFO = 2;
export const BRIDGE_FLAGS_SELF = 2;
export const BRIDGE_VLAN_INFO_PVID = 2;
export const BRIDGE_VLAN_INFO_UNTAGGED = 4;

// <linux/if_addr.h>
export const IFA_ADDRESS = 1;
export const IFA_LOCAL = 2;
export const IFA_BROADCAST = 4;
export const IFA_FLAGS = 8;
export const IFA_F_TENTATIVE = 0x40;

// <linux/if_tun.h>
export const TUNSETIFF = 0x4004_54ca;
export const TUNSETPERSIST = 0x4004_54cb;
export const TUNSETOWNER = 0x4004_54cc;
export const TUNSETGROUP = 0x4004_54ce;
export const TUNSETVNETHDRSZ = 0x4004_54d8;
export const IFF_TAP = 2;
export const IFF_NO_PI = 0x1000;
export const IFF_VNET_HDR = 0x4000;
export const IFF_TUN_EXCL = 0x8000;

// <linux/netfilter.h>
export const NFPROTO_INET = 1;
export const NFPROTO_IPV4 = 2;
export const NFPROTO_NETDEV = 5;
export const NFPROTO_BRIDGE = 7;
export const NFPROTO_IPV6 = 10;
export const NF_DROP = 0;
export const NF_ACCEPT = 1;
export const NF_INET_PRE_ROUTING = 0;
export const NF_INET_LOCAL_IN = 1;
export const NF_INET_FORWARD = 2;
export const NF_INET_LOCAL_OUT = 3;
export const NF_INET_POST_ROUTING = 4;
export const NF_NETDEV_INGRESS = 0;

// <linux/netfilter/nfnetlink.h>
export const NFNLGRP_NFTABLES = 7;
export const NFNL_SUBSYS_NFTABLES = 10;
export const NFNL_MSG_BATCH_BEGIN = 16;
export const NFNL_MSG_BATCH_END = 17;

// <linux/netfilter/nf_conntrack_common.h>
export const IPS_DST_NAT = 32;

// <linux/netfilter/nf_tables.h>
export const NFT_MSG_NEWTABLE = 0;
export const NFT_MSG_GETTABLE = 1;
export const NFT_MSG_DELTABLE = 2;
export const NFT_MSG_NEWCHAIN = 3;
export const NFT_MSG_GETCHAIN = 4;
export const NFT_MSG_DELCHAIN = 5;
export const NFT_MSG_NEWRULE = 6;
export const NFT_MSG_GETRULE = 7;
export const NFT_MSG_DELRULE = 8;
export const NFT_MSG_NEWSET = 9;
export const NFT_MSG_GETSET = 10;
export const NFT_MSG_DELSET = 11;
export const NFT_MSG_NEWSETELEM = 12;
export const NFT_MSG_GETSETELEM = 13;
export const NFT_MSG_DELSETELEM = 14;
export const NFTA_LIST_ELEM = 1;
export const NFTA_TABLE_NAME = 1;
export const NFTA_TABLE_USERDATA = 6;
export const NFTA_CHAIN_TABLE = 1;
export const NFTA_CHAIN_NAME = 3;
export const NFTA_CHAIN_HOOK = 4;
export const NFTA_CHAIN_POLICY = 5;
export const NFTA_CHAIN_TYPE = 7;
export const NFTA_HOOK_HOOKNUM = 1;
export const NFTA_HOOK_PRIORITY = 2;
export const NFTA_HOOK_DEV = 3;
export const NFTA_HOOK_DEVS = 4;
export const NFTA_DEVICE_NAME = 1;
export const NFTA_RULE_TABLE = 1;
export const NFTA_RULE_CHAIN = 2;
export const NFTA_RULE_EXPRESSIONS = 4;
export const NFTA_RULE_USERDATA = 7;
export const NFTA_EXPR_NAME = 1;
export const NFTA_EXPR_DATA = 2;
export const NFTA_SET_TABLE = 1;
export const NFTA_SET_NAME = 2;
export const NFTA_SET_FLAGS = 3;
export const NFTA_SET_KEY_TYPE = 4;
export const NFTA_SET_KEY_LEN = 5;
export const NFTA_SET_ID = 10;
export const NFTA_SET_USERDATA = 13;
export const NFT_SET_TIMEOUT = 16;
export const NFTA_SET_ELEM_LIST_TABLE = 1;
export const NFTA_SET_ELEM_LIST_SET = 2;
export const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
export const NFTA_SET_ELEM_KEY = 1;
export const NFTA_SET_ELEM_TIMEOUT = 4;
export const NFTA_SET_ELEM_EXPIRATION = 5;
export const NFTA_DATA_VALUE = 1;
export const NFTA_DATA_VERDICT = 2;
export const NFTA_VERDICT_CODE = 1;
export const NFT_REG_VERDICT = 0;
export const NFT_REG_1 = 1;
export const NFT_REG_2 = 2;
export const NFTA_PAYLOAD_DREG = 1;
export const NFTA_PAYLOAD_BASE = 2;
export const NFTA_PAYLOAD_OFFSET = 3;
export const NFTA_PAYLOAD_LEN = 4;
export const NFT_PAYLOAD_LL_HEADER = 0;
export const NFT_PAYLOAD_NETWORK_HEADER = 1;
export const NFT_PAYLOAD_TRANSPORT_HEADER = 2;
export const NFTA_BITWISE_SREG = 1;
export const NFTA_BITWISE_DREG = 2;
export const NFTA_BITWISE_LEN = 3;
export const NFTA_BITWISE_MASK = 4;
export const NFTA_BITWISE_XOR = 5;
export const NFTA_CMP_SREG = 1;
export const NFTA_CMP_OP = 2;
export const NFTA_CMP_DATA = 3;
export const NFT_CMP_EQ = 0;
export const NFT_CMP_NEQ = 1;
export const NFTA_META_DREG = 1;
export const NFTA_META_KEY = 2;
export const NFT_META_IIFNAME = 6;
export const NFT_META_OIFNAME = 7;
export const NFT_META_NFPROTO = 15;
export const NFT_META_L4PROTO = 16;
export const NFTA_CT_DREG = 1;
export const NFTA_CT_KEY = 2;
export const NFT_CT_STATE = 0;
export const NFT_CT_STATUS = 2;
export const NFTA_LOOKUP_SET = 1;
export const NFTA_LOOKUP_SREG = 2;
export const NFTA_IMMEDIATE_DREG = 1;
export const NFTA_IMMEDIATE_DATA = 2;
export const NFTA_FIB_DREG = 1;
export const NFTA_FIB_RESULT = 2;
export const NFTA_FIB_FLAGS = 3;
export const NFT_FIB_RESULT_ADDRTYPE = 3;
export const NFTA_FIB_F_DADDR = 2;
export const NFTA_NAT_TYPE = 1;
export const NFTA_NAT_FAMILY = 2;
export const NFTA_NAT_REG_ADDR_MIN = 3;
export const NFTA_NAT_REG_PROTO_MIN = 5;
export const NFT_NAT_DNAT = 1;
