import * as v from "valibot";
import {
  below,
  type ImageFile,
  nixStore,
  plainName,
  type WantedFile,
} from "../image/image-file.ts";
import { formatPath, type Mistake, type Path, type Report } from "../toml/configuration-reader.ts";
import { doubledKeys } from "../toml/json-keys.ts";
import type { TomlNode, TomlTable } from "../toml/toml-tree.ts";
import type { Bytes } from "../units/units.ts";
import { receivedBy, wantedBy } from "../units/wanted-by.ts";
import { type DeclaredCheck, healthCheckSchema } from "./health-configuration.ts";
import {
  ignoredKeys,
  type OwnTable,
  readVmConfig,
  type VmConfigTable,
  vmConfigLimits,
} from "./vm-config-schema.ts";
import { nodeOfJson } from "./vm-config-tree.ts";

/**
 * vm-config.json: what a machine is made of, in cloud-hypervisor's older shape, which the seed
 * has (`kernel.path`, `cmdline.args`, `initramfs.path`), or in today's (`payload`), with keys of
 * our own under `hostler`. Pure.
 */

/** A machine as its image describes it; names of files are those in the image. */
export interface MachineImage {
  readonly processors: number;
  /** The most that it may be given while it runs. */
  readonly mostProcessors: number;
  readonly memory: {
    readonly size: Bytes;
    readonly isShared: boolean;
    /** Of this size; "default" is the host's. */
    readonly hugePages: Bytes | "default" | undefined;
  };
  readonly boot: ImageBoot;
  readonly disks: readonly ImageDisk[];
  readonly networks: readonly ImageNetwork[];
  readonly serial: ConsoleMode;
  readonly console: ConsoleMode;
  readonly cloudInit: CloudInit | undefined;
  /** Where the machine's declaration has none of its own. */
  readonly healthChecks: readonly DeclaredCheck[];
}

export type ConsoleMode = "Off" | "Pty" | "Tty" | "File" | "Socket" | "Null";

export type ImageBoot =
  | {
      readonly kind: "kernel";
      readonly kernel: ImageFile;
      readonly initramfs: ImageFile | undefined;
      readonly commandLine: string;
    }
  /** "host" is the firmware that the host has for stock images. */
  | { readonly kind: "firmware"; readonly code: ImageFile | "host" };

export type ImageDisk =
  | {
      readonly kind: "image";
      /** A word of [a-z0-9-], unique in the machine. */
      readonly id: string;
      readonly file: ImageFile;
      readonly readOnly: boolean;
      /** As the image says; undefined where its first bytes tell. */
      readonly format: "raw" | "qcow2" | undefined;
      /** How large the machine sees it; undefined: as large as it is. */
      readonly size: Bytes | undefined;
    }
  /** Empty at each boot. */
  | { readonly kind: "ephemeral"; readonly id: string; readonly size: Bytes };

/** What an image wishes of a network; the worker has the last word. */
export interface ImageNetwork {
  readonly id: string;
  /** "52:54:00:…", lower case. */
  readonly macAddress: string | undefined;
  readonly address: string | undefined;
  readonly mask: string | undefined;
  readonly tap: string | undefined;
}

/** The files of a NoCloud seed. */
export interface CloudInit {
  readonly userData: string;
  /** undefined: the worker makes one with the machine's name. */
  readonly metaData: string | undefined;
  readonly networkConfig: string | undefined;
}

export interface VmConfigRefusal {
  /** "disks[0].path". */
  readonly key: string;
  readonly expected: string;
  readonly received: string;
  readonly mend?: string;
}

/** What is allowed, and does not do what it says here. */
export interface VmConfigWarning {
  readonly key: string;
  readonly message: string;
}

export type VmConfigOutcome =
  | {
      readonly kind: "ok";
      readonly machine: MachineImage;
      readonly warnings: readonly VmConfigWarning[];
    }
  | { readonly kind: "refused"; readonly errors: readonly VmConfigRefusal[] };

export interface VmConfigPlace {
  /** The image's folder, as it was given: absolute paths below it are files of the image. */
  readonly folder: string;
  /** Whose rules it is held against; undefined where that is not known yet. */
  readonly hypervisor: "cloud-hypervisor" | "qemu" | undefined;
  /** For tests. */
  readonly nixStore?: string;
}

