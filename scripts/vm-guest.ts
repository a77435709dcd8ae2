/**
 * A Linux guest for tests of virtual machines: Debian's own cloud kernel, and an initramfs with
 * busybox, the modules that this kernel has not built in, and the compiled file as its agent. It
 * gets an address by DHCP where it has a network card, and says so on its serial port.
 *
 *   bun scripts/vm-guest.ts FOLDER      writes FOLDER/vmlinuz and FOLDER/initramfs
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { writeImage } from "../test/support/guest/image.ts";
import { runCommand } from "./command.ts";
import { openDebianArchive } from "./guest-kernel/debian-archive.ts";
import { cacheFolder, repositoryRoot } from "./setup.ts";
import { readWords, runScript, ScriptError, withStep } from "./terminal.ts";

const suite = "bookworm";

/** What the guest is about; a kernel may have some of them built in. */
const wantedModules = ["virtio_pci", "virtio_mmio", "virtio_net", "virtio_console", "virtio_blk"];

/** Its last words on the serial port before it is there to be used. */
export const READY_LINE = "HOSTLER-VM-GUEST ready";

/** Words that its kernel needs; "quiet" leaves the serial port to the guest. */
export const GUEST_COMMAND_LINE = "console=ttyS0 panic=-1 quiet";

export interface VmGuest {
  readonly kernel: string;
  readonly initramfs: string;
  /** As uname -r says in it. */
  readonly release: string;
}

/**
 * Makes the guest.
 * @param options.program the compiled file
 * @throws ScriptError (100) without a mirror of Debian or busybox, (1) when apt fails
 */
