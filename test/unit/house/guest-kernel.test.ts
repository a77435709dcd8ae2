/** What is wished of the kernel of the test guests, and how a ready-made one is held to it. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { readFragment } from "../../../scripts/guest-kernel/build.ts";
import { parseFragment, unfulfilled } from "../../../scripts/guest-kernel/fragment.ts";
import { parseOptions } from "../../../scripts/guest-kernel/kernel-image.ts";
import { readSufficientKernel } from "../../../scripts/guest-kernel.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const text = `# A group.
CONFIG_LIVEUPDATE=y
CONFIG_NR_CPUS=8
# CONFIG_MODULES is not set

# ---- Choices of our own build: others may differ.
CONFIG_KERNEL_XZ=y
`;

describe("the fragment", () => {
  test("what stands below the mark is wished, and required of nobody else", () => {
    const { wishes, requirements } = parseFragment(text);
    expect(requirements).toEqual([
      { name: "CONFIG_LIVEUPDATE", value: "y" },
      { name: "CONFIG_NR_CPUS", value: "8" },
      { name: "CONFIG_MODULES", value: undefined },
    ]);
    expect(wishes).toEqual([...requirements, { name: "CONFIG_KERNEL_XZ", value: "y" }]);
  });

  test("what is missing, other than wished, or on in place of off is named", () => {
    const { wishes } = parseFragment(text);
    const missing = (options: string) => unfulfilled(wishes, parseOptions(options));
    const all = "CONFIG_LIVEUPDATE=y\nCONFIG_NR_CPUS=8\nCONFIG_KERNEL_XZ=y\n";
    expect(missing(all)).toEqual([]);
    expect(missing(all.replace("NR_CPUS=8", "NR_CPUS=2"))).toEqual(["CONFIG_NR_CPUS (it is 2)"]);
    expect(missing(all.replace("CONFIG_LIVEUPDATE=y", ""))).toEqual(["CONFIG_LIVEUPDATE"]);
    expect(missing(`${all}CONFIG_MODULES=y\n`)).toEqual(["CONFIG_MODULES (it is y)"]);
  });

  test("ours has each line once, asks for live update, and for nothing on both sides", () => {
    const { wishes, requirements } = parseFragment(readFragment());
    const names = wishes.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(requirements).toContainEqual({ name: "CONFIG_LIVEUPDATE_MEMFD", value: "y" });
    expect(requirements.length).toBeLessThan(wishes.length);
  });
});

/** As much of a bzImage as is read of one: its header, and a packed kernel with what is in it. */
function kernelWith(content: Uint8Array): Buffer {
  const [sectorBytes, setupSectors, versionPlace] = [512, 8, 0x300];
  const packed = Bun.gzipSync(new Uint8Array(content));
  const unpackedSize = 4;
  const image = Buffer.alloc((setupSectors + 1) * sectorBytes + packed.length + unpackedSize);
  image.writeUInt8(setupSectors, 0x1f1);
  image.write("HdrS", 0x202, "latin1");
  image.writeUInt16LE(versionPlace - sectorBytes, 0x20e);
  image.write("7.3.4-probe (somebody) #1\0", versionPlace, "latin1");
  image.writeUInt32LE(packed.length + unpackedSize, 0x24c);
  image.set(packed, (setupSectors + 1) * sectorBytes);
  return image;
}

/** CONFIG_IKCONFIG's place for the configuration, within a kernel. */
function embedded(configuration: string): Buffer {
  const packed = Bun.gzipSync(new TextEncoder().encode(configuration));
  const [begin, end] = ["IKCFG_ST", "IKCFG_ED"].map((mark) => Buffer.from(mark, "latin1"));
  return Buffer.concat([Buffer.alloc(99), begin ?? packed, packed, end ?? packed]);
}

describe("a ready-made kernel", () => {
  const sufficient = parseFragment(readFragment())
    .requirements.flatMap(({ name, value }) => (value === undefined ? [] : [`${name}=${value}`]))
    .join("\n");

  function read(image: Uint8Array) {
    using folder = temporaryFolder();
    writeFileSync(folder.file("kernel"), image);
    return readSufficientKernel(folder.file("kernel"));
  }

  test("is taken when it has all that the fragment requires", () => {
    const kernel = read(kernelWith(embedded(sufficient)));
    expect(kernel.release).toBe("7.3.4-probe");
    expect(kernel.options?.get("CONFIG_LIVEUPDATE")).toBe("y");
  });

  test("is refused with the names of what it lacks", () => {
    const lacking = sufficient.replace("CONFIG_LIVEUPDATE=y", "").replace("CONFIG_NF_TABLES=y", "");
    const image = kernelWith(embedded(lacking));
    expect(() => read(image)).toThrow(/CONFIG_LIVEUPDATE, CONFIG_NF_TABLES\. Without/);
  });

  test("is refused when it does not tell", () => {
    const image = kernelWith(Buffer.alloc(4096));
    expect(() => read(image)).toThrow("without CONFIG_IKCONFIG");
  });

  test("is refused when it is none", () => {
    expect(() => read(Buffer.from("text"))).toThrow("is not a kernel");
  });
});
