/*
 * Stands in for the kernel's live updates and kexec: what the build for fault tests asks in place
 * of the machine's kernel (ffi/fault-kernel.ts), and the floor as well. It keeps nothing but the
 * registry, and gives an eventfd for every session: it is here to cost next to nothing, and the
 * same on both sides. test/support/fake-kernel.ts is the one with the kernel's semantics.
 *
 *   live-update-kernel SOCKET
 *     prints "reboot NANOSECONDS" (CLOCK_MONOTONIC) when a kexec is called, and then
 *     refuse (a line on stdin, and at the beginning): refuses it with EBUSY
 *     forget: refuses it as well, and nothing comes over it any more
 *     enter: leaves it unanswered, as a kernel that is gone; the registry then comes to whoever asks
 */
#include "live-update-wire.h"

enum { MOST_CALLERS = 64 };

static struct reader callers[MOST_CALLERS];
/* What is preserved last comes over a kexec that is entered; before one, nothing comes. */
static int refuses = 1, preserved = -1, registry = -1;

static int make_session(void) {
  int made = eventfd(0, EFD_CLOEXEC);
  if (made < 0) fail("eventfd");
  return made;
}

static void answer(int to, const char *text, int descriptor) {
  send_line(to, text, strlen(text), descriptor);
}

static void serve(struct reader *caller, const char *line) {
  const char *done = "{\"result\":0}\n";
  int *came = caller->descriptors;
  if (has(line, "\"call\":\"retrieve-session\"") && registry < 0) {
    answer(caller->socket, "{\"result\":-2}\n", -1);
  } else if (has(line, "\"call\":\"create\"") || has(line, "\"call\":\"retrieve-session\"")) {
    int session = make_session();
    answer(caller->socket, done, session);
    close(session);
  } else if (has(line, "\"call\":\"retrieve\"")) {
    if (registry >= 0) answer(caller->socket, done, registry);
    else answer(caller->socket, "{\"result\":-2}\n", -1);
  } else if (has(line, "\"call\":\"preserve\"")) {
    if (preserved >= 0) close(preserved);
    preserved = came[1];
    came[1] = -1;
    answer(caller->socket, done, -1);
  } else if (has(line, "\"call\":\"loaded\"")) {
    answer(caller->socket, "{\"result\":1}\n", -1);
  } else if (has(line, "\"call\":\"reboot\"")) {
    printf("reboot %" PRId64 "\n", now());
    if (refuses) {
      answer(caller->socket, "{\"result\":-16}\n", -1);
    } else {
      registry = preserved;
      preserved = -1;
    }
  } else {
    answer(caller->socket, done, -1);
  }
  for (int index = 0; index < 2; index++) {
    if (came[index] >= 0) close(came[index]);
    came[index] = -1;
  }
}

static void take(int listener, int waiter) {
  int made = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (made < 0) fail("accept");
  for (int index = 0; index < MOST_CALLERS; index++) {
    if (callers[index].socket != 0) continue;
    callers[index] = (struct reader){.socket = made, .descriptors = {-1, -1}};
    struct epoll_event watched = {.events = EPOLLIN, .data.ptr = &callers[index]};
    if (epoll_ctl(waiter, EPOLL_CTL_ADD, made, &watched) != 0) fail("epoll_ctl");
    return;
  }
  exit(1);
}

int main(int count, char **words) {
  char line[LINE_BYTES];
  if (count != 2) return 100;
  setvbuf(stdout, NULL, _IOLBF, 0);
  int listener = listen_at(words[1]), waiter = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event watched = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll_ctl(waiter, EPOLL_CTL_ADD, listener, &watched) != 0) fail("epoll_ctl");
  watched.data.ptr = line;
  if (epoll_ctl(waiter, EPOLL_CTL_ADD, STDIN_FILENO, &watched) != 0) fail("epoll_ctl");
  printf("listening\n");
  for (;;) {
    struct epoll_event ready;
    if (epoll_wait(waiter, &ready, 1, -1) != 1) continue;
    if (ready.data.ptr == NULL) {
      take(listener, waiter);
    } else if (ready.data.ptr == line) {
      if (fgets(line, sizeof line, stdin) == NULL) return 0;
      refuses = !has(line, "enter");
      if (has(line, "forget") && registry >= 0) {
        close(registry);
        registry = -1;
      }
      printf("done\n");
    } else {
      struct reader *caller = ready.data.ptr;
      if (receive(caller)) {
        while (take_line(caller, line)) serve(caller, line);
      } else {
        close(caller->socket);
        caller->socket = 0;
      }
    }
  }
}
