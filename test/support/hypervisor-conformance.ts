/** What every hypervisor does, whatever its program: one suite for all drivers. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { guestLetters, makeTestGuest } from "../../scripts/test-guest.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import {
  type HypervisorDriver,
  type HypervisorProgram,
  type MachineSpecification,
  type VmmConnection,
  VmmRefused,
  VmmUnreachable,
} from "../../src/hypervisor/driver.ts";
import { RawClient } from "./agent-client.ts";
import { testEventLoop } from "./event-loop.ts";
import { expectContinuous } from "./guest-numbers.ts";
import { type GuestConsole, TestVmm, type VmmStart } from "./hypervisor/test-vmm.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { rejectionOf, waitFor } from "./wait-for.ts";

/** A hypervisor to test. */
export interface HypervisorSubject {
  readonly driver: HypervisorDriver;
  /** The same, which waits a second or two for an answer and for a greeting. */
  readonly impatient: HypervisorDriver;
  readonly program: () => HypervisorProgram;
  /** @param guest the path of the test guest */
  readonly machine: (guest: string) => MachineSpecification;
  /** Whether the guest can switch such a machine off. */
  readonly switchesOff: boolean;
}

/** Turns of the guest's empty loop: some thousand lines in a second, translated. */
const GUEST_PAUSE = 100_000;

/** What each case has: an event loop, a folder, the guest's file. */
export class Bench implements AsyncDisposable {
  readonly loop: EventLoop = testEventLoop();
  readonly folder: TemporaryFolder = temporaryFolder();
  readonly guest: string;
  readonly #subject: HypervisorSubject;
  readonly #stack = new AsyncDisposableStack();
  #count = 0;

  constructor(subject: HypervisorSubject) {
    this.#subject = subject;
    this.guest = this.folder.file("guest.elf");
    writeFileSync(this.guest, makeTestGuest({ pause: GUEST_PAUSE }));
  }

  get machine(): MachineSpecification {
    return this.#subject.machine(this.guest);
  }

