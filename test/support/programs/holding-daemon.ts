/**
 * A daemon that has files held and says so: CONTROL_SOCKET HOSTLER FOLDER. The holder test kills
 * it.
 */
import { openSync } from "node:fs";
import { join } from "node:path";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { HolderClient } from "../../../src/holding/holder-client.ts";

const COUNT = 100;
const [controlSocket = "", hostler = "", folder = ""] = process.argv.slice(2);
const main = join(import.meta.dirname, "../../../src/main.ts");
const loop = new EventLoop(() => new Worker(main));
const client = new HolderClient(loop, {
  controlSocket,
  command: [hostler, "--hold"],
  onTrouble: (message) => console.error(message),
  onReady: () => {},
});

let kept = 0;
for (let index = 0; index < COUNT; index++) {
  const file = new OwnedDescriptor(openSync(join(folder, `file-${index}`), "a+"));
  client.put(`file-${index}`, file, (refusal) => {
    if (refusal !== undefined) throw new Error(refusal.message);
    kept += 1;
    if (kept === COUNT) console.log(`kept ${kept}`);
  });
  file.close();
}
