import { type Architecture, architecture } from "./constants.ts";

/**
 * The structures we lay out by hand, under C's names, as size and offsets in bytes. Both
 * architectures are 64-bit and little-endian; a contract test holds this against gcc for both.
 */
export function layoutsOf(of: Architecture) {
  return {
    /** include/uapi/linux/aio_abi.h */
    iocb: {
      size: 64,
      aio_data: 0,
      aio_lio_opcode: 16,
      aio_fildes: 20,
      aio_buf: 24,
      aio_nbytes: 32,
      aio_offset: 40,
      aio_flags: 56,
      aio_resfd: 60,
    },
    io_event: { size: 32, data: 0, res: 16 },
    /** include/uapi/linux/eventpoll.h. Packed on x86-64 only. */
    epoll_event:
      of === "arm64" ? { size: 16, events: 0, data: 8 } : { size: 12, events: 0, data: 4 },
    /** What waitid(2) fills: include/uapi/asm-generic/siginfo.h. */
    siginfo_t: { size: 128, si_signo: 0, si_code: 8, si_pid: 16, si_status: 24 },
    /** include/uapi/linux/pidfd.h: the 64-byte form of Linux 6.13. */
    pidfd_info: { size: 64, mask: 0, pid: 16, tgid: 20, ppid: 24, exit_code: 60 },
    /** unix(7) */
    sockaddr_un: { size: 110, sun_family: 0, sun_path: 2 },
    /** ip(7) */
    sockaddr_in: { size: 16, sin_family: 0, sin_port: 2, sin_addr: 4 },
    /** ipv6(7) */
    sockaddr_in6: { size: 28, sin6_family: 0, sin6_port: 2, sin6_addr: 8, sin6_scope_id: 24 },
    /** vsock(7) */
    sockaddr_vm: { size: 16, svm_family: 0, svm_port: 4, svm_cid: 8 },
    /** sendmsg(2) */
    msghdr: {
      size: 56,
      msg_name: 0,
      msg_namelen: 8,
      msg_iov: 16,
      msg_iovlen: 24,
      msg_control: 32,
      msg_controllen: 40,
      msg_flags: 48,
    },
    iovec: { size: 16, iov_base: 0, iov_len: 8 },
    /** cmsg(3); its data follow, each header at a multiple of 8. */
    cmsghdr: { size: 16, cmsg_len: 0, cmsg_level: 8, cmsg_type: 12 },
    ucred: { size: 12, pid: 0, uid: 4, gid: 8 },
    /** packet(7); the length of an address and 8 bytes of it. */
    sockaddr_ll: {
      size: 20,
      sll_family: 0,
      sll_protocol: 2,
      sll_ifindex: 4,
      sll_pkttype: 10,
      sll_halen: 11,
      sll_addr: 12,
    },
    /** What comes beside a packet where PACKET_AUXDATA is on: packet(7). */
    tpacket_auxdata: { size: 20, tp_status: 0 },
    /** netdevice(7) */
    ifreq: { size: 40, ifr_name: 0, ifr_ifindex: 16, ifr_flags: 16, ifr_data: 16 },
    /** include/uapi/linux/ethtool.h: what ETHTOOL_GSET fills; the speed is in two parts. */
    ethtool_cmd: { size: 44, cmd: 0, speed: 12, duplex: 14, speed_hi: 28 },
    /** include/uapi/linux/filter.h: one instruction, and a program. */
    sock_filter: { size: 8, code: 0, jt: 2, jf: 3, k: 4 },
    sock_fprog: { size: 16, len: 0, filter: 8 },
    /** poll(2) */
    pollfd: { size: 8, fd: 0, events: 4, revents: 6 },
    /** fcntl_locking(2) */
    flock: { size: 32, l_type: 0, l_whence: 2, l_start: 8, l_len: 16, l_pid: 24 },
    /** include/uapi/linux/watchdog.h; the name has 32 bytes. */
    watchdog_info: { size: 40, options: 0, firmware_version: 4, identity: 8 },
    /** include/uapi/linux/ipmi.h; the message stands inside the last two. */
    ipmi_system_interface_addr: { size: 8, addr_type: 0, channel: 4, lun: 6 },
    ipmi_addr: { size: 40 },
    ipmi_msg: { size: 16, netfn: 0, cmd: 1, data_len: 2, data: 8 },
    ipmi_req: { size: 40, addr: 0, addr_len: 8, msgid: 16, msg: 24 },
    ipmi_recv: { size: 48, recv_type: 0, addr: 8, addr_len: 16, msgid: 24, msg: 32 },
    /** include/uapi/linux/ethtool.h; each name has 32 bytes. */
    ethtool_drvinfo: { size: 196, cmd: 0, driver: 4, version: 36, fw_version: 68 },
    /** The address follows. */
    ethtool_perm_addr: { size: 8, cmd: 0, length: 4 },
    /** prlimit(2) */
    rlimit: { size: 16, rlim_cur: 0, rlim_max: 8 },
    /** clock_gettime(2) */
    timespec: { size: 16, tv_sec: 0, tv_nsec: 8 },
    /** sched_setscheduler(2); musl's is larger, but only this much is the kernel's. */
    sched_param: { size: 4, sched_priority: 0 },
    /** <signal.h>: glibc's and musl's; the kernel's set is the first 8 bytes. */
    sigset_t: { size: 128 },
    /** What rt_sigaction(2) takes, not the C library's; its handler is all that we use. */
    kernel_sigaction: { size: 32, handler: 0 },
    /** posix_spawn(3): glibc's sizes; musl's are equal. */
    posix_spawnattr_t: { size: 336 },
    posix_spawn_file_actions_t: { size: 80 },
    /** mount_setattr(2), include/uapi/linux/mount.h */
    mount_attr: { size: 32, attr_set: 0, attr_clr: 8 },
    /** capset(2) */
    __user_cap_header_struct: { size: 8, version: 0, pid: 4 },
    /** Two of these, for capabilities 0–31 and 32–63. */
    __user_cap_data_struct: { size: 12, effective: 0, permitted: 4, inheritable: 8 },
    /**
     * include/uapi/linux/liveupdate.h. Each begins with a u32 that holds its size. The one for
     * creating a session is laid out like the one for retrieving it.
     */
    liveupdate_ioctl_create_session: { size: 72, fd: 4, name: 8 },
    liveupdate_session_preserve_fd: { size: 16, fd: 4, token: 8 },
    liveupdate_session_retrieve_fd: { size: 16, fd: 4, token: 8 },
    liveupdate_session_finish: { size: 8, reserved: 4 },
    liveupdate_session_get_name: { size: 72, reserved: 4, name: 8 },
    /** include/uapi/linux/nvme_ioctl.h */
    nvme_passthru_cmd: {
      size: 72,
      opcode: 0,
      nsid: 4,
      addr: 24,
      data_len: 36,
      cdw10: 40,
      cdw11: 44,
      timeout_ms: 64,
    },
    /** <scsi/sg.h>, equal in glibc and musl */
    sg_io_hdr_t: {
      size: 88,
      interface_id: 0,
      dxfer_direction: 4,
      cmd_len: 8,
      mx_sb_len: 9,
      dxfer_len: 12,
      dxferp: 16,
      cmdp: 24,
      sbp: 32,
      timeout: 40,
      status: 64,
      sb_len_wr: 67,
      host_status: 68,
      driver_status: 70,
      resid: 72,
    },
    /** netlink(7) */
    sockaddr_nl: { size: 12, nl_family: 0, nl_pid: 4 },
    nlmsghdr: { size: 16, nlmsg_len: 0, nlmsg_type: 4, nlmsg_flags: 6, nlmsg_seq: 8 },
    nlmsgerr: { size: 20, error: 0, msg: 4 },
    nlattr: { size: 4, nla_len: 0, nla_type: 2 },
    /** rtnetlink(7) */
    ifinfomsg: { size: 16, ifi_family: 0, ifi_index: 4, ifi_flags: 8, ifi_change: 12 },
    ifaddrmsg: { size: 8, ifa_family: 0, ifa_prefixlen: 1, ifa_index: 4 },
    rtmsg: { size: 12, rtm_family: 0, rtm_dst_len: 1, rtm_table: 4, rtm_type: 7 },
    /** include/uapi/linux/if_link.h: its size in Linux 6.1; later kernels add to its end. */
    rtnl_link_stats64: {
      size: 200,
      rx_packets: 0,
      tx_packets: 8,
      rx_bytes: 16,
      tx_bytes: 24,
      rx_errors: 32,
      tx_errors: 40,
      rx_dropped: 48,
      tx_dropped: 56,
      collisions: 72,
      rx_length_errors: 80,
      rx_over_errors: 88,
      rx_crc_errors: 96,
      rx_frame_errors: 104,
      rx_fifo_errors: 112,
      rx_missed_errors: 120,
      tx_aborted_errors: 128,
      tx_carrier_errors: 136,
      tx_fifo_errors: 144,
      tx_heartbeat_errors: 152,
      tx_window_errors: 160,
    },
    /** include/uapi/linux/if_bridge.h */
    bridge_vlan_info: { size: 4, flags: 0, vid: 2 },
    /** netdevice(7) */
    /** include/uapi/linux/netfilter/nfnetlink.h; res_id is big-endian. */
    nfgenmsg: { size: 4, nfgen_family: 0, res_id: 2 },
  } as const satisfies Readonly<Record<string, { readonly size: number; [field: string]: number }>>;
}

/** The layouts of the architecture that this process runs on. */
export const layouts = layoutsOf(architecture);