  /** A VMM in a folder of its own, gone at the end of the case. */
  start(changes: Partial<VmmStart> = {}): TestVmm {
    this.#count += 1;
    return this.#stack.use(
      new TestVmm({
        driver: this.#subject.driver,
        program: this.#subject.program(),
        machine: this.machine,
        folder: this.folder.file(String(this.#count)),
        ...changes,
      }),
    );
  }

  /** One whose guest runs, and has said its first number. */
  async run(changes: Partial<VmmStart> = {}) {
    const vmm = this.start(changes);
    const connection = await vmm.connect(this.loop);
    await connection.create();
    const serial = await this.listen(vmm, connection);
    await connection.boot();
    await serial.next();
    return { vmm, connection, serial };
  }

  /** The guest's serial port, which the VMM has taken notice of: else it would lose what comes. */
  async listen(vmm: TestVmm, connection: VmmConnection): Promise<GuestConsole> {
    const serial = this.#stack.use(await vmm.console());
    // Both wait in the same turn of its loop at first; after the second one it has seen both.
    for (let count = 0; count < 2; count += 1) await connection.guestState();
    return serial;
  }

  use<T extends Disposable | AsyncDisposable>(owned: T): T {
    return this.#stack.use(owned);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
    this.folder[Symbol.dispose]();
    this.loop[Symbol.dispose]();
  }
}

/** Defines the cases of a subject, in a suite of this name. */
export function hypervisorConformance(name: string, subject: HypervisorSubject): void {
  describe(name, () => {
    let bench: Bench;
    beforeEach(() => {
      bench = new Bench(subject);
    });
    afterEach(async () => {
      await bench[Symbol.asyncDispose]();
    });
    defineLife(() => bench);
    defineGuestEvents(() => bench, subject);
    defineTransfer(() => bench);
    defineWorkers(() => bench);
    defineFaults(() => bench, subject);
  });
}

function defineLife(bench: () => Bench): void {
  test("a machine is created, boots, pauses, resumes and quits", async () => {
    const vmm = bench().start();
    const connection = await vmm.connect(bench().loop);
    await connection.create();
    expect(await connection.guestState()).toBe("created");
    const serial = await bench().listen(vmm, connection);
    await connection.boot();
    await vmm.heard("booted");
    expect(await connection.guestState()).toBe("running");
    const first = await serial.next();
    expect(await serial.next()).toBeGreaterThan(first);

    await connection.pause();
    await vmm.heard("paused");
    expect(await connection.guestState()).toBe("paused");
    const still = serial.last;
    await connection.counters();
    expect(serial.last).toBe(still);

    await connection.resume();
    await vmm.heard("resumed");
    expect(await serial.next()).toBeGreaterThan(still);
    expectContinuous(serial.numbers);

    await connection.quit();
    expect(await vmm.ended()).toBe(0);
    expect(vmm.losses).toEqual([]);
  });

  test("a VMM tells its version, its counters, and the threads of its processors", async () => {
    const { vmm, connection } = await bench().run();
    expect(connection.version).toMatch(/^\d+\.\d+/);
    expect(await connection.counters()).toMatchObject({ disks: [] });
    const threads = await connection.processorThreads();
    expect(threads.length).toBeGreaterThan(0);
    for (const thread of threads) {
      expect(existsSync(`/proc/${vmm.processId}/task/${thread}`)).toBe(true);
    }
  });
}

const letter = (name: keyof typeof guestLetters) => new TextEncoder().encode(guestLetters[name]);

function defineGuestEvents(bench: () => Bench, subject: HypervisorSubject): void {
  test("a guest that resets is told, and starts anew", async () => {
    const { vmm, connection, serial } = await bench().run();
    await serial.sendBytes(letter("reset"));
    await vmm.heard("guest-reset", serial);
    await serial.next();
    expect(await connection.guestState()).toBe("running");
  });

  if (!subject.switchesOff) return;
  test("a guest that switches itself off is told, and stays so", async () => {
    const { vmm, connection, serial } = await bench().run();
    await serial.sendBytes(letter("off"));
    expect(await vmm.heard("guest-off", serial)).toEqual({ kind: "guest-off", by: "guest" });
    await waitFor("the machine to be off", async () => (await connection.guestState()) === "off");
    expect(vmm.events.map(({ kind }) => kind)).toEqual(["booted", "guest-off"]);
  });
}

function defineTransfer(bench: () => Bench): void {
  test("a machine goes on in another VMM, and no number is lost", async () => {
    const { vmm, connection, serial } = await bench().run();
    const state = await connection.captureState();
    expect(await connection.guestState()).toBe("paused");
    const last = serial.last;
    await connection.quit();
    await vmm.ended();

    const next = bench().start({ beginning: "incoming", memory: vmm.memory });
    const taken = await next.connect(bench().loop);
    expect(["incoming", "empty"]).toContain(await taken.guestState());
    expect(await rejectionOf(taken.resume())).toBeInstanceOf(VmmRefused);
    await taken.restoreState(state);
    expect(await taken.guestState()).toBe("paused");
    const nextSerial = await bench().listen(next, taken);
    await taken.resume();
    await next.heard("resumed");
    await nextSerial.next();
    const [first = 0] = nextSerial.numbers;
    // The line that was under way when it was captured may have been cut in two.
    expect(first - last).toBeGreaterThanOrEqual(1);
    expect(first - last).toBeLessThanOrEqual(2);
    expectContinuous(nextSerial.numbers);
  });
}

function defineWorkers(bench: () => Bench): void {
  test("a worker that follows a dead one finds the machine as it is", async () => {
    const { vmm, connection, serial } = await bench().run();
    const before = serial.last;
    connection[Symbol.dispose]();
    const second = await vmm.connect(bench().loop);
    expect(await second.guestState()).toBe("running");
    expect(await serial.next()).toBeGreaterThan(before);
    await second.pause();
    expect(await second.guestState()).toBe("paused");
    expect(vmm.losses).toEqual([]);
  });

  test("a worker that died in the middle of a word leaves nothing of it behind", async () => {
    const { vmm, connection } = await bench().run();
    connection[Symbol.dispose]();
    const dying = await RawClient.connect(vmm.files.control);
    await dying.sendBytes(new TextEncoder().encode('{"execute":"qmp_cap'));
    dying[Symbol.dispose]();
    const next = await vmm.connect(bench().loop);
    expect(await next.guestState()).toBe("running");
  });
}

function defineFaults(bench: () => Bench, subject: HypervisorSubject): void {
  test("a VMM that hangs is told by each call, and serves when it goes on", async () => {
    const { vmm, connection } = await bench().run();
    connection[Symbol.dispose]();
    const impatient = await vmm.connect(bench().loop, subject.impatient);
    vmm.kill("SIGSTOP");
    expect(await rejectionOf(impatient.guestState())).toBeInstanceOf(VmmUnreachable);
    expect(await rejectionOf(impatient.counters())).toBeInstanceOf(VmmUnreachable);
    vmm.kill("SIGCONT");
    await waitFor("the VMM to serve", async () => (await impatient.guestState()) === "running");
  });

  test("a VMM that hangs is not connected to", async () => {
    const { vmm, connection } = await bench().run();
    connection[Symbol.dispose]();
    vmm.kill("SIGSTOP");
    const error = await rejectionOf(vmm.connect(bench().loop, subject.impatient));
    expect(error).toBeInstanceOf(VmmUnreachable);
    vmm.kill("SIGCONT");
    const connected = await vmm.connect(bench().loop);
    expect(await connected.guestState()).toBe("running");
  });

  test("who speaks nonsense in its place is none", async () => {
    const path = bench().folder.file("control");
    using _liar = Bun.listen({
      unix: path,
      socket: {
        open: (socket) => void socket.write("\u0000\u00ff nonsense\r\n\r\n".repeat(100)),
        data: () => {},
      },
    });
    const files = { control: path, console: path, agent: path, events: path };
    const connecting = subject.impatient.connect(files, {
      loop: bench().loop,
      machine: bench().machine,
      signal: new AbortController().signal,
      onEvent: () => {},
      onLost: () => {},
    });
    expect(await rejectionOf(connecting)).toBeInstanceOf(VmmUnreachable);
  });

  test("a VMM that is killed is lost", async () => {
    const { vmm, connection } = await bench().run();
    vmm.kill("SIGKILL");
    await vmm.ended();
    await waitFor("the loss", () => vmm.losses.length > 0);
    expect(await rejectionOf(connection.guestState())).toBeInstanceOf(VmmUnreachable);
  });
}
