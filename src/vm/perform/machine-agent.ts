import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import {
  type AgentPlace,
  AgentUnreachable,
  type AnswerTimes,
  type CommandHandlers,
  GuestAgentClient,
  type GuestCommand,
  type RunningCommand,
} from "../guest-agent/client.ts";

/**
 * The agent in the guest of one machine, asked by its worker. A VMM has room for one connection to
 * it, so that all who ask share this one; it is made when it is first needed.
 */
export class MachineAgent implements Disposable {
  readonly #loop: EventLoop;
  readonly #place: () => AgentPlace;
  readonly #times: Partial<AnswerTimes>;
  #client: GuestAgentClient | undefined;

  /** @param place where the VMM listens for us, when it is asked for */
  constructor(loop: EventLoop, place: () => AgentPlace, times: Partial<AnswerTimes> = {}) {
    this.#loop = loop;
    this.#place = place;
    this.#times = times;
  }

  /** Each VMM of the machine listens in a place of its own. */
  get #asked(): GuestAgentClient {
    const place = this.#place();
    if (this.#client !== undefined && !Bun.deepEquals(this.#client.place, place)) {
      this[Symbol.dispose]();
    }
    this.#client ??= new GuestAgentClient(this.#loop, place, this.#times);
    return this.#client;
  }

  /** The agent has ended, or its guest began anew: what it was asked is not answered any more. */
  leave(): void {
    this.#client?.leave();
  }

  /**
   * A connection that stood may lead to an agent that has ended since, which is told only when it
   * is asked: then it is asked once more.
   * @returns how long the answer took
   * @throws AgentUnreachable, AgentRefused or GuestBrokeRules
   */
  async ping(): Promise<Milliseconds> {
    const client = this.#asked;
    const stood = client.isConnected;
    try {
      return await client.ping();
    } catch (error) {
      if (!stood || !(error instanceof AgentUnreachable)) throw error;
      return await client.ping();
    }
  }

  /**
   * Runs a program, once the agent has answered: what was sent to one that has ended is not sent
   * again, because nobody knows whether it ran.
   */
  exec(command: GuestCommand, handlers: CommandHandlers): RunningCommand {
    let running: RunningCommand | undefined;
    let isOver = false;
    const run = async () => {
      await this.ping();
      if (isOver) throw new AgentUnreachable("The program was ended before it began");
      running = this.#asked.exec(command, handlers);
      return await running.ended;
    };
    return {
      ended: run(),
      hold: (held) => running?.hold(held),
      end: () => {
        isOver = true;
        running?.end();
      },
    };
  }

  /** What is waited for is lost; programs in the guest end. */
  [Symbol.dispose](): void {
    this.#client?.close();
    this.#client = undefined;
  }
}
