/**
 * cloud-hypervisor's requests, written from its documentation (docs/api.md, vmm/src/api/openapi of
 * version 53) as far as the driver uses them. Stricter than the real one in one thing: a key that
 * is not here is refused, where cloud-hypervisor passes over it.
 */
import * as v from "valibot";

const text = v.string();
const path = v.pipe(v.string(), v.startsWith("/"));
const yes = v.optional(v.boolean());
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const consoleMode = v.picklist(["Off", "Pty", "Tty", "File", "Socket", "Null"]);

export const vmConfigSchema = v.strictObject({
  cpus: v.optional(
    v.strictObject({
      boot_vcpus: count,
      max_vcpus: count,
      kvm_hyperv: yes,
      nested: yes,
      max_phys_bits: v.optional(count),
    }),
  ),
  memory: v.optional(
    v.strictObject({
      size,
      mergeable: yes,
      shared: yes,
      hugepages: yes,
      hugepage_size: v.optional(size),
      prefault: yes,
      thp: yes,
    }),
  ),
  payload: v.strictObject({
    firmware: v.optional(path),
    kernel: v.optional(path),
    cmdline: v.optional(text),
    initramfs: v.optional(path),
  }),
  disks: v.optional(
    v.array(
      v.strictObject({
        path,
        readonly: yes,
        direct: yes,
        id: v.optional(text),
        serial: v.optional(text),
        backing_files: yes,
        sparse: yes,
        image_type: v.optional(v.picklist(["FixedVhd", "Qcow2", "Raw", "Vhdx", "Unknown"])),
      }),
    ),
  ),
  net: v.optional(
    v.array(
      v.strictObject({
        tap: v.optional(text),
        mac: v.optional(v.pipe(v.string(), v.regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i))),
        id: v.optional(text),
        mtu: v.optional(count),
        num_queues: v.optional(count),
        queue_size: v.optional(count),
      }),
    ),
  ),
  rng: v.optional(v.strictObject({ src: path, iommu: yes })),
  serial: v.optional(
    v.strictObject({ mode: consoleMode, file: v.optional(path), socket: v.optional(path) }),
  ),
  console: v.optional(
    v.strictObject({ mode: consoleMode, file: v.optional(path), socket: v.optional(path) }),
  ),
  vsock: v.optional(
    v.strictObject({ cid: v.pipe(v.number(), v.safeInteger(), v.minValue(3)), socket: path }),
  ),
  pvpanic: yes,
  watchdog: yes,
  landlock_enable: yes,
  landlock_rules: v.optional(v.array(v.strictObject({ path, access: text }))),
});
export type VmConfigBody = v.InferOutput<typeof vmConfigSchema>;

export const sendMigrationSchema = v.strictObject({
  destination_url: text,
  local: yes,
  downtime_ms: v.optional(count),
  timeout_s: v.optional(count),
  timeout_strategy: v.optional(v.picklist(["Cancel", "Ignore"])),
});

export const receiveMigrationSchema = v.strictObject({ receiver_url: text });

/** The names of the same in the published description. */
export const publishedNames = {
  vmConfig: "VmConfig",
  sendMigration: "SendMigrationData",
  receiveMigration: "ReceiveMigrationData",
} as const;
