/** Order of start by readiness, which is looked for in the process's own partition. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readlinkSync, writeFileSync } from "node:fs";
import { withVariable } from "../support/lonely-child.ts";
import { startOrchestrator, type TestOrchestrator } from "../support/orchestrator.ts";
import {
  begin,
  bothPlaces,
  localPlace,
  type Place,
  partitionPlace,
  startPartition,
} from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const perl = (body: string) => `command = ${JSON.stringify(["perl", "-e", body])}`;
const sleep = "sleep 1000000 while 1;";

/** sd_notify(3) in Perl. */
const notifier = `
  use Socket;
  sub notify {
    my ($text, $to) = @_;
    socket(my $socket, AF_UNIX, SOCK_DGRAM, 0);
    $to =~ s/^@/\\0/;
    send($socket, $text, 0, pack_sockaddr_un($to)) or die "cannot send: $!";
  }
  my $to = $ENV{NOTIFY_SOCKET};
`;

/** Listens on a port of 127.0.0.1 or [::1], or on a path, and takes no connection. */
const listensOn = (port: number) => `
  use Socket;
  socket(my $socket, PF_INET, SOCK_STREAM, 0);
  bind($socket, pack_sockaddr_in(${port}, INADDR_LOOPBACK)) or die $!;
  listen($socket, 100); ${sleep}`;
const listensOnSix = (port: number) => `
  use Socket qw(:DEFAULT pack_sockaddr_in6 IN6ADDR_LOOPBACK);
  socket(my $socket, AF_INET6, SOCK_STREAM, 0);
  bind($socket, pack_sockaddr_in6(${port}, IN6ADDR_LOOPBACK)) or die $!;
  listen($socket, 100); ${sleep}`;
const listensAt = (path: string) => `
  use Socket;
  socket(my $socket, AF_UNIX, SOCK_STREAM, 0);
  bind($socket, pack_sockaddr_un("${path}")) or die $!;
  listen($socket, 100); ${sleep}`;

/** A port that nobody has at the moment. */
function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
  const { port } = server;
  server.stop(true);
  return port;
}

/** Comes to be ready before its successor is asked for. */
async function expectInOrder(orchestrator: TestOrchestrator): Promise<void> {
  await orchestrator.events.nth("next", "ready");
  const story = orchestrator.events.story("started", "ready", "start-requested");
  expect(story.indexOf("it ready")).toBeLessThan(story.indexOf("next start-requested"));
  expect(story.indexOf("it ready")).toBeGreaterThan(story.indexOf("it started"));
}

const next = `[process.next]\n@here\nafter = ["it"]\ncommand = ["sleep", "1000"]\n`;

/** Neither ready nor let be: its time is over, it is killed and started again. */
async function expectUnready(orchestrator: TestOrchestrator, name = "it"): Promise<void> {
  await orchestrator.started(name, 2);
  const story = orchestrator.events
    .of(name)
    .map((event) => event.what)
    .filter((what) => !["start-requested", "backing-off"].includes(what));
  const life = ["started", "readiness-timeout", "killed", "died", "ended"];
  expect(story.slice(0, 6)).toEqual([...life, "started"]);
}

