/** The compiled doctor, on this host and where files of the kernel's are others. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import type { Advice } from "../../src/doctor/judgement.ts";
import { hostler } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { feature, root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

interface Answer {
  readonly exitCode: number | null;
  readonly advice: ReadonlyMap<string, Advice>;
}

async function ask(before: readonly string[]): Promise<Answer> {
  const result = await runProgram([...before, hostler(), "doctor", "live-update", "--json"]);
  expect(result.stderr).toBe("");
  const advice = JSON.parse(result.stdout) as Advice[];
  return { exitCode: result.exitCode, advice: new Map(advice.map((line) => [line.check, line])) };
}

describe("hostler doctor live-update", () => {
  test("says for each cause what was found, and what mends it", async () => {
    const { exitCode, advice } = await ask([]);
    const isMissing = [...advice.values()].some(({ status }) => status === "missing");
    expect(exitCode).toBe(isMissing ? 111 : 0);
    expect(advice.size).toBe(15);
    for (const line of advice.values()) {
      expect(Object.keys(line)).toEqual(["check", "status", "found", "needed_by", "mend"]);
      expect(line.mend === null).toBe(line.status === "ok");
      expect(line.needed_by).toStartWith("live-update: ");
    }
  });

  test("gives people a table, and is a part of everything", async () => {
    const people = await runProgram([hostler(), "doctor", "live-update"]);
    expect(people.stdout).toStartWith("check ");
    expect(people.stdout).toContain(" what was asked for: live-update.");
    const everything = await runProgram([hostler(), "doctor", "--json"]);
    const checks = (JSON.parse(everything.stdout) as Advice[]).map(({ check }) => check);
    expect(checks).toContain("device_open");
    expect(checks).toContain("pidfd_open");
    expect(new Set(checks).size).toBe(checks.length);
  });
});

/** Devices that can be opened and closed without anything happening. */
const harmless = /^\s*(\d+) (fuse|tun|loop-control)$/m;
const harmlessMinor = Number(harmless.exec(readFileSync("/proc/misc", "utf8"))?.[1]);
const hasHarmless = feature("no fuse, tun or loop-control in /proc/misc", () => harmlessMinor > 0);

/**
 * A mount namespace in which the kernel seems to have the device, with what a test puts there.
 * $F is a folder of the test's; what stands in it is put in the place of the kernel's.
 */
const pretend = `
  set -e
  mount -t tmpfs none /dev
  for name in misc cmdline; do mount --bind "$F/$name" "/proc/$name"; done
  if test -e /proc/config.gz; then mount --bind "$F/config.gz" /proc/config.gz
  else mount -t tmpfs none /boot; gzip -dc "$F/config.gz" > "/boot/config-$(uname -r)"; fi
  eval "$MAKE"
  exec "$@"`;

interface Pretended {
  readonly misc?: string;
  readonly commandLine?: string;
  readonly options?: Readonly<Record<string, string>>;
  /** Shell commands that make /dev/liveupdate. */
  readonly make?: string;
}

async function askPretended(pretended: Pretended): Promise<Answer> {
  using folder = temporaryFolder();
  const options = { CONFIG_KEXEC_FILE: "y", CONFIG_LIVEUPDATE: "y", ...pretended.options };
  const lines = Object.entries(options).map(([name, value]) => `${name}=${value}\n`);
  writeFileSync(folder.file("misc"), pretended.misc ?? `${harmlessMinor} liveupdate\n`);
  writeFileSync(folder.file("cmdline"), pretended.commandLine ?? "quiet");
  writeFileSync(folder.file("config.gz"), Bun.gzipSync(Buffer.from(lines.join(""))));
  const make = pretended.make ?? `mknod -m 600 /dev/liveupdate c 10 ${harmlessMinor}`;
  const variables = [`F=${folder.path}`, `MAKE=${make}`];
  const unshare = ["unshare", "--mount", "env", ...variables, "sh", "-c", pretend, "sh"];
  return await ask(unshare);
}

