/**
 * A client whom no update may go without, and who is never ready: it says to luod that it is there,
 * and nothing more. What luod says to it is printed.
 */
import { connect } from "node:net";

const words = [
  { cmd: "HELLO", protocol: 1, program: "the demo's late client" },
  { cmd: "SUBSCRIBE", id: "late", required: true, deadline_ms: 3_000 },
];
const connection = connect("/run/luod/liveupdate.sock");
connection.setEncoding("utf8");
connection.on("data", (text: string) => process.stdout.write(text));
connection.write(words.map((line) => `${JSON.stringify(line)}\n`).join(""));
