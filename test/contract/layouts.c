/*
 * Prints as JSON what the C compiler knows of the structures and numbers that ffi/ and
 * src/units/signals.ts use. scripts/make-layouts.ts compiles it for x86-64 and for arm64, and
 * writes what both print into layouts.json.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/kcmp.h>
#include <linux/ethtool.h>
#include <linux/fs.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ipmi.h>
#include <linux/kexec.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <linux/mount.h>
#include <linux/nsfs.h>
#include <linux/nvme_ioctl.h>
#include <linux/reboot.h>
#include <linux/sockios.h>
#include <linux/types.h>
#include <linux/watchdog.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <scsi/sg.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
/* Needs <sys/socket.h> before it. */
#include <linux/vm_sockets.h>
#include <time.h>

/* <netinet/in.h> has what these define once more, and musl's does not know of them. */
#define _LINUX_IN_H
#define _LINUX_IN6_H
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

/*
 * Newer than Debian 12's headers (Linux 6.1): as include/uapi/linux/pidfd.h has them in 6.18. That
 * header itself cannot be included beside <fcntl.h>.
 */
struct pidfd_info {
  __u64 mask;
  __u64 cgroupid;
  __u32 pid;
  __u32 tgid;
  __u32 ppid;
  __u32 ruid;
  __u32 rgid;
  __u32 euid;
  __u32 egid;
  __u32 suid;
  __u32 sgid;
  __u32 fsuid;
  __u32 fsgid;
  __s32 exit_code;
};
#define PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)
#define PIDFD_INFO_EXIT (1UL << 3)
#define PIDFD_SIGNAL_PROCESS_GROUP (1UL << 2)
/* struct sigaction of include/linux/signal_types.h, where SA_RESTORER is defined: on both. */
struct kernel_sigaction {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)(void);
  unsigned long mask;
};
/*
 * Newer than Debian 12's headers: written by hand after include/uapi/linux/liveupdate.h of 7.2, so
 * that gcc lays them out and makes the numbers; what stands in the header itself no compiler here
 * has seen. Every structure begins with its size, whose name is taken in layouts.json.
 */
#define LIVEUPDATE_SESSION_NAME_LENGTH 64
struct liveupdate_ioctl_create_session {
  __u32 size;
  __s32 fd;
  __u8 name[LIVEUPDATE_SESSION_NAME_LENGTH];
};
struct liveupdate_session_preserve_fd {
  __u32 size;
  __s32 fd;
  __aligned_u64 token;
};
struct liveupdate_session_retrieve_fd {
  __u32 size;
  __s32 fd;
  __aligned_u64 token;
};
struct liveupdate_session_finish {
  __u32 size;
  __u32 reserved;
};
struct liveupdate_session_get_name {
  __u32 size;
  __u32 reserved;
  __u8 name[LIVEUPDATE_SESSION_NAME_LENGTH];
};
_Static_assert(offsetof(struct liveupdate_ioctl_create_session, size) == 0, "size is first");
#define LIVEUPDATE_IOCTL_CREATE_SESSION _IO(0xBA, 0x00)
#define LIVEUPDATE_IOCTL_RETRIEVE_SESSION _IO(0xBA, 0x01)
#define LIVEUPDATE_SESSION_PRESERVE_FD _IO(0xBA, 0x40)
#define LIVEUPDATE_SESSION_RETRIEVE_FD _IO(0xBA, 0x41)
#define LIVEUPDATE_SESSION_FINISH _IO(0xBA, 0x42)
#define LIVEUPDATE_SESSION_GET_NAME _IO(0xBA, 0x43)
/* Of <sys/mount.h>, which cannot be included beside <linux/mount.h>; include/linux/fs.h has it. */
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
/* A name in the kernel's header that is no name of ours, because it begins with an underscore. */
#define LINUX_CAPABILITY_VERSION_3 _LINUX_CAPABILITY_VERSION_3

static const char *separator;

static void begin(const char *name) {
  printf("%s\n  \"%s\": {", *separator == '{' ? "{" : ",", name);
  separator = "";
}

static void end(void) {
  printf("\n  }");
  separator = ",";
}

static void number(const char *name, unsigned long long value) {
  printf("%s\n    \"%s\": %llu", separator, name, value);
  separator = ",";
}

static void signed_number(const char *name, long long value) {
  printf("%s\n    \"%s\": %lld", separator, name, value);
  separator = ",";
}

static void structure(const char *name, unsigned long size) {
  printf("%s\n    \"%s\": { \"size\": %lu", separator, name, size);
  separator = ",";
}

#define NUMBER(name) number(#name, name)
#define STRUCTURE(name, type) structure(#name, sizeof(type))
#define FIELD(type, field) printf(", \"%s\": %lu", #field, (unsigned long)offsetof(type, field))
#define CLOSE() printf(" }")

