/*
 * What Debian's libstdc++ takes from glibc and musl 1.2.3 has not. Only for tests: it makes of
 * libstdc++_pic.a a shared library that the release for musl can be run with.
 */
#include <stdlib.h>
#include <sys/random.h>

void *__dso_handle __attribute__((visibility("hidden"))) = &__dso_handle;

/* glibc, sys/single_threaded.h: 0 says that there may be other threads, and is always safe. */
char __libc_single_threaded = 0;

/* glibc, dlfcn.h: -1 says that no object was found, so an exception in libstdc++ ends the process. */
int _dl_find_object(void *address, void *result) {
  (void)address;
  (void)result;
  return -1;
}

/* glibc 2.36, stdlib.h. */
unsigned arc4random(void) {
  unsigned value;
  if (getrandom(&value, sizeof value, 0) != sizeof value) abort();
  return value;
}
