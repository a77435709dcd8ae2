/** Bytes that are filled in at their places; numbers are little-endian, as firmware has them. */
export class ByteImage {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
  }

  text(at: number, value: string): void {
    this.bytes.set(new TextEncoder().encode(value), at);
  }

  short(at: number, value: number): void {
    this.#view.setUint16(at, value, true);
  }

  long(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }

  /** 64 bits. */
  quad(at: number, value: number): void {
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  getShort(at: number): number {
    return this.#view.getUint16(at, true);
  }

  getLong(at: number): number {
    return this.#view.getUint32(at, true);
  }
}

/** The next multiple of `unit`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
