/** The compiled doctor on this host as it is, and as it is seen by those who may do less. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { Advice } from "../../src/doctor/judgement.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { kernel, root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

interface Answer {
  readonly exitCode: number | null;
  readonly advice: ReadonlyMap<string, Advice>;
}

/** @param words what comes before the doctor's own words, such as a program that starts it */
async function ask(
  words: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const result = await runProgram([...words, "doctor", "process", "--json"], { environment });
  expect(result.stderr).toBe("");
  const advice = JSON.parse(result.stdout) as Advice[];
  return {
    exitCode: result.exitCode,
    advice: new Map(advice.map((line) => [line.check, line])),
  };
}

skipUnless("hostler doctor", root, () => {
  test("finds this host fit, for everything and for process", async () => {
    const { exitCode, advice } = await ask([hostler()]);
    expect(exitCode).toBe(0);
    for (const line of advice.values()) {
      expect(Object.keys(line)).toEqual(["check", "status", "found", "needed_by", "mend"]);
      expect(line.mend === null).toBe(line.status === "ok");
      expect(line.status).not.toBe("missing");
    }
    for (const required of ["pidfd_open", "close_range", "executable_memory", "proc"]) {
      expect(advice.get(required)?.status).toBe("ok");
    }
    const everything = await runProgram([hostler(), "doctor", "--json"]);
    const checks = (JSON.parse(everything.stdout) as Advice[]).map(({ check }) => check);
    expect(checks.slice(0, advice.size)).toEqual([...advice.keys()]);
  });

  test("gives people a table and the sum", async () => {
    const { exitCode, stdout } = await runProgram([hostler(), "doctor", "process"]);
    expect(exitCode).toBe(0);
    expect(stdout).toStartWith("check ");
    expect(stdout).toContain("\nThis host can do what was asked for: process.");
  });

  test.each([
    ["proces", " Did you mean process?\n"],
    ["foo", "\nhostler doctor: See hostler doctor --help.\n"],
  ])("does not know what it was not made for: %s", async (word, end) => {
    const result = await runProgram([hostler(), "doctor", word]);
    expect(result.exitCode).toBe(100);
    expect(result.stderr).toContain(
      "Expected one of process, live-update, vm, fleet, vetting, vetting-agent, or no word for all",
    );
    expect(result.stderr).toContain(`received "${word}".${end}`);
  });

  test("warns of variables that change what Bun does", async () => {
    const { exitCode, advice } = await ask([hostler()], { BUN_OPTIONS: "--smol" });
    expect(exitCode).toBe(0);
    expect(advice.get("environment")).toMatchObject({
      status: "warning",
      found: "BUN_OPTIONS set",
    });
  });

  test("sees a kernel without the newer features as one that lacks them", async () => {
    const absent = { HOSTLER_ABSENT: "pidfd_get_info,so_peerpidfd,pidfs" };
    const { exitCode, advice } = await ask([hostlerWithFaults()], absent);
    expect(exitCode).toBe(0);
    for (const check of ["exit_information", "process_group_signal", "peer_process"]) {
      expect(advice.get(check)?.status).toBe("warning");
    }
  });
});

skipUnless("hostler doctor for those who may do less", root, () => {
  test("a user without rights is told what could not be tried", async () => {
    const drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
    const { exitCode, advice } = await ask([...drop, hostler()]);
    // What runs with the default sockets does not run for him.
    expect(exitCode).toBe(111);
    expect(advice.get("default_sockets")).toMatchObject({ status: "missing" });
    expect(advice.get("default_sockets")?.mend).toContain("--control-socket PATH");
    const missing = [...advice.values()].filter(({ status }) => status === "missing");
    expect(missing.map(({ check }) => check)).toEqual(["default_sockets"]);
    expect(advice.get("cap_kill")).toMatchObject({
      status: "warning",
      found: "not held, user 65534",
    });
    expect(advice.get("cgroup_kill")?.found).toStartWith("not tried: ");
    expect(advice.get("pidfd_open")?.status).toBe("ok");
  });

  test("root with a capability less is not told to be root", async () => {
    const { exitCode, advice } = await ask([
      ...["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"],
      hostler(),
    ]);
    expect(exitCode).toBe(0);
    const { status, mend } = advice.get("cap_sys_resource") ?? {};
    expect(status).toBe("warning");
    expect(mend).toMatch(/--cap-add=SYS_RESOURCE.*CapabilityBoundingSet=/);
    expect(mend).not.toContain("as root");
  });

  test("as a child of PID 1, with an empty /etc and no PATH", async () => {
    const script = 'mount -t tmpfs none /etc && env -i "$@"; code=$?; exit $code';
    const unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"];
    const words = [...unshare, "sh", "-c", script, "sh", hostler()];
    const { exitCode, advice } = await ask(words);
    expect(exitCode).toBe(0);
    expect(advice.get("pidfd_open")?.status).toBe("ok");
    expect(advice.get("c_library")?.status).toBe("ok");
  });
});

