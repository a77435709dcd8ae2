/** A control socket that answers as luod would, or as a test has it; every request is validated. */
import * as v from "valibot";
import { type ControlRequest, controlRequestSchema } from "../../src/live-update/protocol.ts";
import { encodeFrame, FrameReader } from "../../src/messaging/frame.ts";
import { temporaryFolder } from "./temporary-folder.ts";

/** A request that waits for its answer. */
export interface Call {
  item(item: unknown): void;
  done(answer: unknown): void;
  refuse(error: object): void;
  /** Ends the connection, as a machine does that enters another kernel. */
  close(): void;
}

export interface LuodStandIn extends Disposable {
  readonly controlSocket: string;
  /** Each without its id. */
  readonly requests: readonly object[];
}

/** @throws Error, in the turn of the socket, for a request that luod's schema refuses */
export function startLuodStandIn(
  answer: (request: ControlRequest, call: Call) => void,
): LuodStandIn {
  const folder = temporaryFolder();
  const controlSocket = folder.file("control.sock");
  const requests: object[] = [];
  const server = Bun.listen<FrameReader>({
    unix: controlSocket,
    socket: {
      open: (socket) => {
        socket.data = new FrameReader({ frameBytes: 65_536, frameDescriptors: 0 });
      },
      data: (socket, bytes) => {
        const reader = socket.data;
        reader.push(bytes);
        for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
          if ("refusal" in frame) throw new Error(frame.refusal.received);
          if ((frame.body as { verb?: unknown }).verb === "ping") {
            socket.write(encodeFrame({ id: (frame.body as { id: number }).id, ok: null }));
            continue;
          }
          const request = v.parse(controlRequestSchema, frame.body);
          const { id, ...rest } = request;
          requests.push(rest);
          const send = (body: object) => socket.write(encodeFrame({ id, ...body }));
          answer(request, {
            item: (item) => send({ item }),
            done: (ok) => send({ ok }),
            refuse: (error) => send({ error }),
            close: () => socket.end(),
          });
        }
      },
    },
  });
  return {
    controlSocket,
    requests,
    [Symbol.dispose]: () => {
      server.stop(true);
      folder[Symbol.dispose]();
    },
  };
}
