/**
 * A worker that starts one program as its VMM and says whom: HOSTLER INVOCATION USER PROGRAM
 * [WORD …]. A test kills it.
 */
import { join } from "node:path";
import { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { startVmm } from "../../../src/vm/perform/vmm-process.ts";

const [hostler = "", invocation = "", user = "", program = "", ...words] = process.argv.slice(2);
const main = join(import.meta.dirname, "../../../src/main.ts");
const loop = new EventLoop(() => new Worker(main));
const start = {
  invocation,
  plan: { program, arguments: words, descriptors: [], devices: ["/dev/null"] },
  environment: [],
  user: Number(user),
  group: Number(user),
  cgroup: undefined,
  limits: {},
  outOfMemoryScore: 0,
  writable: [],
  descriptors: [],
  optional: [],
};
const result = await startVmm(loop, start, { own: { path: hostler, words: [hostler] } });
if (result.kind === "refused") throw new Error(result.refusal.message);
console.log(`started ${JSON.stringify(result.identity)}`);
