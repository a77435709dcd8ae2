/*
 * The first process of the bench's PID namespace: starts the agent and reaps whatever ends. It
 * ends with the agent, and the namespace with it. Usage: reaper PROGRAM [ARGUMENT …]
 */
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

int main(int count, char **arguments) {
  pid_t agent;
  if (count < 2) return 100;
  if (posix_spawn(&agent, arguments[1], NULL, NULL, arguments + 1, environ) != 0) return 111;
  for (;;) {
    pid_t ended = wait(NULL);
    if (ended == agent || ended < 0) return 0;
  }
}
