/**
 * Two authorities in one place; the end of one while much is open; and that hosts and operators go
 * on by themselves with the next one.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { NativeMemory } from "../../ffi/memory.ts";
import { bindUnix, makeUnixSocket, receiveMessage } from "../../ffi/unix-socket.ts";
import { AuthorityClient } from "../../src/authority/client.ts";
import { authorityApi } from "../../src/authority/protocol.ts";
import { identityApi } from "../../src/identity/api.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { DurableAuthority } from "../support/durable-authority.ts";
import { startProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

describe("a second authority is refused, and the first one stays", () => {
  const shared = {
    "with the same state directory": {
      place: (first: DurableAuthority, second: DurableAuthority) => {
        second.state = first.state;
      },
      said: "another process has it. Stop that one",
    },
    "with the same control socket": {
      place: (first: DurableAuthority, second: DurableAuthority) => {
        second.socket = first.socket;
      },
      said: "somebody listens there already. Stop it first, or choose another path",
    },
    "at the same address": {
      place: (first: DurableAuthority, second: DurableAuthority) => {
        second.address = first.address;
      },
      said: "somebody listens there already. Stop it first, or choose another port",
    },
  } as const;
  for (const [name, { place, said }] of Object.entries(shared)) {
    test(name, async () => {
      await using first = new DurableAuthority();
      await using second = new DurableAuthority();
      await first.start();
      await first.enrol("web-1");
      place(first, second);
      const { exitCode, stderr, stdout } = await second.refused();
      expect({ exitCode, stdout }).toEqual({ exitCode: 111, stdout: "" });
      expect(stderr).toContain(said);
      await first.enrol("web-2");
      expect((await first.host("web-1").openSession()).host).toBe("web-1");
      await first.records();
      // And after the first one's end there is room.
      expect(await first.stop()).toMatchObject({ exitCode: 0 });
      expect(await second.start()).toBe(true);
      await second.stop();
    });
  }
});

describe("SIGTERM", () => {
  test("answers what was begun, ends streams and links, and leaves with 0", async () => {
    await using authority = new DurableAuthority();
    await authority.start();
    await authority.enrol("web-1");
    const rights = { role: "admin" as const, special: [] };
    const added = await authority.call(identityApi.operatorsAdd, { name: "alice", ...rights });
    const { shown } = await authority.call(identityApi.certificatesList, {});
    const alice = authority.folder.file("alice");
    writeFileSync(alice, added.token, { mode: 0o600 });
    const events = [hostlerWithFaults(), "identity", "events", "--follow"];
    const remote = ["--authority", authority.url, "--pin", shown, "--token-file", alice];
    await using here = startProgram([...events, "--control-socket", authority.socket]);
    await using there = startProgram([...events, ...remote]);
    await using session = startSession(authority, "web-1");
    await Promise.all([here.said(/operator-added/), there.said(/operator-added/)]);
    await session.said(/the link is up/);
    // Many calls, each way, as many as are open when the signal comes.
    const outcomes = [manyCalls(authority, { kind: "control", path: authority.socket })];
    const place = { kind: "https", url: authority.url, pins: [shown], token: added.token } as const;
    outcomes.push(manyCalls(authority, place));
    await waitFor("some calls", () => authority.troubles.length > 20);
    authority.program?.kill("SIGTERM");
    const ended = await authority.program?.ended();
    expect(ended).toMatchObject({ exitCode: 0, signal: null });
    expect(ended?.stderr).not.toMatch(/bug|unrecorded/);
    expect(ended?.stderr).toContain("authority: stopped");
    const answered = (await Promise.all(outcomes)).flat();
    // A stream that the authority ended itself is no failure.
    expect(await here.ended()).toMatchObject({ exitCode: 0, stderr: "" });
    await session.said(/the link is down/);
    await authority.start();
    // One over the network goes on by itself, with what comes after.
    await authority.call(identityApi.operatorsAdd, { name: "carol", ...rights });
    await there.said(/operator-added operator carol/);
    const { tokens } = await authority.call(identityApi.tokensList, {});
    const ids = new Set(tokens.map(({ id }) => id));
    expect(answered.filter((id) => !ids.has(id))).toEqual([]);
    const done = (await authority.records()).filter(({ result }) => result === "done");
    const objects = new Set(done.map(({ object }) => object));
    expect(answered.filter((id) => !objects.has(`token ${id}`))).toEqual([]);
    await waitFor("the link again", () => linksOf(session.output.stdout) === 2);
  });

  test("while it starts ends it too", async () => {
    await using authority = new DurableAuthority();
    const started = authority.launch();
    started.kill("SIGTERM");
    const { exitCode, signal } = await started.ended();
    expect(exitCode === 0 || signal === "SIGTERM").toBe(true);
    expect(await authority.start()).toBe(true);
  });
});

const manager = [root, program("setpriv", "util-linux")];
skipUnless("an authority under a service manager", manager, () => {
  test("has no power of root, and tells that it is ready, lives and stops", async () => {
    await using authority = new DurableAuthority();
    // As images/systemd/hostler-authority.service has it.
    const none = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"];
    authority.before = ["setpriv", "--no-new-privs", ...none];
    const path = authority.folder.file("notify.sock");
    using socket = makeUnixSocket("datagram");
    expect(bindUnix(socket, path)).toBe(0);
    const memory = new NativeMemory(4_096);
    const next = async (wanted: RegExp) =>
      await waitFor(`${wanted}`, () => {
        const message = receiveMessage(socket, memory);
        if (message.length <= 0) return undefined;
        const text = new TextDecoder().decode(memory.bytes.slice(0, message.length));
        return wanted.test(text) && text;
      });
    const started = authority.launch(undefined, { NOTIFY_SOCKET: path, WATCHDOG_USEC: "400000" });
    expect(await next(/^READY=1/)).toContain(`STATUS=listening at ${authority.url}`);
    const status = readFileSync(`/proc/${started.processId}/status`, "latin1");
    expect(status).toMatch(/^CapEff:\t0+$/m);
    await authority.enrol("web-1");
    await authority.call(identityApi.certificatesRotate, {});
    const file = authority.folder.file("backup");
    await authority.call(authorityApi.backup, { file });
    await next(/^WATCHDOG=1$/);
    await next(/^WATCHDOG=1$/);
    const ended = authority.stop();
    await next(/^STOPPING=1$/);
    expect(await ended).toMatchObject({ exitCode: 0 });
  });
});

test("SIGKILL: hosts come back by themselves, and operators' tokens go on", async () => {
  await using authority = new DurableAuthority();
  await authority.start();
  await authority.enrol("web-1");
  await authority.enrol("web-2");
  const rights = { role: "view" as const, special: [] };
  const { token } = await authority.call(identityApi.operatorsAdd, { name: "alice", ...rights });
  await using first = startSession(authority, "web-1");
  await using second = startSession(authority, "web-2");
  await Promise.all([first.said(/the link is up/), second.said(/the link is up/)]);
  for (const round of [2, 3]) {
    await authority.kill();
    await waitFor("the loss", () => countOf(first.output.stdout, "the link is down") === round);
    await authority.start();
    for (const { output } of [first, second]) {
      await waitFor("the link again", () => linksOf(output.stdout) === round);
    }
    expect(await authority.whoHas(token)).toBe("operator alice");
    const { sessions } = await authority.call(identityApi.sessionsList, {});
    expect(sessions.map(({ host }) => host).toSorted()).toEqual(["web-1", "web-2"]);
  }
  // What it was told of meanwhile reaches a host at its return.
  await authority.kill();
  await authority.start();
  await authority.call(identityApi.hostsRevoke, { name: "web-2" });
  const { exitCode, stderr } = await second.ended();
  expect(exitCode).toBe(111);
  expect(stderr).toContain("The host was revoked");
  first.kill("SIGTERM");
  expect(await first.ended()).toMatchObject({ exitCode: 0, stderr: "" });
});

function startSession(authority: DurableAuthority, name: string) {
  const words = ["identity", "session", "--directory", authority.hostFolder(name)];
  return startProgram([hostlerWithFaults(), ...words]);
}

const countOf = (text: string, words: string) => text.split(words).length - 1;
const linksOf = (text: string) => countOf(text, "the link is up");

/** Makes tokens until that is refused. @returns the ids of those that were answered */
async function manyCalls(
  authority: DurableAuthority,
  place: Parameters<typeof AuthorityClient.connect>[0],
): Promise<readonly string[]> {
  const answered: string[] = [];
  using client = await AuthorityClient.connect(place);
  const caller = async (number: number) => {
    for (let count = 0; ; count += 1) {
      const host = `${place.kind}-${number}-${count}`;
      const asked = { host, lifetime: 3_600_000, replace: false };
      const { token } = await client.call(identityApi.tokensCreate, asked);
      answered.push(token.id);
      authority.troubles.push(token.id);
    }
  };
  await Promise.allSettled([1, 2, 3, 4].map(caller));
  return answered;
}
