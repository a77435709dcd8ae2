import { type CompletionLevel, completionLevels, type Offer } from "./completion-tree.ts";
import { type Command, defineCommand } from "./definition.ts";
import { printText } from "./output.ts";
import { UsageError } from "./usage-error.ts";

const shells = ["bash", "zsh", "fish"] as const;

/** `hostler completions …`. @param root the tree that is completed */
export function completionsCommand(root: Command): Command {
  return defineCommand({
    meta: {
      name: "completions",
      description: "Print what a shell needs to complete commands, flags and names of processes",
      examples: [
        ["hostler completions bash > /etc/bash_completion.d/hostler", "For every bash"],
        ['hostler completions zsh > "$' + '{fpath[1]}/_hostler"', "For this user's zsh"],
        ["hostler completions fish > ~/.config/fish/completions/hostler.fish", "For fish"],
      ],
    },
    args: {
      shell: { type: "positional", description: "bash, zsh or fish", options: shells },
    },
    run: async (args) => {
      const shell = shells.find((name) => name === args.shell);
      if (shell === undefined) {
        throw new UsageError(`Expected ${shells.join(" or ")}, received ${args.shell}`);
      }
      const levels = await completionLevels(root);
      const render = { bash: renderBash, zsh: renderZsh, fish: renderFish }[shell];
      await printText(render(levels));
      return 0;
    },
  });
}

/** Names of processes come from the orchestrator itself; without one there are none. */
const namesPipeline = [
  'process list --json "$@" 2>/dev/null',
  `grep -o '"name": "[^"]*"'`,
  `cut -d '"' -f 4`,
].join(" | ");

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const pathsBelowRoot = (levels: readonly CompletionLevel[]) =>
  levels.slice(1).map(({ path }) => path);

/** Patterns of `case`: each flag that takes a value, under its level. */
function valueCases(
  levels: readonly CompletionLevel[],
  act: (offer: Offer) => string,
): { readonly pattern: string; readonly action: string }[] {
  return levels.flatMap(({ path, flags }) =>
    flags.flatMap(({ spellings, value }) => {
      if (value === undefined) return [];
      const pattern = spellings.map((spelling) => `"${path} ${spelling}"`).join("|");
      return [{ pattern, action: act(value) }];
    }),
  );
}

function levelCases(
  levels: readonly CompletionLevel[],
  act: (level: CompletionLevel) => string,
): { readonly pattern: string; readonly action: string }[] {
  return levels.map((level) => ({ pattern: `"${level.path}"`, action: act(level) }));
}

const renderCases = (cases: readonly { pattern: string; action: string }[]) =>
  cases.map(({ pattern, action }) => `    ${pattern}) ${action} ;;\n`).join("");

export function renderBash(levels: readonly CompletionLevel[]): string {
  const offer = (found: Offer): string => {
    switch (found.kind) {
      case "file":
        return '_hostler_files "$current"';
      case "process":
        return 'words="$(_hostler_names "$' + '{socket[@]}")"';
      case "words":
        return `words=${quoted(found.words.join(" "))}`;
      case "nothing":
        return ":";
    }
  };
  const level = ({ commands, flags, positional }: CompletionLevel): string => {
    const spellings = flags.flatMap((flag) => flag.spellings).join(" ");
    const names = commands.map(({ name }) => name).join(" ");
    const below = names === "" ? offer(positional) : `words=${quoted(names)}`;
    return `if [[ $current == -* ]]; then words=${quoted(spellings)}; else ${below}; fi`;
  };
  return `# Completions of hostler for bash, made by: hostler completions bash

_hostler_names() {
  "$\{COMP_WORDS[0]}" ${namesPipeline}
}

_hostler_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_hostler() {
  local current="$\{COMP_WORDS[COMP_CWORD]}" level="hostler" words="" index
  local socket=()
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    if [[ $\{COMP_WORDS[index]} == --control-socket && $((index + 1)) -lt COMP_CWORD ]]; then
      socket=(--control-socket "$\{COMP_WORDS[index + 1]}")
    fi
    case "$level $\{COMP_WORDS[index]}" in
    ${pathsBelowRoot(levels)
      .map((path) => `"${path}"`)
      .join("|")})
      level="$level $\{COMP_WORDS[index]}" ;;
    esac
  done
  case "$level $\{COMP_WORDS[COMP_CWORD - 1]}" in
${renderCases(valueCases(levels, offer))}    *)
      case "$level" in
${renderCases(levelCases(levels, level))}      esac ;;
  esac
  if [[ -n $words ]]; then mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current"); fi
}

complete -F _hostler hostler
`;
}

