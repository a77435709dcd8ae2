/**
 * What an executor is asked to do, beside the service manager that it is for: run by the compiled
 * file as its own Bun. Says what came of each word as a line of JSON.
 */
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import type { Executor } from "../../src/fleet/executor.ts";
import { chooseExecutor } from "../../src/fleet/perform/choose-executor.ts";
import { proveProgram } from "../../src/fleet/perform/prove.ts";
import { SuperviseExecutor } from "../../src/fleet/perform/supervise-executor.ts";
import { SystemdExecutor } from "../../src/fleet/perform/systemd.ts";

/** By the control socket where there is one, else by systemd. */
const [socket = "", instance = "", ...rest] = process.argv.slice(2);

/** The tests' kernel has what it needs: it is never started. */
const noWorker = (): Worker => {
  throw new Error("This kernel cannot wait for a descriptor by itself");
};

async function act(loop: EventLoop, executor: Executor): Promise<unknown> {
  const [act = "", program = "", endsAfter = "60000", readyWithin = "10000"] = rest;
  switch (act) {
    case "start":
      return await executor.startCandidate({
        ...{ instance, program, words: ["one", "two words"] },
        environment: { HOSTLER_TRANSACTION: "a b" },
        endsAfter: Number(endsAfter),
        readyWithin: Number(readyWithin),
      });
    case "find":
      return await executor.findCandidate(instance);
    case "end":
      return await executor.candidateEnd(instance);
    case "stop":
      return await executor.stopCandidate(instance);
    case "prove":
      // A version of an installation, in this executor's sandbox.
      return await proveProgram(program, endsAfter, executor.runConfined.bind(executor));
    case "kind":
      return chooseExecutor(loop, program).kind;
    case "renew":
      return await new SuperviseExecutor(socket, loop).renewSupervisor();
    case "restart":
      return await executor.restartCanonical();
    default:
      throw new Error(`There is no act ${act}.`);
  }
}

{
  using loop = new EventLoop(noWorker);
  const executor = socket === "" ? new SystemdExecutor(loop) : new SuperviseExecutor(socket, loop);
  let said: unknown;
  try {
    said = { done: (await act(loop, executor)) ?? null };
  } catch (error) {
    said = { refused: (error as Error).message };
  }
  process.stdout.write(`${JSON.stringify(said)}\n`);
}
