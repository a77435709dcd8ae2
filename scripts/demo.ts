/**
 * `run demo [process]`: the main job on real processes. Builds, makes a partition by namespaces,
 * starts the agent in it and the orchestrator outside, ends processes and the agent by SIGKILL, and
 * says what was seen. `run demo live-update`: a database's memory survives a change of the kernel,
 * in a guest. `run demo vm`: two virtual machines outlive their worker, and one its VMM. `run demo
 * fleet`: five agents are upgraded, and go back from a bad version. `run demo vetting`: a healthy
 * host and one with three faults boot the live image. Each exits with 0 only if every step was
 * seen.
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "./build.ts";
import { tryCommand } from "./command.ts";
import { ensureDependencies, repositoryRoot } from "./setup.ts";
import { formatSeconds, readWords, runScript, ScriptError } from "./terminal.ts";

const usage = `Usage: run demo [process] [--old-kernel] [--program FILE]
       run demo live-update [--program FILE]
       run demo vm [--small] [--program FILE]
       run demo fleet [--program FILE]
       run demo vetting [--program FILE]
  --old-kernel    as on a kernel that tells only a parent how a process ended (below 6.15)
  --small         with a guest of 4 KB that counts, in place of Debian's kernel
  --program FILE  take this file instead of building one`;

/** What makes and enters the partition: util-linux, which is on every Debian. */
const tools = ["unshare", "nsenter"] as const;
const namespaceFlags = ["--fork", "--pid", "--mount", "--mount-proc", "--net", "--ipc"];

async function main(): Promise<number> {
  const { values, positionals } = readWords(usage, {
    options: {
      "old-kernel": { type: "boolean" },
      small: { type: "boolean" },
      program: { type: "string" },
    },
    allowPositionals: true,
  });
  const [name = "process", ...others] = positionals;
  const oldKernel = values["old-kernel"] ?? false;
  const small = values.small ?? false;
  const program = async () =>
    values.program === undefined ? await buildProgram(oldKernel) : existing(values.program);
  const isAlone = others.length === 0;
  if (isAlone && name === "process" && !small) return await showProcesses(program, oldKernel);
  if (isAlone && name === "vm" && !oldKernel) {
    await refuseMachine();
    const { demonstrateVms } = await import("./demo/vm.ts");
    return await demonstrateVms(program, { namespaceFlags, small });
  }
  if (isAlone && name === "fleet" && !oldKernel && !small) {
    await refuseMachine();
    const { demonstrateFleet } = await import("./demo/fleet.ts");
    return await demonstrateFleet(program, { namespaceFlags });
  }
  if (isAlone && name === "vetting" && !oldKernel && !small) {
    const { demonstrateVetting } = await import("./demo/vetting.ts");
    return await demonstrateVetting(program);
  }
  if (isAlone && name === "live-update" && !oldKernel && !small) {
    const { demonstrateLiveUpdate } = await import("./demo/live-update.ts");
    return await demonstrateLiveUpdate(program);
  }
  const flags = [...(oldKernel ? ["--old-kernel"] : []), ...(small ? ["--small"] : [])];
  const received = [...positionals, ...flags].join(" ");
  throw new ScriptError(`There is no demo ${received}\n${usage}`, { exitCode: 100 });
}

async function showProcesses(
  findProgram: () => Promise<string>,
  oldKernel: boolean,
): Promise<number> {
  await refuseMachine();
  const program = await findProgram();
  // Only now: a fresh clone has no packages before its first build.
  const { tellStory } = await import("./demo/story.ts");
  return await tellStory({ program, namespaceFlags, oldKernel });
}

/** @throws ScriptError (100) naming all that is missing, and how to get it */
async function refuseMachine(): Promise<void> {
  const missing: string[] = [];
  if (process.platform !== "linux") missing.push("Linux");
  const absent = tools.filter((tool) => Bun.which(tool) === null);
  if (absent.length > 0) missing.push(`${absent.join(" and ")} (apt-get install util-linux)`);
  if (process.getuid?.() !== 0) {
    missing.push("root, who alone may make namespaces (sudo npx bun@1.4.5 run demo)");
  }
  if (missing.length === 0) {
    const attempt = await tryCommand(["unshare", ...namespaceFlags, "true"]);
    if (attempt.exitCode === 0) return;
    missing.push(
      `the right to make namespaces: ${attempt.output.trim()} ` +
        "(a container needs --privileged; a virtual machine has it)",
    );
  }
  throw new ScriptError(`The demo cannot run here. Missing: ${missing.join("; ")}`, {
    exitCode: 100,
  });
}

/** Only the build for fault tests can be told to lack what is new in a kernel. */
async function buildProgram(faults: boolean): Promise<string> {
  await ensureDependencies();
  const name = faults ? "hostler-faults" : "hostler";
  const result = await build({ folder: join(repositoryRoot, "dist"), name, faults });
  const how = result.built ? `built in ${formatSeconds(result.milliseconds)}` : "unchanged";
  console.log(`dist/${name}: ${how}`);
  return result.path;
}

function existing(path: string): string {
  if (existsSync(path)) return resolve(path);
  throw new ScriptError(`There is no file ${path}\n${usage}`, { exitCode: 100 });
}

if (import.meta.main) await runScript(main);
