/** What is found of a target, and whether it is loaded all the same. */
import { describe, expect, test } from "bun:test";
import { describeRefusal } from "../../src/live-update/commands/load.ts";
import { parseKernelImage } from "../../src/live-update/kernel-image.ts";
import {
  type HostPolicy,
  isSameBuild,
  judgeTarget,
  summarize,
  type Target,
  type TargetFinding,
} from "../../src/live-update/target-findings.ts";
import {
  effectiveCommandLine,
  kernelSwitch,
  parseKernelCommandLine,
  parseKernelConfiguration,
} from "../../src/units/linux-kernel.ts";
import {
  type BzImageOptions,
  liveUpdateOptions,
  makeArmImage,
  makeBzImage,
} from "../support/kernel-images.ts";

const running = "6.19.2 (user@host) (gcc 14, ld 2.44) #1 SMP Debian 6.19.2-1\n";
const host: HostPolicy = {
  architecture: "x64",
  version: running,
  lockdown: "none",
  isLoadDisabled: false,
  loadLimit: -1,
  signatures: "not checked",
};
const armHost: HostPolicy = { ...host, architecture: "arm64" };

function configured(changed: Readonly<Record<string, string>>): Partial<Target> {
  const options = new Map(Object.entries({ ...liveUpdateOptions, ...changed }));
  return { configuration: { kind: "known", options, source: "the kernel itself" } };
}

const unknown: Partial<Target> = {
  configuration: { kind: "unknown", reason: "the kernel does not carry it" },
};

/** A target that lacks nothing. */
const perfect: Target = {
  image: parseKernelImage(makeBzImage()),
  configuration: { kind: "unknown", reason: "replaced" },
  initrd: { kind: "none" },
  commandLine: "console=ttyS0 liveupdate=on kho=on",
  host,
  ...configured({}),
};

function image(options: BzImageOptions): Partial<Target> {
  return { image: parseKernelImage(makeBzImage(options)) };
}

function initrd(begin: Uint8Array | string, size = 4096): Partial<Target> {
  return { initrd: { kind: "read", size, begin: Buffer.from(begin as string) } };
}

function judge(changed: Partial<Target>): TargetFinding[] {
  return judgeTarget({ ...perfect, ...changed });
}

/** The findings that are not ok, each as "status", or "status, forced" where that helps. */
function trouble(changed: Partial<Target>): Record<string, string> {
  const lines = judge(changed).filter(({ status }) => status !== "ok");
  return Object.fromEntries(
    lines.map(({ check, status, force }) => [check, force ? `${status}, forced` : status]),
  );
}

function find(changed: Partial<Target>, check: string): TargetFinding {
  const found = judge(changed).find((candidate) => candidate.check === check);
  if (found === undefined) throw new Error(`No finding about ${check}`);
  return found;
}

describe("a target that lacks nothing", () => {
  test("is loaded, and nothing is to mend", () => {
    expect(trouble({})).toEqual({});
    expect(judge({}).every(({ mend }) => mend === null)).toBe(true);
    expect(summarize(judge({}))).toEqual({ loads: true, forceable: true });
    const checks = judge({}).map(({ check }) => check);
    expect(new Set(checks).size).toBe(checks.length);
  });

  test("an arm64 Image on arm64 as well", () => {
    expect(trouble({ image: parseKernelImage(makeArmImage()), host: armHost })).toEqual({});
  });
});

