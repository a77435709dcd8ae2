import { posix } from "node:path";
import type { Path, Report } from "../toml/configuration-reader.ts";
import { suggest } from "../toml/configuration-reader.ts";
import type { TextPosition, TomlNode, TomlTable } from "../toml/toml-tree.ts";
import { defaultBackoff } from "../units/restarts.ts";
import type { PartitionTable, ProcessTable, RootTable } from "./configuration-schema.ts";

/** What the keys of a configuration must be to each other. */
export function checkRelations(root: TomlTable, read: RootTable, report: Report): void {
  const checker = new RelationChecker(root, report);
  for (const [name, partition] of read.partition ?? []) checker.checkPartition(name, partition);
  checker.checkEndpoints(read.partition ?? new Map());
  for (const [name, process] of read.process ?? []) {
    checker.checkProcess(name, process);
    const partition = read.partition?.get(process.partition ?? "");
    if (partition?.protocol === "holden") checker.checkHoldenProcess(name, process);
  }
  checker.checkLogFiles(read.process ?? new Map());
  checker.checkCycles(read.process ?? new Map());
}

/** What Holden v0.2 cannot say to its agent. */
const notWithHolden = [
  "environment",
  "working_directory",
  "umask",
  "user",
  "group",
  "groups",
  "limits",
  "capabilities",
  "no_new_privileges",
  "cgroup",
  "resources",
  "log_file",
  "descriptor_store",
  "alive",
  "before_start",
  "after_stop",
] as const;

/** START of Holden v0.2: name[256], args[32][256] without argv[0]. */
const holdenLimits = { arguments: 32, bytes: 255 };

/** Why Holden v0.2 cannot say this command to its agent; undefined when it can. */
export function checkHoldenCommand(
  command: readonly string[],
): { readonly expected: string; readonly received: string } | undefined {
  const longest = Math.max(...command.map((word) => new TextEncoder().encode(word).length));
  const count = command.length - 1;
  if (count <= holdenLimits.arguments && longest <= holdenLimits.bytes) return undefined;
  return {
    expected: `at most ${holdenLimits.arguments} arguments of ${holdenLimits.bytes} bytes`,
    received: `${count} arguments, the longest word of ${longest} bytes`,
  };
}

class RelationChecker {
  readonly #root: TomlTable;
  readonly #report: Report;

  constructor(root: TomlTable, report: Report) {
    this.#root = root;
    this.#report = report;
  }

