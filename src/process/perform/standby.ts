import type { AgentLink, PreparedAnswer } from "./agent-link.ts";

/**
 * The next start of a process, which its agent holds prepared. It is made when it is asked for; an
 * armed one makes itself at the end of the instance that it replaces, and is asked for afterwards.
 */
export class Standby {
  readonly link: AgentLink;
  readonly invocation: string;
  /** The instance that runs now. */
  readonly replaces: string;
  #armed = false;
  /** It is being taken back for a while. */
  #rests = false;
  /** What an armed start came to before it was asked for. */
  #answer: PreparedAnswer | undefined;
  #onAnswer: ((answer: PreparedAnswer) => void) | undefined;
  /** Who took it back, and waits for the answer to that. */
  #onWithdrawn: ((answer: PreparedAnswer) => void) | undefined;

  constructor(link: AgentLink, invocation: string, replaces: string) {
    this.link = link;
    this.invocation = invocation;
    this.replaces = replaces;
  }

  /** The agent may have made it already. */
  get isArmed(): boolean {
    return this.#armed;
  }

  /** It is known what an armed one came to, though nobody has asked. */
  get isAnswered(): boolean {
    return this.#answer !== undefined;
  }

  /** It is known that it was not made, and that it is not prepared for sure. */
  get isVoid(): boolean {
    const kind = this.#answer?.kind;
    return kind === "disarmed" || kind === "not-prepared";
  }

  arm(): void {
    this.#armed = true;
    this.link.arm(this, (answer) => this.#onArmAnswer(answer));
  }

  /** Takes an armed one back for a while; one that was made already stays, and is asked for. */
  rest(): void {
    if (!this.#armed || this.#answer !== undefined) return;
    this.#rests = true;
    this.link.disarm(this.invocation);
  }

  #onArmAnswer(answer: PreparedAnswer): void {
    this.#armed = answer.kind !== "disarmed";
    const take = this.#onWithdrawn ?? this.#onAnswer;
    if (take !== undefined) take(answer);
    // One that was taken back for a while is prepared as before; unasked it is an answer.
    else if (answer.kind !== "disarmed" || !this.#rests) this.#answer = answer;
    this.#rests = false;
  }

  /** Has it made, or takes what came of it when it made itself. */
  go(replaces: string | undefined, onAnswer: (answer: PreparedAnswer) => void): void {
    if (this.#answer !== undefined) onAnswer(this.#answer);
    else if (this.#armed) this.#onAnswer = onAnswer;
    else this.link.go({ invocation: this.invocation, replaces }, onAnswer);
  }

  /** Takes an armed one back; told what came of that: "disarmed" if it was not made. */
  withdraw(onAnswer: (answer: PreparedAnswer) => void): void {
    if (this.#answer !== undefined) onAnswer(this.#answer);
    else {
      this.#onWithdrawn = onAnswer;
      this.link.disarm(this.invocation);
    }
  }
}
