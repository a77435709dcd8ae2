/** Machines as a file declares them: what is missing, changed, extra; over the worker's death. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import type { ReconciliationAnswer } from "../../src/vm/protocol.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let host: VmHost;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
  image = await host.image();
});
afterEach(() => host[Symbol.asyncDispose]());

interface Declared {
  readonly name: string;
  readonly power: "off" | "created" | "paused";
  readonly memoryMb?: number;
}

/** None of them runs: a guest that counts would have a processor to itself. */
function declare(machines: readonly Declared[], generation?: number): string {
  const path = host.folder.file("machines.json");
  const machine = machines.map((one) => ({ ...one, imagePath: image.path, hash: image.hash }));
  writeFileSync(path, JSON.stringify({ machine, ...(generation !== undefined && { generation }) }));
  return path;
}

const phases = async () => {
  const machines = await host.summaries();
  return Object.fromEntries(machines.map(({ name, phase }) => [name, phase]));
};

/** What `diff` says, whatever it exits with. */
async function diff(path: string): Promise<ReconciliationAnswer> {
  const { stdout } = await host.run("diff", path, "--json");
  return JSON.parse(stdout) as ReconciliationAnswer;
}

const reach = (wanted: Record<string, string>) =>
  waitFor(`the phases ${JSON.stringify(wanted)}`, async () => {
    const found = await phases();
    return JSON.stringify(found) === JSON.stringify(wanted);
  });

skipUnless(
  "machines as a file declares them",
  [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")],
  () => {
    test("are created, changed and removed, and a second pass does nothing", async () => {
      await host.start();
      const both: readonly Declared[] = [
        { name: "a", power: "paused" },
        { name: "b", power: "created" },
      ];
      const first = declare(both);
      expect((await host.run("diff", first)).exitCode).toBe(1);
      expect(await phases()).toEqual({});
      expect(await host.say("apply", first)).toStartWith("generation 1: 0 % as declared\n");
      await reach({ a: "paused", b: "created" });
      expect((await host.run("diff", first)).exitCode).toBe(0);
      expect(await diff(first)).toMatchObject({ convergence_percent: 100, commands: [] });

      const before = host.vmmProcesses();
      await host.say("apply", first);
      expect(host.vmmProcesses()).toEqual(before);

      const changed = declare([{ name: "a", power: "created", memoryMb: 96 }]);
      expect((await diff(changed)).machines).toEqual([
        expect.objectContaining({
          name: "a",
          status: "drifted",
          drift: [{ key: "memoryMb", desired: 96, observed: null }],
        }),
        expect.objectContaining({ name: "b", reason: "it is declared no more" }),
      ]);
    });

    test("an operator's own machine is left alone, and no other takes its name", async () => {
      await host.start();
      await host.say("create", "mine", "--image", image.path, "--hash", image.hash);
      await host.say("apply", declare([{ name: "a", power: "off" }]));
      await reach({ mine: "created", a: "off" });
      await host.say("apply", declare([{ name: "mine", power: "paused" }]));
      await reach({ mine: "created" });
      const { machines } = await diff(declare([{ name: "mine", power: "paused" }]));
      expect(machines[0]).toMatchObject({ status: "left-alone" });
      await host.say("apply", declare([]));
      expect(await phases()).toEqual({ mine: "created" });
    });

    test("a worker that was killed keeps to what was declared before", async () => {
      await host.start();
      await host.say("apply", declare([{ name: "a", power: "off" }], 7));
      await host.kill();
      await host.start();
      await reach({ a: "off" });
      expect(JSON.parse(await host.say("status", "--json"))).toMatchObject({
        generation: 7,
        convergence_percent: 100,
      });
      const older = await host.run("apply", declare([], 6));
      expect(older.exitCode).toBe(111);
      expect(older.stderr).toContain("Expected generation 7 or a later one, received 6");
      expect(await phases()).toEqual({ a: "off" });
    });

    test("a declaration that cannot be read any more is told, and changes nothing", async () => {
      await host.start();
      await host.say("apply", declare([{ name: "a", power: "off" }]));
      await reach({ a: "off" });
      await host.kill();
      const path = `${host.artifacts}/desired.json`;
      writeFileSync(path, readFileSync(path, "utf8").slice(0, 20));
      await host.start();
      await waitFor("the trouble", () => host.said.includes("nothing is declared"));
      expect(await phases()).toEqual({ a: "off" });
    });
  },
);

skipUnless(
  "machines that are not the file's",
  [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")],
  () => {
    test("one that an operator made is left alone, and that is not as declared", async () => {
      await host.start();
      using client = await host.client();
      await client.create(host.specOf("a", image), "created");
      await reach({ a: "created" });
      const { exitCode, stdout } = await host.run(
        "diff",
        declare([{ name: "a", power: "created" }]),
      );
      expect(stdout).toContain("left-alone");
      expect(exitCode).toBe(1);
    });

    test("one that is declared is deleted by hand only where that is meant", async () => {
      await host.start();
      using client = await host.client();
      await host.say("apply", declare([{ name: "a", power: "created" }]));
      await reach({ a: "created" });
      const folder = (await client.show("a")).folder;
      const before = statSync(folder).birthtimeMs;
      const { exitCode, stderr } = await host.run("delete", "a", "--now", "--wait");
      expect(exitCode).toBe(111);
      expect(stderr).toContain("a is declared, and would be made anew, without what is on its");
      expect(stderr).toContain("hostler vm delete a --recreate");
      expect(statSync(folder).birthtimeMs).toBe(before);
      expect((await host.run("delete", "a", "--recreate", "--wait")).exitCode).toBe(100);
      await host.say("delete", "a", "--now", "--recreate");
      await waitFor("another one", () => {
        return existsSync(folder) && statSync(folder).birthtimeMs !== before;
      });
      await reach({ a: "created" });
    });
  },
);