static void network_structures(void) {
  STRUCTURE(sockaddr_nl, struct sockaddr_nl);
  FIELD(struct sockaddr_nl, nl_family);
  FIELD(struct sockaddr_nl, nl_pid);
  CLOSE();
  STRUCTURE(nlmsghdr, struct nlmsghdr);
  FIELD(struct nlmsghdr, nlmsg_len);
  FIELD(struct nlmsghdr, nlmsg_type);
  FIELD(struct nlmsghdr, nlmsg_flags);
  FIELD(struct nlmsghdr, nlmsg_seq);
  CLOSE();
  STRUCTURE(nlmsgerr, struct nlmsgerr);
  FIELD(struct nlmsgerr, error);
  FIELD(struct nlmsgerr, msg);
  CLOSE();
  STRUCTURE(nlattr, struct nlattr);
  FIELD(struct nlattr, nla_len);
  FIELD(struct nlattr, nla_type);
  CLOSE();
  STRUCTURE(ifinfomsg, struct ifinfomsg);
  FIELD(struct ifinfomsg, ifi_family);
  FIELD(struct ifinfomsg, ifi_index);
  FIELD(struct ifinfomsg, ifi_flags);
  FIELD(struct ifinfomsg, ifi_change);
  CLOSE();
  STRUCTURE(ifaddrmsg, struct ifaddrmsg);
  FIELD(struct ifaddrmsg, ifa_family);
  FIELD(struct ifaddrmsg, ifa_prefixlen);
  FIELD(struct ifaddrmsg, ifa_index);
  CLOSE();
  STRUCTURE(rtmsg, struct rtmsg);
  FIELD(struct rtmsg, rtm_family);
  FIELD(struct rtmsg, rtm_dst_len);
  FIELD(struct rtmsg, rtm_table);
  FIELD(struct rtmsg, rtm_type);
  CLOSE();
  STRUCTURE(rtnl_link_stats64, struct rtnl_link_stats64);
  FIELD(struct rtnl_link_stats64, rx_packets);
  FIELD(struct rtnl_link_stats64, tx_packets);
  FIELD(struct rtnl_link_stats64, rx_bytes);
  FIELD(struct rtnl_link_stats64, tx_bytes);
  FIELD(struct rtnl_link_stats64, rx_dropped);
  FIELD(struct rtnl_link_stats64, tx_dropped);
  FIELD(struct rtnl_link_stats64, collisions);
  FIELD(struct rtnl_link_stats64, rx_errors);
  FIELD(struct rtnl_link_stats64, tx_errors);
  FIELD(struct rtnl_link_stats64, rx_length_errors);
  FIELD(struct rtnl_link_stats64, rx_over_errors);
  FIELD(struct rtnl_link_stats64, rx_crc_errors);
  FIELD(struct rtnl_link_stats64, rx_frame_errors);
  FIELD(struct rtnl_link_stats64, rx_fifo_errors);
  FIELD(struct rtnl_link_stats64, rx_missed_errors);
  FIELD(struct rtnl_link_stats64, tx_aborted_errors);
  FIELD(struct rtnl_link_stats64, tx_carrier_errors);
  FIELD(struct rtnl_link_stats64, tx_fifo_errors);
  FIELD(struct rtnl_link_stats64, tx_heartbeat_errors);
  FIELD(struct rtnl_link_stats64, tx_window_errors);
  CLOSE();
  STRUCTURE(bridge_vlan_info, struct bridge_vlan_info);
  FIELD(struct bridge_vlan_info, flags);
  FIELD(struct bridge_vlan_info, vid);
  CLOSE();
  STRUCTURE(nfgenmsg, struct nfgenmsg);
  FIELD(struct nfgenmsg, nfgen_family);
  FIELD(struct nfgenmsg, res_id);
  CLOSE();
}

static void hardware_structures(void) {
  STRUCTURE(ipmi_system_interface_addr, struct ipmi_system_interface_addr);
  FIELD(struct ipmi_system_interface_addr, addr_type);
  FIELD(struct ipmi_system_interface_addr, channel);
  FIELD(struct ipmi_system_interface_addr, lun);
  CLOSE();
  STRUCTURE(ipmi_addr, struct ipmi_addr);
  CLOSE();
  STRUCTURE(ipmi_msg, struct ipmi_msg);
  FIELD(struct ipmi_msg, netfn);
  FIELD(struct ipmi_msg, cmd);
  FIELD(struct ipmi_msg, data_len);
  FIELD(struct ipmi_msg, data);
  CLOSE();
  STRUCTURE(ipmi_req, struct ipmi_req);
  FIELD(struct ipmi_req, addr);
  FIELD(struct ipmi_req, addr_len);
  FIELD(struct ipmi_req, msgid);
  FIELD(struct ipmi_req, msg);
  CLOSE();
  STRUCTURE(ipmi_recv, struct ipmi_recv);
  FIELD(struct ipmi_recv, recv_type);
  FIELD(struct ipmi_recv, addr);
  FIELD(struct ipmi_recv, addr_len);
  FIELD(struct ipmi_recv, msgid);
  FIELD(struct ipmi_recv, msg);
  CLOSE();
  STRUCTURE(ethtool_drvinfo, struct ethtool_drvinfo);
  FIELD(struct ethtool_drvinfo, cmd);
  FIELD(struct ethtool_drvinfo, driver);
  FIELD(struct ethtool_drvinfo, version);
  FIELD(struct ethtool_drvinfo, fw_version);
  CLOSE();
  /* Its field is called size, which is the name of a structure's own in layouts.json. */
  structure("ethtool_perm_addr", sizeof(struct ethtool_perm_addr));
  FIELD(struct ethtool_perm_addr, cmd);
  printf(", \"length\": %lu", (unsigned long)offsetof(struct ethtool_perm_addr, size));
  CLOSE();
}

static void disk_structures(void) {
  STRUCTURE(nvme_passthru_cmd, struct nvme_passthru_cmd);
  FIELD(struct nvme_passthru_cmd, opcode);
  FIELD(struct nvme_passthru_cmd, nsid);
  FIELD(struct nvme_passthru_cmd, addr);
  FIELD(struct nvme_passthru_cmd, data_len);
  FIELD(struct nvme_passthru_cmd, cdw10);
  FIELD(struct nvme_passthru_cmd, cdw11);
  FIELD(struct nvme_passthru_cmd, timeout_ms);
  CLOSE();
  STRUCTURE(sg_io_hdr_t, sg_io_hdr_t);
  FIELD(sg_io_hdr_t, interface_id);
  FIELD(sg_io_hdr_t, dxfer_direction);
  FIELD(sg_io_hdr_t, cmd_len);
  FIELD(sg_io_hdr_t, mx_sb_len);
  FIELD(sg_io_hdr_t, dxfer_len);
  FIELD(sg_io_hdr_t, dxferp);
  FIELD(sg_io_hdr_t, cmdp);
  FIELD(sg_io_hdr_t, sbp);
  FIELD(sg_io_hdr_t, timeout);
  FIELD(sg_io_hdr_t, status);
  FIELD(sg_io_hdr_t, sb_len_wr);
  FIELD(sg_io_hdr_t, host_status);
  FIELD(sg_io_hdr_t, driver_status);
  FIELD(sg_io_hdr_t, resid);
  CLOSE();
}

