/** Two QEMUs: a machine that runs goes from one to the other, with all that it has written. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { chooseHypervisor, noWish } from "../../src/hypervisor/choose.ts";
import { type MigrationProgress, type SendRoute, VmmRefused } from "../../src/hypervisor/driver.ts";
import { observeHypervisors } from "../../src/hypervisor/observe.ts";
import { qemuDriver } from "../../src/hypervisor/qemu/driver.ts";
import { expectContinuous } from "../support/guest-numbers.ts";
import { testMachine } from "../support/hypervisor/machines.ts";
import { emptyQcow2 } from "../support/hypervisor/qcow2.ts";
import { Bench } from "../support/hypervisor-conformance.ts";
import { runProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const MEBIBYTE = 1024 ** 2;
const observed = await observeHypervisors({
  programs: { cloudHypervisor: undefined, qemu: undefined },
});
const choice = chooseHypervisor(observed, { ...noWish, hypervisor: "qemu", accelerator: "tcg" });

function chosen() {
  if (choice.kind === "refused") throw new Error(choice.reason);
  return choice;
}

let bench: Bench;

beforeEach(() => {
  bench = new Bench({
    driver: qemuDriver,
    impatient: qemuDriver,
    program: () => chosen().program,
    machine: (guest) =>
      testMachine({
        memory: 64 * MEBIBYTE,
        machineType: chosen().machineType,
        processorModel: chosen().processorModel,
        boot: { kind: "kernel", kernel: guest, initramfs: undefined, commandLine: "" },
      }),
    switchesOff: true,
  });
  writeFileSync(bench.folder.file("base.img"), new Uint8Array(MEBIBYTE).fill(7));
  for (const side of ["here", "there"]) {
    writeFileSync(bench.folder.file(`${side}.qcow2`), emptyQcow2(MEBIBYTE));
    writeFileSync(bench.folder.file(`${side}.raw`), new Uint8Array(MEBIBYTE));
  }
});
afterEach(async () => {
  await bench[Symbol.asyncDispose]();
});

const withDisks = (side: string) => ({
  ...bench.machine,
  disks: [
    {
      id: "root",
      path: bench.folder.file(`${side}.qcow2`),
      format: "qcow2",
      readOnly: false,
      backing: { path: bench.folder.file("base.img"), format: "raw" },
    },
    {
      id: "scratch",
      path: bench.folder.file(`${side}.raw`),
      format: "raw",
      readOnly: false,
      backing: undefined,
    },
  ] as const,
});

/** Bytes of a disk as its guest sees them, once nobody has it open. */
async function contentOf(side: string): Promise<Uint8Array> {
  const path = bench.folder.file(`${side}.qcow2`);
  const flat = bench.folder.file(`${side}.flat`);
  const base = { driver: "raw", file: { driver: "file", filename: bench.folder.file("base.img") } };
  const top = { driver: "qcow2", file: { driver: "file", filename: path }, backing: base };
  const source = `json:${JSON.stringify(top)}`;
  const { exitCode, stderr } = await runProgram(["qemu-img", "convert", "-O", "raw", source, flat]);
  expect([exitCode, stderr]).toEqual([0, ""]);
  return readFileSync(flat);
}

/** A VMM that waits for the machine, listening. */
async function makeTarget() {
  const machine = withDisks("there");
  const vmm = bench.start({ machine, beginning: "incoming" });
  const connection = await vmm.connect(bench.loop);
  // A port that was busy there goes on here only where somebody listens already.
  const serial = await bench.listen(vmm, connection);
  const memory = `${vmm.files.control}.memory`;
  const socket = `${vmm.files.control}.disks`;
  const arrival = await connection.migration.receive({
    memory,
    disks: { ids: ["root", "scratch"], socket },
  });
  const told: MigrationProgress[] = [];
  const route: Omit<SendRoute, "signal"> = {
    memory,
    disks: ["root", "scratch"].map((id) => ({ id, socket })),
    onProgress: (progress) => told.push(progress),
    onStopped: () => {},
    onDisksSent: () => arrival.endDisks(),
  };
  return { vmm, connection, serial, arrival, route, told };
}

const never = new AbortController().signal;
const needs = [root, program("qemu-system-x86_64", "qemu-system-x86")];

