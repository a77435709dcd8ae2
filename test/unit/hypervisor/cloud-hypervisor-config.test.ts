/** What cloud-hypervisor is told: goldens, refusals, and the schemas of its API. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { vmConfigOf } from "../../../src/hypervisor/cloud-hypervisor/config.ts";
import {
  cloudHypervisorDriver,
  makeCloudHypervisorDriver,
} from "../../../src/hypervisor/cloud-hypervisor/driver.ts";
import { MachineRefused, type MachineSpecification } from "../../../src/hypervisor/driver.ts";
import {
  publishedNames,
  receiveMigrationSchema,
  sendMigrationSchema,
  vmConfigSchema,
} from "../../support/cloud-hypervisor-schema.ts";
import { filesIn, testMachine } from "../../support/hypervisor/machines.ts";
import { validate } from "../../support/json-schema.ts";
import { feature, skipUnless } from "../../support/skips.ts";

const files = filesIn("/run/hostler/vm/first");
const program = {
  hypervisor: "cloud-hypervisor",
  path: "/usr/bin/cloud-hypervisor",
  version: "53.0",
} as const;

const machineOf = (changes: Partial<MachineSpecification> = {}): MachineSpecification =>
  testMachine({
    ...{ accelerator: "kvm", machineType: undefined, processorModel: undefined },
    ...changes,
  });

/** All that a machine can have. */
const full = machineOf({
  processors: 4,
  memory: 2 * 1024 ** 3,
  boot: {
    kind: "kernel",
    kernel: "/vm/first/kernel",
    initramfs: "/vm/first/initramfs",
    commandLine: "console=ttyS0 root=/dev/vda",
  },
  disks: [
    {
      id: "root",
      path: "/vm/first/root.qcow2",
      format: "qcow2",
      readOnly: false,
      backing: { path: "/vm/first/root.raw", format: "raw" },
    },
    { id: "seed", path: "/vm/first/seed.img", format: "raw", readOnly: true, backing: undefined },
  ],
  networks: [{ id: "net0", tap: "pcr-1", macAddress: "52:54:00:12:34:56" }],
  agent: { vsock: 7 },
});

const firmware = machineOf({
  boot: { kind: "firmware", code: "/usr/share/cloud-hypervisor/CLOUDHV.fd", variables: undefined },
});

const unconfined = { landlock: undefined };
const confined = { landlock: [{ path: "/vm/first/root.raw", access: "r" }] } as const;

describe("the configuration", () => {
  test("of a kernel, with all that a machine can have", () => {
    expect(vmConfigOf(full, files, unconfined)).toEqual({
      cpus: { boot_vcpus: 4, max_vcpus: 4 },
      memory: { size: 2_147_483_648, shared: true },
      payload: {
        kernel: "/vm/first/kernel",
        initramfs: "/vm/first/initramfs",
        cmdline: "console=ttyS0 root=/dev/vda",
      },
      disks: [
        {
          id: "root",
          path: "/vm/first/root.qcow2",
          readonly: false,
          image_type: "Qcow2",
          backing_files: true,
        },
        {
          id: "seed",
          path: "/vm/first/seed.img",
          readonly: true,
          image_type: "Raw",
          backing_files: false,
        },
      ],
      net: [{ id: "net0", tap: "pcr-1", mac: "52:54:00:12:34:56" }],
      rng: { src: "/dev/urandom" },
      serial: { mode: "Socket", socket: "/run/hostler/vm/first/console" },
      console: { mode: "Off" },
      vsock: { cid: 7, socket: "/run/hostler/vm/first/agent" },
      pvpanic: true,
    });
  });

  test("of a firmware, with nothing else", () => {
    expect(vmConfigOf(firmware, files, unconfined)).toEqual({
      cpus: { boot_vcpus: 1, max_vcpus: 1 },
      memory: { size: 67_108_864, shared: true },
      payload: { firmware: "/usr/share/cloud-hypervisor/CLOUDHV.fd" },
      rng: { src: "/dev/urandom" },
      serial: { mode: "Socket", socket: "/run/hostler/vm/first/console" },
      console: { mode: "Off" },
      pvpanic: true,
    });
  });

  test("of a confined VMM names its run folder, where a reboot makes the console anew", () => {
    expect(vmConfigOf(full, files, confined)).toMatchObject({
      landlock_enable: true,
      landlock_rules: [
        { path: "/run/hostler/vm/first", access: "rw" },
        { path: "/vm/first/root.raw", access: "r" },
      ],
    });
  });
});

