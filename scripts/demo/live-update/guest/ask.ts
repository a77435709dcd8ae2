/**
 * Asks the demo's database. Each word of the command line is one command, whose answer is printed.
 * Without words the commands come on standard input, and how many were OK is printed.
 */
import { connect } from "node:net";

const commands = Bun.argv.slice(2);
const input = commands.length === 0 ? await Bun.stdin.text() : `${commands.join("\n")}\n`;
const expected = input.split("\n").length - 1;
const answers: string[] = [];
let rest = "";

const connection = connect("/run/database.sock");
connection.setEncoding("utf8");
connection.on("data", (text: string) => {
  const lines = (rest + text).split("\n");
  rest = lines.pop() ?? "";
  answers.push(...lines);
  if (answers.length < expected) return;
  const good = answers.filter((line) => line === "OK").length;
  console.log(commands.length === 0 ? `${good} of ${expected} are OK` : answers.join("\n"));
  connection.destroy();
});
connection.on("error", (error) => {
  console.error(`the database does not answer: ${error.message}`);
  process.exitCode = 1;
});
connection.write(input);
