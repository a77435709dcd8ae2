/** Every cause for which live update does not work, and how it is mended. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync, writeFileSync } from "node:fs";
import { renderAdvice } from "../../src/doctor/doctor.ts";
import { type Advice, isFit } from "../../src/doctor/judgement.ts";
import type {
  DeviceFindings,
  KexecFindings,
  LiveUpdateFindings,
} from "../../src/doctor/live-update-findings.ts";
import { judgeLiveUpdate } from "../../src/doctor/live-update-judgement.ts";
import { findHolders } from "../../src/doctor/live-update-probes.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const everything = {
  CONFIG_KEXEC_FILE: "y",
  CONFIG_KEXEC_HANDOVER: "y",
  CONFIG_LIVEUPDATE: "y",
  CONFIG_LIVEUPDATE_MEMFD: "y",
} as const;

function configured(
  changed: Readonly<Record<string, string>>,
): Pick<LiveUpdateFindings, "configuration"> {
  const options = new Map(Object.entries({ ...everything, ...changed }));
  return { configuration: { options, source: "/proc/config.gz" } };
}

const noDevice: DeviceFindings = {
  minor: "absent",
  node: { kind: "absent" },
  opening: { outcome: "untried" },
};

/** A host on which live update works. */
const perfect: LiveUpdateFindings = {
  kernelRelease: "7.3.4",
  ...configured({}),
  commandLine: "console=ttyS0 liveupdate=on kho=on",
  device: {
    minor: 120,
    node: { kind: "device", major: 10, minor: 120, mode: 0o600, user: 0 },
    opening: { outcome: "opened" },
  },
  kernelMessages: [],
  kexec: { isLoadDisabled: false, loadLimit: -1, lockdown: "none" },
  ownStatus: { user: 0, effectiveCapabilities: 1n << 22n },
  isInitialPidNamespace: true,
  init: { name: "systemd", systemdVersion: 261 },
};

/** One whose kernel made no device, for a reason that stands in `changed`. */
function without(changed: Partial<LiveUpdateFindings>): Partial<LiveUpdateFindings> {
  return { device: noDevice, ...changed };
}

function device(changed: Partial<DeviceFindings>): Partial<LiveUpdateFindings> {
  return { device: { ...perfect.device, ...changed } };
}

function refused(code: string, holders: readonly string[] = []): Partial<LiveUpdateFindings> {
  const found = holders.map((name, index) => ({ process: 800 + index, name }));
  const search = code === "EBUSY" ? { holders: found, isComplete: true } : undefined;
  return device({ opening: { outcome: "refused", code, holders: search } });
}

function kexec(changed: Partial<KexecFindings>): Partial<LiveUpdateFindings> {
  return { kexec: { ...perfect.kexec, ...changed } };
}

function ask(changed: Partial<LiveUpdateFindings>): Advice[] {
  return judgeLiveUpdate({ ...perfect, ...changed });
}

/** The lines that are not ok, without those that a missing device brings along. */
function trouble(changed: Partial<LiveUpdateFindings>): Record<string, string> {
  const lines = ask(changed).filter(({ status }) => status !== "ok");
  const causes = lines.filter(({ mend }) => !/^Mend (what|device_node)/.test(mend ?? ""));
  return Object.fromEntries(causes.map(({ check, status }) => [check, status]));
}

function line(changed: Partial<LiveUpdateFindings>, check: string): Advice {
  const found = ask(changed).find((candidate) => candidate.check === check);
  if (found === undefined) throw new Error(`No line about ${check}`);
  return found;
}

test("where live update works there is nothing to mend", () => {
  expect(trouble({})).toEqual({});
  expect(ask({}).every(({ mend }) => mend === null)).toBe(true);
  expect(isFit(ask({}))).toBe(true);
});

