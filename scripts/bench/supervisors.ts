/** The supervisors of the bench, each with its fastest honest settings, and how to start them. */
import { chmodSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { familyOf, fileOf } from "./process-status.ts";

/** How long a daemon has for its orderly end, before it is killed. */
const stopMilliseconds = 5_000;

/** The variable that tells a child where to send the time of its first instruction. */
export const childVariable = "BENCH_SOCKET";

export interface Files {
  /** A folder of this run, removed after it. */
  readonly folder: string;
  readonly child: string;
  readonly floor: string;
  readonly reaper: string;
  readonly hostler: string;
  /** Another build of hostler to compare with. */
  readonly against: string | undefined;
  /** The folder whose node_modules has pm2. */
  readonly pm2: string;
}

/** One line of the table: a child that one or several daemons keep running. */
export interface Row {
  readonly name: string;
  readonly daemons: readonly Daemon[];
  readonly socket: string;
  /** It waits about a second before a restart: by its design, or of a child that lived shortly. */
  readonly waits?: "always" | "short lives";
  /** What it starts when the whole supervision is started; not told for parts of hostler. */
  readonly start?: readonly string[];
}

/** A program that is started for the whole run. */
export interface Daemon {
  readonly argv: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Where it writes its number when it goes to the background by itself. */
  readonly processIdFile?: string;
  /** What ends it, where SIGTERM does not. */
  readonly stop?: readonly string[];
}

/** hostler's rows: one orchestrator keeps all three children. */
function hostlerRows(files: Files, name: string, file: string): Row[] {
  const folder = subfolder(files, name.replaceAll(" ", "-"));
  const socketOf = (process: string) => join(folder, `${process}.socket`);
  const configuration = join(folder, "process.toml");
  const agentSocket = join(folder, "agent.socket");
  const table = (process: string, more: string) => `
[process.${process}]
command = ["${files.child}"]
environment = { ${childVariable} = "${socketOf(process)}" }
backoff = "none"
${more}`;
  writeFileSync(
    configuration,
    [
      `[partition.other]\nsocket = "${agentSocket}"\n`,
      table("local", ""),
      table("remote", 'partition = "other"\n'),
      table("user", 'user = "nobody"\n'),
    ].join(""),
  );
  const namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", files.reaper];
  const agent = { argv: [...namespace, file, "process", "agent", "--socket", agentSocket] };
  const control = ["--control-socket", join(folder, "control.socket")];
  const orchestrator = {
    argv: [file, "process", "orchestrator", "--config", configuration, ...control],
  };
  const local = [orchestrator];
  return [
    { name, daemons: local, socket: socketOf("local"), start: startOfHostler(files, name, file) },
    { name: `${name}, through an agent`, daemons: [...local, agent], socket: socketOf("remote") },
    { name: `${name}, user = "nobody"`, daemons: local, socket: socketOf("user") },
  ];
}

/** An orchestrator with one process, whose socket the environment names. */
function startOfHostler(files: Files, name: string, file: string): string[] {
  const folder = subfolder(files, `${name.replaceAll(" ", "-")}-start`);
  const configuration = join(folder, "process.toml");
  const lines = [
    "[process.only]",
    `command = ["${files.child}"]`,
    `environment = { ${childVariable} = "${startSocket(files)}" }`,
    'backoff = "none"',
  ];
  writeFileSync(configuration, lines.join("\n"));
  const control = ["--control-socket", join(folder, "control.socket")];
  return [file, "process", "orchestrator", "--config", configuration, ...control];
}

/** Where a child of a daemon that is started for its start alone tells its own. */
export function startSocket(files: Files): string {
  return join(files.folder, "start.socket");
}

/**
 * s6-supervise below s6-svscan; ./run is the program itself, without a shell before it. The child
 * tells its readiness: without that s6 waits a second before every restart.
 */
function s6Row(files: Files): Row {
  const folder = subfolder(files, "s6");
  mkdirSync(join(folder, "child"));
  symlinkSync(files.child, join(folder, "child", "run"));
  writeFileSync(join(folder, "child", "notification-fd"), "3\n");
  const argv = ["/usr/bin/env", "BENCH_READY=1", "/usr/bin/s6-svscan", folder];
  const socket = `${folder}.socket`;
  return { name: "s6", daemons: [{ argv }], socket, waits: "short lives", start: argv };
}

function runitRow(files: Files): Row {
  const folder = subfolder(files, "runit");
  symlinkSync(files.child, join(folder, "run"));
  const argv = ["/usr/bin/runsv", folder];
  const socket = `${folder}.socket`;
  return { name: "runit", daemons: [{ argv }], socket, waits: "short lives", start: argv };
}

/** startsecs=0: a child counts as started at once, or quick restarts would be given up. */
function supervisordRow(files: Files): Row {
  const folder = subfolder(files, "supervisord");
  const configuration = join(folder, "supervisord.conf");
  writeFileSync(
    configuration,
    [
      "[supervisord]",
      "nodaemon=true",
      "user=root",
      `logfile=${join(folder, "log")}`,
      `pidfile=${join(folder, "pid")}`,
      "[program:child]",
      `command=${files.child}`,
      "autorestart=true",
      "startsecs=0",
      "",
    ].join("\n"),
  );
  const argv = ["/usr/bin/supervisord", "--configuration", configuration];
  const socket = `${folder}.socket`;
  return { name: "supervisord", daemons: [{ argv }], socket, waits: "always", start: argv };
}

/** max_restarts: without it pm2 gives a child up after sixteen short lives. */
function pm2Row(files: Files): Row {
  const folder = subfolder(files, "pm2");
  const configuration = join(folder, "child.json");
  const app = {
    name: "child",
    script: files.child,
    interpreter: "none",
    exec_mode: "fork",
    max_restarts: 1_000_000_000,
    restart_delay: 0,
    vizion: false,
    pmx: false,
    out_file: "/dev/null",
    error_file: "/dev/null",
  };
  writeFileSync(configuration, JSON.stringify({ apps: [app] }));
  const node = Bun.which("node") ?? "node";
  const run = ["/usr/bin/env", `PM2_HOME=${folder}`, node, `${files.pm2}/node_modules/pm2/bin/pm2`];
  const argv = [...run, "start", configuration, "--silent"];
  const daemon = { argv, processIdFile: join(folder, "pm2.pid"), stop: [...run, "kill"] };
  return { name: "pm2", daemons: [daemon], socket: `${folder}.socket`, start: argv };
}

/** All rows; the floor is the first. */
export function listRows(files: Files): Row[] {
  const floor = [files.floor, files.child];
  const socket = join(files.folder, "floor.socket");
  return [
    { name: "C floor", daemons: [{ argv: floor }], socket, start: floor },
    ...hostlerRows(files, "hostler", files.hostler),
    ...(files.against === undefined ? [] : hostlerRows(files, "hostler before", files.against)),
    s6Row(files),
    runitRow(files),
    supervisordRow(files),
    pm2Row(files),
  ];
}

function subfolder(files: Files, name: string): string {
  const path = join(files.folder, `${name}.files`);
  mkdirSync(path);
  // Some of it is used by nobody's child.
  chmodSync(path, 0o755);
  return path;
}

export interface RunningDaemon extends AsyncDisposable {
  readonly daemon: Daemon;
  /** The processes that belong to it; its children under measurement do not. */
  processIds(): number[];
}

/** Starts a daemon whose children send to this socket, unless its own configuration says more. */
export async function startDaemon(
  daemon: Daemon,
  options: { readonly files: Files; readonly socket: string },
): Promise<RunningDaemon> {
  const { files, socket } = options;
  const log = openSync(join(files.folder, "daemons.log"), "a");
  const child = Bun.spawn([...daemon.argv], {
    env: { PATH: process.env["PATH"], HOME: files.folder, [childVariable]: socket },
    cwd: files.folder,
    stdin: "ignore",
    stdout: log,
    stderr: log,
  });
  const { processIdFile } = daemon;
  if (processIdFile !== undefined) await child.exited;
  const root = processIdFile === undefined ? child.pid : Number(readFileSync(processIdFile));
  const processIds = () => familyOf([root], files.child);
  return {
    daemon,
    processIds,
    [Symbol.asyncDispose]: async () => {
      const family = processIds().map((processId) => ({ processId, file: fileOf(processId) }));
      const late = setTimeout(() => {
        for (const { processId, file } of family) {
          if (fileOf(processId) === file) process.kill(processId, "SIGKILL");
        }
      }, stopMilliseconds);
      if (daemon.stop === undefined) child.kill("SIGTERM");
      else await Bun.spawn([...daemon.stop], { stdout: log, stderr: log }).exited;
      await child.exited;
      clearTimeout(late);
    },
  };
}
