/**
 * A process that calls what ffi/live-update.ts, ffi/kexec.ts and ffi/memory-file.ts have, as its
 * test tells it to, one call after the other. It is Bun itself with the fault hooks defined, so
 * that its calls go to a FakeKernel, and block in it like system calls.
 */
import { ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { duplicate } from "../../ffi/descriptor.ts";
import {
  isKernelLoaded,
  loadKernel,
  rebootInto,
  syncFilesystems,
  unloadKernel,
} from "../../ffi/kexec.ts";
import {
  createSession,
  finishSession,
  preserveDescriptor,
  retrieveDescriptor,
  retrieveSession,
  sessionName,
} from "../../ffi/live-update.ts";
import { makeMemoryFile } from "../../ffi/memory-file.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { errnoName } from "../../ffi/system-call-error.ts";
import { withDeadline } from "./wait-for.ts";

/** Kept in the caller, by numbers that say nothing of its descriptors. */
export interface Handle {
  readonly handle: number;
}

const handles = new Map<number, OwnedDescriptor>();
let nextHandle = 1;

function keep(result: OwnedDescriptor | number): Handle | string {
  if (typeof result === "number") return outcome(result);
  handles.set(nextHandle, result);
  return { handle: nextHandle++ };
}

function take(handle: Handle): OwnedDescriptor {
  const found = handles.get(handle.handle);
  if (found === undefined) throw new Error(`There is no handle ${handle.handle}`);
  return found;
}

const borrowers: Bun.Subprocess[] = [];

const outcome = (result: number) => (result < 0 ? errnoName(-result) : "done");

function fileWith(content: string): OwnedDescriptor {
  const file = makeMemoryFile("content");
  ftruncateSync(file.number, content.length);
  writeSync(file.number, content, 0);
  return file;
}

function contentOf(file: OwnedDescriptor): string {
  const bytes = new Uint8Array(4096);
  return new TextDecoder().decode(bytes.subarray(0, readSync(file.number, bytes, 0, 4096, 0)));
}

const operations = {
  create: (name: string) => keep(createSession(name)),
  retrieveSession: (name: string) => keep(retrieveSession(name)),
  /** A number is one of a descriptor that is not open. */
  preserve: (session: Handle, file: Handle | number, token: string) => {
    const descriptor = typeof file === "number" ? file : take(file);
    return outcome(preserveDescriptor(take(session), descriptor, BigInt(token)));
  },
  retrieve: (session: Handle, token: string) =>
    keep(retrieveDescriptor(take(session), BigInt(token))),
  finish: (session: Handle) => outcome(finishSession(take(session))),
  name: (session: Handle) => {
    const name = sessionName(take(session));
    return typeof name === "number" ? outcome(name) : { name };
  },
  load: (options: { kernel: Handle; initrd?: Handle; commandLine: string }) =>
    outcome(
      loadKernel({
        kernel: take(options.kernel),
        initrd: options.initrd && take(options.initrd),
        commandLine: options.commandLine,
      }),
    ),
  unload: () => outcome(unloadKernel()),
  isLoaded: () => isKernelLoaded(),
  sync: () => {
    syncFilesystems();
    return "done";
  },
  /** What returns was refused; -EIO means that the kernel is gone. */
  reboot: (what: "kexec" | "restart" | "power-off" | "halt") => outcome(rebootInto(what)),
  file: (content: string) => keep(fileWith(content)),
  open: (path: string) => keep(new OwnedDescriptor(openSync(path, "r"))),
  content: (file: Handle) => contentOf(take(file)),
  duplicate: (handle: Handle) => keep(duplicate(take(handle).number)),
  close: (handle: Handle) => {
    take(handle).close();
    handles.delete(handle.handle);
    return "done";
  },
  /** A process that has this descriptor too, until it is taken back or we end. */
  lend: (handle: Handle) => {
    borrowers.push(
      Bun.spawn(["/bin/cat"], { stdio: ["pipe", "ignore", "ignore", take(handle).number] }),
    );
    return "done";
  },
  takeBack: async () => {
    for (const borrower of borrowers.splice(0)) {
      borrower.kill("SIGKILL");
      await borrower.exited;
    }
    return "done";
  },
};

type Operations = typeof operations;

/** What an operation that was expected to give a descriptor gave. @throws Error with the refusal */
export function handleOf(result: Handle | string): Handle {
  if (typeof result === "string") throw new Error(`Expected a descriptor, received ${result}`);
  return result;
}

/** The other side: in the test's process. */
export class KernelCaller implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #waiting: ((line: string) => void)[] = [];

  constructor(environment: Readonly<Record<string, string>>, build = { faults: true }) {
    const define = `--define=HOSTLER_FAULTS=${build.faults}`;
    this.#child = Bun.spawn([process.execPath, define, import.meta.path], {
      env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin", ...environment },
      stdio: ["pipe", "pipe", "inherit"],
    });
    void this.#follow();
  }

  async #follow(): Promise<void> {
    const decoder = new TextDecoder();
    let text = "";
    for await (const bytes of this.#child.stdout) {
      const lines = (text + decoder.decode(bytes, { stream: true })).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) this.#waiting.shift()?.(line);
    }
  }

  /** Has the caller make a call, and gives what it gave: an error number by its name. */
  async call<Name extends keyof Operations>(
    name: Name,
    ...values: Parameters<Operations[Name]>
  ): Promise<Awaited<ReturnType<Operations[Name]>>> {
    const line = await withDeadline(`the answer to ${name}`, this.start(name, ...values));
    return JSON.parse(line) as Awaited<ReturnType<Operations[Name]>>;
  }

  /** The same, for a call that may never return. */
  start<Name extends keyof Operations>(
    name: Name,
    ...values: Parameters<Operations[Name]>
  ): Promise<string> {
    const answer = Promise.withResolvers<string>();
    this.#waiting.push(answer.resolve);
    this.#child.stdin.write(`${JSON.stringify({ name, values })}\n`);
    this.#child.stdin.flush();
    return answer.promise;
  }

  /** SIGKILL: every descriptor of it is closed when this is over. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

async function main(): Promise<void> {
  for await (const line of console) {
    const { name, values } = JSON.parse(line) as { name: keyof Operations; values: unknown[] };
    const operation = operations[name] as (...values: unknown[]) => unknown;
    console.log(JSON.stringify(await operation(...values)));
  }
}

if (import.meta.main) await main();
