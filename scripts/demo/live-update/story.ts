/** The steps of the demo of live update, in order, and the summary. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GuestKernel } from "../../guest-kernel/kernel-image.ts";
import { formatMebibytes, formatSeconds, withStep } from "../../terminal.ts";
import { Report } from "../checks.ts";
import { tell } from "../telling.ts";
import { type CommandOutcome, GuestConsole } from "./console.ts";
import { type DiskLook, lookAtDisk, makeDisk } from "./disk.ts";

export interface StoryOptions {
  /** The compiled file. */
  readonly program: string;
  readonly kernel: GuestKernel;
}

/** All the checks that the steps make. */
const checkCount = 27;
const rowCount = 200_000;
const askedRows = [1, 123_456, rowCount] as const;

/** Tells the story. @returns 0 when all of it was seen, 1 when not, 130 after Ctrl-C */
export async function tellStory(options: StoryOptions): Promise<number> {
  const report = new Report();
  const folder = mkdtempSync(join(tmpdir(), "hostler-demo-"));
  let guest: GuestConsole | undefined;
  return await tell(report, {
    show: async () => {
      const disk = await withStep("the guest's disk", () => makeDisk(folder, options));
      // It is in every row, and nobody can know it beforehand.
      const word = randomBytes(12).toString("hex");
      const before = lookAtDisk(disk, word);
      guest = new GuestConsole(options.kernel, disk);
      await new Story(report, guest, { disk, word, before }).tell();
    },
    checkCount: () => checkCount,
    diaries: () => (guest?.lastLines ?? []).map((line) => `the guest: ${line}`),
    close: async () => {
      await guest?.close();
      rmSync(folder, { recursive: true, force: true });
    },
  });
}

/** The disk, and what must not be on it. */
interface Evidence {
  readonly disk: string;
  readonly word: string;
  readonly before: DiskLook;
}

/** Which kernel it is, of those that the guest has been. */
interface KernelIdentity {
  readonly release: string;
  readonly bootId: string;
  readonly uptimeSeconds: number;
}

class Story {
  readonly #report: Report;
  readonly #guest: GuestConsole;
  readonly #evidence: Evidence;

  constructor(report: Report, guest: GuestConsole, evidence: Evidence) {
    this.#report = report;
    this.#guest = guest;
    this.#evidence = evidence;
  }

  async tell(): Promise<void> {
    const first = await this.#boot();
    await this.#startLuod("luod, in the guest");
    const hash = await this.#fillDatabase();
    await this.#load();
    const lastAnswer = performance.now();
    const second = await this.#changeKernel(first);
    await this.#offerSessions();
    await this.#claim(hash, lastAnswer);
    this.#lookAtDisk();
    await this.#showStatus();
    await this.#rollBack(second);
    await this.#switchOff();
  }

