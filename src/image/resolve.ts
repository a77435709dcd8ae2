import { lstatSync, readlinkSync } from "node:fs";
import {
  below,
  type FileMismatch,
  type ImageFile,
  type ImagePlace,
  plainName,
} from "./image-file.ts";
import { imageLimits } from "./limits.ts";

/**
 * Follows links from a name in an image's tree to a regular file in it, or out of it into
 * /nix/store, where that is allowed. Nothing outside of the tree is looked at.
 */
export function resolveInTree(
  tree: string,
  name: string,
  place: ImagePlace,
): ImageFile | FileMismatch {
  const left = name.split("/");
  if (plainName(left) !== name) {
    return { expected: "the name of a file in the image", received: JSON.stringify(name) };
  }
  let done: string[] = [];
  for (let links = 0; left.length > 0; ) {
    const part = left.shift() as string;
    const path = [tree, ...done, part].join("/");
    const status = lstatSync(path, { throwIfNoEntry: false });
    const expected = "a file in the image";
    if (status === undefined) {
      return { expected, received: `nothing at ${[...done, part].join("/")}` };
    }
    if (!status.isSymbolicLink()) {
      done.push(part);
      if (left.length > 0 && status.isDirectory()) continue;
      if (left.length === 0 && status.isFile()) return { kind: "inside", name: done.join("/") };
      const kind = status.isDirectory() ? "folder" : "file";
      return { expected, received: `the ${kind} ${done.join("/")}` };
    }
    links += 1;
    if (links > imageLimits.links) {
      return { expected: `at most ${imageLimits.links} links on the way`, received: "more" };
    }
    const found = followLink(readlinkSync(path), { done, left, place });
    if ("expected" in found || found.kind === "outside") return found;
    left.splice(0, left.length, ...found.name.split("/"));
    done = [];
  }
  return { expected: "a file in the image", received: "the image itself" };
}

/** Where a link leads, with what was to come after it. */
function followLink(
  target: string,
  { done, left, place }: { done: readonly string[]; left: readonly string[]; place: ImagePlace },
): ImageFile | FileMismatch {
  const rest = left.join("/");
  const whole = rest === "" ? target : `${target}/${rest}`;
  const within = target.startsWith("/") ? below(place.source, whole) : whole;
  if (within !== undefined) {
    const base = target.startsWith("/") ? [] : done;
    const name = plainName([...base, ...within.split("/")]);
    if (name !== undefined && name !== "") return { kind: "inside", name };
  } else if (place.outside !== undefined && below(place.outside, whole) !== undefined) {
    const name = plainName(whole.split("/")) ?? "";
    const path = `/${name}`;
    if (below(place.outside, path) !== undefined) return { kind: "outside", path };
  }
  const store = place.outside === undefined ? "" : `, or into ${place.outside}`;
  return { expected: `links to files in the image${store}`, received: `a link to ${target}` };
}
