/**
 * The entry: picks the role. It imports nothing before it knows which, because the launcher's
 * time to start is part of every start that needs it.
 */
export {};

if (!Bun.isMainThread) {
  const { runWaitThread } = await import("./event-loop/wait-thread.ts");
  runWaitThread();
} else if (process.argv[2] === "--launch") {
  const { runLauncher } = await import("./process/launcher.ts");
  process.exit(runLauncher());
} else {
  const { provideWorkerFactory } = await import("./event-loop/worker-factory.ts");
  provideWorkerFactory(() => new Worker(Bun.main));
  const { runCommandLine } = await import("./command-line/root.ts");
  process.exit(await runCommandLine(process.argv0, process.argv.slice(2)));
}