export async function makeVmGuest(options: {
  readonly folder: string;
  readonly program: string;
}): Promise<VmGuest> {
  if (!existsSync("/bin/busybox")) {
    throw new ScriptError("There is no /bin/busybox: install Debian's busybox-static.", {
      exitCode: 100,
    });
  }
  const { folder, program } = options;
  const fetched = await fetchCloudKernel();
  const modules = await readModules(fetched, folder);
  const kernel = join(folder, "vmlinuz");
  const initramfs = join(folder, "initramfs");
  copyFileSync(join(fetched, "vmlinuz"), kernel);
  const places = modules.map((path) => [`/modules/${basename(path)}`, path] as const);
  writeImage(initramfs, {
    programs: {
      "/usr/bin/hostler": program,
      "/bin/busybox": "/bin/busybox",
      ...Object.fromEntries(places),
    },
    files: {
      "/modules/order": `${places.map(([place]) => place).join("\n")}\n`,
      "/etc/udhcpc": addressScript,
      "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    },
    init,
  });
  const release = readFileSync(join(fetched, "release"), "utf8");
  return { kernel, initramfs, release };
}

/** The first process. The shell at its end is the console's; with it the guest would end. */
const init = `#!/bin/busybox sh
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
for module in $(cat /modules/order); do
  insmod "$module" || echo "HOSTLER-VM-GUEST no $module"
done
ip link set lo up
hostname guest
/usr/bin/hostler vm guest-agent </dev/null >/run/agent.log 2>&1 &
address=none
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  cp /etc/udhcpc /run/udhcpc && chmod 755 /run/udhcpc
  udhcpc -i eth0 -n -q -t 10 -T 1 -s /run/udhcpc </dev/null >/run/udhcpc.log 2>&1
  address=$(ip -4 -o addr show dev eth0 | awk '{print $4}')
fi
echo "${READY_LINE} kernel $(uname -r) address \${address:-none}"
while :; do setsid cttyhack sh; done
`;

/** What udhcpc calls, with what it was given in the environment: udhcpc(8). */
const addressScript = `#!/bin/busybox sh
case "$1" in
  bound|renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/\${mask:-24}" dev "$interface"
    for router in $router; do ip route add default via "$router" dev "$interface"; break; done
    : > /etc/resolv.conf
    [ -z "$domain" ] || echo "search $domain" >> /etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
    ;;
esac
`;

/**
 * Debian's cloud kernel of the newest point release with all its modules, unpacked and not
 * installed. Fetched once into .cache/; delete the folder there to fetch a newer one.
 * @returns the folder with vmlinuz, release and modules
 */
async function fetchCloudKernel(): Promise<string> {
  const folder = cacheFolder(`vm-guest-kernel-${suite}`);
  const stamp = join(folder, "release");
  if (existsSync(stamp)) return folder;
  await withStep(`cloud kernel of Debian ${suite}`, async ({ say }) => {
    say("lists of packages");
    const archive = await openDebianArchive(suite, join(folder, "apt"));
    const shown = await archive.query(["show", "linux-image-cloud-amd64"]);
    const [, release] = /^Depends:.*\blinux-image-(\d[^\s,]*-cloud-amd64)/m.exec(shown) ?? [];
    if (release === undefined) {
      throw new ScriptError(`linux-image-cloud-amd64 of ${suite} names no kernel:\n${shown}`, {
        exitCode: 1,
      });
    }
    say(`linux-image-${release}`);
    const [file = ""] = await archive.download([`linux-image-${release}`], folder);
    await runCommand(["dpkg-deb", "-x", file, join(folder, "tree")]);
    renameSync(join(folder, "tree", "boot", `vmlinuz-${release}`), join(folder, "vmlinuz"));
    renameSync(join(folder, "tree", "lib", "modules", release), join(folder, "modules"));
    await runCommand(["rm", "-r", "apt", "tree", file], { workingDirectory: folder });
    writeFileSync(`${stamp}.new`, release);
    renameSync(`${stamp}.new`, stamp);
  });
  return folder;
}

/**
 * The modules that the guest is about, with what they depend on before them, unpacked.
 * @returns paths, in the order in which they go in; without what is built in
 */
async function readModules(fetched: string, folder: string): Promise<string[]> {
  const found = new Map<string, string>();
  const root = join(fetched, "modules", "kernel");
  for (const name of readdirSync(root, { recursive: true, encoding: "utf8" })) {
    const [, module] = /([^/]+)\.ko(?:\.xz)?$/.exec(name) ?? [];
    if (module !== undefined) found.set(module.replaceAll("-", "_"), join(root, name));
  }
  const unpacked = join(folder, "modules");
  mkdirSync(unpacked, { recursive: true });
  const ordered = new Map<string, string>();
  const add = async (module: string): Promise<void> => {
    const source = found.get(module);
    if (source === undefined || ordered.has(module)) return;
    const path = join(unpacked, `${module}.ko`);
    if (source.endsWith(".xz")) {
      await runCommand(["sh", "-c", 'xz -dc "$1" > "$2"', "unpack", source, path]);
    } else copyFileSync(source, path);
    for (const needed of dependenciesOf(readFileSync(path))) await add(needed);
    ordered.set(module, path);
  };
  for (const module of wantedModules) await add(module);
  return [...ordered.values()];
}

/** The names in "depends=" of the section .modinfo, which ends with a zero byte: modinfo(8). */
export function dependenciesOf(module: Uint8Array): string[] {
  const text = Buffer.from(module).toString("latin1");
  const start = text.indexOf("\0depends=");
  if (start < 0) return [];
  const begin = start + "\0depends=".length;
  const names = text.slice(begin, text.indexOf("\0", begin)).split(",");
  return names.filter((name) => name !== "").map((name) => name.replaceAll("-", "_"));
}

async function main(): Promise<number> {
  const usage = "Usage: bun scripts/vm-guest.ts FOLDER";
  const { positionals } = readWords(usage, { allowPositionals: true });
  const [folder] = positionals;
  if (folder === undefined || positionals.length !== 1) {
    throw new ScriptError(usage, { exitCode: 100 });
  }
  mkdirSync(folder, { recursive: true });
  const program = join(repositoryRoot, "dist", "hostler");
  const { kernel, initramfs, release } = await makeVmGuest({ folder, program });
  console.log(`${release}: ${kernel}, ${initramfs}\nCommand line: ${GUEST_COMMAND_LINE}`);
  return 0;
}

if (import.meta.main) await runScript(main);
