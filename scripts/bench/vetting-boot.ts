/**
 * How fast boot files leave: hostler's TFTP and HTTP beside dnsmasq's TFTP, to the same clients
 * over a veth pair between two network namespaces.
 *
 *   bun scripts/bench/vetting-boot.ts [ROUNDS]
 *
 * Prints a table; as root, and with Debian's packages of the group "boot".
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bunExecutable, runCommand } from "../command.ts";
import { ensureSystemPackages, repositoryRoot } from "../setup.ts";
import { runScript, ScriptError } from "../terminal.ts";
import { quantile } from "./statistics.ts";
import { table } from "./tables.ts";

const MEBIBYTE = 1_024 ** 2;
const USUAL_ROUNDS = 5;

/** One client with one server: seconds of each round. */
export interface BootRow {
  readonly server: "hostler" | "dnsmasq";
  readonly client: string;
  readonly bytes: number;
  readonly seconds: readonly number[];
}

/** In network namespaces that are gone with the program in them. */
export async function measureBoot({ rounds }: { readonly rounds: number }): Promise<BootRow[]> {
  await ensureSystemPackages(["boot", "addresses"], "the bench of network boot");
  const folder = mkdtempSync(join(tmpdir(), "hostler-bench-boot-"));
  try {
    writeFileSync(join(folder, "vmlinuz"), new Uint8Array(8 * MEBIBYTE).fill(1));
    writeFileSync(join(folder, "initramfs"), new Uint8Array(64 * MEBIBYTE).fill(2));
    const stage = join(repositoryRoot, "scripts", "bench", "vetting-boot-stage.ts");
    const output = await runCommand([
      ...["unshare", "--net", bunExecutable, stage, folder, String(rounds)],
    ]);
    return JSON.parse(output.slice(output.indexOf("["))) as BootRow[];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function formatBoot(rows: readonly BootRow[]): string {
  return table(
    ["server", "client", "MiB", "MiB/s (median)", "of rounds"],
    rows.map(({ server, client, bytes, seconds }) => [
      server,
      client,
      String(bytes / MEBIBYTE),
      (bytes / MEBIBYTE / quantile(seconds, 0.5)).toFixed(1),
      String(seconds.length),
    ]),
  );
}

if (import.meta.main) {
  await runScript(async () => {
    const [text = String(USUAL_ROUNDS), ...more] = process.argv.slice(2);
    const rounds = Number(text);
    if (!Number.isInteger(rounds) || rounds < 1 || more.length > 0) {
      throw new ScriptError("Usage: bun scripts/bench/vetting-boot.ts [ROUNDS]", { exitCode: 100 });
    }
    console.log(formatBoot(await measureBoot({ rounds })));
    return 0;
  });
}
