/** What processes write: lines with name, stream and time, in bounded memory. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { LogLine } from "../../src/process/protocol.ts";
import { begin, bothPlaces, localPlace } from "../support/orchestrator-partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const shell = (script: string) => `command = ${JSON.stringify(["sh", "-c", script])}`;
const once = 'restart = "never"';
const pure = ({ stream, line }: LogLine) => `${stream} ${line}`;

function anonymousKibibytes(processId: number): number {
  const text = readFileSync(`/proc/${processId}/smaps_rollup`, "latin1");
  return Number(/^Anonymous:\s+(\d+) kB/m.exec(text)?.[1]);
}

skipUnless("logs", root, () => {
  for (const place of bothPlaces) {
    test(`lines of both streams, with name and time: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const script = "echo one; echo two >&2; echo; echo dö; exec sleep 1000";
      const lines = `[process.it]\n@here\n${shell(script)}\n[process.other]\n${shell("echo x")}
        ${once}\n`;
      const before = new Date().toISOString();
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const follower = orchestrator.followLogs({ name: "it" });
      const seen = await follower.until("four lines", (items) => items.length === 4 && items);
      expect(seen.filter(({ stream }) => stream === "stdout").map(pure)).toEqual([
        "stdout one",
        "stdout ",
        "stdout dö",
      ]);
      expect(seen.filter(({ stream }) => stream === "stderr").map(pure)).toEqual(["stderr two"]);
      for (const { name, time, dropped } of seen) {
        expect([name, dropped]).toEqual(["it", undefined]);
        expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
        expect(time > before && time.slice(0, 23) <= new Date().toISOString()).toBe(true);
      }
      await orchestrator.client.request("wait", { name: "other", until: "stopped" });
      const all = await orchestrator.logs();
      expect(new Set(all.map(({ name }) => name))).toEqual(new Set(["it", "other"]));
      expect(all.map(({ time }) => time)).toEqual(all.map(({ time }) => time).toSorted());
      expect((await orchestrator.logs({ name: "it", lines: 2 })).map(pure)).toEqual(
        seen.slice(-2).map(pure),
      );
    });

    test(`a line without its end is there when the process is gone: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const lines = `[process.it]\n@here\n${shell("printf whole; printf half >&2")}\n${once}\n`;
      await using running = await begin(place, folder, lines);
      const follower = running.orchestrator.followLogs();
      const seen = await follower.until("both", (items) => items.length === 2 && items);
      expect(seen.map(pure).toSorted()).toEqual(["stderr half", "stdout whole"]);
    });

    test(`every last line of every instance is there: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const mark = folder.file("count");
      const script = `echo x >> ${mark}; n=$(wc -l < ${mark}); echo first $n; echo last $n >&2
        [ $n -lt 40 ] && exit 1; exec sleep 1000`;
      const lines = `[process.it]\n@here\n${shell(script)}\nbackoff = "none"\n`;
      await using running = await begin(place, folder, lines);
      const follower = running.orchestrator.followLogs();
      const seen = await follower.until("80 lines", (items) => items.length === 80 && items);
      const numbers = Array.from({ length: 40 }, (_, index) => index + 1);
      const of = (stream: string) => seen.filter((line) => line.stream === stream).map(pure);
      expect(of("stdout")).toEqual(numbers.map((number) => `stdout first ${number}`));
      expect(of("stderr")).toEqual(numbers.map((number) => `stderr last ${number}`));
    });

    test(`a line of 1 MiB comes in pieces, none lost: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const script = "head -c 1048576 /dev/zero | tr '\\0' a; echo; echo end";
      const lines = `[process.it]\n@here\n${shell(script)}\n${once}\nlog_bytes = "2MiB"\n`;
      await using running = await begin(place, folder, lines);
      const follower = running.orchestrator.followLogs();
      const seen = await follower.until("the end", (items) =>
        items.at(-1)?.line === "end" ? items : undefined,
      );
      const pieces = seen.slice(0, -1).map(({ line }) => line);
      expect(Math.max(...pieces.map((piece) => piece.length))).toBe(16_384);
      expect(pieces.join("")).toBe("a".repeat(1_048_576));
    });

    test(`binary garbage is shown as text, and harms nobody: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const script = "head -c 3000000 /dev/urandom; echo; echo end; exec sleep 1000";
      const lines = `[process.it]\n@here\n${shell(script)}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const follower = orchestrator.followLogs();
      await follower.until("the end", (items) => items.at(-1)?.line === "end");
      const { log } = await orchestrator.show("it");
      expect(log.bytes).toBeLessThanOrEqual(256 * 1024);
      expect(log.dropped_lines).toBeGreaterThan(1_000);
    });

    test(`a flood of 100 MB: counted, bounded, and nobody waits: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const flood = `yes | head -c 100000000`;
      const lines = `[process.it]\n@here\n${shell(flood)}\n${once}\nautostart = false
        [process.calm]\n@here\ncommand = ["sleep", "1000"]\nbackoff = "none"\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const first = await orchestrator.started("calm");
      const before = anonymousKibibytes(orchestrator.program.processId);
      await orchestrator.client.request("start", { name: "it" });
      const flooded = orchestrator.client.request("wait", { name: "it", until: "stopped" });
      await waitFor("the flood", async () => {
        return (await orchestrator.show("it")).log.dropped_lines > 1_000;
      });
      process.kill(first, "SIGKILL");
      await orchestrator.started("calm", 2);
      expect(orchestrator.events.of("it", "died")).toEqual([]);
      const peak = anonymousKibibytes(orchestrator.program.processId);
      await flooded;
      expect(peak - before).toBeLessThan(100_000);
      const { log } = await orchestrator.show("it");
      expect(log.lines).toBe(1_000);
      expect(log.lines + log.dropped_lines).toBe(50_000_000);
      const [oldest] = await orchestrator.logs({ name: "it" });
      expect(oldest).toMatchObject({ line: "y", dropped: 49_999_000 });
    });

    test(`output = "inherit" goes where the orchestrator's goes: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const script = "echo to-stdout; echo to-stderr >&2; exec sleep 1000";
      const lines = `[process.it]\n@here\n${shell(script)}\noutput = "inherit"\n`;
      await using running = await begin(place, folder, lines);
      const { program } = running.orchestrator;
      await program.said(/to-stdout/);
      await program.said(/to-stderr/);
      expect(program.output.stdout).toBe("to-stdout\n");
      expect(program.output.stderr).toMatch(/^to-stderr$/m);
      expect(await running.orchestrator.logs()).toEqual([]);
    });
  }

  test("a limit of lines and one of bytes", async () => {
    using folder = temporaryFolder();
    const count = (limit: string) => `${shell("seq 1 20000")}\n${once}\n${limit}\n`;
    const lines = `[process.few]\n${count("log_lines = 7")}
      [process.small]\n${count('log_bytes = "16KiB"')}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const follower = orchestrator.followLogs();
    await follower.until(
      "both ends",
      (items) => items.filter(({ line }) => line === "20000").length === 2,
    );
    const few = await orchestrator.logs({ name: "few" });
    expect(few.map(({ line }) => line).join()).toBe("19994,19995,19996,19997,19998,19999,20000");
    expect(few[0]?.dropped).toBe(19_993);
    const { log } = await orchestrator.show("small");
    expect(log.bytes).toBeLessThanOrEqual(16_384);
    expect(log.lines + log.dropped_lines).toBe(20_000);
    const [oldest] = await orchestrator.logs({ name: "small", lines: log.lines });
    expect(Number(oldest?.line)).toBe(20_001 - log.lines);
  });
});
