/** The HTTP of the fake: by hand, so that it can be wrong in each way that HTTP can be. */
import { createServer, type Socket } from "node:net";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import type { FakeOrders } from "./fake-cloud-hypervisor.ts";

const ROOT = "/api/v1/";
/** How much later a late answer comes. */
const LATE_MILLISECONDS = 2_500;
/** More than any client takes. */
const FLOOD_BYTES = 16 * 1024 * 1024;

export interface FakeAnswer {
  readonly status: number;
  readonly body?: string;
}

export interface FakeApi {
  /** @param endpoint "vm.boot", or a whole path that is not the API's */
  call(method: string, endpoint: string, body: string | undefined): Promise<FakeAnswer>;
  misbehaviour(endpoint: string): FakeOrders["how"];
  readonly loop: EventLoop;
}

export interface FakeServer {
  /** Ends connections as well, when what was written is out. */
  close(): void;
}

export function serveFakeApi(path: string, api: FakeApi): FakeServer {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    let received = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", (bytes: Buffer) => {
      received = Buffer.concat([received, bytes]);
      const request = readRequest(received);
      if (request === undefined) return;
      received = Buffer.alloc(0);
      answer(socket, request, api).catch((failure: unknown) => {
        console.error("fake cloud-hypervisor:", failure);
        socket.destroy();
      });
    });
  });
  server.listen(path);
  return {
    close: () => {
      server.close();
      for (const socket of open) socket.end();
    },
  };
}

interface Request {
  readonly method: string;
  readonly endpoint: string;
  readonly body: string | undefined;
}

/** undefined while it has not come whole. */
function readRequest(bytes: Buffer): Request | undefined {
  const end = bytes.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const head = bytes.subarray(0, end).toString("latin1");
  const [, method = "", target = ""] = /^(\S+) (\S+) HTTP\/1\.1/.exec(head) ?? [];
  const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
  const body = bytes.subarray(end + 4);
  if (body.length < length) return undefined;
  const endpoint = target.startsWith(ROOT) ? target.slice(ROOT.length) : target;
  return { method, endpoint, body: length === 0 ? undefined : body.toString("utf8") };
}

async function answer(socket: Socket, request: Request, api: FakeApi): Promise<void> {
  const { method, endpoint, body } = request;
  const how = api.misbehaviour(endpoint);
  switch (how) {
    case "hang":
      return;
    case "close":
      socket.destroy();
      return;
    case "garbage":
      socket.end("QEMU? No. \x00\x01\xff\r\n\r\n");
      return;
    case "half":
      socket.end('HTTP/1.1 200 \r\nContent-Length: 100\r\n\r\n{"version":');
      return;
    case "flood":
      socket.end(format({ status: 200, body: `"${"x".repeat(FLOOD_BYTES)}"` }));
      return;
    case "odd":
      socket.end(format({ status: 200, body: '{"version":53,"state":"Dancing"}' }));
      return;
    case "refuse":
      socket.end(format({ status: 500, body: '["Error from API","It was told to refuse"]' }));
      return;
    case "lie":
      socket.end(format({ status: 204 }));
      return;
    case "late":
      api.loop.wakeAfter(LATE_MILLISECONDS, () => {
        api.call(method, endpoint, body).then(
          (told) => socket.end(format(told)),
          () => socket.destroy(),
        );
      });
      return;
    default:
      socket.write(format(await api.call(method, endpoint, body)));
  }
}

/** As micro_http writes it: no reason, and headers in this order. */
function format({ status, body }: FakeAnswer): string {
  const head = `HTTP/1.1 ${status} \r\nServer: Cloud Hypervisor API\r\n`;
  const kept = `${head}Connection: keep-alive\r\n`;
  if (body === undefined) return `${kept}\r\n`;
  const size = Buffer.byteLength(body);
  return `${kept}Content-Type: application/json\r\nContent-Length: ${size}\r\n\r\n${body}`;
}