static void structures(void) {
  begin("structures");
  STRUCTURE(iocb, struct iocb);
  FIELD(struct iocb, aio_data);
  FIELD(struct iocb, aio_lio_opcode);
  FIELD(struct iocb, aio_fildes);
  FIELD(struct iocb, aio_buf);
  FIELD(struct iocb, aio_nbytes);
  FIELD(struct iocb, aio_offset);
  FIELD(struct iocb, aio_flags);
  FIELD(struct iocb, aio_resfd);
  CLOSE();
  STRUCTURE(io_event, struct io_event);
  FIELD(struct io_event, data);
  FIELD(struct io_event, res);
  CLOSE();
  STRUCTURE(epoll_event, struct epoll_event);
  FIELD(struct epoll_event, events);
  FIELD(struct epoll_event, data);
  CLOSE();
  STRUCTURE(siginfo_t, siginfo_t);
  FIELD(siginfo_t, si_signo);
  FIELD(siginfo_t, si_code);
  FIELD(siginfo_t, si_pid);
  FIELD(siginfo_t, si_status);
  CLOSE();
  STRUCTURE(pidfd_info, struct pidfd_info);
  FIELD(struct pidfd_info, mask);
  FIELD(struct pidfd_info, pid);
  FIELD(struct pidfd_info, tgid);
  FIELD(struct pidfd_info, ppid);
  FIELD(struct pidfd_info, exit_code);
  CLOSE();
  STRUCTURE(sockaddr_un, struct sockaddr_un);
  FIELD(struct sockaddr_un, sun_family);
  FIELD(struct sockaddr_un, sun_path);
  CLOSE();
  STRUCTURE(sockaddr_in, struct sockaddr_in);
  FIELD(struct sockaddr_in, sin_family);
  FIELD(struct sockaddr_in, sin_port);
  FIELD(struct sockaddr_in, sin_addr);
  CLOSE();
  STRUCTURE(sockaddr_in6, struct sockaddr_in6);
  FIELD(struct sockaddr_in6, sin6_family);
  FIELD(struct sockaddr_in6, sin6_port);
  FIELD(struct sockaddr_in6, sin6_addr);
  FIELD(struct sockaddr_in6, sin6_scope_id);
  CLOSE();
  STRUCTURE(sockaddr_vm, struct sockaddr_vm);
  FIELD(struct sockaddr_vm, svm_family);
  FIELD(struct sockaddr_vm, svm_port);
  FIELD(struct sockaddr_vm, svm_cid);
  CLOSE();
  STRUCTURE(msghdr, struct msghdr);
  FIELD(struct msghdr, msg_name);
  FIELD(struct msghdr, msg_namelen);
  FIELD(struct msghdr, msg_iov);
  FIELD(struct msghdr, msg_iovlen);
  FIELD(struct msghdr, msg_control);
  FIELD(struct msghdr, msg_controllen);
  FIELD(struct msghdr, msg_flags);
  CLOSE();
  STRUCTURE(iovec, struct iovec);
  FIELD(struct iovec, iov_base);
  FIELD(struct iovec, iov_len);
  CLOSE();
  STRUCTURE(cmsghdr, struct cmsghdr);
  FIELD(struct cmsghdr, cmsg_len);
  FIELD(struct cmsghdr, cmsg_level);
  FIELD(struct cmsghdr, cmsg_type);
  CLOSE();
  STRUCTURE(ucred, struct ucred);
  FIELD(struct ucred, pid);
  FIELD(struct ucred, uid);
  FIELD(struct ucred, gid);
  CLOSE();
  STRUCTURE(sockaddr_ll, struct sockaddr_ll);
  FIELD(struct sockaddr_ll, sll_family);
  FIELD(struct sockaddr_ll, sll_protocol);
  FIELD(struct sockaddr_ll, sll_ifindex);
  FIELD(struct sockaddr_ll, sll_pkttype);
  FIELD(struct sockaddr_ll, sll_halen);
  FIELD(struct sockaddr_ll, sll_addr);
  CLOSE();
  STRUCTURE(tpacket_auxdata, struct tpacket_auxdata);
  FIELD(struct tpacket_auxdata, tp_status);
  CLOSE();
  STRUCTURE(ifreq, struct ifreq);
  FIELD(struct ifreq, ifr_name);
  FIELD(struct ifreq, ifr_ifindex);
  FIELD(struct ifreq, ifr_flags);
  FIELD(struct ifreq, ifr_data);
  CLOSE();
  STRUCTURE(ethtool_cmd, struct ethtool_cmd);
  FIELD(struct ethtool_cmd, cmd);
  FIELD(struct ethtool_cmd, speed);
  FIELD(struct ethtool_cmd, duplex);
  FIELD(struct ethtool_cmd, speed_hi);
  CLOSE();
  STRUCTURE(sock_filter, struct sock_filter);
  FIELD(struct sock_filter, code);
  FIELD(struct sock_filter, jt);
  FIELD(struct sock_filter, jf);
  FIELD(struct sock_filter, k);
  CLOSE();
  STRUCTURE(sock_fprog, struct sock_fprog);
  FIELD(struct sock_fprog, len);
  FIELD(struct sock_fprog, filter);
  CLOSE();
  STRUCTURE(pollfd, struct pollfd);
  FIELD(struct pollfd, fd);
  FIELD(struct pollfd, events);
  FIELD(struct pollfd, revents);
  CLOSE();
  STRUCTURE(flock, struct flock);
  FIELD(struct flock, l_type);
  FIELD(struct flock, l_whence);
  FIELD(struct flock, l_start);
  FIELD(struct flock, l_len);
  FIELD(struct flock, l_pid);
  CLOSE();
  STRUCTURE(watchdog_info, struct watchdog_info);
  FIELD(struct watchdog_info, options);
  FIELD(struct watchdog_info, firmware_version);
  FIELD(struct watchdog_info, identity);
  CLOSE();
  STRUCTURE(rlimit, struct rlimit);
  FIELD(struct rlimit, rlim_cur);
  FIELD(struct rlimit, rlim_max);
  CLOSE();
  STRUCTURE(timespec, struct timespec);
  FIELD(struct timespec, tv_sec);
  FIELD(struct timespec, tv_nsec);
  CLOSE();
  STRUCTURE(sched_param, struct sched_param);
  FIELD(struct sched_param, sched_priority);
  CLOSE();
  STRUCTURE(sigset_t, sigset_t);
  CLOSE();
  STRUCTURE(kernel_sigaction, struct kernel_sigaction);
  FIELD(struct kernel_sigaction, handler);
  CLOSE();
  STRUCTURE(posix_spawnattr_t, posix_spawnattr_t);
  CLOSE();
  STRUCTURE(posix_spawn_file_actions_t, posix_spawn_file_actions_t);
  CLOSE();
  STRUCTURE(mount_attr, struct mount_attr);
  FIELD(struct mount_attr, attr_set);
  FIELD(struct mount_attr, attr_clr);
  CLOSE();
  STRUCTURE(__user_cap_header_struct, struct __user_cap_header_struct);
  FIELD(struct __user_cap_header_struct, version);
  FIELD(struct __user_cap_header_struct, pid);
  CLOSE();
  STRUCTURE(__user_cap_data_struct, struct __user_cap_data_struct);
  FIELD(struct __user_cap_data_struct, effective);
  FIELD(struct __user_cap_data_struct, permitted);
  FIELD(struct __user_cap_data_struct, inheritable);
  CLOSE();
  STRUCTURE(liveupdate_ioctl_create_session, struct liveupdate_ioctl_create_session);
  FIELD(struct liveupdate_ioctl_create_session, fd);
  FIELD(struct liveupdate_ioctl_create_session, name);
  CLOSE();
  STRUCTURE(liveupdate_session_preserve_fd, struct liveupdate_session_preserve_fd);
  FIELD(struct liveupdate_session_preserve_fd, fd);
  FIELD(struct liveupdate_session_preserve_fd, token);
  CLOSE();
  STRUCTURE(liveupdate_session_retrieve_fd, struct liveupdate_session_retrieve_fd);
  FIELD(struct liveupdate_session_retrieve_fd, fd);
  FIELD(struct liveupdate_session_retrieve_fd, token);
  CLOSE();
  STRUCTURE(liveupdate_session_finish, struct liveupdate_session_finish);
  FIELD(struct liveupdate_session_finish, reserved);
  CLOSE();
  STRUCTURE(liveupdate_session_get_name, struct liveupdate_session_get_name);
  FIELD(struct liveupdate_session_get_name, reserved);
  FIELD(struct liveupdate_session_get_name, name);
  CLOSE();
  hardware_structures();
  disk_structures();
  network_structures();
  end();
}

