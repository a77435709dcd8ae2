/** What hinders a device of a fleet and its operator, over everything that may be found of them. */
import { describe, expect, test } from "bun:test";
import { judgeFleet, LEAST_STORE_BYTES, SOON } from "../../../src/doctor/fleet-judgement.ts";
import { type Advice, isFit } from "../../../src/doctor/judgement.ts";
import type {
  AgentFindings,
  FleetFindings,
  OperatorFindings,
} from "../../../src/fleet/perform/examination.ts";

const now = Date.parse("2026-06-01T12:00:00Z");
const build = { version: "1.4.0", digest: "ab".repeat(32) };
const unknown = { kind: "unknown", reason: "EACCES: permission denied" } as const;
const folder = "/opt/hostler";

const unit = {
  kind: "systemd",
  canRun: true,
  properties: {
    ...{ LoadState: "loaded", ActiveState: "active", UnitFileState: "enabled" },
    ...{ StatusText: "in a session with its operator", NeedDaemonReload: "no" },
    ...{ Restart: "always", WatchdogUSec: "30s" },
    ExecStart: `{ path=${folder}/current/hostler ; argv[]=${folder}/current/hostler fleet agent }`,
    ExecStartPre: `{ path=/bin/sh ; argv[]=/bin/sh -c p=${folder}/previous/hostler; fleet guard }`,
  },
} as const;

const metadata = {
  version: 3,
  issued: "2026-05-01T00:00:00Z",
  expires: "2026-08-01T00:00:00Z",
};

/** A device that lacks nothing. */
const device: AgentFindings = {
  layout: { kind: "made" },
  persistence: { kind: "lasting", mount: "ext4 at /" },
  current: { kind: "whole", build },
  previous: { kind: "whole", build: { ...build, version: "1.3.0" } },
  proven: `${folder}/versions/1.3.0-abababababab/hostler`,
  journal: { kind: "read", phase: "done", reason: null },
  room: { freeBytes: 10 * 1024 ** 3, programBytes: 120 * 1024 ** 2 },
  trust: { kind: "pinned", rootVersion: 1, metadata },
  service: unit,
  identity: {
    ...{ kind: "enrolled", host: "box", address: "https://fleet.example:7443" },
    ...{ time: now - 1_000, refusal: undefined },
  },
};

const operator: OperatorFindings = {
  stateDirectory: "/var/lib/hostler/authority",
  refusal: undefined,
  devices: 3,
  staleDevices: [],
  disk: { freeBytes: 5 * LEAST_STORE_BYTES, fullAfter: null },
  certificates: { kind: "read", serial: 4, isRotating: false },
  metadata: [{ source: "https://files.example/hostler", kind: "read", ...metadata }],
};

function judged(
  agent: Partial<AgentFindings> | undefined,
  more: Partial<OperatorFindings> | undefined = undefined,
): ReadonlyMap<string, Advice> {
  const findings: FleetFindings = {
    ...{ folder, identity: "/var/lib/hostler/identity", now },
    agent: agent && { ...device, ...agent },
    operator: more && { ...operator, ...more },
  };
  return new Map(judgeFleet(findings).map((line) => [line.check, line]));
}

const troubles = (advice: ReadonlyMap<string, Advice>) =>
  [...advice.values()].filter(({ status }) => status !== "ok").map(({ check }) => check);

describe("a device and an operator that lack nothing", () => {
  test("are fit, and nothing is to be mended", () => {
    const advice = judged({}, {});
    expect(troubles(advice)).toEqual([]);
    expect([...advice.values()].every(({ mend }) => mend === null)).toBe(true);
    expect([...advice.keys()]).toEqual([
      ...["fleet_installation", "fleet_persistence", "fleet_current", "fleet_previous"],
      ...["fleet_journal", "fleet_room", "fleet_trust", "fleet_unit", "fleet_guard"],
      ...["fleet_dead_mans_switch", "fleet_identity", "fleet_operator", "fleet_clock"],
      ...["operator_answers", "operator_store", "operator_stale_devices"],
      ...["operator_certificates", "operator_metadata"],
    ]);
  });

  test("one that was just enrolled has no past, and that is fine", () => {
    const advice = judged({
      previous: { kind: "absent" },
      journal: { kind: "absent" },
      trust: { kind: "pinned", rootVersion: 1, metadata: undefined },
    });
    expect(troubles(advice)).toEqual([]);
  });

  test("one below a supervisor needs no unit", () => {
    const service = { kind: "supervised", process: 7, silence: null } as const;
    const advice = judged({ service });
    expect(troubles(advice)).toEqual([]);
    expect(advice.get("fleet_unit")?.found).toBe("hostler fleet supervise, process 7");
    const silent = judged({ service: { ...service, silence: "process 7 does not listen" } });
    expect(silent.get("fleet_unit")).toMatchObject({ status: "warning" });
  });
});

