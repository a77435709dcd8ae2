/**
 * Debian's cloud kernel in QEMU with the agent in it, at a virtio-serial port: what only a real
 * guest shows of agent, console and health. The guest's network is QEMU's own, without a way out.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createServer } from "node:net";
import { makeSocketPair } from "../../ffi/unix-socket.ts";
import {
  GUEST_COMMAND_LINE,
  makeVmGuest,
  READY_LINE,
  type VmGuest,
} from "../../scripts/vm-guest.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import {
  AgentUnreachable,
  GuestAgentClient,
  type GuestCommand,
} from "../../src/vm/guest-agent/client.ts";
import { PORT_NAME } from "../../src/vm/guest-agent/protocol.ts";
import type { HealthCheck, ProbeOutcome } from "../../src/vm/health.ts";
import { ConsoleKeeper } from "../../src/vm/perform/console.ts";
import { attachConsole, type ConsoleTerminal } from "../../src/vm/perform/console-terminal.ts";
import { probeHealth } from "../../src/vm/perform/health-probes.ts";
import { hostler } from "../support/binary.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { guestFeatures } from "../support/machine.ts";
import { type Program, startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor, withDeadline } from "../support/wait-for.ts";

/** Generous: a processor is emulated, on a machine that may have much else to do. */
const bootMilliseconds = 4 * 60_000;
const caseMilliseconds = 60_000;

let folder: TemporaryFolder;
let loop: EventLoop;
let guest: VmGuest;
let machine: Program;
let client: GuestAgentClient;
let keeper: ConsoleKeeper;
let lines: string[] = [];
let httpPort = 0;

const usual: Omit<GuestCommand, "argv"> = {
  ...{ timeLimit: 30_000, outputLimit: 100_000, streams: "together", outlives: false },
};

async function run(script: string): Promise<string> {
  let said = "";
  const running = client.exec(
    { ...usual, argv: ["sh", "-c", script] },
    {
      onOutput: (_stream, bytes) => {
        said += String(Buffer.from(bytes));
      },
    },
  );
  const { ending } = await running.ended;
  expect(ending).toEqual({ kind: "exited", status: 0 });
  return said;
}

const makeKeeper = () =>
  new ConsoleKeeper(loop, {
    socketPath: folder.file("console"),
    scrollbackPath: folder.file("scrollback"),
    handlers: {
      onLine: (line) => lines.push(line),
      onUnreachable: () => {},
      onUnkept: () => {},
    },
  });

const hasSaid = (text: string) => lines.some((line) => line.includes(text));

const scrollback = () => Buffer.from(keeper.read()).toString("latin1");

/** A port of this host that nobody has now. */
async function freePort(): Promise<number> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("There is no free port.");
  return address.port;
}

function socketWords(id: string): string[] {
  return ["-chardev", `socket,id=${id},path=${folder.file(id)},server=on,wait=off`];
}

