/*
 * The process that every supervisor of the bench keeps running. The first instruction of its own
 * takes CLOCK_MONOTONIC: .preinit_array is what the loader runs before anything else of a program.
 * It then sends that time, in nanoseconds, to the datagram socket that BENCH_SOCKET names, and
 * waits for its end. Who sent it, the kernel says (SCM_CREDENTIALS), also across PID namespaces.
 * With BENCH_READY it then writes a line to descriptor 3, as s6 wants to hear of readiness.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t first_instruction;

static void take_time(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  first_instruction = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

__attribute__((section(".preinit_array"), used)) static void (*const before_all)(void) = take_time;

int main(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *path = getenv("BENCH_SOCKET");
  int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (path == NULL || strlen(path) >= sizeof address.sun_path || sender < 0) return 100;
  strcpy(address.sun_path, path);
  if (sendto(sender, &first_instruction, sizeof first_instruction, 0,
             (struct sockaddr *)&address, sizeof address) != sizeof first_instruction) {
    return 111;
  }
  if (getenv("BENCH_READY") != NULL && write(3, "\n", 1) != 1) return 111;
  for (;;) pause();
}
