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

/** Names that a daemon alone knows: which command tells them, under which key of its JSON. */
const nameSources = {
  process: { command: "process list", key: "name" },
  client: { command: "live-update sessions", key: "client" },
} as const;

/** The arguments of the function that asks for names, in every shell. */
const nameArguments = (kind: keyof typeof nameSources) =>
  `${quoted(nameSources[kind].command)} ${nameSources[kind].key}`;

/** Without the daemon there are no names. */
const namesPipeline = [
  '--json "$@" 2>/dev/null',
  `grep -o "\\"$key\\": \\"[^\\"]*\\""`,
  `cut -d '"' -f 4`,
  "sort -u",
].join(" | ");

/** What the program is under other names: links, at another place in the tree. */
const otherNames = [
  ["luoctl", "hostler live-update"],
  ["luod", "hostler live-update daemon"],
] as const;
const everyName = ["hostler", ...otherNames.map(([name]) => name)].join(" ");
const otherNameCases = otherNames.map(([name, path]) => `${name}) level="${path}" ;;`).join(" ");

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

/** What is offered at each place: "0", "1", or "*" from there on. */
function placeCases(
  { positionals }: CompletionLevel,
  act: (offer: Offer) => string,
): readonly { readonly pattern: string; readonly action: string }[] {
  return positionals.map(({ offer, repeatable }, place) => ({
    pattern: repeatable ? "*" : String(place),
    action: act(offer),
  }));
}

/** The patterns of `case` alone, or one that nothing is. */
const patternsOf = (cases: readonly { readonly pattern: string }[]) =>
  cases.length === 0 ? "''" : cases.map(({ pattern }) => pattern).join("|");

/** A `case` in one line, for bash and zsh. */
function placeCase(level: CompletionLevel, act: (offer: Offer) => string): string {
  const cases = placeCases(level, act);
  if (cases.length === 0) return ":";
  return `case $place in ${cases.map((one) => `${one.pattern}) ${one.action} ;;`).join(" ")} esac`;
}

const renderCases = (cases: readonly { pattern: string; action: string }[]) =>
  cases.map(({ pattern, action }) => `    ${pattern}) ${action} ;;\n`).join("");

export function renderBash(levels: readonly CompletionLevel[]): string {
  const offer = (found: Offer): string => {
    switch (found.kind) {
      case "file":
        return '_hostler_files "$current"';
      case "process":
      case "client":
        return `words="$(_hostler_names ${nameArguments(found.kind)} "$\{socket[@]}")"`;
      case "words":
        return `words=${quoted(found.words.join(" "))}`;
      case "nothing":
        return ":";
    }
  };
  const level = (here: CompletionLevel): string => {
    const spellings = here.flags.flatMap((flag) => flag.spellings).join(" ");
    const names = here.commands.map(({ name }) => name).join(" ");
    const below = names === "" ? placeCase(here, offer) : `words=${quoted(names)}`;
    return `if [[ $current == -* ]]; then words=${quoted(spellings)}; else ${below}; fi`;
  };
  return `# Completions of hostler for bash, made by: hostler completions bash

_hostler_names() {
  local command="$1" key="$2"
  shift 2
  [[ $\{COMP_WORDS[0]##*/} == luoctl ]] && command="$\{command#live-update }"
  # shellcheck disable=SC2086 # these are words
  "$\{COMP_WORDS[0]}" $command ${namesPipeline}
}

_hostler_files() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_hostler() {
  local current="$\{COMP_WORDS[COMP_CWORD]}" level="hostler" words="" index place=0 value=0
  local socket=()
  COMPREPLY=()
  case "$\{COMP_WORDS[0]##*/}" in ${otherNameCases} esac
  for ((index = 1; index < COMP_CWORD; index++)); do
    if [[ $\{COMP_WORDS[index]} == --control-socket && $((index + 1)) -lt COMP_CWORD ]]; then
      socket=(--control-socket "$\{COMP_WORDS[index + 1]}")
    fi
    if ((value)); then value=0; continue; fi
    case "$level $\{COMP_WORDS[index]}" in
    ${pathsBelowRoot(levels)
      .map((path) => `"${path}"`)
      .join("|")})
      level="$level $\{COMP_WORDS[index]}" place=0 ;;
    ${patternsOf(valueCases(levels, offer))}) value=1 ;;
    "$level -"*) ;;
    *) place=$((place + 1)) ;;
    esac
  done
  case "$level $\{COMP_WORDS[COMP_CWORD - 1]}" in
${renderCases(valueCases(levels, offer))}    *)
      case "$level" in
${renderCases(levelCases(levels, level))}      esac ;;
  esac
  if [[ -n $words ]]; then mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current"); fi
}

complete -F _hostler ${everyName}
`;
}