export function renderZsh(levels: readonly CompletionLevel[]): string {
  const offer = (found: Offer): string => {
    switch (found.kind) {
      case "file":
        return "_files";
      case "process":
        return "compadd -- $" + '{(f)"$(_hostler_names $socket)"}';
      case "words":
        return `compadd -- ${found.words.join(" ")}`;
      case "nothing":
        return ":";
    }
  };
  const level = ({ commands, flags, positional }: CompletionLevel): string => {
    const spellings = flags.flatMap((flag) => flag.spellings).join(" ");
    const names = commands.map(({ name, description }) => quoted(`${name}:${description}`));
    const below =
      names.length === 0
        ? offer(positional)
        : `offers=(${names.join(" ")}); _describe command offers`;
    return `if [[ $PREFIX == -* ]]; then compadd -- ${spellings}; else ${below}; fi`;
  };
  return `#compdef hostler
# Completions of hostler for zsh, made by: hostler completions zsh

_hostler_names() {
  $\{words[1]} ${namesPipeline}
}

_hostler() {
  local level=hostler index
  local -a socket offers
  for ((index = 2; index < CURRENT; index++)); do
    if [[ $\{words[index]} == --control-socket ]] && ((index + 1 < CURRENT)); then
      socket=(--control-socket $\{words[index + 1]})
    fi
    case "$level $\{words[index]}" in
    ${pathsBelowRoot(levels)
      .map((path) => `"${path}"`)
      .join("|")})
      level="$level $\{words[index]}" ;;
    esac
  done
  case "$level $\{words[CURRENT - 1]}" in
${renderCases(valueCases(levels, offer))}    *)
      case "$level" in
${renderCases(levelCases(levels, level))}      esac ;;
  esac
}

if [[ $funcstack[1] == _hostler ]]; then _hostler "$@"; else compdef _hostler hostler; fi
`;
}

export function renderFish(levels: readonly CompletionLevel[]): string {
  const offer = (found: Offer): string => {
    switch (found.kind) {
      case "file":
        return "-F";
      case "process":
        return "-f -a '(__hostler_names)'";
      case "words":
        return `-f -a '${found.words.join(" ")}'`;
      case "nothing":
        return "-f";
    }
  };
  const lines = levels.flatMap((level) => {
    const here = `complete -c hostler -n '__hostler_at "${level.path}"'`;
    const commands = level.commands.map(
      ({ name, description }) => `${here} -f -a ${name} -d ${quoted(description)}`,
    );
    const flags = level.flags.map(({ spellings, description, value }) => {
      const names = spellings.map((spelling) =>
        spelling.startsWith("--") ? `-l ${spelling.slice(2)}` : `-s ${spelling.slice(1)}`,
      );
      const takes = value === undefined ? "" : ` -r ${offer(value)}`;
      return `${here} ${names.join(" ")}${takes} -d ${quoted(description)}`;
    });
    const words = level.commands.length === 0 ? [`${here} ${offer(level.positional)}`] : [];
    return [...commands, ...flags, ...words];
  });
  return `# Completions of hostler for fish, made by: hostler completions fish

function __hostler_level
    set -l level hostler
    for word in (commandline -opc)[2..-1]
        switch "$level $word"
            case ${pathsBelowRoot(levels).map(quoted).join(" ")}
                set level "$level $word"
        end
    end
    echo $level
end

function __hostler_at
    test (__hostler_level) = "$argv[1]"
end

function __hostler_names
    set -l words (commandline -opc)
    set -l socket
    set -l at (contains -i -- --control-socket $words)
    and set socket --control-socket $words[(math $at + 1)]
    $words[1] process list --json $socket 2>/dev/null \\
        | string match -rg '^    "name": "([^"]*)"'
end

${lines.join("\n")}
`;
}
