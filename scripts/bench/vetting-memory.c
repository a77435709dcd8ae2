/*
 * The floor of the test of memory: the same blocks, filled by memcpy from a source in the caches,
 * and compared by memcmp. Words: BYTES PASSES. Prints bytes and seconds of each pass.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BLOCK (256 * 1024)

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words) {
  if (count != 3) return 100;
  size_t bytes = strtoull(words[1], NULL, 10) / BLOCK * BLOCK;
  int passes = atoi(words[2]);
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  char *source = aligned_alloc(4096, 2 * BLOCK);
  if (memory == MAP_FAILED || source == NULL) return 111;
  madvise(memory, bytes, MADV_HUGEPAGE);
  if (mlock(memory, bytes) != 0) memset(memory, 0, bytes);
  unsigned state = 7;
  for (size_t at = 0; at < 2 * BLOCK; at += 4) {
    state = state * 1664525 + 1013904223;
    memcpy(source + at, &state, 4);
  }
  int wrong = 0;
  for (int pass = 0; pass < passes; pass += 1) {
    double begin = now();
    for (size_t at = 0; at < bytes; at += BLOCK) {
      memcpy(memory + at, source + (at / BLOCK * 256) % BLOCK, BLOCK);
    }
    for (size_t at = 0; at < bytes; at += BLOCK) {
      wrong += memcmp(memory + at, source + (at / BLOCK * 256) % BLOCK, BLOCK) != 0;
    }
    printf("%zu %.9f\n", bytes, now() - begin);
  }
  return wrong == 0 ? 0 : 1;
}
