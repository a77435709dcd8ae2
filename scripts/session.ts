/**
 * Makes the README's picture: runs the commands that it shows, in a mount namespace of its own
 * with an empty /run, and writes what they printed into docs/session.svg and the system's README.
 * Usage: bun scripts/session.ts, as root, after `run build`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectControl } from "../src/messaging/control-client.ts";
import { defaultControlSocket } from "../src/process/protocol.ts";
import { bunExecutable, runCommand } from "./command.ts";
import { EventWatch } from "./demo/event-watch.ts";
import { onlyChildOf } from "./demo/kernel.ts";
import { Program } from "./demo/program.ts";
import { repositoryRoot } from "./setup.ts";
import { readWords, runScript, ScriptError } from "./terminal.ts";

const usage = "Usage: bun scripts/session.ts, as root";
const picture = join(repositoryRoot, "docs/session.svg");
const readme = join(repositoryRoot, "src/process/README.md");
const partition =
  "unshare --kill-child --fork --pid --mount-proc sh -c 'while :; do hostler process agent; done'";
const orchestrator = "hostler process orchestrator --config process.toml";

async function main(): Promise<number> {
  const { values } = readWords(usage, { options: { inside: { type: "boolean" } } });
  if (process.getuid?.() !== 0) throw new ScriptError(usage, { exitCode: 100 });
  if (values.inside !== true) {
    const again = [bunExecutable, import.meta.path, "--inside"];
    await runCommand(["unshare", "--mount", "--propagation", "private", ...again]);
    console.log("docs/session.svg and src/process/README.md hold a new session");
    return 0;
  }
  await runCommand(["mount", "-t", "tmpfs", "tmpfs", "/run"]);
  const folder = mkdtempSync(join(tmpdir(), "hostler-session-"));
  try {
    const lines = await new Session(folder).run();
    writeFileSync(picture, draw(lines));
    insert(lines);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return 0;
}

/** One terminal: commands in the order in which they are typed, and what comes of them. */
class Session {
  readonly #folder: string;
  readonly #environment: Readonly<Record<string, string>>;
  readonly #lines: string[] = [];
  /** What jobs in the background have printed since the last look, in the order of its coming. */
  #printed: string[] = [];

  constructor(folder: string) {
    this.#folder = folder;
    const path = `${join(repositoryRoot, "dist")}:${process.env["PATH"]}`;
    this.#environment = { PATH: path };
  }

  async run(): Promise<string[]> {
    const source = readFileSync(join(repositoryRoot, "docs/process.toml"));
    writeFileSync(join(this.#folder, "process.toml"), source);
    const unshare = this.#startJob(partition);
    await unshare.said(/listening at/);
    this.#showJobs();
    const daemon = this.#startJob(orchestrator);
    const [, agent] = await daemon.said(/connected: agent \S+, process (\d+)/);
    this.#showJobs();
    try {
      await this.#tell(daemon, Number(agent));
    } finally {
      // sh is the job's own process and execs nothing: its child is the one to end.
      process.kill(onlyChildOf(unshare.processId), "SIGKILL");
      daemon.kill("SIGTERM");
      await daemon.ended();
    }
    return this.#lines;
  }

  async #tell(daemon: Program, agent: number): Promise<void> {
    const events = new EventWatch(await connectControl(defaultControlSocket));
    await events.ready("media");
    await this.#type("hostler process list");
    const media = (await events.list()).get("media")?.pid ?? 0;
    const position = events.position;
    await this.#type(`kill -KILL ${media}        # media`);
    await events.next({ name: "media", what: "ended" }, position);
    await events.next({ name: "media", what: "ready" }, position);
    const said = daemon.lines.length;
    await this.#type(`kill -KILL ${agent}        # the agent`);
    await daemon.said(/is connected/, said);
    this.#showJobs();
    await this.#type("hostler process list");
    await this.#type("hostler process events | tail -n 5");
    events.close();
  }

  /** Starts a command in the background, as `command &` does. */
  #startJob(command: string): Program {
    this.#lines.push(`$ ${command} &`);
    const argv = ["sh", "-c", `cd ${this.#folder}; exec ${command}`];
    return new Program(command, argv, this.#environment, (line) => this.#printed.push(line));
  }

  async #type(command: string): Promise<void> {
    this.#lines.push(`$ ${command}`);
    const output = await runCommand(["sh", "-c", command], { environment: this.#environment });
    if (output !== "") this.#lines.push(...output.trimEnd().split("\n"));
  }

  /** What jobs have printed stands between the commands, as on a terminal. */
  #showJobs(): void {
    this.#lines.push(...this.#printed);
    this.#printed = [];
  }
}

const columnWidth = 7.83;
const rowHeight = 18;
const margin = 18;

/** @returns the lines as a picture of a terminal */
function draw(lines: readonly string[]): string {
  const columns = Math.max(...lines.map((line) => line.length));
  const width = Math.ceil(columns * columnWidth + 2 * margin);
  const height = lines.length * rowHeight + 2 * margin;
  const rows = lines.map((line, index) => {
    const kind = line.startsWith("$ ") ? ' class="typed"' : "";
    const y = margin + rowHeight * index + 13;
    return `<text x="${margin}" y="${y}"${kind} xml:space="preserve">${escapeMarkup(line)}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"
 viewBox="0 0 ${width} ${height}" role="img">
<title>A session of hostler process, as scripts/session.ts recorded it</title>
<style>
text { font: 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #c9d1d9 }
.typed { fill: #7ee787 }
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
${rows.join("\n")}
</svg>
`;
}

function escapeMarkup(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Puts the text between the markers of the system's README. */
function insert(lines: readonly string[]): void {
  const before = readFileSync(readme, "utf8");
  const fence = "```";
  const text = [`${fence}console`, ...lines, fence].join("\n");
  const block = `<!-- session -->\n\n${text}\n\n<!-- /session -->`;
  const after = before.replace(/<!-- session -->[\s\S]*<!-- \/session -->/, () => block);
  if (!after.includes(block)) {
    throw new ScriptError("src/process/README.md has no <!-- session --> … <!-- /session -->", {
      exitCode: 1,
    });
  }
  writeFileSync(readme, after);
}

if (import.meta.main) await runScript(main);
