import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { livingMembersOf, placesOf, statusOf } from "../../../src/vetting/perform/process-state.ts";
import { StageRun } from "../../../src/vetting/perform/stage-runner.ts";
import { TaskRunner } from "../../../src/vetting/perform/task-runner.ts";
import type { TaskLine } from "../../../src/vetting/protocol-task.ts";
import { taskLimits } from "../../../src/vetting/protocol-task.ts";
import { repositoryRoot } from "../../support/binary.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { waitFor, withDeadline } from "../../support/wait-for.ts";

const loop = testEventLoop();
const folder = temporaryFolder();
afterAll(() => {
  loop[Symbol.dispose]();
  folder[Symbol.dispose]();
});

const own = {
  path: "/proc/self/exe",
  words: [process.execPath, join(repositoryRoot, "test/support/vetting/task-child.ts")],
};
const usual = 30_000;

function runner(options: { readonly grace?: number; readonly stuckAfter?: number } = {}) {
  return new TaskRunner({ loop, folder: folder.path, own, ...options });
}

async function run(task: string, input: unknown, deadline = usual, on = runner()) {
  const lines: TaskLine[] = [];
  const running = on.start({ task, input }, { deadline, onLine: (line) => lines.push(line) });
  const ending = await withDeadline(`the end of ${task}`, running.ended);
  await waitFor("nothing of it to be left", () => on.count === 0);
  return { ending, lines };
}

const children = () => readdirSync(folder.file("children"));

describe("a child", () => {
  test("its lines come in their order, then its report", async () => {
    const { ending, lines } = await run("echo", { text: "hello" });
    expect(ending).toEqual({ kind: "report", report: { text: "hello" } });
    expect(lines).toEqual([
      { kind: "progress", done: 1, total: 2 },
      { kind: "log", level: "info", text: "half" },
    ]);
    expect(children()).toEqual([]);
  });

  test("what a machine refuses is a failure, and no fault of the file", async () => {
    const { ending } = await run("refuse", null);
    expect(ending).toEqual({ kind: "failure", message: "the machine refuses" });
  });

  test.each([
    ["bug", null, "Bug: of this task", "exit 101"],
    ["wrong-report", null, "wrong-report reports what is none", "exit 101"],
    ["nothing-such", null, "Expected a task of answer, babble, bug, busy", "exit 100"],
    ["echo", { text: 3 }, "The input of echo is none", "exit 100"],
  ])("%s: it has died, with its last words", async (task, input, words, how) => {
    const { ending } = await run(task, input);
    expect(ending).toMatchObject({ kind: "died", how });
    expect((ending as { lastWords: string }).lastWords).toContain(words);
  });

  test("of a long lament the end is kept", async () => {
    const { ending } = await run("lament", null);
    if (ending.kind !== "died") throw new Error(`Expected a death, received ${ending.kind}`);
    expect(ending.how).toStartWith("SIGSEGV");
    expect(ending.lastWords).toEndWith("line 1999 of a long lament\n");
    expect(ending.lastWords.length).toBe(taskLimits.errorBytes);
  });

  test.each([
    ["not JSON\n", 1, "no JSON"],
    ['{"kind":"nothing"}\n', 1, "expected"],
    ["x".repeat(1024 ** 2), 9, "a line of more than"],
  ])("a line that is none ends it: %#", async (text, times, what) => {
    const { ending } = await run("babble", { text, times });
    expect(ending.kind).toBe("died");
    expect((ending as { how: string }).how).toContain(what);
  });

  test("its deadline has it stop, by itself where it can", async () => {
    const on = runner({ grace: usual });
    const { ending } = await run("willing", null, 2_000, on);
    expect(ending).toEqual({ kind: "overdue", done: 3, total: 4 });
  });

  test("and by SIGKILL where it does not", async () => {
    const { ending } = await run("busy", null, 2_000, runner({ grace: 50 }));
    expect(ending).toEqual({ kind: "overdue", done: 1, total: 4 });
  });

  test("it is cancelled", async () => {
    const on = runner();
    const running = on.start({ task: "willing", input: null }, cancelAtFirstLine());
    function cancelAtFirstLine() {
      return { deadline: usual, onLine: () => running.cancel() };
    }
    expect(await withDeadline("its end", running.ended)).toEqual({ kind: "cancelled" });
  });

  test("it is asked while it works; of what waits to be sent, the last is asked", async () => {
    const texts: string[] = [];
    const running = runner().start(
      { task: "answer", input: { last: 9 } },
      {
        deadline: usual,
        onLine: (line) => {
          if (line.kind !== "log") return;
          texts.push(line.text);
          if (line.text === "2") running.ask(9);
        },
      },
    );
    running.ask(1);
    running.ask(2);
    expect(await withDeadline("its end", running.ended)).toEqual({ kind: "report", report: null });
    expect(texts).toEqual(["2", "9"]);
    running.ask(10);
  });

  test.each(["nonsense", '{"question":0}', '{"question":1,"why":""}'])(
    "a question that is none ends it: %s",
    async (line) => {
      const child = Bun.spawn([...own.words, "--vetting-task"], {
        ...{ stdin: "pipe", stdout: "pipe", stderr: "pipe" },
      });
      child.stdin.write(`{"task":"answer","input":{"last":1}}\n${line}\n`);
      await child.stdin.flush();
      expect(await withDeadline("its end", child.exited)).toBe(100);
      expect(await new Response(child.stderr).text()).toContain("Expected a question: ");
      child.stdin.end();
    },
  );

  test("what it has started ends with it", async () => {
    const { ending } = await run("parent", null);
    if (ending.kind !== "report") throw new Error(`Expected a report, received ${ending.kind}`);
    const { child } = ending.report as { child: number };
    expect(statusOf(child)?.state ?? "Z").toBe("Z");
  });

  test("one that the machine cannot start has ended", async () => {
    const broken = { path: "/nonexistent/hostler", words: ["hostler"] };
    const on = new TaskRunner({ loop, folder: folder.path, own: broken });
    const running = on.start({ task: "echo", input: null }, { deadline: 1, onLine: () => {} });
    expect(await running.ended).toMatchObject({ kind: "died" });
    expect(on.count).toBe(0);
  });

  test("one too many is refused, and the refusal is its end", async () => {
    const on = runner();
    const options = { deadline: usual, onLine: () => {} };
    const order = { task: "echo", input: { text: "many" } };
    const some = Array.from({ length: 3 }, () => on.start(order, options));
    const most = taskLimits.children;
    (taskLimits as { children: number }).children = 3;
    const refused = on.start(order, options);
    (taskLimits as { children: number }).children = most;
    expect(await refused.ended).toMatchObject({ kind: "failure" });
    await Promise.all(some.map(({ ended }) => ended));
  });
});

