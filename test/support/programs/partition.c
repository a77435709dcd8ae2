/*
 * Small programs for the tests of the agent, told apart by the name that they are called by:
 *
 *   reaper    first process of a partition: brings up the loopback, reaps everybody, for ever
 *   probe     prints what it was given, a line for each thing, then waits for its end
 *   escape    forks twice and starts a session, prints the number of who fled; both live on
 *   activate  SOCKET PROGRAM [WORD ...]: listens there, and becomes the program as systemd does
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void reap_for_ever(void) {
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  int socket_for_request = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ioctl(socket_for_request, SIOCSIFFLAGS, &request);
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  sigprocmask(SIG_BLOCK, &children, NULL);
  puts("ready");
  fflush(stdout);
  for (;;) {
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    sigwaitinfo(&children, NULL);
  }
}

static void print_bytes(const char *name, const char *bytes) {
  printf("%s ", name);
  for (; *bytes != '\0'; bytes++) printf("%02x", (unsigned char)*bytes);
  putchar('\n');
}

/* What the kernel has, past the C library, which hides 32 and 33. */
struct kernel_action {
  void *handler;
  unsigned long flags;
  void *restorer;
  unsigned long mask;
};

static void print_signals(void) {
  for (int number = 1; number <= 64; number++) {
    struct kernel_action action = {0};
    if (syscall(SYS_rt_sigaction, number, NULL, &action, 8) != 0) continue;
    if (action.handler != SIG_DFL) printf("signal %d\n", number);
  }
  unsigned long mask = 0;
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
  printf("mask %lx\n", mask);
}

static void print_descriptors(void) {
  DIR *folder = opendir("/proc/self/fd");
  if (folder == NULL) fail("/proc/self/fd");
  struct dirent *entry;
  while ((entry = readdir(folder)) != NULL) {
    char path[300], target[4096];
    if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(folder)) continue;
    snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0) continue;
    target[length] = '\0';
    printf("descriptor %s %s\n", entry->d_name, target);
  }
  closedir(folder);
}

static void probe(int count, char **words) {
  print_descriptors();
  print_signals();
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  printf("files %lu %lu\n", (unsigned long)files.rlim_cur, (unsigned long)files.rlim_max);
  printf("scheduler %d\n", sched_getscheduler(0));
  errno = 0;
  printf("nice %d\n", getpriority(PRIO_PROCESS, 0));
  printf("session %d group %d process %d\n", getsid(0), getpgrp(), getpid());
  mode_t mask = umask(0);
  printf("umask %o\n", mask);
  char *folder = getcwd(NULL, 0);
  printf("folder %s\n", folder == NULL ? "(none)" : folder);
  for (int index = 0; index < count; index++) print_bytes("word", words[index]);
  for (char **variable = environ; *variable != NULL; variable++) print_bytes("variable", *variable);
  char line[4096];
  FILE *status = fopen("/proc/self/status", "r");
  while (status != NULL && fgets(line, sizeof line, status) != NULL) printf("status %s", line);
  puts("end");
  fflush(stdout);
  for (;;) pause();
}

static void escape(void) {
  int channel[2];
  if (pipe(channel) != 0) fail("pipe");
  if (fork() == 0) {
    setsid();
    if (fork() == 0) {
      setsid();
      pid_t own = getpid();
      if (write(channel[1], &own, sizeof own) != sizeof own) _exit(1);
      for (;;) pause();
    }
    _exit(0);
  }
  pid_t fled;
  if (read(channel[0], &fled, sizeof fled) != sizeof fled) fail("read");
  printf("fled %d\n", fled);
  fflush(stdout);
  for (;;) pause();
}

static void activate(char **words) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, words[1], sizeof address.sun_path - 1);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) fail("bind");
  if (listen(listener, 16) != 0) fail("listen");
  if (listener != 3 && dup2(listener, 3) != 3) fail("dup2");
  char number[16];
  snprintf(number, sizeof number, "%d", getpid());
  setenv("LISTEN_PID", number, 1);
  setenv("LISTEN_FDS", "1", 1);
  execv(words[2], words + 2);
  fail(words[2]);
}

int main(int count, char **words) {
  const char *slash = strrchr(words[0], '/');
  const char *name = slash == NULL ? words[0] : slash + 1;
  if (strcmp(name, "reaper") == 0) reap_for_ever();
  if (strcmp(name, "probe") == 0) probe(count, words);
  if (strcmp(name, "escape") == 0) escape();
  if (strcmp(name, "activate") == 0 && count > 2) activate(words);
  fprintf(stderr, "%s: no such program in this file\n", name);
  return 2;
}
