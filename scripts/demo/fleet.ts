/**
 * `run demo fleet`: five agents and their operator; a good version by a canary and waves, with two
 * devices whose power goes in the middle of it, and a bad version that rolls itself back.
 */
import { statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BuildResult, build } from "../build.ts";
import { runCommand } from "../command.ts";
import { repositoryRoot } from "../setup.ts";
import { formatMebibytes, formatSeconds, ScriptError } from "../terminal.ts";

/** One that is installed, and two that are rolled out. */
export interface DemoVersion {
  readonly version: string;
  readonly program: string;
}

export interface DemoVersions {
  readonly installed: DemoVersion;
  readonly good: DemoVersion;
  readonly bad: DemoVersion;
}

/** Five devices have two versions each, one has three, and all three are published. */
const PROGRAMS_ON_DISK = 14;

/**
 * @param buildProgram makes the compiled file
 * @returns 0 when all was seen
 * @throws ScriptError (100) when the machine lacks something, (1) when a step before it fails
 */
export async function demonstrateFleet(
  buildProgram: () => Promise<string>,
  options: { readonly namespaceFlags: readonly string[] },
): Promise<number> {
  if (Bun.which("ip") === null) {
    throw new ScriptError("The demo cannot run here. Missing: ip (apt-get install iproute2)", {
      exitCode: 100,
    });
  }
  const program = await buildProgram();
  requireRoom(PROGRAMS_ON_DISK * Bun.file(program).size);
  const versions = await makeVersions(program);
  // Only now: a fresh clone has no packages before its first build.
  const { tellStory } = await import("./fleet/story.ts");
  return await tellStory({ versions, ...options });
}

/** @throws ScriptError (100) */
function requireRoom(bytes: number): void {
  const { bavail, bsize } = statfsSync(tmpdir());
  if (bavail * bsize >= bytes) return;
  const needed = `${formatMebibytes(bytes)} free in ${tmpdir()} (TMPDIR names another folder)`;
  throw new ScriptError(`The demo cannot run here. Missing: ${needed}`, { exitCode: 100 });
}

/** Really built, from this source: the good one says another version, the bad one errs. */
export async function makeVersions(program: string): Promise<DemoVersions> {
  const version = JSON.parse(await runCommand([program, "--version", "--json"])).version as string;
  const folder = join(repositoryRoot, "dist/demo-fleet");
  const next = (steps: number) => {
    const [major = "0", minor = "0"] = version.split(".");
    return `${major}.${Number(minor) + steps}.0`;
  };
  const make = async (version: string, entry?: string): Promise<DemoVersion> => {
    const name = `hostler-${version}`;
    const entries = entry === undefined ? {} : { entry };
    const result = await build({ folder, name, faults: false, version, ...entries });
    console.log(`dist/demo-fleet/${name}: ${howLong(result)}`);
    return { version, program: result.path };
  };
  return {
    installed: { version, program },
    good: await make(next(1)),
    bad: await make(next(2), "scripts/demo/fleet/bad/main.ts"),
  };
}

const howLong = ({ built, milliseconds }: BuildResult) =>
  built ? `built in ${formatSeconds(milliseconds)}` : "unchanged";
