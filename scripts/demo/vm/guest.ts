/** What the demo sees of a guest: a shell at its console, or the numbers that it counts. */
import { guestLetters } from "../../test-guest.ts";
import { READY_LINE } from "../../vm-guest.ts";
import { NotSeen } from "../deadline.ts";
import type { Program } from "../program.ts";
import type { GuestImage } from "./image.ts";
import type { VmStage } from "./stage.ts";

/** Its processor is emulated where there is no KVM, and another guest boots beside it. */
const bootMilliseconds = 75_000;

/** How often a counter is read before it counts as one that stands still. */
const mostReadings = 100;

/** Proof that a guest goes on: it counts, and it is the same one. */
export interface Pulse {
  /** Of the boot; the same for one that only counts. */
  readonly boot: string;
  readonly count: number;
  readonly words: string;
}

/** Typed at its serial console, as a person would. */
export class Guest {
  readonly name: string;
  readonly #stage: VmStage;
  readonly #kind: GuestImage["kind"];
  #console: Program | undefined;
  #questions = 0;

  constructor(stage: VmStage, name: string, kind: GuestImage["kind"]) {
    this.#stage = stage;
    this.name = name;
    this.#kind = kind;
  }

  /** Attaches to its console; anew after a worker has ended, and with it the attachment. */
  attach(): void {
    this.#console?.endInput();
    this.#console = this.#stage.openConsole(this.name);
  }

  /** @returns the address that it says it has, when it is up: "10.100.0.2/16" */
  async address(): Promise<string> {
    const line = new RegExp(`${READY_LINE} kernel \\S+ address (\\S+)`);
    const match = await this.#console?.said(line, 0, bootMilliseconds);
    return match?.[1] ?? "none";
  }

  /** Types a line at its shell. @returns what that printed */
  async ask(script: string): Promise<string> {
    const console = this.#console;
    if (console === undefined) throw new NotSeen(`${this.name} has no console`);
    this.#questions += 1;
    const mark = `${this.#questions}-${this.name}`;
    // The quotes keep what is typed, which the guest echoes, from being taken for the answer.
    console.write(`echo "from"-${mark}; ${script}; echo "to"-${mark}\n`);
    await console.said(new RegExp(`^to-${mark}\\r*$`));
    const lines = console.lines.map((line) => line.replace(/\r+$/, ""));
    return lines
      .slice(lines.lastIndexOf(`from-${mark}`) + 1, lines.lastIndexOf(`to-${mark}`))
      .join("\n");
  }

  async pulse(): Promise<Pulse> {
    if (this.#kind === "counter") return await this.#counter();
    const files = "/proc/uptime /proc/sys/kernel/random/boot_id";
    const [uptime = "", boot = ""] = (await this.ask(`cat ${files}`)).split("\n");
    const count = Number(uptime.split(" ")[0]);
    return { boot, count, words: `up for ${count} s, boot ${boot.slice(0, 8)}` };
  }

  async #counter(): Promise<Pulse> {
    const { output } = await this.#stage.run("logs", this.name, "-n", "2");
    const [last] = [...output.matchAll(/T([0-9a-f]{8})/g)].slice(-1);
    const count = Number.parseInt(last?.[1] ?? "0", 16);
    return { boot: "", count, words: `at ${count}` };
  }

  /** @returns its pulse when it counts further than before, or the last one that was read */
  async later(before: Pulse): Promise<Pulse> {
    let pulse = await this.pulse();
    for (let reading = 1; reading < mostReadings && pulse.count <= before.count; reading += 1) {
      pulse = await this.pulse();
    }
    return pulse;
  }

  /** From inside, at its console. */
  switchOff(): void {
    this.attach();
    this.#console?.write(this.#kind === "counter" ? guestLetters.off : "poweroff -f\n");
  }

  /** How a ping to an address went, as ping's own summary. */
  async ping(address: string): Promise<string> {
    const said = await this.ask(`ping -c 2 -W 5 ${address}`);
    return said.split("\n").find((line) => line.includes("packet loss")) ?? said;
  }
}
