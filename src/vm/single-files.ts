import type { SingleFile } from "../image/single-files.ts";
import type { VmSpec } from "./protocol.ts";

/** Machines that are declared by single files, in the place of an image. Pure. */

/** What such a machine has, unless its declaration says otherwise. */
const usual = { processors: 1, memory: 512 * 1024 ** 2 } as const;

/** The files' names in the image that is made of them. */
const parts = [
  { path: "kernelPath", hash: "kernelHash", name: "kernel" },
  { path: "initrdPath", hash: "initrdHash", name: "initrd" },
  { path: "diskImagePath", hash: "diskImageHash", name: "disk" },
] as const;

/** What is wrong with where a machine is to come from: key, expected, received, the mend. */
export function refuseSource(spec: VmSpec): string | undefined {
  if (spec.imagePath !== undefined) {
    const key = parts
      .flatMap(({ path, hash }) => [path, hash])
      .find((one) => spec[one] !== undefined);
    if (key === undefined) return undefined;
    const rule = "whose vm-config.json names its files. Take one of them away.";
    return `${key}: expected none beside imagePath, ${rule}`;
  }
  const files = singleFilesOf(spec);
  return typeof files === "string" ? files : undefined;
}

/** @returns the files of a machine without an image, or what is wrong with them */
export function singleFilesOf(spec: VmSpec): readonly SingleFile[] | string {
  const files: SingleFile[] = [];
  for (const { path: key, hash: hashKey, name } of parts) {
    const { [key]: path, [hashKey]: hash } = spec;
    if (path === undefined && hash === undefined) continue;
    if (path === undefined) return `${hashKey}: expected ${key} with it, received none. Add it.`;
    if (hash === undefined) {
      const mend = `Say what hostler vm hash --contents ${path} prints.`;
      return `${hashKey}: expected the hash of ${path}, received none. ${mend}`;
    }
    files.push({ key, name, path, hash });
  }
  if (files[0]?.key === "kernelPath") return files;
  return "kernelPath: expected a kernel, received none. Add it, or name an image by imagePath.";
}

/** The same for the same files, so that machines share what the store has of them. */
export function configurationOfFiles(files: readonly SingleFile[]): string {
  const has = (name: string) => files.some((file) => file.name === name);
  const configuration = {
    cpus: { boot_vcpus: usual.processors },
    memory: { size: usual.memory, shared: true },
    payload: { kernel: "kernel", ...(has("initrd") && { initramfs: "initrd" }), cmdline: "" },
    ...(has("disk") && { disks: [{ id: "disk", path: "disk" }] }),
    serial: { mode: "Socket" },
  };
  return `${JSON.stringify(configuration, null, 2)}\n`;
}
