/** The words of the worker's control socket, and their limits. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { describeIssues } from "../../src/messaging/describe-issues.ts";
import {
  controlReplySchema,
  controlRequestSchema,
  errorKinds,
  errorSchema,
  helloSchema,
  limits,
  PROTOCOL_VERSION,
  refuseName,
  type VmSpec,
  vmSpecSchema,
  vmSummarySchema,
} from "../../src/vm/protocol.ts";
import { networkLimits } from "../../src/vm/protocol-network.ts";

const hash = `sha256-${"A".repeat(43)}=`;
const spec: VmSpec = { name: "web-1", imagePath: "/images/one", hash };

/** Why it is refused; undefined when it is not. */
function refusalOf(schema: v.GenericSchema, value: unknown): string | undefined {
  const result = v.safeParse(schema, value);
  return result.success ? undefined : describeIssues(result.issues);
}

const refuseSpec = (change: object) => refusalOf(vmSpecSchema, { ...spec, ...change });

describe("names", () => {
  test("are labels", () => {
    for (const name of ["a", "0", "web-1", "a--b", "x".repeat(limits.nameLength)]) {
      expect([name, refuseName(name)]).toEqual([name, undefined]);
    }
    const bad = ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "ä", "a b", "a\n", "a\0"];
    for (const name of bad) expect([name, refuseName(name)?.received]).not.toContain(undefined);
    expect(refuseName("x".repeat(limits.nameLength + 1))?.received).toBe("64 characters");
    expect(refuseName("A")?.received).toBe('"A"');
  });

  test("a request with another one says what is expected", () => {
    const request = { id: 1, verb: "boot", name: "Web" };
    expect(refusalOf(controlRequestSchema, request)).toContain("1 to 63 characters of a-z, 0-9");
  });
});

describe("a declaration", () => {
  test("is an image with its hash, or a kernel", () => {
    expect(refuseSpec({})).toBeUndefined();
    expect(refusalOf(vmSpecSchema, { name: "a", kernelPath: "/k" })).toBeUndefined();
    expect(refuseSpec({ hash: undefined })).toContain("imagePath and hash together");
    expect(refusalOf(vmSpecSchema, { name: "a" })).toContain("imagePath with hash, or kernelPath");
    expect(refuseSpec({ surprise: 1 })).toContain("surprise");
  });

  test("has limits", () => {
    const most = {
      cpu: limits.processors,
      memoryMb: limits.memoryMebibytes,
      cmdline: "x".repeat(limits.commandLineBytes),
      toplevel: `/${"x".repeat(limits.pathBytes - 1)}`,
      networkAllowedDomains: Array.from(
        { length: networkLimits.allowedDomains },
        (_value, index) => `d${index}.example`,
      ),
    };
    expect(refuseSpec(most)).toBeUndefined();
    const more: Record<string, unknown> = {
      cpu: limits.processors + 1,
      memoryMb: limits.memoryMebibytes + 1,
      cmdline: `ä${"x".repeat(limits.commandLineBytes - 1)}`,
      toplevel: `/${"x".repeat(limits.pathBytes)}`,
      networkAllowedDomains: [...most.networkAllowedDomains, "one.more"],
    };
    for (const [key, value] of Object.entries(more)) {
      expect([key, refuseSpec({ [key]: value })]).not.toEqual([key, undefined]);
    }
    for (const change of [{ cpu: 0 }, { cpu: 1.5 }, { memoryMb: 0 }, { toplevel: "x" }]) {
      expect(refuseSpec(change)).toBeDefined();
    }
    for (const bad of ["sha256-x", `sha512-${"A".repeat(43)}=`, "A".repeat(64)]) {
      expect(refuseSpec({ hash: bad })).toContain("sha256-");
    }
  });

  test("allows domains, and all below one", () => {
    const allow = (domain: string) => refuseSpec({ networkAllowedDomains: [domain] });
    for (const domain of ["debian.org", "*.debian.org", "localhost", "xn--a.example"]) {
      expect([domain, allow(domain)]).toEqual([domain, undefined]);
    }
    const bad = ["", "*", "a..b", "A.example", "a.example.", "*.*.a", "http://a", "a b"];
    for (const domain of [...bad, `${"a.".repeat(130)}a`]) expect(allow(domain)).toBeDefined();
  });
});

