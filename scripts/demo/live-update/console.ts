/** The guest's console: what is typed there, what comes, and when the guest is another kernel. */
import { machineWords } from "../../guest/machine.ts";
import type { GuestKernel } from "../../guest-kernel/kernel-image.ts";
import { Tidings } from "../deadline.ts";
import { Program } from "../program.ts";

/** Generous: a processor is emulated, on a machine that may have much else to do. */
const bootMilliseconds = 5 * 60_000;
const commandMilliseconds = 2 * 60_000;
const memoryMebibytes = 1024;

export interface CommandOutcome {
  readonly exitCode: number;
  readonly lines: readonly string[];
  get text(): string;
}

export interface CommandOptions {
  /** Called with each line as it comes. */
  readonly onLine?: (line: string) => void;
  /** A line after which nothing is waited for, because the command does not outlive it. */
  readonly lastLine?: RegExp;
}

/** The command that runs. */
interface Running extends CommandOptions {
  readonly number: number;
  readonly lines: string[];
  exitCode: number | undefined;
}

export class GuestConsole {
  readonly #machine: Program;
  readonly #tidings = new Tidings();
  #boots = 0;
  #commands = 0;
  #running: Running | undefined;

  /** Switches the machine on. @param disk the only one; the guest cannot write to it */
  constructor(kernel: GuestKernel, disk: string) {
    const words = machineWords({
      kernel,
      root: { disks: [{ path: disk, writing: "refused" }], init: "/init" },
      kernelWords: ["kho=on", "liveupdate=on"],
      memoryMebibytes,
    });
    // However the demo ends, the machine ends with it.
    const leash = Bun.which("setpriv") === null ? [] : ["setpriv", "--pdeathsig", "KILL"];
    this.#machine = new Program("the guest", [...leash, ...words], {}, (line) => this.#take(line));
    void this.#machine.ended(2 ** 31 - 1).then(
      () => this.#tidings.end("the guest was switched off"),
      () => {},
    );
  }

  #take(serial: string): void {
    const line = serial.replaceAll("\r", "");
    if (line === "DEMO-READY") this.#boots += 1;
    const [, number, exitCode] = /^DEMO-END (\d+) (\d+)$/.exec(line) ?? [];
    const running = this.#running;
    if (running !== undefined && exitCode !== undefined && Number(number) === running.number) {
      running.exitCode = Number(exitCode);
    } else if (running !== undefined && running.exitCode === undefined && line !== "") {
      running.lines.push(line);
      running.onLine?.(line);
      if (running.lastLine?.test(line)) running.exitCode = 0;
    }
    this.#tidings.tell();
  }

  /** Until the guest has come up so many times: each time with another kernel. */
  async booted(times: number): Promise<void> {
    const look = () => (this.#boots >= times ? true : undefined);
    await this.#tidings.until(`kernel ${times} to come up`, look, bootMilliseconds);
  }

  /**
   * Types a command, as sh has it.
   * @throws NotSeen when it does not end
   */
  async run(command: string, options: CommandOptions = {}): Promise<CommandOutcome> {
    this.#commands += 1;
    const running: Running = { ...options, number: this.#commands, lines: [], exitCode: undefined };
    this.#running = running;
    this.#machine.write(`${running.number} ${command}\n`);
    const exitCode = await this.#tidings.until(
      `the end of: ${command}`,
      () => running.exitCode,
      commandMilliseconds,
    );
    const { lines } = running;
    return { exitCode, lines, text: lines.join("\n") };
  }

  /** What came over the serial line lately, for somebody who has to find out what went wrong. */
  get lastLines(): readonly string[] {
    return this.#machine.lines.slice(-40).map((line) => line.replaceAll("\r", ""));
  }

  /** Pulls the plug, when it is still on. */
  async close(): Promise<void> {
    this.#machine.kill("SIGKILL");
    await this.#machine.ended().catch(() => {});
  }

  async switchOff(): Promise<number> {
    this.#machine.write("0 poweroff -f\n");
    return await this.#machine.ended(commandMilliseconds);
  }
}
