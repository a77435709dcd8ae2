/**
 * Writes test/contract/layouts.json: what gcc says of every structure and number that ffi/ and
 * src/units/signals.ts know, for x86-64 and arm64. Run it after test/contract/layouts.c changed.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Architecture } from "../ffi/constants.ts";
import { runCommand } from "./command.ts";
import { ensureSystemPackages, repositoryRoot } from "./setup.ts";
import { runScript } from "./terminal.ts";

/** What one C compiler says; sizes and offsets in bytes. */
export interface CompiledLayouts {
  readonly structures: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly numbers: Readonly<Record<string, number>>;
  readonly errors: Readonly<Record<string, number>>;
  readonly signals: Readonly<Record<string, number>>;
}

/** How to compile for a target, and what runs the result here. */
export interface Toolchain {
  readonly compiler: readonly string[];
  readonly runner: readonly string[];
}

/** The compilers of Debian on x86-64. */
export const toolchains: Readonly<Record<Architecture | "musl", Toolchain>> = {
  x64: { compiler: ["gcc"], runner: [] },
  arm64: { compiler: ["aarch64-linux-gnu-gcc", "-static"], runner: ["qemu-aarch64-static"] },
  musl: {
    // musl-gcc leaves out the kernel's headers; after musl's own they do no harm.
    compiler: [
      "musl-gcc",
      "-static",
      "-idirafter/usr/include",
      "-idirafter/usr/include/x86_64-linux-gnu",
    ],
    runner: [],
  },
};

const source = join(repositoryRoot, "test/contract/layouts.c");
const result = join(repositoryRoot, "test/contract/layouts.json");

/** Compiles layouts.c and runs it. @throws ScriptError with the compiler's own words */
export async function compileLayouts(toolchain: Toolchain): Promise<CompiledLayouts> {
  const folder = mkdtempSync(join(tmpdir(), "hostler-layouts-"));
  try {
    const program = join(folder, "layouts");
    await runCommand([...toolchain.compiler, "-Wall", "-Wextra", "-o", program, source]);
    return JSON.parse(await runCommand([...toolchain.runner, program])) as CompiledLayouts;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main(): Promise<number> {
  await ensureSystemPackages(["layouts", "arm64"], "the layouts of both architectures");
  const layouts = {
    x64: await compileLayouts(toolchains.x64),
    arm64: await compileLayouts(toolchains.arm64),
  };
  const existed = existsSync(result);
  writeFileSync(result, `${JSON.stringify(layouts, null, 2)}\n`);
  console.log(`${existed ? "Wrote again" : "Wrote"} ${result}`);
  return 0;
}

if (import.meta.main) await runScript(main);
