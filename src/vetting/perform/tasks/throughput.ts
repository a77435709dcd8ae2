import { setCloseOnExec } from "../../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../../ffi/memory.ts";
import { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { pollDescriptor } from "../../../../ffi/poll.ts";
import { sendBytes } from "../../../../ffi/tcp-socket.ts";
import { finishWriting } from "../../../../ffi/unix-socket.ts";
import {
  THROUGHPUT_SOCKET,
  THROUGHPUT_TASK,
  throughputInputSchema,
  throughputReportSchema,
} from "../../tasks/throughput.ts";
import { TEST_MARGIN, type ThroughputAnswer } from "../../throughput/protocol.ts";
import { defineTask, TaskRefused } from "../task.ts";
import { Flow } from "../throughput/flow.ts";
import { serveIperf3 } from "../throughput/serve-iperf3.ts";

/** The server's end of a test, in a process of its own: its daemon goes on answering others. */
export const throughputTask = defineTask({
  name: THROUGHPUT_TASK,
  input: throughputInputSchema,
  report: throughputReportSchema,
  run: async ({ direction, seconds, tool, address }, { signal }) => {
    using socket = new OwnedDescriptor(THROUGHPUT_SOCKET);
    setCloseOnExec(socket.number);
    const time = seconds * 1_000;
    if (tool !== undefined) {
      const refusal = await serveIperf3(socket, {
        ...{ address, limit: Math.ceil(time) + 2 * TEST_MARGIN, signal },
        tellPort: (port) => answer(socket, { say: "go", port }),
      });
      if (refusal !== undefined) answer(socket, { say: "refused", reason: refusal });
      return { bytes: 0, ended: refusal ?? "end" };
    }
    using flow = new Flow();
    answer(socket, { say: "go" });
    if (direction === "down") {
      const { bytes, ended } = await flow.send(socket, time, signal);
      finishWriting(socket);
      return { bytes, ended };
    }
    const most = { silence: TEST_MARGIN, all: time + TEST_MARGIN };
    const { bytes, seconds: took, corrupted, ended } = await flow.receive(socket, most, signal);
    if (ended === "end") answer(socket, { say: "done", bytes, seconds: took, corrupted });
    return { bytes, ended };
  },
});

/** @throws TaskRefused where the other end takes none for so long that it is not there */
function answer(socket: OwnedDescriptor, body: ThroughputAnswer): void {
  const line = new TextEncoder().encode(`${JSON.stringify(body)}\n`);
  const memory = new NativeMemory(line.length);
  memory.bytes.set(line);
  pollDescriptor(socket, "writable", TEST_MARGIN);
  // A socket that nothing was written to takes so few bytes at once.
  const sent = sendBytes(socket, memory.address, line.length);
  if (sent !== line.length) throw new TaskRefused(`The other end takes no line: ${sent}`);
}
