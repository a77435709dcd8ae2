/** `hostler process list --watch` on a terminal of its own, and without one. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { hostler } from "../support/binary.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const enter = "\u001b[?1049h\u001b[?25l";
const leave = "\u001b[?25h\u001b[?1049l";
const configuration = `[process.it]
  command = ["sleep", "1000"]
  backoff = "none"
  [process.other]
  command = ["/nowhere/program"]
  restart = "never"
  [process.third]
  command = ["sleep", "1000"]\n`;

/** In a shell that tells the terminal's settings before and after it. */
function watchAt(socket: string) {
  let shown = "";
  const line = `${hostler()} process list --watch --control-socket ${socket}`;
  const script = `stty -g; ${line}; echo "exit $?"; stty -g`;
  const child = Bun.spawn(["sh", "-c", script], {
    terminal: {
      cols: 120,
      rows: 10,
      data: (_terminal, bytes) => {
        shown += new TextDecoder().decode(bytes);
      },
    },
  });
  const { terminal } = child;
  if (terminal === undefined) throw new Error("There is no terminal");
  return {
    child,
    terminal,
    get shown() {
      return shown;
    },
    sees: (what: string | RegExp) =>
      waitFor(`${what} in ${JSON.stringify(shown)}`, () => shown.search(what) >= 0),
    /** That all is as it was before. */
    ended: async () => {
      expect(await child.exited).toBe(0);
      await waitFor("the settings after it", () => /exit \d+\r\n\S+\r\n$/.test(shown));
      const [before = "", rest = ""] = shown.split(enter);
      const [, after = ""] = rest.split(leave);
      terminal.close();
      const [exit = "", settings] = after.trim().split("\r\n");
      expect(settings).toBe(before.trim());
      return exit.trim();
    },
  };
}

skipUnless("list --watch", root, () => {
  test("is drawn at events and each second, fits the screen, and gives it back at q", async () => {
    await using orchestrator = await startOrchestrator({ configuration });
    const first = await orchestrator.started("it");
    const watch = watchAt(orchestrator.controlSocket);
    await watch.sees(/3 processes, 2 ready, 1 failed/);
    await watch.sees(/other +failed .*no such file/i);
    // Nothing happens, and it is drawn all the same: what is used needs two looks.
    await watch.sees(/it +ready +\d+ +0 +\d+\.\d % +\S+ \wiB/);
    process.kill(first, "SIGKILL");
    const second = await orchestrator.started("it", 2);
    await watch.sees(new RegExp(`it +ready +${second} +1 .*SIGKILL`));
    watch.terminal.resize(20, 3);
    await watch.sees(/… and \d more/);
    watch.terminal.write("xq");
    expect(await watch.ended()).toBe("exit 0");
  });

  test("Ctrl-C leaves it as well; an orchestrator that ends meanwhile is waited for", async () => {
    using folder = temporaryFolder();
    const watch = await (async () => {
      await using orchestrator = await startOrchestrator({ folder, configuration });
      const begun = watchAt(orchestrator.controlSocket);
      await begun.sees(/q leaves/);
      return begun;
    })();
    await watch.sees(/no answer, asked again/);
    await using _next = await startOrchestrator({ folder, configuration });
    const seen = watch.shown.length;
    await waitFor("processes again", () => /K {0,2}.*3 processes/s.test(watch.shown.slice(seen)));
    watch.terminal.write("\u0003");
    expect(await watch.ended()).toBe("exit 0");
  });

  test("where nobody answers at the beginning, nothing is taken over", async () => {
    using folder = temporaryFolder();
    const watch = watchAt(folder.file("nobody.sock"));
    await watch.sees(/exit 111/);
    expect(watch.shown).not.toContain(enter);
    await watch.child.exited;
    watch.terminal.close();
  });

  test("without a terminal a line for each change, and one JSON object with --json", async () => {
    await using orchestrator = await startOrchestrator({ configuration });
    const first = await orchestrator.started("it");
    await orchestrator.events.nth("other", "failed");
    const words = ["process", "list", "--watch", "--control-socket", orchestrator.controlSocket];
    await using lines = startProgram([hostler(), ...words]);
    await using objects = startProgram([hostler(), ...words, "--json"]);
    const time = "\\d{4}-\\S+Z";
    await lines.said(new RegExp(`^${time} it ready, process ${first}; 0 restarts\\n`, "m"));
    await lines.said(new RegExp(`^${time} other failed: .*; 0 restarts; 1 refused\\n`, "m"));
    await objects.said(/"name":"third"/);
    process.kill(first, "SIGKILL");
    const second = await orchestrator.started("it", 2);
    const restarted = `^${time} it ready, process ${second}; 1 restart; last exit SIGKILL\\n`;
    await lines.said(new RegExp(restarted, "m"));
    await objects.said(new RegExp(`"pid":${second},"restarts":1`));
    expect(lines.output.stdout).not.toContain("\u001b");
    const told = objects.output.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    for (const one of told) expect(one).toMatchObject({ time: expect.any(String) });
    // Of those to whom nothing happened there is one.
    expect(told.filter(({ name }) => name === "third")).toHaveLength(1);
    await orchestrator.program[Symbol.asyncDispose]();
    expect((await lines.ended()).exitCode).toBe(111);
    expect((await objects.ended()).exitCode).toBe(111);
  });
});
