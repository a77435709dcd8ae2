import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { writeDurably } from "../../journal/append-journal.ts";
import { withFile } from "../../journal/file-refused.ts";
import { layoutNames } from "../layout.ts";
import { type ExpectedRole, type RoleKind, roleKinds } from "../lifecycle-roles.ts";
import { digestSchema, fleetLimits } from "../protocol.ts";

/** The newest form of the book that this version writes. */
export const ROLES_FORMAT = 1;

/** Bytes of the file. */
const MOST_BYTES = 64 * 1024;
const text = v.nullable(v.pipe(v.string(), v.maxLength(4_096)));

/** Loose, because a later version may say more, and know more kinds. */
const bookSchema = v.looseObject({
  format: v.literal(ROLES_FORMAT),
  roles: v.pipe(
    v.array(
      v.looseObject({
        kind: v.string(),
        unit: text,
        socket: text,
        asked: v.nullable(digestSchema),
      }),
    ),
    v.maxLength(fleetLimits.roles),
  ),
});

/**
 * The roles that are expected of this host: they are noted when they are seen, so that one that has
 * died is missed, by the next agent too.
 */
export class RoleBook {
  readonly #path: string;
  readonly #onTrouble: (message: string, cause: unknown) => void;
  /** What the file says. */
  #written: string | undefined;

  constructor(folder: string, onTrouble: (message: string, cause: unknown) => void) {
    this.#path = join(folder, layoutNames.roles);
    this.#onTrouble = onTrouble;
  }

  /** One that is damaged, or another version's, is begun anew. */
  read(): ExpectedRole[] {
    const stats = statSync(this.#path, { throwIfNoEntry: false });
    if (stats === undefined) return [];
    const said = stats.size > MOST_BYTES ? undefined : readFileSync(this.#path, "utf8");
    this.#written = said;
    const parsed =
      said === undefined
        ? undefined
        : v.safeParse(v.pipe(v.string(), v.parseJson(), bookSchema), said);
    if (parsed?.success !== true) {
      const why = `${this.#path} is not understood, and is begun anew, ignoring`;
      this.#onTrouble(why, parsed?.issues[0].message);
      return [];
    }
    return parsed.output.roles.flatMap(({ kind, unit, socket, asked }) =>
      isKind(kind) ? [{ kind, unit, socket, asked }] : [],
    );
  }

  /** Nothing is written where it says so already. @throws FileRefused */
  write(roles: readonly ExpectedRole[]): void {
    const bytes = `${JSON.stringify({ format: ROLES_FORMAT, roles })}\n`;
    if (bytes === this.#written) return;
    const place = { what: "note the roles in", path: this.#path };
    withFile({ ...place, otherwise: "give another --folder" }, () =>
      writeDurably(this.#path, bytes),
    );
    this.#written = bytes;
  }
}

const isKind = (kind: string): kind is RoleKind => roleKinds.some((one) => one === kind);
