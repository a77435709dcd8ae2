/** luod in surroundings that are against it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, rmSync, unlinkSync } from "node:fs";
import { encodeFrame, FrameReader } from "../../src/messaging/frame.ts";
import { RawClient } from "../support/agent-client.ts";
import { hostler } from "../support/binary.ts";
import { Machine } from "../support/live-update-daemon.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

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

  test("no device: a dry run and a kexec are refused, status says it, with the mend", async () => {
    await using machine = new Machine();
    await machine.start({ environment: { HOSTLER_ABSENT: "liveupdate" } });
    await machine.luod.said(
      /this kernel has no \/dev\/liveupdate, so no update can be: hostler doc/,
    );
    const luoctl = async (...words: readonly string[]) => {
      const argv = [hostler(), "live-update", ...words, "--control-socket", machine.controlSocket];
      return await runProgram(argv);
    };
    const mend = expect.stringContaining("hostler doctor live-update says what it lacks");
    for (const words of [["kexec", "--dry-run"], ["kexec"]]) {
      expect(await luoctl(...words)).toMatchObject({ exitCode: 111, stderr: mend });
    }
    expect(await luoctl("status")).toMatchObject({ exitCode: 0, stdout: mend });
    machine.kernel.refuse("unload", "ENOSYS");
    const { exitCode, stderr } = await luoctl("unload");
    expect(exitCode).toBe(111);
    expect(stderr).toMatch(/Cannot unload: .* \(ENOSYS\)\. hostler doctor live-update says/);
  });

  test("a kexec hook that cannot be run: a warning at its start, for each", async () => {
    await using machine = new Machine();
    const missing = machine.folder.file("missing");
    const flags = [missing, machine.folder.path, "/bin/true"].flatMap((hook) => [
      ...["--kexec-hook", hook],
    ]);
    await machine.start({ flags });
    await machine.luod.said(/: expected a file\. Until/);
    const { stderr } = machine.luod.output;
    expect(stderr.match(/a kexec hook cannot be run: .*/g)).toEqual([
      expect.stringContaining(`${missing}: ENOENT. Until that is mended`),
      expect.stringContaining(`${machine.folder.path}: expected a file`),
    ]);
  });

  test("a full disk at its start: said with path and mend, 111, and nothing is left", async () => {
    using folder = temporaryFolder();
    mkdirSync(folder.file("disk"));
    const script =
      'mount -t tmpfs -o size=16k none "$1" && dd if=/dev/zero of="$1/fill" bs=1k 2>/dev/null; ' +
      '"$2" live-update daemon --state-directory "$1" --socket "$1/a" --control-socket "$1/b"; ' +
      'echo $? $(ls "$1")';
    const words = [folder.file("disk"), hostler()];
    const { stdout, stderr } = await runProgram([
      ...["unshare", "--mount", "sh", "-c", script, "sh", ...words],
    ]);
    expect(stdout).toBe("111 fill\n");
    expect(stderr).toContain(
      `the lock of the state directory ${folder.file("disk")}/lock: expected`,
    );
    expect(stderr).toContain("Make room there (df and df -i say how much there is)");
  });

  test("a full disk while it runs: no update begins, and one under way ends", async () => {
    await using machine = new Machine();
    const { stateDirectory } = machine;
    mkdirSync(stateDirectory);
    const mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", stateDirectory];
    expect((await runProgram(mount)).exitCode).toBe(0);
    const filler = `${stateDirectory}/filler`;
    const fill = () => runProgram(["dd", "if=/dev/zero", `of=${filler}`, "bs=4k", "count=64"]);
    try {
      await machine.start();
      const client = await machine.client();
      await client.ask({ cmd: "SUBSCRIBE", id: "vm" });
      await machine.load();
      await machine.status();
      await fill();
      const words = `Cannot write ${stateDirectory}/state.json: expected room on its file system`;
      const order = { dry_run: true, include_bare: false, discard_unclaimed: false, by: "reboot" };
      const error = await rejectionOf(machine.ask("kexec", order));
      expect(JSON.stringify(error)).toContain("a luod after this one would know nothing of");
      expect((await machine.status()).troubles).toEqual([expect.stringContaining(words)]);
      expect(machine.kernel.outgoing).toEqual([]);
      rmSync(filler);
      expect((await machine.status()).troubles).toEqual([]);
      const { ended } = await machine.kexec();
      (await client.given("START_PRESERVATION")).session.close();
      // What was decided last is written; the entry into the kernel cannot be any more.
      await fill();
      await client.ask({ cmd: "READY" });
      expect((await client.heard("ABORTED")).reason).toContain(words);
      expect((await ended).outcome).toBe("aborted");
      expect(machine.kernel.ended).toBeUndefined();
      expect(machine.kernel.outgoing).toEqual([]);
    } finally {
      await runProgram(["umount", "--lazy", stateDirectory]);
    }
  });

  test("who reads its events late gets all that were kept, and then its answer", async () => {
    await using machine = new Machine();
    await machine.start();
    const client = await machine.client();
    for (let count = 0; count < 1_000; count++) {
      await client.say({ cmd: "SUBSCRIBE", id: "vm" });
      await client.say({ cmd: "UNSUBSCRIBE", id: "vm" });
    }
    await client.ask({ cmd: "SUBSCRIBE", id: "vm" });
    using late = await RawClient.connect(machine.controlSocket);
    await late.sendBytes(encodeFrame({ id: 1, verb: "subscribe" }));
    // What the socket takes is sent by then, and the client is behind.
    await machine.status();
    await client.ask({ cmd: "UNSUBSCRIBE", id: "vm" });
    const reader = new FrameReader({ frameBytes: 65_536, frameDescriptors: 0 });
    const sequences: number[] = [];
    await waitFor("the answer", () => {
      late.look();
      reader.push(late.received);
      late.received = new Uint8Array(0);
      for (let frame = reader.next(); frame !== undefined; frame = reader.next()) {
        if ("refusal" in frame) throw new Error(frame.refusal.received);
        const body = frame.body as { readonly item?: { readonly sequence: number } };
        if (body.item === undefined) return true;
        sequences.push(body.item.sequence);
      }
      return false;
    });
    const first = sequences[0] ?? 0;
    expect(sequences.length).toBeGreaterThanOrEqual(2_001);
    expect(sequences).toEqual(sequences.map((_value, index) => first + index));
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
