/**
 * A child that SIGKILL does not end: it waits for a file system in user space that has taken its
 * question and never answers, fuse(4). Run in a mount namespace of its own; prints what was told.
 */
import { closeSync, mkdirSync, openSync, read, writeSync } from "node:fs";
import { join } from "node:path";
import { TaskRunner } from "../../../src/vetting/perform/task-runner.ts";
import { repositoryRoot } from "../binary.ts";
import { testEventLoop } from "../event-loop.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { waitFor, withDeadline } from "../wait-for.ts";

const INIT = 26;
const HEADER = 16;
/** struct fuse_init_out, include/uapi/linux/fuse.h. */
const INIT_OUT = 64;

/** Answers the kernel's first question, then takes all others and says nothing. */
function serve(device: number): void {
  const bytes = Buffer.alloc(1024 ** 2);
  read(device, bytes, 0, bytes.length, null, (error, length) => {
    if (error !== null || length <= 0) return;
    if (bytes.readUInt32LE(4) === INIT) {
      const answer = Buffer.alloc(HEADER + INIT_OUT);
      answer.writeUInt32LE(answer.length, 0);
      bytes.copy(answer, 8, 8, 16);
      answer.writeUInt32LE(7, HEADER);
      answer.writeUInt32LE(31, HEADER + 4);
      answer.writeUInt16LE(16, HEADER + 16);
      answer.writeUInt16LE(12, HEADER + 18);
      answer.writeUInt32LE(128 * 1024, HEADER + 20);
      answer.writeUInt32LE(1, HEADER + 24);
      writeSync(device, answer);
    }
    serve(device);
  });
}

using folder = temporaryFolder();
using loop = testEventLoop();
const place = folder.file("mount");
mkdirSync(place);
const device = openSync("/dev/fuse", "r+");
const options = "fd=3,rootmode=40000,user_id=0,group_id=0";
const mounted = Bun.spawnSync(["mount", "-i", "-t", "fuse", "-o", options, "hostler", place], {
  stdio: ["ignore", "inherit", "inherit", device],
});
if (mounted.exitCode !== 0) throw new Error("Cannot mount");
serve(device);
const runner = new TaskRunner({
  ...{ loop, folder: folder.path, grace: 100, stuckAfter: 1_000 },
  own: {
    path: "/proc/self/exe",
    words: [process.execPath, join(repositoryRoot, "test/support/vetting/task-child.ts")],
  },
});
const order = { task: "look", input: { path: join(place, "nobody") } };
const running = runner.start(order, { deadline: 2_000, onLine: () => {} });
const ending = await withDeadline("its end", running.ended);
const whileStuck = { count: runner.count, stuck: runner.stuck.map(({ task }) => task) };
// Others go on beside it.
const other = runner.start(
  { task: "echo", input: { text: "beside" } },
  {
    ...{ deadline: 20_000, onLine: () => {} },
  },
);
const beside = await withDeadline("the other", other.ended);
// By force: whoever waits for an answer gets an error. A read of the device is still on its way.
Bun.spawnSync(["umount", "--no-canonicalize", "--force", place]);
await waitFor("it to be gone", () => runner.count === 0);
Bun.spawnSync(["umount", "--no-canonicalize", "--lazy", place]);
closeSync(device);
process.stdout.write(`${JSON.stringify({ ending, whileStuck, beside, after: runner.stuck })}\n`);