describe("what prevents it makes the host unfit", () => {
  const causes: [string, Partial<LiveUpdateFindings>][] = [
    ["kernel_has_live_update", without({ kernelRelease: "6.18.44" })],
    ["config_kexec_file", without(configured({ CONFIG_KEXEC_FILE: "n" }))],
    ["config_kexec_handover", without(configured({ CONFIG_KEXEC_HANDOVER: "n" }))],
    ["config_liveupdate", without(configured({ CONFIG_LIVEUPDATE: "m" }))],
    ["config_liveupdate_memfd", configured({ CONFIG_LIVEUPDATE_MEMFD: "n" })],
    ["kho_on", without({ commandLine: "liveupdate=on" })],
    ["kho_on", without({ commandLine: "liveupdate=on kho=on kho=off" })],
    ["kho_on", without({ commandLine: "liveupdate=on -- kho=on" })],
    ["liveupdate_on", without({ commandLine: "kho=on" })],
    ["device_node", device({ node: { kind: "absent" }, opening: { outcome: "untried" } })],
    ["device_node", device({ node: { kind: "no device" }, opening: { outcome: "untried" } })],
    ["device_open", refused("EBUSY")],
    ["device_open", refused("EIO")],
    ["device_open", refused("EACCES")],
    ["device_open", refused("ENXIO")],
    ["kexec_load_disabled", kexec({ isLoadDisabled: true })],
    ["kexec_load_limit_reboot", kexec({ loadLimit: 0 })],
    ["cap_sys_boot", { ownStatus: { user: 0, effectiveCapabilities: ~(1n << 22n) } }],
    ["cap_sys_boot", { ownStatus: undefined }],
    ["pid_namespace", { isInitialPidNamespace: false }],
  ];
  test.each(causes)("%s, case %#", (check, changed) => {
    expect(trouble(changed)).toEqual({ [check]: "missing" });
    expect(isFit(ask(changed))).toBe(false);
    expect(line(changed, check).mend).toBeString();
  });

  test("a kernel that made no device for none of these reasons has said why in its log", () => {
    expect(trouble(without({}))).toEqual({ device_node: "missing" });
    expect(line(without({}), "device_node").mend).toContain("dmesg");
    const kernelMessages = ["KHO: Failed to reserve nid 0 scratch buffer"];
    const { mend } = line(without({ kernelMessages }), "device_node");
    expect(mend).toStartWith(`The kernel says: ${kernelMessages[0]}. `);
    expect(mend).toContain("kho_scratch=");
    const other = without({ kernelMessages: ["luo: a", "luo: b"] });
    expect(line(other, "device_node").mend).toBe("The kernel says: luo: a / luo: b.");
    const told = without({ kernelMessages, commandLine: "kho=on" });
    expect(line(told, "device_node").mend).toBe("Mend what stands above, and ask again.");
    expect(line(without({ kernelMessages: undefined }), "device_node").mend).toContain("dmesg");
    const explained = without({ commandLine: "kho=on" });
    expect(line(explained, "device_node").mend).toBe("Mend what stands above, and ask again.");
  });
});

describe("what only hinders, or is not known, warns", () => {
  const warnings: [Record<string, string>, Partial<LiveUpdateFindings>][] = [
    [{ lockdown: "warning" }, kexec({ lockdown: "integrity" })],
    [{ kexec_load_limit_reboot: "warning" }, kexec({ loadLimit: 2 })],
    [{ kexec_load_disabled: "warning" }, kexec({ isLoadDisabled: undefined })],
    [{ pid_namespace: "warning" }, { isInitialPidNamespace: undefined }],
    [{ init_system: "warning" }, { init: { name: "systemd", systemdVersion: 254 } }],
    [{ init_system: "warning" }, { init: { name: "systemd", systemdVersion: undefined } }],
    [{ config_liveupdate_memfd: "warning" }, { configuration: undefined }],
    [{}, { init: { name: "systemd", systemdVersion: 255 } }],
    [{}, { init: { name: "init", systemdVersion: undefined } }],
    [{}, { init: { name: undefined, systemdVersion: undefined } }],
    [{}, kexec({ lockdown: undefined, loadLimit: undefined })],
  ];
  test.each(warnings)("%j, case %#", (expected, changed) => {
    expect(trouble(changed)).toEqual(expected);
    expect(isFit(ask(changed))).toBe(true);
  });

  test("a device that others may open", () => {
    const node = { kind: "device", major: 10, minor: 120, mode: 0o600, user: 0 } as const;
    for (const changed of [{ mode: 0o660 }, { mode: 0o604 }, { user: 107 }]) {
      const open = device({ node: { ...node, ...changed } });
      expect(trouble(open)).toEqual({ device_node: "warning" });
    }
    expect(line(device({ node: { ...node, mode: 0o660 } }), "device_node").found).toBe(
      "10:120, mode 0660, user 0",
    );
  });

  test("without a device and without a configuration all of that is unknown", () => {
    const blind = without({ configuration: undefined, commandLine: undefined });
    expect(trouble(blind)).toEqual({
      config_kexec_file: "warning",
      config_kexec_handover: "warning",
      config_liveupdate: "warning",
      config_liveupdate_memfd: "warning",
      kho_on: "warning",
      liveupdate_on: "warning",
    });
    expect(isFit(ask(blind))).toBe(false);
    const half = without({ configuration: undefined, commandLine: "liveupdate=on" });
    expect(line(half, "kho_on").found).toContain("whether it is on by default is unknown");
  });
});

