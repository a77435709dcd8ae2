import { join } from "node:path";
import { partsOf, unitTexts } from "./roles.ts";
import { renderUnit } from "./unit-text.ts";

/** What the command line asks for. */
export interface InstallOptions {
  readonly roles: readonly string[];
  /** Where the tree begins: "/", or the folder of an image. */
  readonly root: string;
  readonly prefix: string;
  readonly unitDirectory: string;
  readonly remove: boolean;
  readonly force: boolean;
  readonly dryRun: boolean;
}

/** One thing that install makes. Paths are those of the installed system, without the root. */
export type Item =
  | { readonly kind: "program"; readonly path: string }
  | { readonly kind: "link"; readonly path: string; readonly program: string }
  | { readonly kind: "unit"; readonly path: string; readonly name: string; readonly text: string };

type Places = Pick<InstallOptions, "prefix" | "unitDirectory">;

/** What these roles need, in the order in which it is made: nothing names what is not there yet. */
export function itemsOf(roles: readonly string[], places: Places): Item[] {
  const { prefix, unitDirectory } = places;
  const { links, units } = partsOf(roles);
  const program = join(prefix, "bin/hostler");
  return [
    { kind: "program", path: program },
    ...links.map(({ folder, name }) => {
      return { kind: "link" as const, path: join(prefix, folder, name), program };
    }),
    ...units.map((name) => ({
      kind: "unit" as const,
      path: join(unitDirectory, name),
      name,
      text: renderUnit(name, unitTexts[name] ?? "", prefix),
    })),
  ];
}

/** What stands where an item belongs. */
export type Found =
  | { readonly kind: "absent" }
  /** What this version makes. */
  | { readonly kind: "same" }
  /** What another version made: nobody has changed it since. */
  | { readonly kind: "former" }
  /** A unit that somebody has changed, or written. */
  | { readonly kind: "changed" }
  /** A link to the program that install has not made. */
  | { readonly kind: "equivalent" }
  /** Something else; `what` is "a folder", "a link to …". */
  | { readonly kind: "foreign"; readonly what: string };

export type Action = "create" | "replace" | "remove" | "keep" | "leave" | "refuse";

/** What becomes of an item, and why where that is not what was asked for. */
export interface Decision {
  readonly action: Action;
  readonly reason?: string;
}

/** What installing does with what was found. */
export function decideInstall(item: Item, found: Found, force: boolean): Decision {
  switch (found.kind) {
    case "absent":
      return { action: "create" };
    case "same":
    case "equivalent":
      return { action: "keep" };
    case "former":
      return { action: "replace" };
    case "changed":
      if (force) return { action: "replace" };
      return {
        action: "leave",
        reason:
          "somebody has changed it. Put the changes into a drop-in " +
          `(systemctl edit ${nameOf(item)}) and give --force, which overwrites it`,
      };
    case "foreign":
      // What is in a folder is never lost by our hand.
      if (force && found.what !== FOLDER) return { action: "replace" };
      return {
        action: "refuse",
        reason:
          `there is ${found.what}. Move it away` +
          (found.what === FOLDER ? "" : ", or give --force, which replaces it"),
      };
  }
}

/** What removing does with what was found: nothing goes that install has not made. */
export function decideRemove(item: Item, found: Found, force: boolean): Decision {
  switch (found.kind) {
    case "absent":
      return { action: "keep" };
    case "same":
      return { action: "remove" };
    case "former":
      if (item.kind === "unit" || force) return { action: "remove" };
      return {
        action: "leave",
        reason:
          "it is not this program, byte for byte. " +
          `Run ${item.path} install --remove, or give --force`,
      };
    case "changed":
      if (force) return { action: "remove" };
      return { action: "leave", reason: "somebody has changed it; --force removes it" };
    case "equivalent":
      return { action: "leave", reason: "install has not made this link" };
    case "foreign":
      return { action: "leave", reason: `install has not made it: there is ${found.what}` };
  }
}

export const FOLDER = "a folder";

function nameOf(item: Item): string {
  return item.kind === "unit" ? item.name : item.path;
}
