/** What every command says of itself: a change of it is seen in review. */
import { expect, test } from "bun:test";
import type { Command } from "../../src/command-line/definition.ts";
import { renderHelp } from "../../src/command-line/help.ts";
import { root } from "../../src/command-line/root.ts";
import { luoctlCommand, luodCommand } from "../../src/live-update/command.ts";
import { holdenAgentCommand, holdenOrchestratorCommand } from "../../src/process/command.ts";

interface Named {
  readonly path: string;
  readonly command: Command;
}

async function all(command: Command, path = command.meta.name): Promise<Named[]> {
  const below: Named[][] = [];
  for (const [name, child] of Object.entries(command.subCommands ?? {})) {
    below.push(await all(await child.load(), `${path} ${name}`));
  }
  return [{ path, command }, ...below.flat()];
}

const commands = [
  ...(await all(root)),
  ...(await all(holdenAgentCommand)),
  ...(await all(holdenOrchestratorCommand)),
  ...(await all(luodCommand)),
  // What is below it is below hostler live-update, too.
  { path: "luoctl", command: luoctlCommand },
];

test.each(commands.map(({ path, command }) => [path, command] as const))(
  "%s --help",
  (path, command) => {
    expect(renderHelp(command, path)).toMatchSnapshot(path);
  },
);

test.each(commands.map(({ path, command }) => [path, command] as const))(
  "%s has an example, and lines that a terminal takes",
  (path, command) => {
    expect(command.meta.examples ?? []).not.toEqual([]);
    const lines = renderHelp(command, path).split("\n");
    expect(lines.filter((line) => line.length > 100)).toEqual([]);
  },
);
