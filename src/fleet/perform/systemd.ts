import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import { parseFormerEnding, parseUnitEnding } from "../candidate-ending.ts";
import {
  type CandidateOutcome,
  type CandidateStart,
  type CommandAnswer,
  type Executor,
  ExecutorRefused,
  unknownEnding,
} from "../executor.ts";
import type { LastWords } from "../protocol.ts";
import { agentUnit } from "../units.ts";
import { runCommand } from "./run-command.ts";

/** Of an ending, whose file announces nothing. */
const LOOK_EVERY: Milliseconds = 200;
/** After so many looks the service manager is asked whether there is anything to wait for. */
const LOOKS_BEFORE_ASKING = 25;
/** From SIGTERM to SIGKILL. */
const STOP_TIME: Milliseconds = 10_000;
/** Beyond the time that the service manager itself gives. */
const GRACE: Milliseconds = 10_000;
/** Lines of the journal that are looked at for what a candidate said last. */
const MOST_LINES = 200;
/** systemctl(1): no such unit. */
const NOT_LOADED = 5;

/** Of what a confined program said. */
const MOST_SAID = 500;

/** What a program may do that is to be read, and to change nothing: systemd.exec(5). */
const confinement = [
  "PrivateNetwork=yes",
  "ProtectSystem=strict",
  "NoNewPrivileges=yes",
  "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
  "MemoryMax=512M",
  "LimitFSIZE=4M",
];

/**
 * As ExecStopPost= runs it: what the service manager knows of the ending is gone with a unit that
 * is collected, so it is written down before. By sh, because the candidate's file may be damaged.
 */
const noteEnding = [
  'g="/sys/fs/cgroup$$(sed -n s/^0:://p /proc/self/cgroup)"',
  '{ echo "$$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS"; cat "$$g/memory.peak" "$$g/cpu.stat"; }' +
    ' >"$$0.new" 2>/dev/null',
  'mv "$$0.new" "$$0"',
].join("; ");

/** Whether systemd runs this host: sd_booted(3). */
export function isSystemdBooted(): boolean {
  return statSync("/run/systemd/system", { throwIfNoEntry: false })?.isDirectory() === true;
}

/**
 * Candidates are transient units beside the agent's own: they outlive it, and end by themselves
 * when their time is over. Nothing of them is left after a reboot.
 */
export class SystemdExecutor implements Executor {
  readonly kind = "systemd";
  readonly #loop: EventLoop;
  readonly #folder: string;

  /** @param folder for notes of endings; those of a former boot would be wrong: below /run */
  constructor(loop: EventLoop, folder = "/run/hostler/fleet") {
    this.#loop = loop;
    this.#folder = folder;
  }

