import { readFileSync } from "node:fs";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { ServiceNotifier } from "../../messaging/service-notify.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { type Bytes, formatDuration, type Milliseconds } from "../../units/units.ts";
import {
  CONTENT_TOKEN,
  decodeHoldManifest,
  encodeHoldManifest,
  entriesOutside,
  type HeldEntry,
  HOLD_MANIFEST_VERSION,
  type HoldManifest,
  holdLimits,
} from "../hold/manifest.ts";
import { listed, type Say } from "../run/words.ts";
import { describeError, type PreservationRequest, UpdateClient } from "../update-client.ts";
import {
  isProblem,
  MANIFEST_TOKEN,
  memoryFileOf,
  passStep,
  preserveFile,
  retrieveFile,
  retrieveManifest,
} from "./carried.ts";
import { copyIn, reasonOf, type Scan, scan } from "./hold-archive.ts";
import { restore } from "./hold-restore.ts";
import { Turns } from "./turns.ts";

export interface HoldOptions {
  readonly id: string;
  readonly socket: string;
  readonly required: boolean;
  readonly deadline: Milliseconds;
  /** Absolute. */
  readonly paths: readonly string[];
  readonly skipOthers: boolean;
  /** Restores, and ends. */
  readonly once: boolean;
  /** How long luod is waited for when it only restores. */
  readonly wait: Milliseconds;
  /** All contents together. */
  readonly mostBytes: Bytes;
}

/** Carries files through RAM: they are copied when an update begins, and restored after it. */
export class FileHolder implements Disposable {
  readonly #loop: EventLoop;
  readonly #options: HoldOptions;
  readonly #say: Say;
  readonly #ended = Promise.withResolvers<number>();
  readonly #notifier = new ServiceNotifier();
  readonly #client: UpdateClient;
  #timer: Disposable | undefined;
  #watchdog: Disposable | undefined;
  /** Whether it is known what an earlier kernel left, and all of it is in its place. */
  #isRestored = false;
  #preservation: PreservationRequest | undefined;
  /** Why what waits could not be claimed, or luod does not take this id. */
  #refusal: string | undefined;

