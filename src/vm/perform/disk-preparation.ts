import { chmodSync, existsSync, mkdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Disk } from "../../hypervisor/driver.ts";
import {
  type BaseDisk,
  createEphemeralDisk,
  createOverlay,
  createSeedDisk,
  createVariables,
  lookAtDisk,
} from "../../image/disks.ts";
import { ImageRefused } from "../../image/image-refused.ts";
import type { ImageRequest } from "../../image/image-request.ts";
import type { ImageStore } from "../../image/image-store.ts";
import type { StoredImage } from "../../image/stored-image.ts";
import type { MachineRecord } from "../machine-record.ts";
import { configurationOfFiles, singleFilesOf } from "../single-files.ts";
import {
  type CloudInit,
  type ImageDisk,
  type MachineImage,
  parseVmConfig,
  wantedFiles,
} from "../vm-config.ts";
import { debianFirmware } from "../worker-configuration.ts";
import { claimDisks } from "./disk-ownership.ts";
import type { MachineFolders } from "./machine-folders.ts";
import type { MachineParts, Preparation, PreparationProgress } from "./machine-tools.ts";

const SEED_NAME = "seed.iso";
const VARIABLES_NAME = "firmware-variables.fd";

/** A declaration that cannot be prepared: key, expected, received. */
export class DeclarationRefused extends Error {
  override readonly name = "DeclarationRefused";
}

interface Options {
  /** This host's firmware for machines without a kernel of their own; undefined: Debian's. */
  readonly firmware: string | undefined;
  /** What its variables are copied from; undefined: as Debian's is called beside the firmware. */
  readonly firmwareVariables: string | undefined;
  /** undefined while nobody can say which ones are: then all of them are. */
  readonly usedImages: () => ReadonlySet<string> | undefined;
}

/** Images from the store, and the disks of each machine in its own folder. */
export class DiskPreparation implements Preparation {
  readonly #images: ImageStore;
  readonly #folders: MachineFolders;
  readonly #options: Options;
  /** Images of machines that this worker prepared, by the machine's name. */
  readonly #held = new Map<string, StoredImage>();

  constructor(images: ImageStore, folders: MachineFolders, options: Options) {
    this.#images = images;
    this.#folders = folders;
    this.#options = options;
  }

