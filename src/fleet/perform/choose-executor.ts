import type { EventLoop } from "../../event-loop/event-loop.ts";
import { type Executor, ExecutorRefused } from "../executor.ts";
import { SUPERVISOR_VARIABLE } from "../protocol-supervise.ts";
import { persistenceOf } from "./persistence.ts";
import { SuperviseExecutor } from "./supervise-executor.ts";
import { isSystemdBooted, SystemdExecutor } from "./systemd.ts";

/**
 * Who starts agents here: nobody where the installation cannot be written to, the supervisor whose
 * child this agent is, or systemd.
 * @param folder of the installation
 * @throws ExecutorRefused where there is none of them
 */
export function chooseExecutor(
  loop: EventLoop,
  folder: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Executor {
  const { kind, mount } = persistenceOf(folder);
  if (kind === "immutable") return new ImmutableExecutor(folder, mount.type);
  const socket = environment[SUPERVISOR_VARIABLE];
  if (socket !== undefined) return new SuperviseExecutor(socket, loop);
  if (isSystemdBooted()) return new SystemdExecutor(loop);
  throw new ExecutorRefused(
    "Cannot upgrade this host: expected systemd, or an agent below hostler fleet supervise, " +
      "received neither. Start the agent by hostler fleet supervise.",
  );
}

/** A host of which nothing is replaced but the whole. */
class ImmutableExecutor implements Executor {
  readonly kind = "immutable";
  readonly #said: string;

  constructor(folder: string, fileSystem: string) {
    this.#said =
      `Cannot upgrade this host: expected that ${folder} can be written to, received ` +
      `${fileSystem}, read-only. Update the image.`;
  }

  startCandidate(): Promise<never> {
    return this.#refuse();
  }

  findCandidate(): Promise<boolean> {
    return Promise.resolve(false);
  }

  candidateEnd(): Promise<never> {
    return this.#refuse();
  }

  stopCandidate(): Promise<never> {
    return this.#refuse();
  }

  restartCanonical(): Promise<never> {
    return this.#refuse();
  }

  formerCanonicalEnd(): Promise<null> {
    return Promise.resolve(null);
  }

  runConfined(): Promise<never> {
    return this.#refuse();
  }

  #refuse(): Promise<never> {
    return Promise.reject(new ExecutorRefused(this.#said));
  }
}
