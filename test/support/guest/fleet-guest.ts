/**
 * A device that is a whole machine: systemd, an installation with the units that it makes, and its
 * operator beside it, on disks that last. Its power goes by kill -9 of QEMU: what the guest has not
 * written to its disks by then is lost.
 */
import { spawnSync } from "node:child_process";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { type DiskContent, writeDisk } from "../../../scripts/guest/disk.ts";
import { machineWords } from "../../../scripts/guest/machine.ts";
import { findLiveUpdateKernel } from "../../../scripts/guest-kernel.ts";
import { type Program, startProgram } from "../program.ts";
import type { TemporaryFolder } from "../temporary-folder.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { waitFor } from "../wait-for.ts";
import { ownFile } from "./live-update-guest.ts";
import { startedAtBoot, systemdContent } from "./systemd-guest.ts";

/** A processor is emulated, and hashes a program in seconds. */
const patience = 480_000;
/** For five programs of 120 MB, one of which comes in pieces. */
const rootSpareMebibytes = 800;
const siteSpareMebibytes = 64;
const units = ["fleet-shell.service", "fleet-site.service", "fleet-operator.service"];

/** One boot: until somebody cuts the power. */
interface Boot {
  readonly machine: Program;
  readonly shell: Socket;
  heard: string;
}

export class FleetGuest implements AsyncDisposable {
  readonly #folder: TemporaryFolder = temporaryFolder();
  #boot: Boot | undefined;
  #boots = 0;

  /** @param site names in /site → folders of this machine */
  static async make(site: Readonly<Record<string, string>>): Promise<FleetGuest> {
    const guest = new FleetGuest();
    const content = await rootContent(guest.#folder.file("bundles"));
    writeDisk(guest.#root, content, rootSpareMebibytes);
    writeDisk(guest.#site, { trees: site }, siteSpareMebibytes);
    return guest;
  }

  get #root(): string {
    return this.#folder.file("root.disk");
  }

  get #site(): string {
    return this.#folder.file("site.disk");
  }

  get #running(): Boot {
    if (this.#boot === undefined) throw new Error("The guest has no power");
    return this.#boot;
  }

  /** Returns when its shell answers. */
  async boot(): Promise<void> {
    const kernel = findLiveUpdateKernel();
    if (kernel === undefined) throw new Error("There is no kernel for the guest");
    this.#boots += 1;
    const socket = this.#folder.file(`shell-${this.#boots}`);
    const disks = [this.#root, this.#site].map((path) => ({ path, writing: "kept" }) as const);
    const init = "/usr/lib/systemd/systemd";
    const words = machineWords({
      kernel,
      root: { disks, init },
      kernelWords: ["systemd.show_status=false"],
      memoryMebibytes: 2_048,
    });
    const machine = startProgram([...words, "-serial", `unix:${socket},server=on,wait=off`]);
    const shell = await waitFor("the guest's second serial port", () => connectTo(socket));
    const boot: Boot = { machine, shell, heard: "" };
    shell.on("data", (bytes) => {
      boot.heard += bytes.toString();
    });
    this.#boot = boot;
    await this.#until("its shell", () => boot.heard.includes("HOSTLER-SHELL"));
  }

  async #until<T>(what: string, probe: () => T | undefined | false): Promise<T> {
    const { machine } = this.#running;
    try {
      return await waitFor(what, probe, patience);
    } catch (error) {
      const last = machine.output.stdout.split("\n").slice(-80).join("\n");
      (error as Error).message += `\nthe guest's last words:\n${last}${machine.output.stderr}`;
      throw error;
    }
  }

  /** What services have said in this boot. */
  get console(): string {
    return this.#running.machine.output.stdout;
  }

  /** @param times how often it has to have been said in this boot */
  async said(pattern: RegExp, times = 1): Promise<void> {
    const all = new RegExp(pattern.source, "g");
    const enough = () => [...this.console.matchAll(all)].length >= times;
    await this.#until(`${pattern}, ${times} times`, enough);
  }

  /** What a command says. @throws Error when it does not end with 0 */
  async does(command: string): Promise<string> {
    const boot = this.#running;
    const begin = boot.heard.length;
    boot.shell.write(`${command}\n`);
    const ended = /^HOSTLER-ENDED (\d+)\r?$/m;
    const match = await this.#until(`the end of ${command}`, () => {
      return ended.exec(boot.heard.slice(begin)) ?? undefined;
    });
    const said = boot.heard.slice(begin, begin + match.index).replaceAll("\r", "");
    if (match[1] === "0") return said.trim();
    throw new Error(`${command} ended with ${match[1]}:\n${said}\n${this.console.slice(-6_000)}`);
  }

  /** At once: nothing in it hears of it. */
  async cutPower(): Promise<void> {
    const { machine, shell } = this.#running;
    machine.kill("SIGKILL");
    await machine.ended();
    shell.destroy();
    this.#boot = undefined;
  }

  /** While it has no power: turns over four bytes of a file, on the disk itself. */
  flip(path: string, at: number): void {
    if (this.#boot !== undefined) throw new Error("The guest has power");
    replayJournal(this.#root);
    const block = blockOf(this.#root, path, Math.floor(at / blockBytes));
    const file = openSync(this.#root, "r+");
    const place = block * blockBytes + (at % blockBytes);
    const bytes = Buffer.alloc(4);
    readSync(file, bytes, 0, bytes.length, place);
    writeSync(
      file,
      bytes.map((byte) => byte ^ 0xff),
      0,
      bytes.length,
      place,
    );
    closeSync(file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#boot !== undefined) await this.cutPower();
    this.#folder[Symbol.dispose]();
  }
}

async function rootContent(folder: string): Promise<DiskContent> {
  const content = await systemdContent(folder);
  const unitFiles = units.map((name) => [`/etc/systemd/system/${name}`, ownFile(name)]);
  return {
    ...content,
    folders: [...(content.folders ?? []), "site"],
    files: {
      ...content.files,
      ...Object.fromEntries(unitFiles),
      "/usr/lib/guest/fleet-shell": ownFile("fleet-shell"),
    },
    links: { ...content.links, ...Object.assign({}, ...units.map(startedAtBoot)) },
  };
}

function connectTo(path: string): Promise<Socket | undefined> {
  const { promise, resolve } = Promise.withResolvers<Socket | undefined>();
  const socket = connect(path, () => resolve(socket));
  socket.on("error", () => resolve(undefined));
  return promise;
}

/** As the guest's kernel does it when it mounts: until then debugfs sees what was before. */
function replayJournal(disk: string): void {
  const words = ["-E", "journal_only", "-y", disk];
  const { status, stdout, stderr } = spawnSync("/sbin/e2fsck", words, { encoding: "utf8" });
  // 1: the file system was changed, which is what was asked for.
  if (status !== 0 && status !== 1)
    throw new Error(`e2fsck ended with ${status}: ${stdout}${stderr}`);
}

const blockBytes = 4_096;

/** Which block of the file system has this one of the file: debugfs(8), bmap. */
function blockOf(disk: string, path: string, block: number): number {
  const { stdout, stderr } = spawnSync("/sbin/debugfs", ["-R", `bmap ${path} ${block}`, disk], {
    encoding: "utf8",
  });
  const found = Number(stdout.trim());
  if (Number.isInteger(found) && found > 0) return found;
  throw new Error(`debugfs finds no block ${block} of ${path}: ${stdout}${stderr}`);
}