test("a host with nothing of a fleet is told how it begins", () => {
  const advice = judged(undefined);
  expect([...advice.keys()]).toEqual(["fleet_installation"]);
  expect(advice.get("fleet_installation")).toMatchObject({ status: "missing" });
  expect(advice.get("fleet_installation")?.mend).toContain("hostler fleet enroll");
  expect(isFit([...advice.values()])).toBe(false);
});

const badUnit = (changed: Partial<Record<keyof typeof unit.properties, string>>) => ({
  service: { ...unit, properties: { ...unit.properties, ...changed } },
});

test.each<[string, Partial<AgentFindings>, string, Advice["status"], string, string]>([
  [
    "there is no installation",
    { layout: { kind: "none" } },
    "fleet_installation",
    "missing",
    "no installation in /opt/hostler",
    "hostler fleet install --root FILE",
  ],
  [
    "it may not be looked at",
    { layout: unknown },
    "fleet_installation",
    "missing",
    "EACCES",
    "Run as root",
  ],
  [
    "it lies in memory",
    { persistence: { kind: "volatile", mount: "tmpfs at /opt" } },
    "fleet_persistence",
    "warning",
    "gone with the next start",
    "Mount a volume",
  ],
  [
    "it lies on an image",
    { persistence: { kind: "immutable", mount: "squashfs at /" } },
    "fleet_persistence",
    "missing",
    "cannot be written",
    "Update the image",
  ],
  [
    "current is lost",
    { current: { kind: "absent" } },
    "fleet_current",
    "missing",
    "the link is not there",
    "/versions/1.3.0-abababababab/hostler fleet guard --folder",
  ],
  [
    "current is lost, and nothing was proven",
    { current: { kind: "absent" }, proven: undefined },
    "fleet_current",
    "missing",
    "not there",
    "hostler fleet install",
  ],
  [
    "current leads astray",
    { current: { kind: "astray", target: "/bin" } },
    "fleet_current",
    "missing",
    "/bin, which is no version",
    "fleet guard",
  ],
  [
    "previous is damaged",
    { previous: { kind: "damaged", name: "1.3.0-ab", why: "expected a" } },
    "fleet_previous",
    "warning",
    "1.3.0-ab: expected a",
    "no way back",
  ],
  [
    "the journal is damaged",
    { journal: { kind: "refused", reason: "no JSON" } },
    "fleet_journal",
    "warning",
    "no JSON",
    "sets it aside",
  ],
  [
    "the journal may not be read",
    { journal: unknown },
    "fleet_journal",
    "missing",
    "EACCES",
    "Run as root",
  ],
  [
    "there is no room",
    { room: { freeBytes: 1_000, programBytes: 100 * 1024 ** 2 } },
    "fleet_room",
    "warning",
    "free",
    "200 MiB",
  ],
  [
    "no root set is pinned",
    { trust: { kind: "none" } },
    "fleet_trust",
    "missing",
    "no root set",
    "--root FILE",
  ],
  ["trust is damaged", { trust: unknown }, "fleet_trust", "missing", "EACCES", "pinned again"],
  [
    "metadata is stale",
    {
      trust: {
        kind: "pinned",
        rootVersion: 1,
        metadata: { ...metadata, expires: "2026-05-31T00:00:00Z" },
      },
    },
    "fleet_trust",
    "warning",
    "is stale since 2026-05-31",
    "root metadata",
  ],
  [
    "metadata ends soon",
    {
      trust: {
        kind: "pinned",
        rootVersion: 1,
        metadata: { ...metadata, expires: new Date(now + SOON - 1).toISOString() },
      },
    },
    "fleet_trust",
    "warning",
    "for 13 days",
    "root metadata",
  ],
  [
    "nobody starts it",
    { service: { kind: "none" } },
    "fleet_unit",
    "missing",
    "neither systemd",
    "fleet supervise",
  ],
  [
    "there is no unit",
    badUnit({ LoadState: "not-found" }),
    "fleet_unit",
    "missing",
    "not-found",
    "fleet install",
  ],
  [
    "the unit failed",
    badUnit({ ActiveState: "failed" }),
    "fleet_unit",
    "missing",
    "failed",
    "journalctl",
  ],
  [
    "the unit is not enabled",
    badUnit({ UnitFileState: "disabled" }),
    "fleet_unit",
    "warning",
    "disabled",
    "systemctl enable",
  ],
  [
    "the unit's file has changed",
    badUnit({ NeedDaemonReload: "yes" }),
    "fleet_unit",
    "warning",
    "changed",
    "daemon-reload",
  ],
  [
    "the guard does not stand before it",
    badUnit({ ExecStartPre: "" }),
    "fleet_guard",
    "missing",
    "fleet guard",
    "--force",
  ],
  [
    "it does not follow current",
    badUnit({ ExecStart: "{ path=/usr/bin/hostler }" }),
    "fleet_guard",
    "missing",
    "through /opt/hostler/current",
    "--force",
  ],
  [
    "there is no watchdog",
    badUnit({ WatchdogUSec: "0" }),
    "fleet_dead_mans_switch",
    "warning",
    "WatchdogSec=",
    "--force",
  ],
  [
    "it is not started again",
    badUnit({ Restart: "no" }),
    "fleet_dead_mans_switch",
    "warning",
    "Restart=no",
    "--force",
  ],
  [
    "nothing ends a candidate",
    { service: { ...unit, canRun: false } },
    "fleet_dead_mans_switch",
    "missing",
    "systemd-run",
    "systemd-run",
  ],
  [
    "it is not enrolled",
    { identity: { kind: "none" } },
    "fleet_identity",
    "missing",
    "not enrolled",
    "fleet enroll",
  ],
  [
    "its identity may not be read",
    { identity: unknown },
    "fleet_identity",
    "missing",
    "EACCES",
    "root",
  ],
  [
    "its operator is away",
    { identity: { ...device.identity, refusal: "nobody answers" } as AgentFindings["identity"] },
    "fleet_operator",
    "warning",
    "nobody answers",
    "reached",
  ],
  [
    "its clock is behind its operator's",
    { identity: { ...device.identity, time: now + 3_600_000 } as AgentFindings["identity"] },
    "fleet_clock",
    "warning",
    "1 h 0 min behind",
    "time server",
  ],
  [
    "its clock is before its metadata",
    {
      trust: {
        kind: "pinned",
        rootVersion: 1,
        metadata: { ...metadata, issued: "2026-07-01T00:00:00Z" },
      },
    },
    "fleet_clock",
    "warning",
    "behind",
    "time server",
  ],
])("of a device where %s", (_, changed, check, status, found, mend) => {
  const line = judged(changed).get(check);
  expect(line).toMatchObject({ status });
  expect(line?.found).toContain(found);
  expect(line?.mend).toContain(mend);
});

