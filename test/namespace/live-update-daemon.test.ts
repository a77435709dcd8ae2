/** luod from its sockets to its kernel, which is the test's own: updates, and what follows. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { makeMemoryFile } from "../../ffi/memory-file.ts";
import type { SessionSummary } from "../../src/live-update/protocol.ts";
import { ControlRefusal } from "../../src/messaging/control-client.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { FakeKernel } from "../support/fake-kernel.ts";
import { holderOf } from "../support/holding.ts";
import { type LineClient, Machine, preserve, restore } from "../support/live-update-daemon.ts";
import {
  claim,
  nothingIsOpen,
  preserveOwn,
  restoreAll,
  subscribe,
  update,
} from "../support/live-update-story.ts";
import { runProgram, startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

async function refusalOf(request: Promise<unknown>): Promise<{ kind: string; message: string }> {
  const error = await rejectionOf(request);
  if (!(error instanceof ControlRefusal)) throw error;
  return error.error;
}

/** Begun, until its client that says hello has its session. */
async function begun(machine: Machine, words: object = {}) {
  const client = await machine.client();
  await client.ask({ cmd: "SUBSCRIBE", id: "vm", ...words });
  await machine.load();
  const order = await machine.kexec();
  const { line, session } = await client.given("START_PRESERVATION");
  return { client, order, line, session };
}

