/**
 * Whole upgrades by the compiled program alone: a real operator, and one device that a real
 * supervisor runs, with releases that are built, signed and published by the commands. The version
 * that is rolled out is the build with kill points, of which none is set.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NativeMemory } from "../../ffi/memory.ts";
import { bindUnix, makeUnixSocket, receiveMessage } from "../../ffi/unix-socket.ts";
import { readLayout } from "../../src/fleet/perform/layout-files.ts";
import type { DeviceView } from "../../src/fleet/protocol-operator.ts";
import { SUPERVISOR_VARIABLE } from "../../src/fleet/protocol-supervise.ts";
import { runHostler, saysDone, saysRefused } from "../support/authority.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { TestFleet } from "../support/fleet-operator/test-fleet.ts";
import { type Program, startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(300_000);

const digestOf = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");

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

/** From the fetch, over probation and commit, to thirty seconds of the new version. */
const UPGRADE_TIME = 180_000;

skipUnless("a host that an operator upgrades", root, () => {
  let fleet: TestFleet;
  let supervisor: Program | undefined;
  beforeEach(async () => {
    fleet = await TestFleet.start();
  });
  afterEach(async () => {
    supervisor?.kill("SIGTERM");
    await supervisor?.ended();
    supervisor = undefined;
    await fleet[Symbol.asyncDispose]();
  });

  const file = (name: string) => fleet.authority.folder.file(name);
  const site = () => file("site");
  const place = () => file("fleet");

  /** Keys, a root set that devices pin, and metadata that names one key for releases. */
  async function trust(): Promise<void> {
    mkdirSync(site());
    for (const name of ["root", "release", "thief"]) {
      await saysDone(["fleet", "key", "generate", file(name)]);
    }
    const [first, metadata] = [join(site(), "root-1.json"), join(site(), "metadata.json")];
    await saysDone(["fleet", "root", "init", "--key", file("root.pub"), "--out", first]);
    await saysDone(["fleet", "root", "sign", first, "--key", file("root")]);
    await saysDone(["fleet", "root", "metadata", metadata, "--signer", file("release.pub")]);
    await saysDone(["fleet", "root", "sign", metadata, "--key", file("root")]);
  }

  /** @returns the path of its manifest */
  async function release(version: string, key: string): Promise<string> {
    const build = ["fleet", "artifact", "build", version, hostlerWithFaults(), "--folder", site()];
    await saysDone([...build, "--floor", "0.0.1", "--level", "1"]);
    const manifest = join(site(), `hostler-${version}.manifest.json`);
    await saysDone(["fleet", "artifact", "sign", manifest, "--key", file(key)]);
    return manifest;
  }

  /** This host, installed and enrolled as "box", under a supervisor. */
  async function start(): Promise<void> {
    const host = await fleet.authority.enrolled("box");
    const places = ["--folder", place(), "--prefix", file("usr"), "--without-units"];
    const pinned = ["--volatile", "--root", join(site(), "root-1.json")];
    await saysDone(["fleet", "install", ...places, ...pinned]);
    const socket = ["--control-socket", file("supervise.sock"), "--volatile"];
    const words = ["fleet", "supervise", "--folder", place(), ...socket];
    supervisor = startProgram([hostler(), ...words, "--", "--identity", host.directory]);
    await device("is there", ({ standing, executor }) => standing === "alive" && executor !== null);
  }

  async function device(what: string, is: (view: DeviceView) => boolean, time?: number) {
    return await waitFor(
      `box ${what}`,
      async () => {
        const { device: view } = await fleet.show("box");
        if (is(view)) return view;
        throw new Error(`${JSON.stringify(view)}: ${supervisor?.output.stderr}`);
      },
      time,
    );
  }

  const current = () => readlinkSync(join(place(), "current"));

  test("becomes what is rolled out, and proves it", async () => {
    await trust();
    const good = await release("7.0.0", "release");
    await start();
    const before = current();
    const source = ["--source", `file://${site()}`];
    await fleet.ask("rollout", good, ...source);
    const digest = digestOf(hostlerWithFaults());
    const done = await device("is done", ({ upgrade }) => upgrade === "done", UPGRADE_TIME);
    expect(done).toMatchObject({ current_version: "7.0.0", current_digest: digest, healthy: true });
    expect(done).toMatchObject({ architecture: expect.any(String), executor: "supervise" });
    expect(current()).toBe(`versions/7.0.0-${digest.slice(0, 12)}`);
    expect(readlinkSync(join(place(), "previous"))).toBe(before);
    const { versions } = readLayout(place());
    expect(versions.map(({ isProven }) => isProven)).toEqual([true, true]);
    const history = await waitFor("the rollout is done", async () => {
      const one = await fleet.history("7.0.0");
      return one.phase === "complete" ? one : undefined;
    });
    expect(history.counts).toMatchObject({ members: 1, done: 1, failed: 0 });
    await supervisor?.said(/goes on with .*versions\/7\.0\.0-/);
  });

  test("refuses a release that no key of its root set's metadata has signed", async () => {
    await trust();
    const forged = await release("7.1.0", "thief");
    await start();
    const before = current();
    const checked = ["--root", join(site(), "root-1.json")];
    const sent = await fleet.tries("rollout", forged, "--source", `file://${site()}`, ...checked);
    expect(sent.exitCode).toBe(111);
    expect(sent.stderr).toContain("expected a signature by one of 1 keys of the metadata");
    expect(await fleet.ask("history")).toContain("nothing was rolled out yet");
    await fleet.ask("rollout", forged, "--source", `file://${site()}`);
    const refused = await device("refuses it", ({ upgrade }) => upgrade === "failed");
    expect(refused.reason).toContain("expected a signature by one of 1 keys of the metadata");
    expect(current()).toBe(before);
    expect(readLayout(place()).versions.map(({ state }) => state)).toEqual(["verified"]);
  });

  test("is ready while its operator is away, and is heard when it is there again", async () => {
    const host = await fleet.authority.enrolled("box");
    const places = ["--folder", place(), "--prefix", file("usr"), "--without-units", "--volatile"];
    await saysDone(["fleet", "install", ...places]);
    await fleet.authority.stop();
    const path = file("notify.sock");
    using socket = makeUnixSocket("datagram");
    expect(bindUnix(socket, path)).toBe(0);
    const heard = listenTo(socket);
    const environment = {
      ...{ NOTIFY_SOCKET: path, WATCHDOG_USEC: "400000" },
      [SUPERVISOR_VARIABLE]: file("supervise.sock"),
    };
    const words = ["fleet", "agent", "--folder", place(), "--identity", host.directory];
    const program = join(place(), "current/hostler");
    await using agent = startProgram([program, ...words], { environment });
    await heard(/^READY=1$/);
    expect(agent.output.stderr).toContain("the operator is not reached, ignoring: no credentials");
    expect(agent.output.stderr).not.toContain("is open");
    await fleet.start();
    await device("is heard", ({ standing, executor }) => standing === "alive" && executor !== null);
    await heard(/^WATCHDOG=1$/);
    agent.kill("SIGTERM");
    await heard(/^STOPPING=1$/);
    expect(await agent.ended()).toMatchObject({ exitCode: 0 });
  });

  test("one that its operator has revoked asks ever later, and says so", async () => {
    const host = await fleet.authority.enrolled("box");
    const places = ["--folder", place(), "--prefix", file("usr"), "--without-units", "--volatile"];
    await saysDone(["fleet", "install", ...places]);
    const path = file("notify.sock");
    using socket = makeUnixSocket("datagram");
    expect(bindUnix(socket, path)).toBe(0);
    const heard = listenTo(socket);
    const environment = { NOTIFY_SOCKET: path, [SUPERVISOR_VARIABLE]: file("supervise.sock") };
    const words = ["fleet", "agent", "--folder", place(), "--identity", host.directory];
    const program = join(place(), "current/hostler");
    await using agent = startProgram([program, ...words], { environment });
    await heard(/^STATUS=in a session with its operator$/);
    await saysDone(fleet.authority.local("host", "revoke", "box"));
    await heard(/^STATUS=refused by its operator, asked again in 30\.00 s: .*revoked/);
    await agent.said(/the operator refuses this host, asked again in 30\.00 s/);
  });

  test("is enrolled by one command, which says what is next", async () => {
    const token = file("box.token");
    writeFileSync(token, await fleet.authority.token("box"), { mode: 0o600 });
    const places = ["--directory", file("identity"), "--folder", place()];
    const said = await saysDone(["fleet", "enroll", "--token-file", token, ...places]);
    expect(said).toContain("enrolled as box at https://");
    expect(said).toContain("hostler fleet install --root FILE");
    expect(said).toContain(`hostler fleet supervise -- --identity ${file("identity")}`);
    // The token is its own: a second one changes nothing, and says the same.
    expect(await saysDone(["fleet", "enroll", "--token-file", token, ...places])).toBe(said);
  });

  test("what is missing is said, with what to do", async () => {
    const folder = file("fleet");
    const places = ["--folder", folder, "--prefix", file("usr"), "--without-units", "--volatile"];
    await saysDone(["fleet", "install", ...places]);
    const words = ["fleet", "agent", "--folder", folder, "--identity", file("nobody")];
    const program = join(folder, "current/hostler");
    await using notEnrolled = startProgram([program, ...words]);
    const { exitCode, stderr } = await notEnrolled.ended();
    expect(exitCode).toBe(111);
    expect(stderr).toContain(`expected an enrolled host, received none in ${file("nobody")}`);
    expect(stderr).toContain("hostler fleet enroll");
    expect(await saysRefused(words)).toContain("expected a program of its versions");
    const half = await runHostler([...words, "--candidate", "1"]);
    expect([half.exitCode, half.stderr.includes("--transaction")]).toEqual([100, true]);
  });
});