static void disk_numbers(void) {
  NUMBER(O_EXCL);
  NUMBER(O_DIRECT);
  NUMBER(BLKROGET);
  NUMBER(BLKSSZGET);
  NUMBER(BLKGETSIZE64);
  NUMBER(NVME_IOCTL_ADMIN_CMD);
  NUMBER(SG_IO);
  /* Negative ones: printed as what they are. */
  signed_number("SG_DXFER_NONE", SG_DXFER_NONE);
  signed_number("SG_DXFER_FROM_DEV", SG_DXFER_FROM_DEV);
  NUMBER(IOCB_CMD_PREAD);
  NUMBER(IOCB_CMD_PWRITE);
}

static void network_numbers(void) {
  NUMBER(AF_BRIDGE);
  NUMBER(AF_NETLINK);
  NUMBER(SOCK_RAW);
  NUMBER(SO_SNDBUFFORCE);
  NUMBER(SO_RCVBUFFORCE);
  NUMBER(SOL_NETLINK);
  NUMBER(NETLINK_ROUTE);
  NUMBER(NETLINK_NETFILTER);
  NUMBER(NETLINK_ADD_MEMBERSHIP);
  NUMBER(NETLINK_CAP_ACK);
  NUMBER(NETLINK_EXT_ACK);
  NUMBER(NETLINK_GET_STRICT_CHK);
  NUMBER(NLM_F_REQUEST);
  NUMBER(NLM_F_ACK);
  NUMBER(NLM_F_DUMP);
  NUMBER(NLM_F_DUMP_INTR);
  NUMBER(NLM_F_CAPPED);
  NUMBER(NLM_F_ACK_TLVS);
  NUMBER(NLM_F_EXCL);
  NUMBER(NLM_F_CREATE);
  NUMBER(NLM_F_APPEND);
  NUMBER(NLMSG_ERROR);
  NUMBER(NLMSG_DONE);
  NUMBER(NLMSGERR_ATTR_MSG);
  NUMBER(NLA_F_NESTED);
  NUMBER(NLA_F_NET_BYTEORDER);
  NUMBER(RTNLGRP_LINK);
  NUMBER(RTNLGRP_IPV4_IFADDR);
  NUMBER(RTNLGRP_IPV6_IFADDR);
  NUMBER(RTM_NEWLINK);
  NUMBER(RTM_DELLINK);
  NUMBER(RTM_GETLINK);
  NUMBER(RTM_SETLINK);
  NUMBER(RTM_NEWADDR);
  NUMBER(RTM_DELADDR);
  NUMBER(RTM_GETADDR);
  NUMBER(RTM_NEWROUTE);
  NUMBER(RTM_GETROUTE);
  NUMBER(RTEXT_FILTER_BRVLAN);
  NUMBER(RTA_DST);
  NUMBER(RTA_OIF);
  NUMBER(RTA_GATEWAY);
  NUMBER(RTA_TABLE);
  NUMBER(RTN_UNICAST);
  NUMBER(IFF_UP);
  NUMBER(IFNAMSIZ);
  NUMBER(IFALIASZ);
  NUMBER(IFLA_ADDRESS);
  NUMBER(IFLA_IFNAME);
  NUMBER(IFLA_MTU);
  NUMBER(IFLA_MASTER);
  NUMBER(IFLA_LINKINFO);
  NUMBER(IFLA_IFALIAS);
  NUMBER(IFLA_STATS64);
  NUMBER(IFLA_AF_SPEC);
  NUMBER(IFLA_EXT_MASK);
  NUMBER(IFLA_CARRIER);
  NUMBER(IFLA_CARRIER_CHANGES);
  NUMBER(IFLA_MAX_MTU);
  NUMBER(IFLA_INFO_KIND);
  NUMBER(IFLA_INFO_DATA);
  NUMBER(IFLA_INFO_SLAVE_KIND);
  NUMBER(IFLA_INFO_SLAVE_DATA);
  NUMBER(IFLA_BR_VLAN_FILTERING);
  NUMBER(IFLA_BRPORT_MODE);
  NUMBER(IFLA_GROUP);
  NUMBER(IFLA_BRPORT_GUARD);
  NUMBER(IFLA_BRPORT_PROTECT);
  NUMBER(IFLA_BRPORT_LEARNING);
  NUMBER(IFLA_BRPORT_UNICAST_FLOOD);
  NUMBER(IFLA_BRPORT_MCAST_FLOOD);
  NUMBER(IFLA_BRPORT_ISOLATED);
  NUMBER(IFLA_TUN_OWNER);
  NUMBER(IFLA_TUN_GROUP);
  NUMBER(IFLA_TUN_TYPE);
  NUMBER(IFLA_TUN_VNET_HDR);
  NUMBER(IFLA_TUN_PERSIST);
  NUMBER(IFLA_BRIDGE_FLAGS);
  NUMBER(IFLA_BRIDGE_VLAN_INFO);
  NUMBER(BRIDGE_FLAGS_SELF);
  NUMBER(BRIDGE_VLAN_INFO_PVID);
  NUMBER(BRIDGE_VLAN_INFO_UNTAGGED);
  NUMBER(IFA_ADDRESS);
  NUMBER(IFA_LOCAL);
  NUMBER(IFA_BROADCAST);
  NUMBER(IFA_FLAGS);
  NUMBER(IFA_F_TENTATIVE);
  NUMBER(TUNSETIFF);
  NUMBER(TUNSETPERSIST);
  NUMBER(TUNSETOWNER);
  NUMBER(TUNSETGROUP);
  NUMBER(TUNSETVNETHDRSZ);
  NUMBER(IFF_TAP);
  NUMBER(IFF_NO_PI);
  NUMBER(IFF_VNET_HDR);
  NUMBER(IFF_TUN_EXCL);
  NUMBER(NFPROTO_INET);
  NUMBER(NFPROTO_IPV4);
  NUMBER(NFPROTO_NETDEV);
  NUMBER(NFPROTO_BRIDGE);
  NUMBER(NFPROTO_IPV6);
  NUMBER(NF_DROP);
  NUMBER(NF_ACCEPT);
  NUMBER(NF_INET_PRE_ROUTING);
  NUMBER(NF_INET_LOCAL_IN);
  NUMBER(NF_INET_FORWARD);
  NUMBER(NF_INET_LOCAL_OUT);
  NUMBER(NF_INET_POST_ROUTING);
  NUMBER(NF_NETDEV_INGRESS);
  NUMBER(NFNLGRP_NFTABLES);
  NUMBER(NFNL_SUBSYS_NFTABLES);
  NUMBER(NFNL_MSG_BATCH_BEGIN);
  NUMBER(NFNL_MSG_BATCH_END);
  NUMBER(IPS_DST_NAT);
  NUMBER(NFT_MSG_NEWTABLE);
  NUMBER(NFT_MSG_GETTABLE);
  NUMBER(NFT_MSG_DELTABLE);
  NUMBER(NFT_MSG_NEWCHAIN);
  NUMBER(NFT_MSG_GETCHAIN);
  NUMBER(NFT_MSG_DELCHAIN);
  NUMBER(NFT_MSG_NEWRULE);
  NUMBER(NFT_MSG_GETRULE);
  NUMBER(NFT_MSG_DELRULE);
  NUMBER(NFT_MSG_NEWSET);
  NUMBER(NFT_MSG_GETSET);
  NUMBER(NFT_MSG_DELSET);
  NUMBER(NFT_MSG_NEWSETELEM);
  NUMBER(NFT_MSG_GETSETELEM);
  NUMBER(NFT_MSG_DELSETELEM);
  NUMBER(NFTA_LIST_ELEM);
  NUMBER(NFTA_TABLE_NAME);
  NUMBER(NFTA_TABLE_USERDATA);
  NUMBER(NFTA_CHAIN_TABLE);
  NUMBER(NFTA_CHAIN_NAME);
  NUMBER(NFTA_CHAIN_HOOK);
  NUMBER(NFTA_CHAIN_POLICY);
  NUMBER(NFTA_CHAIN_TYPE);
  NUMBER(NFTA_HOOK_HOOKNUM);
  NUMBER(NFTA_HOOK_PRIORITY);
  NUMBER(NFTA_HOOK_DEV);
  NUMBER(NFTA_HOOK_DEVS);
  NUMBER(NFTA_DEVICE_NAME);
  NUMBER(NFTA_RULE_TABLE);
  NUMBER(NFTA_RULE_CHAIN);
  NUMBER(NFTA_RULE_EXPRESSIONS);
  NUMBER(NFTA_RULE_USERDATA);
  NUMBER(NFTA_EXPR_NAME);
  NUMBER(NFTA_EXPR_DATA);
  NUMBER(NFTA_SET_TABLE);
  NUMBER(NFTA_SET_NAME);
  NUMBER(NFTA_SET_FLAGS);
  NUMBER(NFTA_SET_KEY_TYPE);
  NUMBER(NFTA_SET_KEY_LEN);
  NUMBER(NFTA_SET_ID);
  NUMBER(NFTA_SET_USERDATA);
  NUMBER(NFT_SET_TIMEOUT);
  NUMBER(NFTA_SET_ELEM_LIST_TABLE);
  NUMBER(NFTA_SET_ELEM_LIST_SET);
  NUMBER(NFTA_SET_ELEM_LIST_ELEMENTS);
  NUMBER(NFTA_SET_ELEM_KEY);
  NUMBER(NFTA_SET_ELEM_TIMEOUT);
  NUMBER(NFTA_SET_ELEM_EXPIRATION);
  NUMBER(NFTA_DATA_VALUE);
  NUMBER(NFTA_DATA_VERDICT);
  NUMBER(NFTA_VERDICT_CODE);
  NUMBER(NFT_REG_VERDICT);
  NUMBER(NFT_REG_1);
  NUMBER(NFT_REG_2);
  NUMBER(NFTA_PAYLOAD_DREG);
  NUMBER(NFTA_PAYLOAD_BASE);
  NUMBER(NFTA_PAYLOAD_OFFSET);
  NUMBER(NFTA_PAYLOAD_LEN);
  NUMBER(NFT_PAYLOAD_LL_HEADER);
  NUMBER(NFT_PAYLOAD_NETWORK_HEADER);
  NUMBER(NFT_PAYLOAD_TRANSPORT_HEADER);
  NUMBER(NFTA_BITWISE_SREG);
  NUMBER(NFTA_BITWISE_DREG);
  NUMBER(NFTA_BITWISE_LEN);
  NUMBER(NFTA_BITWISE_MASK);
  NUMBER(NFTA_BITWISE_XOR);
  NUMBER(NFTA_CMP_SREG);
  NUMBER(NFTA_CMP_OP);
  NUMBER(NFTA_CMP_DATA);
  NUMBER(NFT_CMP_EQ);
  NUMBER(NFT_CMP_NEQ);
  NUMBER(NFTA_META_DREG);
  NUMBER(NFTA_META_KEY);
  NUMBER(NFT_META_IIFNAME);
  NUMBER(NFT_META_OIFNAME);
  NUMBER(NFT_META_NFPROTO);
  NUMBER(NFT_META_L4PROTO);
  NUMBER(NFTA_CT_DREG);
  NUMBER(NFTA_CT_KEY);
  NUMBER(NFT_CT_STATE);
  NUMBER(NFT_CT_STATUS);
  NUMBER(NFTA_LOOKUP_SET);
  NUMBER(NFTA_LOOKUP_SREG);
  NUMBER(NFTA_IMMEDIATE_DREG);
  NUMBER(NFTA_IMMEDIATE_DATA);
  NUMBER(NFTA_FIB_DREG);
  NUMBER(NFTA_FIB_RESULT);
  NUMBER(NFTA_FIB_FLAGS);
  NUMBER(NFT_FIB_RESULT_ADDRTYPE);
  NUMBER(NFTA_FIB_F_DADDR);
  NUMBER(NFTA_NAT_TYPE);
  NUMBER(NFTA_NAT_FAMILY);
  NUMBER(NFTA_NAT_REG_ADDR_MIN);
  NUMBER(NFTA_NAT_REG_PROTO_MIN);
  NUMBER(NFT_NAT_DNAT);
}