skipUnless("luod: an update", root, () => {
  test("reaches the new kernel, and is given back", async () => {
    await using machine = new Machine();
    await machine.start();
    await update(machine);
    expect(machine.kernel.incoming.map(({ name }) => name).sort()).toEqual([
      ...["bare", "greeted", "hostler"],
    ]);
    await machine.start();
    expect(await machine.status()).toMatchObject({ phase: "restoring", unclaimed: 2 });
    await restoreAll(machine);
    const { blackout } = await machine.status();
    expect(blackout?.clients).toBe(2);
    expect(typeof blackout?.kexec_ms).toBe("number");
  });

  test("two in a row", async () => {
    await using machine = new Machine();
    await machine.start();
    await update(machine);
    await machine.start();
    const greeted = await claim(machine, "greeted");
    await greeted.ask({ cmd: "FINISHED", id: "greeted" });
    // A bare one never says that it has finished: it does not stand in the way.
    await claim(machine, "bare");
    machine.disconnect();
    await update(machine);
    await machine.start();
    await restoreAll(machine);
  });

  test("a kexec that returns: both are told, all is closed, it may be tried again", async () => {
    await using machine = new Machine();
    await machine.start();
    machine.kernel.refuse("reboot", "EBUSY");
    const { greeted, bare } = await subscribe(machine);
    await machine.load();
    const { ended } = await machine.kexec();
    await preserveOwn(machine, greeted, "greeted");
    await preserveOwn(machine, bare, "bare");
    await bare.say({ cmd: "READY" });
    await greeted.ask({ cmd: "READY" });
    expect((await greeted.heard("ABORTED")).reason).toContain("the kernel refused");
    await bare.closed();
    expect(await ended).toMatchObject({ outcome: "refused-by-kernel" });
    expect(machine.kernel.outgoing).toEqual([]);
    expect(await machine.status()).toMatchObject({ phase: "loaded", update: null });
    machine.disconnect();
    await update(machine);
    await machine.start();
    await restoreAll(machine);
  });

  test("one that is optional and late goes without: said before the commit", async () => {
    await using machine = new Machine();
    await machine.start();
    const late = await machine.client();
    const words = { id: "late", required: false, deadline_ms: 100, sessions: ["", "log"] };
    await late.ask({ cmd: "SUBSCRIBE", ...words });
    const { client, session } = await begun(machine);
    using own = session;
    expect(await preserve(machine.kernel, own, "vm")).toBe(0);
    // It keeps what it has: that comes over the kexec, where nobody would ever claim it.
    await late.given("START_PRESERVATION");
    expect((await late.heard("ABORTED")).reason).toBe("it was not ready within 100 ms");
    await client.ask({ cmd: "READY", bytes: 2 });
    await waitFor("the new kernel", () => machine.kernel.ended === "kexec");
    const { stderr } = machine.luod.output;
    expect(stderr.indexOf("left-out late")).toBeLessThan(stderr.indexOf(" committing"));
    await machine.boot();
    expect(machine.kernel.incoming.map(({ name }) => name).sort()).toContain("late");
    await machine.start();
    await waitFor("its end", () => !machine.kernel.incoming.some(({ name }) => name === "late"));
    const again = await machine.client();
    expect((await again.ask({ cmd: "CLAIM", id: "late" })).error?.kind).toBe("unknown");
    await again.say({ cmd: "CLAIM", id: "vm" });
    expect(await restore(machine.kernel, (await again.given("CLAIMED")).session)).toBe("vm");
  });

  const failures = {
    "is late": [{ deadline_ms: 50 }, async () => {}, "it was not ready within 50 ms"],
    dies: [{}, async (client: LineClient) => client[Symbol.dispose](), "its connection ended"],
    aborts: [
      {},
      async (client: LineClient) => {
        await client.ask({ cmd: "ABORT", reason: "no memory" });
      },
      "it aborts: no memory",
    ],
    unsubscribes: [
      {},
      async (client: LineClient) => {
        await client.ask({ cmd: "UNSUBSCRIBE", id: "vm" });
      },
      "it unsubscribed",
    ],
  } as const;
  for (const [name, [words, fails, reason]] of Object.entries(failures)) {
    test(`a required client ${name}: it is rolled back for all`, async () => {
      await using machine = new Machine();
      await machine.start();
      const other = await machine.client();
      await other.ask({ cmd: "SUBSCRIBE", id: "other" });
      const { client, order, session } = await begun(machine, words);
      session.close();
      (await other.given("START_PRESERVATION")).session.close();
      await fails(client);
      const told = await other.heard("ABORTED");
      expect(told.reason).toBe(`vm is required: ${reason}`);
      expect(await order.ended).toMatchObject({
        outcome: "aborted",
        reason: told.reason as string,
      });
      expect(machine.kernel.outgoing).toEqual([]);
    });
  }

  test("the operator aborts it: in the creation, at the barrier, in a hook", async () => {
    await using machine = new Machine();
    const hook = machine.folder.file("hook");
    writeFileSync(hook, `#!/bin/sh\ntest -e ${hook}.quick && exit\ntouch ${hook}.runs\nsleep 2\n`, {
      mode: 0o755,
    });
    await machine.start({ flags: ["--kexec-hook", hook] });
    const client = await machine.client();
    await client.ask({ cmd: "SUBSCRIBE", id: "vm" });
    await machine.load();
    {
      using held = machine.kernel.hold("create");
      const { ended } = await machine.kexec();
      await waitFor("the creation", () => held.waiting > 0);
      await machine.ask("abort", { reason: "first" });
      const again = await refusalOf(machine.ask("abort"));
      expect(again).toMatchObject({ kind: "busy", hint: "Wait for its end." });
      held[Symbol.dispose]();
      expect(await ended).toMatchObject({ outcome: "aborted", reason: "first" });
    }
    for (const reason of ["barrier", "hook"]) {
      const { ended } = await machine.kexec();
      const { session } = await client.given("START_PRESERVATION");
      session.close();
      if (reason === "hook") {
        await client.ask({ cmd: "READY" });
        await waitFor("the hook", () => readFileSync(`${hook}.runs`));
      }
      await machine.ask("abort", { reason });
      expect((await client.heard("ABORTED")).reason).toBe(reason);
      expect(await ended).toMatchObject({ outcome: "aborted", reason });
      expect(machine.kernel.outgoing).toEqual([]);
    }
    writeFileSync(`${hook}.quick`, "");
    const { session } = await machine.kexec().then(() => client.given("START_PRESERVATION"));
    session.close();
    await client.ask({ cmd: "READY" });
    await waitFor("the new kernel", () => machine.kernel.ended === "kexec");
    // The hook of the update before has ended meanwhile: it moves nothing on.
    expect(machine.kernel.liveUpdates).toBe(1);
  });

  test("a hook that fails rolls it back, with its words", async () => {
    await using machine = new Machine();
    const hook = machine.folder.file("hook");
    writeFileSync(hook, "#!/bin/sh\necho the database is busy >&2\nexit 3\n", { mode: 0o755 });
    await machine.start({ flags: ["--kexec-hook", hook] });
    const { client, order, session } = await begun(machine);
    session.close();
    await client.ask({ cmd: "READY" });
    expect((await client.heard("ABORTED")).reason).toContain("exit 3): the database is busy");
    expect(await order.ended).toMatchObject({ outcome: "aborted" });
    expect(machine.kernel.outgoing).toEqual([]);
  });

  test("a dry run leaves the bare one out, unless it is said, and closes everything", async () => {
    await using machine = new Machine();
    await machine.start();
    const { greeted, bare } = await subscribe(machine);
    const dry = async (fields: object) => {
      const { ended } = await machine.kexec({ dry_run: true, ...fields });
      const { line, session } = await greeted.given("START_PRESERVATION");
      expect(line.dry_run).toBe(true);
      session.close();
      return { ended };
    };
    const first = await dry({});
    await greeted.ask({ cmd: "READY", bytes: 4096 });
    const leftOut = [{ id: "bare", reason: "bare: needs --include-bare" }];
    expect(await first.ended).toMatchObject({
      ...{ outcome: "dry-run", clients: [{ bytes: 4096 }], left_out: leftOut },
    });
    expect((await greeted.heard("ABORTED")).reason).toBe("it was a dry run");
    const second = await dry({ include_bare: true });
    (await bare.given("START_PRESERVATION")).session.close();
    await bare.say({ cmd: "READY" });
    await greeted.ask({ cmd: "READY" });
    await bare.closed();
    expect(await second.ended).toMatchObject({ clients: [{}, {}], left_out: [] });
    expect(machine.kernel.outgoing).toEqual([]);
    // With nobody else it ends in the very turn, and names whom it left out all the same.
    greeted[Symbol.dispose]();
    await (await machine.bareClient()).say({ cmd: "SUBSCRIBE", id: "bare" });
    await waitFor("it alone", async () => {
      const clients = await machine.ask<readonly { readonly id: string }[]>("list");
      return clients.length === 1 && clients[0]?.id === "bare";
    });
    const { ended } = await machine.kexec({ dry_run: true });
    expect(await ended).toMatchObject({ outcome: "dry-run", clients: [], left_out: leftOut });
  });

  test("without a kernel it is refused, also when somebody has just unloaded it", async () => {
    await using machine = new Machine();
    await machine.start();
    const refused = async () => refusalOf((await machine.kexec()).ended);
    expect(await refused()).toMatchObject({ kind: "not-loaded" });
    await machine.load();
    expect((await machine.status()).loaded?.foreign).toBe(true);
    machine.kernel.loaded = undefined;
    expect(await refused()).toMatchObject({ kind: "not-loaded" });
  });

  test("SIGTERM takes it back before luod ends", async () => {
    await using machine = new Machine();
    await machine.start();
    const { client, session } = await begun(machine);
    session.close();
    machine.luod.kill("SIGTERM");
    expect((await client.heard("ABORTED")).reason).toBe("luod is stopped");
    expect((await machine.luod.ended()).exitCode).toBe(0);
    await nothingIsOpen(machine);
  });
});

