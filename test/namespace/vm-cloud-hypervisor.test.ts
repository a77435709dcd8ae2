/**
 * The driver of cloud-hypervisor against a process: the real one where CLOUD_HYPERVISOR names it,
 * else the fake (test/support/fake-cloud-hypervisor.ts), which alone can be told to misbehave.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { guestLetters } from "../../scripts/test-guest.ts";
import {
  cloudHypervisorDriver,
  makeCloudHypervisorDriver,
} from "../../src/hypervisor/cloud-hypervisor/driver.ts";
import { VmmRefused, VmmUnreachable } from "../../src/hypervisor/driver.ts";
import {
  countIn,
  isThere,
  nextCount,
  realCloudHypervisor,
  startMachine,
  startVmm,
  typeLetter,
  vmmPlace,
} from "../support/cloud-hypervisor.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { fakeCloudHypervisor } from "../support/fake-cloud-hypervisor.ts";
import { testMachine } from "../support/hypervisor/machines.ts";
import { hypervisorConformance } from "../support/hypervisor-conformance.ts";
import { feature, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

const programs = temporaryFolder();
afterAll(() => programs[Symbol.dispose]());

const program = {
  hypervisor: "cloud-hypervisor",
  path: realCloudHypervisor ?? fakeCloudHypervisor(programs),
  version: "53.0",
} as const;

hypervisorConformance("what every hypervisor does", {
  driver: cloudHypervisorDriver,
  impatient: makeCloudHypervisorDriver({ limits: { answerTime: 300, connectTime: 300 } }),
  program: () => program,
  machine: (guest) =>
    testMachine({
      accelerator: "kvm",
      machineType: undefined,
      processorModel: undefined,
      boot: { kind: "kernel", kernel: guest, initramfs: undefined, commandLine: "" },
    }),
  switchesOff: true,
});

const diskOf = (path: string) => ({
  id: "root",
  path,
  format: "raw" as const,
  readOnly: true,
  backing: undefined,
});

describe("a machine's life", () => {
  test("created, running, paused, running, ended", async () => {
    using place = vmmPlace(loop);
    const disks = [diskOf(place.kernel)];
    await using vmm = startVmm(place, { name: "first", machine: { disks, processors: 2 } });
    using connection = await vmm.connect();
    expect(connection.version).toMatch(/^\d+\./);
    expect(await connection.guestState()).toBe("empty");
    await connection.create();
    expect(await connection.guestState()).toBe("created");
    await connection.boot();
    expect(await connection.guestState()).toBe("running");
    const first = await nextCount(vmm.files);
    await connection.pause();
    expect(await connection.guestState()).toBe("paused");
    await connection.resume();
    expect(await nextCount(vmm.files)).toBeGreaterThan(first);
    const [counted] = (await connection.counters()).disks;
    expect(counted?.id).toBe("root");
    const threads = await connection.processorThreads();
    const names = threads.map((thread) =>
      readFileSync(`/proc/${vmm.program.processId}/task/${thread}/comm`, "utf8").trim(),
    );
    expect(names).toEqual(["vcpu0", "vcpu1"]);
    await connection.quit();
    await vmm.program.ended();
    expect(vmm.lost).toEqual([]);
    expect(vmm.events.map(({ kind }) => kind)).toEqual([
      "booted",
      "paused",
      "resumed",
      "guest-off",
    ]);
    expect(vmm.events.at(-1)).toEqual({ kind: "guest-off", by: "host" });
    // It is over: asking once more for what has happened is no failure.
    await connection.quit();
    expect(await rejectionOf(connection.guestState())).toBeInstanceOf(VmmUnreachable);
  });

  test("what the guest does by itself is told", async () => {
    using place = vmmPlace(loop);
    const { vmm, connection } = await startMachine(place, { name: "first" });
    await using _vmm = vmm;
    using _connection = connection;
    await typeLetter(vmm.files, guestLetters.reset);
    await vmm.heard("guest-reset");
    expect(await nextCount(vmm.files)).toBeGreaterThan(0);
    await typeLetter(vmm.files, guestLetters.off);
    expect(await vmm.heard("guest-off")).toEqual({ kind: "guest-off", by: "guest" });
    expect(await connection.guestState()).toBe("off");
    connection[Symbol.dispose]();
    using later = await vmm.connect();
    expect(await later.guestState()).toBe("off");
    await later.boot();
    expect(await later.guestState()).toBe("running");
  });

  test("a later worker finds it as it is, and hears what happens from then on", async () => {
    using place = vmmPlace(loop);
    const { vmm, connection } = await startMachine(place, { name: "first" });
    await using _vmm = vmm;
    connection[Symbol.dispose]();
    const before = vmm.events.length;
    using later = await vmm.connect();
    expect(await later.guestState()).toBe("running");
    await later.pause();
    await vmm.heard("paused");
    expect(vmm.events.length).toBeGreaterThan(before);
    expect(vmm.lost).toEqual([]);
  });

  test("what it refuses is told in its own words", async () => {
    using place = vmmPlace(loop);
    const kernel = `${place.kernel}.missing`;
    const boot = { kind: "kernel", kernel, initramfs: undefined, commandLine: "" } as const;
    await using vmm = startVmm(place, { name: "first", machine: { boot } });
    using connection = await vmm.connect();
    const refusals = [
      [() => connection.boot(), "VM config is missing"],
      [() => connection.pause(), "VM is not running"],
      [() => connection.create(), undefined],
      [() => connection.create(), "VM is already created"],
      [() => connection.boot(), "kernel"],
    ] as const;
    for (const [ask, words] of refusals) {
      if (words === undefined) {
        await ask();
        continue;
      }
      const refusal = await rejectionOf(ask());
      expect(refusal).toBeInstanceOf(VmmRefused);
      expect(refusal.message).toContain(words);
    }
  });
});

describe("a machine that moves", () => {
  test("to another VMM, with its memory: the counter goes on", async () => {
    using place = vmmPlace(loop);
    const { vmm, connection } = await startMachine(place, { name: "first" });
    await using _vmm = vmm;
    await nextCount(vmm.files);
    const captured = await connection.captureState();
    expect(await connection.guestState()).toBe("paused");
    await connection.quit();
    await vmm.program.ended();
    expect(vmm.lost).toEqual([]);
    const count = countIn(captured);
    expect(count).toBeGreaterThan(0);
    expect(vmm.events.map(({ kind }) => kind)).not.toContain("guest-off");
    await using other = startVmm(place, { name: "other", beginning: "incoming" });
    using connected = await other.connect();
    await connected.restoreState(captured);
    expect(await connected.guestState()).toBe("paused");
    expect(countIn(captured)).toBe(count);
    await connected.resume();
    expect(await nextCount(other.files)).toBeGreaterThan(count);
    for (const descriptor of captured.memory ?? []) descriptor.close();
    await nextCount(other.files);
    expect(isThere(`${other.files.control}.move`)).toBe(false);
    await connected.quit();
  });

  test("it stays with its VMM until that is told to end: another one may have failed", async () => {
    using place = vmmPlace(loop);
    const { vmm, connection } = await startMachine(place, { name: "first" });
    await using _vmm = vmm;
    for (const ends of ["resume", "dispose"] as const) {
      using first = await vmm.connect();
      const captured = await first.captureState();
      const count = countIn(captured);
      const twice = await rejectionOf(first.captureState());
      expect(twice.message).toContain("captured already");
      if (ends === "dispose") first[Symbol.dispose]();
      using second = ends === "resume" ? first : await vmm.connect();
      await waitFor("the machine to run", async () => {
        await second.resume();
        return true;
      });
      expect(await nextCount(vmm.files)).toBeGreaterThan(count);
      for (const descriptor of captured.memory ?? []) descriptor.close();
    }
    connection[Symbol.dispose]();
  });

  test("a state that is none of ours, and a machine with other devices, are refused", async () => {
    using place = vmmPlace(loop);
    const machine = { disks: [diskOf(place.kernel)] };
    const { vmm, connection } = await startMachine(place, { name: "first", machine });
    await using _vmm = vmm;
    using _connection = connection;
    const captured = await connection.captureState();
    await using other = startVmm(place, { name: "other", beginning: "incoming" });
    using connected = await other.connect();
    const asked = [
      [{ ...captured, hypervisor: "qemu" }, "not qemu"],
      [{ ...captured, bytes: new Uint8Array(9) }, "received other bytes"],
      [{ ...captured, memory: [] }, "pieces of memory"],
      [captured, 'which lacks "root"'],
    ] as const;
    for (const [state, words] of asked) {
      const refusal = await rejectionOf(connected.restoreState(state));
      expect(refusal).toBeInstanceOf(VmmRefused);
      expect(refusal.message).toContain(words);
    }
    // Nothing of it has reached the VMM.
    await connected.create();
    for (const descriptor of captured.memory ?? []) descriptor.close();
  });
});

const fake = feature(
  "CLOUD_HYPERVISOR names the real one",
  () => realCloudHypervisor === undefined,
);

skipUnless("a VMM that misbehaves (the fake)", fake, () => {
  const brief = { limits: { answerTime: 2_000, stateTime: 2_500, connectTime: 5_000 } };

  test("a call that hangs, breaks off, lies or is nonsense ends with what happened", async () => {
    using place = vmmPlace(loop);
    const expected = {
      hang: "within 2.00 s: it hangs",
      late: "within 2.00 s: it hangs",
      close: "closed the connection",
      garbage: "did not answer vm.info",
      half: "did not answer vm.info",
      flood: "at most 4 MiB",
      odd: "what is no answer",
      lie: "what is no answer",
      refuse: "It was told to refuse",
      crash: "closed the connection",
    } as const;
    for (const [how, words] of Object.entries(expected)) {
      const orders = { at: "vm.info", how: how as keyof typeof expected };
      // What comes is waited for as ever, however long a busy machine takes to send it.
      const driver = words.startsWith("within") ? { driver: brief } : {};
      await using vmm = startVmm(place, { name: how, orders, ...driver });
      using connection = await vmm.connect();
      const failure = await rejectionOf(connection.guestState());
      expect(failure).toBeInstanceOf(how === "refuse" ? VmmRefused : VmmUnreachable);
      expect(failure.message).toContain(words);
      // One call is not the next one.
      if (how !== "crash") expect(await connection.guestState()).toBe("empty");
    }
  });

  // The test guest knows no pvpanic of PCI, which is the real one's.
  test("a guest that panicked is known as such, and its memory can be had", async () => {
    using place = vmmPlace(loop);
    const { vmm, connection } = await startMachine(place, { name: "first" });
    await using _vmm = vmm;
    using _connection = connection;
    await typeLetter(vmm.files, guestLetters.panic);
    await vmm.heard("guest-panic");
    expect(await connection.guestState()).toBe("panicked");
    const captured = await connection.captureState();
    expect(countIn(captured)).toBeGreaterThan(0);
    for (const descriptor of captured.memory ?? []) descriptor.close();
  });

  test("one whose TAP is not there does not boot", async () => {
    using place = vmmPlace(loop);
    const tap = { id: "net0", tap: "no-such-tap", macAddress: "52:54:00:00:00:01" };
    await using vmm = startVmm(place, { name: "first", machine: { networks: [tap] } });
    using connection = await vmm.connect();
    await connection.create();
    const refusal = await rejectionOf(connection.boot());
    expect(refusal.message).toContain("Unable to configure tap interface");
    expect(await connection.guestState()).toBe("created");
  });

  test("no more calls wait for it than it takes connections", async () => {
    using place = vmmPlace(loop);
    await using vmm = startVmm(place, { name: "first", driver: brief });
    using connection = await vmm.connect();
    vmm.program.kill("SIGSTOP");
    const calls = Array.from({ length: 9 }, () => rejectionOf(connection.guestState()));
    const failures = await Promise.all(calls);
    vmm.program.kill("SIGCONT");
    expect(failures[7]?.message).toContain("it hangs");
    expect(failures[8]?.message).toContain("8 calls are not answered: vm.info was not sent");
    expect(await connection.guestState()).toBe("empty");
  });

  test("one that says that it booted, and did not, is found out by its state", async () => {
    using place = vmmPlace(loop);
    await using vmm = startVmm(place, { name: "first", orders: { at: "vm.boot", how: "lie" } });
    using connection = await vmm.connect();
    await connection.create();
    await connection.boot();
    expect(await connection.guestState()).toBe("created");
    expect(vmm.events).toEqual([]);
  });

  const crashes = ["vm.create", "vm.boot", "vm.pause", "vm.send-migration", "move/state"] as const;

  test.each(crashes)("one that crashes at %s is lost, once", async (at) => {
    using place = vmmPlace(loop);
    await using vmm = startVmm(place, { name: "first", orders: { at, how: "crash" } });
    using connection = await vmm.connect();
    const life = async () => {
      await connection.create();
      await connection.boot();
      await connection.captureState();
    };
    expect(await rejectionOf(life())).toBeInstanceOf(VmmUnreachable);
    await vmm.program.ended();
    await waitFor("the loss", () => vmm.lost.length > 0);
    expect(vmm.lost).toHaveLength(1);
  });

  test("one that crashes when its machine is here leaves it whole", async () => {
    using place = vmmPlace(loop);
    const { vmm, connection } = await startMachine(place, { name: "first" });
    await using _vmm = vmm;
    const captured = await connection.captureState();
    vmm.program.kill("SIGKILL");
    await vmm.program.ended();
    await waitFor("the loss", () => vmm.lost.length > 0);
    await connection.quit();
    await using other = startVmm(place, { name: "other", beginning: "incoming" });
    using connected = await other.connect();
    await connected.restoreState(captured);
    await connected.resume();
    expect(await nextCount(other.files)).toBeGreaterThan(0);
    for (const descriptor of captured.memory ?? []) descriptor.close();
  });

  test("half an event is told as trouble, and the next ones are heard", async () => {
    using place = vmmPlace(loop);
    const { vmm, connection } = await startMachine(place, { name: "first" });
    await using _vmm = vmm;
    using _connection = connection;
    await fetch("http://localhost/fake/cut-event", { method: "PUT", unix: vmm.files.control });
    await connection.pause();
    await connection.resume();
    await vmm.heard("resumed");
    expect(vmm.troubles.length).toBeGreaterThan(0);
    expect(vmm.troubles[0]).toStartWith("events of first: expected");
  });

  const steps = ["start", "memory", "config", "state", "complete-paused"] as const;

  test.each(steps)("a capture that fails at %s leaves the machine with its VMM", async (step) => {
    using place = vmmPlace(loop);
    const ways =
      step === "memory" ? (["odd", "lie", "flood"] as const) : (["odd", "hang"] as const);
    for (const how of ways) {
      const orders = { at: `move/${step}`, how };
      const name = `${step}-${how}`;
      const { vmm, connection } = await startMachine(place, { name, orders, driver: brief });
      await using _vmm = vmm;
      using _connection = connection;
      await connection.pause();
      const failure = await rejectionOf(connection.captureState());
      expect(failure.message).toMatch(/^The (VMM|machine)/);
      if (how === "hang") continue;
      await connection.resume();
      const count = await nextCount(vmm.files);
      // And it can be asked again.
      await connection.pause();
      const captured = await connection.captureState();
      expect(countIn(captured)).toBeGreaterThanOrEqual(count);
      for (const descriptor of captured.memory ?? []) descriptor.close();
    }
  });

  test("a restoration that fails at any step is told, and the state is still whole", async () => {
    using place = vmmPlace(loop);
    const { vmm, connection } = await startMachine(place, { name: "first" });
    await using _vmm = vmm;
    const captured = await connection.captureState();
    const count = countIn(captured);
    const ways = { memory: "refuse", config: "odd", state: "close", "complete-paused": "hang" };
    for (const [step, how] of Object.entries(ways)) {
      const orders = { at: `move/${step}`, how: how as "refuse" };
      const options = { name: `to-${step}`, orders, driver: brief };
      await using other = startVmm(place, { ...options, beginning: "incoming" });
      using connected = await other.connect();
      const failure = await rejectionOf(connected.restoreState(captured));
      expect(failure.message).toContain(step === "memory" ? "memory-descriptor" : step);
    }
    await using last = startVmm(place, { name: "last", beginning: "incoming" });
    using connected = await last.connect();
    await connected.restoreState(captured);
    expect(countIn(captured)).toBe(count);
    for (const descriptor of captured.memory ?? []) descriptor.close();
  });

  test("one that ends while it is connected to is told as such", async () => {
    using place = vmmPlace(loop);
    const orders = { at: "vmm.ping", how: "crash" } as const;
    await using vmm = startVmm(place, { name: "first", orders });
    expect(await rejectionOf(vmm.connect())).toBeInstanceOf(VmmUnreachable);
  });
});