static void hardware_numbers(void) {
  NUMBER(IPMICTL_SEND_COMMAND);
  NUMBER(IPMICTL_RECEIVE_MSG_TRUNC);
  NUMBER(IPMI_SYSTEM_INTERFACE_ADDR_TYPE);
  NUMBER(IPMI_BMC_CHANNEL);
  NUMBER(IPMI_RESPONSE_RECV_TYPE);
  NUMBER(IPMI_MAX_MSG_LENGTH);
  NUMBER(ETHTOOL_GDRVINFO);
  NUMBER(ETHTOOL_GPERMADDR);
}

static void numbers(void) {
  begin("numbers");
  NUMBER(O_RDWR);
  NUMBER(O_CREAT);
  NUMBER(O_NONBLOCK);
  NUMBER(O_CLOEXEC);
  NUMBER(SEEK_DATA);
  NUMBER(SEEK_HOLE);
  NUMBER(O_NOFOLLOW);
  NUMBER(O_PATH);
  NUMBER(AT_RECURSIVE);
  NUMBER(S_IFCHR);
  NUMBER(S_IFBLK);
  NUMBER(F_GETFL);
  NUMBER(F_SETFL);
  NUMBER(F_SETFD);
  NUMBER(FD_CLOEXEC);
  NUMBER(F_DUPFD_CLOEXEC);
  NUMBER(F_ADD_SEALS);
  NUMBER(F_SEAL_SEAL);
  NUMBER(F_SEAL_SHRINK);
  NUMBER(F_SEAL_GROW);
  NUMBER(FICLONE);
  NUMBER(F_OFD_SETLK);
  NUMBER(F_WRLCK);
  hardware_numbers();
  NUMBER(WDIOC_GETSUPPORT);
  NUMBER(WDIOC_KEEPALIVE);
  NUMBER(WDIOC_SETTIMEOUT);
  NUMBER(WDIOC_GETTIMEOUT);
  NUMBER(WDIOF_SETTIMEOUT);
  NUMBER(WDIOF_MAGICCLOSE);
  NUMBER(KVM_GET_API_VERSION);
  NUMBER(KVM_CREATE_VM);
  NUMBER(KVM_CHECK_EXTENSION);
  NUMBER(KVM_CAP_USER_MEMORY);
  NUMBER(KVM_CAP_SPLIT_IRQCHIP);
  NUMBER(LOCK_EX);
  NUMBER(LOCK_NB);
  NUMBER(EFD_CLOEXEC);
  NUMBER(EFD_NONBLOCK);
  NUMBER(EPOLLIN);
  NUMBER(EPOLLPRI);
  NUMBER(EPOLLOUT);
  NUMBER(EPOLLERR);
  NUMBER(EPOLLHUP);
  NUMBER(EPOLLRDHUP);
  NUMBER(EPOLLONESHOT);
  NUMBER(EPOLL_CLOEXEC);
  NUMBER(EPOLL_CTL_ADD);
  NUMBER(EPOLL_CTL_DEL);
  NUMBER(EPOLL_CTL_MOD);
  NUMBER(POLLIN);
  NUMBER(POLLOUT);
  NUMBER(POLLHUP);
  NUMBER(POLLRDHUP);
  NUMBER(CLOSE_RANGE_CLOEXEC);
  NUMBER(KCMP_FILE);
  NUMBER(SYS_pidfd_send_signal);
  NUMBER(SYS_pidfd_open);
  NUMBER(SYS_pidfd_getfd);
  NUMBER(SYS_mount_setattr);
  NUMBER(SYS_close_range);
  NUMBER(SYS_rt_sigaction);
  NUMBER(SYS_sendmsg);
  NUMBER(SYS_recvmsg);
  NUMBER(SYS_capget);
  NUMBER(SYS_capset);
  NUMBER(SYS_setgroups);
  NUMBER(SYS_setresuid);
  NUMBER(SYS_setresgid);
  NUMBER(SYS_sched_getparam);
  NUMBER(SYS_sched_setscheduler);
  NUMBER(SYS_sched_getscheduler);
  NUMBER(SYS_io_setup);
  NUMBER(SYS_io_destroy);
  NUMBER(SYS_io_submit);
  NUMBER(SYS_io_getevents);
  NUMBER(SYS_reboot);
  NUMBER(SYS_sync);
  NUMBER(SYS_kcmp);
  NUMBER(SYS_mbind);
  NUMBER(SYS_kexec_file_load);
  NUMBER(IOCB_CMD_POLL);
  NUMBER(IOCB_FLAG_RESFD);
  NUMBER(P_PID);
  NUMBER(P_PIDFD);
  NUMBER(WNOHANG);
  NUMBER(WEXITED);
  NUMBER(WNOWAIT);
  NUMBER(CLD_EXITED);
  NUMBER(CLD_DUMPED);
  NUMBER(SIG_SETMASK);
  NUMBER(PIDFD_GET_INFO);
  NUMBER(PIDFD_INFO_EXIT);
  NUMBER(PIDFD_SIGNAL_PROCESS_GROUP);
  NUMBER(NS_GET_PARENT);
  NUMBER(AF_UNIX);
  NUMBER(AF_INET);
  NUMBER(AF_INET6);
  NUMBER(AF_VSOCK);
  NUMBER(AF_PACKET);
  NUMBER(SOCK_STREAM);
  NUMBER(SOCK_DGRAM);
  NUMBER(SOCK_NONBLOCK);
  NUMBER(SOCK_CLOEXEC);
  NUMBER(SHUT_WR);
  NUMBER(SOL_SOCKET);
  NUMBER(SO_TYPE);
  NUMBER(SO_ERROR);
  NUMBER(SO_REUSEADDR);
  NUMBER(SO_BINDTODEVICE);
  NUMBER(SO_ATTACH_FILTER);
  NUMBER(SO_PASSCRED);
  NUMBER(SO_PEERCRED);
  NUMBER(SO_PEERSEC);
  NUMBER(SO_DOMAIN);
  NUMBER(SO_PEERPIDFD);
  NUMBER(SCM_RIGHTS);
  NUMBER(SCM_CREDENTIALS);
  NUMBER(MSG_CTRUNC);
  NUMBER(MSG_TRUNC);
  NUMBER(MSG_DONTWAIT);
  NUMBER(MSG_NOSIGNAL);
  NUMBER(MSG_CMSG_CLOEXEC);
  NUMBER(SOL_PACKET);
  NUMBER(PACKET_AUXDATA);
  NUMBER(TP_STATUS_CSUMNOTREADY);
  NUMBER(ETH_P_IP);
  NUMBER(ETH_P_ALL);
  NUMBER(SIOCGIFINDEX);
  NUMBER(SIOCETHTOOL);
  NUMBER(ETHTOOL_GSET);
  NUMBER(DUPLEX_HALF);
  NUMBER(DUPLEX_FULL);
  NUMBER(POSIX_SPAWN_SETSIGDEF);
  NUMBER(POSIX_SPAWN_SETSIGMASK);
  NUMBER(POSIX_SPAWN_SETSCHEDULER);
  NUMBER(POSIX_SPAWN_SETSID);
  NUMBER(CLONE_NEWNS);
  NUMBER(SCHED_OTHER);
  NUMBER(SCHED_FIFO);
  NUMBER(SCHED_RR);
  NUMBER(SCHED_BATCH);
  NUMBER(SCHED_IDLE);
  NUMBER(SCHED_RESET_ON_FORK);
  NUMBER(RLIMIT_NOFILE);
  NUMBER(PRIO_PROCESS);
  NUMBER(CLOCK_REALTIME);
  NUMBER(CLOCK_MONOTONIC);
  NUMBER(CLOCK_BOOTTIME);
  NUMBER(PR_SET_PDEATHSIG);
  NUMBER(CLOCK_THREAD_CPUTIME_ID);
  NUMBER(PROT_READ);
  NUMBER(PROT_WRITE);
  NUMBER(MAP_PRIVATE);
  NUMBER(MAP_ANONYMOUS);
  NUMBER(MAP_NORESERVE);
  NUMBER(MADV_HUGEPAGE);
  NUMBER(MADV_DONTDUMP);
  NUMBER(MPOL_BIND);
  NUMBER(PR_SET_KEEPCAPS);
  NUMBER(PR_CAPBSET_DROP);
  NUMBER(PR_SET_NO_NEW_PRIVS);
  NUMBER(PR_CAP_AMBIENT);
  NUMBER(PR_CAP_AMBIENT_RAISE);
  NUMBER(PR_CAP_AMBIENT_CLEAR_ALL);
  NUMBER(LINUX_CAPABILITY_VERSION_3);
  NUMBER(MS_NOSUID);
  NUMBER(MS_NOEXEC);
  NUMBER(MS_BIND);
  NUMBER(MS_REC);
  NUMBER(MS_PRIVATE);
  NUMBER(MNT_DETACH);
  NUMBER(MOUNT_ATTR_RDONLY);
  NUMBER(MOUNT_ATTR_NOSUID);
  NUMBER(MOUNT_ATTR_NODEV);
  NUMBER(MOUNT_ATTR_NOEXEC);
  NUMBER(MFD_CLOEXEC);
  NUMBER(MFD_ALLOW_SEALING);
  NUMBER(LIVEUPDATE_IOCTL_CREATE_SESSION);
  NUMBER(LIVEUPDATE_IOCTL_RETRIEVE_SESSION);
  NUMBER(LIVEUPDATE_SESSION_PRESERVE_FD);
  NUMBER(LIVEUPDATE_SESSION_RETRIEVE_FD);
  NUMBER(LIVEUPDATE_SESSION_FINISH);
  NUMBER(LIVEUPDATE_SESSION_GET_NAME);
  NUMBER(KEXEC_FILE_UNLOAD);
  NUMBER(KEXEC_FILE_NO_INITRAMFS);
  NUMBER(LINUX_REBOOT_MAGIC1);
  NUMBER(LINUX_REBOOT_MAGIC2);
  NUMBER(LINUX_REBOOT_CMD_RESTART);
  NUMBER(LINUX_REBOOT_CMD_HALT);
  NUMBER(LINUX_REBOOT_CMD_POWER_OFF);
  NUMBER(LINUX_REBOOT_CMD_KEXEC);
  disk_numbers();
  network_numbers();
  end();
}

