/** Makes the one library that a release for musl needs and Debian has no package of. */
import { join } from "node:path";
import { repositoryRoot } from "../binary.ts";
import { runProgram } from "../program.ts";
import { type Feature, file } from "../skips.ts";

const gccFolder = "/usr/lib/gcc/x86_64-linux-gnu/12";

/** What has to be installed. */
export const muslFeatures: readonly Feature[] = [
  file("/lib/ld-musl-x86_64.so.1", "musl"),
  file("/usr/bin/musl-gcc", "musl-tools"),
  file(join(gccFolder, "libstdc++_pic.a"), "libstdc++-12-pic"),
];

/**
 * Links, from Debian's libstdc++_pic.a, a libstdc++.so.6 against musl with just what the binary
 * asks for; the whole of it would ask for more of glibc.
 * @param binary the release that will be run with it
 * @param folder where libstdc++.so.6 is made; name it in LD_LIBRARY_PATH
 */
export async function makeMuslLibrary(binary: string, folder: string): Promise<void> {
  const wanted = await symbolsFromLibrary(binary);
  const linked = await runProgram([
    "musl-gcc",
    "-shared",
    "-fPIC",
    "-nostartfiles",
    "-nostdlib",
    `-o${join(folder, "libstdc++.so.6")}`,
    "-Wl,-soname,libstdc++.so.6",
    join(repositoryRoot, "test/support/musl/libstdc++-shim.c"),
    ...wanted.map((symbol) => `-Wl,-u,${symbol}`),
    "-L/usr/lib/x86_64-linux-musl",
    join(gccFolder, "libstdc++_pic.a"),
    join(gccFolder, "libgcc_eh.a"),
    join(gccFolder, "libgcc.a"),
    "-lc",
  ]);
  if (linked.exitCode !== 0) throw new Error(`Cannot link libstdc++ for musl:\n${linked.stderr}`);
}

/** C++ symbols that the binary leaves undefined, or copies out of the library: virtual tables. */
async function symbolsFromLibrary(binary: string): Promise<string[]> {
  const { stdout } = await runProgram(["nm", "--dynamic", "--without-symbol-versions", binary]);
  const undefinedOnes = /^ +U (_ZS\w+|_ZNK?St\w+|__cxa_\w+|__dynamic_cast|__once_proxy)$/gm;
  const copied = /^[0-9a-f]+ [BDVR] (_ZTVN10__cxxabiv1\w+)$/gm;
  return [...stdout.matchAll(undefinedOnes), ...stdout.matchAll(copied)].flatMap(
    ([, symbol]) => symbol ?? [],
  );
}
