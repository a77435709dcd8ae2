/*
 * A process whose first thread has ended while another runs on: /proc calls it a zombie, and it is
 * none. It prints "alone" when that is so, and waits to be killed.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void *run_on(void *nothing) {
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/%d/stat", getpid());
  do {
    usleep(1000);
    int file = open(path, O_RDONLY);
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    text[length > 0 ? length : 0] = '\0';
  } while (strstr(text, ") Z ") == NULL);
  dprintf(1, "alone\n");
  for (;;) pause();
  return nothing;
}

int main(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run_on, NULL) != 0) return 1;
  pthread_exit(NULL);
}