function luodAt(place: { readonly [P in "client" | "control" | "state"]: string }): string[] {
  return [
    ...[hostlerWithFaults(), "live-update", "daemon", "--socket", place.client],
    ...["--control-socket", place.control, "--state-directory", place.state],
  ];
}

skipUnless("luod: who dies", root, () => {
  test("the holder, in an update: luod fills another, and the update goes on", async () => {
    await using machine = new Machine();
    await machine.start();
    const { client, session } = await begun(machine);
    expect(await preserve(machine.kernel, session, "vm")).toBe(0);
    session.close();
    const holder = await holderOf(machine.controlSocket);
    process.kill(holder, "SIGKILL");
    await waitFor("another holder", async () => (await holderOf(machine.controlSocket)) !== holder);
    await client.ask({ cmd: "READY" });
    await machine.boot();
    await machine.start();
    const next = await machine.client();
    await next.say({ cmd: "CLAIM", id: "vm" });
    const claimed = await next.given("CLAIMED");
    expect(await restore(machine.kernel, claimed.session)).toBe("vm");
    claimed.session.close();
    // And once more, when it has been claimed.
    process.kill(await holderOf(machine.controlSocket), "SIGKILL");
    await next.say({ cmd: "CLAIM", id: "vm" });
    const again = await next.given("CLAIMED");
    expect(await restore(machine.kernel, again.session)).toBe("vm");
    again.session.close();
    await next.ask({ cmd: "FINISHED", id: "vm" });
    expect((await next.heard("FINISHED")).reason).toBe("its client has finished");
    await nothingIsOpen(machine);
  });

  test("the holder hangs in an update: it is killed, and the update goes on", async () => {
    await using machine = new Machine();
    await machine.start();
    const { client, session } = await begun(machine);
    expect(await preserve(machine.kernel, session, "vm")).toBe(0);
    session.close();
    const holder = await holderOf(machine.controlSocket);
    suspend(holder);
    // The commit asks it for the session of the registry.
    await client.ask({ cmd: "READY" });
    await machine.luod.said(
      new RegExp(`process ${holder}, has not answered for 10.00 s: it hangs`),
    );
    await machine.boot();
    await machine.start();
    const next = await machine.client();
    await next.say({ cmd: "CLAIM", id: "vm" });
    expect(await restore(machine.kernel, (await next.given("CLAIMED")).session)).toBe("vm");
  });

  test("the holder hangs when luod starts: said, left alone, and waited for", async () => {
    await using machine = new Machine();
    await machine.start();
    await update(machine);
    await machine.start();
    const holder = await holderOf(machine.controlSocket);
    suspend(holder);
    await machine.kill();
    machine.spawn();
    await machine.luod.said(new RegExp(`kill -CONT ${holder} has it go on, when it was`));
    expect(await holderOf(machine.controlSocket)).toBe(holder);
    process.kill(holder, "SIGCONT");
    await machine.listening();
    await restoreAll(machine);
  });

  test("the holder hangs while it retrieves: status and every refusal say so", async () => {
    await using machine = new Machine();
    await machine.start();
    await update(machine);
    await machine.start();
    const holder = await holderOf(machine.controlSocket);
    const held = machine.kernel.hold("retrieve-session");
    const greeted = await machine.client();
    await greeted.say({ cmd: "CLAIM", id: "greeted" });
    await machine.luod.said(new RegExp(`kill -KILL ${holder} ends it, and those are lost`));
    const { troubles } = await machine.status();
    expect(troubles).toEqual([expect.stringContaining(`the holder, process ${holder},`)]);
    const dry = await machine.kexec({ dry_run: true });
    const other = await machine.client();
    await other.ask({ cmd: "SUBSCRIBE", id: "other" });
    const { ended } = await machine.kexec({ dry_run: true });
    // Nobody takes part in the first one: it ends at once. The second waits for the holder.
    expect((await dry.ended).outcome).toBe("dry-run");
    await waitFor("its begin", async () => (await machine.status()).phase === "preserving");
    await machine.ask("abort");
    const refusal = await refusalOf(machine.ask("abort"));
    expect(refusal.message).toMatch(/is being rolled back already/);
    expect(JSON.stringify(refusal)).toContain(`process ${holder}`);
    held[Symbol.dispose]();
    expect((await ended).outcome).toBe("aborted");
    await greeted.given("CLAIMED");
    expect((await machine.status()).troubles).toEqual([]);
  });

  test("luod and the holder, after the kexec: who has not claimed yet still can", async () => {
    await using machine = new Machine();
    await machine.start();
    await update(machine);
    await machine.start();
    await claim(machine, "bare");
    suspend(await holderOf(machine.controlSocket));
    const holder = await holderOf(machine.controlSocket);
    await machine.kill();
    process.kill(holder, "SIGKILL");
    await waitFor("the end of the registry", () => {
      return !machine.kernel.incoming.some(({ name }) => name === "hostler");
    });
    await machine.start();
    await claim(machine, "greeted");
    const bare = await machine.client();
    expect((await bare.ask({ cmd: "CLAIM", id: "bare" })).error?.kind).toBe("lost");
  });

  test("a client after its CLAIM: it claims again, or hinders the next kexec", async () => {
    await using machine = new Machine();
    await machine.start();
    await update(machine);
    await machine.start();
    (await claim(machine, "greeted"))[Symbol.dispose]();
    await claim(machine, "bare");
    await machine.load();
    const refused = () => machine.kexec().then(({ ended }) => refusalOf(ended));
    await waitFor("its end", async () => (await refused()).message.includes("greeted"));
    await claim(machine, "greeted");
    await machine.ask("finish", { client: "greeted" });
    await machine.ask("finish", { client: "bare" });
    await nothingIsOpen(machine);
  });

  test("a second luod is refused while the first lives", async () => {
    await using machine = new Machine();
    await machine.start();
    await using second = startProgram(machine.words(), { environment: machine.kernel.environment });
    const { exitCode, stderr } = await second.ended();
    expect(exitCode).toBe(111);
    expect(stderr).toMatch(/Another luod has the state directory .*: process \d+\. Stop it first/);
    expect((await machine.status()).phase).toBe("idle");
  });

  test("a second luod with other paths is refused as well: there is one for a kernel", async () => {
    await using machine = new Machine();
    await machine.start();
    const other = (name: string) => machine.folder.file(`other-${name}`);
    const { stateDirectory, clientSocket, controlSocket } = machine;
    const places = [
      luodAt({ client: other("clients"), control: other("control"), state: other("state") }),
      luodAt({ client: clientSocket, control: controlSocket, state: other("state") }),
    ];
    const { environment } = machine.kernel;
    const said = new RegExp(
      `serves this kernel: process ${machine.luod.processId}\\. Stop it first`,
    );
    for (const words of places) {
      const second = await runProgram(words, { environment });
      expect(second).toMatchObject({ exitCode: 111, stderr: expect.stringMatching(said) });
    }
    // What is removed with the state directory does not let another one in.
    rmSync(stateDirectory, { recursive: true });
    const third = await runProgram(machine.words(), { environment });
    expect(third).toMatchObject({ exitCode: 111, stderr: expect.stringMatching(said) });
    expect((await machine.status()).phase).toBe("idle");
  });

  test("a second luod with the control socket of another is told so by its holder", async () => {
    await using machine = new Machine();
    await machine.start();
    using kernel = new FakeKernel(machine.folder.file("other-kernel.sock"));
    const { clientSocket: client, controlSocket: control } = machine;
    const words = luodAt({ client, control, state: machine.folder.file("other-state") });
    const { environment } = kernel;
    const { exitCode, stderr } = await runProgram(words, { environment });
    expect(exitCode).toBe(111);
    expect(stderr).toContain(`the first, process ${machine.luod.processId}, lives. Stop it first`);
    expect((await machine.status()).phase).toBe("idle");
  });
});