describe("requests", () => {
  const valid: readonly object[] = [
    { verb: "create", spec },
    { verb: "create", spec, wanted: "off" },
    { verb: "apply", desired: { generation: 2, machine: [{ ...spec, power: "paused" }] } },
    { verb: "diff", desired: { machine: [] } },
    ...["boot", "pause", "resume", "delete", "show", "console", "replace-vmm", "survivable"].map(
      (verb) => ({ verb, name: "a" }),
    ),
    { verb: "shutdown", name: "a", now: true, grace_ms: limits.longestGrace },
    ...["snapshot", "restore", "delete-snapshot"].map((verb) => ({
      ...{ verb, name: "a", snapshot: "before-upgrade" },
    })),
    { verb: "snapshots", name: "a" },
    { verb: "receive", name: "a", host: "192.0.2.7", port: 0 },
    { verb: "receive", name: "a", host: "2001:db8::7", port: 4001, time_ms: 60_000 },
    ...["cancel-receive", "claim", "forget-migrated"].map((verb) => ({ verb, name: "a" })),
    { verb: "migrate", name: "a", ticket: "{}" },
    ...["list", "status", "metrics", "events"].map((verb) => ({ verb })),
    { verb: "events", name: "a", after: 3, follow: true },
    { verb: "wait", name: "a", until: "running" },
    { verb: "exec", name: "a", argv: ["uname", "-r"] },
    { verb: "guest-ping", name: "a" },
  ];

  test("of every verb are understood", () => {
    const verbs = new Set(controlRequestSchema.options.map(({ entries }) => entries.verb.literal));
    for (const request of valid) {
      expect(refusalOf(controlRequestSchema, { id: 1, ...request })).toBeUndefined();
    }
    expect(new Set(valid.map((request) => Reflect.get(request, "verb")))).toEqual(verbs);
  });

  test("with anything more, less or else are refused", () => {
    for (const request of valid) {
      expect(refusalOf(controlRequestSchema, request)).toBeDefined();
      expect(refusalOf(controlRequestSchema, { id: -1, ...request })).toBeDefined();
      expect(refusalOf(controlRequestSchema, { id: 1, ...request, extra: 1 })).toBeDefined();
    }
    expect(refusalOf(controlRequestSchema, { id: 1, verb: "explode" })).toBeDefined();
    const grace = { id: 1, verb: "shutdown", name: "a", grace_ms: limits.longestGrace + 1 };
    expect(refusalOf(controlRequestSchema, grace)).toBeDefined();
    const receive = { id: 1, verb: "receive", name: "a", host: "192.0.2.7", port: 0 };
    for (const wrong of [{ host: "example.org" }, { port: 65_536 }, { time_ms: 86_400_001 }]) {
      expect(refusalOf(controlRequestSchema, { ...receive, ...wrong })).toBeDefined();
    }
    const snapshot = { id: 1, verb: "snapshot", name: "a", snapshot: "../escape" };
    expect(refusalOf(controlRequestSchema, snapshot)).toBeDefined();
  });

  test("another version is refused in the hello", () => {
    const hello = { kind: "hello", protocol: PROTOCOL_VERSION, role: "client", version: "1" };
    expect(refusalOf(helloSchema, hello)).toBeUndefined();
    expect(refusalOf(helloSchema, { ...hello, protocol: PROTOCOL_VERSION + 1 })).toBeDefined();
  });
});

describe("answers", () => {
  const summary = {
    ...{ name: "a", phase: "running", wanted: "running", reason: null, pid: 7 },
    ...{ invocation: "i1", address: "10.100.0.2", mac: "52:54:00:00:00:01", tap: "vt0" },
    ...{ cards: [], forwards: [] },
    ...{ hypervisor: "qemu", version: "7.2.22", accelerator: "tcg", processors: 1 },
    ...{ memory_bytes: 1, uptime_ms: 3, restarts: 0, image_hash: hash, progress: null },
    ...{ detached_ms: null, capture: null, health: null },
  };

  test("are summaries, items and errors of known kinds", () => {
    expect(refusalOf(vmSummarySchema, summary)).toBeUndefined();
    expect(refusalOf(vmSummarySchema, { ...summary, phase: "dancing" })).toBeDefined();
    expect(refusalOf(controlReplySchema, { id: 1, ok: [summary] })).toBeUndefined();
    for (const kind of errorKinds) {
      const error = { kind, message: "no", key: "cpu", expected: "1", received: "0" };
      expect(refusalOf(controlReplySchema, { id: 1, error })).toBeUndefined();
    }
    expect(refusalOf(errorSchema, { kind: "mood", message: "no" })).toBeDefined();
  });

  test("a list of as many machines as there may be fits one frame", () => {
    const longest = {
      ...summary,
      name: "x".repeat(limits.nameLength),
      reason: "ä".repeat(limits.textLength),
    };
    const list = Array.from({ length: limits.machines }, () => longest);
    const bytes = new TextEncoder().encode(JSON.stringify({ id: 1, ok: list })).length;
    expect(bytes).toBeLessThan(limits.frameBytes);
  });
});