function words(): string[] {
  return [
    ...["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35"],
    ...["-m", "768", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none"],
    ...["-monitor", "none", "-no-reboot", "-kernel", guest.kernel, "-initrd", guest.initramfs],
    ...["-append", `${GUEST_COMMAND_LINE} rdinit=/init`],
    ...[...socketWords("console"), "-serial", "chardev:console"],
    ...[...socketWords("agent"), "-device", "virtio-serial-pci"],
    ...["-device", `virtserialport,chardev=agent,name=${PORT_NAME}`],
    ...["-netdev", `user,id=card,restrict=on,hostfwd=tcp:127.0.0.1:${httpPort}-:80`],
    ...["-device", "virtio-net-pci,netdev=card"],
  ];
}

function probe(check: HealthCheck): Promise<ProbeOutcome> {
  const { promise, resolve } = Promise.withResolvers<ProbeOutcome>();
  const target = {
    address: "127.0.0.1",
    pingAgent: () => client.ping(),
    hasSaid,
  };
  probeHealth(loop, check, { target, timeout: 20_000, onOutcome: resolve });
  return withDeadline("the outcome of a probe", promise, caseMilliseconds);
}

class FakeTerminal implements ConsoleTerminal {
  shown = "";
  #take: ((bytes: Uint8Array) => void) | undefined;
  setRaw(): void {}
  onTyped(take: (bytes: Uint8Array) => void): Disposable {
    this.#take = take;
    return { [Symbol.dispose]: () => {} };
  }
  write(bytes: Uint8Array): void {
    this.shown += Buffer.from(bytes).toString("latin1");
  }
  type(text: string): void {
    this.#take?.(Buffer.from(text, "latin1"));
  }
}

onlyInAll(() => {
  skipUnless("a Linux guest", guestFeatures, () => {
    beforeAll(async () => {
      folder = temporaryFolder();
      loop = testEventLoop();
      guest = await makeVmGuest({ folder: folder.path, program: hostler() });
      httpPort = await freePort();
      machine = startProgram(words());
      keeper = makeKeeper();
      client = new GuestAgentClient(loop, { path: folder.file("agent") }, { answer: 30_000 });
      const begin = performance.now();
      await waitFor("the guest", () => hasSaid(READY_LINE), bootMilliseconds);
      console.log(`HOSTLER-NOTE ready after ${Math.round(performance.now() - begin)} ms`);
    }, bootMilliseconds + 120_000);

    afterAll(async () => {
      client?.close();
      keeper?.[Symbol.dispose]();
      await machine?.[Symbol.asyncDispose]();
      loop?.[Symbol.dispose]();
      folder?.[Symbol.dispose]();
    });

    test(
      "has an address by DHCP, and says so",
      () => expect(scrollback()).toMatch(/ready kernel \S+ address 10\.0\.2\.15\/24/),
      caseMilliseconds,
    );

    test(
      "its agent answers at the virtio-serial port",
      async () => {
        const took: number[] = [];
        for (let count = 0; count < 50; count++) took.push(await client.ping());
        const sorted = took.toSorted((one, other) => one - other);
        console.log(`HOSTLER-NOTE a ping takes ${sorted[25]?.toFixed(2)} ms (median of 50)`);
        const information = await client.info();
        expect(information).toMatchObject({ kernel: guest.release, host_name: "guest" });
        const { total } = await client.memory();
        expect(total).toBeGreaterThan(400 * 2 ** 20);
        expect(total).toBeLessThan(768 * 2 ** 20);
        expect(await run("uname -r; echo err >&2")).toBe(`${guest.release}\nerr\n`);
      },
      caseMilliseconds,
    );

    test(
      "much output comes whole through the port",
      async () => {
        const bytes = 4 * 2 ** 20;
        let received = 0;
        const argv = ["head", "-c", `${bytes}`, "/dev/zero"];
        const begin = performance.now();
        const running = client.exec(
          { ...usual, argv, outputLimit: bytes },
          {
            onOutput: (_stream, piece) => {
              received += piece.length;
            },
          },
        );
        expect((await running.ended).leftOut).toBe(0);
        expect(received).toBe(bytes);
        const seconds = (performance.now() - begin) / 1_000;
        console.log(`HOSTLER-NOTE output: ${(4 / seconds).toFixed(1)} MiB/s`);
      },
      caseMilliseconds,
    );

    test(
      "an asker that goes takes along what it began, and the next is answered",
      async () => {
        const started = Promise.withResolvers<number>();
        const running = client.exec(
          { ...usual, argv: ["sleep", "12345"] },
          { onStarted: started.resolve, onOutput: () => {} },
        );
        const processId = await started.promise;
        const ended = rejectionOf(running.ended);
        client.close();
        expect(await ended).toBeInstanceOf(AgentUnreachable);
        await waitFor(
          "the end of the program",
          async () => (await run(`test -d /proc/${processId} || echo gone`)) === "gone\n",
          caseMilliseconds,
        );
      },
      caseMilliseconds,
    );

    test(
      "a shell on its console is typed to, and left",
      async () => {
        const [ours, theirs] = makeSocketPair();
        keeper.attach(theirs, { writes: true, takes: false, scrollback: true });
        const terminal = new FakeTerminal();
        const over = attachConsole(loop, ours, terminal);
        await waitFor("what was said before", () => terminal.shown.includes(READY_LINE));
        terminal.type("echo $((6 * 7))-answer\r");
        await waitFor("the answer", () => terminal.shown.includes("42-answer"), caseMilliseconds);
        terminal.type("\u001d");
        expect(await over).toEqual({ kind: "detached" });
        expect(scrollback()).toContain("42-answer");
      },
      caseMilliseconds,
    );

    test(
      "what it says while nobody keeps its console is lost, and what was kept is there",
      async () => {
        keeper[Symbol.dispose]();
        await run("echo said-to-nobody > /dev/console");
        keeper = makeKeeper();
        lines = [];
        await waitFor("the keeper", () => keeper.isConnected);
        await waitFor(
          "the line",
          async () => {
            await run("echo said-to-us > /dev/console");
            return hasSaid("said-to-us");
          },
          caseMilliseconds,
        );
        expect(scrollback()).toContain(READY_LINE);
        expect(scrollback()).not.toContain("said-to-nobody");
      },
      caseMilliseconds,
    );

    test(
      "its health is told by port, page, agent and console",
      async () => {
        const http = (body: string): HealthCheck => ({
          ...{ kind: "http", port: httpPort, path: "/", body },
          status: { least: 200, most: 200 },
        });
        await run("mkdir -p /tmp/www && echo all is well > /tmp/www/index.html");
        const server = client.exec(
          { ...usual, argv: ["busybox", "httpd", "-f", "-p", "80", "-h", "/tmp/www"] },
          { onOutput: () => {} },
        );
        await waitFor(
          "the page",
          async () => (await probe(http("all*well"))).kind === "passed",
          caseMilliseconds,
        );
        expect(await probe(http("ill"))).toMatchObject({ kind: "failed" });
        expect(await probe({ kind: "tcp", port: httpPort })).toEqual({ kind: "passed" });
        expect(await probe({ kind: "agent" })).toEqual({ kind: "passed" });
        expect(await probe({ kind: "serial", pattern: "said-to-us" })).toEqual({ kind: "passed" });
        server.end();
        await server.ended;
        expect(await probe(http("all*well"))).toMatchObject({ kind: "failed" });
      },
      2 * caseMilliseconds,
    );

    test(
      "is asked again after its agent was killed and another was started",
      async () => {
        // It outlives its asker, or it would be killed with its group before it has left it.
        const argv = ["sh", "-c", "sleep 1; exec hostler vm guest-agent >/run/again.log 2>&1"];
        const next = client.exec({ ...usual, argv, outlives: true }, { onOutput: () => {} });
        next.ended.catch(() => {});
        const killing = client.exec(
          { ...usual, argv: ["sh", "-c", "kill -KILL $PPID"], timeLimit: 1_000 },
          { onOutput: () => {} },
        );
        expect(await rejectionOf(killing.ended)).toBeInstanceOf(AgentUnreachable);
        await waitFor("the other agent", async () => (await client.ping()) > 0, caseMilliseconds);
      },
      2 * caseMilliseconds,
    );

    test(
      "shuts itself down when it is told to",
      async () => {
        const answer = client.shutdown("power-off").catch((error: unknown) => error);
        expect(await machine.ended(caseMilliseconds)).toMatchObject({ exitCode: 0 });
        await answer;
      },
      2 * caseMilliseconds,
    );
  });
});
