/**
 * A small database for the demo's guest: keys and values in a file in memory, by lines on a Unix
 * socket. It has no disk, and no log: what it knows it holds in that file, which luod carries into
 * the next kernel.
 *
 *   SET KEY VALUE → OK     GET KEY → VALUE, or (none)     COUNT → how many rows
 */
import { fstatSync } from "node:fs";
import { createServer } from "node:net";
import { preserveDescriptor, retrieveDescriptor } from "../../../../ffi/live-update.ts";
import { makeMemoryFile } from "../../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { EventLoop } from "../../../../src/event-loop/event-loop.ts";
import { runWaitThread } from "../../../../src/event-loop/wait-thread.ts";
import { LuodConnection } from "./luod-connection.ts";
import { Table, tableBytes } from "./table.ts";

const socket = "/run/database.sock";
/** Of the table, in the session. */
const token = 1n;

function say(words: string): void {
  console.log(`database: ${words}`);
}

async function run(): Promise<void> {
  const kept: { file?: OwnedDescriptor } = {};
  const onStart = (session: OwnedDescriptor) => {
    if (kept.file === undefined) return;
    const begin = performance.now();
    const result = preserveDescriptor(session, kept.file, token);
    if (result < 0) throw new Error(`The table was not preserved: error ${-result}`);
    say(`the table is preserved, after ${Math.round(performance.now() - begin)} ms`);
    luod.ready(tableBytes);
  };
  const onAborted = (reason: string) => say(`the update is rolled back: ${reason}`);
  const loop = new EventLoop(() => new Worker(Bun.main));
  const luod = new LuodConnection("database", { onStart, onAborted }, loop);
  const session = await luod.claim();
  kept.file = session === undefined ? makeMemoryFile("table") : takeFrom(session);
  session?.close();
  const { number } = kept.file;
  const table = Table.open(number, fstatSync(number).size);
  if (session !== undefined) luod.finished();
  luod.subscribe();
  serve(table);
  const origin = session === undefined ? "an empty table" : "the table of the former kernel";
  say(`serves ${origin}, ${table.rows} rows, from /proc/${process.pid}/fd/${number}`);
}

function takeFrom(session: OwnedDescriptor): OwnedDescriptor {
  const file = retrieveDescriptor(session, token);
  if (typeof file === "number") throw new Error(`The table was not retrieved: error ${-file}`);
  return file;
}

function serve(table: Table): void {
  const server = createServer((connection) => {
    let rest = "";
    connection.setEncoding("utf8");
    connection.on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      connection.write(lines.map((line) => answer(table, line)).join(""));
    });
    // One that asks and goes away before its answer is no concern of others.
    connection.on("error", () => connection.destroy());
  });
  server.listen(socket);
}

function answer(table: Table, line: string): string {
  const [, command, key = "", value = ""] = /^(\w+)(?: (\S+))?(?: (.*))?$/.exec(line) ?? [];
  switch (command) {
    case "SET": {
      const trouble = table.set(key, value);
      return trouble === undefined ? "OK\n" : `ERROR ${trouble}\n`;
    }
    case "GET":
      return `${table.get(key) ?? "(none)"}\n`;
    case "COUNT":
      return `${table.rows}\n`;
    default:
      return "ERROR expected SET KEY VALUE, GET KEY or COUNT\n";
  }
}

if (Bun.isMainThread) await run();
else runWaitThread();
