/** The simulated host: VMM processes, guests' memories, what is held, and the worker's disk. */
import type { GuestState } from "../../../src/hypervisor/driver.ts";
import type { Instance, Note } from "../../../src/vm/lifecycle-state.ts";
import type { VmSpec } from "../../../src/vm/protocol.ts";
import type { DeclaredPower } from "../../../src/vm/reconcile.ts";

/** A guest's memory. Each time that it runs on, it is another than what was captured before. */
export interface Memory {
  readonly id: number;
  runs: number;
}

export interface Vmm {
  readonly name: string;
  readonly invocation: string;
  readonly processId: number;
  isAlive: boolean;
  /** It answers nobody, and does nothing that it is asked. */
  isHung: boolean;
  guest: GuestState;
  memory: Memory | undefined;
  /** It has said something that is not so, or its guest has panicked: it may be ended for it. */
  isGuilty: boolean;
  isCleared: boolean;
  /** How many connections there were: an order is of one of them. */
  connections: number;
  /** The capture that it was given. */
  restoredFrom: string | undefined;
}

export interface Captured {
  readonly memory: Memory;
  readonly runs: number;
}

/** What the worker wrote down of a machine. */
export interface Written {
  readonly spec: VmSpec;
  declaredPower: DeclaredPower | undefined;
  note: Note | undefined;
}

export class Host {
  readonly vmms = new Map<string, Vmm>();
  readonly captures = new Map<string, Captured>();
  readonly disk = new Map<string, Written>();
  /** Machines with files and a network. */
  readonly prepared = new Set<string>();
  readonly #onDeath: (vmm: Vmm, status: number | undefined) => void;
  #processes = 100;
  #memories = 0;

  constructor(onDeath: (vmm: Vmm, status: number | undefined) => void) {
    this.#onDeath = onDeath;
  }

  /** @param beside the one that has the machine; no other one may live */
  spawn(
    name: string,
    invocation: string,
    { guest, beside }: { readonly guest: GuestState; readonly beside?: string },
  ): Vmm {
    if (this.vmms.has(invocation)) throw new Error(`${invocation} was spawned before`);
    this.#processes += 1;
    const vmm: Vmm = {
      name,
      invocation,
      processId: this.#processes,
      isAlive: true,
      isHung: false,
      guest,
      memory: undefined,
      isGuilty: false,
      isCleared: false,
      connections: 0,
      restoredFrom: undefined,
    };
    this.vmms.set(invocation, vmm);
    const all = this.livingOf(name);
    if (all.some((one) => one !== vmm && one.invocation !== beside)) {
      throw new Error(`${all.length} VMMs of ${name} live: ${all.map(nameOf).join(", ")}`);
    }
    return vmm;
  }

  livingOf(name: string): Vmm[] {
    return [...this.vmms.values()].filter((vmm) => vmm.name === name && vmm.isAlive);
  }

  living(): Vmm[] {
    return [...this.vmms.values()].filter((vmm) => vmm.isAlive);
  }

  instanceOf(vmm: Vmm, startedAt: number): Instance {
    const { invocation, processId } = vmm;
    return { invocation, processId, startTicks: processId, startedAt };
  }

  end(vmm: Vmm, status: number | undefined): void {
    if (!vmm.isAlive) return;
    vmm.isAlive = false;
    this.#onDeath(vmm, status);
  }

  boot(vmm: Vmm): void {
    this.#memories += 1;
    vmm.memory = { id: this.#memories, runs: 1 };
    vmm.guest = "running";
  }

  resume(vmm: Vmm): void {
    if (vmm.memory !== undefined) vmm.memory.runs += 1;
    vmm.guest = "running";
  }

  /** Its memory as it is now is held as well. */
  isSafe(vmm: Vmm): boolean {
    const { memory } = vmm;
    if (memory === undefined || vmm.guest === "off") return true;
    return [...this.captures.values()].some(
      (held) => held.memory === memory && held.runs === memory.runs,
    );
  }

  /** A VMM has this memory, or was given it, and died with it. */
  isSomewhere(id: string, { memory }: Captured): boolean {
    return [...this.vmms.values()].some(
      (vmm) => vmm.memory === memory && (vmm.isAlive || vmm.restoredFrom === id),
    );
  }
}

const nameOf = ({ invocation }: Vmm) => invocation;
