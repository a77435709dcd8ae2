/*
 * Kills the children of supervisors and takes the time until the next one's first instruction.
 *
 *   harness rows SOCKET …           one datagram socket for each row, then commands on stdin:
 *     wait ROW TIMEOUT              → "ROW known PROCESS"
 *     kill ROW GAP TIMEOUT          → "ROW took NANOSECONDS PROCESS", when its child is GAP old
 *     rest                          → "rested", when every child is 1.5 s old
 *   harness start SOCKET NAME PROGRAM [ARGUMENT …]
 *     starts a supervisor with the variable NAME=SOCKET, → "took NANOSECONDS" until a datagram
 *     comes there; then ends the supervisor and the sender.
 *
 * Gaps and timeouts are in microseconds. "ROW late" instead, when nothing came in time. A child
 * that is not SCHED_OTHER ends the harness: its row would be measured by another rule.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { MOST_ROWS = 32 };
static const int64_t second = 1000000000, rest = 1500000000;

struct row {
  int socket;
  /* The newest child that told its start; 0 before the first one. */
  pid_t process;
  int descriptor;
  int64_t started;
};

static struct row rows[MOST_ROWS];
static int row_count;

static void fail(const char *what) {
  fprintf(stderr, "harness: %s: %s\n", what, strerror(errno));
  exit(111);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * second + time.tv_nsec;
}

static void sleep_until(int64_t moment) {
  struct timespec time = {.tv_sec = moment / second, .tv_nsec = moment % second};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) continue;
}

static int bind_socket(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int on = 1, made = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (made < 0) fail("socket");
  if (strlen(path) >= sizeof address.sun_path) fail("the socket's path is too long");
  strcpy(address.sun_path, path);
  unlink(path);
  if (bind(made, (struct sockaddr *)&address, sizeof address) != 0) fail("bind");
  /* One row's child is nobody's. */
  if (chmod(path, 0777) != 0) fail("chmod");
  if (setsockopt(made, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) fail("SO_PASSCRED");
  return made;
}

/* One datagram and the process that sent it; its length, or -1 when none came before the limit. */
static ssize_t receive(int from, void *data, size_t size, int64_t limit, pid_t *sender) {
  struct pollfd watched = {.fd = from, .events = POLLIN};
  int64_t left = limit - now();
  struct timespec wait = {.tv_sec = 0};
  if (left > 0) wait = (struct timespec){.tv_sec = left / second, .tv_nsec = left % second};
  if (ppoll(&watched, 1, &wait, NULL) != 1) return -1;
  char control[CMSG_SPACE(sizeof(struct ucred))];
  struct iovec vector = {.iov_base = data, .iov_len = size};
  struct msghdr message = {
      .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t length = recvmsg(from, &message, 0);
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (length < 0 || header == NULL || header->cmsg_type != SCM_CREDENTIALS) fail("recvmsg");
  *sender = ((struct ucred *)CMSG_DATA(header))->pid;
  return length;
}

/* Takes the newest child's word; false when none came before the limit. */
static int hear(struct row *row, int64_t limit) {
  int64_t started;
  pid_t sender;
  if (receive(row->socket, &started, sizeof started, limit, &sender) != sizeof started) return 0;
  if (row->process != 0) close(row->descriptor);
  row->process = sender;
  row->started = started;
  row->descriptor = (int)syscall(SYS_pidfd_open, sender, 0);
  if (row->descriptor < 0) fail("pidfd_open");
  int policy = sched_getscheduler(sender);
  if (policy != SCHED_OTHER) {
    fprintf(stderr, "harness: child %d has scheduling policy %d, not SCHED_OTHER\n", sender, policy);
    exit(1);
  }
  return 1;
}

static int send_signal(int descriptor, int signal) {
  return (int)syscall(SYS_pidfd_send_signal, descriptor, signal, NULL, 0);
}

static void kill_child(int number, int64_t gap, int64_t timeout) {
  struct row *row = &rows[number];
  while (hear(row, 0)) continue;
  sleep_until(row->started + gap);
  int64_t begin = now();
  /* One that is dead already may be on its way; a late answer is the next command's to find. */
  if (send_signal(row->descriptor, SIGKILL) != 0 && errno != ESRCH) fail("pidfd_send_signal");
  if (hear(row, begin + timeout)) {
    printf("%d took %" PRId64 " %d\n", number, row->started - begin, row->process);
  } else {
    printf("%d late\n", number);
  }
}

static void obey(const char *line) {
  int number = 0;
  int64_t first = 0, last = 0;
  char word[8];
  int count = sscanf(line, "%7s %d %" SCNd64 " %" SCNd64, word, &number, &first, &last);
  if (number < 0 || number >= row_count) exit(100);
  if (count == 3 && strcmp(word, "wait") == 0) {
    struct row *row = &rows[number];
    if (row->process != 0 || hear(row, now() + first * 1000)) {
      printf("%d known %d\n", number, row->process);
    } else {
      printf("%d late\n", number);
    }
  } else if (count == 4 && strcmp(word, "kill") == 0) {
    kill_child(number, first * 1000, last * 1000);
  } else if (strcmp(word, "rest") == 0) {
    int64_t youngest = 0;
    for (int index = 0; index < row_count; index++) {
      while (hear(&rows[index], 0)) continue;
      if (rows[index].started > youngest) youngest = rows[index].started;
    }
    sleep_until(youngest + rest);
    printf("rested\n");
  } else {
    exit(100);
  }
}

static int measure_rows(int count, char **paths) {
  char line[128];
  if (count > MOST_ROWS) return 100;
  row_count = count;
  for (int index = 0; index < count; index++) rows[index].socket = bind_socket(paths[index]);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin) != NULL) obey(line);
  /* The supervisors are gone by now, or never got to stop theirs. */
  for (int index = 0; index < count; index++) {
    while (hear(&rows[index], 0)) continue;
    if (rows[index].process != 0) send_signal(rows[index].descriptor, SIGKILL);
  }
  return 0;
}

static int measure_start(char **words) {
  pid_t supervisor, sender;
  char data[4096];
  int from = bind_socket(words[0]);
  if (setenv(words[1], words[0], 1) != 0) fail("setenv");
  int64_t begin = now();
  if ((errno = posix_spawn(&supervisor, words[2], NULL, NULL, words + 2, environ)) != 0) {
    fail(words[2]);
  }
  if (receive(from, data, sizeof data, begin + 20 * second, &sender) < 0) {
    printf("late\n");
  } else {
    printf("took %" PRId64 "\n", now() - begin);
  }
  int descriptor = (int)syscall(SYS_pidfd_open, supervisor, 0);
  int child = sender == supervisor ? -1 : (int)syscall(SYS_pidfd_open, sender, 0);
  struct pollfd watched = {.fd = descriptor, .events = POLLIN};
  kill(supervisor, SIGTERM);
  if (poll(&watched, 1, 5000) != 1) kill(supervisor, SIGKILL);
  waitpid(supervisor, NULL, 0);
  if (child >= 0) send_signal(child, SIGKILL);
  return 0;
}

int main(int count, char **words) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (count > 2 && strcmp(words[1], "rows") == 0) return measure_rows(count - 2, words + 2);
  if (count > 4 && strcmp(words[1], "start") == 0) return measure_start(words + 2);
  return 100;
}