describe("one that cannot be ended", () => {
  test("is told as stuck, is remembered until it is gone, and others go on", async () => {
    // No time at all is given to it: SIGKILL needs a moment with any.
    const on = runner({ grace: 10, stuckAfter: 0 });
    const running = on.start({ task: "busy", input: null }, { deadline: 1_500, onLine: () => {} });
    const ending = await withDeadline("its end", running.ended);
    expect(["stuck", "overdue"]).toContain(ending.kind);
    await waitFor("it to be gone", () => on.count === 0);
    expect(on.stuck).toEqual([]);
  });

  test("the places of its threads are read", async () => {
    const place = await placesOf(loop, [process.pid]);
    expect(place.stack).toContain(`process ${process.pid}, thread ${process.pid}`);
    expect(place.wait).toBe("unknown");
  });
});

describe("an agent that was killed", () => {
  test("what its children have started is ended by the next one", async () => {
    const earlier = runner();
    let grandchild = 0;
    const started = Promise.withResolvers<void>();
    const running = earlier.start(
      { task: "parent-for-ever", input: null },
      {
        deadline: usual,
        onLine: (line) => {
          if (line.kind === "log") grandchild = Number(line.text);
          started.resolve();
        },
      },
    );
    await withDeadline("its child", started.promise);
    expect(children()).toHaveLength(1);
    expect(await earlier.records.endLeft(loop)).toEqual([]);
    expect(statusOf(grandchild)?.state ?? "Z").toBe("Z");
    expect(children()).toEqual([]);
    expect(await running.ended).toMatchObject({ kind: "died", how: "SIGKILL" });
  });

  test("another process with the number of one is left alone", async () => {
    const { records } = runner();
    const name = folder.file(`children/${process.pid}.1`);
    await Bun.write(name, "");
    expect(await records.endLeft(loop)).toEqual([]);
    expect(existsSync(name)).toBe(false);
    expect(livingMembersOf(Number(readGroup()))).toContain(process.pid);
  });
});

function readGroup(): string {
  const text = readFileSync("/proc/self/stat", "latin1");
  return text.slice(text.lastIndexOf(")") + 2).split(" ")[2] ?? "";
}

describe("the tasks of a stage", () => {
  const plan = (id: string, task: string, input: unknown, group = 0) => {
    return { id, task, input, component: id, deadline: usual, group };
  };

  test("groups run one after the other, and all is in the order of the plan", async () => {
    const order: string[] = [];
    const plans = [
      plan("second", "echo", { text: "2" }, 1),
      plan("first", "echo", { text: "1" }),
      plan("broken", "refuse", null),
    ];
    const stage = new StageRun(runner(), plans, {
      onLine: ({ id }, { kind }) => {
        if (kind === "log") order.push(id);
      },
    });
    const done = await withDeadline("the stage", stage.done);
    expect(done.map(({ plan: { id }, ending }) => `${id} ${ending.kind}`)).toEqual([
      "second report",
      "first report",
      "broken failure",
    ]);
    expect(order).toEqual(["first", "second"]);
    expect(stage.progress).toBe(1);
  });

  test("a cancelled stage begins nothing more", async () => {
    const plans = [plan("one", "willing", null), plan("two", "echo", { text: "2" }, 1)];
    const stage: StageRun = new StageRun(runner(), plans, { onLine: () => stage.cancel() });
    const done = await withDeadline("the stage", stage.done);
    expect(done.map(({ ending }) => ending.kind)).toEqual(["cancelled", "cancelled"]);
  });

  test("nothing to do is done", async () => {
    expect(await new StageRun(runner(), [], { onLine: () => {} }).done).toEqual([]);
  });
});