skipUnless("live migration with QEMU", needs, () => {
  test("a machine counts on in another VMM, and its disks are what they were", async () => {
    await runProgram([
      "qemu-io",
      "-f",
      "qcow2",
      "-c",
      "write -P 9 65536 65536",
      bench.folder.file("here.qcow2"),
    ]);
    await runProgram([
      "qemu-io",
      "-f",
      "raw",
      "-c",
      "write -P 5 0 4096",
      bench.folder.file("here.raw"),
    ]);
    const { vmm, connection, serial } = await bench.run({ machine: withDisks("here") });
    const target = await makeTarget();
    await connection.migration.send({ ...target.route, signal: never });
    await target.arrival.arrived;
    expect(await connection.guestState()).toBe("paused");
    expect(await target.connection.guestState()).toBe("paused");
    const last = serial.last;
    const nextSerial = target.serial;
    await target.connection.resume();
    await nextSerial.next();
    const [first = 0] = nextSerial.numbers;
    // The line that was under way may have been cut in two.
    expect(first - last).toBeGreaterThanOrEqual(1);
    expect(first - last).toBeLessThanOrEqual(2);
    expectContinuous(nextSerial.numbers);
    await connection.quit();
    await vmm.ended();
    await target.connection.quit();
    await target.vmm.ended();
    const content = await contentOf("there");
    expect(content).toEqual(await contentOf("here"));
    expect([content[0], content[65_536], content[131_072]]).toEqual([7, 9, 7]);
    expect(readFileSync(bench.folder.file("there.raw"))).toEqual(
      readFileSync(bench.folder.file("here.raw")),
    );
  });

  test("one that was sent, and not given, goes on here, and can be sent again", async () => {
    const { connection, serial } = await bench.run({ machine: withDisks("here") });
    const lost = await makeTarget();
    await connection.migration.send({ ...lost.route, signal: never });
    await lost.arrival.arrived;
    await lost.connection.quit();
    await lost.vmm.ended();
    const last = serial.last;
    await connection.migration.abandon();
    await connection.resume();
    expect(await serial.next()).toBeGreaterThan(last);
    expectContinuous(serial.numbers);
    copyFileSync(bench.folder.file("here.raw"), bench.folder.file("there.raw"));
    writeFileSync(bench.folder.file("there.qcow2"), emptyQcow2(MEBIBYTE));
    const target = await makeTarget();
    await connection.migration.send({ ...target.route, signal: never });
    await target.arrival.arrived;
    expect(await target.connection.guestState()).toBe("paused");
  });

  test("it is called off at any time, and goes on here without a gap", async () => {
    const { connection, serial } = await bench.run({ machine: withDisks("here") });
    for (const stage of ["before", "at the switch"]) {
      const target = await makeTarget();
      const off = new AbortController();
      if (stage === "before") off.abort(new Error("called off"));
      const onDisksSent = async () => {
        expect(await connection.guestState()).toBe("paused");
        off.abort(new Error("called off"));
      };
      const sent = connection.migration.send({
        ...{ ...target.route, onDisksSent, signal: off.signal },
      });
      expect((await rejectionOf(sent)).message).toBe("called off");
      await connection.migration.abandon();
      if ((await connection.guestState()) === "paused") await connection.resume();
      const last = serial.last;
      expect(await serial.next()).toBeGreaterThan(last);
      target.vmm.kill("SIGKILL");
      await target.vmm.ended();
      expect(await rejectionOf(target.arrival.arrived)).toBeInstanceOf(Error);
      writeFileSync(bench.folder.file("there.qcow2"), emptyQcow2(MEBIBYTE));
    }
    expectContinuous(serial.numbers);
  });

  test("another VMM that dies in the middle is told, and it goes on here", async () => {
    const { connection, serial } = await bench.run({ machine: withDisks("here") });
    const target = await makeTarget();
    const onDisksSent = async () => {
      target.vmm.kill("SIGKILL");
      await target.vmm.ended();
    };
    const sent = connection.migration.send({
      ...{ ...target.route, onDisksSent, signal: never },
    });
    expect(await rejectionOf(sent)).toBeInstanceOf(VmmRefused);
    await connection.migration.abandon();
    if ((await connection.guestState()) === "paused") await connection.resume();
    const last = serial.last;
    expect(await serial.next()).toBeGreaterThan(last);
    expectContinuous(serial.numbers);
  });

  test("a state that was captured afterwards is without its memory, as ever", async () => {
    const { vmm, connection } = await bench.run({ machine: withDisks("here") });
    const target = await makeTarget();
    await connection.migration.send({ ...target.route, signal: never });
    await target.arrival.arrived;
    await target.connection.quit();
    await connection.migration.abandon();
    await connection.resume();
    const state = await connection.captureState();
    expect(state.bytes.length).toBeLessThan(2 * MEBIBYTE);
    const next = bench.start({
      machine: withDisks("here"),
      beginning: "incoming",
      memory: vmm.memory,
    });
    const taken = await next.connect(bench.loop);
    await taken.restoreState(state);
    expect(await taken.guestState()).toBe("paused");
  });
});
