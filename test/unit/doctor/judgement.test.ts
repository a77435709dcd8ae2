import { describe, expect, test } from "bun:test";
import { renderAdvice } from "../../../src/doctor/doctor.ts";
import type { CallFeature, Findings, Trial } from "../../../src/doctor/findings.ts";
import { type Advice, isAtLeast, isFit, judge } from "../../../src/doctor/judgement.ts";

const works: Trial = { outcome: "works", detail: "tried" };
const absent: Trial = { outcome: "absent", detail: "not there" };
const untried: Trial = { outcome: "untried", detail: "not allowed" };

/** A host that lacks nothing. */
const perfect: Findings = {
  kernelRelease: "6.18.1",
  ownStatus: { user: 0, effectiveCapabilities: (1n << 41n) - 1n },
  library: { name: "glibc", version: "2.36" },
  callRefusal: undefined,
  calls: {
    pidfd_open: works,
    exit_information: works,
    process_group_signal: works,
    peer_process: works,
    close_range: works,
  },
  cgroup: {
    mount: "/sys/fs/cgroup",
    isHybrid: false,
    folder: "/sys/fs/cgroup/system.slice/hostler.service",
    controllers: ["cpu", "io", "memory", "pids"],
    kill: works,
  },
  namespaces: { cgroup: 100, ipc: 100, mnt: 100, net: 100, pid: 100, user: 100, uts: 100 },
  security: { modules: ["lockdown", "selinux"], selinux: "enforcing", label: "u:r:qm_t:s0" },
  limits: { descriptors: 524_288, processNumbers: 4_194_304, threads: 60_000, datagrams: 512 },
  socketFolders: [
    { user: "orchestrator", path: "/run/hostler", refusal: undefined },
    { user: "agent", path: "/run/holden", refusal: undefined },
  ],
  bunVariables: [],
};

const noSockets = perfect.socketFolders.map((folder) => ({ ...folder, refusal: "EACCES" }));

function adviceFor(changed: Partial<Findings>): Advice[] {
  return judge({ ...perfect, ...changed }, ["process"]);
}

/** The lines that are not ok, by what they check. */
function trouble(changed: Partial<Findings>): Record<string, string> {
  const lines = adviceFor(changed).filter((line) => line.status !== "ok");
  return Object.fromEntries(lines.map((line) => [line.check, line.status]));
}

function line(changed: Partial<Findings>, check: string): Advice {
  const found = adviceFor(changed).find((candidate) => candidate.check === check);
  if (found === undefined) throw new Error(`No line about ${check}`);
  return found;
}

describe("a host that lacks nothing", () => {
  test("has only lines that are ok, and nothing to mend", () => {
    expect(trouble({})).toEqual({});
    expect(adviceFor({}).every(({ mend }) => mend === null)).toBe(true);
    expect(isFit(adviceFor({}))).toBe(true);
  });

  test("is asked nothing when nothing was asked for", () => {
    expect(judge(perfect, [])).toEqual([]);
  });
});

describe("what is required and lacks makes the host unfit", () => {
  const lacking: [string, Partial<Findings>][] = [
    ["kernel_version", { kernelRelease: "5.13.19" }],
    ["proc", { ownStatus: undefined }],
    ["default_sockets", { socketFolders: noSockets }],
    ["executable_memory", { callRefusal: "bun:ffi requires the JIT" }],
    ["c_library", { library: { name: "glibc", version: "2.33" } }],
    ["c_library", { library: { name: "glibc", version: undefined } }],
    ["pidfd_open", { calls: { ...perfect.calls, pidfd_open: absent } }],
    ["close_range", { calls: { ...perfect.calls, close_range: absent } }],
  ];
  test.each(lacking)("%s, case %#", (check, changed) => {
    expect(trouble(changed)[check]).toBe("missing");
    expect(isFit(adviceFor(changed))).toBe(false);
    expect(line(changed, check).mend).toBeString();
  });
});

describe("what is only useful warns", () => {
  const cgroup = (changed: Partial<Findings["cgroup"]>) => ({
    cgroup: { ...perfect.cgroup, ...changed },
  });
  const limits = (changed: Partial<Findings["limits"]>) => ({
    limits: { ...perfect.limits, ...changed },
  });
  const calls = (changed: Partial<Record<CallFeature, Trial>>) => ({
    calls: { ...perfect.calls, ...changed },
  });
  const warnings: [string, Partial<Findings>][] = [
    ["exit_information", calls({ exit_information: absent })],
    ["exit_information", calls({ exit_information: untried })],
    ["process_group_signal", calls({ process_group_signal: absent })],
    ["peer_process", calls({ peer_process: absent })],
    ["cgroup_v2", cgroup({ mount: undefined })],
    ["cgroup_kill", cgroup({ kill: absent })],
    ["cgroup_kill", cgroup({ kill: untried })],
    ["cgroup_controllers", cgroup({ controllers: ["cpu", "pids"] })],
    ["cgroup_controllers", cgroup({ controllers: [] })],
    ["namespaces", { namespaces: {} }],
    ["namespaces", { namespaces: { ...perfect.namespaces, net: 0 } }],
    ["open_descriptors", limits({ descriptors: 1_023 })],
    ["open_descriptors", limits({ descriptors: undefined })],
    ["process_numbers", limits({ processNumbers: 301 })],
    ["threads", limits({ threads: 100 })],
    ["waiting_datagrams", limits({ datagrams: 1 })],
    ["environment", { bunVariables: ["BUN_OPTIONS"] }],
  ];
  test.each(warnings)("%s, case %#", (check, changed) => {
    expect(trouble(changed)).toEqual({ [check]: "warning" });
    expect(isFit(adviceFor(changed))).toBe(true);
    expect(line(changed, check).mend).toBeString();
  });

  test("each capability that is not held, by its own bit", () => {
    const CAP_SYS_NICE = 1n << 23n;
    const all = (1n << 41n) - 1n;
    const lacks = { ownStatus: { user: 1_000, effectiveCapabilities: all & ~CAP_SYS_NICE } };
    expect(trouble(lacks)).toEqual({ cap_sys_nice: "warning" });
    expect(line(lacks, "cap_sys_nice").found).toBe("not held, user 1000");
    const none = { ownStatus: { user: 1_000, effectiveCapabilities: 0n } };
    expect(Object.keys(trouble(none))).toHaveLength(8);
  });
});