export function renderZsh(levels: readonly CompletionLevel[]): string {
  const offer = (found: Offer): string => {
    switch (found.kind) {
      case "file":
        return "_files";
      case "process":
      case "client":
        return `compadd -- $\{(f)"$(_hostler_names ${nameArguments(found.kind)} $socket)"}`;
      case "words":
        return `compadd -- ${found.words.join(" ")}`;
      case "nothing":
        return ":";
    }
  };
  const level = (here: CompletionLevel): string => {
    const spellings = here.flags.flatMap((flag) => flag.spellings).join(" ");
    const names = here.commands.map(({ name, description }) => quoted(`${name}:${description}`));
    const below =
      names.length === 0
        ? placeCase(here, offer)
        : `offers=(${names.join(" ")}); _describe command offers`;
    return `if [[ $PREFIX == -* ]]; then compadd -- ${spellings}; else ${below}; fi`;
  };
  return `#compdef ${everyName}
# Completions of hostler for zsh, made by: hostler completions zsh

_hostler_names() {
  local command="$1" key="$2"
  shift 2
  [[ $\{words[1]:t} == luoctl ]] && command="$\{command#live-update }"
  $\{words[1]} $\{=command} ${namesPipeline}
}

_hostler() {
  local level=hostler index place=0 value=0
  local -a socket offers
  case "$\{words[1]:t}" in ${otherNameCases} esac
  for ((index = 2; index < CURRENT; index++)); do
    if [[ $\{words[index]} == --control-socket ]] && ((index + 1 < CURRENT)); then
      socket=(--control-socket $\{words[index + 1]})
    fi
    if ((value)); then value=0; continue; fi
    case "$level $\{words[index]}" in
    ${pathsBelowRoot(levels)
      .map((path) => `"${path}"`)
      .join("|")})
      level="$level $\{words[index]}" place=0 ;;
    ${patternsOf(valueCases(levels, offer))}) value=1 ;;
    "$level -"*) ;;
    *) place=$((place + 1)) ;;
    esac
  done
  case "$level $\{words[CURRENT - 1]}" in
${renderCases(valueCases(levels, offer))}    *)
      case "$level" in
${renderCases(levelCases(levels, level))}      esac ;;
  esac
}

if [[ $funcstack[1] == _hostler ]]; then _hostler "$@"; else compdef _hostler ${everyName}; fi
`;
}

export function renderFish(levels: readonly CompletionLevel[]): string {
  const offer = (found: Offer): string => {
    switch (found.kind) {
      case "file":
        return "-F";
      case "process":
      case "client":
        return `-f -a "(__hostler_names ${nameArguments(found.kind)})"`;
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
    const words = placeCases(level, offer).map(
      ({ pattern, action }) =>
        `complete -c hostler -n '__hostler_at "${level.path}" "${pattern}"' ${action}`,
    );
    // Nothing is offered beyond the last word, nor files, which fish offers without a rule.
    const nothing = level.commands.length === 0 ? [`${here} -f`] : [];
    return [...commands, ...flags, ...nothing, ...words];
  });
  const flagPatterns = valueCases(levels, offer).flatMap(({ pattern }) => pattern.split("|"));
  return `# Completions of hostler for fish, made by: hostler completions fish

${fishPlace(levels, flagPatterns)}function __hostler_names
    set -l words (commandline -opc)
    set -l socket
    set -l at (contains -i -- --control-socket $words)
    and set socket --control-socket $words[(math $at + 1)]
    $words[1] (string split ' ' $argv[1]) --json $socket 2>/dev/null \\
        | string match -rg '^    "'$argv[2]'": "([^"]*)"' | sort -u
end

${lines.join("\n")}
${otherNames.map(([name, path]) => `complete -c ${name} -w ${quoted(path)}`).join("\n")}
`;
}

/** Finds at which level, and at which of its words, the cursor stands. */
function fishPlace(levels: readonly CompletionLevel[], flagPatterns: readonly string[]): string {
  return `function __hostler_level
    set -l level hostler
    set -l place 0
    set -l value 0
    for word in (commandline -opc)[2..-1]
        if test $value = 1
            set value 0
            continue
        end
        switch "$level $word"
            case ${pathsBelowRoot(levels).map(quoted).join(" ")}
                set level "$level $word"
                set place 0
            case ${flagPatterns.join(" ")}
                set value 1
            case "$level -*"
            case '*'
                set place (math $place + 1)
        end
    end
    echo $level
    echo $place
end

function __hostler_at
    set -l here (__hostler_level)
    test "$here[1]" = "$argv[1]"; or return 1
    test (count $argv) = 1; or string match -q -- "$argv[2]" $here[2]
end

`;
}
