/**
 * A fake of cloud-hypervisor for tests, not the real one: it runs no guest. It is a program,
 *
 *     bun test/support/fake-cloud-hypervisor.ts --api-socket path=… --event-monitor path=… …
 *
 * that answers the API as version 53 does, with its states and its refusals in its words, tells
 * its events in its format, and moves its machine by its migration in both directions, with memory
 * as a descriptor or in the stream. Its
 * "guest" is a counter in a memfd, which goes on while the machine runs and is told on the serial
 * socket. It refuses what the real one refuses, and two things more: keys that it does not know,
 * and a TAP that is not there (which the real one would make, had it the right to).
 *
 * FAKE_CLOUD_HYPERVISOR in its environment has it misbehave (FakeOrders). Its guest takes the
 * letters of the test guest (scripts/test-guest.ts) on the serial socket; PUT /fake/cut-event,
 * beside the API, has it write half an event.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import * as v from "valibot";
import { makeMemoryFile } from "../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { errnoMessage } from "../../ffi/system-call-error.ts";
import { openTap } from "../../ffi/tun.ts";
import { COUNTER_ADDRESS, guestLetters } from "../../scripts/test-guest.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import {
  receiveMigrationSchema,
  sendMigrationSchema,
  type VmConfigBody,
  vmConfigSchema,
} from "./cloud-hypervisor-schema.ts";
import { testEventLoop } from "./event-loop.ts";
import { type FakeAnswer, type FakeServer, serveFakeApi } from "./fake-cloud-hypervisor-api.ts";
import { MovedAway, receiveFakeMachine, sendFakeMachine } from "./fake-cloud-hypervisor-move.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";

/** What goes wrong, and where: all of it once, at the first call that comes there. */
export interface FakeOrders {
  readonly version?: string;
  /** Where its guest's port 26735 of vsock leads; without it nobody in the guest listens. */
  readonly agent?: string;
  /** Its guest writes its counter to its first raw disk as well, where that may be written to. */
  readonly keepsCountOnDisk?: boolean;
  /** All of its memory goes to another host, and not what is no hole alone. */
  readonly sendsAll?: boolean;
  /** An endpoint ("vm.boot"), or a step of a migration ("move/config"). */
  readonly at?: string;
  readonly how?:
    | "hang"
    | "late"
    | "garbage"
    | "half"
    | "close"
    | "flood"
    /** Answers that it is done, and does nothing. */
    | "lie"
    | "crash"
    | "refuse"
    /** A status or a command that there is not. */
    | "odd";
}

const ORDERS = "FAKE_CLOUD_HYPERVISOR";

const TICK_MILLISECONDS = 5;
/** Where on its disk. */
const COUNT_ON_DISK = 4096;

