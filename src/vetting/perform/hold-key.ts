import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { kill } from "../../../ffi/process.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Signal } from "../../units/signals.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";
import { authorizedKeySchema } from "../protocol-api.ts";
import { statusOf, within } from "./process-state.ts";

/**
 * The key of a hold: one line of authorized_keys of our own, with a forced command that marks
 * whatever is started through it. By that mark its sessions are found and ended, and no other's:
 * sshd and dropbear both follow `command=`, and neither tells which key let somebody in.
 */
const MARK = "hostler-vetting-hold";
const VARIABLE = "HOSTLER_VETTING_HOLD";
/**
 * What a session of it is: the command that was asked for, or a shell. Without a quotation mark or
 * a backslash: sshd takes those before them away, and dropbear leaves them where they are. What is
 * not split (IFS) and not matched with files (set -f) needs none.
 */
const session =
  "IFS=; set -f; case $SSH_ORIGINAL_COMMAND in ?*) exec sh -c $SSH_ORIGINAL_COMMAND;; esac; " +
  "exec sh -l";
const restrictions = "no-agent-forwarding,no-port-forwarding,no-X11-forwarding";
const servers = ["sshd", "sshd-session", "dropbear"];
/** Looks for a session that was being opened while its key went. */
const LOOKS = 5;
const LOOK_EVERY: Milliseconds = 100;

export interface HoldPlaces {
  /** Of root, where SSH servers look. */
  readonly authorizedKeys: string;
  /** In memory: the mark of the key that is there, until its sessions have ended. */
  readonly folder: string;
}

export class HoldKey {
  readonly #places: HoldPlaces;
  readonly #loop: EventLoop;
  #last: Promise<void> = Promise.resolve();

  constructor(loop: EventLoop, places: HoldPlaces) {
    this.#loop = loop;
    this.#places = places;
  }

  get #markFile(): string {
    return join(this.#places.folder, "hold");
  }

  /** The mark of a key that is no more, until its sessions have ended. */
  get #endingFile(): string {
    return join(this.#places.folder, "hold-ending");
  }

  /**
   * Puts the key in the place of the one before. @throws Error when it is none, or cannot be
   * written (ENOSPC, EROFS …)
   */
  install(key: string): Promise<void> {
    return this.#inTurn(() => {
      const checked = v.safeParse(authorizedKeySchema, key);
      if (!checked.success) {
        throw new Error("Expected one line of a public key, received another text");
      }
      // Another process may have put it there, and been killed: its sessions keep their mark.
      const mark = readMark(this.#markFile) ?? randomBytes(16).toString("hex");
      writeFileSync(this.#markFile, mark, { mode: 0o600 });
      // Of a folder that a shell takes as it is: it is told between apostrophes.
      if (/['"\\\n]/.test(this.#markFile)) {
        throw new Error(`Expected a folder without quotation marks, received ${this.#markFile}`);
      }
      const check = `read -r now <'${this.#markFile}'; case $now in ${mark}) ;; *) exit 1;; esac`;
      const command = `command="${check}; export ${VARIABLE}=${mark}; ${session}"`;
      const [type = "", body = ""] = checked.output.split(" ");
      this.#rewrite([`${command},${restrictions} ${type} ${body} ${MARK}`]);
    });
  }

  /** Removes our line, then ends whoever came by it. @returns how many processes were ended */
  remove(): Promise<number> {
    return this.#inTurn(() => this.#remove());
  }

  /** A key that is put there while another one's sessions are ended must not have their mark. */
  async #inTurn<T>(work: () => T | Promise<T>): Promise<T> {
    const before = this.#last;
    const done = Promise.withResolvers<void>();
    this.#last = done.promise;
    await before;
    try {
      return await work();
    } finally {
      done.resolve();
    }
  }

