import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { withFile } from "../../journal/file-refused.ts";
import {
  type LegibleParts,
  legibleParts,
  type MachineRecord,
  machineRecordSchema,
  mostRecordBytes,
  noteFromRecord,
} from "../machine-record.ts";
import { refuseName } from "../protocol.ts";
import { haveOwner } from "./disk-ownership.ts";
import { RecordReserve } from "./record-reserve.ts";

/** A record that cannot be understood: its machine is left alone, and told. */
export interface UnreadableRecord {
  readonly name: string;
  readonly path: string;
  readonly reason: string;
  readonly legible: LegibleParts;
}

const recordName = "machine.json";

/**
 * The folders of machines below the artifacts folder: `machines/NAME/machine.json` and
 * `machines/NAME/disks`. 0711, so that a VMM under a uid of its own reaches its disks, and lists
 * nothing.
 */
export class MachineFolders {
  readonly #folder: string;
  readonly #reserve: RecordReserve;

  /** @throws FileRefused when the folder cannot be made or used */
  constructor(artifactsFolder: string) {
    this.#folder = join(artifactsFolder, "machines");
    const place = {
      what: "keep machines in",
      path: this.#folder,
      otherwise: "give another folder",
    };
    this.#reserve = withFile(place, () => {
      mkdirSync(this.#folder, { recursive: true });
      chmodSync(this.#folder, 0o711);
      return new RecordReserve(artifactsFolder);
    });
  }

  folderOf(name: string): string {
    return join(this.#folder, name);
  }

  disksOf(name: string): string {
    return join(this.#folder, name, "disks");
  }

  /** Every machine that there is; what cannot be read is told, and never removed. */
  read(): {
    readonly records: Map<string, MachineRecord>;
    readonly unreadable: UnreadableRecord[];
  } {
    const records = new Map<string, MachineRecord>();
    const unreadable: UnreadableRecord[] = [];
    for (const name of readdirSync(this.#folder).toSorted()) {
      const path = join(this.#folder, name, recordName);
      if (refuseName(name) !== undefined) {
        const reason = "its folder's name is no machine's";
        unreadable.push({ name, path, reason, legible: legibleIn(path) });
        continue;
      }
      // A machine that was being made, and of which nothing else exists yet.
      if (!existsSync(path)) {
        if (!haveOwner(this.disksOf(name))) this.remove(name);
        continue;
      }
      const found = readRecord(path, name);
      if (typeof found === "string") {
        unreadable.push({ name, path, reason: found, legible: legibleIn(path) });
      } else {
        records.set(name, found);
      }
    }
    return { records, unreadable };
  }

  /** Something of the machine is on the disk. */
  hasRecord(name: string): boolean {
    return existsSync(join(this.folderOf(name), recordName));
  }

  /** @throws Error (ENOSPC, EROFS …): the former record stands */
  write(name: string, record: MachineRecord): void {
    const folder = this.folderOf(name);
    if (!existsSync(folder)) {
      mkdirSync(folder);
      chmodSync(folder, 0o711);
    }
    const text = `${JSON.stringify(record, null, 2)}\n`;
    this.#reserve.write(join("machines", name, recordName), text);
  }

  /** Its record first: without one the rest is no machine's. @throws Error (EBUSY …) */
  removeAllBut(name: string, kept: string): void {
    const folder = this.folderOf(name);
    rmSync(join(folder, recordName), { force: true });
    for (const other of readdirSync(folder).filter((found) => found !== kept)) {
      rmSync(join(folder, other), { recursive: true, force: true });
    }
  }

  /** With its disks. @throws Error (EBUSY …) */
  remove(name: string): void {
    rmSync(this.folderOf(name), { recursive: true, force: true });
  }
}

function legibleIn(path: string): LegibleParts {
  try {
    const status = lstatSync(path);
    // A pipe might never end, and what is longer is no record.
    const isRead = status.isFile() && status.size <= mostRecordBytes;
    return legibleParts(isRead ? readFileSync(path, "latin1") : "");
  } catch {
    return legibleParts("");
  }
}

function readRecord(path: string, name: string): MachineRecord | string {
  const status = lstatSync(path);
  if (!status.isFile()) return "expected a file, received something else";
  if (statSync(path).size > mostRecordBytes) {
    return `expected at most ${mostRecordBytes} bytes, received ${status.size}`;
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    return `expected JSON: ${error instanceof Error ? error.message : String(error)}`;
  }
  const outcome = v.safeParse(machineRecordSchema, parsed);
  if (!outcome.success) {
    const [issue] = outcome.issues;
    return `${v.getDotPath(issue) ?? "the record"}: ${issue.message}`;
  }
  if (outcome.output.spec.name !== name) {
    return `expected the record of ${name}, received that of ${outcome.output.spec.name}`;
  }
  const note = noteFromRecord(outcome.output.note);
  return typeof note === "string" ? `note: ${note}` : outcome.output;
}
