/*
 * What `run bench vm` measures virtual machines against and with. All times are nanoseconds.
 *
 *   vm-floor start CONSOLE BYTES PROGRAM [ARGUMENT …]
 *     the least that starts a machine: memory as descriptor 3, posix_spawn, and a connection to the
 *     serial console. Prints "took TIME" from before the memory to the guest's first letter; then
 *     ends the program.
 *   vm-floor time PROGRAM [ARGUMENT …]
 *     prints "took TIME" from before posix_spawn to the program's end
 *   vm-floor letter FILE
 *     prints "ready", and "at MOMENT" (CLOCK_MONOTONIC) when the file has a first letter
 *   vm-floor counter PROCESS ADDRESS TIME
 *     looks at the guest's counter in the memory that is descriptor 3 of its VMM; prints "ready",
 *     and after that time, or with 0 when standard input says something, "took LONGEST USUAL": the
 *     longest and the mean time between two numbers
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* Between two looks, where nothing tells. */
static const struct timespec pause_between = {.tv_nsec = 50000};
/* Looks before it is said that nothing comes: some minutes. */
enum { MOST_LOOKS = 2000000, MEMORY = 3 };

static void fail(const char *what) {
  fprintf(stderr, "vm-floor: %s: %s\n", what, strerror(errno));
  exit(111);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static pid_t spawn(char **words) {
  pid_t child;
  errno = posix_spawnp(&child, words[0], NULL, NULL, words, environ);
  if (errno != 0) fail(words[0]);
  return child;
}

static void expect_alive(pid_t child) {
  int status;
  if (waitpid(child, &status, WNOHANG) == 0) return;
  fprintf(stderr, "vm-floor: the program has ended: status %x\n", (unsigned)status);
  exit(111);
}

/* What listens there does so before its guest runs. */
static int connect_when_there(const char *path, pid_t child) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail("the console's path is too long");
  strcpy(address.sun_path, path);
  int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (made < 0) fail("socket");
  for (int look = 0; look < MOST_LOOKS; look++) {
    if (connect(made, (struct sockaddr *)&address, sizeof address) == 0) return made;
    expect_alive(child);
    nanosleep(&pause_between, NULL);
  }
  fail("nobody listens at the console");
  return -1;
}

static int start(const char *console, const char *bytes, char **words) {
  char letter;
  int64_t begin = now();
  int memory = memfd_create("floor", 0);
  if (memory < 0 || ftruncate(memory, atoll(bytes)) != 0) fail("memfd_create");
  if (memory != MEMORY) {
    if (dup2(memory, MEMORY) < 0) fail("dup2");
    close(memory);
  }
  pid_t child = spawn(words);
  int socket = connect_when_there(console, child);
  if (read(socket, &letter, 1) != 1) fail("the guest said nothing");
  printf("took %" PRId64 "\n", now() - begin);
  kill(child, SIGKILL);
  if (waitpid(child, NULL, 0) != child) fail("waitpid");
  return 0;
}

static int time_program(char **words) {
  int status;
  int64_t begin = now();
  pid_t child = spawn(words);
  if (waitpid(child, &status, 0) != child) fail("waitpid");
  printf("took %" PRId64 "\n", now() - begin);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 111;
}

static int letter(const char *path) {
  struct stat found;
  printf("ready\n");
  for (int look = 0; look < MOST_LOOKS; look++) {
    if (stat(path, &found) == 0 && found.st_size > 0) {
      printf("at %" PRId64 "\n", now());
      return 0;
    }
    nanosleep(&pause_between, NULL);
  }
  fail("nothing was written");
  return 111;
}

static int counter(const char *process, const char *where, const char *time) {
  char path[64];
  long page = sysconf(_SC_PAGESIZE);
  off_t address = strtoll(where, NULL, 0);
  snprintf(path, sizeof path, "/proc/%s/fd/%d", process, MEMORY);
  int memory = open(path, O_RDONLY | O_CLOEXEC);
  if (memory < 0) fail(path);
  char *mapped = mmap(NULL, page, PROT_READ, MAP_SHARED, memory, address / page * page);
  if (mapped == MAP_FAILED) fail("mmap");
  volatile uint32_t *number = (volatile uint32_t *)(mapped + address % page);
  struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
  uint32_t first = *number, last = first;
  int64_t begin = now(), changed = begin, longest = 0, limit = atoll(time);
  printf("ready\n");
  for (int look = 0, enough = 0; look < MOST_LOOKS; look++) {
    nanosleep(&pause_between, NULL);
    uint32_t found = *number;
    if (found != last) {
      int64_t moment = now();
      if (moment - changed > longest) longest = moment - changed;
      changed = moment;
      last = found;
      /* Not before the number that ends a pause. */
      if (enough) break;
    }
    enough = limit > 0 ? now() - begin > limit : poll(&input, 1, 0) != 0;
  }
  uint32_t counted = last - first;
  if (counted == 0) fail("the guest does not count");
  printf("took %" PRId64 " %" PRId64 "\n", longest, (now() - begin) / counted);
  return 0;
}

int main(int count, char **words) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (count >= 5 && strcmp(words[1], "start") == 0) return start(words[2], words[3], words + 4);
  if (count >= 3 && strcmp(words[1], "time") == 0) return time_program(words + 2);
  if (count == 3 && strcmp(words[1], "letter") == 0) return letter(words[2]);
  if (count == 5 && strcmp(words[1], "counter") == 0) return counter(words[2], words[3], words[4]);
  return 100;
}
