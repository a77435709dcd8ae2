/**
 * Machines of QEMU that come up over the network: their firmware asks, beside a plain DHCP server,
 * and what boots at last says so on its serial port. Their cards are TAPs on a bridge in a
 * namespace of the test's own.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { fetchKernelWithModules } from "../../scripts/guest-kernel/debian-modules.ts";
import { makeBootDisk } from "../../scripts/live-image/disk.ts";
import { fetchStub } from "../../scripts/live-image.ts";
import { bootStory } from "../support/boot-capture.ts";
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
  file(`${ipxeFolder}/ipxe.lkrn`, "ipxe"),
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
  const { kernel } = await fetchKernelWithModules({ suite: "bookworm", flavour: "amd64" });
  copyFileSync(kernel, folder.file("vmlinuz"));
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
  return startProgram([
    ...lab.network.host.enter,
    "qemu-system-x86_64",
    ...["-machine", "q35,accel=tcg", "-m", "512", "-display", "none", "-no-reboot"],
    ...["-serial", `file:${lab.scratch.file("serial")}`, "-nic", "none"],
    ...["-smbios", `type=1,uuid=${uuid},serial=${serial}`],
    ...["-netdev", "tap,id=net,ifname=machine,script=no,downscript=no,vnet_hdr=off"],
    ...["-object", `filter-dump,id=dump,netdev=net,file=${lab.scratch.file("capture")}`],
    ...words,
  ]);
}

/** @param properties such as "romfile=": no iPXE in it, so that the firmware's own PXE boots */
const card = (model: string, ...properties: string[]) => [
  "-device",
  [model, "netdev=net", `mac=${macAddress}`, "bootindex=1", ...properties].join(),
];

/** UEFI with a store of its own. */
function firmware(lab: Lab): string[] {
  const variables = lab.scratch.file("vars.fd");
  copyFileSync("/usr/share/OVMF/OVMF_VARS_4M.fd", variables);
  const flash = "if=pflash,format=raw";
  return [
    ...["-drive", `${flash},readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd`],
    ...["-drive", `${flash},file=${variables}`],
  ];
}

/** What OVMF offers of its own: PXE before HTTP, and IPv6, which nobody answers here. */
const without = (...names: string[]) =>
  names.flatMap((name) => ["-fw_cfg", `name=opt/org.tianocore/${name},string=n`]);

/** The machine's second choice. */
function disk(lab: Lab, content: Uint8Array): string[] {
  const path = lab.scratch.file("disk");
  writeFileSync(path, content);
  return [
    ...["-drive", `id=disk,if=none,format=raw,file=${path}`],
    ...["-device", "virtio-blk-pci,drive=disk,bootindex=2"],
  ];
}

const diskWords = "THE DISK";

/** A boot sector that says so on the first serial port, and stands still. */
function bootSector(): Uint8Array {
  const sector = new Uint8Array(1_024 * 1_024);
  // xor ax, ax; mov ds, ax; mov si, text; each: lodsb; test al, al; jz end; mov dx, 0x3f8;
  // out dx, al; jmp each; end: hlt; jmp end; text: …
  sector.set(Uint8Array.fromHex("31c08ed8be157cac84c07406baf803eeebf5f4ebfd"));
  sector.set(new TextEncoder().encode(diskWords), 0x15);
  sector.set([0x55, 0xaa], 510);
  return sector;
}

/** A disk for UEFI, whose kernel's command line says so. */
async function efiDisk(bootFolder: string): Promise<Uint8Array> {
  return makeBootDisk({
    stub: await fetchStub(),
    kernel: readFileSync(`${bootFolder}/vmlinuz`),
    initramfs: readFileSync(`${bootFolder}/initramfs`),
    commandLine: `console=ttyS0,115200n8 "from=${diskWords}"`,
    release: "0",
  });
}

