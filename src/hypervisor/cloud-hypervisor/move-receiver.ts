import type { EventLoop } from "../../event-loop/event-loop.ts";
import {
  ByteSocket,
  byteSocketHandlers,
  connectUnixBytes,
  type SocketData,
} from "../../messaging/byte-socket.ts";
import {
  type MachineSpecification,
  type MigrationArrival,
  type ReceiveRoute,
  VmmRefused,
  VmmUnreachable,
} from "../driver.ts";
import type { CloudHypervisorApi } from "./api.ts";
import { placeConfig } from "./captured-state.ts";
import type { VmConfig } from "./config.ts";
import { DiskReceiver } from "./disk-copy.ts";
import type { CloudHypervisorLimits } from "./limits.ts";
import { removeSocket } from "./migration-peer.ts";
import { encodeRequest } from "./migration-wire.ts";
import { type MovePiece, MoveReader } from "./move-stream.ts";

/** What a machine on its way stands on, at either host. */
export interface MoveParts {
  readonly loop: EventLoop;
  readonly api: CloudHypervisorApi;
  readonly machine: MachineSpecification;
  readonly config: VmConfig;
  readonly limits: CloudHypervisorLimits;
  /** Where the VMM is told to listen, or to send the machine. */
  readonly path: string;
}

/**
 * A machine that comes from another host. Its configuration is given the files, sockets and cards
 * that it has here; and whatever the other VMM says last, it stays paused here: who lets it run is
 * whoever notes that it is this host's.
 */
export class MoveReceiver implements Disposable {
  readonly #parts: MoveParts;
  readonly #ready = Promise.withResolvers<void>();
  readonly #failed = Promise.withResolvers<never>();
  readonly #disks: DiskReceiver;
  readonly #servers: { stop(): void }[] = [];
  readonly #sockets = new Set<ByteSocket>();
  #isAnswered = false;

  constructor(parts: MoveParts) {
    this.#parts = parts;
    this.#failed.promise.catch(() => undefined);
    const writable = parts.machine.disks.filter(({ readOnly }) => !readOnly);
    this.#disks = new DiskReceiver(writable, (reason) => this.#fail(new VmmRefused(reason)));
  }

  /** While it waits for a machine, the VMM answers nobody. */
  get isBusy(): boolean {
    return !this.#isAnswered;
  }

  /** Returns when all of its sockets are listened at. @throws VmmRefused, VmmUnreachable */
  async begin(route: ReceiveRoute): Promise<MigrationArrival> {
    const { api, limits, path } = this.#parts;
    removeSocket(path);
    const order = { receiver_url: `unix:${path}` };
    // It answers when all is over.
    const answered = api.put("vm.receive-migration", order, limits.moveTime).finally(() => {
      this.#isAnswered = true;
    });
    answered.catch((error: unknown) => this.#fail(error));
    await this.#listens();
    this.#listen(route.memory, (socket) => void this.#lead(socket));
    if (route.disks.ids.length > 0) {
      this.#listen(route.disks.socket, (socket) => this.#disks.take(socket));
    }
    const arrived = Promise.race([answered, this.#failed.promise]);
    arrived.catch(() => this[Symbol.dispose]());
    return { arrived, endDisks: async () => this.#disks.end() };
  }

  /** Its event monitor says that it listens. */
  hearReady(): void {
    this.#ready.resolve();
  }

  /** Not asked by a connection: the VMM takes one alone, which is the machine's. */
  async #listens(): Promise<void> {
    const { limits, loop, path } = this.#parts;
    using _late = loop.wakeAfter(limits.connectTime, () =>
      this.#fail(new VmmUnreachable(`The VMM does not listen at ${path}`)),
    );
    await Promise.race([this.#ready.promise, this.#failed.promise]);
  }

  #listen(path: string, onSocket: (socket: ByteSocket) => void): void {
    removeSocket(path);
    const server = Bun.listen<SocketData>({
      unix: path,
      data: { peer: undefined },
      socket: { ...byteSocketHandlers, open: (raw) => onSocket(new ByteSocket(raw)) },
    });
    this.#servers.push(server);
  }

  async #lead(far: ByteSocket): Promise<void> {
    const reader = new MoveReader(this.#parts.limits.messageBytes);
    try {
      const vmm = await connectUnixBytes(this.#parts.path);
      for (const socket of [far, vmm]) this.#sockets.add(socket);
      vmm.onDrained = () => far.resume();
      far.onDrained = () => vmm.resume();
      far.listen((bytes) => {
        for (const piece of reader.push(bytes)) if (!this.#pass(piece, vmm)) far.pause();
      });
      vmm.listen((bytes) => {
        if (!far.write(bytes)) vmm.pause();
      });
      void vmm.closed.then(() => far.finish());
      void far.closed.then(() => vmm.finish());
    } catch (error) {
      far.terminate("the VMM takes nothing");
      this.#fail(error);
    }
  }

  /** @returns false when what follows has to wait */
  #pass(piece: MovePiece, vmm: ByteSocket): boolean {
    if (piece.kind === "memory") return vmm.write(piece.bytes);
    if (piece.kind === "refused") {
      const { expected, received } = piece.refusal;
      this.#refuse(`no machine comes: expected ${expected}, received ${received}`, vmm);
      return true;
    }
    const { command, payload } = piece.request;
    if (command === "config") {
      const placed = placeConfig(new TextDecoder().decode(payload), this.#parts.config);
      if (typeof placed === "object") {
        this.#refuse(placed.refusal, vmm);
        return true;
      }
      const bytes = new TextEncoder().encode(placed);
      vmm.write(encodeRequest("config", bytes.length));
      return vmm.write(bytes);
    }
    const last = command === "complete" ? "complete-paused" : command;
    vmm.write(encodeRequest(last, payload.length));
    return vmm.write(payload);
  }

  #refuse(reason: string, vmm: ByteSocket): void {
    vmm.terminate(reason);
    this.#fail(new VmmRefused(reason));
  }

  #fail(error: unknown): void {
    this.#failed.reject(error);
  }

  [Symbol.dispose](): void {
    for (const server of this.#servers) server.stop();
    for (const socket of this.#sockets) socket.terminate("it was given up");
    this.#disks[Symbol.dispose]();
    removeSocket(this.#parts.path);
  }
}
