import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { Reading } from "../../../src/hardware/samples.ts";
import { readBootParameters } from "../../../src/vetting/agent/boot-parameters.ts";
import { Outbox } from "../../../src/vetting/agent/outbox.ts";
import { SampleBook } from "../../../src/vetting/agent/sample-book.ts";
import { SamplerSidecar } from "../../../src/vetting/agent/sampler-sidecar.ts";
import { AgentFolder } from "../../../src/vetting/perform/agent-folder.ts";
import { HoldKey, hostKeyFingerprint } from "../../../src/vetting/perform/hold-key.ts";
import type { TaskRunner } from "../../../src/vetting/perform/task-runner.ts";
import type { TaskEnding } from "../../../src/vetting/protocol-task.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { runProgram } from "../../support/program.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { newKept } from "../../support/vetting/agent-life.ts";
import { rejectionOf, waitFor, withDeadline } from "../../support/wait-for.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

describe("boot parameters", () => {
  const pin = "ab".repeat(32);
  const line =
    "BOOT_IMAGE=vmlinuz console=ttyS0 hostler.vetting.orchestrator=https://10.0.2.2:7443 " +
    `hostler.vetting.run=12 hostler.vetting.token=hostler-run-b-12-abcdefgh ` +
    `hostler.vetting.mac=52:54:00:12:34:56 hostler.vetting.pin=${pin}\n`;

  test("of the kernel's command line; flags override them; the last of two counts", () => {
    expect(readBootParameters(line, {})).toEqual({
      orchestrator: "https://10.0.2.2:7443",
      run: 12,
      token: "hostler-run-b-12-abcdefgh",
      mac: "52:54:00:12:34:56",
      pins: [pin],
    });
    expect(readBootParameters(line, { run: "13" })).toMatchObject({ run: 13 });
    expect(readBootParameters(`${line} hostler.vetting.run=14`, {})).toMatchObject({ run: 14 });
    expect(readBootParameters(line.replace("=12 ", '="15" '), {})).toMatchObject({ run: 15 });
  });

  test("all that is missing is told, with where it is given", () => {
    const read = readBootParameters("quiet", {});
    expect("refusals" in read && read.refusals).toEqual(
      [
        ["orchestrator", "--orchestrator"],
        ["run", "--run"],
        ["pin", "--pin"],
      ].map(
        ([name, flag]) =>
          `Expected hostler.vetting.${name}= on the kernel's command line, or ${flag}, ` +
          "received none",
      ),
    );
  });

  test.each([
    ["orchestrator", "http://10.0.2.2", "https://HOST:PORT"],
    ["orchestrator", "https://user@host", "https://HOST:PORT"],
    ["run", "0", "the number of a run"],
    ["run", "1e3", "the number of a run"],
    ["mac", "52:54:00", "a MAC address"],
    ["pin", "ab", "SHA-256 of a certificate"],
    ["token", "short", "the token of a run"],
  ])("%s=%s is refused", (name, value, expected) => {
    const read = readBootParameters(line, { [name]: value });
    const [refusal = ""] = "refusals" in read ? read.refusals : [];
    expect(refusal).toContain(`Expected ${expected}`);
    // A token is a secret, also one that is wrong.
    expect(refusal.includes(JSON.stringify(value))).toBe(name !== "token");
  });
});

describe("what waits to be told", () => {
  const push = (outbox: Outbox<{ sequence: number; text: string }>, text: string) =>
    outbox.push((sequence) => ({ sequence, text }));

  test("what was sent stays until it is answered", () => {
    const outbox = new Outbox<{ sequence: number; text: string }>(1_000);
    for (const text of ["a", "b", "c"]) push(outbox, text);
    const first = outbox.first(2, 1_000);
    expect(first.map(({ text }) => text)).toEqual(["a", "b"]);
    expect(outbox.first(2, 1_000)).toEqual(first);
    outbox.settle(first, "answered");
    expect(outbox.first(9, 1_000).map(({ sequence }) => sequence)).toEqual([2]);
    expect(outbox.dropped).toBe(0);
  });

  test("over its bytes the oldest go, and are counted", () => {
    const outbox = new Outbox<{ sequence: number; text: string }>(200);
    for (let count = 0; count < 10; count++) push(outbox, "x".repeat(20));
    const kept = outbox.first(99, 10_000);
    expect(kept.at(-1)?.sequence).toBe(9);
    expect(kept.length + outbox.dropped).toBe(10);
    expect(outbox.dropped).toBeGreaterThan(0);
  });

  test("what fell out while it was on its way is settled all the same", () => {
    const outbox = new Outbox<{ sequence: number; text: string }>(100);
    push(outbox, "x".repeat(30));
    const sent = outbox.first(9, 1_000);
    for (let count = 0; count < 5; count++) push(outbox, "y".repeat(30));
    outbox.settle(sent, "answered");
    expect(outbox.first(1, 1_000)[0]?.text).toStartWith("y");
  });

  test("one that is larger than a batch goes alone; one larger than all goes unsaid", () => {
    const outbox = new Outbox<{ sequence: number; text: string }>(100);
    push(outbox, "x".repeat(50));
    expect(outbox.first(9, 10)).toHaveLength(1);
    push(outbox, "x".repeat(500));
    expect(outbox.waiting).toBe(0);
    expect(outbox.dropped).toBe(2);
  });

  test("a batch that is refused for ever is counted as lost", () => {
    const outbox = new Outbox<{ sequence: number; text: string }>(100);
    push(outbox, "a");
    outbox.settle(outbox.first(9, 100), "refused");
    expect(outbox.dropped).toBe(1);
  });
});