describe("the plan", () => {
  test("of a VMM", () => {
    expect(cloudHypervisorDriver.plan(full, files, program, "new")).toEqual({
      program: "/usr/bin/cloud-hypervisor",
      arguments: [
        "--api-socket",
        "path=/run/hostler/vm/first/control",
        "--event-monitor",
        "path=/run/hostler/vm/first/events",
        "--seccomp",
        "true",
        "--no-shutdown",
      ],
      descriptors: [],
      pipes: ["/run/hostler/vm/first/events"],
      devices: ["/dev/kvm", "/dev/null", "/dev/urandom", "/dev/net/tun"],
    });
  });

  test("is the same for one that waits for a machine, and confines where it is asked", () => {
    const plan = cloudHypervisorDriver.plan(firmware, files, program, "new");
    expect(cloudHypervisorDriver.plan(firmware, files, program, "incoming")).toEqual(plan);
    expect(plan.devices).not.toContain("/dev/net/tun");
    const driver = makeCloudHypervisorDriver({ landlock: [] });
    expect(driver.plan(firmware, files, program, "new").arguments).toContain("--landlock");
  });

  test("a state is for the same build alone", () => {
    expect(cloudHypervisorDriver.boundToBuild(full)).toHaveLength(1);
  });
});

function refusalOf(changes: Partial<MachineSpecification>, place = files, version = "53.0") {
  try {
    cloudHypervisorDriver.plan(machineOf(changes), place, { ...program, version }, "new");
  } catch (error) {
    if (error instanceof MachineRefused) return error.finding;
    throw error;
  }
  throw new Error("Nothing was refused");
}

describe("what it cannot do is refused by key", () => {
  const disk = { id: "root", path: "/root.raw", format: "raw", readOnly: false } as const;
  const card = { id: "net0", tap: "tap0", macAddress: "52:54:00:00:00:01" };
  const code = "/CLOUDHV.fd";
  const refused: readonly (readonly [string, Partial<MachineSpecification>])[] = [
    ["accelerator", { accelerator: "tcg" }],
    ["machineType", { machineType: "pc-q35-7.2" }],
    ["processorModel", { processorModel: "qemu64-v1" }],
    ["processors", { processors: 0 }],
    ["processors", { processors: 255 }],
    ["processors", { processors: 1.5 }],
    ["boot.variables", { boot: { kind: "firmware", code, variables: "/vars.fd" } }],
    ["agent", { agent: "virtio-serial" }],
    ["agent.vsock", { agent: { vsock: 2 } }],
    ["agent.vsock", { agent: { vsock: 0xffff_ffff } }],
    ["disks.0.id", { disks: [{ ...disk, id: "__root", backing: undefined }] }],
    [
      "networks.0.id",
      {
        disks: [{ ...disk, backing: undefined }],
        networks: [{ ...card, id: "root" }],
      },
    ],
    ["disks.0.backing", { disks: [{ ...disk, backing: { path: "/base", format: "raw" } }] }],
  ];

  test.each(refused)("%s", (key, changes) => {
    const finding = refusalOf(changes);
    expect(finding.key).toBe(key);
    for (const word of [finding.expected, finding.received, finding.mend]) {
      expect(word).not.toBe("");
    }
  });

  test("a path that it would divide, and one that no socket can have", () => {
    expect(refusalOf({}, filesIn("/run/a,b")).key).toBe("files.control");
    // 107 bytes are a socket's; the migration's has five more than the control socket.
    const longest = `/${"x".repeat(107 - "//control.move".length)}`;
    expect(() =>
      cloudHypervisorDriver.plan(machineOf(), filesIn(longest), program, "new"),
    ).not.toThrow();
    const { key, expected } = refusalOf({}, filesIn(`${longest}x`));
    expect({ key, expected }).toEqual({
      key: "files.control",
      expected: "a path of at most 102 bytes",
    });
  });

  test("a version that ends with its guest", () => {
    expect(refusalOf({}, files, "51.1").key).toBe("hypervisor.version");
    expect(refusalOf({}, files, "unknown").key).toBe("hypervisor.version");
    for (const version of ["52.0", "v53.0.0-12-gabc"]) {
      cloudHypervisorDriver.plan(machineOf(), files, { ...program, version }, "new");
    }
  });
});

