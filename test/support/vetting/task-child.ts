/** A child with tasks that misbehave, for tests of whoever runs children. */
import { spawn } from "node:child_process";
import { statSync, writeSync } from "node:fs";
import * as v from "valibot";
import { defineTask, TaskRefused } from "../../../src/vetting/perform/task.ts";
import { runTaskChild } from "../../../src/vetting/perform/task-child.ts";

const echo = defineTask({
  name: "echo",
  input: v.strictObject({ text: v.string() }),
  report: v.strictObject({ text: v.string() }),
  run: ({ text }, { tell }) => {
    tell({ kind: "progress", done: 1, total: 2 });
    tell({ kind: "log", level: "info", text: "half" });
    return { text };
  },
});

const refuse = defineTask({
  name: "refuse",
  input: v.null(),
  report: v.null(),
  run: () => {
    throw new TaskRefused("the machine refuses");
  },
});

const bug = defineTask({
  name: "bug",
  input: v.null(),
  report: v.null(),
  run: () => {
    throw new Error("Bug: of this task");
  },
});

const wrongReport = defineTask({
  name: "wrong-report",
  input: v.null(),
  report: v.strictObject({ count: v.pipe(v.number(), v.minValue(1)) }),
  run: () => ({ count: 0 }),
});

/** Stops when it is told to, and says so on standard error. */
const willing = defineTask({
  name: "willing",
  input: v.null(),
  report: v.null(),
  run: async (_input, { signal, tell }) => {
    const stopped = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => stopped.resolve());
    tell({ kind: "progress", done: 3, total: 4 });
    await stopped.promise;
    return null;
  },
});

/** Says what it is asked, until it was asked the last. */
const answer = defineTask({
  name: "answer",
  input: v.strictObject({ last: v.number() }),
  report: v.null(),
  run: async ({ last }, { tell, onQuestion, signal }) => {
    const done = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => done.resolve());
    onQuestion((question) => {
      tell({ kind: "log", level: "info", text: String(question) });
      if (question === last) done.resolve();
    });
    await done.promise;
    return null;
  },
});

/** Never comes back to its own loop. */
const busy = defineTask({
  name: "busy",
  input: v.null(),
  report: v.null(),
  run: (_input, { tell }) => {
    tell({ kind: "progress", done: 1, total: 4 });
    for (;;);
  },
});

/** Leaves a child of its own behind. */
const parent = defineTask({
  name: "parent",
  input: v.null(),
  report: v.strictObject({ child: v.number() }),
  run: () => {
    const child = spawn("sleep", ["1000"], { stdio: "ignore" });
    child.unref();
    return { child: child.pid ?? 0 };
  },
});

const parentForEver = defineTask({
  name: "parent-for-ever",
  input: v.null(),
  report: v.null(),
  run: (_input, { tell }) => {
    const child = spawn("sleep", ["1000"], { stdio: "ignore" });
    tell({ kind: "log", level: "info", text: String(child.pid) });
    for (;;);
  },
});

const babble = defineTask({
  name: "babble",
  input: v.strictObject({ text: v.string(), times: v.number() }),
  report: v.null(),
  run: ({ text, times }) => {
    for (let index = 0; index < times; index++) writeSync(1, text);
    for (;;);
  },
});

/** Waits in the kernel for whoever answers for this path. */
const look = defineTask({
  name: "look",
  input: v.strictObject({ path: v.string() }),
  report: v.null(),
  run: ({ path }) => {
    statSync(path);
    return null;
  },
});

const lament = defineTask({
  name: "lament",
  input: v.null(),
  report: v.null(),
  run: () => {
    for (let line = 0; line < 2_000; line++) writeSync(2, `line ${line} of a long lament\n`);
    process.kill(process.pid, "SIGSEGV");
    for (;;);
  },
});

const all = [
  answer,
  ...[echo, refuse, bug, wrongReport, willing, busy, parent, parentForEver, babble, lament, look],
];

const registry = Object.fromEntries(all.map((task) => [task.name, async () => task]));
process.exitCode = await runTaskChild(registry);