  async #remove(): Promise<number> {
    if (existsSync(this.#places.authorizedKeys)) this.#rewrite([]);
    // Of an agent that was killed in the middle of this.
    const left = await this.#endMarked();
    if (!existsSync(this.#markFile)) return left;
    // From here on no session begins: a connection may be open by which none has been asked for.
    renameSync(this.#markFile, this.#endingFile);
    return left + (await this.#endMarked());
  }

  async #endMarked(): Promise<number> {
    const mark = readMark(this.#endingFile);
    if (mark === undefined) return 0;
    const ended = new Set<ProcessId>();
    for (let look = 0; look < LOOKS; look++) {
      for (const processId of await this.#endSessions(mark)) ended.add(processId);
      const passed = Promise.withResolvers<void>();
      using _again = this.#loop.wakeAfter(LOOK_EVERY, () => passed.resolve());
      await passed.promise;
    }
    rmSync(this.#endingFile, { force: true });
    return ended.size;
  }

  /** Lines of others stay as they are. */
  #rewrite(ours: readonly string[]): void {
    const path = this.#places.authorizedKeys;
    const folder = dirname(path);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
    const before = existsSync(path) ? readFileSync(path, "utf8") : "";
    const others = before.split("\n").filter((line) => line !== "" && !line.endsWith(` ${MARK}`));
    const text = [...others, ...ours].map((line) => `${line}\n`).join("");
    if (text === before) return;
    writeFileSync(`${path}.new`, text, { mode: 0o600 });
    chmodSync(`${path}.new`, 0o600);
    renameSync(`${path}.new`, path);
  }

  async #endSessions(mark: string): Promise<ProcessId[]> {
    const all = readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number);
    const marked: ProcessId[] = [];
    for (const processId of all) if (await this.#carries(processId, mark)) marked.push(processId);
    const connections = marked.flatMap((processId) => connectionOf(processId) ?? []);
    for (const processId of [...new Set([...connections, ...marked])]) {
      kill(processId, Signal.SIGKILL);
    }
    return marked;
  }

  /** Another thread reads it: the environment of a stuck process may not be readable. */
  async #carries(processId: ProcessId, mark: string): Promise<boolean> {
    const read = readFile(`/proc/${processId}/environ`, "latin1").catch(() => "");
    const text = await within(this.#loop, read, "");
    return text.split("\0").includes(`${VARIABLE}=${mark}`);
  }
}

function readMark(path: string): string | undefined {
  try {
    return /^[0-9a-f]{32}$/.exec(readFileSync(path, "utf8"))?.[0];
  } catch {
    return undefined;
  }
}

/** The server's process of this connection alone: the one below the server that listens. */
function connectionOf(processId: ProcessId): ProcessId | undefined {
  let found: ProcessId | undefined;
  let at = statusOf(processId)?.parentId ?? 0;
  for (let depth = 0; at > 1 && depth < 32; depth++) {
    const parent = statusOf(at)?.parentId ?? 0;
    if (isServer(at) && isServer(parent)) found = at;
    at = parent;
  }
  return found;
}

/** By its file: dropbear runs its own anew by fexecve(3), after which older kernels name it "5". */
function isServer(processId: ProcessId): boolean {
  try {
    return servers.includes(basename(readlinkSync(`/proc/${processId}/exe`)));
  } catch {
    return false;
  }
}

/**
 * The fingerprint of the SSH host key, as `ssh-keygen -l` prints it, of whoever listens on port 22;
 * null: nobody does, or it has no key that is known.
 */
export function hostKeyFingerprint(root = "/"): string | null {
  if (!isListening(root)) return null;
  for (const { path, read } of hostKeys) {
    try {
      const blob = read(readFileSync(join(root, path)));
      if (blob === undefined) continue;
      const digest = createHash("sha256").update(blob).digest("base64").replace(/=+$/, "");
      const type = fieldsOf(blob)[0]?.toString("latin1") ?? "";
      return `SHA256:${digest} (${keyNames[type] ?? type})`;
    } catch {
      // Not there, or no key: the next one is looked at.
    }
  }
  return null;
}

const keyNames: Readonly<Record<string, string>> = {
  "ssh-ed25519": "ED25519",
  "ecdsa-sha2-nistp256": "ECDSA",
  "ssh-rsa": "RSA",
};

const publicKey = (text: Buffer): Buffer | undefined => {
  const body = text.toString("latin1").split(" ")[1];
  return body === undefined ? undefined : Buffer.from(body, "base64");
};

/** Dropbear keeps its private keys in the fields of RFC 4253, the public ones of them first. */
const dropbearKey =
  (fields: number) =>
  (file: Buffer): Buffer | undefined => {
    const found = fieldsOf(file).slice(0, fields);
    const [type, key] = found;
    if (found.length < fields || type === undefined || key === undefined) return undefined;
    // Of Ed25519 the seed and the public key are one field.
    const isEdwards = type.toString("latin1") === "ssh-ed25519";
    return Buffer.concat((isEdwards ? [type, key.subarray(32)] : found).map(fieldOf));
  };

const hostKeys = [
  // Of the live image's own server, which makes it anew in each boot.
  { path: "run/live/ssh-host-key.pub", read: publicKey },
  { path: "etc/dropbear/dropbear_ed25519_host_key", read: dropbearKey(2) },
  { path: "etc/dropbear/dropbear_ecdsa_host_key", read: dropbearKey(3) },
  { path: "etc/dropbear/dropbear_rsa_host_key", read: dropbearKey(3) },
  { path: "etc/ssh/ssh_host_ed25519_key.pub", read: publicKey },
  { path: "etc/ssh/ssh_host_ecdsa_key.pub", read: publicKey },
  { path: "etc/ssh/ssh_host_rsa_key.pub", read: publicKey },
] as const;

function fieldsOf(bytes: Buffer): Buffer[] {
  const fields: Buffer[] = [];
  for (let at = 0; at + 4 <= bytes.length && fields.length < 16; ) {
    const size = bytes.readUInt32BE(at);
    if (at + 4 + size > bytes.length) break;
    fields.push(bytes.subarray(at + 4, at + 4 + size));
    at += 4 + size;
  }
  return fields;
}

function fieldOf(bytes: Buffer): Buffer {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(bytes.length);
  return Buffer.concat([size, bytes]);
}

/** proc_net_tcp: port 22 is 0016, and state 0A is LISTEN. */
function isListening(root: string): boolean {
  return ["proc/net/tcp", "proc/net/tcp6"].some((path) => {
    try {
      const lines = readFileSync(join(root, path), "latin1").split("\n").slice(1);
      return lines.some((line) => / [0-9A-F]+:0016 [0-9A-F]+:0000 0A /.test(line));
    } catch {
      return false;
    }
  });
}
