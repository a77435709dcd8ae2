/** What a process parks by FDSTORE=1 of sd_notify(3), and who gets it: sd_listen_fds(3). */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readlinkSync, renameSync, writeFileSync } from "node:fs";
import { SYS_sendmsg } from "../../ffi/constants.ts";
import type { ProcessDetail } from "../../src/process/protocol.ts";
import { hostler } from "../support/binary.ts";
import { keptDescriptors, killOrchestrator } from "../support/kept.ts";
import { startOrchestrator, type TestOrchestrator } from "../support/orchestrator.ts";
import { begin, bothPlaces, localPlace } from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** In Perl: says what it was given, then does what stands in a file, again and again. */
const program = (orders: string, first: string) => `
  use Socket;
  $| = 1;
  socket(my $notify, PF_UNIX, SOCK_DGRAM, 0);
  (my $name = $ENV{NOTIFY_SOCKET}) =~ s/^@/\\0/;
  my $address = pack("S a*", AF_UNIX, $name);
  sub tell_with {
    my ($text, @numbers) = @_;
    my $data = pack("i*", @numbers);
    my $control = pack("Q i i", 16 + length $data, SOL_SOCKET, 1) . $data;
    $control .= "\\0" x (-length($control) % 8);
    my $vector = pack("P Q", $text, length $text);
    my @rights = @numbers ? ($control, length $control) : (0, 0);
    my $header = @numbers
      ? pack("P L x4 P Q P Q i x4", $address, length $address, $vector, 1, @rights, 0)
      : pack("P L x4 P Q Q Q i x4", $address, length $address, $vector, 1, 0, 0, 0);
    syscall(${SYS_sendmsg}, fileno($notify), $header, 0) >= 0 or print "refused: $!\\n";
  }
  sub of { readlink "/proc/self/fd/$_[0]" }
  my @names = split /:/, $ENV{LISTEN_FDNAMES} // "";
  my $count = $ENV{LISTEN_FDS} // 0;
  my $whose = ($ENV{LISTEN_PID} // $$) == $$ ? "" : " of another";
  my @given = map { "$names[$_]=" . of(3 + $_) } 0 .. $count - 1;
  print "given $count$whose: @given\\n";
  our @kept;
  ${first}
  while (1) {
    if (-e "${orders}") {
      open(my $file, "<", "${orders}"); local $/; my $text = <$file>; close $file;
      unlink "${orders}";
      eval $text; print "failed: $@" if $@;
      print "done\\n";
    }
    select(undef, undef, undef, 0.01);
  }
`;

/** Parks one end of a pipe, of which it has the other one. */
const parkPipe = (name: string, more = "") =>
  `pipe(my $r, my $w); push @kept, $w;
   tell_with("FDSTORE=1\\nFDNAME=${name}${more}", fileno($r));
   print "parked ", of(fileno($r)), "\\n";`;

class Parker {
  readonly #folder: TemporaryFolder;
  readonly #orders: string;
  #said = 0;

  constructor(folder: TemporaryFolder) {
    this.#folder = folder;
    this.#orders = folder.file("orders");
  }

