/** What an agent expects of its host, in a file. */
import { expect, test } from "bun:test";
import { rmSync, statSync } from "node:fs";
import { RoleBook } from "../../../src/fleet/perform/role-book.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

test("what the file says already is not written, by the next agent either", () => {
  using folder = temporaryFolder();
  const never = (message: string) => {
    throw new Error(message);
  };
  const roles = [{ kind: "luod", unit: "luod.service", socket: "/run/x", asked: null }] as const;
  new RoleBook(folder.path, never).write(roles);
  const path = folder.file("roles.json");
  const { ino } = statSync(path);
  const next = new RoleBook(folder.path, never);
  expect(next.read()).toEqual([...roles]);
  next.write(roles);
  expect(statSync(path).ino).toBe(ino);
  next.write([]);
  expect(new RoleBook(folder.path, never).read()).toEqual([]);
  rmSync(path);
  const first = new RoleBook(folder.path, never);
  expect(first.read()).toEqual([]);
  first.write(roles);
  expect(first.read()).toEqual([...roles]);
});