describe("what no force overrides", () => {
  const whole = makeBzImage();
  const fatal: [string, Partial<Target>][] = [
    ["format", { image: { kind: "none", found: "a text file" } }],
    ["format", { image: { kind: "gzip" } }],
    ["format", { image: { kind: "unreadable", reason: "ENOENT" } }],
    ["format", { image: { kind: "zboot", packing: "gzip" } }],
    ["complete", { image: parseKernelImage(whole.subarray(0, -16)) }],
    ["boot_protocol", image({ loadFlags: 0 })],
    ["64_bit", image({ moreLoadFlags: 2 })],
    ["above_4g", image({ moreLoadFlags: 1 })],
    ["initrd", { initrd: { kind: "unreadable", reason: "EACCES" } }],
    ["command_line_length", image({ commandLineSize: 34 })],
    ["command_line_length", { commandLine: "liveupdate=on kho=on \0 quiet" }],
    ["kexec_allowed", { host: { ...host, isLoadDisabled: true } }],
    ["kexec_allowed", { host: { ...host, loadLimit: 0 } }],
    ["signature", { host: { ...host, signatures: "required" } }],
  ];
  test.each(fatal)("%s, case %#", (check, changed) => {
    expect(trouble(changed)).toEqual({ [check]: "fatal" });
    expect(find(changed, check).mend).toBeString();
    expect(summarize(judge(changed))).toEqual({ loads: false, forceable: false });
  });

  test("a header from before the flags tells none of them", () => {
    const old = { ...image({ bootProtocol: 0x020b }) };
    expect(trouble(old)).toEqual({ boot_protocol: "fatal", "64_bit": "fatal", above_4g: "fatal" });
    expect(find(old, "boot_protocol").found).toBe("2.11");
  });

  test("the kernel of another architecture", () => {
    const arm = { image: parseKernelImage(makeArmImage()) };
    expect(trouble(arm)).toEqual({ format: "fatal" });
    expect(trouble({ host: armHost })).toEqual({ format: "fatal" });
    const ancient = parseKernelImage(makeArmImage({ memoryBytes: 0n }));
    expect(trouble({ image: ancient, host: armHost })).toEqual({ format: "fatal" });
  });

  test("an arm64 Image's command line has 2048 bytes", () => {
    const arm = { image: parseKernelImage(makeArmImage()), host: armHost };
    const line = (length: number) => "liveupdate=on kho=on ".padEnd(length, "x");
    expect(trouble({ ...arm, commandLine: line(2047) })).toEqual({});
    expect(trouble({ ...arm, commandLine: line(2048) })).toEqual({ command_line_length: "fatal" });
  });

  test("a byte decides, and letters of several bytes count as such", () => {
    const commandLine = "liveupdate=on kho=on ü";
    const limit = (commandLineSize: number) => ({ ...image({ commandLineSize }), commandLine });
    expect(trouble(limit(24))).toEqual({});
    expect(trouble(limit(23))).toEqual({ command_line_length: "fatal" });
  });
});

describe("what has to be forced", () => {
  const forced: [Record<string, string>, Partial<Target>][] = [
    [{ liveupdate_on: "fatal, forced" }, { commandLine: "kho=on" }],
    [{ kho_on: "fatal, forced" }, { commandLine: "liveupdate=on" }],
    [{ kho_on: "fatal, forced" }, { commandLine: "liveupdate=on kho=on kho=off" }],
    [{ configuration: "unknown, forced" }, unknown],
    [
      { configuration: "unknown, forced", kho_on: "unknown, forced" },
      { ...unknown, commandLine: "liveupdate=on" },
    ],
    [{ config_liveupdate: "fatal, forced" }, configured({ CONFIG_LIVEUPDATE: "n" })],
    [{ config_liveupdate: "fatal, forced" }, configured({ CONFIG_LIVEUPDATE: "m" })],
    [{ config_kexec_handover: "fatal, forced" }, configured({ CONFIG_KEXEC_HANDOVER: "n" })],
    [{ config_liveupdate_memfd: "fatal, forced" }, configured({ CONFIG_LIVEUPDATE_MEMFD: "n" })],
    [
      { version: "fatal, forced", configuration: "unknown, forced" },
      { ...image({ version: "6.18.1 (a@b) #1" }), ...unknown },
    ],
    [{ signature: "unknown, forced" }, { host: { ...host, lockdown: "integrity" } }],
    [{ format: "unknown, forced" }, { image: { kind: "zboot", packing: "gzip" }, host: armHost }],
  ];
  test.each(forced)("%j, case %#", (expected, changed) => {
    expect(trouble(changed)).toEqual(expected);
    expect(summarize(judge(changed))).toEqual({ loads: false, forceable: true });
  });

  test("an Image.gz, which the kernel does not unpack", () => {
    const inner = parseKernelImage(makeArmImage());
    if (inner.kind !== "Image") throw new Error("No Image");
    const packed = { image: { ...inner, isPacked: true }, host: armHost };
    expect(trouble(packed)).toEqual({ format: "unknown, forced" });
  });

  test("with something fatal besides, force does not help", () => {
    const changed = { ...image({ moreLoadFlags: 2 }), commandLine: "kho=on" };
    expect(summarize(judge(changed))).toEqual({ loads: false, forceable: false });
  });
});