  /** A process that does `first` at the start of each instance that is given nothing. */
  table(first = "", more = "descriptor_store = 4"): string {
    const text = program(this.#orders, `if ($count == 0) { ${first} }`);
    return `[process.it]\n@here\ncommand = ${JSON.stringify(["perl", "-e", text])}\n${more}\n`;
  }

  /** The lines of its output that have not been looked at, up to one of these words. */
  async said(orchestrator: TestOrchestrator, last: RegExp): Promise<string[]> {
    const lines = await waitFor(`${last} of it`, async () => {
      const all = (await orchestrator.logs()).map(({ line }) => line).slice(this.#said);
      return all.some((line) => last.test(line)) && all;
    });
    this.#said += lines.length;
    return lines;
  }

  async do(orchestrator: TestOrchestrator, code: string): Promise<string[]> {
    writeFileSync(`${this.#orders}.new`, code);
    renameSync(`${this.#orders}.new`, this.#orders);
    return await this.said(orchestrator, /^done$/);
  }

  /** The next orchestrator begins with an empty log. */
  anew(): void {
    this.#said = 0;
    expect(existsSync(this.#folder.file("orders"))).toBe(false);
  }
}

const storeOf = async ({ client }: TestOrchestrator) =>
  ((await client.request("show", { name: "it" })) as ProcessDetail).descriptor_store;
const parkedOf = async (orchestrator: TestOrchestrator) =>
  ((await storeOf(orchestrator))?.parked ?? []).map(({ name }) => name);
const numbered = (line: string | undefined) =>
  /(?:socket|pipe):\[\d+\]/.exec(line ?? "")?.[0] ?? "";

/** What a process has open, as the kernel names it. */
const openIn = (pid: number) =>
  readdirSync(`/proc/${pid}/fd`).flatMap((number) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${number}`)];
    } catch {
      return [];
    }
  });

const parkSocket = (path: string) =>
  `unlink "${path}"; socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un("${path}"));
   listen($s, 8); tell_with("FDSTORE=1\\nFDNAME=web", fileno($s));
   print "parked ", of(fileno($s)), "\\n";`;

/** Takes a connection of what it was given, and answers. */
const serve = `open(my $s, "+<&=", 3); accept(my $c, $s); syswrite($c, "served"); close $c;`;

skipUnless("descriptors that a process parks", root, () => {
  for (const place of bothPlaces) {
    test(`are the next instance's, and who connects is served: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const parker = new Parker(folder);
      const path = folder.file("web.sock");
      await using running = await begin(place, folder, parker.table(parkSocket(path)));
      const { orchestrator } = running;
      const first = await orchestrator.started("it");
      const said = await parker.said(orchestrator, /^parked/);
      expect(said[0]).toBe("given 0: ");
      const socket = numbered(said[1]);
      await waitFor("what it parks", async () => (await parkedOf(orchestrator)).length === 1);
      expect(await storeOf(orchestrator)).toEqual({
        most: 4,
        parked: [{ name: "web", is: socket }],
      });
      for (const round of [2, 3]) {
        const pid = orchestrator.events.of("it", "started").at(-1)?.pid ?? first;
        process.kill(pid, "SIGKILL");
        // Whoever comes while nothing runs waits in the kernel, and is not refused.
        const answer = Promise.withResolvers<string>();
        await Bun.connect({
          unix: path,
          socket: { data: (_socket, data) => answer.resolve(data.toString()) },
        });
        await orchestrator.started("it", round);
        expect(await parker.said(orchestrator, /^given/)).toEqual([`given 1: web=${socket}`]);
        await parker.do(orchestrator, serve);
        expect(await answer.promise).toBe("served");
      }
      expect(await orchestrator.stop()).toBe(0);
    });

    test(`outlive the orchestrator's program, and its death: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const parker = new Parker(folder);
      const lines = parker.table(`${parkPipe("one")} ${parkPipe("two", "\\nFDPOLL=0")}`);
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await orchestrator.started("it");
      await waitFor("both", async () => (await parkedOf(orchestrator)).length === 2);
      const pipes = (await storeOf(orchestrator))?.parked.map(({ name, is }) => `${name}=${is}`);
      await reexecute(orchestrator.controlSocket);
      expect(await parkedOf(orchestrator)).toEqual(["one", "two"]);
      await parker.said(orchestrator, /^parked/);
      const before = orchestrator.events.of("it", "started").at(-1)?.pid ?? 0;
      process.kill(before, "SIGSTOP");
      // Its journal, four ends of pipes, a pidfd, its notices, and these.
      await keptDescriptors(orchestrator, 1 + 4 + 1 + 1 + 2);
      await killOrchestrator(orchestrator);
      parker.anew();
      const partition = running.partition;
      const here = partition === undefined ? "" : 'partition = "qm"';
      const rest = partition === undefined ? "" : `[partition.qm]\nsocket = "${partition.socket}"`;
      const configuration = `${lines.replaceAll("@here", here)}\n${rest}\n`;
      await using second = await startOrchestrator({ folder, configuration });
      const { pid = 0 } = await second.events.nth("it", "adopted");
      expect(pid).toBe(before);
      expect(await parkedOf(second)).toEqual(["one", "two"]);
      process.kill(pid, "SIGCONT");
      // The other ends are its own: with its death the one that is watched hangs up, and is let go.
      process.kill(pid, "SIGKILL");
      await second.started("it");
      const [given] = await parker.said(second, /^given/);
      expect([`given 2: ${pipes?.join(" ")}`, `given 1: ${pipes?.[1]}`]).toContain(given ?? "");
      await waitFor("the one that hung up", async () => (await parkedOf(second)).length === 1);
      expect(await parkedOf(second)).toEqual(["two"]);
    });
  }

  test("are let go when it has come to rest, and with the process itself", async () => {
    using folder = temporaryFolder();
    const parker = new Parker(folder);
    const first = parkPipe("it", "\\nFDPOLL=0");
    await using running = await begin(localPlace, folder, parker.table(first));
    const { orchestrator } = running;
    await orchestrator.started("it");
    const [, parked] = await parker.said(orchestrator, /^parked/);
    await waitFor("what it parks", async () => (await parkedOf(orchestrator)).length === 1);
    expect(openIn(orchestrator.program.processId)).toContain(numbered(parked));
    await orchestrator.client.request("restart", { name: "it" });
    await orchestrator.started("it", 2);
    expect(await parker.said(orchestrator, /^given/)).toEqual([`given 1: it=${numbered(parked)}`]);
    await orchestrator.client.request("stop", { name: "it" });
    await orchestrator.client.request("wait", { name: "it", until: "stopped" });
    expect(await parkedOf(orchestrator)).toEqual([]);
    await waitFor("its end in the orchestrator", () => {
      return !openIn(orchestrator.program.processId).includes(numbered(parked));
    });
    await orchestrator.client.request("start", { name: "it" });
    await orchestrator.started("it", 3);
    expect((await parker.said(orchestrator, /^given/))[0]).toBe("given 0: ");
  });

  test("are so many and no more, each once, and are taken back by name", async () => {
    using folder = temporaryFolder();
    const parker = new Parker(folder);
    const lines = parker.table("", "descriptor_store = 2");
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    await orchestrator.started("it");
    await parker.said(orchestrator, /^given/);
    const one = parkPipe("a");
    await parker.do(orchestrator, `${one} tell_with("FDSTORE=1\\nFDNAME=again", fileno($r));`);
    // Without a name, or with one that is none, it is "stored".
    await parker.do(orchestrator, parkPipe("b:c"));
    await waitFor("both", async () => (await parkedOf(orchestrator)).length === 2);
    expect(await parkedOf(orchestrator)).toEqual(["a", "stored"]);
    await parker.do(orchestrator, parkPipe("x".repeat(106)));
    await orchestrator.program.said(/FDNAME=x{40}…: expected at most 105 letters .*received 106/);
    const told = /it: FDSTORE=1: 2 descriptors are parked, and no more are taken/;
    for (let more = 0; more < 3; more += 1) await parker.do(orchestrator, parkPipe("c"));
    await orchestrator.program.said(told);
    expect(orchestrator.program.output.stderr.match(new RegExp(told, "g"))).toHaveLength(1);
    expect(await parkedOf(orchestrator)).toEqual(["a", "stored"]);
    await parker.do(orchestrator, 'tell_with("FDSTOREREMOVE=1\\nFDNAME=a");');
    await waitFor("its removal", async () => (await parkedOf(orchestrator)).length === 1);
    await parker.do(orchestrator, parkPipe("c"));
    await waitFor("the next one", async () => (await parkedOf(orchestrator)).length === 2);
    expect(await parkedOf(orchestrator)).toEqual(["stored", "c"]);
    // Of one name there may be several; a name that none has takes nothing away.
    await parker.do(orchestrator, 'tell_with("FDSTOREREMOVE=1\\nFDNAME=none");');
    await parker.do(orchestrator, 'tell_with("FDSTOREREMOVE=1");');
    expect(await parkedOf(orchestrator)).toEqual(["stored", "c"]);
    // Both ends of a pipe that nobody has any more.
    await parker.do(orchestrator, "@kept = ();");
    await waitFor("those that hung up", async () => (await parkedOf(orchestrator)).length === 0);
  });

  test("of anybody but the main process are told, and closed", async () => {
    using folder = temporaryFolder();
    const parker = new Parker(folder);
    await using running = await begin(localPlace, folder, parker.table());
    const { orchestrator } = running;
    await orchestrator.started("it");
    await parker.said(orchestrator, /^given/);
    const child = `if (!fork) { ${parkPipe("mine")} exit 0 } wait;`;
    const said = await parker.do(orchestrator, child);
    await orchestrator.program.said(/it: FDSTORE of process \d+ does not count/);
    expect(openIn(orchestrator.program.processId)).not.toContain(numbered(said.join(" ")));
    expect(await parkedOf(orchestrator)).toEqual([]);
    // One that is asked whether all before it was heard is closed.
    const barrier = `pipe(my $r, my $w); tell_with("BARRIER=1", fileno($w)); close $w;
      sysread($r, my $end, 1); print "heard\\n";`;
    expect(await parker.do(orchestrator, barrier)).toContain("heard");
  });

  test("are let go when a reload takes the store away; a smaller one keeps them", async () => {
    using folder = temporaryFolder();
    const parker = new Parker(folder);
    const first = `${parkPipe("a")} ${parkPipe("b")}`;
    await using running = await begin(localPlace, folder, parker.table(first));
    const { orchestrator } = running;
    await orchestrator.started("it");
    await waitFor("both", async () => (await parkedOf(orchestrator)).length === 2);
    const reload = async (more: string) => {
      writeFileSync(folder.file("process.toml"), parker.table(first, more).replace("@here", ""));
      const words = ["process", "reload", "--wait", "--control-socket"];
      const { exitCode } = await runProgram([hostler(), ...words, orchestrator.controlSocket]);
      expect(exitCode).toBe(0);
    };
    await reload("descriptor_store = 1");
    expect((await storeOf(orchestrator))?.most).toBe(1);
    expect(await parkedOf(orchestrator)).toEqual(["a", "b"]);
    expect(orchestrator.events.of("it", "started")).toHaveLength(1);
    await reload('ready = "notify"');
    await orchestrator.started("it", 2);
    expect(await storeOf(orchestrator)).toBeUndefined();
    await orchestrator.program.said(/it: FDSTORE=1: it may park nothing: give it a descriptor_s/);
  });
});