/** Validates a whole text; all its mistakes are reported at once. */
export function parseVmConfig(text: string, place: VmConfigPlace): VmConfigOutcome {
  const mistakes: Mistake[] = [];
  const report = (mistake: Mistake) => void mistakes.push(mistake);
  const root = rootOf(text, report);
  if (root === undefined) return refuse(mistakes);
  const read = readVmConfig(root, [], report) ?? {};
  const reader = new MachineReader(root, place, report);
  const machine = reader.read(read);
  if (mistakes.length > 0 || machine === undefined) return refuse(mistakes);
  return { kind: "ok", machine, warnings: warningsOf(root, machine, place) };
}

/** The files of a machine, each with the key that names it. */
export function wantedFiles({ boot, disks }: MachineImage): WantedFile[] {
  const wanted: WantedFile[] = [];
  if (boot.kind === "kernel") {
    wanted.push({ key: "kernel", file: boot.kernel });
    if (boot.initramfs !== undefined) wanted.push({ key: "initramfs", file: boot.initramfs });
  } else if (boot.code !== "host") wanted.push({ key: "firmware", file: boot.code });
  // The image's disks stand first, in the order of vm-config.json.
  for (const [index, disk] of disks.entries()) {
    if (disk.kind === "image") wanted.push({ key: `disks[${index}].path`, file: disk.file });
  }
  return wanted;
}

/** Letters of what is told of a value. */
const LONGEST_RECEIVED = 200;
const nowhere = { line: 0, column: 0 };

function rootOf(text: string, report: Report): TomlTable | undefined {
  const refuseWhole = (expected: string, received: string) => {
    report({ at: nowhere, path: [], expected, received });
    return undefined;
  };
  const bytes = new TextEncoder().encode(text).length;
  const { textBytes } = vmConfigLimits;
  if (bytes > textBytes) return refuseWhole(`at most ${textBytes} bytes`, `${bytes} bytes`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return refuseWhole("JSON", (error as Error).message);
  }
  const doubled = doubledKeys(text);
  for (const mistake of doubled) report(mistake);
  if (doubled.length > 0) return undefined;
  const node = nodeOfJson(json);
  if (node === undefined) return refuseWhole("tables and arrays at most 32 deep", "deeper ones");
  return node.kind === "table" ? node : refuseWhole("an object", "another value");
}

function refuse(mistakes: readonly Mistake[]): VmConfigOutcome {
  const errors = mistakes
    .slice(0, vmConfigLimits.mistakes)
    .map(({ path, expected, received, mend }) => ({
      key: formatPath(path),
      expected,
      received,
      ...(mend !== undefined && { mend }),
    }));
  return { kind: "refused", errors };
}

/** From what each key says to a machine. */
class MachineReader {
  readonly #root: TomlTable;
  readonly #place: VmConfigPlace;
  readonly #report: Report;

  constructor(root: TomlTable, place: VmConfigPlace, report: Report) {
    this.#root = root;
    this.#place = place;
    this.#report = report;
  }

