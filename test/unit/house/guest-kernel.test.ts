/** What is wished of the kernel of the test guests, and how a ready-made one is held to it. */
import { describe, expect, test } from "bun:test";
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

test("a file that is no kernel is refused", () => {
  using folder = temporaryFolder();
  expect(() => readSufficientKernel(folder.file("none"))).toThrow("is not a kernel");
});
