/** A worker that falls silent: only what proves it dead moves its machines. Each takes its time. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { hostlerWithFaults } from "../support/binary.ts";
import { onlyInAll, rotating } from "../support/rotation.ts";
import { declaration, TestMaster } from "../support/vm-master/cluster.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(240_000);

/** Milliseconds: a worker is lost after twenty seconds, on a machine that others use. */
const LONG = 90_000;

const movable = "placement = { movable = true }";
/** As little as may be configured. */
const quick = (fence: string) =>
  `silent_after = "10s"\nlost_after = "20s"\n[fence]\ncommand = ["${fence}", "--off"]\n`;

const stories: readonly (readonly [string, () => Promise<void>])[] = [
  [
    "keeps its machines when the fence hook fails; a person's word moves them",
    async () => {
      await using master = new TestMaster();
      const seen = master.authority.folder.file("hook-said");
      const hook = master.script(`echo "$* $HOSTLER_BOOT" >>${seen}; echo no route >&2; exit 3`);
      await master.start({ flags: ["--config", master.file(quick(hook))] });
      const [a, b] = [await master.worker("a"), await master.worker("b")];
      await a.follow();
      await master.apply(declaration({ db: "", web: movable }));
      await a.follow();
      await b.follow();
      await a.report();
      const early = await master.tries("fence", "--confirm", "a");
      expect(early.exitCode).toBe(111);
      expect(early.stderr).toContain("it has just reported");
      const failed = await waitFor(
        "that the hook has failed",
        async () => {
          await b.report();
          const { workers } = await master.status();
          const reason = workers.find(({ name }) => name === "a")?.reason ?? "";
          return reason.includes("exit status 3: no route") ? reason : undefined;
        },
        LONG,
      );
      expect(failed).toContain("the fence hook failed");
      expect(readFileSync(seen, "utf8")).toMatch(/^--off a [0-9a-f-]{36}\n$/);
      expect(await master.machine("web")).toMatchObject({ worker: "a", status: "unknown" });
      const { owner_generation: old } = await master.machine("web");
      await b.report();
      await master.ask("fence", "--confirm", "a");
      expect(await master.machine("db")).toMatchObject({ worker: "a" });
      const moved = await waitFor(
        "that the machine has moved",
        async () => {
          await b.report();
          const machine = await master.machine("web");
          return machine.worker === "b" ? machine : undefined;
        },
        LONG,
      );
      expect(moved.status).toBe("pending");
      expect(moved.owner_generation).toBeGreaterThan(old ?? 0);
      // It is back, and was not off: it is told before anything else.
      expect((await a.report()).stale).toEqual([{ name: "web", owner_generation: old ?? 0 }]);
      await a.follow();
      await b.follow();
      expect(await master.machine("web")).toMatchObject({ worker: "b", status: "running" });
      expect((await master.status()).convergence_percent).toBe(100);
      const [record] = (await master.authority.audit()).filter(
        ({ verb, result }) => verb === "vm.fence" && result === "done",
      );
      expect(record?.object).toBe("worker a");
    },
  ],
  [
    "loses what may move when the fence hook ends with 0",
    async () => {
      await using master = new TestMaster();
      const hook = master.script('test "$2" = a');
      await master.start({ flags: ["--config", master.file(quick(hook))] });
      const [a, b] = [await master.worker("a"), await master.worker("b")];
      await a.follow();
      await master.apply(declaration({ db: "", web: movable }));
      await a.follow();
      await b.follow();
      const moved = await waitFor(
        "that the machine has moved",
        async () => {
          await b.report();
          const machine = await master.machine("web");
          return machine.worker === "b" ? machine : undefined;
        },
        LONG,
      );
      expect(moved.status).toBe("pending");
      expect(await master.machine("db")).toMatchObject({ worker: "a" });
      const [shown] = (await master.status()).workers;
      expect(shown).toMatchObject({ name: "a", standing: "lost", fenced: "hook" });
      const [record] = (await master.authority.audit()).filter(({ verb }) => verb === "vm.fence");
      expect(record).toMatchObject({ who: "master", object: "worker a", result: "done" });
    },
  ],
];

describe("a worker that falls silent", () => {
  test.each(rotating("vm master fences", stories, { outOf: 2 }))("%s", async (_name, story) => {
    await story();
  });

  onlyInAll(() => {
    test("is fenced again when its master was killed between the hook and the write", async () => {
      await using master = new TestMaster();
      const seen = master.authority.folder.file("hook-runs");
      const configuration = master.file(quick(master.script(`echo "$2" >>${seen}`)));
      const flags = ["--config", configuration];
      const place = "vm-master:hook:after";
      const environment = { HOSTLER_KILL_AT: place };
      await master.start({ flags, program: hostlerWithFaults(), environment });
      const [a, b] = [await master.worker("a"), await master.worker("b")];
      await a.follow();
      await master.apply(declaration({ web: movable }));
      await a.follow();
      // While one of two is heard, the master is not the one that is cut off.
      const ended = master.authority.daemon.ended(LONG);
      let isGone = false;
      void ended.then(() => {
        isGone = true;
      });
      await waitFor(
        "that the master is gone",
        async () => {
          await b.report().catch(() => undefined);
          // A program each time: who asks more often than that is refused, and not heard.
          await master.status().catch(() => undefined);
          return isGone;
        },
        LONG,
      );
      expect((await ended).signal).toBe("SIGKILL");
      await master.start({ flags });
      await b.open();
      const moved = await waitFor(
        "that the machine has moved",
        async () => {
          await b.report();
          const machine = await master.machine("web");
          return machine.worker === "b" ? machine : undefined;
        },
        LONG,
      );
      expect(moved.status).toBe("pending");
      expect(readFileSync(seen, "utf8")).toBe("a\na\n");
    });
  });
});
