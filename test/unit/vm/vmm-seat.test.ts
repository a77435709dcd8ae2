/** A VMM's seat: what hangs on its connection, and what becomes of it. */
import { afterAll, expect, test } from "bun:test";
import { openProcess } from "../../../ffi/pidfd.ts";
import type { HypervisorDriver, MachineSpecification } from "../../../src/hypervisor/driver.ts";
import type { MachineEvent } from "../../../src/vm/lifecycle-state.ts";
import { VmmSeat } from "../../../src/vm/perform/vmm-seat.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

test("a snapshot is given up as soon as its VMM is asked anew", async () => {
  using folder = temporaryFolder();
  // One that lives for as long as this test does.
  const process = openProcess(globalThis.process.pid);
  if (process === undefined) throw new Error("It has ended");
  const events: MachineEvent[] = [];
  const tools = { loop } as unknown as ConstructorParameters<typeof VmmSeat>[0];
  const invocation = "a".repeat(32);
  using seat = new VmmSeat(tools, {
    identity: { invocation, processId: globalThis.process.pid, startTicks: 1, bootId: "boot" },
    process,
    output: undefined,
    folder: folder.path,
    onEvent: (event) => events.push(event),
    onConnected: () => {},
    onAgentLeft: () => {},
    onEnd: () => {},
  });
  const signal = seat.beginSaving();
  expect(signal.aborted).toBeFalse();
  const driver = {
    connect: async () => {
      throw new Error("it does not answer");
    },
  } as unknown as HypervisorDriver;
  const machine = {} as MachineSpecification;
  await seat.attach({ ticket: 7, capture: undefined }, () => ({ driver, machine }));
  expect(String(signal.reason)).toContain("Its VMM is asked anew, and may run on");
  expect(events).toEqual([
    expect.objectContaining({ kind: "attach-refused", ticket: 7, invocation }),
  ]);
  // The next one has a signal of its own.
  expect(seat.beginSaving().aborted).toBeFalse();
});