  async startCandidate(start: CandidateStart): Promise<CandidateOutcome> {
    const { instance } = start;
    mkdirSync(this.#folder, { recursive: true, mode: 0o755 });
    const unit = unitOf(instance);
    const stopped = await runCommand(["systemctl", "stop", unitOf("*")], STOP_TIME + GRACE);
    if (stopped.code !== 0) throw refusal("end what is left of a candidate", stopped);
    rmSync(this.#note(instance), { force: true });
    const argv = ["systemd-run", ...this.#properties(start), start.program, ...start.words];
    const answer = await runCommand(argv, start.readyWithin + STOP_TIME + GRACE);
    if (answer.code === 0) return { kind: "ready" };
    // What had a unit has left a note; without one nothing was ever started.
    const isNoted = this.#readNote(instance) !== undefined || (await this.#isThere(unit));
    if (!isNoted) throw refusal("start a candidate", answer);
    return { kind: "ended", lastWords: await this.stopCandidate(instance) };
  }

  #properties(start: CandidateStart): string[] {
    const { instance, environment, endsAfter, readyWithin } = start;
    const properties = [
      `RuntimeMaxSec=${seconds(endsAfter)}`,
      `TimeoutStartSec=${seconds(readyWithin)}`,
      `TimeoutStopSec=${seconds(STOP_TIME)}`,
      "KillMode=control-group",
      "Restart=no",
      "LimitNOFILE=1024:524288",
      "UnsetEnvironment=BUN_BE_BUN BUN_OPTIONS",
      `ExecStopPost=/bin/sh -c '${noteEnding}' ${this.#note(instance)}`,
    ];
    return [
      `--unit=${unitOf(instance)}`,
      "--description=hostler fleet agent, a candidate",
      // A unit that failed would be there for ever, and its name could not be used.
      "--collect",
      "--quiet",
      // It returns when the candidate says that it is ready, or has failed before.
      "--service-type=notify",
      ...properties.map((property) => `--property=${property}`),
      ...Object.entries(environment).map(([name, value]) => `--setenv=${name}=${value}`),
      "--",
    ];
  }

  async findCandidate(instance: string): Promise<boolean> {
    return await this.#isThere(unitOf(instance));
  }

  candidateEnd(instance: string): Promise<LastWords> {
    const { promise, resolve, reject } = Promise.withResolvers<LastWords>();
    const look = async (looks: number): Promise<void> => {
      const isOver =
        this.#readNote(instance) !== undefined ||
        (looks % LOOKS_BEFORE_ASKING === 0 && !(await this.#isThere(unitOf(instance))));
      if (isOver) resolve(await this.#lastWords(instance));
      else this.#loop.wakeAfter(LOOK_EVERY, () => void look(looks + 1).catch(reject));
    };
    look(0).catch(reject);
    return promise;
  }

  async stopCandidate(instance: string): Promise<LastWords> {
    const answer = await runCommand(["systemctl", "stop", unitOf(instance)], STOP_TIME + GRACE);
    if (answer.code !== 0 && answer.code !== NOT_LOADED) {
      throw refusal("stop the candidate", answer);
    }
    return await this.#lastWords(instance);
  }

  async restartCanonical(): Promise<void> {
    const answer = await runCommand(["systemctl", "--no-block", "restart", agentUnit], GRACE);
    // It runs in the unit that it has ended: the restart can be faster than its own exit.
    if (answer.signal === "SIGTERM") return;
    if (answer.code !== 0) throw refusal(`restart ${agentUnit}`, answer);
  }

  /** What its unit has said in this boot, before this process was started in it. */
  async formerCanonicalEnd(): Promise<LastWords | null> {
    await runCommand(["journalctl", "--sync"], GRACE);
    const { code, output } = await runCommand(
      [
        ...["journalctl", "--boot", "--quiet", "--no-pager", "--output=json"],
        ...["--output-fields=MESSAGE,_PID,INVOCATION_ID,_SYSTEMD_INVOCATION_ID"],
        ...[`--lines=${MOST_LINES}`, `--unit=${agentUnit}`],
      ],
      GRACE,
    );
    const own = process.env["INVOCATION_ID"];
    return code === 0 ? parseFormerEnding(output, { process: process.pid, invocation: own }) : null;
  }

  /** Root's files can be read; nothing can be written or reached, and there is little memory. */
  async runConfined(argv: readonly string[], limit: Milliseconds): Promise<CommandAnswer> {
    mkdirSync(this.#folder, { recursive: true, mode: 0o755 });
    const place = mkdtempSync(join(this.#folder, "confined-"));
    const [output, said] = [join(place, "output"), join(place, "said")];
    try {
      const properties = [...confinement, `TimeoutStartSec=${seconds(limit)}`];
      const answer = await runCommand(
        [
          // A unit of this type has started when it has ended. --wait would need D-Bus.
          ...["systemd-run", "--collect", "--service-type=oneshot"],
          ...properties.map((property) => `--property=${property}`),
          `--property=StandardOutput=file:${output}`,
          `--property=StandardError=file:${said}`,
          "--",
          ...argv,
        ],
        limit + GRACE,
      );
      const words = readIfThere(said)?.trim().slice(-MOST_SAID);
      return {
        code: answer.code,
        output: readIfThere(output) ?? "",
        said: words === undefined || words === "" ? answer.said : words,
      };
    } finally {
      rmSync(place, { recursive: true, force: true });
    }
  }

  async #isThere(unit: string): Promise<boolean> {
    const argv = ["systemctl", "show", "--property=ActiveState", "--value", unit];
    const answer = await runCommand(argv, GRACE);
    if (answer.code !== 0) throw refusal(`ask for ${unit}`, answer);
    return !["inactive", "failed"].includes(answer.output.trim());
  }

  async #lastWords(instance: string): Promise<LastWords> {
    const note = this.#readNote(instance);
    if (note === undefined) return unknownEnding;
    // What the journal has taken and not written yet would be missing.
    await runCommand(["journalctl", "--sync"], GRACE);
    const { output } = await runCommand(
      [
        ...["journalctl", "--boot", "--quiet", "--no-pager", "--output=cat"],
        ...[`--lines=${MOST_LINES}`, `_SYSTEMD_UNIT=${unitOf(instance)}`],
      ],
      GRACE,
    );
    return parseUnitEnding(note, output);
  }

  #note(instance: string): string {
    return join(this.#folder, `${instance}.ending`);
  }

  #readNote(instance: string): string | undefined {
    return readIfThere(this.#note(instance));
  }
}

function readIfThere(path: string): string | undefined {
  if (statSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
  return readFileSync(path, "utf8");
}

const unitOf = (instance: string) => `hostler-fleet-candidate-${instance}.service`;
const seconds = (time: Milliseconds) => `${Math.max(1, Math.ceil(time / 1_000))}`;

function refusal(what: string, { code, said }: CommandAnswer): ExecutorRefused {
  return new ExecutorRefused(
    `Cannot ${what}: expected that systemd does it, received exit ${code}: ` +
      `${said === "" ? "no word" : said}. Ask it yourself: systemctl status.`,
  );
}
