/* Unix sockets, lines and descriptors, as the programs of `run bench live-update` need them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 4096 };

static void fail(const char *what) {
  fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
  exit(111);
}

/* Nanoseconds of CLOCK_MONOTONIC. */
static inline int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static struct sockaddr_un address_of(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) fail("the socket's path is too long");
  strcpy(address.sun_path, path);
  return address;
}

static inline int connect_to(const char *path) {
  struct sockaddr_un address = address_of(path);
  int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (made < 0) fail("socket");
  if (connect(made, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  return made;
}

static inline int listen_at(const char *path) {
  struct sockaddr_un address = address_of(path);
  int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) fail("socket");
  unlink(path);
  if (bind(made, (struct sockaddr *)&address, sizeof address) != 0) fail("bind");
  if (listen(made, 4096) != 0) fail("listen");
  return made;
}

/* Bytes with at most one descriptor, -1 for none. */
static inline void send_line(int to, const char *text, size_t size, int descriptor) {
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec vector = {.iov_base = (void *)text, .iov_len = size};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  }
  if (sendmsg(to, &message, MSG_NOSIGNAL) != (ssize_t)size && errno != EPIPE) fail("sendmsg");
}

struct reader {
  int socket;
  size_t size;
  /* What came and was not taken; -1 for none. The first two of a message are kept. */
  int descriptors[2];
  char bytes[LINE_BYTES];
};

/* Reads once. 0 when the other side is gone. */
static inline int receive(struct reader *reader) {
  char control[CMSG_SPACE(2 * sizeof(int))];
  size_t room = sizeof reader->bytes - 1 - reader->size;
  struct iovec vector = {.iov_base = reader->bytes + reader->size, .iov_len = room};
  struct msghdr message = {
      .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t length = recvmsg(reader->socket, &message, MSG_CMSG_CLOEXEC);
  if (length <= 0) return 0;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header != NULL && header->cmsg_type == SCM_RIGHTS) {
    memcpy(reader->descriptors, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
  }
  reader->size += (size_t)length;
  reader->bytes[reader->size] = 0;
  return 1;
}

/* Takes a whole line into `line`; 0 when there is none yet. */
static inline int take_line(struct reader *reader, char *line) {
  char *end = memchr(reader->bytes, '\n', reader->size);
  if (end == NULL) return 0;
  size_t length = (size_t)(end - reader->bytes);
  memcpy(line, reader->bytes, length);
  line[length] = 0;
  reader->size -= length + 1;
  memmove(reader->bytes, end + 1, reader->size);
  return 1;
}

static inline int has(const char *line, const char *words) {
  return strstr(line, words) != NULL;
}
