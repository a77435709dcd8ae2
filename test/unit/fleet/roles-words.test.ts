/** What `hostler fleet show` prints of a device's roles. */
import { expect, test } from "bun:test";
import { renderRoles } from "../../../src/fleet/commands/fleet-words.ts";
import { newBuild } from "../../support/fleet-agent/life.ts";

test("each with the file that answers for it, and why one is not well", () => {
  const text = renderRoles([
    { role: "fleet agent", digest: newBuild.digest, healthy: true, reason: null },
    { role: "vm worker", digest: null, healthy: false, reason: "its unit failed\u001b[2J" },
  ]);
  expect(text.split("\n")).toEqual([
    "",
    "ROLE         DIGEST        HEALTHY  WHY",
    "fleet agent  bbbbbbbbbbbb  yes      -",
    "vm worker    -             no       its unit failed\\u001b[2J",
    "",
  ]);
  expect(renderRoles([])).toBe("");
});
