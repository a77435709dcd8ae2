/** luod in surroundings that are against it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { unlinkSync } from "node:fs";
import { hostler } from "../support/binary.ts";
import { Machine } from "../support/live-update-daemon.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";

setDefaultTimeout(60_000);

skipUnless("luod against all", root, () => {
  test("signals that are no order to end: said, and ignored", async () => {
    await using machine = new Machine();
    await machine.start();
    for (const signal of ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"] as const) {
      machine.luod.kill(signal);
      await machine.luod.said(new RegExp(`received ${signal}, and ignores it: there is nothing`));
    }
    expect((await machine.status()).phase).toBe("idle");
  });

  test("its sockets are removed: both are made anew, and said", async () => {
    await using machine = new Machine();
    await machine.start();
    const before = await machine.client();
    for (const path of [machine.clientSocket, machine.controlSocket]) {
      unlinkSync(path);
      await machine.luod.said(new RegExp(`the socket ${path} was removed by somebody; it is made`));
    }
    await machine.client();
    expect((await machine.status()).phase).toBe("idle");
    expect(before.ended).toBe(false);
  });

  test("it hangs: luoctl ends with 111", async () => {
    await using machine = new Machine();
    await machine.start();
    machine.luod.kill("SIGSTOP");
    try {
      const words = ["live-update", "status", "--control-socket", machine.controlSocket];
      const { exitCode, stderr } = await runProgram([hostler(), ...words]);
      expect([exitCode, stderr]).toEqual([111, expect.stringContaining("within 10.00 s")]);
    } finally {
      machine.luod.kill("SIGCONT");
    }
  });
});
