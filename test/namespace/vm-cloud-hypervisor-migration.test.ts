/**
 * A machine from one cloud-hypervisor to another, whose memory is in the stream, as the driver does
 * it: without workers, and without TLS. What is told of the fake is told of the fake.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  writeSync,
} from "node:fs";
import type { Disk, SendRoute, VmmConnection } from "../../src/hypervisor/driver.ts";
import { makeOverlay } from "../../src/image/qcow2.ts";
import {
  nextCount,
  type StartedVmm,
  startMachine,
  startVmm,
  type VmmOptions,
  type VmmPlace,
  vmmPlace,
} from "../support/cloud-hypervisor.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { kvmDevice } from "../support/fake-cloud-hypervisor-host.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const MEBIBYTE = 1024 ** 2;

let place: VmmPlace;
let owned: AsyncDisposableStack;

beforeEach(() => {
  place = vmmPlace(testEventLoop());
  owned = new AsyncDisposableStack();
});
afterEach(async () => {
  await owned.disposeAsync();
  place[Symbol.dispose]();
});

/** A raw file with holes. */
function disk(name: string, size = 8 * MEBIBYTE): Disk {
  const path = place.folder.file(name);
  const file = openSync(path, "w");
  ftruncateSync(file, size);
  closeSync(file);
  return { id: "scratch", path, format: "raw", readOnly: false, backing: undefined };
}

const keeping = { keepsCountOnDisk: true } as const;

async function makeGiver(options: Partial<VmmOptions> = {}) {
  const disks = [disk("giver.raw")];
  const machine = { disks, ...options.machine };
  const started = await startMachine(place, { orders: keeping, ...options, name: "g", machine });
  owned.use(started.vmm);
  await nextCount(started.vmm.files);
  return started;
}

interface Target {
  readonly vmm: StartedVmm;
  readonly connection: VmmConnection;
  readonly arrived: Promise<void>;
  readonly route: Omit<SendRoute, "signal">;
  readonly stops: number[];
}

async function makeTarget(options: Partial<VmmOptions> = {}): Promise<Target> {
  const disks = [disk("taker.raw", 0)];
  const machine = { disks, ...options.machine };
  const all = { orders: keeping, ...options, name: "t", machine, beginning: "incoming" } as const;
  const vmm = owned.use(startVmm(place, all));
  const connection = await vmm.connect();
  const memory = place.folder.file("memory-in");
  const socket = place.folder.file("disks-in");
  const ids = machine.disks.map(({ id }) => id);
  const arrival = await connection.migration.receive({ memory, disks: { ids, socket } });
  const stops: number[] = [];
  const route = {
    memory,
    disks: ids.map((id) => ({ id, socket })),
    onProgress: () => {},
    onStopped: () => stops.push(performance.now()),
    onDisksSent: () => arrival.endDisks(),
  };
  return { vmm, connection, arrived: arrival.arrived, route, stops };
}

const never = new AbortController().signal;

const countOn = (path: string) => {
  const file = openSync(path, "r");
  const bytes = Buffer.alloc(4);
  readSync(file, bytes, 0, 4, 4096);
  closeSync(file);
  return bytes.readUInt32LE(0);
};

/** "T" for a process that stands still. */
const stateOf = (pid: number) =>
  readFileSync(`/proc/${pid}/stat`, "latin1")
    .replace(/^.*\) /, "")
    .charAt(0);

