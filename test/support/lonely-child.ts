/**
 * A program for tests that cannot bear a second one of its kind: it takes a lock, and writes down
 * when somebody else holds it.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import type { TemporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

const body = `
  use Fcntl ":flock";
  open(my $lock, ">>", "$ENV{LONELY}.lock");
  if (!flock($lock, LOCK_EX | LOCK_NB)) {
    open(my $two, ">>", "$ENV{LONELY}.two");
    print $two "two\\n";
    close $two;
  }
`;

export interface LonelyChild {
  /** Lines of a process table: command and environment. */
  readonly table: string;
  /** True when ever two ran at the same time. */
  readonly metAnother: boolean;
  /** The living processes of this kind, as the host numbers them. */
  readonly alive: number[];
  /**
   * As `alive`, once there is one. A start is answered when the exec is done for the parent, which
   * is a moment before /proc shows the environment of the new program.
   */
  lives(): Promise<number[]>;
}

/** @param rest Perl that runs once the lock is taken; by default it sleeps for ever. */
export function lonelyChild(
  folder: TemporaryFolder,
  rest = "sleep 1000000 while 1;",
  name = "it",
): LonelyChild {
  const path = folder.file(`lonely-${name}`);
  const command = JSON.stringify(["perl", "-e", `${body}\n${rest}`]);
  return {
    table: `command = ${command}\nenvironment = {LONELY = "${path}"}`,
    get metAnother() {
      return existsSync(`${path}.two`);
    },
    get alive() {
      return withVariable(`LONELY=${path}`);
    },
    async lives() {
      return await waitFor("its environment in /proc", () => this.alive.length > 0 && this.alive);
    },
  };
}

/** The living processes whose environment holds this variable. */
export function withVariable(variable: string): number[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((processId) => {
      try {
        const environment = readFileSync(`/proc/${processId}/environ`, "latin1");
        return environment.split("\0").includes(variable);
      } catch {
        return false;
      }
    });
}
