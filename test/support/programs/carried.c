/*
 * A program with memory to carry: what it gets as LISTEN_FDS it tells, or makes new.
 *
 *   carried [--park] [--park-socket] [--unpark] [--drop] [--child] [--mapped] [--no-ready]
 *           [--end-on-start]
 *
 * Lines: "pid PID", "file NAME SIZE HASH" for each descriptor, "up", and "got SIGNAL". SIGTERM ends
 * it with 7, SIGUSR2 makes it grow its first file, SIGHUP ends it with 9.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int flag(int count, char **words, const char *name) {
  for (int index = 1; index < count; index++)
    if (strcmp(words[index], name) == 0) return 1;
  return 0;
}

static void notify(const char *text, int descriptor) {
  const char *path = getenv("NOTIFY_SOCKET");
  if (path == NULL) return;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t length = strlen(path);
  memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = 0;
  struct iovec vector = {(void *)text, strlen(text)};
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct msghdr message = {.msg_name = &address,
                           .msg_namelen = offsetof(struct sockaddr_un, sun_path) + length,
                           .msg_iov = &vector,
                           .msg_iovlen = 1};
  if (descriptor >= 0) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&control.header), &descriptor, sizeof(int));
  }
  int socket_number = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (sendmsg(socket_number, &message, 0) < 0) printf("notify failed: %s\n", strerror(errno));
  close(socket_number);
}

/* FNV-1a. */
static void tell(const char *name, int descriptor) {
  struct stat about;
  fstat(descriptor, &about);
  uint64_t hash = 0xcbf29ce484222325u;
  unsigned char *bytes = mmap(NULL, about.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
  for (off_t at = 0; at < about.st_size; at++) hash = (hash ^ bytes[at]) * 0x100000001b3u;
  if (about.st_size > 0) munmap(bytes, about.st_size);
  printf("file %s %lld %016llx\n", name, (long long)about.st_size, (unsigned long long)hash);
}

static int make(const char *name, size_t size, uint32_t seed) {
  int descriptor = memfd_create(name, MFD_CLOEXEC);
  if (descriptor < 0 || ftruncate(descriptor, size) < 0) exit(20);
  unsigned char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  for (size_t at = 0; at < size; at++) {
    seed = seed * 1664525u + 1013904223u;
    bytes[at] = seed >> 24;
  }
  munmap(bytes, size);
  return descriptor;
}

static void listen_fds(void) {
  const char *process = getenv("LISTEN_PID");
  if (process == NULL || atoi(process) != getpid()) {
    printf("LISTEN_PID is %s and not %d\n", process, getpid());
    return;
  }
  int count = atoi(getenv("LISTEN_FDS"));
  char *names = strdup(getenv("LISTEN_FDNAMES"));
  char *rest = names;
  for (int index = 0; index < count; index++) tell(strsep(&rest, ":"), 3 + index);
}

int main(int count, char **words) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGUSR1);
  sigaddset(&signals, SIGUSR2);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  printf("pid %d\n", getpid());
  int first = 3;
  if (getenv("LISTEN_FDS") != NULL) {
    listen_fds();
    if (flag(count, words, "--unpark") || flag(count, words, "--drop"))
      notify("FDSTOREREMOVE=1\nFDNAME=parked", -1);
    if (flag(count, words, "--drop")) close(3);
    if (flag(count, words, "--end-on-start")) return 5;
  } else {
    first = make("alpha", 3 << 20, 1);
    tell("alpha", first);
    int second = make("be:ta", 5000, 2);
    dup(second);
    tell("be_ta", second);
    if (flag(count, words, "--park")) {
      int parked = make("unseen", 70000, 3);
      tell("parked", parked);
      notify("FDSTORE=1\nFDNAME=parked", parked);
      close(parked);
    }
    if (flag(count, words, "--park-socket")) {
      int pair[2];
      socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
      notify("FDSTORE=1\nFDNAME=line", pair[0]);
    }
    if (flag(count, words, "--mapped")) {
      int mapped = make("only-mapped", 4096, 4);
      mmap(NULL, 4096, PROT_READ, MAP_SHARED, mapped, 0);
      close(mapped);
    }
    if (flag(count, words, "--child") && fork() == 0) {
      tell("gamma", make("gamma", 4096, 5));
      printf("child %d\n", getpid());
      for (;;) pause();
    }
  }
  if (!flag(count, words, "--no-ready")) notify("READY=1", -1);
  printf("up\n");
  for (;;) {
    int signal = 0;
    sigwait(&signals, &signal);
    printf("got %d\n", signal);
    if (signal == SIGTERM) return 7;
    if (signal == SIGHUP) return 9;
    if (signal == SIGUSR2) {
      struct stat about;
      fstat(first, &about);
      if (ftruncate(first, about.st_size + 4096) < 0) printf("grow: %s\n", strerror(errno));
      else printf("grown\n");
    }
  }
}
