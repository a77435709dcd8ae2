/**
 * A Linux guest for tests of virtual machines: Debian's own cloud kernel, and an initramfs with
 * busybox, the modules that this kernel has not built in, and the compiled file as its agent. It
 * gets an address by DHCP where it has a network card, and says so on its serial port.
 *
 *   bun scripts/vm-guest.ts FOLDER      writes FOLDER/vmlinuz and FOLDER/initramfs
 */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { writeImage } from "../test/support/guest/image.ts";
import {
  dependenciesOf,
  fetchKernelWithModules,
  findModules,
  readModule,
} from "./guest-kernel/debian-modules.ts";
import { repositoryRoot } from "./setup.ts";
import { readWords, runScript, ScriptError } from "./terminal.ts";

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
  const fetched = await fetchKernelWithModules({ suite: "bookworm", flavour: "cloud-amd64" });
  const modules = readModules(fetched.modules, folder);
  const kernel = join(folder, "vmlinuz");
  const initramfs = join(folder, "initramfs");
  copyFileSync(fetched.kernel, kernel);
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
  return { kernel, initramfs, release: fetched.release };
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
 * The modules that the guest is about, with what they depend on before them, unpacked.
 * @returns paths, in the order in which they go in; without what is built in
 */
function readModules(modules: string, folder: string): string[] {
  const found = findModules(modules);
  const unpacked = join(folder, "modules");
  mkdirSync(unpacked, { recursive: true });
  const ordered = new Map<string, string>();
  const add = (module: string): void => {
    const source = found.get(module);
    if (source === undefined || ordered.has(module)) return;
    const path = join(unpacked, `${module}.ko`);
    const bytes = readModule(source);
    writeFileSync(path, bytes);
    for (const needed of dependenciesOf(bytes)) add(needed);
    ordered.set(module, path);
  };
  for (const module of wantedModules) add(module);
  return [...ordered.values()];
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
