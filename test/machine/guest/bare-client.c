/*
 * The same as bare-client.py, in C: a table of bytes in a memfd, kept with luo-agent's words.
 *
 *   bare-client before SOCKET ID MEBIBYTES SEED   subscribes, preserves when it is asked
 *   bare-client after SOCKET ID                   claims, and tells the table's hash
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { PRESERVE_FD = 0xBA40, RETRIEVE_FD = 0xBA41, FINISH = 0xBA42, TOKEN = 7 };
struct file_of_session {
  uint32_t size;
  int32_t fd;
  uint64_t token;
};
struct finish {
  uint32_t size;
  uint32_t reserved;
};

static void need(int holds, const char *what) {
  if (holds) return;
  printf("client failed: %s: %s\n", what, strerror(errno));
  exit(3);
}

static int dial(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  need(connect(connection, (void *)&address, sizeof address) == 0, "connect");
  return connection;
}

static void tell(int connection, const char *command, const char *id) {
  char line[256];
  int length = snprintf(line, sizeof line, "{\"cmd\":\"%s\",\"id\":\"%s\"}\n", command, id);
  need(write(connection, line, length) == length, command);
}

/* A line, and the session that came with it; -1 for none. */
static int session_of(int connection) {
  char line[4096];
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec vector = {line, sizeof line};
  struct msghdr message = {.msg_iov = &vector,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof control};
  int session = -1;
  if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC) <= 0) return -1;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header != NULL && header->cmsg_type == SCM_RIGHTS)
    memcpy(&session, CMSG_DATA(header), sizeof session);
  return session;
}

/* FNV-1a, over eight bytes at a time. */
static void tell_hash(const char *what, int file) {
  struct stat status;
  need(fstat(file, &status) == 0, "fstat");
  uint64_t *words = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, file, 0);
  need(words != MAP_FAILED, "mmap");
  uint64_t hash = 0xcbf29ce484222325u;
  for (off_t index = 0; index < status.st_size / 8; index++)
    hash = (hash ^ words[index]) * 0x100000001b3u;
  printf("client %s %lld %016llx\n", what, (long long)status.st_size, (unsigned long long)hash);
}

/* Bytes that differ everywhere: xorshift64. */
static int table(size_t size, uint64_t seed) {
  int file = memfd_create("table", MFD_CLOEXEC);
  need(file >= 0 && ftruncate(file, size) == 0, "memfd");
  uint64_t *words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  need(words != MAP_FAILED, "mmap");
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (size_t index = 0; index < size / 8; index++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    words[index] = state;
  }
  munmap(words, size);
  return file;
}

static void before(const char *path, const char *id, size_t size, uint64_t seed) {
  int file = table(size, seed);
  tell_hash("has", file);
  int connection = dial(path);
  tell(connection, "SUBSCRIBE", id);
  printf("client subscribed %s\n", id);
  int session = session_of(connection);
  need(session >= 0, "START_PRESERVATION");
  struct file_of_session words = {sizeof words, file, TOKEN};
  need(ioctl(session, PRESERVE_FD, &words) == 0, "preserve");
  need(write(connection, "{\"cmd\":\"READY\"}\n", 16) == 16, "READY");
  session_of(connection);
  printf("client ended\n");
}

static void after(const char *path, const char *id) {
  int connection = dial(path);
  tell(connection, "CLAIM", id);
  int session = session_of(connection);
  need(session >= 0, "CLAIM");
  struct file_of_session words = {sizeof words, -1, TOKEN};
  need(ioctl(session, RETRIEVE_FD, &words) == 0, "retrieve");
  tell_hash("found", words.fd);
  struct finish last = {sizeof last, 0};
  need(ioctl(session, FINISH, &last) == 0, "finish");
  printf("client finished %s\n", id);
}

int main(int count, char **words) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (count == 6 && strcmp(words[1], "before") == 0) {
    before(words[2], words[3], strtoul(words[4], NULL, 10) << 20, strtoul(words[5], NULL, 10));
    return 3;
  }
  need(count == 4, "words");
  after(words[2], words[3]);
  return 0;
}