static void errors(void) {
  begin("errors");
  NUMBER(EPERM);
  NUMBER(ENOENT);
  NUMBER(ESRCH);
  NUMBER(EINTR);
  NUMBER(EIO);
  NUMBER(ENXIO);
  NUMBER(E2BIG);
  NUMBER(ENOEXEC);
  NUMBER(EBADF);
  NUMBER(ECHILD);
  NUMBER(EAGAIN);
  NUMBER(ENOMEM);
  NUMBER(EACCES);
  NUMBER(EFAULT);
  NUMBER(ENOTBLK);
  NUMBER(EBUSY);
  NUMBER(EEXIST);
  NUMBER(EXDEV);
  NUMBER(ENODEV);
  NUMBER(ENOTDIR);
  NUMBER(EISDIR);
  NUMBER(EINVAL);
  NUMBER(ENFILE);
  NUMBER(EMFILE);
  NUMBER(ENOTTY);
  NUMBER(ETXTBSY);
  NUMBER(EFBIG);
  NUMBER(ENOSPC);
  NUMBER(ESPIPE);
  NUMBER(EROFS);
  NUMBER(EMLINK);
  NUMBER(EPIPE);
  NUMBER(EDOM);
  NUMBER(ERANGE);
  NUMBER(EDEADLK);
  NUMBER(ENAMETOOLONG);
  NUMBER(ENOLCK);
  NUMBER(ENOSYS);
  NUMBER(ENOTEMPTY);
  NUMBER(ELOOP);
  NUMBER(ENOMSG);
  NUMBER(EIDRM);
  NUMBER(ECHRNG);
  NUMBER(EL2NSYNC);
  NUMBER(EL3HLT);
  NUMBER(EL3RST);
  NUMBER(ELNRNG);
  NUMBER(EUNATCH);
  NUMBER(ENOCSI);
  NUMBER(EL2HLT);
  NUMBER(EBADE);
  NUMBER(EBADR);
  NUMBER(EXFULL);
  NUMBER(ENOANO);
  NUMBER(EBADRQC);
  NUMBER(EBADSLT);
  NUMBER(EBFONT);
  NUMBER(ENOSTR);
  NUMBER(ENODATA);
  NUMBER(ETIME);
  NUMBER(ENOSR);
  NUMBER(ENONET);
  NUMBER(ENOPKG);
  NUMBER(EREMOTE);
  NUMBER(ENOLINK);
  NUMBER(EADV);
  NUMBER(ESRMNT);
  NUMBER(ECOMM);
  NUMBER(EPROTO);
  NUMBER(EMULTIHOP);
  NUMBER(EDOTDOT);
  NUMBER(EBADMSG);
  NUMBER(EOVERFLOW);
  NUMBER(ENOTUNIQ);
  NUMBER(EBADFD);
  NUMBER(EREMCHG);
  NUMBER(ELIBACC);
  NUMBER(ELIBBAD);
  NUMBER(ELIBSCN);
  NUMBER(ELIBMAX);
  NUMBER(ELIBEXEC);
  NUMBER(EILSEQ);
  NUMBER(ERESTART);
  NUMBER(ESTRPIPE);
  NUMBER(EUSERS);
  NUMBER(ENOTSOCK);
  NUMBER(EDESTADDRREQ);
  NUMBER(EMSGSIZE);
  NUMBER(EPROTOTYPE);
  NUMBER(ENOPROTOOPT);
  NUMBER(EPROTONOSUPPORT);
  NUMBER(ESOCKTNOSUPPORT);
  NUMBER(EOPNOTSUPP);
  NUMBER(EPFNOSUPPORT);
  NUMBER(EAFNOSUPPORT);
  NUMBER(EADDRINUSE);
  NUMBER(EADDRNOTAVAIL);
  NUMBER(ENETDOWN);
  NUMBER(ENETUNREACH);
  NUMBER(ENETRESET);
  NUMBER(ECONNABORTED);
  NUMBER(ECONNRESET);
  NUMBER(ENOBUFS);
  NUMBER(EISCONN);
  NUMBER(ENOTCONN);
  NUMBER(ESHUTDOWN);
  NUMBER(ETOOMANYREFS);
  NUMBER(ETIMEDOUT);
  NUMBER(ECONNREFUSED);
  NUMBER(EHOSTDOWN);
  NUMBER(EHOSTUNREACH);
  NUMBER(EALREADY);
  NUMBER(EINPROGRESS);
  NUMBER(ESTALE);
  NUMBER(EUCLEAN);
  NUMBER(ENOTNAM);
  NUMBER(ENAVAIL);
  NUMBER(EISNAM);
  NUMBER(EREMOTEIO);
  NUMBER(EDQUOT);
  NUMBER(ENOMEDIUM);
  NUMBER(EMEDIUMTYPE);
  NUMBER(ECANCELED);
  NUMBER(ENOKEY);
  NUMBER(EKEYEXPIRED);
  NUMBER(EKEYREVOKED);
  NUMBER(EKEYREJECTED);
  NUMBER(EOWNERDEAD);
  NUMBER(ENOTRECOVERABLE);
  NUMBER(ERFKILL);
  NUMBER(EHWPOISON);
  NUMBER(EWOULDBLOCK);
  NUMBER(EDEADLOCK);
  NUMBER(ENOTSUP);
  end();
}