describe("what only warns", () => {
  const warnings: [string, Partial<Target>][] = [
    ["initrd", initrd("", 0)],
    ["initrd", initrd("text")],
    ["initrd", initrd(Buffer.from("04224d18", "hex"))],
    ["initrd", initrd(Buffer.from("28b52ffd", "hex"))],
    ["config_kexec_file", configured({ CONFIG_KEXEC_FILE: "n" })],
    ["kexec_allowed", { host: { ...host, isLoadDisabled: undefined } }],
    ["complete", { image: parseKernelImage(makeArmImage({ hasEfiStub: false })), host: armHost }],
  ];
  test.each(warnings)("%s, case %#", (check, changed) => {
    expect(trouble(changed)).toEqual({ [check]: "warning, forced" });
    expect(summarize(judge(changed))).toEqual({ loads: true, forceable: true });
  });

  test("a file that names no version", () => {
    const { image: whole } = perfect;
    const nameless = { ...whole, version: undefined } as Target["image"];
    expect(trouble({ image: nameless })).toEqual({ version: "warning, forced" });
  });
});

describe("an initrd", () => {
  test.each(["070701 plain", "070702 plain", Buffer.from("1f8b08", "hex")])("case %#", (begin) => {
    expect(trouble(initrd(begin))).toEqual({});
  });

  test("is held against what the kernel unpacks", () => {
    const zstd = initrd(Buffer.from("28b52ffd", "hex"));
    expect(trouble({ ...zstd, ...configured({ CONFIG_RD_ZSTD: "y" }) })).toEqual({});
    expect(find(zstd, "initrd").mend).toContain("CONFIG_RD_ZSTD");
    expect(trouble({ ...zstd, ...unknown })).toEqual({ configuration: "unknown, forced" });
  });
});

describe("signatures", () => {
  const signed = image({ isSigned: true });
  test("a signed kernel is left to the kernel to judge", () => {
    const required = { ...host, signatures: "required", lockdown: "confidentiality" } as const;
    expect(trouble({ ...signed, host: required })).toEqual({});
    expect(trouble({ ...signed, host: { ...host, lockdown: "integrity" } })).toEqual({});
  });

  test("where nothing tells, none is asked for", () => {
    const silent = { ...host, signatures: undefined, lockdown: undefined };
    expect(trouble({ host: silent })).toEqual({});
    expect(find({ host: silent }, "signature").expected).toBe("not known to be asked for");
  });
});

describe("versions", () => {
  const found = (version: string, runs: string | undefined = running) =>
    find({ ...image({ version }), host: { ...host, version: runs } }, "version").found;

  test("are compared with the running kernel's", () => {
    expect(found("6.19.2 (user@host) #1 SMP Debian 6.19.2-1")).toBe(
      "6.19.2; the very kernel that runs",
    );
    expect(found("6.19.2 (user@host) #2 SMP Debian 6.19.2-1")).toBe(
      "6.19.2; another build than the one that runs",
    );
    expect(found("7.2.13 (a@b) #1")).toBe("7.2.13; 6.19.2 runs");
    expect(find({ host: { ...host, version: undefined } }, "version").found).toBe(
      "7.3.4; the running kernel does not tell its own",
    );
  });

  test("a bzImage says more behind its version, /proc/version does not", () => {
    const version = "6.19.2 (user@host) #1 SMP Debian 6.19.2-1, RO-rootFS, swap_dev 0X4";
    expect(isSameBuild(version, running)).toBe(true);
    expect(isSameBuild("6.19.2 (user@host)", running)).toBe(false);
  });

  test("an older one that has live update all the same is taken", () => {
    expect(trouble(image({ version: "6.12.0-el10 (a@b) #1" }))).toEqual({});
  });

  test("before 7.2 memfds need no option of their own", () => {
    const without = configured({ CONFIG_LIVEUPDATE_MEMFD: "n" });
    expect(trouble({ ...image({ version: "7.1.9 (a@b) #1" }), ...without })).toEqual({});
  });
});

