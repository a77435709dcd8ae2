/**
 * The entry: picks the role. It imports nothing before it knows which, because the launcher's
 * time to start is part of every start that needs it.
 */
export {};

if (!Bun.isMainThread) {
  // What is told to this thread while it imports would be lost: nobody listens then.
  const thread = globalThis as { onmessage: ((message: MessageEvent) => void) | null };
  const early: MessageEvent[] = [];
  thread.onmessage = (message) => early.push(message);
  const { runWaitThread } = await import("./event-loop/wait-thread.ts");
  runWaitThread();
  for (const message of early) thread.onmessage?.(message);
} else if (process.argv[2] === "--launch") {
  const { runLauncher } = await import("./process/launcher.ts");
  process.exit(runLauncher());
} else if (process.argv[2] === "--confine") {
  const { runConfiner } = await import("./vm/confiner.ts");
  process.exit(runConfiner());
} else {
  const { provideWorkerFactory } = await import("./event-loop/worker-factory.ts");
  provideWorkerFactory(() => new Worker(Bun.main));
  if (process.argv[2] === "--vetting-task") {
    // It blocks in what it does to the hardware, and dies without a word where it must.
    const { runTaskChild } = await import("./vetting/perform/task-child.ts");
    const { tasks } = await import("./vetting/perform/tasks/index.ts");
    process.exit(await runTaskChild(tasks));
  }
  if (process.argv[2] === "--hold") {
    // It stays as long as the host runs: what it does not load is memory that it does not take.
    const { runHolder } = await import("./holding/holder.ts");
    process.exit(await runHolder(process.argv.slice(3)));
  }
  const { runCommandLine } = await import("./command-line/root.ts");
  if (process.argv[2] === "--try-state") {
    const { runDryRun } = await import("./process/dry-run.ts");
    const run = (words: string[]) => runCommandLine(process.argv0, words);
    process.exit(await runDryRun(process.argv.slice(3), run));
  }
  process.exit(await runCommandLine(process.argv0, process.argv.slice(2)));
}
