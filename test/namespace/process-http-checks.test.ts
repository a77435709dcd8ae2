/** Readiness and liveness by HTTP, over TCP and Unix sockets, from a process's own partition. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { ProcessDetail } from "../../src/process/protocol.ts";
import { begin, bothPlaces, localPlace } from "../support/orchestrator-partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** A port that nobody has at the moment. */
function freePort(): number {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
  const { port } = server;
  server.stop(true);
  return port;
}

const inPerl = (body: string) => `command = ${JSON.stringify(["perl", "-e", body])}`;

/** Answers what stands in a file, and nothing where there is none; it notes what it was asked. */
const answers = (listening: string, file: string) =>
  inPerl(`
  use Socket qw(:DEFAULT pack_sockaddr_in6 IN6ADDR_LOOPBACK);
  $SIG{PIPE} = "IGNORE";
  ${listening}
  listen($socket, 100);
  my @silent;
  while (accept(my $client, $socket)) {
    sysread($client, my $request, 4096);
    open(my $asked, ">>", "${file}.asked"); print $asked $request; close $asked;
    if (open(my $answer, "<", "${file}")) {
      local $/;
      syswrite($client, <$answer>);
      close $client;
    } else { push @silent, $client }
  }`);
const internet = (port: number) => `
  socket(my $socket, AF_INET, SOCK_STREAM, 0);
  setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
  bind($socket, pack_sockaddr_in(${port}, INADDR_LOOPBACK)) or die $!;`;
const internetSix = (port: number) => `
  socket(my $socket, AF_INET6, SOCK_STREAM, 0);
  setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
  bind($socket, pack_sockaddr_in6(${port}, IN6ADDR_LOOPBACK)) or die $!;`;
const atPath = (path: string) => `
  unlink "${path}";
  socket(my $socket, AF_UNIX, SOCK_STREAM, 0);
  bind($socket, pack_sockaddr_un("${path}")) or die $!;`;

const well = "HTTP/1.1 204 No Content\r\n\r\n";
const ill = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nbusy\n";

skipUnless("checks by HTTP", root, () => {
  for (const place of bothPlaces) {
    for (const way of ["tcp", "unix"] as const) {
      test(`ready at 200 to 399, and asked again until then: ${way}, ${place.title}`, async () => {
        using folder = temporaryFolder();
        const [file, path, port] = [folder.file("answer"), folder.file("it.sock"), freePort()];
        writeFileSync(file, ill);
        const isTcp = way === "tcp";
        const url = `http://${isTcp ? `127.0.0.1:${port}` : `unix:${path}:`}/health?of=it`;
        const listening = isTcp ? internet(port) : atPath(path);
        const lines = `[process.it]\n@here\n${answers(listening, file)}
          ready = {http = "${url}"}\n`;
        await using running = await begin(place, folder, lines);
        const { orchestrator } = running;
        await orchestrator.started("it");
        const asked = () =>
          existsSync(`${file}.asked`) ? readFileSync(`${file}.asked`, "latin1") : "";
        await waitFor("a second request", () => asked().split("GET ").length > 2);
        expect(orchestrator.events.of("it", "ready")).toEqual([]);
        const host = isTcp ? `127.0.0.1:${port}` : "localhost";
        expect(asked()).toStartWith(
          `GET /health?of=it HTTP/1.0\r\nHost: ${host}\r\nUser-Agent: hostler-check\r\n\r\n`,
        );
        writeFileSync(file, "HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n");
        await orchestrator.events.nth("it", "ready");
        const detail = (await orchestrator.client.request("show", { name: "it" })) as ProcessDetail;
        expect(detail.readiness).toBe(url);
      });
    }

    test(`what answers otherwise, or nothing, is restarted: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const [file, path] = [folder.file("answer"), folder.file("it.sock")];
      writeFileSync(file, well);
      const alive = `{http = "http://unix:${path}", interval = "20ms", timeout = "200ms"}`;
      const lines = `[process.it]\n@here\n${answers(atPath(path), file)}
        ready = {unix = "${path}"}\nalive = ${alive}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const unhealthy = async (count: number) =>
        (await orchestrator.events.nth("it", "unhealthy", count)).detail;
      await orchestrator.events.nth("it", "ready");
      writeFileSync(file, ill);
      expect(await unhealthy(1)).toBe("its check fails (it answers 503), 3 times in a row");
      writeFileSync(file, "SSH-2.0-no\r\n");
      expect(await unhealthy(2)).toContain('(it answers no HTTP/1: "SSH-2.0-no\\r\\n"), 3 times');
      writeFileSync(file, "");
      expect(await unhealthy(3)).toContain("(it answers nothing), 3 times");
      rmSync(file);
      expect(await unhealthy(4)).toBe("its check takes longer than 200 ms, 3 times in a row");
      writeFileSync(file, well);
      await orchestrator.events.nth("it", "ready", 5);
    });
  }

  test("IPv6, and an answer that comes in pieces", async () => {
    using folder = temporaryFolder();
    const port = freePort();
    const pieces = inPerl(`
      use Socket qw(:DEFAULT pack_sockaddr_in6 IN6ADDR_LOOPBACK);
      ${internetSix(port)}
      listen($socket, 100);
      while (accept(my $client, $socket)) {
        for my $piece ("HTT", "P/1.1 ", "20", "0 OK", "\\r\\n\\r\\n") {
          syswrite($client, $piece);
          select(undef, undef, undef, 0.01);
        }
        close $client;
      }`);
    const lines = `[process.it]\n@here\n${pieces}\nready = {http = "http://[::1]:${port}"}\n`;
    await using running = await begin(localPlace, folder, lines);
    await running.orchestrator.events.nth("it", "ready");
  });
});