describe("what belongs to a stage", () => {
  const reading = (at: number, counters: Record<string, number>, temperature = 40): Reading => ({
    at,
    sensors: [
      { kind: "temperature", key: "cpu", value: temperature, critical: 100 },
      { kind: "fan", key: "fan", value: temperature * 10, critical: null },
    ],
    counters: Object.entries(counters).map(([component, value]) => ({
      ...{ source: "memory-corrected", component, value },
    })),
    missing: [],
  });

  test("counters that changed, the highest temperature, and what told nothing", () => {
    const book = new SampleBook();
    book.take(reading(1, { a: 5, b: 1 }, 90));
    book.begin();
    book.take({ ...reading(2, { a: 5, b: 1 }, 60), missing: [{ key: "fan", reason: "EIO" }] });
    book.take(reading(3, { a: 7, b: 1, c: 2 }, 50));
    expect(book.end(undefined)).toEqual({
      deltas: [
        { source: "memory-corrected", component: "a", before: 5, after: 7 },
        { source: "memory-corrected", component: "c", before: 0, after: 2 },
      ],
      peaks: [{ kind: "temperature", key: "cpu", value: 60, critical: 100 }],
      missing: [{ key: "fan", reason: "EIO" }],
    });
  });

  test("a counter that went back is told as it is", () => {
    const book = new SampleBook();
    book.take(reading(1, { a: 5 }));
    book.begin();
    book.take(reading(2, { a: 0 }));
    expect(book.end(undefined).deltas).toMatchObject([{ before: 5, after: 0 }]);
  });

  test("silence is told as what is missing, and no change is invented", () => {
    const book = new SampleBook();
    book.begin();
    expect(book.end("the sampler told nothing in time")).toEqual({
      deltas: [],
      peaks: [],
      missing: [{ key: "sampler", reason: "the sampler told nothing in time" }],
    });
  });

  test("sums count from the first reading", () => {
    const book = new SampleBook();
    book.take(reading(1, { a: 5 }));
    const next = reading(2, { a: 6, b: 2 });
    book.take(next);
    expect(book.sumsOf(next)).toEqual({ "memory-corrected": 3 });
  });
});