test.each<[string, Partial<OperatorFindings>, string, Advice["status"], string, string]>([
  [
    "it does not answer",
    { refusal: "nobody listens" },
    "operator_answers",
    "missing",
    "nobody listens",
    "its log",
  ],
  [
    "there is little room",
    { disk: { freeBytes: LEAST_STORE_BYTES - 1, fullAfter: null } },
    "operator_store",
    "warning",
    "free",
    "--retain",
  ],
  [
    "its store is full soon",
    { disk: { freeBytes: 9 * LEAST_STORE_BYTES, fullAfter: 86_400_000 } },
    "operator_store",
    "warning",
    "full in",
    "--retain",
  ],
  [
    "devices have stale metadata",
    { staleDevices: ["a", "b", "c", "d", "e", "f", "g"] },
    "operator_stale_devices",
    "warning",
    "a, b, c, d, e and 2 more",
    "root metadata",
  ],
  [
    "a certificate is announced",
    { certificates: { kind: "read", serial: 4, isRotating: true } },
    "operator_certificates",
    "warning",
    "announced",
    "certificate finish",
  ],
  [
    "there are no certificates",
    { certificates: { kind: "none" } },
    "operator_certificates",
    "missing",
    "none in",
    "restore",
  ],
  [
    "certificates may not be read",
    { certificates: unknown },
    "operator_certificates",
    "missing",
    "EACCES",
    "root",
  ],
  [
    "what is published is stale",
    {
      metadata: [
        { source: "file:///srv", kind: "read", ...metadata, expires: "2026-05-31T00:00:00Z" },
      ],
    },
    "operator_metadata",
    "warning",
    "file:///srv: metadata 3 is stale",
    "root metadata",
  ],
  [
    "nothing is published",
    { metadata: [{ source: "file:///srv", ...unknown }] },
    "operator_metadata",
    "warning",
    "file:///srv: EACCES",
    "artifact push",
  ],
])("of an operator where %s", (_, changed, check, status, found, mend) => {
  const line = judged(undefined, changed).get(check);
  expect(line).toMatchObject({ status });
  expect(line?.found).toContain(found);
  expect(line?.mend).toContain(mend);
});

test("of an operator that does not answer nothing else is said of its store", () => {
  const advice = judged(undefined, { refusal: "nobody listens", metadata: [] });
  expect([...advice.keys()]).toEqual(["operator_answers", "operator_certificates"]);
});