skipUnless("a machine between two cloud-hypervisors", [kvmDevice], () => {
  test("it counts on there with its disk, and stands still here until it is killed", async () => {
    const { vmm, connection } = await makeGiver();
    const pid = vmm.program.processId;
    const target = await makeTarget();
    await connection.migration.send({ ...target.route, signal: never });
    await target.arrived;
    expect(target.stops).toHaveLength(1);
    expect(await target.connection.guestState()).toBe("paused");
    // Nobody lets it run here, whoever goes: its VMM would, when the connection ends.
    connection[Symbol.dispose]();
    expect(stateOf(pid)).toBe("T");
    const [before, there] = [vmm, target.vmm].map(({ machine }) => machine.disks[0]?.path ?? "");
    const count = countOn(there ?? "");
    expect(count).toBeGreaterThan(0);
    expect(countOn(before ?? "")).toBe(count);
    await target.connection.resume();
    expect(await nextCount(target.vmm.files)).toBeGreaterThan(count);
    expect(countOn(before ?? "")).toBe(count);
    expect(statSync(there ?? "").size).toBe(8 * MEBIBYTE);
  });

  test("taken back by a later connection, it runs on here", async () => {
    const { vmm, connection } = await makeGiver();
    const target = await makeTarget();
    await connection.migration.send({ ...target.route, signal: never });
    await target.arrived;
    const count = countOn(vmm.machine.disks[0]?.path ?? "");
    connection[Symbol.dispose]();
    const again = await vmm.connect();
    expect(await nextCount(vmm.files)).toBeGreaterThan(count);
    await again.pause();
    expect(await again.guestState()).toBe("paused");
  });

  onlyInAll(() => {
    test("one that stands still goes as it is, and stays with a VMM that is left", async () => {
      const { vmm, connection } = await makeGiver();
      await connection.pause();
      const target = await makeTarget();
      await connection.migration.send({ ...target.route, signal: never });
      await target.arrived;
      expect(stateOf(vmm.program.processId)).not.toBe("T");
      expect(await target.connection.guestState()).toBe("paused");
      connection[Symbol.dispose]();
      const again = await vmm.connect();
      await waitFor("its VMM to have it", async () => (await again.guestState()) === "paused");
      await again.resume();
      await nextCount(vmm.files);
    });

    test("where the other VMM, or its disk, fails, it runs on here", async () => {
      const { vmm, connection } = await makeGiver();
      const target = await makeTarget({ orders: { ...keeping, at: "move/state", how: "refuse" } });
      target.arrived.catch(() => undefined);
      const refused = await rejectionOf(
        connection.migration.send({ ...target.route, signal: never }),
      );
      expect(refused.message).toMatch(/did not take|gave the migration up|ended the migration/);
      await connection.migration.abandon();
      await nextCount(vmm.files);
      expect(await connection.guestState()).toBe("running");
      const cut = { ...target.route, memory: place.folder.file("nobody") };
      const unreachable = await rejectionOf(connection.migration.send({ ...cut, signal: never }));
      expect(unreachable.message).toMatch(/not listened at|ended/);
      await nextCount(vmm.files);
    });

    test("called off in the middle, it runs on here, and can be sent again", async () => {
      const { vmm, connection } = await makeGiver({ orders: { ...keeping, sendsAll: true } });
      const first = await makeTarget();
      first.arrived.catch(() => undefined);
      const off = new AbortController();
      const onProgress: SendRoute["onProgress"] = ({ stage }) => {
        if (stage === "memory") off.abort(new Error("called off"));
      };
      const sent = connection.migration.send({ ...first.route, onProgress, signal: off.signal });
      expect((await rejectionOf(sent)).message).toBe("called off");
      await connection.migration.abandon();
      await nextCount(vmm.files);
    });

    test("an overlay names the file below it where that stands here", async () => {
      const backing = { path: place.folder.file("image-here"), format: "raw" as const };
      const elsewhere = { path: `${place.folder.path}/image-there-with-a-longer-name` };
      const overlay = (name: string, below: string): Disk => {
        const path = place.folder.file(name);
        const { bytes, size } = makeOverlay({
          ...{ backing: below, backingFormat: "raw", virtualSize: MEBIBYTE },
        });
        const file = openSync(path, "w");
        writeSync(file, bytes);
        ftruncateSync(file, size);
        closeSync(file);
        const told = { path: below, format: "raw" as const };
        return { id: "root", path, format: "qcow2", readOnly: false, backing: told };
      };
      const here = overlay("here.qcow2", backing.path);
      const there = overlay("there.qcow2", elsewhere.path);
      const expected = readFileSync(there.path);
      const { connection } = await makeGiver({ machine: { disks: [here] } });
      const target = await makeTarget({ machine: { disks: [there] } });
      await connection.migration.send({ ...target.route, signal: never });
      await target.arrived;
      expect(readFileSync(there.path)).toEqual(expected);
    });
  });
});