  checkPartition(name: string, partition: PartitionTable): void {
    const path = ["partition", name];
    const has = (key: string) => this.#find([...path, key]) !== undefined;
    if (has("socket") !== has("listen")) return;
    this.#complain(path, {
      expected: "exactly one of socket (the agent listens) and listen (the agent dials out)",
      received: partition.socket === undefined && !has("socket") ? "neither" : "both",
    });
  }

  /** Two partitions behind one path would be one partition. */
  checkEndpoints(partitions: ReadonlyMap<string, PartitionTable>): void {
    const owners = new Map<string, string>();
    for (const [name, partition] of partitions) {
      for (const key of ["socket", "listen"] as const) {
        const written = partition[key];
        if (written === undefined) continue;
        const path = posix.normalize(written);
        const owner = owners.get(path);
        if (owner === undefined) owners.set(path, name);
        else {
          this.#complain(["partition", name, key], {
            expected: "a path that no other partition has",
            received: `that of partition ${owner}`,
          });
        }
      }
    }
  }

  checkProcess(name: string, process: ProcessTable): void {
    const path = ["process", name];
    const { partition, after = [], backoff } = process;
    if (partition !== undefined) {
      this.#checkKnown([...path, "partition"], { kind: "partition", name: partition });
    }
    const seen = new Set<string>();
    for (const [index, other] of after.entries()) {
      const own = [...path, "after", index];
      this.#checkKnown(own, { kind: "process", name: other });
      if (seen.has(other)) {
        this.#complain(own, { expected: "each name once", received: `${other} again` });
      }
      seen.add(other);
    }
    if (typeof backoff !== "object") return;
    const { first = defaultBackoff.first, cap = defaultBackoff.cap } = backoff;
    if (first > cap) {
      this.#complain([...path, "backoff"], {
        expected: "first up to cap",
        received: `first ${first} ms, cap ${cap} ms`,
      });
    }
  }

  #checkKnown(path: Path, reference: { kind: "process" | "partition"; name: string }): void {
    const { kind, name } = reference;
    const known = this.#names(kind);
    if (known.includes(name)) return;
    const names = known.length === 0 ? "there is none" : known.slice(0, 10).join(", ");
    this.#complain(path, {
      expected: `the name of a [${kind}.NAME] in this file (${names})`,
      received: JSON.stringify(name.slice(0, 80)),
      mend: suggest(name, known),
    });
  }

  checkHoldenProcess(name: string, process: ProcessTable): void {
    const path = ["process", name];
    const expected = "nothing: Holden v0.2 cannot say it";
    for (const key of notWithHolden) {
      if (this.#find([...path, key]) === undefined) continue;
      this.#complain([...path, key], { expected, received: `the key ${key}` });
    }
    const { ready, output, command = [] } = process;
    if (ready !== undefined && ready !== "started") {
      const received = typeof ready === "string" ? `"${ready}"` : "a table";
      const only = '"started": Holden v0.2 knows no other';
      this.#complain([...path, "ready"], { expected: only, received });
    }
    if (output === "log") {
      const only = '"inherit": Holden v0.2 passes no pipes';
      this.#complain([...path, "output"], { expected: only, received: '"log"' });
    }
    const mistake = checkHoldenCommand(command);
    if (mistake !== undefined) this.#complain([...path, "command"], mistake);
  }

  /** Lines come by the pipes alone; and no file is written, or turned over, by two. */
  checkLogFiles(processes: ReadonlyMap<string, ProcessTable>): void {
    const owners = new Map<string, string>();
    for (const [name, { log_file: file, output }] of processes) {
      if (file?.path === undefined) continue;
      if (output === "inherit") {
        this.#complain(["process", name, "log_file"], {
          expected: 'output = "log" beside log_file: nothing else is read',
          received: 'output = "inherit"',
        });
      }
      const path = posix.normalize(file.path);
      const owner = owners.get(path);
      if (owner === undefined) owners.set(path, name);
      else this.#complainOfLogFile(name, owner);
    }
    for (const [path, name] of owners) {
      const owner = owners.get(path.replace(/\.\d{1,3}$/, ""));
      if (owner !== undefined && owner !== name) this.#complainOfLogFile(name, owner);
    }
  }

  #complainOfLogFile(name: string, owner: string): void {
    this.#complain(["process", name, "log_file", "path"], {
      expected: "a path that no other process writes to, or turns its file over to",
      received: `that of process ${owner}`,
    });
  }

  /** Every cycle is told once, at the process of it that stands first in the file. */
  checkCycles(processes: ReadonlyMap<string, ProcessTable>): void {
    const done = new Set<string>();
    const trail: string[] = [];
    const visit = (name: string): void => {
      if (done.has(name)) return;
      const begin = trail.indexOf(name);
      if (begin >= 0) {
        const cycle = [...trail.slice(begin), name].join(" → ");
        this.#complain(["process", name, "after"], {
          expected: "an order without a cycle",
          received: cycle,
          mend: "Take one of them out of its after.",
        });
        return;
      }
      trail.push(name);
      for (const other of new Set(processes.get(name)?.after)) visit(other);
      trail.pop();
      done.add(name);
    };
    for (const name of processes.keys()) visit(name);
  }

  #names(kind: "process" | "partition"): string[] {
    const node = this.#find([kind]);
    return node?.kind === "table" ? [...node.entries.keys()] : [];
  }

  #find(path: Path): TomlNode | undefined {
    let node: TomlNode | undefined = this.#root;
    for (const segment of path) {
      if (typeof segment === "number")
        node = node?.kind === "array" ? node.items[segment] : undefined;
      else node = node?.kind === "table" ? node.entries.get(segment)?.node : undefined;
    }
    return node;
  }

  #complain(
    path: Path,
    mistake: { expected: string; received: string; mend?: string | undefined },
  ): void {
    this.#report({ at: this.#positionOf(path), path, ...mistake });
  }

  #positionOf(path: Path): TextPosition {
    for (let length = path.length; length > 0; length -= 1) {
      const node = this.#find(path.slice(0, length));
      if (node !== undefined) return node.at;
    }
    return this.#root.at;
  }
}
