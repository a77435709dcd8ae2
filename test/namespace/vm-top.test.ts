/** `hostler vm top` on a terminal of its own, and without one. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { hostler } from "../support/binary.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const enter = "\u001b[?1049h\u001b[?25l";
const leave = "\u001b[?25h\u001b[?1049l";
const interval = ["--interval", "100ms"] as const;
const qemu = program("qemu-system-x86_64", "qemu-system-x86");

interface Row {
  readonly name: string;
  readonly cpu_percent: number | null;
  readonly network_sent_rate: number | null;
}

skipUnless("hostler vm top", [root, qemu, program("ip", "iproute2")], () => {
  let host: VmHost;
  beforeAll(async () => {
    host = await VmHost.make();
    const { path, hash } = await host.image();
    await host.start();
    await host.say("create", "web", "--image", path, "--hash", hash, "--start");
  });
  afterAll(() => host?.[Symbol.asyncDispose]());

  /** In a shell that tells the terminal's settings before and after it. */
  const watch = (...words: readonly string[]) => watchAt(host.controlSocket, ...words);

  function watchAt(socket: string, ...words: readonly string[]) {
    let shown = "";
    const line = [hostler(), "vm", "top", "--control-socket", socket, ...words];
    const script = `stty -g; ${line.join(" ")}; echo "exit $?"; stty -g`;
    const child = Bun.spawn(["sh", "-c", script], {
      terminal: {
        cols: 100,
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

  test("is refreshed in its place until q is typed, and gives the terminal back", async () => {
    const top = watch(...interval);
    await top.sees(/1 machine, 1 running/);
    await top.sees(/web +\d+\.\d %/);
    const frames = () => top.shown.split("\u001b[H").length;
    const seen = frames();
    await waitFor("another frame", () => frames() > seen);
    top.terminal.write("xq");
    expect(await top.ended()).toBe("exit 0");
  });

  test.each([
    ["Ctrl-C", (top: ReturnType<typeof watch>) => top.terminal.write("\u0003")],
    ["SIGTERM", (top: ReturnType<typeof watch>) => signalTop(top.child.pid)],
  ])("%s leaves it as well", async (_name, end) => {
    const top = watch(...interval);
    await top.sees(/q leaves/);
    end(top);
    expect(await top.ended()).toBe("exit 0");
  });

  test("fits the screen, whose size may change, and ends by itself when it is told", async () => {
    const top = watch(...interval, "--count", "3");
    expect(await top.ended()).toBe("exit 0");
    const narrow = watch("--interval", "1h");
    await narrow.sees(/q leaves/);
    narrow.terminal.resize(20, 2);
    await narrow.sees(/… and \d more/);
    narrow.terminal.write("q");
    expect(await narrow.ended()).toBe("exit 0");
  });

  test("a worker that ends meanwhile is waited for", async () => {
    const top = watch(...interval);
    await top.sees(/1 machine, 1 running/);
    await host.kill();
    await top.sees(/no answer, asked again/);
    await host.start();
    const seen = top.shown.length;
    await waitFor("machines again", () => /q leaves/.test(top.shown.slice(seen)));
    top.terminal.write("q");
    expect(await top.ended()).toBe("exit 0");
  });

  test("without a terminal it is a table once, or lines of JSON", async () => {
    await host.reaches("web", "running");
    const table = await host.say("top", ...interval);
    expect(table).toMatch(/^1 machine, 1 running, .*\nNAME +CPU +MEMORY.*\nweb +\d+\.\d %/);
    expect(table).not.toContain("\u001b");
    const lines = (await host.say("top", "--json", "--count", "2", ...interval)).trim().split("\n");
    expect(lines).toHaveLength(2);
    for (const line of lines) {
      const { time, machines } = JSON.parse(line) as { time: string; machines: readonly Row[] };
      expect(Date.parse(time)).not.toBeNaN();
      const sent = { network_sent_rate: expect.any(Number) };
      expect(machines).toMatchObject([{ name: "web", cpu_percent: expect.any(Number), ...sent }]);
    }
  });

  test("what is no interval or count is refused, and a worker that is not there", async () => {
    for (const words of [
      ["--interval", "99ms"],
      ["--count", "0"],
      ["--interval", "soon"],
    ]) {
      expect((await host.run("top", ...words)).exitCode).toBe(100);
    }
    const away = watchAt(host.folder.file("nobody.sock"));
    await away.sees(/exit 111/);
    expect(away.shown).not.toContain(enter);
    await away.child.exited;
    away.terminal.close();
  });
});

/** To the program, and not to the shell that it was started by. */
async function signalTop(shell: number): Promise<void> {
  const children = await Bun.file(`/proc/${shell}/task/${shell}/children`).text();
  for (const child of children.trim().split(" ")) process.kill(Number(child), "SIGTERM");
}