  constructor(loop: EventLoop, options: HoldOptions, say: Say) {
    this.#loop = loop;
    this.#options = options;
    this.#say = say;
    const { id, socket, required, deadline, once } = options;
    const subscription = once ? undefined : { required, deadline };
    this.#client = new UpdateClient(
      loop,
      { id, socket, program: "hostler live-update hold", subscription },
      {
        onStart: (request, session) => this.#onStart(request, session),
        onAborted: (reason) => this.#onAborted(reason),
        onClaimed: (session) => this.#onClaimed(session),
        onNothing: (why) => this.#onNothing(why),
        onClaimRefused: (error) => {
          this.#refusal = describeError(error);
          this.#trouble(`cannot claim yet: ${this.#refusal}`);
        },
        onRefused: (error, isFinal) => this.#onRefused(describeError(error), isFinal),
        onSettled: () => this.#onSettled(),
        onTrouble: (message) => this.#trouble(message),
      },
    );
  }

  async run(): Promise<number> {
    const { paths, once, wait } = this.#options;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => this.#ended.resolve(ExitCode.done));
    }
    const text = `${once ? "restores" : "holds"} ${paths.join(", ")}`;
    this.#say({ what: once ? "restores" : "holds", text, names: paths });
    if (once) this.#timer = this.#loop.wakeAfter(wait, () => this.#endLate());
    this.#keepWatchdog();
    this.#client.start();
    return await this.#ended.promise;
  }

  fail(failure: unknown): void {
    this.#ended.reject(failure);
  }

  #trouble(message: string): void {
    this.#say({ what: "trouble", text: message });
  }

  #keepWatchdog(): void {
    const { watchdog } = this.#notifier;
    if (watchdog === undefined) return;
    this.#notifier.tell("WATCHDOG=1");
    this.#watchdog = this.#loop.wakeAfter(watchdog / 2, () => this.#keepWatchdog());
  }

  /** Before it is known what waits nothing is held yet: there is no use of waiting. */
  #onRefused(why: string, isFinal: boolean): void {
    this.#refusal = `luod refuses ${this.#options.id}: ${why}`;
    if (isFinal && !this.#isRestored) this.#endUnanswered(this.#refusal);
  }

  #endUnanswered(unclaimed: string): void {
    this.#say({ what: "ends", text: `nothing was restored: ${unclaimed}` });
    this.#ended.resolve(ExitCode.refused);
  }

  #endLate(): void {
    const { socket, wait } = this.#options;
    const unclaimed = this.#refusal ?? `no answer of luod at ${socket}`;
    this.#endUnanswered(`${unclaimed} (for ${formatDuration(wait)})`);
  }

  // After a kexec.

  #onNothing(why: string): void {
    this.#timer?.[Symbol.dispose]();
    this.#say({ what: "nothing-waits", text: `nothing is to be restored: ${why}` });
    this.#becomeReady();
  }

  #becomeReady(): void {
    this.#isRestored = true;
    this.#notifier.tell("READY=1");
    if (this.#options.once) this.#ended.resolve(ExitCode.done);
  }

  #onClaimed(given: OwnedDescriptor): void {
    using session = given;
    this.#timer?.[Symbol.dispose]();
    passStep("hold", "claimed");
    const found = takeContent(session);
    passStep("hold", "retrieved");
    if (isProblem(found)) {
      this.#failToRestore(found.problem);
      return;
    }
    const { manifest, archive } = found;
    const outside = entriesOutside(manifest.entries, this.#options.paths);
    if (outside.length > 0) {
      archive?.close();
      const names = listed(outside.map(({ path }) => path));
      this.#failToRestore(`these were held and are not among the paths now: ${names}`);
      return;
    }
    void this.#restore(manifest, archive);
  }

  /** Its session stays, so nothing is lost by that. */
  #failToRestore(problem: string): void {
    const mend = "Its session stays at luod, to be claimed again or finished by luoctl finish.";
    this.#say({ what: "ends", text: `nothing more is restored: ${problem}. ${mend}` });
    this.#ended.resolve(ExitCode.refused);
  }

  async #restore(manifest: HoldManifest, archive: OwnedDescriptor | undefined): Promise<void> {
    const begun = monotonicNow();
    try {
      const turns = new Turns(this.#loop, holdLimits.turnTime);
      await restore(manifest, archive, { id: this.#options.id, turns });
    } catch (error) {
      this.#failToRestore(reasonOf(error));
      return;
    } finally {
      archive?.close();
    }
    const { bytes } = manifest;
    const files = manifest.entries.filter(({ kind }) => kind === "file").length;
    const took = formatDuration(monotonicNow() - begun);
    const text = `restored ${files} files, ${formatBytes(bytes)}, in ${took}`;
    this.#say({ what: "restored", text, bytes, files });
    this.#client.finished();
  }

  #onSettled(): void {
    passStep("hold", "finished");
    this.#say({ what: "finished", text: "the memory that carried them is free again" });
    this.#becomeReady();
  }

  // Before a kexec.

  #onStart(request: PreservationRequest, session: OwnedDescriptor): void {
    if (!this.#isRestored) {
      session.close();
      this.#client.abort("it has not restored the files of the last update yet");
      return;
    }
    this.#preservation = request;
    const text = `${request.dryRun ? "dry run" : "update"} ${request.update}: copies the files`;
    this.#say({ what: "copying", text, update: request.update });
    void this.#preserve(request, session);
  }

  #onAborted(reason: string): void {
    const update = this.#preservation?.update;
    this.#preservation = undefined;
    const text = `the update ended: ${reason}; the files are as they are`;
    this.#say({ what: "aborted", text, ...(update !== undefined && { update }) });
  }

  async #preserve(request: PreservationRequest, given: OwnedDescriptor): Promise<void> {
    using session = given;
    try {
      await this.#copyAndPreserve(request, session);
    } catch (error) {
      this.#refuse(request, reasonOf(error));
    }
  }

  #refuse(request: PreservationRequest, reason: string): void {
    if (this.#preservation !== request) return;
    this.#preservation = undefined;
    this.#say({ what: "refused", text: reason, update: request.update });
    this.#client.abort(reason);
  }

  async #copyAndPreserve(request: PreservationRequest, session: OwnedDescriptor): Promise<void> {
    const begun = monotonicNow();
    const turns = new Turns(this.#loop, holdLimits.turnTime);
    const found = await scan(this.#options.paths, turns);
    this.#check(found);
    using archive = makeMemoryFile("hostler-hold");
    const goesOn = () => this.#preservation === request;
    const { entries, bytes } = await this.#copy(found, archive, { turns, goesOn });
    if (!goesOn()) return;
    passStep("hold", "taken");
    const manifest = encodeHoldManifest({
      version: HOLD_MANIFEST_VERSION,
      kind: "hold",
      bytes,
      entries: [...entries],
    });
    preserveOrThrow(session, archive, bytes === 0 ? undefined : CONTENT_TOKEN);
    passStep("hold", "preserved");
    using file = memoryFileOf("hostler-hold-manifest", manifest);
    preserveOrThrow(session, file, MANIFEST_TOKEN);
    passStep("hold", "manifest");
    session.close();
    const all = bytes + manifest.length;
    this.#client.ready(all);
    passStep("hold", "ready");
    const files = entries.filter(({ kind }) => kind === "file").length;
    const took = formatDuration(monotonicNow() - begun);
    const text = `ready after ${took}: ${files} files, ${formatBytes(all)}`;
    this.#say({ what: "ready", text, update: request.update, bytes: all, files });
  }

  /** @throws Error when not all of it can be carried */
  #check({ others, bytes }: Scan): void {
    const { skipOthers, mostBytes } = this.#options;
    if (others.length > 0 && !skipOthers) {
      throw new Error(`it cannot be carried: ${listed(others)} (--skip-others goes on without)`);
    }
    if (others.length > 0) {
      this.#say({ what: "left-out", text: `goes without ${listed(others)}`, names: others });
    }
    if (bytes > mostBytes) {
      const limit = `at most ${formatBytes(mostBytes)} (--limit)`;
      throw new Error(`it is too much: expected ${limit}, received ${formatBytes(bytes)}`);
    }
    const available = availableMemory();
    if (available !== undefined && bytes > available) {
      const limit = `at most ${formatBytes(available)}, which is the memory that is available`;
      throw new Error(`it is too much: expected ${limit}, received ${formatBytes(bytes)}`);
    }
  }

  async #copy(
    found: Scan,
    archive: OwnedDescriptor,
    options: { readonly turns: Turns; readonly goesOn: () => boolean },
  ): Promise<{ readonly entries: readonly HeldEntry[]; readonly bytes: number }> {
    const entries: HeldEntry[] = [];
    let bytes = 0;
    let percent = 0;
    for (const entry of found.entries) {
      if (!options.goesOn()) break;
      if (entry.kind === "folder") {
        entries.push(entry);
        continue;
      }
      const file = await copyIn(entry.path, { archive, offset: bytes }, options);
      entries.push(file);
      bytes += file.bytes;
      const reached = Math.min(100, Math.floor((100 * bytes) / Math.max(1, found.bytes)));
      // A line for each percent, however many files there are.
      if (reached > percent) this.#tellProgress(reached, bytes, entry.path);
      percent = reached;
    }
    return { entries, bytes };
  }

  #tellProgress(percent: number, bytes: number, path: string): void {
    this.#client.progress({ percent, bytes, detail: path });
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#watchdog?.[Symbol.dispose]();
    this.#preservation = undefined;
    this.#client[Symbol.dispose]();
  }
}

