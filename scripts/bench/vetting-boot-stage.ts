/**
 * Runs in a network namespace of the bench, as a program: serves a folder by hostler and by dnsmasq
 * in turn, and has clients in another namespace fetch from it.
 *
 *   vetting-boot-stage.ts FOLDER ROUNDS
 *
 * Prints one line of JSON: BootRow[].
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { createLogger } from "../../src/logging/logger.ts";
import { BootService } from "../../src/network-boot/boot-service.ts";
import { runCommand } from "../command.ts";
import { repositoryRoot } from "../setup.ts";
import { runScript } from "../terminal.ts";
import type { BootRow } from "./vetting-boot.ts";

const serverAddress = "10.99.0.1";
const files = `http://${serverAddress}:8067`;

/** By name; the file, and the words of a client that fetches it. */
const clients: Readonly<Record<string, { file: string; words: (local: string) => string[] }>> = {
  "curl, TFTP with blocks of 512": {
    file: "vmlinuz",
    words: (local) => ["curl", "-s", "-f", "-o", local, `tftp://${serverAddress}/vmlinuz`],
  },
  "busybox, TFTP with blocks of 1468": {
    file: "vmlinuz",
    words: (local) => [
      ...["busybox", "tftp", "-b", "1468", "-g", "-r", "vmlinuz", "-l", local, serverAddress],
    ],
  },
  "atftp, 1468 with windows of 16": {
    file: "vmlinuz",
    words: (local) => [
      ...["atftp", "--option", "blksize 1468", "--option", "windowsize 16"],
      ...["-g", "-r", "vmlinuz", "-l", local, serverAddress],
    ],
  },
  "curl, HTTP": {
    file: "initramfs",
    words: (local) => ["curl", "-s", "-f", "-o", local, `${files}/initramfs`],
  },
};

async function main(): Promise<number> {
  const [folder = "", rounds = "1"] = process.argv.slice(2);
  const holder = Bun.spawn(["unshare", "--net", "sleep", "infinity"]);
  try {
    const enter = await makeWire(holder.pid);
    const rows = await measureHostler(folder, Number(rounds), enter);
    rows.push(...(await measureDnsmasq(folder, Number(rounds), enter)));
    console.log(JSON.stringify(rows));
    return 0;
  } finally {
    holder.kill("SIGKILL");
  }
}

/** @returns words that run a program at the other end */
async function makeWire(processId: number): Promise<readonly string[]> {
  const enter = ["nsenter", `--net=/proc/${processId}/ns/net`, "--"];
  const peer = ["peer", "name", "wire", "netns", String(processId)];
  await runCommand(["ip", "link", "add", "boot", "type", "veth", ...peer]);
  await runCommand(["ip", "address", "add", `${serverAddress}/24`, "dev", "boot"]);
  await runCommand(["ip", "link", "set", "boot", "up"]);
  await runCommand([...enter, "ip", "address", "add", "10.99.0.2/24", "dev", "wire"]);
  await runCommand([...enter, "ip", "link", "set", "wire", "up"]);
  return enter;
}

async function measureHostler(
  folder: string,
  rounds: number,
  enter: readonly string[],
): Promise<BootRow[]> {
  using loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
  using _service = await BootService.start({
    ...{ loop, interface: "boot", bootFolder: folder, ipxeFolder: "/usr/lib/ipxe" },
    logger: createLogger("boot", { level: "warn" }),
    decide: () => Promise.resolve({ kind: "disk", reason: "unknown" }),
  });
  return await measureAll("hostler", Object.keys(clients), { folder, rounds, enter });
}

async function measureDnsmasq(
  folder: string,
  rounds: number,
  enter: readonly string[],
): Promise<BootRow[]> {
  const server = Bun.spawn(
    [
      ...["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=boot"],
      ...["--bind-interfaces", "--user=root", "--enable-tftp", `--tftp-root=${folder}`],
    ],
    { stdout: "ignore", stderr: "pipe" },
  );
  try {
    // It says "TFTP root is …" when it serves.
    const reader = server.stderr.getReader();
    for (let said = ""; !said.includes("TFTP root"); ) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`dnsmasq does not start: ${said}`);
      said += new TextDecoder().decode(value);
    }
    const names = Object.keys(clients).filter((name) => !name.includes("HTTP"));
    return await measureAll("dnsmasq", names, { folder, rounds, enter });
  } finally {
    server.kill("SIGKILL");
  }
}

async function measureAll(
  server: BootRow["server"],
  names: readonly string[],
  how: { readonly folder: string; readonly rounds: number; readonly enter: readonly string[] },
): Promise<BootRow[]> {
  const rows: BootRow[] = [];
  for (const client of names) {
    const chosen = clients[client];
    if (chosen === undefined) continue;
    const bytes = statSync(join(how.folder, chosen.file)).size;
    const seconds: number[] = [];
    const local = join(how.folder, "fetched");
    for (let round = 0; round < how.rounds; round += 1) {
      const begin = performance.now();
      await runCommand([...how.enter, ...chosen.words(local)]);
      seconds.push((performance.now() - begin) / 1_000);
      if (statSync(local).size !== bytes) throw new Error(`${client} did not get all of it`);
    }
    rows.push({ server, client, bytes, seconds });
  }
  return rows;
}

if (import.meta.main) await runScript(main);