describe("the switches on the command line", () => {
  const byDefault = configured({ CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT: "y" });
  test("kho may be on by default, and off all the same", () => {
    expect(trouble({ ...byDefault, commandLine: "liveupdate=on" })).toEqual({});
    expect(trouble({ ...byDefault, commandLine: "liveupdate=on kho=off" })).toEqual({
      kho_on: "fatal, forced",
    });
  });

  test("a command line that is built in counts", () => {
    const builtIn = configured({ CONFIG_CMDLINE_BOOL: "y", CONFIG_CMDLINE: '"kho=on"' });
    expect(trouble({ ...builtIn, commandLine: "liveupdate=on" })).toEqual({});
    const instead = configured({
      CONFIG_CMDLINE_BOOL: "y",
      CONFIG_CMDLINE: '"quiet"',
      CONFIG_CMDLINE_OVERRIDE: "y",
    });
    expect(Object.keys(trouble(instead))).toEqual(["liveupdate_on", "kho_on"]);
  });

  test("what is found says why", () => {
    const lost = { commandLine: "kho=on -- liveupdate=on" };
    expect(find(lost, "liveupdate_on")).toMatchObject({
      status: "fatal",
      found: 'not there; what stands behind "--" is PID 1\'s',
      mend: 'Move liveupdate=on in front of "--".',
    });
    expect(find({ commandLine: "kho=on liveupdate" }, "liveupdate_on").found).toBe(
      "liveupdate, which the kernel does not understand",
    );
  });
});

describe("a command line is read as the kernel reads it", () => {
  const read = (text: string) =>
    parseKernelCommandLine(text).map(({ name, value }) => [name, value]);

  test("words, quotes, and their end", () => {
    expect(read("  a=1\tb  c= ")).toEqual([
      ["a", "1"],
      ["b", undefined],
      ["c", ""],
    ]);
    expect(read('a="x y" "b=x y" "c d" e=x" "y')).toEqual([
      ["a", "x y"],
      ["b", "x y"],
      ["c d", undefined],
      ["e", 'x" "y'],
    ]);
    expect(read('a="x y b=2')).toEqual([["a", "x y b=2"]]);
    expect(read("=a=b")).toEqual([["=a", "b"]]);
    expect(read("a -- b")).toEqual([["a", undefined]]);
    expect(read("a --=x b")).toHaveLength(3);
    expect(read("a=ü")).toEqual([["a", "ü"]]);
    expect(read("")).toEqual([]);
  });

  test("the last word that it understands wins", () => {
    const setting = (text: string) => kernelSwitch(parseKernelCommandLine(text), "kho");
    expect(setting("kho=on")).toBe(true);
    expect(setting("kho=off kho=1")).toBe(true);
    expect(setting("kho=on kho=0")).toBe(false);
    expect(setting("kho=on kho=maybe kho")).toBe(true);
    expect(setting("kho=o")).toBeUndefined();
    expect(setting("khoo=on -- kho=on")).toBeUndefined();
    expect(setting('"kho=on"')).toBe(true);
    expect(setting('root="x kho=on"')).toBeUndefined();
    expect(["y", "Yes", "t", "T", "ON"].map((value) => setting(`kho=${value}`))).toEqual(
      Array(5).fill(true),
    );
    expect(["n", "No", "f", "F", "OFF"].map((value) => setting(`kho=${value}`))).toEqual(
      Array(5).fill(false),
    );
  });

  test("arm64 takes what is built in where nothing is given, or by force", () => {
    const arm = parseKernelConfiguration('CONFIG_CMDLINE="a=\\"b c\\""\n# CONFIG_X is not set\n');
    expect(effectiveCommandLine(arm, "")).toBe('a="b c"');
    expect(effectiveCommandLine(arm, "quiet")).toBe("quiet");
    const force = new Map([...arm, ["CONFIG_CMDLINE_FORCE", "y"]]);
    expect(effectiveCommandLine(force, "quiet")).toBe('a="b c"');
  });
});

describe("luoctl says what hinders, and whether --force helps", () => {
  const refusal = (changed: Partial<Target>, wasForced = false) => {
    const findings = judge(changed).map(({ force, ...rest }) => ({ ...rest, forceable: force }));
    return describeRefusal({ findings }, wasForced);
  };

  test("what is unknown hinders as well", () => {
    expect(refusal({ ...unknown, commandLine: "liveupdate=on" })).toBe(
      "The kernel is not loaded: kho_on, configuration. --force loads it in spite of that.",
    );
  });

  test("force is not offered where it does not help, and what it overrides is left out", () => {
    const changed = { ...image({ moreLoadFlags: 2 }), ...unknown };
    expect(refusal(changed)).toBe("The kernel is not loaded: 64_bit, configuration.");
    expect(refusal(changed, true)).toBe("The kernel is not loaded: 64_bit.");
  });
});