skipUnless("luod: what came", root, () => {
  /** With the two of a story restored, and nothing claimed. */
  async function restoring(flags: readonly string[] = []): Promise<Machine> {
    const machine = new Machine();
    await machine.start();
    await update(machine);
    await machine.start({ flags });
    return machine;
  }

  test("is kept when nobody claims it; a kexec is refused unless it may be lost", async () => {
    await using machine = await restoring();
    const sessions = await machine.ask<SessionSummary[]>("sessions");
    expect(sessions.map(({ finish_in_ms: left }) => left)).toEqual([null, null]);
    await machine.load();
    const { kind, message } = await refusalOf((await machine.kexec()).ended);
    expect({ kind, message }).toEqual({
      kind: "unclaimed",
      message: "2 sessions of the last update wait for their clients: greeted, bare",
    });
    await machine.kexec({ discard_unclaimed: true });
    await machine.boot();
    await machine.start();
    await nothingIsOpen(machine);
  });

  test("is finished after a time, when that is the policy", async () => {
    await using machine = await restoring(["--unclaimed", "300ms"]);
    expect((await machine.status()).unclaimed_policy).toBe("finish after 300 ms");
    await nothingIsOpen(machine);
    expect((await machine.status()).phase).toBe("idle");
  });

  test("is finished after that time from the first offer, over restarts of luod", async () => {
    await using machine = await restoring();
    const path = `${machine.stateDirectory}/state.json`;
    const offered = () => JSON.parse(readFileSync(path, "utf8")).offered_monotonic_ms as number;
    const first = offered();
    await machine.kill();
    await machine.start({ flags: ["--unclaimed", "1h"] });
    expect(offered()).toBe(first);
    const sessions = await machine.ask<SessionSummary[]>("sessions");
    for (const { finish_in_ms: left } of sessions) expect(left).toBeLessThan(3_600_000);
    // As one that was offered an hour ago.
    await machine.kill();
    const saved = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...saved, offered_monotonic_ms: first - 3_600_000 }));
    await machine.start({ flags: ["--unclaimed", "1h"] });
    await nothingIsOpen(machine);
  });

  test("is finished by the operator, whoever waits for it", async () => {
    await using machine = await restoring();
    expect(await refusalOf(machine.ask("finish", { client: "nobody" }))).toMatchObject({
      kind: "unknown-client",
    });
    expect(await machine.ask<string[]>("finish", { client: "greeted" })).toEqual(["greeted"]);
    const client = await claim(machine, "bare");
    await machine.ask("finish", { client: "bare" });
    await nothingIsOpen(machine);
    client.look();
    // A bare one is told nothing that it does not know.
    expect(client.lines).toEqual([]);
    const late = await machine.client();
    expect((await late.ask({ cmd: "CLAIM", id: "greeted" })).error?.kind).toBe("unknown");
  });

  test("is finished by the operator while it is being retrieved: once, and whole", async () => {
    await using machine = await restoring();
    const client = await machine.client();
    using held = machine.kernel.hold("retrieve-session");
    await client.say({ cmd: "CLAIM", id: "greeted" });
    await waitFor("the retrieval", () => held.waiting > 0);
    await machine.ask("finish", { client: "greeted" });
    expect((await client.heard("ERROR")).error?.kind).toBe("finished");
    held[Symbol.dispose]();
    await waitFor("its end", () => !machine.kernel.incoming.some(({ name }) => name === "greeted"));
    const { stderr } = machine.luod.output;
    expect(stderr).not.toContain("cannot finish");
    await machine.ask("finish", { client: "bare" });
    await nothingIsOpen(machine);
  });

  test("is claimed twice by one connection, and told once that it is finished", async () => {
    await using machine = await restoring();
    const client = await claim(machine, "greeted");
    await client.say({ cmd: "CLAIM", id: "greeted" });
    (await client.given("CLAIMED")).session.close();
    expect((await client.ask({ cmd: "FINISHED", id: "greeted" })).event).toBe("OK");
    await client.heard("FINISHED");
    const after = await client.ask({ cmd: "CLAIM", id: "greeted" });
    expect(after.error?.kind).toBe("unknown");
    const again = await client.ask({ cmd: "FINISHED", id: "greeted" });
    expect(again.error?.kind).toBe("not-claimed");
    expect(client.lines).toEqual([]);
  });

  test("a registry that nobody understands: nothing is finished, and root may claim", async () => {
    await using machine = new Machine();
    using content = makeMemoryFile("vm");
    writeFileSync(content.number, "what vm has");
    using registry = makeMemoryFile("registry");
    writeFileSync(registry.number, JSON.stringify({ version: 2, whatever: [] }));
    machine.kernel.bring("vm", { "1": content });
    machine.kernel.bring("hostler", { "0": registry });
    await machine.start();
    await machine.luod.said(/registry of the former kernel is not understood: version/);
    expect((await machine.status()).phase).toBe("restoring");
    expect(machine.kernel.incoming).toHaveLength(2);
    await machine.load();
    expect(await refusalOf((await machine.kexec()).ended)).toMatchObject({ kind: "unclaimed" });
    const client = await machine.client();
    expect((await client.ask({ cmd: "CLAIM", id: "other" })).error?.kind).toBe("lost");
    await client.say({ cmd: "CLAIM", id: "vm" });
    const { session } = await client.given("CLAIMED");
    expect(await restore(machine.kernel, session)).toBe("what vm has");
    session.close();
    await client.ask({ cmd: "FINISHED", id: "vm" });
    await client.heard("FINISHED");
    expect(machine.kernel.incoming.map(({ name }) => name)).toEqual(["hostler"]);
  });

  test("a registry that is no JSON, or has none in it", async () => {
    await using machine = new Machine();
    using registry = makeMemoryFile("registry");
    writeFileSync(registry.number, "{");
    machine.kernel.bring("hostler", { "0": registry });
    await machine.start();
    await machine.luod.said(/not understood: expected JSON, received 1 other bytes/);
    expect(machine.kernel.incoming).toHaveLength(1);
  });

  test("a device that another has: luod waits for it, and offers all of it then", async () => {
    await using machine = new Machine();
    await machine.start();
    await update(machine);
    machine.kernel.refuse("open", "EBUSY", 40);
    await machine.start();
    expect(machine.luod.output.stderr).toContain("cannot retrieve the registry yet");
    await restoreAll(machine);
  });

  test("a state file that is damaged is kept aside, and nothing is lost", async () => {
    await using machine = await restoring();
    await claim(machine, "bare");
    await machine.kill();
    const state = `${machine.stateDirectory}/state.json`;
    writeFileSync(state, "{");
    await machine.start();
    await machine.luod.said(/state\.json is damaged; it is kept as .*state\.json\.damaged/);
    expect(readFileSync(`${state}.damaged`, "utf8")).toBe("{");
    await restoreAll(machine);
  });

  test("a device that is busy for ever: a required client fails, and it is said why", async () => {
    await using machine = new Machine();
    await machine.start();
    const client = await machine.client();
    await client.ask({ cmd: "SUBSCRIBE", id: "vm" });
    await machine.load();
    machine.kernel.refuse("open", "EBUSY", Number.POSITIVE_INFINITY);
    const { ended } = await machine.kexec();
    expect((await ended).reason).toMatch(/vm is required: .*held open by another for 5000 ms/);
    expect(client.lines).toEqual([]);
    machine.kernel.refuse("open", "EBUSY", 3);
    await machine.kexec();
    (await client.given("START_PRESERVATION")).session.close();
  });

  test("a name that is taken: the update is rolled back, and the rest is closed", async () => {
    await using machine = new Machine();
    await machine.start();
    const { order, client, session } = await begun(machine, { sessions: ["", "log"] });
    await machine.ask("abort");
    await order.ended;
    // It keeps its duplicate, and with it the session.
    await client.heard("ABORTED");
    const second = await machine.kexec();
    expect((await second.ended).reason).toContain("(EEXIST)");
    session.close();
    for (const descriptor of client.descriptors.splice(0)) descriptor.close();
    await waitFor("its end", () => machine.kernel.outgoing.length === 0);
    await machine.kexec();
    await client.heard("START_PRESERVATION");
    rmSync(machine.stateDirectory, { recursive: true });
  });
});
