/** Which modules go into the live image, and what modprobe is told of them. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { KernelWithModules } from "../../../scripts/guest-kernel/debian-modules.ts";
import { moduleEntries, parseChoices } from "../../../scripts/live-image/modules.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

/** A kernel's folder with modules that say no more than this of themselves. */
function kernelWith(
  folder: string,
  modules: Readonly<Record<string, readonly string[]>>,
): KernelWithModules {
  for (const [place, facts] of Object.entries(modules)) {
    const path = join(folder, "kernel", `${place}.ko`);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `code\0${facts.join("\0")}\0more\0`);
  }
  writeFileSync(join(folder, "modules.builtin"), "kernel/lib/crc32.ko\nkernel/fs/pstore.ko\n");
  return { kernel: "", release: "6.1.0-test", modules: folder };
}

const disks = {
  "drivers/scsi/scsi_mod": ["depends=scsi-common"],
  "drivers/scsi/scsi_common": ["depends="],
  "drivers/scsi/sd_mod": ["depends=scsi_mod,t10-pi", "alias=scsi:t-0x00*"],
  "drivers/scsi/fcoe/fcoe": ["depends=scsi_mod"],
  "block/t10-pi": ["depends=scsi_common"],
  "net/dummy": ["depends=", "alias=one", "alias=two"],
} as const;

function chosen(list: string, modules: Readonly<Record<string, readonly string[]>> = disks) {
  using folder = temporaryFolder();
  const entries = moduleEntries(kernelWith(folder.path, modules), parseChoices(list));
  const text = (name: string) => {
    const entry = entries.find(({ path }) => path === `usr/lib/modules/6.1.0-test/${name}`);
    return entry?.kind === "file" ? new TextDecoder().decode(entry.content) : undefined;
  };
  const names = entries.map(({ path }) => path.replace("usr/lib/modules/6.1.0-test/", ""));
  return { text, modules: names.filter((name) => name.endsWith(".ko")) };
}

describe("the list of modules", () => {
  test("comments and empty lines say nothing", () => {
    expect(parseChoices("# a\n\nnvme # b\n-drivers/x/\n!msr\n")).toEqual([
      { kind: "take", what: "nvme" },
      { kind: "leave", what: "drivers/x/" },
      { kind: "load", what: "msr" },
    ]);
  });

  test("what one depends on comes along", () => {
    expect(chosen("sd_mod").modules).toEqual([
      "kernel/block/t10-pi.ko",
      "kernel/drivers/scsi/scsi_common.ko",
      "kernel/drivers/scsi/scsi_mod.ko",
      "kernel/drivers/scsi/sd_mod.ko",
    ]);
  });

  test("a folder is all that is in it, less what is left out", () => {
    expect(chosen("drivers/scsi/\n-drivers/scsi/fcoe/").modules).not.toContain(
      "kernel/drivers/scsi/fcoe/fcoe.ko",
    );
    expect(chosen("drivers/scsi/").modules).toContain("kernel/drivers/scsi/fcoe/fcoe.ko");
  });

  test("what two need stands behind both of them", () => {
    const line = chosen("sd_mod").text("modules.dep")?.split("\n").at(-2);
    const [, ...needed] = line?.split(" ") ?? [];
    expect(needed.at(-1)).toBe("kernel/drivers/scsi/scsi_common.ko");
    expect(new Set(needed).size).toBe(3);
  });

  test("every name by which hardware asks is told", () => {
    expect(chosen("dummy").text("modules.alias")).toBe("alias one dummy\nalias two dummy\n");
  });

  test("what is loaded at every boot is told by its name alone", () => {
    expect(chosen("!dummy\nsd_mod").text("load")).toBe("dummy\n");
  });

  test("what the kernel has built in is no mistake, what nobody has is one", () => {
    expect(chosen("crc32").modules).toEqual([]);
    expect(() => chosen("unheard_of")).toThrow("names unheard_of, which this kernel has not");
    expect(() => chosen("drivers/none/")).toThrow("names drivers/none/");
  });
});
