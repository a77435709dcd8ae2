/** Scripts for iPXE: what stands in them, and that nothing of a client's can. */
import { describe, expect, test } from "bun:test";
import {
  LONGEST_COMMAND_LINE,
  LONGEST_SERIAL,
  MOST_PARAMETERS,
} from "../../../src/network-boot/limits.ts";
import {
  bootScript,
  chainScript,
  diskReasons,
  diskScript,
  readQuery,
  refuseParameters,
} from "../../../src/network-boot/protocol-script.ts";

const line = {
  base: "http://10.0.0.1:8067",
  kernel: "vmlinuz",
  initramfs: "initramfs",
  parameters: [
    ["console", "ttyS0,115200n8"],
    ["quiet", undefined],
    ["hostler.vetting.run", "12"],
    ["hostler.vetting.orchestrator", "https://[2001:db8::1]:7443"],
  ],
} as const;

test("a run is booted with its parameters", () => {
  expect(bootScript(line)).toBe(
    [
      "#!ipxe",
      "imgfree",
      "kernel http://10.0.0.1:8067/vmlinuz initrd=initramfs console=ttyS0,115200n8 quiet " +
        "hostler.vetting.run=12 hostler.vetting.orchestrator=https://[2001:db8::1]:7443",
      "initrd --name initramfs http://10.0.0.1:8067/initramfs",
      "boot",
      "",
    ].join("\n"),
  );
});

test("who sends nothing is told what to send", () => {
  expect(chainScript("http://10.0.0.1:8067/boot.ipxe")).toBe(
    "#!ipxe\nchain --replace http://10.0.0.1:8067/boot.ipxe" +
      "?mac=$\u007bnetX/mac}&serial=$\u007bserial:uristring}&uuid=$\u007buuid}\n",
  );
});

test("a machine goes on to its disk, with a sentence", () => {
  for (const reason of Object.keys(diskReasons) as (keyof typeof diskReasons)[]) {
    const [first, echo = "", ...rest] = diskScript(reason).split("\n");
    expect(first).toBe("#!ipxe");
    expect(echo).toMatch(/^echo hostler: [A-Z][A-Za-z ,]+\. Booting from its disk\.$/);
    expect(rest).toEqual(["iseq $\u007bplatform} efi && exit 1 ||", "exit 0", ""]);
  }
});

describe("what a script cannot hold", () => {
  test.each([
    "a b",
    "a\nb",
    "$\u007bmac}",
    "a;b",
    "a|b",
    "a&b",
    "#a",
    "",
    "\t",
    "a\\b",
    "a'b",
    'a"b',
    "é",
  ])("%j", (value) => {
    const parameters = [["name", value === "" ? "x y" : value]] as const;
    expect(refuseParameters({ parameters })).toBe(
      "expected name as one plain word without spaces or $",
    );
    expect(() => bootScript({ ...line, parameters })).toThrow(RangeError);
  });

  test("a wrong value is not told: it may be a token", () => {
    expect(refuseParameters({ parameters: [["token", "secret $"]] })).not.toContain("secret");
  });

  test("too many, and too long", () => {
    const many = Array.from({ length: MOST_PARAMETERS + 1 }, () => ["a", "b"] as const);
    expect(refuseParameters({ parameters: many })).toMatch(/at most 64 parameters, received 65/);
    expect(refuseParameters({ parameters: many.slice(1) })).toBeUndefined();
    const long = [["a", "b".repeat(LONGEST_COMMAND_LINE)]] as const;
    expect(refuseParameters({ parameters: long })).toMatch(/at most 2047 characters/);
  });
});

describe("what iPXE asks with", () => {
  test("all of it, and as little as there may be", () => {
    const uuid = "00112233-4455-6677-8899-aabbccddeeff";
    expect(readQuery(`?mac=52:54:00:AB:cd:07&serial=SN%201&uuid=${uuid.toUpperCase()}`)).toEqual({
      kind: "whole",
      query: { mac: "52:54:00:ab:cd:07", serial: "SN 1", uuid },
    });
    expect(readQuery("?mac=52-54-00-ab-cd-07&serial=&uuid=&other=1")).toEqual({
      kind: "whole",
      query: { mac: "52:54:00:ab:cd:07", serial: undefined, uuid: undefined },
    });
    for (const bare of ["", "?", "?serial=x"]) expect(readQuery(bare)).toEqual({ kind: "bare" });
  });

  test.each([
    ["?mac=", "mac as the address"],
    ["?mac=52:54:00:ab:cd", "mac as the address"],
    ["?mac=01:00:5e:00:00:01", "mac as the address"],
    ["?mac=ff:ff:ff:ff:ff:ff", "mac as the address"],
    ["?mac=52:54:00:00:00:07%0Aboot", "mac as the address"],
    ["?mac=$\u007bnet0/mac}", "mac as the address"],
    ["?mac=52:54:00:00:00:07&mac=52:54:00:00:00:08", "mac once"],
    ["?mac=52:54:00:00:00:07&serial=a%0Ab", "printable"],
    [`?mac=52:54:00:00:00:07&serial=${"a".repeat(LONGEST_SERIAL + 1)}`, "printable"],
    ["?mac=52:54:00:00:00:07&uuid=x", "hexadecimal digits"],
  ])("%s", (search, words) => {
    const told = readQuery(search);
    expect(told.kind).toBe("refused");
    expect(told.kind === "refused" && told.reason).toContain(words);
    // No word of the client's is in what it is told.
    expect(JSON.stringify(told)).not.toContain("net0");
  });
});