describe("the mend is for whoever asks", () => {
  const root = { user: 0, effectiveCapabilities: 0n };
  const other = { user: 1_000, effectiveCapabilities: 0n };

  test("root is not told to be root", () => {
    const kill = { cgroup: { ...perfect.cgroup, kill: untried } };
    for (const changed of [{ ownStatus: root }, { ...kill, ownStatus: root }]) {
      const mends = adviceFor({ ...changed, socketFolders: noSockets }).map(({ mend }) => mend);
      expect(mends.filter((mend) => /as root/i.test(mend ?? ""))).toEqual([]);
    }
    const { mend } = line({ ownStatus: root }, "cap_sys_resource");
    expect(mend).toContain("--cap-add=SYS_RESOURCE (podman, docker)");
    expect(mend).toContain("CAP_SYS_RESOURCE to CapabilityBoundingSet=");
    expect(line({ ownStatus: other }, "cap_sys_resource").mend).toContain("Run as root");
  });

  test("who may not make the default sockets learns which, and how to do without", () => {
    const [, agent] = noSockets;
    const socketFolders = [...perfect.socketFolders.slice(0, 1), ...(agent ? [agent] : [])];
    const { found, mend } = line({ ownStatus: other, socketFolders }, "default_sockets");
    expect(found).toBe("user 1000 cannot make any in /run/holden (EACCES)");
    expect(mend).toContain("have root make /run/holden for user 1000");
    expect(mend).toContain("--control-socket PATH");
  });
});

describe("what is found is told", () => {
  test("an untried feature says why", () => {
    const calls = { ...perfect.calls, exit_information: untried };
    expect(line({ calls }, "exit_information").found).toBe("not tried: not allowed");
  });

  test("where memory may not be executable, the mend names that first", () => {
    const changed: Partial<Findings> = {
      callRefusal: "bun:ffi requires the JIT",
      library: undefined,
      calls: { ...perfect.calls, pidfd_open: untried },
    };
    expect(line(changed, "executable_memory").mend).toContain("execmem for u:r:qm_t:s0");
    expect(line(changed, "pidfd_open").mend).toBe("Mend executable_memory, and ask again.");
    expect(line(changed, "c_library").mend).toBe("Mend executable_memory, and ask again.");
    const plain = { ...changed, security: { ...perfect.security, selinux: "absent" as const } };
    expect(line(plain, "executable_memory").mend).not.toContain("execmem");
  });

  test("musl is named, and needs no version", () => {
    const changed = { library: { name: "musl" as const, version: undefined } };
    expect(line(changed, "c_library")).toMatchObject({ status: "ok", found: "musl" });
  });

  test("a cgroup v2 beside version 1 is found where it is", () => {
    const folder = "/sys/fs/cgroup/unified/x";
    const cgroup = { ...perfect.cgroup, mount: "/sys/fs/cgroup/unified", isHybrid: true, folder };
    expect(line({ cgroup }, "cgroup_v2").found).toBe(
      "/sys/fs/cgroup/unified, beside version 1; ours is /sys/fs/cgroup/unified/x",
    );
  });

  test("no limit is a limit that is high enough", () => {
    const limits = { ...perfect.limits, descriptors: Number.POSITIVE_INFINITY };
    expect(line({ limits }, "open_descriptors")).toMatchObject({
      status: "ok",
      found: "unlimited",
    });
  });

  test("people get a table, what to mend, and the sum", () => {
    const changed: Partial<Findings> = {
      kernelRelease: "5.10.0",
      bunVariables: ["BUN_OPTIONS"],
    };
    const text = renderAdvice(adviceFor(changed), ["process"]);
    expect(text).toMatch(/^check +status +found +needed by\nkernel_version +missing +5\.10\.0 +/);
    expect(text).toContain("\nkernel_version: Boot Linux 5.14 or newer.\n");
    expect(text).toEndWith(
      "\nThis host lacks 1 of what it needs for what was asked for: process. Warnings: 1.\n",
    );
    const fine = renderAdvice(adviceFor({}), ["process"]);
    expect(fine).not.toContain("To mend");
    expect(fine).toEndWith("\nThis host can do what was asked for: process. Warnings: 0.\n");
  });
});

test("versions are compared by number", () => {
  expect(isAtLeast("6.12.0-55.el10", "6.9")).toBe(true);
  expect(isAtLeast("6.9.0", "6.12")).toBe(false);
  expect(isAtLeast("5.14-rc1", "5.14")).toBe(true);
  expect(isAtLeast("5.13.99", "5.14")).toBe(false);
  expect(isAtLeast("2.40", "2.34")).toBe(true);
  expect(isAtLeast("7.0", "6.15")).toBe(true);
});
