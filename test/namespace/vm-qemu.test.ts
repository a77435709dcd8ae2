/** QEMU itself, with a translated processor: what every hypervisor does, and what is its own. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { guestLetters } from "../../scripts/test-guest.ts";
import { chooseHypervisor, noWish } from "../../src/hypervisor/choose.ts";
import { type HypervisorProgram, VmmUnreachable } from "../../src/hypervisor/driver.ts";
import { observeHypervisors } from "../../src/hypervisor/observe.ts";
import { makeQemuDriver, qemuDriver } from "../../src/hypervisor/qemu/driver.ts";
import { qmpLimits } from "../../src/hypervisor/qemu/qmp.ts";
import { RawClient } from "../support/agent-client.ts";
import { expectContinuous } from "../support/guest-numbers.ts";
import { testMachine } from "../support/hypervisor/machines.ts";
import { emptyQcow2 } from "../support/hypervisor/qcow2.ts";
import {
  Bench,
  type HypervisorSubject,
  hypervisorConformance,
} from "../support/hypervisor-conformance.ts";
import { makeNetworks } from "../support/networks.ts";
import { runProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { file, program, root, skipUnless } from "../support/skips.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

const firmware = "/usr/share/OVMF";
const observed = await observeHypervisors({
  programs: { cloudHypervisor: undefined, qemu: undefined },
});
const wish = { ...noWish, hypervisor: "qemu", accelerator: "tcg" } as const;
const choice = chooseHypervisor(observed, wish);

function chosen() {
  if (choice.kind === "refused") throw new Error(choice.reason);
  return choice;
}

const subjectOf = (machineType?: string): HypervisorSubject => ({
  driver: qemuDriver,
  impatient: makeQemuDriver({
    ...qmpLimits,
    answerTime: 1_000,
    diskTime: 1_000,
    connectTime: 2_000,
  }),
  program: (): HypervisorProgram => chosen().program,
  machine: (guest) =>
    testMachine({
      machineType: machineType ?? chosen().machineType,
      processorModel: chosen().processorModel,
      boot: { kind: "kernel", kernel: guest, initramfs: undefined, commandLine: "" },
    }),
  switchesOff: machineType !== "microvm",
});

skipUnless("QEMU", [root, program("qemu-system-x86_64", "qemu-system-x86")], () => {
  hypervisorConformance("q35", subjectOf());
  hypervisorConformance("microvm", subjectOf("microvm"));

  describe("of its own", () => {
    let bench: Bench;
    beforeEach(() => {
      bench = new Bench(subjectOf());
    });
    afterEach(async () => {
      await bench[Symbol.asyncDispose]();
    });

    test("the newest machine type of this program is chosen, and said loudly to be slow", () => {
      expect(chosen().machineType).toMatch(/^pc-q35-\d+\.\d+$/);
      expect(chosen().processorModel).toBe("Nehalem-v1");
      expect(chosen().warning).toContain("WITHOUT KVM");
    });

    test("it runs in its sandbox, and has no descriptor of ours but the memory", async () => {
      const { vmm } = await bench.run();
      const status = readFileSync(`/proc/${vmm.processId}/status`, "utf8");
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
      expect(status).toMatch(/^Seccomp:\s+2$/m);
    });

    test("a machine that was captured can be taken back", async () => {
      const { vmm, connection, serial } = await bench.run();
      await connection.captureState();
      const last = serial.last;
      await connection.resume();
      expect(await serial.next()).toBeGreaterThan(last);
      expectContinuous(serial.numbers);
      expect(await connection.guestState()).toBe("running");
      expect(vmm.counter).toBeGreaterThan(last);
    });

    test("a guest whose listener was behind goes on where nobody listens", async () => {
      const { vmm, connection } = await bench.run();
      // It waits for a port whose listener reads nothing.
      let seen: readonly number[] = [];
      await waitFor("a guest that waits", () => {
        seen = [vmm.counter, ...seen].slice(0, 20);
        return seen.length === 20 && seen.every((count) => count === vmm.counter);
      });
      const state = await connection.captureState();
      const last = vmm.counter;
      await connection.quit();
      await vmm.ended();
      const next = bench.start({ beginning: "incoming", memory: vmm.memory });
      const taken = await next.connect(bench.loop);
      await taken.restoreState(state);
      await taken.resume();
      await waitFor("the guest to go on", () => next.counter > last);
    });

    test("a guest that panics is told, and its memory can be looked at", async () => {
      const { vmm, connection, serial } = await bench.run();
      await serial.sendBytes(new TextEncoder().encode(guestLetters.panic));
      await vmm.heard("guest-panic", serial);
      await waitFor("the panic", async () => (await connection.guestState()) === "panicked");
      expect(vmm.counter).toBeGreaterThan(0);
      expect(vmm.events.map(({ kind }) => kind)).toEqual(["booted", "guest-panic"]);
    });

    test("a state that is none ends it, and its output says why", async () => {
      const vmm = bench.start({ beginning: "incoming" });
      const connection = await vmm.connect(bench.loop);
      const bytes = new TextEncoder().encode("no state of a machine at all");
      const error = await rejectionOf(
        connection.restoreState({ hypervisor: "qemu", version: "7.2.22", bytes }),
      );
      expect(error).toBeInstanceOf(VmmUnreachable);
      await vmm.ended();
      expect(vmm.output).toContain("migration");
    });
  });

  describe("disks", () => {
    let bench: Bench;
    beforeEach(() => {
      bench = new Bench(subjectOf());
      writeFileSync(bench.folder.file("base.img"), new Uint8Array(1024 ** 2));
      writeFileSync(
        bench.folder.file("root.qcow2"),
        // Nobody may follow this.
        emptyQcow2(1024 ** 2, { backing: "/etc/shadow" }),
      );
      writeFileSync(bench.folder.file("data.img"), new Uint8Array(1024 ** 2));
    });
    afterEach(async () => {
      await bench[Symbol.asyncDispose]();
    });

    const withDisks = () => ({
      ...bench.machine,
      disks: [
        {
          id: "root",
          path: bench.folder.file("root.qcow2"),
          format: "qcow2",
          readOnly: false,
          backing: { path: bench.folder.file("base.img"), format: "raw" },
        },
        { ...disk("data"), readOnly: false },
        { ...disk("base"), readOnly: true },
      ] as const,
    });
    const disk = (id: string) =>
      ({ id, path: bench.folder.file(`${id}.img`), format: "raw", backing: undefined }) as const;

    test("are counted by their names, and locked against another machine", async () => {
      const { connection } = await bench.run({ machine: withDisks() });
      const { disks } = await connection.counters();
      expect(disks.map(({ id }) => id)).toEqual(["root", "data", "base"]);
      const second = bench.start({ machine: withDisks() });
      expect(await second.ended()).toBe(1);
      expect(second.output).toMatch(/Failed to get .*lock/);
    });

    test("are read by several machines where nobody writes", async () => {
      const machine = { ...bench.machine, disks: [{ ...disk("base"), readOnly: true }] };
      await bench.run({ machine });
      await bench.run({ machine });
    });

    test("follow no name in a file", async () => {
      const [first] = withDisks().disks;
      const machine = { ...bench.machine, disks: [{ ...first, backing: undefined }] };
      const { vmm } = await bench.run({ machine });
      const links = await runProgram(["ls", "-l", `/proc/${vmm.processId}/fd`]);
      expect(links.stdout).toContain("root.qcow2");
      expect(links.stdout).not.toContain("shadow");
    });

    test("go to the next VMM while the captured one still lives", async () => {
      const { vmm, connection, serial } = await bench.run({ machine: withDisks() });
      const state = await connection.captureState();
      const last = serial.last;
      const next = bench.start({
        machine: withDisks(),
        beginning: "incoming",
        memory: vmm.memory,
      });
      const taken = await next.connect(bench.loop);
      await taken.restoreState(state);
      await taken.resume();
      const nextSerial = bench.use(await next.console());
      expect(await nextSerial.next()).toBeGreaterThan(last);
      await connection.quit();
      expect(await vmm.ended()).toBe(0);
      expect((await taken.counters()).disks).toHaveLength(3);
    });
  });

  onlyInAll(() => {
    skipUnless("Debian's firmware", file(`${firmware}/OVMF_CODE_4M.fd`, "ovmf"), () => {
      test("starts, and says so on the serial port", async () => {
        await using bench = new Bench(subjectOf());
        const variables = bench.folder.file("variables.fd");
        copyFileSync(`${firmware}/OVMF_VARS_4M.fd`, variables);
        const boot = { kind: "firmware", code: `${firmware}/OVMF_CODE_4M.fd`, variables } as const;
        const vmm = bench.start({ machine: { ...bench.machine, memory: 256 * 1024 ** 2, boot } });
        const connection = await vmm.connect(bench.loop);
        using serial = await RawClient.connect(vmm.files.console);
        await connection.boot();
        const text = () => Buffer.from(serial.received).toString("latin1");
        // An emulated processor takes its time, and more of it on a busy machine.
        const shows = () => {
          serial.look();
          return text().includes("BdsDxe");
        };
        await waitFor("the firmware", shows, 120_000);
      }, 150_000);
    });
  });

  test("a network card is a TAP that is there, by its name, and outlives its VMM", async () => {
    await using bench = new Bench(subjectOf());
    await using made = await makeNetworks(1);
    const [network] = made.networks;
    const enter = network?.enter ?? [];
    const ip = (...words: readonly string[]) => runProgram([...enter, "ip", ...words]);
    expect((await ip("tuntap", "add", "dev", "hv-card", "mode", "tap", "vnet_hdr")).stderr).toBe(
      "",
    );
    await ip("link", "set", "hv-card", "up");
    const card = { id: "lan", tap: "hv-card", macAddress: "52:54:00:00:00:01" };
    const machine = { ...bench.machine, networks: [card] };
    const { vmm, connection } = await bench.run({ machine, before: enter });
    expect((await ip("link", "show", "hv-card")).stdout).toContain("LOWER_UP");
    const state = await connection.captureState();
    const last = vmm.counter;
    await connection.quit();
    await vmm.ended();
    // The kernel tells the end of a link up to a second after it.
    await waitFor("the end of the link", async () => {
      return (await ip("link", "show", "hv-card")).stdout.includes("NO-CARRIER");
    });
    const next = bench.start({
      machine,
      before: enter,
      beginning: "incoming",
      memory: vmm.memory,
    });
    const taken = await next.connect(bench.loop);
    await taken.restoreState(state);
    await taken.resume();
    await waitFor("the guest to go on", () => next.counter > last);
    expect((await ip("link", "show", "hv-card")).stdout).toContain("LOWER_UP");
  });
});