static void signals(void) {
  begin("signals");
  NUMBER(SIGHUP);
  NUMBER(SIGINT);
  NUMBER(SIGQUIT);
  NUMBER(SIGILL);
  NUMBER(SIGTRAP);
  NUMBER(SIGABRT);
  NUMBER(SIGBUS);
  NUMBER(SIGFPE);
  NUMBER(SIGKILL);
  NUMBER(SIGUSR1);
  NUMBER(SIGSEGV);
  NUMBER(SIGUSR2);
  NUMBER(SIGPIPE);
  NUMBER(SIGALRM);
  NUMBER(SIGTERM);
  NUMBER(SIGSTKFLT);
  NUMBER(SIGCHLD);
  NUMBER(SIGCONT);
  NUMBER(SIGSTOP);
  NUMBER(SIGTSTP);
  NUMBER(SIGTTIN);
  NUMBER(SIGTTOU);
  NUMBER(SIGURG);
  NUMBER(SIGXCPU);
  NUMBER(SIGXFSZ);
  NUMBER(SIGVTALRM);
  NUMBER(SIGPROF);
  NUMBER(SIGWINCH);
  NUMBER(SIGIO);
  NUMBER(SIGPWR);
  NUMBER(SIGSYS);
  NUMBER(SIGRTMIN);
  NUMBER(SIGRTMAX);
  end();
}

int main(void) {
  separator = "{";
  structures();
  numbers();
  errors();
  signals();
  printf("\n}\n");
  return 0;
}