/** @throws Error with the kernel's reason */
function preserveOrThrow(
  session: OwnedDescriptor,
  file: OwnedDescriptor,
  token: bigint | undefined,
): void {
  const problem = token === undefined ? undefined : preserveFile(session, file, token);
  if (problem !== undefined) throw new Error(`the copy cannot be preserved: ${problem}`);
}

/** MemAvailable of /proc/meminfo, in bytes. */
function availableMemory(): Bytes | undefined {
  try {
    const text = /^MemAvailable:\s*(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "latin1"))?.[1];
    return text === undefined ? undefined : Number(text) * 1024;
  } catch {
    return undefined;
  }
}

function takeContent(
  session: OwnedDescriptor,
):
  | { readonly manifest: HoldManifest; readonly archive: OwnedDescriptor | undefined }
  | { readonly problem: string } {
  const found = retrieveManifest(session, holdLimits.manifestBytes);
  if (isProblem(found)) return found;
  const manifest = decodeHoldManifest(found.bytes);
  if (isProblem(manifest))
    return { problem: `its manifest is not understood: ${manifest.problem}` };
  if (manifest.bytes === 0) return { manifest, archive: undefined };
  const archive = retrieveFile(session, CONTENT_TOKEN);
  return isProblem(archive) ? archive : { manifest, archive };
}
