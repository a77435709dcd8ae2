import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import * as v from "valibot";
import { artifactVersionSchema } from "../../artifact/protocol-version.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { NamedFileRefused, withNamedFile } from "../../journal/file-refused.ts";

/** Words of the command line as values; what is wrong is a UsageError. */

export function versionOf(text: string, what = "version"): string {
  if (v.is(artifactVersionSchema, text)) return text;
  throw new UsageError(`${what} ${text}: expected a version such as 1.4.0 or 1.5.0-rc.1`);
}

/** "name=value" */
export function pairOf(text: string, what: string): readonly [name: string, value: string] {
  const equals = text.indexOf("=");
  if (equals > 0) return [text.slice(0, equals), text.slice(equals + 1)];
  throw new UsageError(`${what} ${text}: expected a word, "=", and another`);
}

/** An address as it is, and a folder as its address. */
export const addressOf = (text: string): string =>
  /^[a-z][a-z0-9+.-]*:/i.test(text) ? text : pathToFileURL(resolve(text)).href;

/** RFC 3339 in UTC, whole seconds. */
export const timeText = (milliseconds: number): string =>
  new Date(milliseconds).toISOString().replace(/\.\d+Z$/, "Z");

/** A file that is as long as it may be. @throws NamedFileRefused */
export function readNamed(path: string, what: string, most: number): string {
  return withNamedFile({ what, path, otherwise: "name another" }, () => {
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const { size } = fstatSync(descriptor);
      if (size <= most) return readFileSync(descriptor, "utf8");
      throw new NamedFileRefused(
        `Cannot ${what} ${path}: expected at most ${most} bytes, received ${size}. Name another.`,
      );
    } finally {
      closeSync(descriptor);
    }
  });
}
