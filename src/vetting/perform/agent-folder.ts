import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { type Inventory, inventoryLimits, inventorySchema } from "../../hardware/inventory.ts";
import { FileRefused, withFile } from "../../journal/file-refused.ts";
import { readHolder, tellHolder } from "../../journal/lock-holder.ts";
import type { Kept } from "../agent/lifecycle-state.ts";
import {
  acknowledgementSchema,
  agentPlaces,
  drawnSchema,
  positive,
  type ResultBody,
  resultSchema,
  vettingLimits,
} from "../protocol.ts";
import { resultLimits, stageSchema } from "../protocol-result.ts";

const keptSchema = v.strictObject({
  run: positive,
  boot_id: v.string(),
  instance: drawnSchema,
  session: v.nullable(v.pipe(v.string(), v.maxLength(256))),
  attempt: v.nullable(
    v.strictObject({ id: drawnSchema, stage: stageSchema, isBegun: v.boolean() }),
  ),
  intent: v.nullable(
    v.variant("kind", [
      v.strictObject({ kind: v.literal("abort"), directive: drawnSchema }),
      v.strictObject({
        kind: v.literal("leave"),
        how: v.picklist(["power-off", "reboot"]),
        directive: drawnSchema,
        cancels: v.boolean(),
      }),
    ]),
  ),
  taken: v.pipe(v.array(drawnSchema), v.maxLength(vettingLimits.remembered)),
  acknowledgements: v.pipe(v.array(acknowledgementSchema), v.maxLength(vettingLimits.remembered)),
  hold: v.nullable(
    v.strictObject({
      line: v.pipe(v.string(), v.maxLength(vettingLimits.authorizedKey)),
      until: v.nullable(v.number()),
    }),
  ),
});

/** include/uapi/linux/magic.h: TMPFS_MAGIC, RAMFS_MAGIC. */
const inMemory = [0x0102_1994, 0x8584_58f6];
const names = { kept: "agent.json", result: "result.json", inventory: "inventory.json" } as const;

/**
 * What an agent keeps: in memory, because the disks are what is tested, and without fsync, because
 * it has to survive this process and nothing else.
 */
export class AgentFolder implements Disposable {
  readonly path: string;
  readonly #lock: OwnedDescriptor;

  private constructor(path: string, lock: OwnedDescriptor) {
    this.path = path;
    this.#lock = lock;
  }

  /** @throws FileRefused where it is another's, is not in memory, or another agent has it */
  static open(path: string): AgentFolder {
    const place = { what: "keep a session", path, otherwise: "give another one by --folder" };
    const lock = withFile(place, () => {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      const found = lstatSync(path);
      if (!found.isDirectory() || found.uid !== process.geteuid?.()) {
        throw new FileRefused(
          `Will not keep a session in ${path}: expected a folder of this user, received another's`,
        );
      }
      chmodSync(path, 0o700);
      return lockFile(join(path, "lock"));
    });
    if (lock === "held") {
      const holder = readHolder(join(path, "lock"));
      throw new FileRefused(
        `Cannot keep a session in ${path}: another agent has it` +
          `${holder === undefined ? "" : ` (process ${holder})`}. Stop that one.`,
      );
    }
    if (path === agentPlaces.folder && !inMemory.includes(statfsSync(path).type >>> 0)) {
      lock.close();
      throw new FileRefused(
        `Will not keep a session in ${path}: expected a file system in memory, because ` +
          "nothing is written to the disks that are tested. Mount a tmpfs on /run, or give " +
          "another --folder.",
      );
    }
    tellHolder(lock);
    return new AgentFolder(path, lock);
  }

  readKept(): Kept | undefined {
    return this.#read(names.kept, keptSchema, 1024 ** 2);
  }

  /** @throws Error (ENOSPC …): what was there before is still there */
  writeKept(kept: Kept): void {
    this.#write(names.kept, kept);
  }

  readResult(): ResultBody | undefined {
    return this.#read(names.result, resultSchema, 2 * resultLimits.bytes);
  }

  writeResult(body: ResultBody): void {
    this.#write(names.result, body);
  }

  dropResult(): void {
    rmSync(join(this.path, names.result), { force: true });
  }

  readInventory(): Inventory | undefined {
    return this.#read(names.inventory, inventorySchema, 2 * inventoryLimits.bytes);
  }

  writeInventory(inventory: Inventory): void {
    this.#write(names.inventory, inventory);
  }

  /** What is no such file is taken for none: all of it can be asked for again. */
  #read<Schema extends v.GenericSchema>(
    name: string,
    schema: Schema,
    most: number,
  ): v.InferOutput<Schema> | undefined {
    try {
      const path = join(this.path, name);
      if (lstatSync(path).size > most) return undefined;
      const checked = v.safeParse(schema, JSON.parse(readFileSync(path, "utf8")));
      return checked.success ? checked.output : undefined;
    } catch {
      return undefined;
    }
  }

  #write(name: string, value: unknown): void {
    const path = join(this.path, name);
    writeFileSync(`${path}.new`, JSON.stringify(value), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  [Symbol.dispose](): void {
    this.#lock.close();
  }
}
