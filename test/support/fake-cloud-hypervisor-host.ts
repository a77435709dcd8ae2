/**
 * A host on which the worker takes the fake of cloud-hypervisor for the real one: its processor is
 * said to have SVM, and the fake is a program that a VMM's user can start.
 */
import { chmodSync, copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hostler } from "./binary.ts";
import type { FakeOrders } from "./fake-cloud-hypervisor.ts";
import { type Feature, feature } from "./skips.ts";
import type { VmHost } from "./vm-worker.ts";

/** The device that the worker opens to know whether there is KVM; no machine is made by it. */
export const kvmDevice: Feature = feature("no /dev/kvm", () => existsSync("/dev/kvm"));

/** @returns lines for the worker's configuration */
export async function setUpFakeCloudHypervisor(
  host: VmHost,
  orders: FakeOrders = {},
): Promise<string[]> {
  const processor = host.folder.file("cpuinfo");
  const text = readFileSync("/proc/cpuinfo", "utf8");
  writeFileSync(processor, text.replaceAll(/^(flags\s*:.*)$/gm, "$1 svm"));
  await host.on("mount", "--bind", processor, "/proc/cpuinfo");
  // Bun lists the folder of what it runs.
  chmodSync(host.folder.path, 0o755);
  const bundle = host.folder.file("fake-cloud-hypervisor.js");
  await bundleFake(bundle);
  // The repository may be where nobody but root comes.
  const runtime = host.folder.file("bun");
  copyFileSync(hostler(), runtime);
  chmodSync(runtime, 0o755);
  const program = host.folder.file("cloud-hypervisor");
  const quoted = JSON.stringify(orders).replaceAll("'", "'\\''");
  const run = `exec "${runtime}" "${bundle}" "$@"`;
  writeFileSync(program, `#!/bin/sh\nBUN_BE_BUN=1 FAKE_CLOUD_HYPERVISOR='${quoted}' ${run}\n`);
  chmodSync(program, 0o755);
  return [`hypervisor = "cloud-hypervisor"`, `cloud_hypervisor_path = "${program}"`];
}

async function bundleFake(path: string): Promise<void> {
  const built = await Bun.build({
    entrypoints: [join(import.meta.dirname, "fake-cloud-hypervisor.ts")],
    target: "bun",
    define: { HOSTLER_FAULTS: "false" },
    external: ["bun:test"],
  });
  const [output] = built.outputs;
  if (output === undefined) throw new Error(`The fake was not bundled: ${built.logs.join("\n")}`);
  writeFileSync(path, await output.text(), { mode: 0o644 });
}
