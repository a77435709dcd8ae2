let factory: (() => Worker) | undefined;

/** Says how the wait thread is started; only the entry file can: it is the thread's own file. */
export function provideWorkerFactory(make: () => Worker): void {
  factory = make;
}

/** Starts the wait thread. */
export function startWorker(): Worker {
  if (factory === undefined) throw new Error("Bug: nobody said how the wait thread is started");
  return factory();
}