describe("what is found is told", () => {
  test("a device that works is believed against version, file and command line", () => {
    const { configuration } = configured({ CONFIG_LIVEUPDATE: "n", CONFIG_KEXEC_FILE: "n" });
    const odd = { kernelRelease: "6.12.0-el10", configuration, commandLine: "" };
    expect(trouble(odd)).toEqual({});
  });

  test("kho may be on by default, and off all the same", () => {
    const byDefault = configured({ CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT: "y" });
    const handover = (commandLine: string) =>
      line(without({ ...byDefault, commandLine }), "kho_on").status;
    expect(handover("liveupdate=on")).toBe("ok");
    expect(handover("liveupdate=on kho=off")).toBe("missing");
  });

  test("Debian's stock kernels have what excludes the handover", () => {
    const debian = configured({
      CONFIG_KEXEC_HANDOVER: "n",
      CONFIG_DEFERRED_STRUCT_PAGE_INIT: "y",
    });
    expect(line(without(debian), "config_kexec_handover").mend).toContain("DEFERRED_STRUCT_PAGE");
    const other = configured({ CONFIG_KEXEC_HANDOVER: "n" });
    expect(line(without(other), "config_kexec_handover").mend).not.toContain("DEFERRED");
  });

  test("memfds need an option of their own from 7.2 on", () => {
    const lacking = configured({ CONFIG_LIVEUPDATE_MEMFD: "n" });
    expect(trouble({ kernelRelease: "7.1.9", ...lacking })).toEqual({});
    expect(trouble({ kernelRelease: "7.2.0", ...lacking })).not.toEqual({});
  });

  test("a device of the kernel without a node is made", () => {
    const gone = device({ node: { kind: "absent" }, opening: { outcome: "untried" } });
    expect(line(gone, "device_node").mend).toContain("mknod -m 600 /dev/liveupdate c 10 120");
    const node = { kind: "device", major: 10, minor: 7, mode: 0o600, user: 0 } as const;
    const other = device({ node, opening: { outcome: "untried" } });
    expect(line(other, "device_node").found).toContain("10:7, not 10:120");
  });

  test("who holds the device, the first five by name", () => {
    const found = (changed: Partial<LiveUpdateFindings>) => line(changed, "device_open").found;
    expect(found(refused("EBUSY", ["systemd"]))).toBe("EBUSY: held by 800 (systemd)");
    expect(found(refused("EBUSY", [..."abcdefg"]))).toEndWith("804 (e) and 2 more");
    expect(found(refused("EBUSY"))).toBe("EBUSY: held by a process that is not in this /proc");
    const cut = { holders: [], isComplete: false };
    const opening = { outcome: "refused", code: "EBUSY", holders: cut } as const;
    expect(found(device({ opening }))).toBe("EBUSY: held; not seen by whom");
  });

  test("each refusal of the device has a mend of its own", () => {
    const mend = (code: string) => line(refused(code), "device_open").mend;
    expect(mend("EBUSY")).toStartWith("End what holds it");
    expect(mend("EIO")).toStartWith("Reboot: until then");
    expect(mend("EACCES")).toStartWith("Run as root");
    expect(mend("EPERM")).toContain("DeviceAllow=/dev/liveupdate rw");
    expect(mend("ENXIO")).toContain("dmesg");
  });

  test("systemd's version says whose descriptors survive", () => {
    const found = (systemdVersion: number) =>
      line({ init: { name: "systemd", systemdVersion } }, "init_system").found;
    expect(found(261)).toBe("systemd 261: FD stores of units survive");
    expect(found(257)).toBe("systemd 257: FD stores of units do not survive before 261");
  });
});

describe("people are told all of it", () => {
  const text = (changed: Partial<LiveUpdateFindings>) =>
    renderAdvice(ask(changed), ["live-update"]);

  test("of a host where it works", () => {
    expect(text({})).toMatchSnapshot();
  });

  test("of one with Debian's stock kernel", () => {
    const debian = {
      kernelRelease: "6.1.0-50-amd64",
      commandLine: "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro quiet",
      ...configured({
        CONFIG_KEXEC_HANDOVER: "n",
        CONFIG_LIVEUPDATE: "n",
        CONFIG_DEFERRED_STRUCT_PAGE_INIT: "y",
      }),
      init: { name: "systemd", systemdVersion: 252 },
    };
    expect(text(without(debian))).toMatchSnapshot();
  });

  test("of one where everything else is wrong", () => {
    const wrong = {
      ...refused("EBUSY", ["luod"]),
      kexec: { isLoadDisabled: true, loadLimit: 0, lockdown: "confidentiality" },
      ownStatus: { user: 1_000, effectiveCapabilities: 0n },
      isInitialPidNamespace: false,
    };
    expect(text(wrong)).toMatchSnapshot();
  });
});

describe("who holds a file is looked for in /proc", () => {
  test("and found while it is open, once for each process", () => {
    using folder = temporaryFolder();
    const path = folder.file("device");
    writeFileSync(path, "");
    expect(findHolders(path).holders).toEqual([]);
    const descriptors = [openSync(path, "r"), openSync(path, "r")];
    const { holders } = findHolders(path);
    for (const descriptor of descriptors) closeSync(descriptor);
    expect(holders.map((holder) => holder.process)).toEqual([process.pid]);
    expect(holders[0]?.name).not.toBe("");
  });

  test("but not without end", () => {
    expect(findHolders("/nowhere", 1)).toEqual({ holders: [], isComplete: false });
  });
});
