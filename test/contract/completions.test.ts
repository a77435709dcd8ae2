/** What shells make of our completions, each in the shell itself. */
import { describe, expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { completionLevels } from "../../src/command-line/completion-tree.ts";
import { renderBash, renderFish, renderZsh } from "../../src/command-line/completions.ts";
import { root } from "../../src/command-line/root.ts";
import { runProgram } from "../support/program.ts";
import { program, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const levels = await completionLevels(root);

/**
 * Stands for hostler: knows two processes, and one more behind another control socket; and the
 * sessions of two clients, under the name luoctl as well.
 */
const stub = `#!/bin/sh
case "$(basename "$0") $*" in
"hostler live-update sessions --json"*|"luoctl sessions --json"*)
  printf '[\\n  {\\n    "name": "db",\\n    "client": "db"\\n  },\\n'
  printf '  {\\n    "name": "db/log",\\n    "client": "db"\\n  },\\n'
  printf '  {\\n    "name": "q",\\n    "client": "qemu-1"\\n  }\\n]\\n'
  exit ;;
esac
[ "$1 $2 $3" = "process list --json" ] || exit 9
[ "$4" = "--control-socket" ] && [ "$5" != "/other" ] && exit 111
printf '[\\n  {\\n    "name": "brake-monitor",\\n    "phase": "ready"\\n  },\\n'
[ "$5" = "/other" ] && printf '  {\\n    "name": "elsewhere"\\n  },\\n'
printf '  {\\n    "name": "media"\\n  }\\n]\\n'
`;

const signalsOfT = ["SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU"];

type Shell = "bash" | "zsh" | "fish";

const drivers: Record<Shell, (words: readonly string[]) => string> = {
  bash: (words) =>
    `
    source ./completions
    COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")})
    COMP_CWORD=${words.length - 1}
    _hostler
    printf '%s\\n' "$` +
    "{COMPREPLY[@]}" +
    `"`,
  zsh: (words) =>
    `
    compadd() { [[ $1 == -- ]] && shift; print -l -- "$@" | grep -e "^$PREFIX" }
    _describe() { print -l -- $` +
    `{(P)2} | sed 's/:.*//' | grep -e "^$PREFIX" }
    _files() { ls -d -- "$PREFIX"* }
    compdef() { : }
    source ./completions
    words=(${words.map((word) => `'${word}'`).join(" ")})
    CURRENT=${words.length}
    PREFIX='${words.at(-1)}'
    _hostler`,
  fish: (words) => `
    source ./completions
    complete -C '${words.join(" ")}' | string replace -r '\\t.*' ''`,
};

/** What the shell offers for the last of the words. */
async function offers(shell: Shell, words: readonly string[]): Promise<string[]> {
  using folder = temporaryFolder();
  const script = { bash: renderBash, zsh: renderZsh, fish: renderFish }[shell](levels);
  writeFileSync(folder.file("completions"), script);
  writeFileSync(folder.file("process.toml"), "");
  for (const name of ["hostler", "luoctl", "luod"]) {
    writeFileSync(folder.file(name), stub);
    chmodSync(folder.file(name), 0o755);
  }
  const options = shell === "zsh" ? ["-f"] : [];
  const argv = [shell, ...options, "-c", drivers[shell](words)];
  const environment = { PATH: `${folder.path}:${process.env["PATH"]}`, HOME: folder.path };
  const result = await runProgram(argv, { workingDirectory: folder.path, environment });
  expect(result.stderr).toBe("");
  return result.stdout.split("\n").filter((line) => line !== "");
}

function cases(shell: Shell): void {
  const expected: [string[], string[]][] = [
    [
      ["hostler", ""],
      [
        "process",
        "live-update",
        "vetting",
        "vm",
        "fleet",
        "doctor",
        "identity",
        "store",
        "audit",
        "install",
        "completions",
      ],
    ],
    [["hostler", "pro"], ["process"]],
    [
      ["hostler", "install", "--role", "process-"],
      ["process-orchestrator", "process-agent"],
    ],
    [
      ["hostler", "process", "re"],
      ["reload", "reexecute", "reopen-logs", "restart"],
    ],
    [["hostler", "process", "list", "--wa"], ["--watch"]],
    [
      ["hostler", "process", "wait", "--until", ""],
      ["ready", "stopped"],
    ],
    [
      ["hostler", "process", "show", ""],
      ["brake-monitor", "media"],
    ],
    [["hostler", "process", "stop", "media", "br"], ["brake-monitor"]],
    [["hostler", "process", "logs", "--control-socket", "/other", "els"], ["elsewhere"]],
    [["hostler", "process", "logs", "--control-socket", "/absent", "me"], []],
    [["hostler", "process", "check", "proc"], ["process.toml"]],
    [["hostler", "process", "check", "x.toml", "proc"], []],
    [["hostler", "process", "signal", "me"], ["media"]],
    [["hostler", "process", "signal", "media", "SIGK"], ["SIGKILL"]],
    [
      ["hostler", "process", "signal", "media", "SIGUSR"],
      ["SIGUSR1", "SIGUSR2"],
    ],
    [["hostler", "process", "signal", "--control-socket", "/x", "media", "SIGT"], signalsOfT],
    [["hostler", "process", "signal", "-9", "me"], ["media"]],
    [["hostler", "process", "signal", "media", "SIGHUP", ""], []],
    [["hostler", "process", "orchestrator", "--config", "proc"], ["process.toml"]],
    [["hostler", "process", "agent", "--allow-uid", ""], []],
    [
      ["hostler", "live-update", "finish", ""],
      ["db", "qemu-1"],
    ],
    [["luoctl", "ses"], ["sessions"]],
    [["luoctl", "finish", "q"], ["qemu-1"]],
    [["luoctl", "finish", "--control-socket", "/x", "d"], ["db"]],
    [["luoctl", "load", "proc"], ["process.toml"]],
    [["luod", "--by", "r"], ["reboot"]],
    [
      ["hostler", "completions", ""],
      ["bash", "zsh", "fish"],
    ],
  ];
  test.each(expected)("%j", async (words, words_) => {
    const found = await offers(shell, words);
    expect(found.toSorted()).toEqual(words_.toSorted());
  });
}

describe("bash", () => cases("bash"));
skipUnless("completions of zsh", program("zsh", "zsh"), () => cases("zsh"));
skipUnless("completions of fish", program("fish", "fish"), () => cases("fish"));
