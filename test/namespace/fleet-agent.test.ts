/**
 * Whole upgrades by the compiled program alone: a real operator, and one device that a real
 * supervisor runs, with releases that are built, signed and published by the commands. The version
 * that is rolled out is the build with kill points, of which none is set.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NativeMemory } from "../../ffi/memory.ts";
import { bindUnix, makeUnixSocket, receiveMessage } from "../../ffi/unix-socket.ts";
import { readLayout } from "../../src/fleet/perform/layout-files.ts";
import { SUPERVISOR_VARIABLE } from "../../src/fleet/protocol-supervise.ts";
import { runHostler, saysDone, saysRefused } from "../support/authority.ts";
import { digestOf, UPGRADE_TIME, UpgradedHost } from "../support/fleet-operator/upgraded-host.ts";
import { buildVersion } from "../support/fleet-releases.ts";
import { startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(300_000);

/** What a service manager hears: each word that comes until the one that is waited for. */
function listenTo(socket: ReturnType<typeof makeUnixSocket>) {
  const memory = new NativeMemory(4_096);
  return async (wanted: RegExp) =>
    await waitFor(`${wanted}`, () => {
      const { length } = receiveMessage(socket, memory);
      if (length <= 0) return undefined;
      return wanted.test(new TextDecoder().decode(memory.bytes.slice(0, length)));
    });
}

