/*
 * The least that a broker of live updates can do: has the kernel make a session for each client,
 * sends it with a line, waits until every client has said READY, and calls the kernel. It keeps no
 * state, no deadline and no history, and checks nothing.
 *
 *   live-update-floor SOCKET KERNEL
 *
 * Clients speak luod's words. A connection that says {"cmd":"GO"} commands the update. CLAIM is
 * answered by a session that the kernel gives for it.
 */
#include "live-update-wire.h"

enum { MOST_CONNECTIONS = 4096 };

struct connection {
  struct reader reader;
  char id[64];
  int session;
};

static struct connection *connections[MOST_CONNECTIONS];
static int count, kernel, waited, commander;

static void say(int to, const char *text, int descriptor) {
  send_line(to, text, strlen(text), descriptor);
}

/* Asks and waits for the answer, as a system call would. @returns its descriptor, if it has one */
static int ask(const char *text) {
  static struct reader reader;
  char line[LINE_BYTES];
  reader.socket = kernel;
  reader.descriptors[0] = -1;
  say(kernel, text, -1);
  while (!take_line(&reader, line)) {
    if (!receive(&reader)) fail("the kernel is gone");
  }
  return reader.descriptors[0];
}

static int ask_session(const char *call, const char *id) {
  char text[192];
  snprintf(text, sizeof text, "{\"call\":\"%s\",\"name\":\"%s\"}\n", call, id);
  return ask(text);
}

static void abort_all(void) {
  char text[256];
  for (int index = 0; index < count; index++) {
    struct connection *one = connections[index];
    if (one->session < 0) continue;
    close(one->session);
    one->session = -1;
    snprintf(text, sizeof text,
             "{\"event\":\"ABORTED\",\"id\":\"%s\",\"update\":\"0123456789abcdef\","
             "\"reason\":\"the kernel refused: Device or resource busy (EBUSY)\"}\n",
             one->id);
    say(one->reader.socket, text, -1);
  }
}

static void ready(void) {
  waited -= 1;
  if (waited > 0) return;
  /* What is commanded is a kexec, as luod calls it: with sync, which the stand-in does not do. */
  ask("{\"call\":\"sync\"}\n");
  ask("{\"call\":\"reboot\",\"what\":\"kexec\"}\n");
  abort_all();
  say(commander, "{\"ok\":null}\n", -1);
}

static void go(void) {
  char text[256];
  for (int index = 0; index < count; index++) {
    struct connection *one = connections[index];
    if (one->id[0] == 0) continue;
    one->session = ask_session("create", one->id);
    snprintf(text, sizeof text,
             "{\"event\":\"START_PRESERVATION\",\"id\":\"%s\",\"session\":\"\","
             "\"update\":\"0123456789abcdef\",\"deadline_ms\":60000,\"dry_run\":false}\n",
             one->id);
    waited += 1;
    say(one->reader.socket, text, one->session);
  }
}

static void serve(struct connection *one, const char *line) {
  char text[192];
  int to = one->reader.socket;
  const char *id = strstr(line, "\"id\":\"");
  if (has(line, "\"HELLO\"")) {
    say(to, "{\"event\":\"HELLO\",\"request\":1,\"protocol\":1,\"version\":\"floor\"}\n", -1);
  } else if (has(line, "\"SUBSCRIBE\"") && id != NULL) {
    sscanf(id, "\"id\":\"%63[^\"]", one->id);
    say(to, "{\"event\":\"OK\",\"request\":2}\n", -1);
  } else if (has(line, "\"READY\"")) {
    ready();
  } else if (has(line, "\"CLAIM\"") && id != NULL) {
    sscanf(id, "\"id\":\"%63[^\"]", one->id);
    int session = ask_session("retrieve-session", one->id);
    snprintf(text, sizeof text, "{\"event\":\"CLAIMED\",\"id\":\"%s\",\"session\":\"\"}\n", one->id);
    say(to, text, session);
    one->session = session;
  } else if (has(line, "\"GO\"")) {
    commander = to;
    go();
  }
}

static void take(int listener, int waiter) {
  int made = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (made < 0) fail("accept");
  if (count == MOST_CONNECTIONS) exit(1);
  struct connection *one = calloc(1, sizeof *one);
  if (one == NULL) fail("calloc");
  one->reader = (struct reader){.socket = made, .descriptors = {-1, -1}};
  one->session = -1;
  connections[count++] = one;
  struct epoll_event watched = {.events = EPOLLIN, .data.ptr = one};
  if (epoll_ctl(waiter, EPOLL_CTL_ADD, made, &watched) != 0) fail("epoll_ctl");
}

static void forget(struct connection *one) {
  close(one->reader.socket);
  if (one->session >= 0) close(one->session);
  for (int index = 0; index < count; index++) {
    if (connections[index] == one) connections[index] = connections[--count];
  }
  free(one);
}

int main(int words, char **paths) {
  char line[LINE_BYTES];
  struct epoll_event found[64];
  if (words != 3) return 100;
  setvbuf(stdout, NULL, _IOLBF, 0);
  kernel = connect_to(paths[2]);
  int listener = listen_at(paths[1]), waiter = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event watched = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll_ctl(waiter, EPOLL_CTL_ADD, listener, &watched) != 0) fail("epoll_ctl");
  printf("listening\n");
  for (;;) {
    int length = epoll_wait(waiter, found, 64, -1);
    for (int index = 0; index < length; index++) {
      struct connection *one = found[index].data.ptr;
      if (one == NULL) {
        take(listener, waiter);
      } else if (receive(&one->reader)) {
        while (take_line(&one->reader, line)) serve(one, line);
      } else {
        forget(one);
      }
    }
  }
}
