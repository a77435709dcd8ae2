import type { StreamConnection } from "../../messaging/stream-connection.ts";
import {
  DESCRIPTOR_BYTE,
  encodeError,
  encodePong,
  encodeStarted,
  HoldenReader,
  type HoldenRequest,
} from "../holden-protocol.ts";
import { newInvocation } from "../invocation.ts";
import type { Children } from "./children.ts";

/** A client that speaks Holden v0.2: it gets pidfds, and no word of how a child ended. */
export class HoldenSession {
  readonly #stream: StreamConnection;
  readonly #reader = new HoldenReader();
  readonly #children: Children;
  readonly #environment: readonly string[];
  readonly #onEnd: (reason: string) => void;
  readonly #onMessage: () => void;

  constructor(
    stream: StreamConnection,
    options: {
      readonly children: Children;
      readonly environment: readonly string[];
      /** A whole message has come; until then it may be anything that connected. */
      readonly onMessage: () => void;
      readonly onEnd: (reason: string) => void;
    },
  ) {
    this.#stream = stream;
    this.#children = options.children;
    this.#environment = options.environment;
    this.#onEnd = options.onEnd;
    this.#onMessage = options.onMessage;
    stream.setHandlers({
      onBytes: (bytes, descriptors) => {
        for (const descriptor of descriptors) descriptor.close();
        this.receive(bytes);
      },
      onEnd: (reason) => this.#onEnd(reason),
    });
  }

  receive(bytes: Uint8Array): void {
    this.#reader.push(bytes);
    for (
      let request = this.#reader.next();
      request !== undefined && this.#stream.isOpen;
      request = this.#reader.next()
    ) {
      this.#onMessage();
      this.#handle(request);
    }
  }

  #handle(request: HoldenRequest): void {
    switch (request.kind) {
      case "ping":
        this.#stream.send(encodePong());
        break;
      case "unknown":
        this.#stream.send(encodeError(`Unknown message type: ${request.type}`));
        break;
      case "refused":
        this.#stream.send(encodeError(request.message));
        this.#stream.finish();
        this.#onEnd(`its message is wrong: ${request.message}`);
        break;
      case "start":
        this.#start(request.argv);
        break;
    }
  }

  #start(argv: readonly string[]): void {
    const invocation = newInvocation();
    const environment = [...this.#environment, `INVOCATION_ID=${invocation}`];
    // As the C agent has it: a child keeps the agent's own standard input, output and error.
    const descriptors = [0, 1, 2].map((number) => ({ source: number, target: number }));
    const request = { invocation, argv, environment, descriptors, leftovers: "keep" as const };
    this.#children.start(request, (result) => {
      if (result.kind === "refused") {
        this.#stream.send(encodeError(result.refusal.message));
        return;
      }
      this.#stream.send(encodeStarted(result.processId));
      this.#stream.send(new Uint8Array([DESCRIPTOR_BYTE]), [result.process.number]);
    });
  }
}