describe("the sampler beside the stages", () => {
  const reading: Reading = { at: 1, sensors: [], counters: [], missing: [] };
  const never = new AbortController().signal;

  /** Samplers that do nothing by themselves, one after the other. */
  function sidecar() {
    const children: {
      readonly asked: number[];
      answer(question: number): void;
      end(ending: TaskEnding): void;
    }[] = [];
    const readings: Reading[] = [];
    const start: TaskRunner["start"] = (_order, { onLine }) => {
      const ended = Promise.withResolvers<TaskEnding>();
      const asked: number[] = [];
      const answer = (answers: number) => onLine({ kind: "reading", reading, answers });
      children.push({ asked, answer, end: ended.resolve });
      return {
        ended: ended.promise,
        cancel: () => ended.resolve({ kind: "cancelled" }),
        ask: (question) => asked.push(question),
      };
    };
    const sampler = new SamplerSidecar(
      loop,
      { start },
      {
        every: 5_000,
        onReading: (one) => readings.push(one),
        onKernelLine: () => {},
        onLog: () => {},
      },
    );
    return { sampler, children, readings };
  }

  test("reads when it is asked", async () => {
    const { sampler, children, readings } = sidecar();
    using _sampler = sampler;
    const asked = sampler.readNow(never);
    expect(children[0]?.asked).toEqual([1]);
    children[0]?.answer(1);
    expect(await asked).toBeUndefined();
    expect(readings).toEqual([reading]);
  });

  test("an answer to an earlier question is none to a later one", async () => {
    const { sampler, children } = sidecar();
    using _sampler = sampler;
    const stop = new AbortController();
    const first = sampler.readNow(stop.signal);
    stop.abort();
    expect(await first).toBe("not seen: the stage was cancelled");
    const second = sampler.readNow(never, 50);
    children[0]?.answer(1);
    expect(await second).toBe("not seen: the sampler did not answer within 0.05 s");
  });

  test("one that does not answer holds a stage for a limit, and the next not at all", async () => {
    const { sampler, children } = sidecar();
    using _sampler = sampler;
    expect(await sampler.readNow(never, 20)).toStartWith("not seen: the sampler did not answer");
    expect(await sampler.readNow(never)).toBe("not seen: the sampler does not answer");
    // The last is answered for all that waited.
    children[0]?.answer(2);
    const again = sampler.readNow(never);
    children[0]?.answer(3);
    expect(await again).toBeUndefined();
  });

  test("one that follows another is asked what that did not answer", async () => {
    const { sampler, children } = sidecar();
    using _sampler = sampler;
    const asked = sampler.readNow(never);
    // Another pace, for which it is started anew.
    sampler.setEvery(100);
    await waitFor("the next one", () => children.length === 2);
    expect(children[1]?.asked).toEqual([1]);
    children[1]?.answer(1);
    expect(await asked).toBeUndefined();
  });
});

describe("the agent's folder", () => {
  test("is its own, gives back what was kept, and has one agent", () => {
    using place = temporaryFolder();
    using folder = AgentFolder.open(place.file("run"));
    expect(statSync(place.file("run")).mode & 0o777).toBe(0o700);
    const kept = newKept({ session: "secret" });
    folder.writeKept(kept);
    expect(folder.readKept()).toEqual(kept);
    expect(statSync(place.file("run/agent.json")).mode & 0o777).toBe(0o600);
    expect(() => AgentFolder.open(place.file("run"))).toThrow("another agent has it");
    writeFileSync(place.file("run/agent.json"), '{"run":');
    expect(folder.readKept()).toBeUndefined();
    expect(folder.readResult()).toBeUndefined();
  });
});

