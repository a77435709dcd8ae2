/** nvidia-smi and dcgmi that print what a test says: programs of the shell, in a folder. */
import { chmodSync, writeFileSync } from "node:fs";
import type { TemporaryFolder } from "../temporary-folder.ts";

/** Two A100, as driver 535 prints them. */
export const smiOutput = {
  base: `pci.bus_id, name, uuid, driver_version, temperature.gpu, power.draw [W]
00000000:41:00.0, NVIDIA A100 80GB PCIe, GPU-5a1b2c3d, 535.183.01, 38, 62.31
00000000:C1:00.0, NVIDIA A100 80GB PCIe, GPU-6b2c3d4e, 535.183.01, 41, 64.02
`,
  ecc: `pci.bus_id, ecc.mode.current, ecc.errors.corrected.volatile.total, \
ecc.errors.uncorrected.volatile.total, ecc.errors.uncorrected.aggregate.total
00000000:41:00.0, Enabled, 0, 0, 0
00000000:C1:00.0, Enabled, 3, 0, 2
`,
  rows: `gpu_bus_id, remapped_rows.correctable, remapped_rows.uncorrectable, \
remapped_rows.pending, remapped_rows.failure
00000000:41:00.0, 0, 0, No, No
00000000:C1:00.0, 0, 2, 1, 0
`,
  pages: `pci.bus_id, retired_pages.single_bit_ecc.count, retired_pages.double_bit.count, \
retired_pages.pending
00000000:41:00.0, [N/A], [N/A], [N/A]
00000000:C1:00.0, [N/A], [N/A], [N/A]
`,
  throttle: `pci.bus_id, clocks_event_reasons.active
00000000:41:00.0, 0x0000000000000001
00000000:C1:00.0, 0x0000000000000048
`,
  /** Of the first card, in a baseboard; the second is a card of its own. */
  linkStates: `GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5a1b2c3d)
\t Link 0: 25 GB/s
\t Link 1: 25 GB/s
\t Link 2: <inactive>
GPU 1: NVIDIA A100 80GB PCIe (UUID: GPU-6b2c3d4e)
`,
  linkErrors: `GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5a1b2c3d)
\t Link 0: Replay Errors: 2
\t Link 0: Recovery Errors: 0
\t Link 0: CRC Errors: 0
\t Link 1: Replay Errors: 1
\t Link 1: Recovery Errors: 0
\t Link 1: CRC Errors: 7
`,
  /** This version does not know the other name. */
  events: 'Field "clocks_event_reasons.active" is not a valid field to query.\n',
} as const;
export type SmiOutput = Readonly<Record<keyof typeof smiOutput, string>>;

/** DCGM 3: results by numbers of cards. */
export const diagnostics3 = {
  "DCGM GPU Diagnostic": {
    test_categories: [
      {
        category: "Deployment",
        tests: [
          { name: "Denylist", results: [{ status: "Pass" }] },
          { name: "NVML Library", results: [{ status: "Pass" }] },
        ],
      },
      {
        category: "Integration",
        tests: [
          {
            name: "PCIe",
            results: [
              { gpu_ids: "0", status: "Pass" },
              { gpu_ids: "1", status: "Fail", warnings: "PCIe replay rate is too high" },
            ],
          },
        ],
      },
    ],
    version: "3.3.7",
  },
};

/** DCGM 4: results by entities, and a summary. */
export const diagnostics4 = {
  "DCGM Diagnostic": {
    test_categories: [
      {
        category: "Hardware",
        tests: [
          {
            name: "memory",
            results: [
              { entity_group: "GPU", entity_group_id: 1, entity_id: 0, status: "Pass" },
              {
                entity_group: "GPU",
                entity_group_id: 1,
                entity_id: 1,
                status: "Fail",
                warnings: [{ error_category: 1, error_id: 2, warning: "A DBE was found" }],
              },
            ],
            test_summary: { status: "Fail" },
          },
          { name: "diagnostic", test_summary: { status: "Skip" } },
        ],
      },
    ],
  },
  metadata: { version: "4.2.0" },
};

/** @returns its path */
export function writeSmi(folder: TemporaryFolder, output: SmiOutput, code = 0): string {
  const cases = [
    ["*nvlink*-s*", output.linkStates],
    ["*nvlink*-e*", output.linkErrors],
    ["*remapped*", output.rows],
    ["*retired*", output.pages],
    ["*ecc.mode*", output.ecc],
    ["*clocks_event*", output.events],
    ["*clocks_throttle*", output.throttle],
    ["*", output.base],
  ] as const;
  const branches = cases.map(([pattern, text], index) => {
    writeFileSync(folder.file(`smi-${index}`), text);
    return `${pattern}) cat ${folder.file(`smi-${index}`)} ;;`;
  });
  return writeTool(
    folder,
    "nvidia-smi",
    `case "$*" in\n${branches.join("\n")}\nesac\nexit ${code}`,
  );
}

export function writeDcgmi(folder: TemporaryFolder, output: string, code = 0): string {
  writeFileSync(folder.file("diagnostics"), output);
  return writeTool(folder, "dcgmi", `cat ${folder.file("diagnostics")}\nexit ${code}`);
}

export function writeTool(folder: TemporaryFolder, name: string, body: string): string {
  const path = folder.file(name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}
