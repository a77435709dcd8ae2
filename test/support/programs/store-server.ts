/**
 * Serves an embedded store: SOCKET FOLDER BACKUP. SIGUSR2 has it write a backup. Tests kill it,
 * stop it, and put it back to its backup.
 */
import { rmSync } from "node:fs";
import { monotonicNow } from "../../../src/event-loop/clock.ts";
import { EmbeddedStore } from "../../../src/store/embedded-store.ts";
import { testEventLoop } from "../event-loop.ts";
import { conformanceBuckets } from "../store-buckets.ts";
import { serveStore } from "../store-server.ts";

const [socket = "", folder = "", backup = ""] = process.argv.slice(2);
const loop = testEventLoop();
const store = EmbeddedStore.open({
  folder,
  buckets: conformanceBuckets,
  clocks: { wall: Date.now, monotonic: monotonicNow },
});
rmSync(socket, { force: true });
serveStore({ loop, store, unix: socket, incarnation: store.incarnation });
process.on("SIGUSR2", () => {
  rmSync(backup, { force: true });
  store.backup(backup).then(
    () => console.log("backed up"),
    (error: unknown) => console.error(error),
  );
});
console.log("serving");
