/** What hinders vetting on a host, over everything that may be found of it. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { Advice } from "../../../src/doctor/judgement.ts";
import type {
  LiveImageFindings,
  OrchestratorFindings,
} from "../../../src/doctor/vetting-findings.ts";
import {
  EARLIEST_CLOCK,
  judgeLiveImage,
  judgeOrchestrator,
  LEAST_ROOM,
} from "../../../src/doctor/vetting-judgement.ts";
import { probeOrchestrator, readMounts } from "../../../src/doctor/vetting-probes.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const root = { user: 0, effectiveCapabilities: (1n << 41n) - 1n };
const nobody = { user: 1_000, effectiveCapabilities: 0n };
const place = {
  ...{ stateDirectory: "/var/lib/hostler/authority", listen: "127.0.0.1:7443" },
  ...{ bootDirectory: "/srv/boot", bootInterface: "eth1" },
};
const orchestrator: OrchestratorFindings = {
  ...{ place, ownStatus: root, clock: EARLIEST_CLOCK, listenRefusal: undefined },
  state: {
    ...{ path: "/var/lib/hostler/authority", found: "/var/lib", refusal: undefined },
    freeBytes: LEAST_ROOM,
  },
  boot: {
    addresses: ["10.0.0.1"],
    files: [
      { path: "/srv/boot/vmlinuz", size: 8_000_000 },
      { path: "/srv/boot/initramfs", size: 60_000_000 },
    ],
  },
};
const opened = { outcome: "opened" } as const;
const live: LiveImageFindings = {
  ...{ ownStatus: root, clock: EARLIEST_CLOCK, kernelLog: opened, serviceProcessor: opened },
  disks: [{ name: "nvme0n1", opening: opened }],
  ...{ memoryControllers: ["mc0"], hasMachineChecks: true },
  mounts: { run: "tmpfs", pstore: "pstore" },
};

const bad = (advice: readonly Advice[]) =>
  advice.flatMap(({ check, status, mend }) =>
    status === "ok" ? [] : [`${status} ${check}: ${mend}`],
  );

describe("an orchestrator", () => {
  test("of a host that has all is told nothing to mend", () => {
    expect(bad(judgeOrchestrator(orchestrator))).toEqual([]);
    expect(bad(judgeOrchestrator({ ...orchestrator, boot: undefined, ownStatus: nobody }))).toEqual(
      [],
    );
  });

  const { state } = orchestrator;
  const files = orchestrator.boot?.files ?? [];
  const cases: [name: string, part: Partial<OrchestratorFindings>, told: string][] = [
    ["a clock of 1970", { clock: 0 }, "warning clock: Set it"],
    [
      "a folder that it may not write",
      { state: { ...state, refusal: "EACCES" } },
      "missing state_directory: Run as root",
    ],
    [
      "little room",
      { state: { ...state, freeBytes: LEAST_ROOM - 1 } },
      "warning state_directory: Have 4 GiB free",
    ],
    ["a port that is taken", { listenRefusal: "EADDRINUSE" }, "missing listen: Stop who listens"],
    ["another's address", { listenRefusal: "EADDRNOTAVAIL" }, "missing listen: Give an address"],
    ["a port for root", { listenRefusal: "EACCES" }, "missing listen: Give a port from 1024 on"],
    [
      "no interface",
      { boot: { files, addresses: undefined } },
      "missing boot_interface: Name one of ip link show",
    ],
    ["no address", { boot: { files, addresses: [] } }, "missing boot_interface: Name one"],
    [
      "no initramfs",
      {
        boot: { addresses: ["10.0.0.1"], files: [{ path: "/srv/boot/initramfs", size: "ENOENT" }] },
      },
      "missing boot_files: Make it with images/live",
    ],
    [
      "an empty kernel",
      { boot: { addresses: ["10.0.0.1"], files: [{ path: "/srv/boot/vmlinuz", size: 0 }] } },
      "missing boot_files: Make it with images/live",
    ],
    ["no rights for ports", { ownStatus: nobody }, "missing cap_net_bind_service: Run as root"],
  ];
  for (const [name, part, told] of cases) {
    test(`is told of ${name}`, () => {
      expect(bad(judgeOrchestrator({ ...orchestrator, ...part })).join("\n")).toContain(told);
    });
  }

  test("is looked at as it stands: a port in use, files, an interface", async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("vmlinuz"), "a kernel");
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const here = { ...place, stateDirectory: folder.path, bootDirectory: folder.path };
    const taken = { ...here, listen: `127.0.0.1:${port}`, bootInterface: "lo" };
    const found = await probeOrchestrator(taken);
    expect(found).toMatchObject({
      listenRefusal: "EADDRINUSE",
      state: { refusal: undefined },
      boot: { addresses: ["127.0.0.1"], files: [{ size: 8 }, { size: "ENOENT" }] },
    });
    await new Promise((resolve) => server.close(resolve));
    const free = await probeOrchestrator({ ...taken, bootInterface: "nowhere0" });
    expect([free.listenRefusal, free.boot?.addresses]).toEqual([undefined, undefined]);
  });
});

describe("the live image", () => {
  test("of a host that has all is told nothing to mend", () => {
    expect(bad(judgeLiveImage(live))).toEqual([]);
  });

  const refused = { outcome: "refused", code: "EACCES" } as const;
  const cases: [name: string, part: Partial<LiveImageFindings>, told: string][] = [
    ["no rights", { ownStatus: nobody }, "missing cap_sys_rawio: Run as root"],
    ["no kernel log", { kernelLog: refused }, "warning kernel_log: Run as root, or set kernel"],
    ["no IPMI", { serviceProcessor: refused }, "warning service_processor: modprobe ipmi_si"],
    ["no disk", { disks: [] }, "warning disks: Load the controller's driver"],
    ["a disk", { disks: [{ name: "sda", opening: refused }] }, "missing disks: Run as root with"],
    ["no EDAC", { memoryControllers: [] }, "warning memory_errors: Load the driver"],
    ["no MCE", { hasMachineChecks: false }, "warning machine_checks: Boot a kernel with"],
    [
      "no pstore",
      { mounts: { run: "tmpfs", pstore: undefined } },
      "warning pstore: mount -t pstore",
    ],
    ["/run on a disk", { mounts: { run: "ext4", pstore: "pstore" } }, "missing run_folder: mount"],
    ["a clock of 1970", { clock: 0 }, "warning clock: Set it"],
  ];
  for (const [name, part, told] of cases) {
    test(`is told of ${name}`, () => {
      expect(bad(judgeLiveImage({ ...live, ...part })).join("\n")).toContain(told);
    });
  }

  test("mounts are read as the kernel writes them", () => {
    const text =
      "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n" +
      "30 22 0:26 / /run rw,nosuid - tmpfs tmpfs rw\n" +
      "31 22 0:27 / /sys/fs/pstore rw shared:9 - pstore pstore rw\n";
    expect(readMounts(text)).toEqual({ run: "tmpfs", pstore: "pstore" });
    expect(readMounts(text.split("\n")[0] ?? "")).toEqual({ run: "ext4", pstore: undefined });
    expect(readMounts("")).toEqual({ run: undefined, pstore: undefined });
  });
});
