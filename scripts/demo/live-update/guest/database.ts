/**
 * A small database for the demo's guest: keys and values in a file in memory, by lines on a Unix
 * socket. It has no disk and no log, and knows nothing of live update: it takes its table where a
 * service manager leaves files for it (LISTEN_FDS, sd_listen_fds(3)), or makes an empty one.
 *
 *   SET KEY VALUE → OK     GET KEY → VALUE, or (none)     COUNT → how many rows
 */
import { fstatSync } from "node:fs";
import { createServer } from "node:net";
import { makeMemoryFile } from "../../../../ffi/memory-file.ts";
import { Table } from "./table.ts";

const socket = "/run/database.sock";
const tableName = "table";
const firstListenDescriptor = 3;

function run(): void {
  const left = leftDescriptor();
  const number = left ?? makeMemoryFile(tableName).release();
  const table = Table.open(number, fstatSync(number).size);
  serve(table);
  const origin = left === undefined ? "an empty table" : "the table that was left for it";
  console.log(`serves ${origin}, ${table.rows} rows, /proc/${process.pid}/fd/${number}`);
}

function leftDescriptor(): number | undefined {
  const names = process.env["LISTEN_FDNAMES"]?.split(":") ?? [];
  const place = names.indexOf(tableName);
  const isOurs = Number(process.env["LISTEN_PID"]) === process.pid;
  return isOurs && place >= 0 ? firstListenDescriptor + place : undefined;
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

run();
