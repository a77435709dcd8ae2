import type { DeviceState } from "./lifecycle-state.ts";

const SHARDS = 512;

/**
 * Devices by name, as a value: a map with one device changed shares all but one of its parts with
 * the map before, because each of thousands of heartbeats a second makes a new one.
 */
export class DeviceMap implements Iterable<DeviceState> {
  readonly size: number;
  readonly #shards: readonly (ReadonlyMap<string, DeviceState> | undefined)[];

  private constructor(
    shards: readonly (ReadonlyMap<string, DeviceState> | undefined)[],
    size: number,
  ) {
    this.#shards = shards;
    this.size = size;
  }

  static readonly empty: DeviceMap = new DeviceMap([], 0);

  get(name: string): DeviceState | undefined {
    return this.#shards[shardOf(name)]?.get(name);
  }

  with(device: DeviceState): DeviceMap {
    const index = shardOf(device.name);
    const shard = new Map(this.#shards[index]);
    const size = shard.has(device.name) ? this.size : this.size + 1;
    shard.set(device.name, device);
    return this.#replace(index, shard, size);
  }

  without(name: string): DeviceMap {
    const index = shardOf(name);
    const shard = new Map(this.#shards[index]);
    return shard.delete(name) ? this.#replace(index, shard, this.size - 1) : this;
  }

  *[Symbol.iterator](): Generator<DeviceState> {
    for (const shard of this.#shards) if (shard !== undefined) yield* shard.values();
  }

  #replace(index: number, shard: ReadonlyMap<string, DeviceState>, size: number): DeviceMap {
    const shards = this.#shards.slice();
    shards[index] = shard;
    return new DeviceMap(shards, size);
  }
}

function shardOf(name: string): number {
  return hashOf(name) % SHARDS;
}

/** FNV-1a, 32 bits (draft-eastlake-fnv): spreads names evenly, and is no secret. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  // FNV's last letters hardly reach its upper bits; this spreads them (MurmurHash3's finalizer).
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