skipUnless("hostler doctor where memory may not be executable", kernel("6.3"), () => {
  test("says why nothing can be called, and what to change", async () => {
    const prctl = process.arch === "arm64" ? 167 : 157;
    const PR_SET_MDWE = 65;
    const forbid = `syscall(${prctl}, ${PR_SET_MDWE}, 1, 0, 0, 0) == 0 or die $!; exec @ARGV;`;
    const { exitCode, advice } = await ask(["perl", "-e", forbid, hostler()]);
    expect(exitCode).toBe(111);
    expect(advice.get("executable_memory")).toMatchObject({
      status: "missing",
      found: "bun:ffi requires the JIT",
    });
    expect(advice.get("executable_memory")?.mend).toContain("MemoryDenyWriteExecute=");
    expect(advice.get("pidfd_open")?.mend).toBe("Mend executable_memory, and ask again.");
  });
});

/** In a network namespace of its own, which a script makes what it is to be. */
async function askVm(script: string, ...flags: string[]): Promise<Answer> {
  const shell = ["sh", "-c", `${script}; exec "$@"`, "sh"];
  const words = ["unshare", "--net", ...shell, hostler(), "doctor", "vm", "--json", ...flags];
  const result = await runProgram(words);
  expect(result.stderr).toBe("");
  const advice = JSON.parse(result.stdout) as Advice[];
  return { exitCode: result.exitCode, advice: new Map(advice.map((one) => [one.check, one])) };
}

const forwards = "echo 1 > /proc/sys/net/ipv4/ip_forward";

skipUnless("hostler doctor vm", root, () => {
  test("reads the rules of this namespace, and changes nothing in it", async () => {
    const { exitCode, advice } = await askVm(forwards);
    expect(advice.get("nftables")).toMatchObject({
      status: "ok",
      found: "read over netlink: 0 tables, 0 chains",
    });
    for (const check of ["cap_net_admin", "ip_forward", "forward_chains", "subnet", "bridge"]) {
      expect(advice.get(check)?.status).toBe("ok");
    }
    const isFit = [...advice.values()].every(({ status }) => status !== "missing");
    expect(exitCode).toBe(isFit ? 0 : 111);
  });

  test("a host that forwards nothing is not fit, and is told what to set", async () => {
    const { exitCode, advice } = await askVm("echo 0 > /proc/sys/net/ipv4/ip_forward");
    expect(exitCode).toBe(111);
    expect(advice.get("ip_forward")).toMatchObject({ status: "missing" });
    expect(advice.get("ip_forward")?.mend).toContain("net.ipv4.ip_forward = 1");
  });

  test("without CAP_NET_ADMIN netfilter tells nothing", async () => {
    const words = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    const result = await runProgram([...words, hostler(), "doctor", "vm", "--json"]);
    expect(result.exitCode).toBe(111);
    const advice = JSON.parse(result.stdout) as Advice[];
    const found = advice.filter(({ status }) => status === "missing").map(({ check }) => check);
    expect(found).toContain("cap_net_admin");
    expect(found).toContain("nftables");
  });

  describe("with the worker's configuration", () => {
    test("its folders and its firmware are looked at", async () => {
      using folder = temporaryFolder();
      const file = folder.file("vm.toml");
      const lines = [
        `vm_artifacts_dir = "${folder.file("vms")}"`,
        `firmware_path = "${folder.file("absent.fd")}"`,
      ];
      writeFileSync(file, `${lines.join("\n")}\n`);
      const { exitCode, advice } = await askVm(forwards, "--config", file);
      expect(exitCode).toBe(111);
      expect(advice.get("artifacts_folder")?.found).toStartWith(
        `${folder.file("vms")}, to be made in ${folder.path}: `,
      );
      expect(advice.get("firmware")).toMatchObject({ status: "missing" });
    });

    test("one that the worker refuses is refused here, in the same words", async () => {
      using folder = temporaryFolder();
      const file = folder.file("vm.toml");
      writeFileSync(file, 'vm_subnet_base = "10.100.0.1/16"\n');
      const words = ["doctor", "vm", "--config", file];
      const result = await runProgram([hostler(), ...words]);
      expect(result.exitCode).toBe(100);
      expect(result.stderr).toContain("Did you mean 10.100.0.0/16?");
    });

    test("it is for vm alone", async () => {
      const words = ["doctor", "process", "--config", "/nonexistent"];
      const result = await runProgram([hostler(), ...words]);
      expect(result.exitCode).toBe(100);
      expect(result.stderr).toContain("Expected --config with vm alone, received it with process.");
    });
  });
});