/** Writes a program that is the fake. @returns its path */
export function fakeCloudHypervisor(folder: TemporaryFolder, orders: FakeOrders = {}): string {
  const path = folder.file("fake-cloud-hypervisor");
  const quoted = JSON.stringify(orders).replaceAll("'", "'\\''");
  const source = join(import.meta.dirname, "fake-cloud-hypervisor.ts");
  const command = `${ORDERS}='${quoted}' exec "${process.execPath}" "${source}" "$@"`;
  writeFileSync(path, `#!/bin/sh\n${command}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** A refusal in cloud-hypervisor's words, the outermost first: its chain of errors. */
class Refused extends Error {
  readonly status: number;
  readonly chain: readonly string[];

  constructor(status: number, ...chain: readonly string[]) {
    super(chain.join(": "));
    this.status = status;
    this.chain = chain;
  }
}

const fromApi = (status: number, ...chain: readonly string[]) =>
  new Refused(status, "Error from API", ...chain);

type GuestState = "Running" | "Paused";

class FakeCloudHypervisor {
  readonly #loop: EventLoop = testEventLoop();
  readonly #orders: FakeOrders;
  readonly #events: number | undefined;
  readonly #api: FakeServer;
  readonly #keepsOn: boolean;
  #isSpent = false;
  #config: VmConfigBody | undefined;
  #state: GuestState | undefined;
  #isMoving = false;
  /** What is told of it while it moves: how it was when that began. */
  #told: string | undefined;
  #memory: OwnedDescriptor | undefined;
  #disk: number | undefined;
  #serial: Server | undefined;
  #vsock: Server | undefined;
  readonly #taps: OwnedDescriptor[] = [];
  readonly #listeners = new Set<Socket>();
  #tick: Timer | undefined;
  /** The real one serves one call after the other, in one thread. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(words: readonly string[], orders: FakeOrders) {
    this.#orders = orders;
    const path = (name: string) => {
      const word = words[words.indexOf(name) + 1];
      return words.includes(name) ? word?.replace(/^path=/, "") : undefined;
    };
    this.#keepsOn = words.includes("--no-shutdown");
    const socket = path("--api-socket");
    const events = path("--event-monitor");
    if (socket === undefined) throw new Error("--api-socket path=PATH is missing");
    // Like the real one it waits here until somebody reads.
    this.#events = events === undefined ? undefined : openSync(events, "w");
    this.#tell("vmm", "starting");
    this.#api = serveFakeApi(socket, {
      call: (method, endpoint, body) => this.#call(method, endpoint, body),
      misbehaviour: (endpoint) => this.#take(endpoint),
      loop: this.#loop,
    });
  }

  /** What is to go wrong at a place, which is taken then. */
  #take(place: string): FakeOrders["how"] {
    if (this.#isSpent || this.#orders.at !== place) return undefined;
    this.#isSpent = true;
    if (this.#orders.how === "crash") process.kill(process.pid, "SIGKILL");
    return this.#orders.how;
  }

  get #version(): string {
    return this.#orders.version ?? "v53.0.0";
  }

  #tell(source: string, event: string, properties?: Readonly<Record<string, string>>): void {
    if (this.#events === undefined) return;
    const timestamp = { secs: 0, nanos: Math.round(performance.now() * 1e6) };
    const told = { timestamp, source, event, properties: properties ?? null };
    try {
      writeSync(this.#events, `${JSON.stringify(told, null, 2)}\n\n`);
    } catch {
      // Nobody reads: the real one goes on as well.
    }
  }

  async #call(method: string, endpoint: string, body: string | undefined): Promise<FakeAnswer> {
    const done = this.#turn.then(() => this.#perform(method, endpoint, body));
    this.#turn = done.catch(() => {});
    try {
      return await done;
    } catch (failure) {
      const refused = failure instanceof Refused ? failure : fromApi(500, String(failure));
      return { status: refused.status, body: JSON.stringify(refused.chain) };
    }
  }

  async #perform(method: string, endpoint: string, body: string | undefined): Promise<FakeAnswer> {
    const action = this.#actions[endpoint];
    if (action === undefined) throw new Refused(404, "Not Found");
    if (method !== action.method) throw new Refused(400, "Bad Request");
    if ((body !== undefined) !== (action.schema !== undefined)) {
      throw new Refused(400, "Bad Request");
    }
    const value = action.schema === undefined ? undefined : readBody(body ?? "", action.schema);
    const told = await action.perform(value);
    return told === undefined ? { status: 204 } : { status: 200, body: told };
  }

  readonly #actions: Readonly<Record<string, Action>> = {
    "vmm.ping": {
      method: "GET",
      perform: () => JSON.stringify({ ...this.#names(), pid: process.pid, features: ["kvm"] }),
    },
    "vmm.shutdown": {
      method: "PUT",
      perform: () => {
        this.#endMachine();
        this.#end();
      },
    },
    "vm.info": { method: "GET", perform: () => this.#describe() },
    "vm.counters": { method: "GET", perform: () => this.#counters() },
    "vm.create": {
      method: "PUT",
      schema: vmConfigSchema,
      perform: async (body) => {
        if (this.#config !== undefined) {
          throw fromApi(500, "The VM could not be created", "VM is already created");
        }
        this.#config = body as VmConfigBody;
        await this.#openSerial("The VM could not be created");
      },
    },
    "vm.boot": { method: "PUT", perform: () => this.#boot() },
    "vm.pause": {
      method: "PUT",
      perform: () => this.#change("Paused", "The VM could not be paused", "Cannot pause VM"),
    },
    "vm.resume": {
      method: "PUT",
      perform: () => this.#change("Running", "The VM could not resume", "Cannot resume VM"),
    },
    "vm.power-button": {
      method: "PUT",
      perform: () => {
        if (this.#state === undefined) {
          throw fromApi(500, "Error triggering power button", "VM is not running");
        }
        if (this.#state === "Running") this.#loop.afterTurn(() => this.#powerOff());
      },
    },
    "vm.delete": { method: "PUT", perform: () => this.#endMachine() },
    "vm.send-migration": {
      method: "PUT",
      schema: sendMigrationSchema,
      perform: (body) => this.#send(body as v.InferOutput<typeof sendMigrationSchema>),
    },
    "vm.receive-migration": {
      method: "PUT",
      schema: receiveMigrationSchema,
      perform: (body) => this.#receive(body as v.InferOutput<typeof receiveMigrationSchema>),
    },
    "/fake/cut-event": {
      method: "PUT",
      perform: () => {
        if (this.#events !== undefined) writeSync(this.#events, '{\n  "timestamp": {\n  \xff');
      },
    },
  };

  #names() {
    return { build_version: `${this.#version}-fake`, version: this.#version };
  }

  #describe(): string {
    if (this.#isMoving && this.#told !== undefined) return this.#told;
    const config = this.#config;
    if (config === undefined) {
      throw fromApi(404, "The VM info is not available", "VM is not created");
    }
    const state = this.#state ?? "Created";
    return JSON.stringify({ config, state, memory_actual_size: config.memory?.size ?? 0 });
  }

  /** Latencies begin with 2^64 - 1, which JavaScript has no number for. */
  #counters(): string {
    if (this.#state === undefined) throw fromApi(500, "VM is not running");
    const disks = (this.#config?.disks ?? []).map(
      ({ id }, index) =>
        `"${id}":{"read_bytes":${(index + 1) * 4096},"write_bytes":512,"read_ops":${index + 1},` +
        '"write_ops":1,"read_latency_min":18446744073709551615}',
    );
    const cards = (this.#config?.net ?? []).map(({ id }) => `"${id}":{"rx_bytes":1}`);
    return `{${[...disks, ...cards].join(",")}}`;
  }

  async #boot(): Promise<void> {
    const failure = "The VM could not boot";
    if (this.#state !== undefined) throw fromApi(500, failure, "VM is already created");
    this.#tell("vm", "booting");
    if (this.#config === undefined) throw fromApi(404, failure, "VM config is missing");
    this.#checkBoot(this.#config, failure);
    // It went with the machine that was before.
    if (this.#serial === undefined) await this.#openSerial(failure);
    this.#memory = makeMemoryFile("ch_ram");
    ftruncateSync(this.#memory.number, this.#config.memory?.size ?? 512 * 1024 * 1024);
    nameThreads(this.#config.cpus?.boot_vcpus ?? 1);
    this.#openDisk();
    this.#run();
    this.#tell("vm", "booted");
  }

  #checkBoot({ payload, disks = [], net = [] }: VmConfigBody, failure: string): void {
    const { kernel, firmware, initramfs } = payload;
    const validation = [failure, "Failed to validate config"];
    if (kernel === undefined && firmware === undefined) {
      throw fromApi(400, ...validation, "No bootitem provided: neither firmware nor kernel");
    }
    if (kernel !== undefined && firmware !== undefined) {
      const reason = "Specifying a kernel is not supported when a firmware is provided";
      throw fromApi(400, ...validation, reason);
    }
    const ids = [...disks, ...net].map(({ id }) => id);
    const twice = ids.find((id, index) => id !== undefined && ids.indexOf(id) !== index);
    if (twice !== undefined) {
      throw fromApi(409, ...validation, `Identifier ${twice} is not unique`);
    }
    const missing = "No such file or directory (os error 2)";
    const lacks = (path: string | undefined) => path !== undefined && !existsSync(path);
    if (lacks(kernel ?? firmware)) throw fromApi(500, failure, "Cannot open kernel file", missing);
    if (lacks(initramfs)) throw fromApi(500, failure, "Cannot open initramfs file", missing);
    this.#checkDevices({ disks, net }, (...chain) => fromApi(500, failure, ...chain));
  }

  /** What has to be there for a boot and for a machine that comes. */
  #checkDevices(
    { disks = [], net = [] }: Pick<VmConfigBody, "disks" | "net">,
    refuse: (...chain: readonly string[]) => Error,
  ): void {
    const lacking = disks.find(({ path }) => !existsSync(path));
    if (lacking !== undefined) {
      const chain = ["Error from device manager", "Cannot open disk path"];
      throw refuse(...chain, "No such file or directory (os error 2)");
    }
    for (const { tap } of net) if (tap !== undefined) this.#openTap(tap, refuse);
  }

  #openTap(name: string, refuse: (...chain: readonly string[]) => Error): void {
    const isThere = readFileSync("/proc/self/net/dev", "latin1").includes(`${name}:`);
    const tap = isThere ? openTap({ name, as: "existing" }) : -EPERM;
    if (typeof tap !== "number") {
      this.#taps.push(tap);
      return;
    }
    const words = tap === -EPERM ? "Operation not permitted" : errnoMessage(-tap);
    const chain = ["Error from device manager", "Open tap device failed"];
    const reason = `${words} (os error ${-tap})`;
    throw refuse(...chain, "Unable to configure tap interface", reason);
  }

  #change(next: GuestState, failure: string, detail: string): void {
    if (this.#isMoving) {
      throw fromApi(500, failure, "VM is currently migrating and can't be modified");
    }
    const { [next]: ing } = { Paused: "pausing", Running: "resuming" };
    const ed = next === "Paused" ? "paused" : "resumed";
    if (this.#state === undefined) throw fromApi(500, failure, "VM is not running");
    this.#tell("vm", ing);
    if (this.#state === next) {
      const reason = `Invalid transition: InvalidStateTransition(${next}, ${next})`;
      throw fromApi(500, failure, detail, reason);
    }
    if (next === "Running") this.#run();
    else this.#halt();
    this.#tell("vm", ed);
  }

  #run(): void {
    this.#state = "Running";
    this.#tick = setInterval(() => this.#countOn(), TICK_MILLISECONDS);
  }

  #halt(): void {
    this.#state = "Paused";
    clearInterval(this.#tick);
  }

  /** The guest's work: one more in its memory, and a line on its serial port. */
  #countOn(): void {
    if (this.#memory === undefined) return;
    const bytes = Buffer.alloc(4);
    readSync(this.#memory.number, bytes, 0, 4, COUNTER_ADDRESS);
    const count = bytes.readUInt32LE(0) + 1;
    bytes.writeUInt32LE(count, 0);
    writeSync(this.#memory.number, bytes, 0, 4, COUNTER_ADDRESS);
    const line = `T${count.toString(16).padStart(8, "0")}\n`;
    for (const listener of this.#listeners) listener.write(line);
    if (this.#disk !== undefined) writeSync(this.#disk, bytes, 0, 4, COUNT_ON_DISK);
  }

  /** Opens the disk that its guest writes to. @returns the count on it */
  #openDisk(): number | undefined {
    const disk = (this.#config?.disks ?? []).find(
      ({ image_type: type, readonly: isReadOnly }) => type === "Raw" && isReadOnly !== true,
    );
    if (this.#orders.keepsCountOnDisk !== true || disk === undefined) return undefined;
    this.#disk = openSync(disk.path, "r+");
    const bytes = Buffer.alloc(4);
    readSync(this.#disk, bytes, 0, 4, COUNT_ON_DISK);
    return bytes.readUInt32LE(0);
  }

  get #count(): number {
    const bytes = Buffer.alloc(4);
    if (this.#memory !== undefined) readSync(this.#memory.number, bytes, 0, 4, COUNTER_ADDRESS);
    return bytes.readUInt32LE(0);
  }

  /** What the guest reads on its serial port, if it runs. */
  #obey(letter: string): void {
    if (this.#state !== "Running") return;
    if (letter === guestLetters.off) this.#powerOff();
    if (letter === guestLetters.panic) this.#tell("guest", "panic", { event: "panic" });
    if (letter !== guestLetters.reset || this.#memory === undefined) return;
    this.#tell("vm", "rebooting");
    writeSync(this.#memory.number, Buffer.alloc(4), 0, 4, COUNTER_ADDRESS);
    this.#tell("vm", "rebooted");
  }

  async #openSerial(failure: string): Promise<void> {
    const serial = this.#config?.serial;
    if (serial?.mode !== "Socket" || serial.socket === undefined) return;
    if (existsSync(serial.socket)) {
      this.#config = undefined;
      const chain = ["Error creating console devices", "Cannot create a console device"];
      throw fromApi(500, failure, ...chain, "Address already in use (os error 98)");
    }
    this.#openVsock();
    this.#serial = createServer((socket) => {
      this.#listeners.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => this.#listeners.delete(socket));
      socket.on("data", (bytes) => {
        for (const letter of bytes.toString()) this.#obey(letter);
      });
    });
    const listening = Promise.withResolvers<void>();
    this.#serial.listen(serial.socket, listening.resolve);
    await listening.promise;
  }

  /** A Unix socket of the host, which is told the guest's port first: docs/vsock.md. */
  #openVsock(): void {
    const { vsock } = this.#config ?? {};
    if (vsock === undefined) return;
    this.#vsock = createServer((socket) => {
      socket.on("error", () => {});
      let told = "";
      const read = (bytes: Buffer) => {
        told += bytes.toString("latin1");
        const end = told.indexOf("\n");
        if (end < 0) return;
        socket.off("data", read);
        const { agent } = this.#orders;
        if (told.slice(0, end) !== "CONNECT 26735" || agent === undefined) socket.destroy();
        else joinAgent(socket, agent, told.slice(end + 1));
      };
      socket.on("data", read);
    });
    this.#vsock.listen(vsock.socket);
  }

  #powerOff(): void {
    if (this.#keepsOn) {
      this.#shutDown();
      return;
    }
    this.#endMachine();
    this.#end();
  }

  /** The machine ends, and its configuration stays: it could be booted again. */
  #shutDown(): void {
    const config = this.#config;
    this.#closeMachine();
    this.#config = config;
    this.#tell("vm", "shutdown");
  }

  #endMachine(): void {
    if (this.#isMoving) throw fromApi(500, "VM is currently migrating and can't be modified");
    if (this.#config === undefined) return;
    if (this.#state !== undefined) this.#shutDown();
    this.#closeMachine();
    this.#tell("vm", "deleted");
  }

  #closeMachine(): void {
    clearInterval(this.#tick);
    this.#state = undefined;
    this.#config = undefined;
    this.#memory?.close();
    this.#memory = undefined;
    if (this.#disk !== undefined) closeSync(this.#disk);
    this.#disk = undefined;
    for (const tap of this.#taps.splice(0)) tap.close();
    for (const listener of this.#listeners) listener.destroy();
    this.#serial?.close();
    this.#serial = undefined;
    this.#vsock?.close();
    this.#vsock = undefined;
  }

  /** Ends the process when what was answered is out. */
  #end(): void {
    this.#tell("vmm", "shutdown");
    this.#loop.wakeAfter(1, () => {
      this.#api.close();
      if (this.#events !== undefined) closeSync(this.#events);
      this.#loop[Symbol.dispose]();
    });
  }

  #send(body: v.InferOutput<typeof sendMigrationSchema>): void {
    const refuse = (reason: string) =>
      fromApi(500, "Error dispatching the migration worker", "Failed to send", reason);
    if (this.#isMoving) throw refuse("There is already an ongoing migration");
    const { state, config, memory } = {
      state: this.#state,
      config: this.#config,
      memory: this.#memory,
    };
    if (state === undefined || config === undefined || memory === undefined) {
      throw refuse("VM is not running");
    }
    const isLocal = body.local === true;
    if (isLocal && config.memory?.shared !== true) {
      throw refuse("Local migration requires shared memory or hugepages enabled");
    }
    this.#told = this.#describe();
    this.#isMoving = true;
    this.#tell("vm", "migration-started");
    // It answers now: what comes of it is an event.
    sendFakeMachine(this.#loop, {
      path: body.destination_url.replace(/^unix:/, ""),
      machine: {
        ...{ config, memory, isPaused: state === "Paused", isLocal },
        isFull: this.#orders.sendsAll === true,
      },
      pause: () => {
        if (this.#state !== "Running") return;
        this.#tell("vm", "pausing");
        this.#halt();
        this.#tell("vm", "paused");
      },
      misbehaviour: (step) => this.#take(`move/${step}`),
    }).then(
      () => this.#moveAway(),
      () => this.#keep(state),
    );
  }

  #moveAway(): void {
    this.#tell("vm", "migration-finished");
    this.#isMoving = false;
    this.#closeMachine();
    this.#tell("vm", "deleted");
    this.#end();
  }

  #keep(state: GuestState): void {
    this.#tell("vm", "migration-failed");
    this.#isMoving = false;
    if (state === "Running" && this.#state === "Paused") this.#run();
  }

  async #receive(body: v.InferOutput<typeof receiveMigrationSchema>): Promise<void> {
    const failure = "Error receiving migration";
    if (this.#state !== undefined) {
      throw fromApi(500, failure, "Can't receive a migration when a VM is already created");
    }
    const path = body.receiver_url.replace(/^unix:/, "");
    if (existsSync(path)) throw fromApi(500, failure, "Error binding to UNIX socket");
    try {
      const { isPaused } = await receiveFakeMachine(this.#loop, {
        path,
        onListening: () => this.#tell("vm", "migration-receive-ready"),
        take: async ({ config, memory }) => {
          this.#config = readBody(JSON.stringify(config), vmConfigSchema);
          this.#checkDevices(this.#config, (...chain) => fromApi(500, failure, ...chain));
          await this.#openSerial(failure);
          this.#memory = memory ?? makeMemoryFile("ch_ram");
          if (memory === undefined) {
            ftruncateSync(this.#memory.number, this.#config.memory?.size ?? 0);
          }
          return this.#memory;
        },
        restore: () => {
          const count = this.#openDisk();
          if (count === undefined || count === this.#count) return;
          throw new MovedAway(`its disk has ${count}, and its memory ${this.#count}`);
        },
        misbehaviour: (step) => this.#take(`move/${step}`),
      });
      nameThreads(this.#config?.cpus?.boot_vcpus ?? 1);
      if (isPaused) this.#state = "Paused";
      else this.#run();
      this.#tell("vm", "migration-receive-finished");
    } catch (reason) {
      this.#tell("vm", "migration-receive-failed");
      this.#closeMachine();
      if (!(reason instanceof MovedAway)) throw reason;
      throw fromApi(500, failure, "Migration was aborted");
    }
  }
}

function joinAgent(socket: Socket, path: string, rest: string): void {
  const agent = connect(path, () => {
    socket.write("OK 1073741824\n");
    agent.write(Buffer.from(rest, "latin1"));
    socket.pipe(agent);
    agent.pipe(socket);
  });
  for (const [one, other] of [
    [agent, socket],
    [socket, agent],
  ] as const) {
    one.on("error", () => {});
    one.on("close", () => other.destroy());
  }
}

interface Action {
  readonly method: "GET" | "PUT";
  /** Of the body; undefined where there must be none. */
  readonly schema?: v.GenericSchema;
  readonly perform: (body: unknown) => string | undefined | void | Promise<void>;
}

function readBody<Schema extends v.GenericSchema>(
  text: string,
  schema: Schema,
): v.InferOutput<Schema> {
  const failure = "Failed to deserialize JSON";
  const json = v.safeParse(v.pipe(v.string(), v.parseJson()), text);
  if (!json.success) throw new Refused(400, failure, "expected value at line 1 column 1");
  const checked = v.safeParse(schema, json.output);
  if (checked.success) return checked.output;
  const [issue] = checked.issues;
  const path = issue.path?.map(({ key }) => String(key)).join(".") ?? "";
  const isMissing = issue.received === "undefined" && !path.includes(".");
  const reason = isMissing ? `missing field \`${path}\`` : `${path}: ${issue.message}`;
  throw new Refused(400, failure, reason);
}

/** errno.h */
const EPERM = 1;

/**
 * Some threads of this process get the names that the real one's processors have; not where a
 * worker has made its /proc read-only, and there a thread could name itself alone.
 */
function nameThreads(count: number): void {
  const threads = readdirSync("/proc/self/task").filter((id) => id !== String(process.pid));
  for (let number = 0; number < count; number += 1) {
    const thread = threads[number];
    if (thread === undefined) throw new Error(`This process has only ${threads.length} threads`);
    try {
      writeFileSync(`/proc/self/task/${thread}/comm`, `vcpu${number}`);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EROFS") throw error;
    }
  }
}

if (import.meta.main) {
  const orders = JSON.parse(process.env[ORDERS] ?? "{}") as FakeOrders;
  const words = process.argv.slice(2);
  if (words.includes("--version")) console.log(`cloud-hypervisor ${orders.version ?? "v53.0.0"}`);
  else new FakeCloudHypervisor(words, orders);
}
