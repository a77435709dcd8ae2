/**
 * Machines of QEMU that come up over the network: their firmware asks, beside a plain DHCP server,
 * and what boots at last says so on its serial port. Their cards are TAPs on a bridge in a
 * namespace of the test's own.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync } from "node:fs";
import { fetchDebianKernel } from "../../scripts/guest-kernel.ts";
import { writeImage } from "../support/guest/image.ts";
import { guestFeatures } from "../support/machine.ts";
import { type NetworkBoot, startNetworkBoot } from "../support/network-boot.ts";
import { type Program, startProgram } from "../support/program.ts";
import type { NetworkBootOptions } from "../support/programs/network-boot.ts";
import { onlyInAll } from "../support/rotation.ts";
import { feature, file, root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { bridge, hostAddress, ip, makeVmNetwork, type VmNetwork } from "../support/vm-network.ts";
import { startServices } from "../support/vm-services.ts";
import { waitFor } from "../support/wait-for.ts";

const bootMilliseconds = 12 * 60_000;
setDefaultTimeout(bootMilliseconds);

const ipxeFolder = "/usr/lib/ipxe";
const features = [
  root,
  ...guestFeatures,
  file("/sbin/ip", "iproute2"),
  file(`${ipxeFolder}/snponly.efi`, "ipxe"),
  file("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
  feature("no TUN device", () => existsSync("/dev/net/tun")),
];

const macAddress = "52:54:00:00:01:40";
const uuid = "00112233-4455-6677-8899-aabbccddeeff";
const serial = "SN-1 of 2";

/** Says what it was booted with, and switches the machine off. */
const init = [
  "#!/bin/busybox sh",
  "/bin/busybox mount -t proc proc /proc",
  '/bin/busybox echo "BOOTED with $(/bin/busybox cat /proc/cmdline)"',
  "/bin/busybox poweroff -f",
  "",
].join("\n");

async function makeBootFolder(folder: TemporaryFolder): Promise<string> {
  const { path } = await fetchDebianKernel();
  copyFileSync(path, folder.file("vmlinuz"));
  const programs = { "/bin/busybox": "/bin/busybox" };
  writeImage(folder.file("initramfs"), { programs, files: {}, init });
  return folder.path;
}

interface Lab extends AsyncDisposable {
  readonly network: VmNetwork;
  readonly boot: NetworkBoot;
  readonly scratch: TemporaryFolder;
}

/** A host with a bridge, a DHCP server, network boot beside it, and a TAP for the machine. */
async function makeLab(
  decisions: NetworkBootOptions["decisions"],
  bootFolder: string,
): Promise<Lab> {
  await using owned = new AsyncDisposableStack();
  const scratch = owned.use(temporaryFolder());
  const network = owned.use(await makeVmNetwork(0));
  await ip(network.host, "tuntap add machine mode tap");
  await ip(network.host, "link set machine addrgenmode none");
  await ip(network.host, `link set machine master ${bridge} up`);
  const reservation = {
    ...{ macAddress, address: "10.100.1.64", hostname: "machine", leaseSeconds: 3_600 },
    ...{ gateway: hostAddress, dns: [hostAddress] },
  };
  owned.use(await startServices(network.host, scratch, ["dhcp"], { reservations: [reservation] }));
  const options = { bootFolder, ipxeFolder, decisions };
  const boot = owned.use(await startNetworkBoot(network.host, options));
  await boot.program.said(/^serving/m);
  const kept = owned.move();
  return { network, boot, scratch, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

function startMachine(lab: Lab, words: readonly string[]): Program {
  const console = `file:${lab.scratch.file("serial")}`;
  return startProgram([
    ...lab.network.host.enter,
    "qemu-system-x86_64",
    ...["-machine", "q35,accel=tcg", "-m", "512", "-display", "none", "-no-reboot"],
    ...["-serial", console, "-nic", "none"],
    ...["-smbios", `type=1,uuid=${uuid},serial=${serial}`],
    ...["-netdev", "tap,id=net,ifname=machine,script=no,downscript=no"],
    ...words,
  ]);
}

const card = (model: string) => ["-device", `${model},netdev=net,mac=${macAddress},bootindex=1`];

function firmware(lab: Lab): string[] {
  const variables = lab.scratch.file("vars.fd");
  copyFileSync("/usr/share/OVMF/OVMF_VARS_4M.fd", variables);
  const flash = "if=pflash,format=raw";
  return [
    ...["-drive", `${flash},readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd`],
    ...["-drive", `${flash},file=${variables}`],
  ];
}

async function serialSays(lab: Lab, pattern: RegExp): Promise<string> {
  const path = lab.scratch.file("serial");
  return await waitFor(
    `${pattern} on the serial port`,
    async () => {
      const there = await Bun.file(path).exists();
      return there && pattern.exec(readFileSync(path, "latin1"))?.[0];
    },
    bootMilliseconds,
  );
}

const parameters = [
  ["console", "ttyS0,115200n8"],
  ["hostler.vetting.run", "12"],
] as const;
const run = { [macAddress]: { kind: "run", parameters } } as const;
const booted = /BOOTED with .*console=ttyS0,115200n8 hostler.vetting.run=12/;
const asked = new RegExp(
  `asked {"mac":"${macAddress}","serial":"${serial}","uuid":"${uuid}","peer":"10.100.1.64"}`,
);

onlyInAll(() => {
  skipUnless("booting over the network", features, () => {
    test("BIOS, whose ROM is iPXE", async () => {
      using folder = temporaryFolder();
      await using lab = await makeLab(run, await makeBootFolder(folder));
      await using _machine = startMachine(lab, card("e1000"));
      await serialSays(lab, booted);
      await lab.boot.program.said(asked);
      const { dhcp, tftp, scripts } = await lab.boot.counters();
      expect({ offers: dhcp["offers"], requests: tftp["requests"] }).toEqual({
        offers: expect.any(Number),
        requests: 0,
      });
      expect(scripts).toEqual({ chain: 1, boot: 1 });
    });

    test("UEFI, whose ROM is iPXE", async () => {
      using folder = temporaryFolder();
      await using lab = await makeLab(run, await makeBootFolder(folder));
      await using _machine = startMachine(lab, [...card("virtio-net-pci"), ...firmware(lab)]);
      await serialSays(lab, booted);
      await lab.boot.program.said(asked);
    });
  });
});