/** @throws DeadlineError whose cause says what came by serial port and wire until then */
async function serialSays(lab: Lab, pattern: RegExp): Promise<string> {
  const path = lab.scratch.file("serial");
  const text = () => (existsSync(path) ? readFileSync(path, "latin1") : "");
  try {
    return await waitFor(
      `${pattern} on the serial port`,
      () => pattern.exec(text())?.[0],
      bootMilliseconds,
    );
  } catch (error) {
    const story = bootStory(readFileSync(lab.scratch.file("capture"))).join("\n");
    throw new Error(`The boot stopped.\n${story}\nserial port: ${text().slice(-2_000)}`, {
      cause: error,
    });
  }
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

    test("BIOS, with undionly.kpxe by TFTP over another's UNDI", async () => {
      using folder = temporaryFolder();
      await using lab = await makeLab(run, await makeBootFolder(folder));
      const script = lab.scratch.file("first.ipxe");
      writeFileSync(script, `#!ipxe\ndhcp\nchain tftp://${hostAddress}/undionly.kpxe\n`);
      const first = ["-kernel", `${ipxeFolder}/ipxe.lkrn`, "-initrd", script];
      await using _machine = startMachine(lab, [...card("e1000", "romfile="), ...first]);
      await serialSays(lab, booted);
      await lab.boot.program.said(asked);
      const { tftp, scripts } = await lab.boot.counters();
      expect(tftp.endings["done"]).toBeGreaterThan(0);
      expect(scripts).toEqual({ chain: 1, boot: 1 });
    });

    test("UEFI, whose ROM is iPXE", async () => {
      using folder = temporaryFolder();
      await using lab = await makeLab(run, await makeBootFolder(folder));
      await using _machine = startMachine(lab, [...card("virtio-net-pci"), ...firmware(lab)]);
      await serialSays(lab, booted);
      await lab.boot.program.said(asked);
    });

    test("UEFI, by its own PXE", async () => {
      using folder = temporaryFolder();
      await using lab = await makeLab(run, await makeBootFolder(folder));
      const words = [...card("virtio-net-pci", "romfile="), ...firmware(lab)];
      await using _machine = startMachine(lab, words);
      await serialSays(lab, booted);
      await lab.boot.program.said(asked);
      const { tftp, scripts } = await lab.boot.counters();
      expect(tftp.endings["done"]).toBeGreaterThan(0);
      expect(scripts).toEqual({ chain: 1, boot: 1 });
    });

    test("UEFI, by its own HTTP boot", async () => {
      using folder = temporaryFolder();
      await using lab = await makeLab(run, await makeBootFolder(folder));
      const words = [...card("virtio-net-pci", "romfile="), ...firmware(lab)];
      const alone = without("IPv4PXESupport", "IPv6PXESupport");
      await using _machine = startMachine(lab, [...words, ...alone]);
      await serialSays(lab, booted);
      await lab.boot.program.said(asked);
      await lab.boot.program.said(/boot file snponly\.efi to 10\.100\.1\.64/);
      const { tftp, scripts } = await lab.boot.counters();
      expect(tftp["requests"]).toBe(0);
      expect(scripts).toEqual({ chain: 1, boot: 1 });
    });

    test("a machine without a run goes on to its disk: BIOS", async () => {
      using folder = temporaryFolder();
      await using lab = await makeLab({}, await makeBootFolder(folder));
      await using _machine = startMachine(lab, [...card("e1000"), ...disk(lab, bootSector())]);
      await serialSays(lab, new RegExp(diskWords));
      await lab.boot.program.said(asked);
    });

    test("a machine without a run goes on to its disk: UEFI, by its own PXE", async () => {
      using folder = temporaryFolder();
      const bootFolder = await makeBootFolder(folder);
      await using lab = await makeLab({}, bootFolder);
      const words = [...card("virtio-net-pci", "romfile="), ...firmware(lab)];
      const second = disk(lab, await efiDisk(bootFolder));
      await using _machine = startMachine(lab, [...words, ...second]);
      await serialSays(lab, new RegExp(`BOOTED with .*${diskWords}`));
      await lab.boot.program.said(asked);
    });
  });
});