skipUnless("readiness", root, () => {
  for (const place of bothPlaces) {
    test(`started: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const lines = `[process.it]\n@here\ncommand = ["sleep", "1000"]\n${next}`;
      await using running = await begin(place, folder, lines);
      await expectInOrder(running.orchestrator);
    });

    test(`notify, from the process itself: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const body = `${notifier} notify("STATUS=soon\\nREADY=1\\n", $to); ${sleep}`;
      const lines = `[process.it]\n@here\n${perl(body)}\nready = "notify"\n${next}`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await expectInOrder(orchestrator);
      process.kill(await orchestrator.started("it"), "SIGKILL");
      await orchestrator.events.nth("it", "ready", 2);
    });

    test(`notify, from a child of the process: does not count: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const body = `${notifier} if (!fork()) { notify("READY=1", $to); exit 0 } wait; ${sleep}`;
      const ready = 'ready = "notify"\nready_timeout = "250ms"';
      const lines = `[process.it]\n@here\n${perl(body)}\n${ready}\n${next}`;
      await using running = await begin(place, folder, lines);
      await expectUnready(running.orchestrator);
      expect(running.orchestrator.events.of("next")).toEqual([]);
      const words = /it: READY=1 of process \d+ does not count: expected it from the main process/;
      await running.orchestrator.program.said(words);
    });

    test(`notify, from a foreign process: does not count: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const file = folder.file("socket-name");
      const tell = `open(my $file, ">", "${file}.new"); print $file $to; close $file;
        rename("${file}.new", "${file}");`;
      const ready = 'ready = "notify"\nready_timeout = "1s"';
      const lines = `[process.it]\n@here\n${perl(`${notifier} ${tell} ${sleep}`)}\n${ready}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator, partition } = running;
      const name = await waitFor("its socket's name", () => Bun.file(file).text());
      const argv = ["perl", "-e", `${notifier} notify("READY=1", '${name}');`];
      const foreign = partition === undefined ? runProgram(argv) : partition.run(argv).ended();
      expect((await foreign).exitCode).toBe(0);
      await expectUnready(orchestrator);
    });

    test(`a command: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const gate = folder.file("gate");
      const ready = `ready = {command = ["test", "-e", "${gate}"]}`;
      const lines = `[process.it]\n@here\ncommand = ["sleep", "1000"]\n${ready}\n${next}`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await orchestrator.started("it");
      const waiting = await orchestrator.summary("next");
      expect([waiting.phase, waiting.reason]).toEqual(["waiting", "waits for it"]);
      expect((await orchestrator.summary("it")).phase).toBe("running");
      writeFileSync(gate, "");
      await expectInOrder(orchestrator);
    });

    test(`a command that hangs is ended with what it looks at: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const mark = `HANGS=${folder.path}`;
      const [name, value] = mark.split("=");
      const ready = `ready = {command = ["sleep", "100000"]}\nready_timeout = "30ms"`;
      const more = `${ready}\nbackoff = "none"\nenvironment = {${name} = "${value}"}`;
      const lines = `[process.it]\n@here\ncommand = ["sleep", "1000"]\n${more}\n`;
      await using running = await begin(place, folder, lines);
      await running.orchestrator.started("it", 12);
      expect(withVariable(mark).length).toBeLessThanOrEqual(4);
      expect(await running.orchestrator.stop()).toBe(0);
      await waitFor("nobody is left", () => withVariable(mark).length === 0);
    });

    test(`a Unix socket: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const path = folder.file("service.sock");
      const ready = `ready = {unix = "${path}"}`;
      const lines = `[process.it]\n@here\n${perl(listensAt(path))}\n${ready}\n${next}`;
      await using running = await begin(place, folder, lines);
      await expectInOrder(running.orchestrator);
    });

    test.each([
      ["127.0.0.1", listensOn],
      ["localhost", listensOn],
      ["[::1]", listensOnSix],
    ])(`a port of %s: ${place.title}`, async (host, listens) => {
      using folder = temporaryFolder();
      const port = freePort();
      const ready = `ready = {tcp = "${host}:${port}"}`;
      const lines = `[process.it]\n@here\n${perl(listens(port))}\n${ready}\n${next}`;
      await using running = await begin(place, folder, lines);
      await expectInOrder(running.orchestrator);
    });

    test(`what is not ready in its time is killed and started again: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const ready = `ready = {tcp = "127.0.0.1:${freePort()}"}\nready_timeout = "80ms"`;
      const backoff = 'backoff = {first = "10ms", cap = "20ms"}';
      const lines = `[process.it]\n@here\ncommand = ["sleep", "1000"]\n${ready}\n${backoff}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await expectUnready(orchestrator);
      await orchestrator.events.nth("it", "backing-off");
      await orchestrator.started("it", 3);
    });
  }
});

/** Two processes, one in the partition and one here, that are told ready by the same thing. */
async function beginBoth(
  folder: ReturnType<typeof temporaryFolder>,
  options: { readonly listener: Place; readonly body: string; readonly ready: string },
) {
  const { listener, body, ready } = options;
  const inside = (place: Place) => (place.partition ? 'partition = "qm"' : "");
  const other = listener.partition ? localPlace : partitionPlace;
  const lines = `[process.listens]\n${inside(listener)}\n${perl(body)}\n${ready}
    [process.hopes]\n${inside(other)}\ncommand = ["sleep", "1000"]\nafter = ["listens"]
    ${ready}\nready_timeout = "250ms"\n`;
  return await begin(partitionPlace, folder, lines);
}

