/** What an orchestrator makes of a boot, and of what it was told of booting. */
import { describe, expect, test } from "bun:test";
import { UsageError } from "../../../src/command-line/usage-error.ts";
import { refuseParameters } from "../../../src/network-boot/protocol-script.ts";
import { type BootFlags, readBootFlags } from "../../../src/vetting/commands/orchestrator.ts";
import { decisionOf } from "../../../src/vetting/orchestrator/boot.ts";

const mac = "52:54:00:00:00:07";
const pin = "ab".repeat(32);
const told = {
  orchestrator: "https://10.0.0.1:7443",
  pins: [pin, pin],
  parameters: ["console=ttyS0,115200n8", "quiet"],
};

describe("a boot", () => {
  test("of a host with a run tells the agent all that it needs", () => {
    const token = `hostler-run-b-12-${"A-_9".repeat(11).slice(0, 43)}`;
    const decision = decisionOf(mac, { run: 12, token }, told);
    expect(decision).toEqual({
      kind: "run",
      parameters: [
        ["console", "ttyS0,115200n8"],
        ["quiet", undefined],
        ["hostler.vetting.orchestrator", "https://10.0.0.1:7443"],
        ["hostler.vetting.run", "12"],
        ["hostler.vetting.token", token],
        ["hostler.vetting.mac", mac],
        ["hostler.vetting.pin", `${pin},${pin}`],
      ],
    });
    expect(decision.kind === "run" && refuseParameters(decision)).toBeUndefined();
  });

  test.each([
    ["unknown", "unknown"],
    ["not-enrolled", "unknown"],
    ["no-run", "no-run"],
    ["no-window", "window-closed"],
    ["unavailable", "unavailable"],
  ] as const)("that is refused for %s goes to its disk", (reason, expected) => {
    const decision = decisionOf(mac, { reason, message: "" }, told);
    expect(decision).toEqual({ kind: "disk", reason: expected });
  });
});

describe("flags", () => {
  const flags: BootFlags = {
    "listen-boot": "eth1",
    "boot-dir": "/boot-dir",
    "ipxe-dir": "/usr/lib/ipxe",
    "boot-address": undefined,
    "boot-parameter": [],
  };
  const listens = { address: undefined, listen: [{ hostname: "10.0.0.1", port: 7_443 }] };
  const read = (change: Partial<BootFlags>, options = listens) => {
    try {
      return readBootFlags({ ...flags, ...change }, options);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      return error.message;
    }
  };

  test("nothing boots unless an interface is named", () => {
    expect(read({ "listen-boot": undefined })).toBeUndefined();
    expect(read({ "listen-boot": undefined, "boot-address": "10.0.0.1" })).toMatch(
      /Expected --listen-boot INTERFACE beside --boot-address/,
    );
    expect(read({})).toEqual({
      interface: "eth1",
      bootFolder: "/boot-dir",
      ipxeFolder: "/usr/lib/ipxe",
      address: undefined,
      parameters: [],
    });
  });

  test.each(["127.0.0.1", "::1", "0.0.0.0", "::", "localhost"])(
    "hosts are told an address that they reach, and not %s",
    (hostname) => {
      const listen = [{ hostname, port: 7_443 }];
      expect(read({}, { ...listens, listen })).toMatch(/Expected --address https:/);
      const address = "https://vetting.example:7443";
      expect(typeof read({}, { address, listen } as never)).toBe("object");
    },
  );

  test.each([
    [{ "listen-boot": "a b" }, /name of an interface/],
    [{ "listen-boot": "a-name-that-is-long" }, /name of an interface/],
    [{ "boot-parameter": ["a b"] }, /one plain word/],
    [{ "boot-parameter": ["hostler.vetting.token=x"] }, /no name of the orchestrator's own/],
    [{ "boot-parameter": Array.from({ length: 60 }, () => "a=b") }, /at most 59 times/],
  ])("%p is refused", (change, words) => {
    expect(read(change)).toMatch(words);
  });
});