skipUnless("hostler doctor live-update with a device", [root, hasHarmless], () => {
  test("opens it, and finds nothing missing of it", async () => {
    const { advice } = await askPretended({});
    expect(advice.get("device_open")).toMatchObject({
      status: "ok",
      found: "opened, and closed again",
    });
    expect(advice.get("device_node")).toMatchObject({
      status: "ok",
      found: `10:${harmlessMinor}, mode 0600, user 0`,
    });
    expect(advice.get("kernel_has_live_update")?.status).toBe("ok");
    expect(advice.get("liveupdate_on")?.status).toBe("ok");
  });

  test("exits with 0 on a host that lacks nothing else", async () => {
    const { exitCode, advice } = await askPretended({ options: { CONFIG_LIVEUPDATE_MEMFD: "y" } });
    const missing = [...advice.values()].filter(({ status }) => status === "missing");
    // Where the tests themselves run in a container, reboot(2) would not reach the kernel.
    expect(missing.filter(({ check }) => check !== "pid_namespace")).toEqual([]);
    expect(exitCode).toBe(missing.length === 0 ? 0 : 111);
  });

  test("warns when others may open it", async () => {
    const make = `mknod -m 666 /dev/liveupdate c 10 ${harmlessMinor}; chmod 666 /dev/liveupdate`;
    const { advice } = await askPretended({ make });
    expect(advice.get("device_node")).toMatchObject({ status: "warning" });
  });

  test("is not opened when it is another, or no device", async () => {
    const other = await askPretended({ make: "mknod -m 600 /dev/liveupdate c 1 3" });
    expect(other.advice.get("device_node")?.found).toContain("another device (1:3");
    expect(other.advice.get("device_open")?.found).toBe("not tried");
    const file = await askPretended({ make: "echo > /dev/liveupdate" });
    expect(file.advice.get("device_node")?.found).toBe("/dev/liveupdate is no device");
    expect(file.exitCode).toBe(111);
  });

  test("is told how to make it where it is not", async () => {
    const { exitCode, advice } = await askPretended({ make: "true" });
    expect(exitCode).toBe(111);
    expect(advice.get("device_node")?.mend).toContain(`c 10 ${harmlessMinor}`);
  });

  test("is refused what has no driver", async () => {
    const misc = "251 liveupdate\n";
    const { exitCode, advice } = await askPretended({
      misc,
      make: "mknod -m 600 /dev/liveupdate c 10 251",
    });
    expect(exitCode).toBe(111);
    expect(advice.get("device_open")?.found).toMatch(/^(ENODEV|ENXIO)$/);
  });
});

skipUnless("hostler doctor live-update without a device", root, () => {
  const misc = "229 fuse\n";
  const make = "true";

  test("names the configuration and the command line that it read", async () => {
    const { exitCode, advice } = await askPretended({
      misc,
      make,
      commandLine: "liveupdate=on kho=on liveupdate=0",
      options: { CONFIG_KEXEC_HANDOVER: "n", CONFIG_DEFERRED_STRUCT_PAGE_INIT: "y" },
    });
    expect(exitCode).toBe(111);
    expect(advice.get("config_kexec_file")?.status).toBe("ok");
    expect(advice.get("config_liveupdate")?.status).toBe("ok");
    expect(advice.get("config_kexec_handover")).toMatchObject({ status: "missing" });
    expect(advice.get("config_kexec_handover")?.mend).toContain("DEFERRED_STRUCT_PAGE_INIT");
    expect(advice.get("kho_on")?.status).toBe("ok");
    expect(advice.get("liveupdate_on")?.status).toBe("missing");
    expect(advice.get("device_node")?.found).toBe("the kernel has made no device");
  });

  test("a user without rights is told which he lacks", async () => {
    const drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
    const { exitCode, advice } = await ask(drop);
    expect(exitCode).toBe(111);
    expect(advice.get("cap_sys_boot")).toMatchObject({
      status: "missing",
      found: "not held, user 65534",
    });
  });

  test("in a PID namespace a reboot would not reach the kernel", async () => {
    const { advice } = await ask(["unshare", "--pid", "--fork", "--mount-proc"]);
    expect(advice.get("pid_namespace")).toMatchObject({ status: "missing" });
  });
});
