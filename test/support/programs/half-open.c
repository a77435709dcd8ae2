/*
 * Connections that ask nothing: half-open PORT COUNT opens so many to 127.0.0.1, from as many
 * addresses of 127.0.0.0/8 as it takes at 100 each, and keeps what the server leaves it. Each
 * second one begins a TLS record and never ends it. Says "opened N" for each thousand that the
 * server took, and stays until it is killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static int begin(int number, int port) {
  const int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (file < 0) fail("socket");
  const struct sockaddr_in own = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f010001 + number / 100)};
  if (bind(file, (const struct sockaddr *)&own, sizeof own) != 0) fail("bind");
  const struct sockaddr_in server = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const int refused = connect(file, (const struct sockaddr *)&server, sizeof server);
  if (refused != 0 && errno != EINPROGRESS) fail("connect");
  return file;
}

int main(int count, char **words) {
  if (count != 3) return 100;
  const int port = atoi(words[1]);
  const int wanted = atoi(words[2]);
  const struct rlimit limit = {(rlim_t)wanted + 100, (rlim_t)wanted + 100};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) fail("setrlimit");
  struct pollfd *const files = calloc((size_t)wanted, sizeof *files);
  if (files == NULL) fail("calloc");
  for (int number = 0; number < wanted; number += 1) {
    files[number] = (struct pollfd){.fd = begin(number, port), .events = POLLOUT};
  }
  for (int opened = 0; opened < wanted;) {
    if (poll(files, (nfds_t)wanted, -1) < 0) fail("poll");
    for (int number = 0; number < wanted; number += 1) {
      if (files[number].revents == 0) continue;
      /* A TLS record of 512 bytes, of which one is all that comes; RFC 8446, section 5.1. */
      const unsigned char begun[] = {22, 3, 1, 2, 0, 1};
      if (number % 2 == 1) (void)send(files[number].fd, begun, sizeof begun, MSG_NOSIGNAL);
      /* It stays open, and is not looked at any more: poll(2) passes over negative ones. */
      files[number].fd = -1;
      opened += 1;
      if (opened % 1000 != 0) continue;
      printf("opened %d\n", opened);
      fflush(stdout);
    }
  }
  for (;;) pause();
}
