/** A static server of the bench: it says how much it has sent. */
import { readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";

/** A static server with Range, as any web server is, that counts the bytes of its bodies. */
export class CountingServer implements AsyncDisposable {
  sent = 0;
  readonly #folder: string;
  readonly #server: Bun.Server<undefined>;

  constructor(folder: string) {
    this.#folder = folder;
    this.#server = Bun.serve({
      ...{ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#answer(request) },
    });
  }

  get address(): string {
    return this.#server.url.href;
  }

  #answer(request: Request): Response {
    // Stores of some peers have folders in them; none of them leads out of its own.
    const path = join(this.#folder, decodeURIComponent(new URL(request.url).pathname));
    const found = statSync(path, { throwIfNoEntry: false })?.isFile() === true;
    if (!found) return new Response(basename(path), { status: 404 });
    const file = readFileSync(path);
    const asked = /^bytes=([\d,-]+)$/.exec(request.headers.get("range") ?? "")?.[1];
    if (asked === undefined) return this.#send(file, 200, {});
    const parts = asked.split(",").map((range) => partOf(file, range));
    const [first] = parts;
    if (first !== undefined && parts.length === 1) {
      return this.#send(first.bytes, 206, { "content-range": first.range });
    }
    // As zsync asks: RFC 9110, section 14.6.
    const pieces = parts.flatMap(({ range, bytes }) => {
      return [Buffer.from(`\r\n--${boundary}\r\ncontent-range: ${range}\r\n\r\n`), bytes];
    });
    const body = Buffer.concat([...pieces, Buffer.from(`\r\n--${boundary}--\r\n`)]);
    return this.#send(body, 206, { "content-type": `multipart/byteranges; boundary=${boundary}` });
  }

  #send(bytes: Buffer, status: number, headers: Record<string, string>): Response {
    this.sent += bytes.length;
    return new Response(new Uint8Array(bytes), { status, headers });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

const boundary = "part-of-a-file";

function partOf(file: Buffer, range: string): { readonly range: string; readonly bytes: Buffer } {
  const [from = 0, to = file.length - 1] = range.split("-").map(Number);
  const bytes = file.subarray(from, to + 1);
  return { range: `bytes ${from}-${from + bytes.length - 1}/${file.length}`, bytes };
}
