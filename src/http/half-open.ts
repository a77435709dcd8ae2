/**
 * Connections on which nothing was asked yet, by where they come from. Where one has to go, it is
 * the oldest of the address that has the most: so whoever opens many crowds out his own, and one
 * who comes alone stays for as long as it takes to ask something. Were it the oldest of all, ten
 * thousand at once would push out everybody who is still at his handshake.
 */
export class HalfOpenConnections<Connection> {
  /** Oldest first. */
  readonly #byAddress = new Map<string, Set<Connection>>();
  /** Addresses by how many they have; first who has had so many for longest. */
  readonly #byCount = new Map<number, Set<string>>();
  /** The greatest count that somebody has. */
  #most = 0;

  countOf(address: string): number {
    return this.#byAddress.get(address)?.size ?? 0;
  }

  add(address: string, connection: Connection): void {
    const own = this.#byAddress.get(address) ?? new Set();
    this.#byAddress.set(address, own);
    this.#uncount(address, own.size);
    own.add(connection);
    this.#count(address, own.size);
    this.#most = Math.max(this.#most, own.size);
  }

  /** Nothing happens to one that is not here. */
  delete(address: string, connection: Connection): void {
    const own = this.#byAddress.get(address);
    if (own?.has(connection) !== true) return;
    this.#uncount(address, own.size);
    own.delete(connection);
    if (own.size === 0) this.#byAddress.delete(address);
    else this.#count(address, own.size);
    while (this.#most > 0 && !this.#byCount.has(this.#most)) this.#most -= 1;
  }

  oldestOf(address: string): Connection | undefined {
    return this.#byAddress.get(address)?.values().next().value;
  }

  /** Whose turn it is to go. */
  oldestOfMost(): Connection | undefined {
    const address = this.#byCount.get(this.#most)?.values().next().value;
    return address === undefined ? undefined : this.oldestOf(address);
  }

  #count(address: string, count: number): void {
    const same = this.#byCount.get(count) ?? new Set();
    this.#byCount.set(count, same.add(address));
  }

  #uncount(address: string, count: number): void {
    const same = this.#byCount.get(count);
    same?.delete(address);
    if (same?.size === 0) this.#byCount.delete(count);
  }
}
