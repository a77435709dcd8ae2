/** A daemon's side of a holder in this process, with promises, and what a holder looks like. */
import { fstatSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { HolderClient, type HolderRefusal } from "../../src/holding/holder-client.ts";
import { allProcesses } from "../../src/process/perform/process-table.ts";
import { hostler, repositoryRoot } from "./binary.ts";
import { waitFor, withDeadline } from "./wait-for.ts";

/** Living holders of a control socket, by their command lines. */
export function holdersOf(controlSocket: string): number[] {
  return allProcesses().filter((processId) => {
    try {
      const words = readFileSync(`/proc/${processId}/cmdline`, "utf8").split("\0");
      const isZombie = /\) Z /.test(readFileSync(`/proc/${processId}/stat`, "latin1"));
      return words[1] === "--hold" && words[2] === controlSocket && !isZombie;
    } catch {
      return false;
    }
  });
}

/** The only living holder. */
export async function holderOf(controlSocket: string): Promise<number> {
  return await waitFor("one holder", () => {
    const [first, ...others] = holdersOf(controlSocket);
    return others.length === 0 && first;
  });
}

export async function noHolder(controlSocket: string): Promise<void> {
  await waitFor("the end of the holder", () => holdersOf(controlSocket).length === 0);
}

/** A descriptor of a file of its own, and which file that is. */
export function openFile(path: string): { readonly file: OwnedDescriptor; readonly inode: number } {
  const number = openSync(path, "a+");
  return { file: new OwnedDescriptor(number), inode: fstatSync(number).ino };
}

const inodeOf = (descriptor: OwnedDescriptor): number => fstatSync(descriptor.number).ino;

export type SessionKind = "createSession" | "retrieveSession";

/** Its answers are promises; what it is given of descriptors it closes. */
export class TestDaemon implements Disposable {
  readonly client: HolderClient;
  readonly troubles: string[] = [];
  readyCount = 0;
  readonly #loop: EventLoop;
  #isDisposed = false;

  constructor(
    controlSocket: string,
    command: readonly string[] = [hostler(), "--hold"],
    options: { readonly silenceTime?: number } = {},
  ) {
    this.#loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
    this.client = new HolderClient(this.#loop, {
      controlSocket,
      command,
      ...options,
      onTrouble: (message) => this.troubles.push(message),
      onReady: () => {
        this.readyCount += 1;
      },
    });
  }

  async ready(count = 1): Promise<void> {
    await waitFor(`the holder (${this.troubles})`, () => this.readyCount >= count);
  }

  async #answer<T>(what: string, ask: (tell: (answer: T) => void) => void): Promise<T> {
    const { promise, resolve } = Promise.withResolvers<{ readonly answer: T }>();
    ask((answer) => resolve({ answer }));
    return (await withDeadline(`the answer to ${what} (${this.troubles})`, promise)).answer;
  }

  async put(name: string, file: OwnedDescriptor): Promise<string | undefined> {
    const refusal = await this.#answer<HolderRefusal | undefined>(`put ${name}`, (tell) =>
      this.client.put(name, file, tell),
    );
    return refusal?.code;
  }

  /** Puts a new file, and gives its inode. */
  async putFile(name: string, path: string): Promise<number> {
    const { file, inode } = openFile(path);
    using _file = file;
    const refusal = await this.put(name, file);
    if (refusal !== undefined) throw new Error(`put ${name}: ${refusal}`);
    return inode;
  }

  /** The inode of what is kept. */
  async get(name: string): Promise<number | undefined> {
    const found = await this.#answer<OwnedDescriptor | undefined>(`get ${name}`, (tell) =>
      this.client.get(name, tell),
    );
    if (found === undefined) return undefined;
    const inode = inodeOf(found);
    found.close();
    return inode;
  }

  async drop(name: string): Promise<string | undefined> {
    const refusal = await this.#answer<HolderRefusal | undefined>(`drop ${name}`, (tell) =>
      this.client.drop(name, tell),
    );
    return refusal?.code;
  }

  async list(): Promise<string[]> {
    const names = await this.#answer<readonly string[]>("list", (tell) => this.client.list(tell));
    return names.toSorted();
  }

  /** A descriptor, which is the caller's to close, or a refusal. */
  async session(
    kind: SessionKind,
    session: string,
    as: { readonly name?: string } = {},
  ): Promise<OwnedDescriptor | HolderRefusal> {
    return await this.#answer(kind, (tell) => this.client[kind](session, tell, as));
  }

  [Symbol.dispose](): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.client[Symbol.dispose]();
    this.#loop[Symbol.dispose]();
  }
}

/** Ends a holder of a test, whatever it keeps. */
export function endHolders(controlSocket: string): void {
  for (const processId of holdersOf(controlSocket)) process.kill(processId, "SIGKILL");
}

/** Where the descriptors of a process lead to. */
export function descriptorsIn(processId: number): Map<number, string> {
  const folder = `/proc/${processId}/fd`;
  const found = new Map<number, string>();
  for (const number of readdirSync(folder)) {
    try {
      found.set(Number(number), readlinkSync(`${folder}/${number}`));
    } catch {
      // It was the one that the folder itself was read by.
    }
  }
  return found;
}