describe("the key of a hold", () => {
  const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVzZWQgYnkgYSB0ZXN0IGFuZCBub2JvZHkgZWxzZQ==";
  const other = "ssh-rsa AAAAB3NzaC1yc2E= operator";

  test("one line of ours, replaced and removed; lines of others stay", async () => {
    using place = temporaryFolder();
    const path = place.file("ssh/authorized_keys");
    mkdirSync(place.file("ssh"));
    writeFileSync(path, `${other}\n`);
    const hold = new HoldKey(loop, { authorizedKeys: path, folder: place.path });
    await hold.install(`${key} alice`);
    await hold.install(key);
    const lines = readFileSync(path, "utf8").trimEnd().split("\n");
    expect(lines).toHaveLength(2);
    expect(lines[0]).toBe(other);
    expect(lines[1]).toMatch(
      /^command=".*",no-agent-forwarding,.* ssh-ed25519 \S+ hostler-vetting-hold$/,
    );
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(place.file("ssh")).mode & 0o777).toBe(0o700);
    await hold.remove();
    expect(readFileSync(path, "utf8")).toBe(`${other}\n`);
  });

  test.each([`${key}\nssh-rsa AAAA`, 'command="x" ssh-rsa AAAA', "nonsense", ""])(
    "what is no key is refused: %j",
    async (text) => {
      using place = temporaryFolder();
      const hold = new HoldKey(loop, { authorizedKeys: place.file("keys"), folder: place.path });
      const refusal = await rejectionOf(hold.install(text));
      expect(String(refusal)).toContain("Expected one line of a public key");
    },
  );

  test("whoever came by it is ended, and nobody else", async () => {
    using place = temporaryFolder();
    const path = place.file("ssh/authorized_keys");
    const hold = new HoldKey(loop, { authorizedKeys: path, folder: place.path });
    await hold.install(key);
    const session = Bun.spawn(["sh", "-c", forcedCommand(path)], {
      env: { ...process.env, SSH_ORIGINAL_COMMAND: "sleep 1000" },
    });
    const bystander = Bun.spawn(["sleep", "1000"]);
    try {
      await started(session.pid);
      expect(await hold.remove()).toBeGreaterThan(0);
      await withDeadline("its end", session.exited);
      expect(session.signalCode).toBe("SIGKILL");
      expect(bystander.exitCode).toBeNull();
      expect(await hold.remove()).toBe(0);
    } finally {
      session.kill("SIGKILL");
      bystander.kill("SIGKILL");
    }
  });

  test("a session is the command that was asked for, letter by letter, or a shell", async () => {
    using place = temporaryFolder();
    const path = place.file("ssh/authorized_keys");
    const hold = new HoldKey(loop, { authorizedKeys: path, folder: place.path });
    await hold.install(key);
    const command = forcedCommand(path);
    const says = async (input: string, asked: Readonly<Record<string, string>>) => {
      const { stdout, exitCode } = await runProgram(["sh", "-c", command], {
        environment: { PATH: process.env["PATH"] ?? "", ...asked },
        input,
      });
      return { stdout, exitCode };
    };
    const asked = `printf '%s|' "a  b" /etc/pass*d $(echo c d); exit 7`;
    expect(await says("", { SSH_ORIGINAL_COMMAND: asked })).toEqual({
      stdout: "a  b|/etc/passwd|c|d|",
      exitCode: 7,
    });
    for (const none of [{}, { SSH_ORIGINAL_COMMAND: "" }]) {
      const told = await says(`words="x y"; printf '%s|' $words; exit 5\n`, none);
      expect(told).toEqual({ stdout: "x|y|", exitCode: 5 });
    }
    // A connection that is open still asks for its first session after the key is gone.
    await hold.remove();
    const late = await says("echo in", { SSH_ORIGINAL_COMMAND: "echo in" });
    expect(late).toEqual({ stdout: "", exitCode: 1 });
    await hold.install(key);
    expect(await says("", { SSH_ORIGINAL_COMMAND: "echo in" })).toMatchObject({ stdout: "" });
  });

  /**
   * Of the line that is installed. sshd takes a backslash before a quotation mark away, and
   * dropbear does not: a command without either is the same for both.
   */
  function forcedCommand(path: string): string {
    const line = readFileSync(path, "utf8");
    const [, command = ""] = /^command="(.*)",no-agent-forwarding/.exec(line) ?? [];
    expect(command).not.toMatch(/["\\]/);
    return command;
  }

  /** Until its environment has the mark: the shell has become what was asked for. */
  async function started(processId: number): Promise<void> {
    await waitFor("the mark", () =>
      readFileSync(`/proc/${processId}/environ`, "latin1").includes("HOSTLER_VETTING_HOLD="),
    );
  }

  test("a key that follows another has a mark of its own", async () => {
    using place = temporaryFolder();
    const path = place.file("ssh/authorized_keys");
    const hold = new HoldKey(loop, { authorizedKeys: path, folder: place.path });
    const markOf = () =>
      /HOSTLER_VETTING_HOLD=([0-9a-f]{32})/.exec(readFileSync(path, "utf8"))?.[1];
    await hold.install(key);
    const first = markOf();
    await Promise.all([hold.remove(), hold.install(key)]);
    expect(markOf()).toMatch(/^[0-9a-f]{32}$/);
    expect(markOf()).not.toBe(first);
    await hold.remove();
    expect(markOf()).toBeUndefined();
  });

  test("a host key is told as ssh-keygen tells it, of a server that listens alone", () => {
    using place = temporaryFolder();
    const field = (bytes: Uint8Array) => {
      const size = Buffer.alloc(4);
      size.writeUInt32BE(bytes.length);
      return Buffer.concat([size, bytes]);
    };
    const type = Buffer.from("ssh-ed25519");
    const publicKey = Buffer.alloc(32, 7);
    const blob = Buffer.concat([field(type), field(publicKey)]);
    const digest = createHash("sha256").update(blob).digest("base64").replace(/=+$/, "");
    const told = `SHA256:${digest} (ED25519)`;
    for (const folder of ["etc/ssh", "etc/dropbear", "proc/net"]) {
      mkdirSync(place.file(folder), { recursive: true });
    }
    const line = `ssh-ed25519 ${blob.toString("base64")} root@node\n`;
    writeFileSync(place.file("etc/ssh/ssh_host_ed25519_key.pub"), line);
    expect(hostKeyFingerprint(place.path)).toBeNull();
    const table = "  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A x\n";
    writeFileSync(place.file("proc/net/tcp"), table);
    expect(hostKeyFingerprint(place.path)).toBe(told);
    rmSync(place.file("etc/ssh"), { recursive: true });
    const both = Buffer.concat([Buffer.alloc(32, 1), publicKey]);
    const file = Buffer.concat([field(type), field(both)]);
    writeFileSync(place.file("etc/dropbear/dropbear_ed25519_host_key"), file);
    expect(hostKeyFingerprint(place.path)).toBe(told);
  });
});
