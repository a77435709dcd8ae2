/**
 * Sessions where systemd shuts down: `keep NAME` holds one with a file for as long as it lives, and
 * `look` tells after the kexec which of them came along.
 */
import { readSync, writeFileSync, writeSync } from "node:fs";
import {
  createSession,
  preserveDescriptor,
  retrieveDescriptor,
  retrieveSession,
} from "../../../ffi/live-update.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import { waitFor } from "../../support/wait-for.ts";
import { requireEqual, tellCases } from "./tell.ts";

const survivor = "a service that survives the final kill keeps its session";
const ordinary = "a service without it is killed, and its session is gone";

async function keep(name: string): Promise<void> {
  // The other service may have the device open at this moment.
  const session = await waitFor("the device", () => {
    const created = createSession(name);
    return created === -Errno.EBUSY ? undefined : created;
  });
  if (typeof session === "number") throw new Error(`create ${name}: error ${-session}`);
  const file = makeMemoryFile(name);
  writeSync(file.number, name);
  requireEqual(preserveDescriptor(session, file, 1n), 0);
  writeFileSync(`/run/kept-${name}`, "");
  // Nothing else keeps a Bun from ending.
  setInterval(() => {}, 2 ** 30);
}

function contentOf(name: string): string {
  const session = retrieveSession(name);
  if (typeof session === "number") throw new Error(`retrieve ${name}: error ${-session}`);
  const file = retrieveDescriptor(session, 1n);
  if (typeof file === "number") throw new Error(`token 1 of ${name}: error ${-file}`);
  const bytes = new Uint8Array(name.length);
  readSync(file.number, bytes, 0, bytes.length, 0);
  return new TextDecoder().decode(bytes);
}

const [verb, name = ""] = Bun.argv.slice(2);
if (verb === "keep") await keep(name);
else {
  const failures = await tellCases({
    [survivor]: () => requireEqual(contentOf("survivor"), "survivor"),
    [ordinary]: () => requireEqual(retrieveSession("ordinary"), -Errno.ENOENT),
  });
  process.exitCode = failures === 0 ? 0 : 1;
}
