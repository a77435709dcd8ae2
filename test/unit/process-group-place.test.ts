/** Where processes have their cgroups whose configuration names no folder. */
import { describe, expect, test } from "bun:test";
import { parseConfiguration } from "../../src/process/configuration.ts";
import { groupPlace } from "../../src/process/group-place.ts";

const mount = "/sys/fs/cgroup";
const unit = "/system.slice/hostler-process-orchestrator.service";
const both = ["orchestrator", "agent"] as const;

describe("the group of processes", () => {
  test.each(both)("%s: beside the daemon's own subgroup", (role) => {
    const own = `${unit}/supervisor`;
    expect(groupPlace(role, { mount, own })).toEqual({ parent: `${mount}${unit}/processes` });
  });

  test.each(both)("%s: at the root of its own hierarchy", (role) => {
    expect(groupPlace(role, { mount, own: "/" })).toEqual({ parent: `${mount}/hostler` });
  });

  test("an orchestrator that nothing was delegated to takes one at the root", () => {
    const own = "/user.slice/session-1.scope";
    expect(groupPlace("orchestrator", { mount, own })).toEqual({ parent: `${mount}/hostler` });
  });

  test("an agent stays in its partition", () => {
    const place = groupPlace("agent", { mount, own: "/qm.service" });
    expect(place).toMatchObject({
      refusal: expect.stringContaining("DelegateSubgroup=supervisor"),
    });
  });

  test.each([
    ["not mounted", { mount: undefined, own: "/" }],
    ["of version 1 alone", { mount, own: undefined }],
    ["outside of its namespace", { mount, own: "/../qm.service/supervisor" }],
  ])("none where it is %s", (_what, where) => {
    for (const role of both) expect(groupPlace(role, where)).toHaveProperty("refusal");
  });
});

test.each([
  ["resources = {pids_max = 7}", "auto"],
  ['cgroup = "auto"', "auto"],
  ['cgroup = "/c"\nresources = {pids_max = 7}', "/c"],
  ["nice = 7", undefined],
])("%s: the cgroup is %p", (line, expected) => {
  const outcome = parseConfiguration("file", `[process.web]\ncommand = ["/bin/web"]\n${line}\n`);
  if (outcome.kind === "refused") throw new Error(JSON.stringify(outcome.errors));
  expect(outcome.configuration.processes[0]?.constraints.cgroup).toBe(expected);
});
