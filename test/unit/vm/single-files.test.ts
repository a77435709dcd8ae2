/** Machines that are declared by single files: what is wrong, and what is made of them. */
import { describe, expect, test } from "bun:test";
import type { VmSpec } from "../../../src/vm/protocol.ts";
import { configurationOfFiles, refuseSource, singleFilesOf } from "../../../src/vm/single-files.ts";
import { parseVmConfig } from "../../../src/vm/vm-config.ts";

const hash = `sha256-${"A".repeat(43)}=`;
const kernel = { name: "web", kernelPath: "/boot/vmlinuz", kernelHash: hash } satisfies VmSpec;

describe("single files", () => {
  test("are a kernel, and what is beside it", () => {
    expect(singleFilesOf(kernel)).toEqual([
      { key: "kernelPath", name: "kernel", path: "/boot/vmlinuz", hash },
    ]);
    const all = { ...kernel, initrdPath: "/i", initrdHash: hash, diskImagePath: "/d" };
    const files = singleFilesOf({ ...all, diskImageHash: hash });
    expect(files).toHaveLength(3);
    if (typeof files === "string") throw new Error(files);
    const parsed = parseVmConfig(configurationOfFiles(files), {
      ...{ folder: "/boot/vmlinuz", hypervisor: "qemu" },
    });
    expect(parsed).toMatchObject({
      kind: "ok",
      warnings: [],
      machine: {
        processors: 1,
        boot: {
          kernel: { kind: "inside", name: "kernel" },
          initramfs: { kind: "inside", name: "initrd" },
          commandLine: "",
        },
        disks: [{ id: "disk", readOnly: false, file: { kind: "inside", name: "disk" } }],
      },
    });
  });

  test("have one configuration for the same names, wherever they come from", () => {
    const one = singleFilesOf(kernel);
    const other = singleFilesOf({ ...kernel, kernelPath: "/elsewhere" });
    if (typeof one === "string" || typeof other === "string") throw new Error("refused");
    expect(configurationOfFiles(one)).toBe(configurationOfFiles(other));
  });

  test.each<[Partial<VmSpec>, string]>([
    [{ kernelHash: undefined }, "kernelHash: expected the hash of /boot/vmlinuz, received none"],
    [{ initrdPath: "/i" }, "initrdHash: expected the hash of /i, received none"],
    [{ initrdHash: hash }, "initrdHash: expected initrdPath with it, received none"],
    [
      { kernelPath: undefined, kernelHash: undefined, diskImagePath: "/d", diskImageHash: hash },
      "kernelPath: expected a kernel, received none",
    ],
    [{ imagePath: "/image", hash }, "kernelPath: expected none beside imagePath"],
  ])("are refused: %j", (changes, words) => {
    expect(refuseSource({ ...kernel, ...changes })).toStartWith(words);
  });

  test("are not asked of a machine that has an image", () => {
    expect(refuseSource({ name: "web", imagePath: "/image", hash })).toBeUndefined();
  });
});