  read(read: VmConfigTable): MachineImage | undefined {
    const { cpus, memory, hostler = {} } = read;
    const processors = cpus?.boot_vcpus ?? 1;
    const mostProcessors = cpus?.max_vcpus ?? processors;
    if (mostProcessors < processors) {
      this.#complain(
        ["cpus", "max_vcpus"],
        `at least boot_vcpus, ${processors}`,
        `${mostProcessors}`,
      );
    }
    const boot = this.#boot(read);
    const disks = this.#disks(read, hostler);
    this.#checkIds("disks", disks);
    const networks = this.#networks(read);
    this.#checkIds("net", networks);
    const healthChecks = this.#healthChecks(hostler);
    if (boot === undefined || memory?.size === undefined) return undefined;
    const { shared, hugepages, hugepage_size } = memory;
    const hugePages = hugepages === true ? (hugepage_size ?? "default") : undefined;
    return {
      processors,
      mostProcessors,
      memory: { size: memory.size, isShared: shared ?? false, hugePages },
      boot,
      disks,
      networks,
      serial: read.serial?.mode ?? "Null",
      console: read.console?.mode ?? "Off",
      cloudInit: cloudInitOf(hostler),
      healthChecks,
    };
  }

  #healthChecks({ health_checks = [] }: OwnTable): DeclaredCheck[] {
    return health_checks.flatMap((found, index) => {
      const outcome = v.safeParse(healthCheckSchema, found);
      if (outcome.success) return outcome.output;
      for (const issue of outcome.issues) {
        const keys = (issue.path ?? []).map(({ key }) => String(key));
        const path = ["hostler", "health_checks", index, ...keys];
        this.#complain(path, wantedBy(issue), receivedBy(issue, LONGEST_RECEIVED));
      }
      return [];
    });
  }

  #boot(read: VmConfigTable): ImageBoot | undefined {
    const { payload, hostler } = read;
    const kernel = this.#oneOf(read, "kernel", payload?.kernel, read.kernel?.path);
    const initramfs = this.#oneOf(read, "initramfs", payload?.initramfs, read.initramfs?.path);
    const commandLine = this.#oneOf(read, "cmdline", payload?.cmdline, read.cmdline?.args);
    const firmware = payload?.firmware ?? hostler?.firmware;
    const ways = [kernel?.path, ["payload", "firmware"], ["hostler", "firmware"]].filter(
      (path): path is Path => path !== undefined && this.#has(path),
    );
    const [way] = ways;
    if (way === undefined || ways.length > 1) {
      const expected = 'one of payload.kernel, payload.firmware and hostler.firmware ("host")';
      this.#complain(["payload"], expected, ways.map(formatPath).join(", ") || "none");
      return undefined;
    }
    if (kernel === undefined) {
      for (const needless of [initramfs, commandLine]) {
        if (needless === undefined) continue;
        this.#complain(needless.path, "nothing, because firmware finds its own kernel", "a value");
      }
      if (firmware === undefined) return undefined;
      if (payload?.firmware === undefined) return { kind: "firmware", code: "host" };
      const code = this.#file(payload.firmware, ["payload", "firmware"]);
      return code === undefined ? undefined : { kind: "firmware", code };
    }
    const found = this.#file(kernel.value, kernel.path);
    const archive =
      initramfs === undefined ? undefined : this.#file(initramfs.value, initramfs.path);
    if (found === undefined) return undefined;
    const { value: line = "" } = commandLine ?? {};
    return { kind: "kernel", kernel: found, initramfs: archive, commandLine: line };
  }

  /** What the older and today's shape say in different places. */
  #oneOf(
    read: VmConfigTable,
    name: "kernel" | "initramfs" | "cmdline",
    today: string | undefined,
    older: string | undefined,
  ): { readonly path: Path; readonly value: string } | undefined {
    const paths: readonly Path[] = [
      ["payload", name],
      [name, name === "cmdline" ? "args" : "path"],
    ];
    if (this.#has(["payload", name]) && this.#has([name])) {
      const received = `both payload.${name} and ${name}`;
      this.#complain(
        [name],
        `payload.${name}, or the older ${formatPath(paths[1] ?? [])}`,
        received,
      );
    }
    const value = today ?? older;
    const path = (read.payload !== undefined && today !== undefined ? paths[0] : paths[1]) ?? [];
    return value === undefined ? undefined : { path, value };
  }

  #disks(read: VmConfigTable, hostler: OwnTable): ImageDisk[] {
    const sizes = hostler.disk_sizes ?? new Map<string, Bytes>();
    const disks = (read.disks ?? []).flatMap(({ path, id, readonly, image_type }, index) => {
      const file = path === undefined ? undefined : this.#file(path, ["disks", index, "path"]);
      if (file === undefined) return [];
      const name = id ?? `disk${index}`;
      const disk = {
        kind: "image",
        id: name,
        file,
        readOnly: readonly ?? false,
        format: image_type === undefined ? undefined : formats[image_type],
        size: sizes.get(name),
      } as const;
      if (disk.readOnly && disk.size !== undefined) {
        const expected = "disks that the machine may write to";
        this.#complain(["hostler", "disk_sizes", name], expected, "one that is read-only");
      }
      return [disk];
    });
    for (const name of sizes.keys()) {
      if (disks.some(({ id }) => id === name)) continue;
      const known = disks.map(({ id }) => id).join(", ") || "there is none";
      const expected = `the id of a disk (${known})`;
      this.#complain(["hostler", "disk_sizes", name], expected, JSON.stringify(name));
    }
    const ephemeral = (hostler.ephemeral_disks ?? []).flatMap(({ id, size }, index) => {
      if (size === undefined) return [];
      return [{ kind: "ephemeral", id: id ?? `ephemeral${index}`, size } as const];
    });
    return [...disks, ...ephemeral];
  }

  #networks(read: VmConfigTable): ImageNetwork[] {
    return (read.net ?? []).map(({ id, mac, ip, mask, tap }, index) => ({
      id: id ?? `net${index}`,
      macAddress: mac,
      address: ip,
      mask,
      tap,
    }));
  }

  #checkIds(key: string, items: readonly { readonly id: string }[]): void {
    const seen = new Set<string>();
    for (const { id } of items) {
      if (seen.has(id)) this.#complain([key], "ids that are different", `${id} twice`);
      seen.add(id);
    }
  }

  /** A path as the image has it; nothing of the machine is looked at. */
  #file(written: string, path: Path): ImageFile | undefined {
    const { folder } = this.#place;
    const packages = this.#place.nixStore ?? nixStore;
    const isInStore = below(packages, folder) !== undefined;
    const expected = isInStore
      ? `a path in the image, without "..", or in ${packages}`
      : 'a path in the image, without ".."';
    const within = written.startsWith("/") ? below(folder, written) : written;
    const parts = (within ?? written).split("/");
    const name = parts.includes("..") ? "" : (plainName(parts) ?? "");
    if (name !== "" && within !== undefined) return { kind: "inside", name };
    if (name !== "" && isInStore && below(packages, `/${name}`) !== undefined) {
      return { kind: "outside", path: `/${name}` };
    }
    this.#complain(path, expected, JSON.stringify(written.slice(0, 200)));
    return undefined;
  }

  #has(path: Path): boolean {
    let node: TomlNode | undefined = this.#root;
    for (const segment of path) {
      node = node?.kind === "table" ? node.entries.get(String(segment))?.node : undefined;
    }
    return node !== undefined;
  }

  #complain(path: Path, expected: string, received: string): void {
    this.#report({ at: nowhere, path, expected, received });
  }
}