skipUnless("readiness is looked for in the process's own partition", root, () => {
  for (const listener of bothPlaces) {
    test(`a port that listens ${listener.title} alone`, async () => {
      using folder = temporaryFolder();
      const port = freePort();
      const ready = `ready = {tcp = "127.0.0.1:${port}"}`;
      const settings = { listener, body: listensOn(port), ready };
      await using running = await beginBoth(folder, settings);
      await running.orchestrator.events.nth("listens", "ready");
      await expectUnready(running.orchestrator, "hopes");
    });
  }

  test("a Unix socket that is in the partition's files alone", async () => {
    using folder = temporaryFolder();
    const hidden = folder.file("hidden");
    mkdirSync(hidden);
    await using partition = await startPartition(folder);
    const mount = await partition.run(["mount", "-t", "tmpfs", "none", hidden]).ended();
    expect(mount.exitCode).toBe(0);
    await partition.startAgent();
    const path = `${hidden}/service.sock`;
    const ready = `ready = {unix = "${path}"}`;
    const configuration = `[partition.qm]\nsocket = "${partition.socket}"
      [process.listens]\npartition = "qm"\n${perl(listensAt(path))}\n${ready}
      [process.hopes]\ncommand = ["sleep", "1000"]\n${ready}\nready_timeout = "250ms"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.events.nth("listens", "ready");
    await expectUnready(orchestrator, "hopes");
  });

  test("a command has the namespaces and the environment of its process", async () => {
    using folder = temporaryFolder();
    const here = readlinkSync("/proc/self/ns/net");
    const script = `[ "$COLOUR" = green ] && [ "$(readlink /proc/self/ns/net)" != "${here}" ]`;
    const ready = `ready = {command = ${JSON.stringify(["sh", "-c", script])}}`;
    const table = `command = ["sleep", "1000"]\nenvironment = {COLOUR = "green"}\n${ready}`;
    const lines = `[process.inside]\npartition = "qm"\n${table}
      [process.outside]\n${table}\nready_timeout = "250ms"\n`;
    await using running = await begin(partitionPlace, folder, lines);
    await running.orchestrator.events.nth("inside", "ready");
    await expectUnready(running.orchestrator, "outside");
  });
});

skipUnless("dependencies", root, () => {
  test("a chain through both partitions comes up in order", async () => {
    using folder = temporaryFolder();
    const port = freePort();
    const path = folder.file("service.sock");
    const notifies = perl(`${notifier} notify("READY=1", $to); ${sleep}`);
    const lines = `
      [process.last]\nafter = ["unix", "command"]\ncommand = ["sleep", "1000"]
      [process.command]\npartition = "qm"\nafter = ["tcp"]\ncommand = ["sleep", "1000"]
      ready = {command = ["true"]}
      [process.tcp]\npartition = "qm"\nafter = ["notify"]\n${perl(listensOn(port))}
      ready = {tcp = "127.0.0.1:${port}"}
      [process.unix]\nafter = ["notify"]\n${perl(listensAt(path))}\nready = {unix = "${path}"}
      [process.notify]\npartition = "qm"\n${notifies}\nready = "notify"\n`;
    await using running = await begin(partitionPlace, folder, lines);
    const { orchestrator } = running;
    await orchestrator.events.nth("last", "ready");
    const story = orchestrator.events.story("start-requested", "ready");
    const at = (line: string) => story.indexOf(line);
    for (const [first, second] of [
      ["notify", "tcp"],
      ["notify", "unix"],
      ["tcp", "command"],
      ["command", "last"],
      ["unix", "last"],
    ]) {
      expect(at(`${first} ready`)).toBeLessThan(at(`${second} start-requested`));
    }
    expect(story).toHaveLength(10);
    expect(await orchestrator.stop()).toBe(0);
  });

  test("who has done its work counts as ready; who failed at it does not", async () => {
    using folder = temporaryFolder();
    const once = (name: string, status: number) =>
      `[process.${name}]\nrestart = "never"\ncommand = ["sh", "-c", "exit ${status}"]\n`;
    const after = (name: string, other: string) =>
      `[process.${name}]\nafter = ["${other}"]\ncommand = ["sleep", "1000"]\n`;
    const lines = [once("good", 0), once("bad", 1)].join("");
    const ready = 'ready = {command = ["false"]}\n';
    const all = lines.replaceAll("restart =", `${ready}restart =`);
    const configuration = all + after("glad", "good") + after("sad", "bad");
    await using running = await begin(localPlace, folder, configuration);
    const { orchestrator } = running;
    await orchestrator.events.nth("glad", "ready");
    await orchestrator.events.nth("bad", "ended");
    const { phase, reason } = await orchestrator.summary("sad");
    expect({ phase, reason }).toEqual({ phase: "waiting", reason: "waits for bad" });
  });

  test("a start starts what it comes after", async () => {
    using folder = temporaryFolder();
    const lines = `[process.base]\nautostart = false\ncommand = ["sleep", "1000"]
      [process.top]\nautostart = false\nafter = ["base"]\ncommand = ["sleep", "1000"]\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    expect((await orchestrator.list()).map(({ phase }) => phase)).toEqual(["idle", "idle"]);
    await orchestrator.client.request("start", { name: "top" });
    await orchestrator.events.nth("top", "ready");
    const requested = orchestrator.events.story("start-requested");
    expect(requested).toEqual(["base start-requested", "top start-requested"]);
  });
});
