/** The real live image in an emulated host: what it finds, and that it can be left. */
import { expect, test } from "bun:test";
import { copyFileSync } from "node:fs";
import { makeLiveImage } from "../../scripts/live-image.ts";
import { guestCards, guestSerials } from "../../src/vetting/prove/guest.ts";
import { hostler } from "../support/binary.ts";
import { guestFeatures } from "../support/machine.ts";
import { startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { file, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import {
  LaboratoryHost,
  laboratoryImage,
  laboratoryPatience,
} from "../support/vetting-laboratory.ts";

/** What a person would look at; each line begins with its name. */
const look = `
tell() { echo "SEEN $*" >/dev/console; }
until [ -e /run/live/network/eth0.address ] && [ -e /run/live/network/eth1.address ]; do
  usleep 200000
done
tell modules $(cut -d' ' -f1 /proc/modules | sort | tr '\\n' ' ')
tell nvme $(cat /sys/block/nvme0n1/device/serial)
tell sata $(tail -c +5 /sys/block/sda/device/vpd_pg80 | tr -d ' ')
tell cards $(cat /sys/class/net/eth*/address | sort | tr '\\n' ' ')
tell addresses $(ip -4 -o addr | grep -o '10[.][0-9./]*' | sort | tr '\\n' ' ')
tell way $(ip route get 10.0.2.2 | head -n 1)
tell speeds $(cat /sys/class/net/eth*/speed | sort -n | tr '\\n' ' ')
tell ipmi $(ls /dev/ipmi0)
tell pstore $(dmesg | grep -c 'Registered erst as persistent store')
tell system $(cat /sys/class/dmi/id/product_name) $(cat /sys/class/dmi/id/product_serial)
tell sensors $(cat /sys/class/hwmon/*/name | sort | tr '\\n' ' ')
tell machine-checks $(cat /sys/devices/system/machinecheck/machinecheck0/check_interval)
tell hostler $(hostler --version | head -n 1)
tell ssh $(nc 127.0.0.1 22 </dev/null | head -c 20 | tr -d '\\r\\n')
tell key $(cat /run/live/ssh-host-key.fingerprint)
tell memory $(awk '/MemAvailable/ { print $2 }' /proc/meminfo)
tell end
sync
poweroff -f
`;

skipUnless("the live image in a host", guestFeatures, () => {
  test(
    "it brings up disks, cards and the management controller, and switches the host off",
    async () => {
      const image = await laboratoryImage();
      await using host = new LaboratoryHost({
        image,
        scripts: { look },
        kernelWords: [`hostler.vetting.mac=${guestCards.first}`],
      });
      await host.boot();
      await host.said(/SEEN end/);
      const text = host.console;
      const begin = /live: (\d+) modules/.exec(text)?.[1];
      await host.switchedOff();
      const seen = (name: string) => new RegExp(`^SEEN ${name} (.*)$`, "m").exec(text)?.[1]?.trim();
      console.log(
        text
          .split("\n")
          .filter((line) => /^(live|SEEN)/.test(line))
          .join("\n"),
      );
      expect(Number(begin)).toBeGreaterThan(20);
      for (const name of [
        "nvme",
        "ahci",
        "sd_mod",
        "e1000e",
        "virtio_net",
        "ipmi_si",
        "drivetemp",
      ]) {
        expect(seen("modules")?.split(" ")).toContain(name);
      }
      expect(seen("nvme")).toBe(guestSerials.nvme);
      expect(seen("sata")).toBe(guestSerials.sata);
      expect(seen("cards")).toBe(`${guestCards.first} ${guestCards.second}`);
      expect(seen("addresses")).toBe("10.0.2.15/24 10.0.3.15/24");
      expect(seen("way")).toContain("src 10.0.2.15");
      expect(seen("speeds")).toBe("1000 10000");
      expect(seen("ipmi")).toBe("/dev/ipmi0");
      expect(seen("pstore")).toBe("1");
      expect(seen("system")).toBe("Prover 2U HL-0001");
      expect(seen("machine-checks")).toBe("1");
      expect(seen("hostler")).toMatch(/^hostler \d/);
      expect(seen("ssh")).toMatch(/^SSH-2\.0-dropbear/);
      expect(seen("key")).toMatch(/^SHA256:[A-Za-z0-9+/]{43}$/);
    },
    laboratoryPatience,
  );
});

onlyInAll(() => {
  const firmware = [
    ...guestFeatures,
    file("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    file("/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"),
  ];
  skipUnless("the live image on a disk", firmware, () => {
    test(
      "UEFI starts it, with the command line that it was made with",
      async () => {
        using folder = temporaryFolder();
        const image = await makeLiveImage({
          folder: folder.path,
          program: hostler(),
          disk: true,
          commandLine: "console=ttyS0 hostler.test=word hostler.live.shell",
          packing: "fast",
        });
        copyFileSync("/usr/share/OVMF/OVMF_VARS_4M.fd", folder.file("variables"));
        const flash = (path: string, options: string) => [
          "-drive",
          `if=pflash,format=raw,file=${path}${options}`,
        ];
        await using machine = startProgram([
          "qemu-system-x86_64",
          ...["-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-m", "2048"],
          ...["-smp", "2", "-nodefaults", "-no-user-config", "-display", "none"],
          ...["-serial", "stdio", "-no-reboot"],
          ...flash("/usr/share/OVMF/OVMF_CODE_4M.fd", ",readonly=on"),
          ...flash(folder.file("variables"), ""),
          ...["-drive", `file=${image.disk},format=raw,if=virtio,readonly=on`],
        ]);
        await machine.said(/Command line: console=ttyS0 hostler\.test=word/, laboratoryPatience);
        await machine.said(/live: \d+ modules, 0 network cards, 1 disks/, laboratoryPatience);
      },
      laboratoryPatience,
    );
  });
});