  /** Types a command in the guest, and shows it with what it prints. */
  async #type(command: string, lastLine?: RegExp): Promise<CommandOutcome> {
    this.#report.command(command);
    const onLine = (line: string) => this.#report.output(line);
    return await this.#guest.run(command, { onLine, ...(lastLine && { lastLine }) });
  }

  async #boot(): Promise<KernelIdentity> {
    const report = this.#report;
    report.step("A machine with live update");
    report.say("QEMU, without a network; its only disk is read-only. What follows is typed at its");
    report.say("console, as an operator would.");
    await withStep("   the guest boots", () => this.#guest.booted(1));
    const identity = await this.#identify();
    const { exitCode } = await this.#type("ls -l /dev/liveupdate");
    const seen = `Linux ${identity.release}, boot ${identity.bootId}`;
    report.check("its kernel has live update", exitCode === 0, seen);
    return identity;
  }

  async #identify(): Promise<KernelIdentity> {
    const { lines } = await this.#type(
      "uname -r; cat /proc/sys/kernel/random/boot_id; cut -d' ' -f1 /proc/uptime",
    );
    const [release = "", bootId = "", uptime = ""] = lines;
    return { release, bootId, uptimeSeconds: Number(uptime) };
  }

  async #startLuod(title: string): Promise<void> {
    const report = this.#report;
    report.step(title);
    await this.#type("luod >/run/luod.log 2>&1 &");
    const { exitCode } = await this.#guest.run("until_said 'listening at' /run/luod.log");
    const { text } = await this.#type("cat /run/luod.log");
    report.check("luod takes clients and commands", exitCode === 0, lastLineOf(text));
  }

  /** @returns the SHA-256 of its table */
  async #fillDatabase(): Promise<string> {
    const report = this.#report;
    report.step("A database that has its rows in memory alone");
    report.say("A key-value table in a memfd, served on a Unix socket. It knows nothing of luod:");
    report.say("who runs it says there that no update is to be made without it.");
    const table = await this.#startDatabase();
    const row = `"SET row-%d ${this.#evidence.word}-%d\\n", $1, $1 * 7919 % 1000003`;
    const { text } = await this.#type(`seq ${rowCount} | awk '{ printf ${row} }' | ask`);
    report.check("rows go in", text === `${rowCount} of ${rowCount} are OK`, text);
    await this.#askRows("it answers");
    const hash = await this.#hashOf(table);
    const size = await this.#guest.run(`stat -L -c %s ${table}`);
    const bytes = formatMebibytes(Number(size.text));
    report.check("its table has a SHA-256", hash.length === 64, `${hash}, of ${bytes}`);
    return hash;
  }

  /** @returns the path of its table under /proc */
  async #startDatabase(): Promise<string> {
    const run = "hostler live-update run --id database -- database";
    await this.#type(`${run} >/run/database.log 2>&1 &`);
    const { exitCode } = await this.#guest.run("until_said serves /run/database.log");
    const { text } = await this.#type("cat /run/database.log");
    const [table = ""] = /\/proc\/\d+\/fd\/\d+/.exec(text) ?? [];
    this.#report.check("the database serves", exitCode === 0, table);
    return table;
  }

  /** Asks for some rows, whose values nobody could have made up. */
  async #askRows(what: string): Promise<void> {
    const commands = [...askedRows.map((row) => `'GET row-${row}'`), "COUNT"];
    const { lines } = await this.#type(`ask ${commands.join(" ")}`);
    const values = askedRows.map((row) => `${this.#evidence.word}-${(row * 7919) % 1_000_003}`);
    const holds = Bun.deepEquals(lines, [...values, `${rowCount}`]);
    const good = values.filter((value, index) => lines[index] === value).length;
    const seen = `${good} of ${askedRows.length} rows are right, there are ${lines.at(-1)}`;
    this.#report.check(what, holds, seen);
  }

  async #hashOf(table: string): Promise<string> {
    const { text } = await this.#type(`sha256sum ${table}`);
    return text.split(" ")[0] ?? "";
  }

  async #load(): Promise<void> {
    const report = this.#report;
    report.step("The next kernel is loaded");
    report.say("luod looks at the file and the command line first: a kernel that comes up without");
    report.say("live update has lost everything by the time anybody sees it.");
    const loaded = await this.#type("luoctl load /boot/vmlinuz --reuse-cmdline");
    report.check("the kernel is loaded", loaded.exitCode === 0, `exit ${loaded.exitCode}`);
    const { text } = await this.#type("luoctl list");
    const [id, , , , required] = cellsOf(text, "database");
    const holds = id === "database" && required === "yes";
    report.check("luod knows who takes part", holds, `${id}; required: ${required}`);
  }

  async #changeKernel(first: KernelIdentity): Promise<KernelIdentity> {
    const report = this.#report;
    report.step("The kernel is replaced");
    const begin = performance.now();
    const { lines } = await this.#type("luoctl kexec", / entering-kernel/);
    const isEntering = / entering-kernel/.test(lines.at(-1) ?? "");
    const typed = `${formatSeconds(performance.now() - begin)} after it was typed`;
    report.check("luod enters the next kernel", isEntering, isEntering ? typed : "it does not");
    await withStep("   the new kernel boots", () => this.#guest.booted(2));
    const second = await this.#identify();
    await this.#type("dmesg | grep 'KHO: exec from'");
    const isOther = second.bootId !== first.bootId && second.bootId.length === 36;
    report.check("it is another boot", isOther, `${second.bootId}, and not ${first.bootId}`);
    const passed = (performance.now() - begin) / 1000;
    const isYoung = second.uptimeSeconds > 0 && second.uptimeSeconds < passed;
    const seen = `up for ${second.uptimeSeconds} s, asked for ${passed.toFixed(1)} s ago`;
    report.check("the kernel is new", isYoung, seen);
    return second;
  }

  async #offerSessions(): Promise<void> {
    await this.#startLuod("luod, in the new kernel");
    const { text } = await this.#type("luoctl sessions");
    const [name, , direction, state] = cellsOf(text, "database");
    const seen = `session ${name}, ${direction}, ${state}`;
    this.#report.check("it offers what the database has saved", state === "unclaimed", seen);
  }

  async #claim(hash: string, lastAnswer: number): Promise<void> {
    const report = this.#report;
    report.step("The database, in the new kernel");
    report.say("Run with the same words, it is given its table as an open file (LISTEN_FDS).");
    const table = await this.#startDatabase();
    await this.#askRows("it answers as before");
    const away = formatSeconds(performance.now() - lastAnswer);
    report.say(`It was away for ${away}, from its last answer before the kexec to this one. The`);
    report.say("total of step 9 is luod's part: from the accepted command to the last claim.");
    const found = await this.#hashOf(table);
    report.check("its table is the same, byte for byte", found === hash, found);
    const { lines } = await this.#type("ask 'SET new in-the-new-kernel' 'GET new'");
    const isWritten = Bun.deepEquals(lines, ["OK", "in-the-new-kernel"]);
    report.check("it takes new rows", isWritten, lines.join(", "));
  }

  #lookAtDisk(): void {
    const report = this.#report;
    const { disk, word, before } = this.#evidence;
    report.step("Nothing went over a disk");
    report.say("Every row holds a word that was thrown for this run. The machine's only disk is");
    report.say("searched for it from outside; /run and /tmp of the old kernel were in its memory.");
    const after = lookAtDisk(disk, word);
    const seen = `SHA-256 ${after.sha256.slice(0, 16)}… before and after`;
    report.check("the disk is what it was", after.sha256 === before.sha256, seen);
    report.check("no row is on it", after.found === 0, `the word ${word} ${after.found} times`);
  }

  async #showStatus(): Promise<void> {
    const report = this.#report;
    report.step("Where the time went");
    const { text } = await this.#type("luoctl status");
    const total = /^total +(\S+ \S+)/m.exec(text)?.[1];
    report.check("luoctl has the blackout and its parts", total !== undefined, `total ${total}`);
  }

  async #rollBack(kernel: KernelIdentity): Promise<void> {
    const report = this.#report;
    report.step("A client that has to take part is not ready in time");
    report.say(
      "It says to luod that no update is to be made without it, and that it needs 3 s; then",
    );
    report.say("it does nothing. The database is ready by then, and must not be the loser.");
    await this.#type("late >/run/late.log 2>&1 &");
    await this.#guest.run("until_said HELLO /run/late.log");
    const before = await this.#table();
    await this.#type("luoctl load /boot/vmlinuz --reuse-cmdline >/dev/null && luoctl list");
    const { exitCode, text } = await this.#type("luoctl kexec");
    const isRolledBack = exitCode !== 0 && /aborted/.test(text);
    report.check("the update is rolled back", isRolledBack, lastLineOf(text));
    const [, state, after, bytes] = cellsOf(text, "database");
    const hadSaved = state === "ready" && bytes === "32 MiB";
    report.check("the database had saved its table by then", hadSaved, `${bytes} after ${after}`);
    const { lines } = await this.#type("tail -n 1 /run/database.log && tail -n 1 /run/late.log");
    const areTold = /the program goes on/.test(lines[0] ?? "") && /ABORTED/.test(lines[1] ?? "");
    report.check("both clients are told", areTold, areTold ? "with the reason" : lines.join(" | "));
    const now = await this.#identify();
    report.check("the kernel is the same", now.bootId === kernel.bootId, `boot ${now.bootId}`);
    const table = await this.#table();
    report.check("the database has what it had", table === before, table);
    const asked = await this.#type(`ask 'GET row-1' 'SET new after-the-rollback' 'GET new'`);
    const right = `${this.#evidence.word}-7919`;
    const goesOn = Bun.deepEquals(asked.lines, [right, "OK", "after-the-rollback"]);
    report.check("it goes on serving, and takes rows", goesOn, asked.lines.slice(1).join(", "));
  }

  /** @returns the SHA-256 of the table of the database that runs */
  async #table(): Promise<string> {
    const { text } = await this.#guest.run("cat /run/database.log");
    const [table = ""] = /\/proc\/\d+\/fd\/\d+/.exec(text) ?? [];
    return await this.#hashOf(table);
  }

  async #switchOff(): Promise<void> {
    this.#report.step("The machine is switched off");
    const code = await this.#guest.switchOff();
    this.#report.check("it ended by itself", code === 0, `exit code ${code}`);
  }
}

/** The cells of the row of a table that begins with this name. */
function cellsOf(table: string, name: string): string[] {
  const row = table.split("\n").find((line) => line.startsWith(`${name} `)) ?? "";
  return row.trimEnd().split(/ {2,}/);
}

function lastLineOf(text: string): string {
  return text.split("\n").at(-1) ?? "";
}
