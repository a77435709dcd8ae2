/** The compiled operator, and devices whose words a test writes itself. */
import { writeFileSync } from "node:fs";
import {
  candidateKey,
  canonicalKey,
  fleetBuckets,
  type Marker,
} from "../../../src/fleet/protocol.ts";
import type { DeviceView, RolloutView } from "../../../src/fleet/protocol-operator.ts";
import { type AuthorityStart, runHostler, saysDone, TestAuthority } from "../authority.ts";
import type { ProgramResult } from "../program.ts";
import { RawHost, RawLink } from "../raw-host.ts";
import { builds, heartbeatOf, hex, statusOf } from "./device-life.ts";

/** As a device sees it, without the manifest. */
export type ShownMarker = Omit<Marker, "manifest">;

export interface Shown {
  readonly device: DeviceView;
  readonly marker: ShownMarker | null;
}

const manifest = {
  ...{ format: 1, product: "hostler", version: builds.new.version, floor: "1.0.0" },
  builds: [{ architecture: "x64", libc: "glibc", digest: builds.new.digest, size: 100 }],
};

export class TestFleet implements AsyncDisposable {
  readonly authority = new TestAuthority();
  readonly devices: ScriptedDevice[] = [];

  static async start(): Promise<TestFleet> {
    const fleet = new TestFleet();
    try {
      await fleet.start();
      return fleet;
    } catch (error) {
      await fleet[Symbol.asyncDispose]();
      throw error;
    }
  }

  async start(options: Omit<AuthorityStart, "role"> = {}): Promise<void> {
    await this.authority.start({ ...options, role: ["fleet", "operator"] });
  }

  words(...words: readonly string[]): string[] {
    return ["fleet", ...words, "--control-socket", this.authority.controlSocket];
  }

  async ask(...words: readonly string[]): Promise<string> {
    return await saysDone(this.words(...words));
  }

  async tries(...words: readonly string[]): Promise<ProgramResult> {
    return await runHostler(this.words(...words));
  }

  /** Words of a rollout. */
  rollout(...flags: readonly string[]): string[] {
    const path = this.authority.folder.file("manifest.json");
    const text = JSON.stringify({ format: 1, signed: JSON.stringify(manifest), signatures: [] });
    writeFileSync(path, text);
    return ["rollout", path, "--source", "https://files.example/hostler", ...flags];
  }

  async device(name: string): Promise<ScriptedDevice> {
    const host = new RawHost(await this.authority.token(name));
    await host.enrol();
    const device = new ScriptedDevice(name, host, this.authority);
    this.devices.push(device);
    await device.connect();
    return device;
  }

  async show(device: string): Promise<Shown> {
    return JSON.parse(await this.ask("show", device, "--json")) as Shown;
  }

  async history(rollout: string): Promise<RolloutView> {
    const answer = JSON.parse(await this.ask("history", rollout, "--json"));
    return (answer as { readonly rollout: RolloutView }).rollout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const device of this.devices) device.close();
    await this.authority[Symbol.asyncDispose]();
  }
}

const numbers = { next: 1 };

/** A device that says what a test has it say. */
export class ScriptedDevice {
  readonly name: string;
  readonly #host: RawHost;
  readonly #authority: TestAuthority;
  #link: RawLink | undefined;
  #step = 0;
  #sequence = 0;

  constructor(name: string, host: RawHost, authority: TestAuthority) {
    this.name = name;
    this.#host = host;
    this.#authority = authority;
  }

  /** Again, when the operator was started anew. */
  async connect(): Promise<void> {
    this.close();
    const bearer = await this.#host.bearer(this.name);
    this.#link = new RawLink(this.#authority.address, bearer);
    await this.#link.heard("welcome");
  }

  close(): void {
    this.#link?.close();
  }

  /** @returns "written", or the problem that it was refused with */
  async put(bucket: string, key: string, value: unknown): Promise<string> {
    const link = this.#link;
    if (link === undefined) throw new Error(`${this.name} is not connected`);
    const id = numbers.next;
    numbers.next += 1;
    const text = JSON.stringify(value);
    link.say({ kind: "put", id, bucket, key, value: text, write_id: `${this.name}-${id}` });
    const answer = await link.heard(id);
    if (answer["kind"] === "written") return "written";
    return (answer["problem"] as { readonly kind: string }).kind;
  }

  /** @returns as `put` */
  async says(change: Parameters<typeof statusOf>[0] = {}): Promise<string> {
    this.#step += 1;
    const status = statusOf({ step: this.#step, ...change });
    return await this.put(fleetBuckets.statuses, this.name, status);
  }

  async beats(): Promise<string> {
    this.#sequence += 1;
    const heartbeat = heartbeatOf({ sequence: this.#sequence });
    return await this.put(fleetBuckets.heartbeats, canonicalKey(this.name), heartbeat);
  }

  /** It is there, and runs the old version. */
  async arrives(): Promise<void> {
    await this.says();
    await this.beats();
  }

  /** Its candidate for this marker is ready. */
  async isReady({ transaction, build }: ShownMarker): Promise<void> {
    const candidate = { ...build, instance: hex("c", 32) };
    await this.says({ transaction, phase: "cutover-ready", candidate });
  }

  async candidateBeats({ transaction, build }: ShownMarker): Promise<void> {
    this.#sequence += 1;
    const own = { transaction, ...build, instance: hex("c", 32), sequence: this.#sequence };
    await this.put(fleetBuckets.heartbeats, candidateKey(this.name), heartbeatOf(own));
  }
}
