/** The compiled doctor on this host as it is, and as it is seen by those who may do less. */
import { expect, test } from "bun:test";
import type { Advice } from "../../src/doctor/judgement.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { kernel, root, skipUnless } from "../support/skips.ts";

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
    expect(result.stderr).toContain("Expected one of process, live-update, or no word for all");
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
