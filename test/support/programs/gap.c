/*
 * Stands in the place of a new hostler, and holds the moment open in which nobody supervises. As
 * GAP_FOLDER says, which is in the environment beside GAP_REAL, the hostler that it becomes:
 *
 *   try     what a dry run does: hang, crash, silent, liar, copy, newer, "flag" which knows less
 *           flags, "former" which reads the version of the state before this one alone; "forbid"
 *           passes, and has nobody run it any more; without the file, it passes
 *   become  what it does as the orchestrator: crash, cut, "swap N"; without the file, it passes
 *   in      made when it has become the orchestrator
 *   go      is waited for then
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static char *file_in(const char *name) {
  char *path = NULL;
  if (asprintf(&path, "%s/%s", getenv("GAP_FOLDER"), name) < 0) abort();
  return path;
}

/* The first line of a file of the folder; empty when it is not there. */
static void read_word(const char *name, char *word, size_t size) {
  memset(word, 0, size);
  int file = open(file_in(name), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  if (read(file, word, size - 1) < 0) abort();
  close(file);
  word[strcspn(word, "\n")] = '\0';
}

static void become(char **argv) {
  execve(getenv("GAP_REAL"), argv, environ);
  perror("execve");
  exit(1);
}

static char *read_all(int file, size_t *length) {
  struct stat status;
  if (fstat(file, &status) != 0) abort();
  char *text = calloc(1, status.st_size + 1);
  *length = status.st_size;
  for (size_t done = 0; done < *length;) {
    ssize_t part = pread(file, text + done, *length - done, done);
    if (part <= 0) abort();
    done += part;
  }
  return text;
}

/* The state on standard input becomes one of a version to come. */
static void make_newer(void) {
  size_t length;
  char *text = read_all(0, &length);
  char *version = strstr(text, "\"version\":3,");
  if (version == NULL) abort();
  version[strlen("\"version\":")] = '9';
  int newer = memfd_create("newer", 0);
  if (write(newer, text, length) != (ssize_t)length) abort();
  lseek(newer, 0, SEEK_SET);
  dup2(newer, 0);
}

/* As a program of the version before refuses this one. */
static void refuse_this_version(void) {
  size_t length;
  if (strstr(read_all(0, &length), "\"version\":3,") == NULL) return;
  puts("{\"answer\":\"refused\",\"expected\":\"version 2\",\"received\":\"version 3\"}");
  exit(111);
}

static void try_state(char **argv) {
  char word[64];
  size_t length;
  read_word("try", word, sizeof word);
  if (strcmp(word, "hang") == 0) pause();
  if (strcmp(word, "crash") == 0) abort();
  if (strcmp(word, "silent") == 0) exit(0);
  if (strcmp(word, "liar") == 0) {
    puts("{\"answer\":\"ready\",\"nonce\":\"0\",\"version\":\"1\",\"commit\":\"1\"}");
    exit(0);
  }
  if (strcmp(word, "copy") == 0) {
    fputs(read_all(0, &length), stdout);
    exit(0);
  }
  if (strcmp(word, "newer") == 0) make_newer();
  if (strcmp(word, "former") == 0) refuse_this_version();
  if (strcmp(word, "flag") == 0) {
    for (int index = 1; argv[index] != NULL; index++) {
      if (strcmp(argv[index], "--config") == 0) argv[index] = "--no-such-flag";
    }
  }
  if (strcmp(word, "forbid") == 0 && chmod("/proc/self/exe", 0600) != 0) abort();
  become(argv);
}

int main(int argc, char **argv) {
  (void)argc;
  if (argv[1] != NULL && strcmp(argv[1], "--try-state") == 0) try_state(argv);
  char *go = file_in("go");
  close(open(file_in("in"), O_CREAT | O_WRONLY, 0600));
  while (access(go, F_OK) != 0) usleep(500);
  unlink(go);
  unlink(file_in("in"));
  char word[64];
  read_word("become", word, sizeof word);
  int state = atoi(getenv("HOSTLER_STATE"));
  int number;
  if (strcmp(word, "crash") == 0) _exit(9);
  if (strcmp(word, "cut") == 0 && ftruncate(state, 1000) != 0) abort();
  if (sscanf(word, "swap %d", &number) == 1) dup2(open("/dev/null", O_RDWR | O_CLOEXEC), number);
  become(argv);
}