  async prepare(
    record: MachineRecord,
    options: {
      readonly onProgress: (progress: PreparationProgress) => void;
      readonly signal: AbortSignal;
    },
  ): Promise<MachineParts> {
    const { spec } = record;
    const image = await this.#add(record, {
      onProgress: (done, of) => options.onProgress({ what: "verifying the image", done, of }),
      signal: options.signal,
    });
    // Held until the machine is gone: before its record is written nothing else says who uses it.
    this.#held.get(spec.name)?.[Symbol.dispose]();
    this.#held.set(spec.name, image);
    const machine = this.#parse(image.configuration(), image.record.source, record);
    await this.#makeDisks(record, image, machine);
    return this.#partsOf(record, image, machine);
  }

  async #add(record: MachineRecord, options: Pick<ImageRequest, "onProgress" | "signal">) {
    const { spec } = record;
    const { imagePath: source, hash } = spec;
    if (source === undefined || hash === undefined) {
      const files = singleFilesOf(spec);
      if (typeof files === "string") throw new DeclarationRefused(files);
      const configuration = configurationOfFiles(files);
      return await this.#images.addFiles({ ...options, files, configuration });
    }
    return await this.#images.add({
      ...options,
      source,
      expected: { kind: "nar", hash },
      wanted: (text) => wantedFiles(this.#parse(text, source, record)),
    });
  }

  /** Verifies an image that another host sent into a folder, and keeps it. @throws ImageRefused */
  async bring(record: MachineRecord, folder: string): Promise<StoredImage> {
    const { imagePath = folder, hash = "" } = record.spec;
    return await this.#images.add({
      source: folder,
      origin: imagePath,
      expected: { kind: "nar", hash },
      wanted: (text) => wantedFiles(this.#parse(text, imagePath, record)),
    });
  }

  describe(record: MachineRecord): MachineParts {
    const { image: key, spec } = record;
    using image = key === null ? undefined : this.#images.get(key);
    if (image === undefined) {
      throw new DeclarationRefused(
        `imagePath: expected an image that is in the store, received none of ${spec.name}. ` +
          "Delete the machine, and create it again.",
      );
    }
    const machine = this.#parse(image.configuration(), image.record.source, record);
    return this.#partsOf(record, image, machine);
  }

  async forget({ spec }: MachineRecord): Promise<void> {
    this.#held.get(spec.name)?.[Symbol.dispose]();
    this.#held.delete(spec.name);
    await this.removeUnused();
  }

  async removeUnused(): Promise<void> {
    const used = this.#options.usedImages();
    if (used !== undefined) await this.#images.removeUnused(used);
  }

  #parse(text: string, folder: string, record: MachineRecord): MachineImage {
    const hypervisor = record.choice?.hypervisor;
    const outcome = parseVmConfig(text, { folder, hypervisor });
    if (outcome.kind === "ok") return outcome.machine;
    const words = outcome.errors.map(({ key, expected, received, mend }) => {
      const where = key === "" ? "" : `${key}: `;
      const advice = mend === undefined ? "" : ` (${mend})`;
      return `${where}expected ${expected}, received ${received}${advice}`;
    });
    throw new DeclarationRefused(`vm-config.json of ${folder}: ${words.join("; ")}`);
  }

  async #makeDisks(
    record: MachineRecord,
    image: StoredImage,
    machine: MachineImage,
  ): Promise<void> {
    const { user } = record.allocation;
    const owner = { user, group: user };
    const folder = this.#folders.disksOf(record.spec.name);
    mkdirSync(folder, { recursive: true });
    chmodSync(folder, 0o711);
    const written = machine.disks.filter((disk) => disk.kind === "ephemeral" || !disk.readOnly);
    const paths = written.map((disk) => this.#pathOf(record, disk));
    using _locks = claimDisks(folder, paths, record.assigned?.owner_generation ?? 0);
    for (const disk of machine.disks) {
      const path = this.#pathOf(record, disk);
      // One that came with the machine's memory is what the guest has open.
      const isGiven = record.note.capture?.stage === "held" && existsSync(path);
      if (isGiven) continue;
      if (disk.kind === "ephemeral") await createEphemeralDisk(path, disk.size, owner);
      else if (!disk.readOnly && !existsSync(path)) {
        const base = baseOf(image, disk);
        await createOverlay(path, base, { virtualSize: disk.size, owner });
      }
    }
    const variables = this.#variablesOf(record, machine);
    if (variables !== undefined && !existsSync(variables.path)) {
      await createVariables(variables.path, variables.template, owner);
    }
    if (machine.cloudInit !== undefined) {
      const seed = seedOf(machine.cloudInit, record.spec.name);
      await createSeedDisk(join(folder, SEED_NAME), seed, { time: 0, owner });
    }
  }

  /** Of this host's firmware: what an image brings along has none that we know of. */
  #variablesOf(record: MachineRecord, { boot }: MachineImage) {
    if (boot.kind !== "firmware" || boot.code !== "host") return undefined;
    const { firmware = debianFirmware, firmwareVariables } = this.#options;
    const template = firmwareVariables ?? variablesBeside(firmware);
    const path = join(this.#folders.disksOf(record.spec.name), VARIABLES_NAME);
    return { path, template };
  }

  #pathOf(record: MachineRecord, disk: ImageDisk): string {
    const name = disk.kind === "ephemeral" ? `${disk.id}.raw` : `${disk.id}.qcow2`;
    return join(this.#folders.disksOf(record.spec.name), name);
  }

  #partsOf(record: MachineRecord, image: StoredImage, machine: MachineImage): MachineParts {
    const { spec } = record;
    const folder = this.#folders.disksOf(spec.name);
    const disks = machine.disks.map((disk) => this.#diskOf(record, image, disk));
    if (machine.cloudInit !== undefined) {
      const path = join(folder, SEED_NAME);
      disks.push({ id: "seed", path, format: "raw", readOnly: true, backing: undefined });
    }
    const outcome = parseVmConfig(image.configuration(), {
      folder: image.record.source,
      hypervisor: record.choice?.hypervisor,
    });
    const warnings = outcome.kind === "ok" ? outcome.warnings : [];
    return {
      boot: this.#bootOf(record, image, machine),
      disks,
      processors: spec.cpu ?? machine.processors,
      memory: spec.memoryMb === undefined ? machine.memory.size : spec.memoryMb * 1024 ** 2,
      image: image.key,
      healthChecks: machine.healthChecks,
      warnings: warnings.map(({ key, message }) => `${key}: ${message}`),
    };
  }

  #diskOf(record: MachineRecord, image: StoredImage, disk: ImageDisk): Disk {
    const { id } = disk;
    if (disk.kind === "ephemeral") {
      const path = this.#pathOf(record, disk);
      return { id, path, format: "raw", readOnly: false, backing: undefined };
    }
    const { path, format } = baseOf(image, disk);
    if (disk.readOnly) return { id, path, format, readOnly: true, backing: undefined };
    const overlay = this.#pathOf(record, disk);
    const backing = { path, format };
    return { id, path: overlay, format: "qcow2", readOnly: false, backing };
  }

  #bootOf(record: MachineRecord, image: StoredImage, machine: MachineImage): MachineParts["boot"] {
    const { boot } = machine;
    if (boot.kind === "firmware") {
      const code =
        boot.code === "host"
          ? (this.#options.firmware ?? debianFirmware)
          : image.locate(boot.code, "firmware");
      if (boot.code === "host" && !existsSync(code)) {
        throw new ImageRefused("use the image", image.record.source, {
          file: "hostler.firmware",
          expected: "firmware of this host",
          received: `nothing at ${code}`,
          mend: "Install it (Debian: ovmf), or name another as firmware in the configuration.",
        });
      }
      return { kind: "firmware", code, variables: this.#variablesOf(record, machine)?.path };
    }
    const { initramfs } = boot;
    return {
      kind: "kernel",
      kernel: image.locate(boot.kernel, "kernel"),
      initramfs: initramfs === undefined ? undefined : image.locate(initramfs, "initramfs"),
      commandLine: record.spec.cmdline ?? boot.commandLine,
    };
  }
}

/** "OVMF_CODE_4M.fd" has "OVMF_VARS_4M.fd". */
function variablesBeside(firmware: string): string {
  return join(dirname(firmware), basename(firmware).replace("CODE", "VARS"));
}

function baseOf(image: StoredImage, disk: Extract<ImageDisk, { kind: "image" }>): BaseDisk {
  const key = `disk ${disk.id}`;
  return lookAtDisk({ path: image.locate(disk.file, key), key }, disk.format);
}

function seedOf({ userData, metaData, networkConfig }: CloudInit, name: string) {
  return {
    userData,
    metaData: metaData ?? `instance-id: ${name}\nlocal-hostname: ${name}\n`,
    networkConfig,
  };
}
