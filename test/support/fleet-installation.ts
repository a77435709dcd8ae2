/** Installations for tests: versions whose programs are small scripts. */
import { chmodSync, writeFileSync } from "node:fs";
import { Installation } from "../../src/fleet/perform/installation.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";

/** Writes a program that is no hostler, and can be run. @returns its path */
export function writeScript(folder: TemporaryFolder, name: string, text: string): string {
  const path = folder.file(name);
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** Stores a script as a version. @returns the version's name */
export function storeScript(
  folder: TemporaryFolder,
  version: string,
  text: string,
  place: string = folder.file("fleet"),
): string {
  const path = writeScript(folder, `program-${version}`, text);
  using installation = Installation.open(place, { make: true });
  return installation.store(path, version).name;
}
