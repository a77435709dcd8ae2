/**
 * Frames of Holden v0.2 as its C structures lay them out, built without the code that they test:
 * a header {uint32 type; uint32 length}, then the structure.
 */
export function goldenHeader(type: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, length, true);
  return bytes;
}

/** A char array of C: the text, and zeroes to its end. */
function characters(text: string, size: number): Buffer {
  return Buffer.concat([Buffer.from(text, "utf8"), Buffer.alloc(size)], size);
}

function integer(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

function frame(type: number, ...fields: readonly Buffer[]): Uint8Array<ArrayBuffer> {
  const body = Buffer.concat(fields);
  return new Uint8Array(Buffer.concat([goldenHeader(type, body.length), body]));
}

/** char name[256]; char args[32][256]; int arg_count */
export function goldenStart(argv: readonly string[]): Uint8Array<ArrayBuffer> {
  const [name = "", ...rest] = argv;
  const fields = Array.from({ length: 32 }, (_value, index) => characters(rest[index] ?? "", 256));
  return frame(1, characters(name, 256), ...fields, integer(rest.length));
}

/** pid_t host_pid; pid_t container_pid */
export const goldenStarted = (processId: number) =>
  frame(2, integer(processId), integer(processId));

/** char error[512] */
export const goldenError = (text: string) => frame(3, characters(text, 512));
export const goldenPing = () => goldenHeader(11, 0);
export const goldenPong = () => goldenHeader(12, 0);