/** Each request that the driver makes. */
const requests = [
  ["a kernel", "vmConfig", vmConfigSchema, vmConfigOf(full, files, unconfined)],
  ["a firmware", "vmConfig", vmConfigSchema, vmConfigOf(firmware, files, unconfined)],
  ["a confined VMM", "vmConfig", vmConfigSchema, vmConfigOf(full, files, confined)],
  [
    "a capture",
    "sendMigration",
    sendMigrationSchema,
    { destination_url: "unix:/run/control.move", local: true },
  ],
  [
    "a restoration",
    "receiveMigration",
    receiveMigrationSchema,
    { receiver_url: "unix:/run/control.move" },
  ],
] as const;

describe("the schema of the fake", () => {
  test.each(requests)("takes what is sent for %s", (_what, _name, schema, body) => {
    const checked = v.safeParse(schema as v.GenericSchema, body);
    expect(checked.issues ?? []).toEqual([]);
  });

  test("would refuse a key that there is not", () => {
    const body = { ...vmConfigOf(full, files, unconfined), kernel: { path: "/vm/kernel" } };
    expect(v.safeParse(vmConfigSchema, body).success).toBe(false);
  });
});

const schemaPath = join(
  process.env["HOSTLER_SCHEMAS"] ?? "",
  "cloud-hypervisor/cloud-hypervisor.yaml",
);
const schemas = feature("no schemas (HOSTLER_SCHEMAS)", () => existsSync(schemaPath));

skipUnless("cloud-hypervisor's published API", schemas, () => {
  const published = closed(Bun.YAML.parse(readFileSync(schemaPath, "utf8"))) as Table;
  const described = ["openapi", "info", "servers", "paths", "components"];
  const ignored = [...described, "format", "deprecated"];
  const check = (name: keyof typeof publishedNames, body: unknown) =>
    validate(
      body,
      { ...published, $ref: `#/components/schemas/${publishedNames[name]}` },
      {
        ignored,
      },
    );

  test.each(requests)("takes what is sent for %s", (_what, name, _schema, body) => {
    expect(check(name, body)).toEqual([]);
  });

  test("would refuse a key that there is not, and a wrong kind", () => {
    const body = vmConfigOf(full, files, unconfined);
    expect(check("vmConfig", { ...body, kernel: {} })).toEqual(["/kernel: no such key"]);
    expect(check("vmConfig", { ...body, memory: { size: "64M" } })).toHaveLength(1);
    expect(check("vmConfig", { ...body, console: { mode: "Telnet" } })).toHaveLength(1);
  });
});

type Table = Readonly<Record<string, unknown>>;

/** The description with tables that have no other keys: the published one passes over those. */
function closed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(closed);
  if (typeof value !== "object" || value === null) return value;
  const table = Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, closed(inner)]),
  );
  const isSchema = table["type"] === "object" && "properties" in table;
  return isSchema ? { ...table, additionalProperties: false } : table;
}
