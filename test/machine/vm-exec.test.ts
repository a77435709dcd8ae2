/**
 * The compiled worker with a Linux guest in it: programs are run in the guest by name, through the
 * worker, and still are after the worker was killed and after another VMM has the guest.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { GUEST_COMMAND_LINE, makeVmGuest } from "../../scripts/vm-guest.ts";
import { hostler } from "../support/binary.ts";
import { guestFeatures } from "../support/machine.ts";
import { type Program, runProgram, startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

/** Generous: a processor is emulated, on a machine that may have much else to do. */
const bootMilliseconds = 4 * 60_000;
const caseMilliseconds = 60_000;
const hasLeft = "The guest agent has ended, or its guest began anew";

let folder: TemporaryFolder;
let namespace: Program;
let worker: Program;

/** Every program of the story is in one network namespace, which nothing leads out of. */
const inside = (...argv: string[]) => [
  ...["nsenter", `--net=/proc/${namespace.processId}/ns/net`],
  ...argv,
];
const startWorker = () =>
  startProgram(inside(hostler(), "vm", "worker", "--config", folder.file("vm.toml")));

const vm = (verb: string, ...words: string[]) =>
  runProgram(inside(hostler(), "vm", verb, "--control-socket", folder.file("vm.sock"), ...words), {
    deadlineMilliseconds: caseMilliseconds,
  });

async function workerAnswers(): Promise<void> {
  await waitFor("the worker", async () => (await vm("status")).exitCode === 0, caseMilliseconds);
}

async function guestAnswers(): Promise<void> {
  const answers = async () => (await vm("ping", "web")).exitCode === 0;
  await waitFor("the agent in the guest", answers, bootMilliseconds);
}

/** @returns what a shell in the guest says */
async function run(script: string): Promise<string> {
  const result = await vm("exec", "web", "--", "sh", "-c", script);
  expect(result).toMatchObject({ stderr: "", exitCode: 0 });
  return result.stdout;
}

onlyInAll(() => {
  skipUnless("programs in a guest of the worker's", [root, ...guestFeatures], () => {
    beforeAll(async () => {
      folder = temporaryFolder();
      // The VMM has a user of its own, who has to reach what is its own in there.
      chmodSync(folder.path, 0o711);
      const image = folder.file("image");
      mkdirSync(image);
      await makeVmGuest({ folder: image, program: hostler() });
      const cmdline = `${GUEST_COMMAND_LINE} rdinit=/init`;
      const configuration = {
        payload: { kernel: "vmlinuz", initramfs: "initramfs", cmdline },
        cpus: { boot_vcpus: 1 },
        memory: { size: 768 * 2 ** 20, shared: true },
        serial: { mode: "Socket" },
      };
      writeFileSync(join(image, "vm-config.json"), JSON.stringify(configuration));
      const lines = [
        `vm_artifacts_dir = "${folder.file("artifacts")}"`,
        `run_dir = "${folder.file("run")}"`,
        `control_socket = "${folder.file("vm.sock")}"`,
      ];
      writeFileSync(folder.file("vm.toml"), `${lines.join("\n")}\n`);
      const up = "ip link set lo up && echo ready && exec tail -f /dev/null";
      namespace = startProgram(["unshare", "--net", "sh", "-c", up]);
      await namespace.said(/ready/);
      worker = startWorker();
      await workerAnswers();
      const hash = (await runProgram([hostler(), "vm", "hash", image])).stdout.trim();
      const made = await vm("create", "web", "--image", image, "--hash", hash, "--start");
      expect(made.exitCode).toBe(0);
      await guestAnswers();
    }, bootMilliseconds + 120_000);

    afterAll(async () => {
      await vm("delete", "web", "--now", "--wait");
      await worker?.[Symbol.asyncDispose]();
      await namespace?.[Symbol.asyncDispose]();
      folder?.[Symbol.dispose]();
    });

    test(
      "run with their output, their errors and their status",
      async () => {
        expect(await run("hostname; cat /proc/sys/kernel/ostype")).toBe("guest\nLinux\n");
        // By its own name alone: in the domain that DHCP has told.
        expect(await run("ping -c 1 -W 5 web")).toContain("PING web (10.100.0.2)");
        const failed = await vm("exec", "web", "--", "sh", "-c", "echo no >&2; exit 3");
        expect(failed).toMatchObject({ stdout: "", stderr: "no\n", exitCode: 3 });
        const late = await vm("exec", "web", "--time-limit", "300ms", "--", "sleep", "1000");
        expect(late.exitCode).toBe(137);
      },
      caseMilliseconds,
    );

    test(
      "run after the worker was killed, in the same guest",
      async () => {
        const boot = await run("cat /proc/sys/kernel/random/boot_id");
        worker.kill("SIGKILL");
        await worker.ended();
        worker = startWorker();
        await workerAnswers();
        await guestAnswers();
        expect(await run("cat /proc/sys/kernel/random/boot_id")).toBe(boot);
      },
      caseMilliseconds,
    );

    test(
      "run after another VMM has the guest, which was not booted anew",
      async () => {
        const boot = await run("cat /proc/sys/kernel/random/boot_id");
        expect((await vm("replace-vmm", "web", "--wait")).exitCode).toBe(0);
        await guestAnswers();
        expect(await run("cat /proc/sys/kernel/random/boot_id")).toBe(boot);
      },
      caseMilliseconds,
    );

    test(
      "are not waited for where the guest begins anew",
      async () => {
        const booted = await vm("exec", "web", "--", "sh", "-c", "reboot -f; exec sleep 1000");
        expect(booted).toMatchObject({ exitCode: 111 });
        expect(booted.stderr).toContain(hasLeft);
        await guestAnswers();
      },
      bootMilliseconds,
    );

    test(
      "are not waited for where the agent has ended, and run in the next VMM's guest",
      async () => {
        const boot = await run("cat /proc/sys/kernel/random/boot_id");
        const killed = await vm("exec", "web", "--", "sh", "-c", "kill -9 $PPID; exec sleep 1000");
        expect(killed).toMatchObject({ exitCode: 111 });
        expect(killed.stderr).toContain(hasLeft);
        expect((await vm("shutdown", "web", "--now", "--wait")).exitCode).toBe(0);
        expect((await vm("boot", "web", "--wait")).exitCode).toBe(0);
        await guestAnswers();
        expect(await run("cat /proc/sys/kernel/random/boot_id")).not.toBe(boot);
      },
      bootMilliseconds,
    );
  });
});
