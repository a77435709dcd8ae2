/**
 * systemd as the first process of namespaces of its own: beside the machine's, and without a way to
 * it. Its root is the machine's, read-only; /dev, /run, /var/log, the units and the cgroups are its
 * own, and so are processes and network. Nothing of it outlives the test.
 */
import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cgroupFolder, writableCgroup } from "./cgroup.ts";
import { type ProgramResult, runProgram, startProgram } from "./program.ts";
import { type Feature, file, root } from "./skips.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

const init = "/usr/lib/systemd/systemd";

export const isolatedSystemdFeatures: readonly Feature[] = [
  root,
  file(init, "systemd"),
  writableCgroup,
];

/** The machine's units that are taken over; what starts services of the machine is not. */
const takenOver = [
  ...["basic.target", "final.target", "shutdown.target", "sockets.target", "sysinit.target"],
  ...["systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"],
];

/**
 * Every mount is private before the first one is made. Each has a boot id of its own: what is
 * started again on the same folder is a host after a power cut.
 * @param place of the test's own files
 */
const begin = (place: string) => `
set -e
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs -o mode=755 none /mnt
for name in null zero full random urandom tty; do
  touch /mnt/$name; mount --bind /dev/$name /mnt/$name
done
mkdir /mnt/shm /mnt/pts /mnt/mqueue
touch /mnt/console
ln -s /proc/self/fd /mnt/fd; ln -s fd/0 /mnt/stdin; ln -s fd/1 /mnt/stdout; ln -s fd/2 /mnt/stderr
mount --rbind /mnt /dev
umount -R /mnt
mount -t tmpfs -o mode=755 none /run
mount -t tmpfs -o mode=755 none /var/log
mkdir /run/units
for name in ${takenOver.join(" ")}; do cp /usr/lib/systemd/system/$name /run/units/; done
for folder in /etc/systemd /usr/lib/systemd/system /usr/lib/systemd/system-generators; do
  mount -t tmpfs -o mode=755 none $folder
done
cp /run/units/* /usr/lib/systemd/system/
mkdir /etc/systemd/system
mount --bind ${place}/units /etc/systemd/system
echo ${"5".repeat(32)} > /run/machine-id
mount --bind /run/machine-id /etc/machine-id
mount --bind ${place} ${place}
mount -o remount,bind,ro /
mount -t proc proc /proc
mount -o bind,ro /proc/sys /proc/sys
echo ${randomUUID()} > /run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
exec env -i PATH="$PATH" container=hostler-test ${init} --system --unit=test.target \\
  --log-target=console --show-status=no
`;

const target = `[Unit]
Requires=basic.target systemd-journald.service systemd-journald.socket
After=basic.target systemd-journald.service
`;

export interface IsolatedSystemd extends AsyncDisposable {
  /** Runs a program among its processes. */
  run(
    argv: readonly string[],
    environment?: Readonly<Record<string, string>>,
  ): Promise<ProgramResult>;
  /** Writes a unit, and has it read. */
  writeUnit(name: string, text: string): Promise<void>;
}

/** @param folder of the test: it is at the same place inside, and can be written to there */
export async function startIsolatedSystemd(folder: TemporaryFolder): Promise<IsolatedSystemd> {
  const cgroup = cgroupFolder();
  await runProgram(["mkdir", "-p", folder.file("units")]);
  writeFileSync(folder.file("units/test.target"), target);
  const program = startProgram([
    ...["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', cgroup.path],
    ...["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL"],
    ...["--net", "--uts", "--ipc", "--cgroup", "bash", "-c", begin(folder.path)],
  ]);
  const init = await waitFor("the first process of the namespace", () => {
    const text = readFileSync(
      `/proc/${program.processId}/task/${program.processId}/children`,
      "utf8",
    );
    return text.trim() === "" ? undefined : text.trim();
  });
  const enter = ["nsenter", `--target=${init}`, ...["-m", "-p", "-n", "-i", "-u", "-C"], "--"];
  const run: IsolatedSystemd["run"] = (argv, environment = {}) =>
    runProgram([...enter, ...argv], { environment, deadlineMilliseconds: 60_000 });
  const isolated: IsolatedSystemd = {
    run,
    writeUnit: async (name, text) => {
      writeFileSync(folder.file(`units/${name}`), text);
      await run(["systemctl", "daemon-reload"]);
    },
    [Symbol.asyncDispose]: async () => {
      // Its first process dies with it, and with that all others.
      await program[Symbol.asyncDispose]();
      await waitFor("the end of all its processes", () => isEmpty(cgroup.path));
      cgroup[Symbol.dispose]();
    },
  };
  try {
    await waitFor("systemd to have started", async () => {
      const { stdout } = await run(["systemctl", "is-active", "test.target"]);
      return stdout.trim() === "active";
    });
  } catch (error) {
    (error as Error).message += `\n${program.output.stdout}${program.output.stderr}`;
    await isolated[Symbol.asyncDispose]();
    throw error;
  }
  return isolated;
}

/** Of all groups below: a process that is dying is in none of their lists, and counts here. */
function isEmpty(folder: string): boolean {
  return readFileSync(join(folder, "cgroup.events"), "utf8").includes("populated 0");
}
