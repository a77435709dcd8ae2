import { chownSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { SocketData } from "../../messaging/byte-socket.ts";
import { ByteSocket, byteSocketHandlers, connectUnixBytes } from "../../messaging/byte-socket.ts";
import type { Bytes } from "../../units/units.ts";
import { type SendRoute, VmmRefused, VmmUnreachable } from "../driver.ts";
import { DiskSender } from "./disk-copy.ts";
import { removeSocket } from "./migration-peer.ts";
import {
  ByteQueue,
  decodeAnswer,
  encodeAnswer,
  encodeRequest,
  HEADER_BYTES,
} from "./migration-wire.ts";
import type { MoveParts } from "./move-receiver.ts";
import { type MovePiece, MoveReader } from "./move-stream.ts";

/** What the VMM is asked for; VmSendMigrationData of vmm/src/api/mod.rs. */
export const moveSettings = {
  /** Milliseconds for which the guest may stand still for the last of its memory. */
  downtime: 300,
  /** Seconds after which it is stopped, however fast it changes its memory. */
  time: 600,
} as const;

/**
 * One machine on its way to another host. The VMM sends it to us, and we pass it on: before the
 * state of its devices, with which the other VMM opens its disks, these are sent. The answer to the
 * last of its requests is kept: with "ok" it would end, and the machine with it, before anybody has
 * noted whose it is; without one it goes on with the machine.
 */
export class MoveSender implements Disposable {
  readonly #parts: MoveParts;
  readonly #route: SendRoute;
  readonly #failed = Promise.withResolvers<never>();
  readonly #arrived = Promise.withResolvers<void>();
  readonly #reader: MoveReader;
  readonly #answers = new ByteQueue();
  readonly #sockets = new Set<ByteSocket>();
  #server: Bun.UnixSocketListener<SocketData> | undefined;
  #vmm: ByteSocket | undefined;
  #disks: readonly DiskSender[] = [];
  #isOrdered = false;
  #isLast = false;
  #isStopped = false;
  /** Of a guest that ran: its VMM lets it run again when it hears no answer. */
  #wasRunning = false;
  #memoryBytes = 0;
  #rounds = 1;

  constructor(parts: MoveParts, route: SendRoute) {
    this.#parts = parts;
    this.#route = route;
    this.#reader = new MoveReader(parts.limits.messageBytes);
    this.#failed.promise.catch(() => undefined);
    this.#arrived.promise.catch(() => undefined);
  }

  /** Whether the VMM was told, and may not have given up yet. */
  get isOrdered(): boolean {
    return this.#isOrdered;
  }

  /** Whether its VMM would let the guest run when this ends. */
  get wasRunning(): boolean {
    return this.#wasRunning;
  }

  /** Its event monitor says that the guest stands still. */
  hearPaused(): void {
    if (this.#isOrdered) this.#stop();
  }

  /** It has gone through all memory once more. */
  hearRound(): void {
    this.#rounds += 1;
  }

  hearFailed(): void {
    this.#fail(new VmmRefused("cloud-hypervisor gave the migration up"));
  }

  /** Returns when all of it is there. @throws VmmRefused, VmmUnreachable, the signal's reason */
  async run(): Promise<void> {
    const { signal, disks } = this.#route;
    const callOff = () => this.#fail(signal.reason);
    signal.addEventListener("abort", callOff);
    try {
      signal.throwIfAborted();
      await using copies = new AsyncDisposableStack();
      this.#disks = await Promise.all(
        disks.map(async ({ id, socket }) => copies.use(await this.#openDisk(id, socket))),
      );
      await Promise.race([this.#sendDisks(), this.#failed.promise]);
      await this.#order();
      await Promise.race([this.#arrived.promise, this.#failed.promise]);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    } finally {
      signal.removeEventListener("abort", callOff);
    }
  }

  async #openDisk(id: string, socket: string): Promise<DiskSender> {
    const disk = this.#parts.machine.disks.find((one) => one.id === id);
    if (disk === undefined) throw new VmmRefused(`Expected a disk of the machine, received ${id}`);
    return await DiskSender.open(disk, await this.#connect(socket));
  }

  async #connect(path: string): Promise<ByteSocket> {
    try {
      const socket = await connectUnixBytes(path);
      this.#sockets.add(socket);
      return socket;
    } catch (cause) {
      throw new VmmUnreachable(`${path} is not listened at`, { cause });
    }
  }

  /** While the guest runs. */
  async #sendDisks(): Promise<void> {
    const { signal, onProgress } = this.#route;
    const of = this.#parts.machine.disks
      .filter(({ readOnly }) => !readOnly)
      .reduce((sum, { path }) => sum + storedBytes(path), 0);
    let done = 0;
    const onBytes = (count: Bytes) => {
      done += count;
      onProgress({ stage: "disks", done: Math.min(done, of), of, rounds: 0 });
    };
    for (const disk of this.#disks) await disk.sendAll(signal, onBytes);
  }

  async #order(): Promise<void> {
    const { api, path } = this.#parts;
    const far = await this.#connect(this.#route.memory);
    removeSocket(path);
    const server = Bun.listen<SocketData>({
      unix: path,
      data: { peer: undefined },
      socket: {
        ...byteSocketHandlers,
        open: (raw) => {
          server.stop();
          this.#lead(new ByteSocket(raw), far);
        },
      },
    });
    this.#server = server;
    // The VMM's user alone may connect: the folder is its own.
    const { uid, gid } = statSync(dirname(path));
    chownSync(path, uid, gid);
    this.#isOrdered = true;
    // It answers before anything is sent: what goes wrong later is an event.
    await api.put("vm.send-migration", {
      destination_url: `unix:${path}`,
      downtime_ms: moveSettings.downtime,
      timeout_s: moveSettings.time,
      timeout_strategy: "Ignore",
    });
  }

  /** What the VMM says goes to the other host, and the answers back. */
  #lead(vmm: ByteSocket, far: ByteSocket): void {
    this.#vmm = vmm;
    this.#sockets.add(vmm);
    far.onDrained = () => vmm.resume();
    vmm.onDrained = () => far.resume();
    vmm.listen((bytes) => {
      for (const piece of this.#reader.push(bytes)) this.#pass(piece, vmm, far);
    });
    far.listen((bytes) => this.#answer(bytes, vmm, far));
    const ended = (who: string) => (reason: string) =>
      this.#fail(new VmmUnreachable(`${who} ended the migration: ${reason}`));
    void vmm.closed.then(ended("cloud-hypervisor"));
    void far.closed.then(ended("The other host"));
  }

  #pass(piece: MovePiece, vmm: ByteSocket, far: ByteSocket): void {
    if (piece.kind === "refused") {
      const { expected, received } = piece.refusal;
      this.#fail(new VmmRefused(`The VMM sends no machine: expected ${expected}, not ${received}`));
      return;
    }
    if (piece.kind === "memory") {
      this.#memoryBytes += piece.bytes.length;
      this.#tellMemory();
      if (!far.write(piece.bytes)) vmm.pause();
      return;
    }
    const { command, payload } = piece.request;
    if (command === "state") {
      // It waits for its answer: nothing comes after this.
      void this.#sendState(payload, far);
      return;
    }
    if (command === "complete" || command === "complete-paused") {
      this.#isLast = true;
      this.#wasRunning = command === "complete";
    }
    far.write(encodeRequest(command, payload.length));
    if (payload.length > 0) far.write(payload);
  }

  #tellMemory(): void {
    const of = this.#parts.machine.memory;
    const done = Math.min(this.#memoryBytes, of);
    this.#route.onProgress({ stage: "memory", done, of, rounds: this.#rounds });
  }

  /** The guest stands still: the rest of its disks goes first. */
  async #sendState(state: Uint8Array, far: ByteSocket): Promise<void> {
    const { signal, onDisksSent } = this.#route;
    try {
      this.#stop();
      for (const disk of this.#disks) await disk.sendRest(signal);
      await onDisksSent();
      signal.throwIfAborted();
      far.write(encodeRequest("state", state.length));
      far.write(state);
    } catch (error) {
      this.#fail(error);
    }
  }

  #stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#route.onStopped();
  }

  #answer(bytes: Uint8Array, vmm: ByteSocket, far: ByteSocket): void {
    if (!this.#isLast) {
      if (!vmm.write(bytes)) far.pause();
      return;
    }
    this.#answers.push(bytes);
    const answer = this.#answers.take(HEADER_BYTES);
    if (answer === undefined) return;
    if (decodeAnswer(answer) === "ok") this.#arrived.resolve();
    else {
      vmm.write(encodeAnswer("error"));
      this.#fail(new VmmRefused("The other VMM did not take the machine"));
    }
  }

  #fail(error: unknown): void {
    this.#failed.reject(error);
  }

  /** The machine stays with the VMM, which hears of no answer. */
  [Symbol.dispose](): void {
    this.#fail(new VmmUnreachable("It was given up"));
    this.#server?.stop();
    this.#vmm?.terminate("the machine stays");
    for (const socket of this.#sockets) socket.terminate("it was given up");
    removeSocket(this.#parts.path);
  }
}

/** What a file takes of its disk. */
function storedBytes(path: string): Bytes {
  const blockBytes = 512;
  return (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * blockBytes;
}
