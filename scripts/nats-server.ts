/**
 * NATS servers of several releases of Debian, for tests and the bench: fetched and unpacked, never
 * installed, because the package starts a service.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "./command.ts";
import { openDebianArchive } from "./guest-kernel/debian-archive.ts";
import { cacheFolder, repositoryRoot } from "./setup.ts";
import { withStep } from "./terminal.ts";

/** The oldest that hostler speaks to, the one before, and the newest. */
export const natsReleases = [
  { suite: "bookworm", version: "2.9" },
  { suite: "trixie", version: "2.10" },
  { suite: "sid", version: "2.15" },
] as const;

export type NatsRelease = (typeof natsReleases)[number];

const folderName = ({ suite }: NatsRelease) => `nats-server-${suite}`;
const program = "usr/sbin/nats-server";

/** @returns the program, when it was fetched */
export function findNatsServer(release: NatsRelease): string | undefined {
  const folder = join(repositoryRoot, ".cache", folderName(release));
  return existsSync(join(folder, "complete")) ? join(folder, "tree", program) : undefined;
}

/**
 * Fetched once into .cache/, by anybody; delete the folder there to fetch a newer one.
 * @throws ScriptError (100) without a mirror of Debian, (1) when apt fails
 */
export async function fetchNatsServer(release: NatsRelease): Promise<string> {
  const found = findNatsServer(release);
  if (found !== undefined) return found;
  const folder = cacheFolder(folderName(release));
  await withStep(`nats-server of Debian ${release.suite}`, async () => {
    rmSync(folder, { recursive: true });
    const packages = join(folder, "packages");
    mkdirSync(packages, { recursive: true });
    const archive = await openDebianArchive(release.suite, join(folder, "apt"));
    const [file = ""] = await archive.download(["nats-server"], packages);
    await runCommand(["dpkg-deb", "-x", file, join(folder, "tree")]);
    await runCommand(["rm", "-r", "apt", "packages"], { workingDirectory: folder });
    writeFileSync(join(folder, "complete"), `${file}\n`);
  });
  return join(folder, "tree", program);
}

/** Fetches all that can be; says what cannot, and goes on. */
export async function fetchNatsServers(): Promise<void> {
  for (const release of natsReleases) {
    try {
      await fetchNatsServer(release);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      console.log(`No nats-server of Debian ${release.suite}, its tests are skipped: ${reason}`);
    }
  }
}
