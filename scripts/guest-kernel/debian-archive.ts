/**
 * Fetches packages of any release of Debian with a configuration of apt of our own: the machine's
 * stays as it is, and neither root nor a Debian of that release is needed.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "../command.ts";
import { ScriptError } from "../terminal.ts";

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

export interface DebianArchive {
  /** @returns what apt-cache(8) says to these words */
  query(words: readonly string[]): Promise<string>;
  /**
   * Downloads packages, and nothing that they depend on, into a folder.
   * @param packages names, or NAME=VERSION
   * @returns the paths of the files, in no order
   */
  download(packages: readonly string[], folder: string): Promise<string[]>;
  /** As download, with all that the packages depend on. */
  downloadWhole(packages: readonly string[], folder: string): Promise<string[]>;
}

/**
 * Gets the list of one suite's packages, which apt has checked with Debian's keys.
 * @param folder where it lies; it may be removed when nothing more is fetched
 * @throws ScriptError (100) when /etc/apt names no mirror of Debian, (1) when apt fails
 */
export async function openDebianArchive(suite: string, folder: string): Promise<DebianArchive> {
  const mirror = findDebianMirror(readSourceLists("/etc/apt"));
  if (mirror === undefined) {
    throw new ScriptError(`There is no Debian mirror in /etc/apt to fetch ${suite} from.`, {
      exitCode: 100,
    });
  }
  const options = makeAptFolder(folder, `deb [signed-by=${keyring}] ${mirror} ${suite} main\n`);
  await runCommand(["apt-get", ...options, "--quiet", "update"]);
  const get = async (words: readonly string[], target: string) => {
    const argv = ["apt-get", ...options, "--quiet", "--yes", ...words];
    await runCommand(argv, { workingDirectory: target });
    const names = readdirSync(target).filter((name) => name.endsWith(".deb"));
    return names.map((name) => join(target, name));
  };
  return {
    query: (words) => runCommand(["apt-cache", ...options, ...words]),
    download: (packages, target) => get(["download", ...packages], target),
    downloadWhole: (packages, target) => {
      mkdirSync(join(target, "partial"), { recursive: true });
      // Nothing is installed, so no lock of the machine's own is needed.
      const words = [`-oDir::Cache::Archives=${target}`, "-oDebug::NoLocking=1"];
      const install = ["install", "--download-only", "--no-install-recommends", ...packages];
      return get([...words, ...install], target);
    },
  };
}

/** @returns the options that have apt use this folder alone */
function makeAptFolder(folder: string, sources: string): string[] {
  for (const name of ["lists/partial", "cache/archives/partial"]) {
    mkdirSync(join(folder, name), { recursive: true });
  }
  writeFileSync(join(folder, "status"), "");
  const list = join(folder, "sources.list");
  writeFileSync(list, sources);
  return [
    `-oDir::Etc::SourceList=${list}`,
    "-oDir::Etc::SourceParts=/dev/null",
    `-oDir::State::Lists=${join(folder, "lists")}`,
    // What this machine has installed must not decide what a guest needs.
    `-oDir::State::Status=${join(folder, "status")}`,
    `-oDir::Cache=${join(folder, "cache")}`,
    "-oAcquire::Languages=none",
    // Run by root, apt would fetch as a user who may not write here.
    "-oAPT::Sandbox::User=root",
  ];
}

function readSourceLists(folder: string): string[] {
  const parts = join(folder, "sources.list.d");
  const names = existsSync(parts) ? readdirSync(parts).toSorted() : [];
  return [join(folder, "sources.list"), ...names.map((name) => join(parts, name))]
    .filter((path) => /\.(list|sources)$/.test(path) && existsSync(path))
    .map((path) => readFileSync(path, "utf8"));
}

/**
 * @param texts of sources.list(5), in either format
 * @returns the address of the first archive of Debian itself, not of its security updates
 */
export function findDebianMirror(texts: readonly string[]): string | undefined {
  const lines = texts.flatMap((text) => text.split("\n"));
  const wanted = lines.filter((line) => /^\s*(deb\s|URIs:)/i.test(line));
  return wanted
    .flatMap((line) => line.split(/\s+/))
    .find((word) => /^[a-z+]+:.*\/debian\/?$/.test(word));
}
