/*
 * Clients with nothing to save, each a process of its own.
 *
 *   live-update-client SOCKET COUNT subscribe
 *     "subscribed" when all are; each says READY when it is given a session, closes it when the
 *     update is aborted, and prints nothing. They end with standard input.
 *   live-update-client SOCKET COUNT claim
 *     one after the other, each on a connection of its own: "took NANOSECONDS" from the CLAIM to
 *     the session in the client's hand
 *   live-update-client SOCKET COUNT claim-together
 *     all at once: one "took NANOSECONDS" until the last of them has its session
 *   live-update-client SOCKET FILE hold
 *     "subscribed"; copies the file into memory when it is given a session, and then says READY
 *   live-update-client - BYTES memory
 *     no client: has a file in memory of that size, says "made", and lives on
 */
#include "live-update-wire.h"

static void say(int to, const char *text) {
  send_line(to, text, strlen(text), -1);
}

/* Waits for a line with these words; what else comes is passed over. */
static void await_words(struct reader *reader, const char *words) {
  char line[LINE_BYTES];
  for (;;) {
    while (take_line(reader, line)) {
      if (has(line, words)) return;
      if (has(line, "\"event\":\"ERROR\"")) {
        fprintf(stderr, "bench: %s\n", line);
        exit(1);
      }
    }
    if (!receive(reader)) exit(1);
  }
}

static void greet(struct reader *reader, const char *path) {
  *reader = (struct reader){.socket = connect_to(path), .descriptors = {-1, -1}};
  say(reader->socket, "{\"cmd\":\"HELLO\",\"protocol\":1,\"request\":1}\n");
  await_words(reader, "\"HELLO\"");
}

static void tell(int pipe) {
  if (write(pipe, ".", 1) != 1) exit(1);
}

static void await_all(int pipe, int count) {
  char bytes[256];
  while (count > 0) {
    ssize_t length = read(pipe, bytes, sizeof bytes);
    if (length <= 0) exit(1);
    count -= (int)length;
  }
}

static void live(const char *path, int number, int told) {
  static struct reader reader;
  char line[LINE_BYTES];
  int session = -1;
  greet(&reader, path);
  snprintf(line, sizeof line, "{\"cmd\":\"SUBSCRIBE\",\"id\":\"client-%d\",\"request\":2}\n", number);
  say(reader.socket, line);
  await_words(&reader, "\"request\":2");
  tell(told);
  while (receive(&reader)) {
    while (take_line(&reader, line)) {
      if (has(line, "START_PRESERVATION")) {
        /* It may have come with an ABORTED before it, in one read. */
        session = reader.descriptors[0];
        reader.descriptors[0] = -1;
        if (session < 0) exit(1);
        say(reader.socket, "{\"cmd\":\"READY\"}\n");
      } else if (has(line, "ABORTED") && session >= 0) {
        close(session);
        session = -1;
      }
    }
  }
  exit(0);
}

static int64_t claim(struct reader *reader, int number) {
  char line[128];
  snprintf(line, sizeof line, "{\"cmd\":\"CLAIM\",\"id\":\"client-%d\"}\n", number);
  int64_t begin = now();
  say(reader->socket, line);
  await_words(reader, "\"CLAIMED\"");
  if (reader->descriptors[0] < 0) exit(1);
  return now() - begin;
}

/* Connects, waits until the pipe's other end is closed, claims. */
static void claim_later(const char *path, int number, int told, int begun) {
  static struct reader reader;
  char byte;
  greet(&reader, path);
  tell(told);
  if (read(begun, &byte, 1) != 0) exit(1);
  claim(&reader, number);
  tell(told);
  pause();
}

static void copy(const char *path) {
  static char piece[1 << 20];
  int from = open(path, O_RDONLY | O_CLOEXEC), to = memfd_create("hold", MFD_CLOEXEC);
  ssize_t length;
  if (from < 0 || to < 0) fail(path);
  while ((length = read(from, piece, sizeof piece)) > 0) {
    if (write(to, piece, (size_t)length) != length) fail("write");
  }
  close(from);
  /* Nobody takes it: the kernel would keep it. */
  close(to);
}

static int hold(const char *path, const char *file) {
  static struct reader reader;
  char line[LINE_BYTES];
  greet(&reader, path);
  say(reader.socket, "{\"cmd\":\"SUBSCRIBE\",\"id\":\"held\",\"request\":2}\n");
  await_words(&reader, "\"request\":2");
  printf("subscribed\n");
  while (receive(&reader)) {
    while (take_line(&reader, line)) {
      if (!has(line, "START_PRESERVATION")) continue;
      copy(file);
      say(reader.socket, "{\"cmd\":\"READY\"}\n");
    }
  }
  return 0;
}

static int remember(int64_t size) {
  static char piece[1 << 20];
  int made = memfd_create("memory", 0);
  /* It ends with `run`, whatever ends that. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  memset(piece, 7, sizeof piece);
  for (int64_t done = 0; done < size; done += (int64_t)sizeof piece) {
    if (write(made, piece, sizeof piece) != (ssize_t)sizeof piece) fail("write");
  }
  printf("made\n");
  pause();
  return 0;
}

int main(int count, char **words) {
  static struct reader reader;
  int told[2], begun[2];
  if (count != 4) return 100;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (strcmp(words[3], "hold") == 0) return hold(words[1], words[2]);
  if (strcmp(words[3], "memory") == 0) return remember(atoll(words[2]));
  int clients = atoi(words[2]);
  if (strcmp(words[3], "claim") == 0) {
    for (int number = 0; number < clients; number++) {
      greet(&reader, words[1]);
      printf("took %" PRId64 "\n", claim(&reader, number));
      close(reader.descriptors[0]);
      close(reader.socket);
    }
    return 0;
  }
  int together = strcmp(words[3], "claim-together") == 0;
  if (pipe(told) != 0 || pipe(begun) != 0) fail("pipe");
  for (int number = 0; number < clients; number++) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child > 0) continue;
    /* They end with this process, whatever ends it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(STDIN_FILENO);
    close(begun[1]);
    if (together) claim_later(words[1], number, told[1], begun[0]);
    live(words[1], number, told[1]);
  }
  await_all(told[0], clients);
  if (together) {
    int64_t begin = now();
    close(begun[1]);
    await_all(told[0], clients);
    printf("took %" PRId64 "\n", now() - begin);
    return 0;
  }
  printf("subscribed\n");
  while (getchar() != EOF) continue;
  return 0;
}
