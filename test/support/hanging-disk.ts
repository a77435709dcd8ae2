/** A small file system whose writers can be held up, as those of a disk that does not answer. */
import { spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, mkdirSync, openSync } from "node:fs";
import { feature, program } from "./skips.ts";

const IMAGE_BYTES = 16 * 1024 * 1024;

export const hangingDisks = [
  program("mkfs.ext4", "e2fsprogs"),
  program("fsfreeze", "util-linux"),
  feature("no loop device", () => {
    return spawnSync("losetup", ["-f"], { encoding: "utf8" }).status === 0;
  }),
];

export class HangingDisk implements Disposable {
  readonly path: string;
  #isHanging = false;

  /** Makes an ext4 in a file beside the path, and mounts it there. */
  constructor(path: string) {
    this.path = path;
    const image = `${path}.image`;
    const file = openSync(image, "wx", 0o600);
    ftruncateSync(file, IMAGE_BYTES);
    closeSync(file);
    mkdirSync(path, { mode: 0o755 });
    run(["mkfs.ext4", "-q", image]);
    run(["mount", "-o", "loop", image, path]);
  }

  /** Whoever writes waits from now on: FIFREEZE, ioctl_fs(2). */
  hang(): void {
    run(["fsfreeze", "-f", this.path]);
    this.#isHanging = true;
  }

  goOn(): void {
    if (this.#isHanging) run(["fsfreeze", "-u", this.path]);
    this.#isHanging = false;
  }

  [Symbol.dispose](): void {
    this.goOn();
    spawnSync("umount", ["-l", this.path]);
  }
}

function run(argv: readonly string[]): void {
  const [program = "", ...words] = argv;
  const { status, stderr } = spawnSync(program, words, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${argv.join(" ")}: ${stderr}`);
}