const formats = { Raw: "raw", Qcow2: "qcow2" } as const;

function cloudInitOf({ cloud_init }: OwnTable): CloudInit | undefined {
  if (cloud_init === undefined) return undefined;
  const { user_data, meta_data, network_config } = cloud_init;
  return { userData: user_data ?? "", metaData: meta_data, networkConfig: network_config };
}

function warningsOf(
  root: TomlTable,
  machine: MachineImage,
  { hypervisor }: VmConfigPlace,
): VmConfigWarning[] {
  const warnings = ignoredKeys(root).map((path) => ({
    key: formatPath(path),
    message: "cloud-hypervisor has it; this worker does not act on it",
  }));
  const { boot, networks, memory } = machine;
  const isPciOff = boot.kind === "kernel" && /(^|\s)pci=off(\s|$)/.test(boot.commandLine);
  if (isPciOff && hypervisor !== "qemu") {
    warnings.push({
      key: "cmdline",
      message:
        "pci=off leaves the machine without disks and network on cloud-hypervisor, all of whose " +
        "devices are on PCI: take it out",
    });
  }
  for (const [index, { tap }] of networks.entries()) {
    if (tap === undefined) continue;
    warnings.push({ key: `net[${index}].tap`, message: "the worker names its TAPs itself" });
  }
  if (memory.hugePages !== undefined) {
    const message = "huge pages are not used: in ordinary memory a machine survives its VMM";
    warnings.push({ key: "memory.hugepages", message });
  }
  for (const key of ["serial", "console"] as const) {
    if (!["Pty", "File"].includes(machine[key])) continue;
    const message = `${machine[key]} is not made: hostler vm console shows the serial port`;
    warnings.push({ key: `${key}.mode`, message });
  }
  return warnings;
}