skipUnless("a host that an operator upgrades", root, () => {
  let host: UpgradedHost;
  beforeEach(async () => {
    host = await UpgradedHost.start();
  });
  afterEach(async () => {
    await host[Symbol.asyncDispose]();
  });

  test("becomes what is rolled out, and proves it", async () => {
    await host.trust();
    const good = await host.release("7.0.0");
    await host.startDevice();
    const before = host.current;
    await host.fleet.ask("rollout", good, ...host.source);
    const digest = digestOf((await buildVersion("7.0.0", { faults: true })).program);
    const done = await host.device("is done", ({ upgrade }) => upgrade === "done", UPGRADE_TIME);
    expect(done).toMatchObject({ current_version: "7.0.0", current_digest: digest, healthy: true });
    expect(done).toMatchObject({ architecture: expect.any(String), executor: "supervise" });
    expect(host.current).toBe(`versions/7.0.0-${digest.slice(0, 12)}`);
    expect(readlinkSync(join(host.place, "previous"))).toBe(before);
    const { versions } = readLayout(host.place);
    expect(versions.map(({ isProven }) => isProven)).toEqual([true, true]);
    const history = await waitFor("the rollout is done", async () => {
      const one = await host.fleet.history("7.0.0");
      return one.phase === "complete" ? one : undefined;
    });
    expect(history.counts).toMatchObject({ members: 1, done: 1, failed: 0 });
    await host.supervisor?.said(/goes on with .*versions\/7\.0\.0-/);
  });

  test("refuses a release that no key of its root set's metadata has signed", async () => {
    await host.trust();
    const forged = await host.release("7.1.0", { key: "thief" });
    await host.startDevice();
    const before = host.current;
    const { fleet, source } = host;
    const checked = ["--root", join(host.site, "root-1.json")];
    const sent = await fleet.tries("rollout", forged, ...source, ...checked);
    expect(sent.exitCode).toBe(111);
    expect(sent.stderr).toContain("expected a signature by one of 1 keys of the metadata");
    expect(await fleet.ask("history")).toContain("nothing was rolled out yet");
    await fleet.ask("rollout", forged, ...source);
    const refused = await host.device("refuses it", ({ upgrade }) => upgrade === "failed");
    expect(refused.reason).toContain("expected a signature by one of 1 keys of the metadata");
    expect(host.current).toBe(before);
    expect(readLayout(host.place).versions.map(({ state }) => state)).toEqual(["verified"]);
  });

  test("is ready while its operator is away, and is heard when it is there again", async () => {
    const { fleet } = host;
    const identity = await fleet.authority.enrolled("box");
    const places = ["--folder", host.place, "--prefix", host.file("usr")];
    await saysDone(["fleet", "install", ...places, "--without-units", "--volatile"]);
    await fleet.authority.stop();
    const path = host.file("notify.sock");
    using socket = makeUnixSocket("datagram");
    expect(bindUnix(socket, path)).toBe(0);
    const heard = listenTo(socket);
    const environment = {
      ...{ NOTIFY_SOCKET: path, WATCHDOG_USEC: "400000" },
      [SUPERVISOR_VARIABLE]: host.file("supervise.sock"),
    };
    const words = ["fleet", "agent", "--folder", host.place, "--identity", identity.directory];
    const program = join(host.place, "current/hostler");
    await using agent = startProgram([program, ...words], { environment });
    await heard(/^READY=1$/);
    expect(agent.output.stderr).toContain("the operator is not reached, ignoring: no credentials");
    expect(agent.output.stderr).not.toContain("is open");
    await fleet.start();
    await host.device(
      "is heard",
      ({ standing, executor }) => standing === "alive" && executor !== null,
    );
    await heard(/^WATCHDOG=1$/);
    agent.kill("SIGTERM");
    await heard(/^STOPPING=1$/);
    expect(await agent.ended()).toMatchObject({ exitCode: 0 });
  });

  test("one that its operator has revoked asks ever later, and says so", async () => {
    const { authority } = host.fleet;
    const identity = await authority.enrolled("box");
    const places = ["--folder", host.place, "--prefix", host.file("usr")];
    await saysDone(["fleet", "install", ...places, "--without-units", "--volatile"]);
    const path = host.file("notify.sock");
    using socket = makeUnixSocket("datagram");
    expect(bindUnix(socket, path)).toBe(0);
    const heard = listenTo(socket);
    const environment = { NOTIFY_SOCKET: path, [SUPERVISOR_VARIABLE]: host.file("supervise.sock") };
    const words = ["fleet", "agent", "--folder", host.place, "--identity", identity.directory];
    const program = join(host.place, "current/hostler");
    await using agent = startProgram([program, ...words], { environment });
    await heard(/^STATUS=in a session with its operator$/);
    await saysDone(authority.local("host", "revoke", "box"));
    await heard(/^STATUS=refused by its operator, asked again in 30\.00 s: .*revoked/);
    await agent.said(/the operator refuses this host, asked again in 30\.00 s/);
  });

  test("is enrolled by one command, which says what is next", async () => {
    const token = host.file("box.token");
    writeFileSync(token, await host.fleet.authority.token("box"), { mode: 0o600 });
    const places = ["--directory", host.file("identity"), "--folder", host.place];
    const said = await saysDone(["fleet", "enroll", "--token-file", token, ...places]);
    expect(said).toContain("enrolled as box at https://");
    expect(said).toContain("hostler fleet install --root FILE");
    expect(said).toContain(`hostler fleet supervise -- --identity ${host.file("identity")}`);
    // The token is its own: a second one changes nothing, and says the same.
    expect(await saysDone(["fleet", "enroll", "--token-file", token, ...places])).toBe(said);
  });

  test("what is missing is said, with what to do", async () => {
    const folder = host.place;
    const places = ["--folder", folder, "--prefix", host.file("usr")];
    await saysDone(["fleet", "install", ...places, "--without-units", "--volatile"]);
    const words = ["fleet", "agent", "--folder", folder, "--identity", host.file("nobody")];
    const program = join(folder, "current/hostler");
    await using notEnrolled = startProgram([program, ...words]);
    const { exitCode, stderr } = await notEnrolled.ended();
    expect(exitCode).toBe(111);
    expect(stderr).toContain(`expected an enrolled host, received none in ${host.file("nobody")}`);
    expect(stderr).toContain("hostler fleet enroll");
    expect(await saysRefused(words)).toContain("expected a program of its versions");
    const half = await runHostler([...words, "--candidate", "1"]);
    expect([half.exitCode, half.stderr.includes("--transaction")]).toEqual([100, true]);
  });
});
