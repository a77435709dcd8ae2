/** The compiled orchestrator: agents by the wire, a killed process, full and damaged disks. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { hashOf } from "../../src/identity/secrets.ts";
import { vettingApi, vettingStreams } from "../../src/vetting/protocol-api.ts";
import { brokenLink } from "../../src/vetting/protocol-chain.ts";
import type { Stage } from "../../src/vetting/protocol-result.ts";
import { root, skipUnless } from "../support/skips.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { DurableOrchestrator, type WireAgent } from "../support/vetting-orchestrator/daemon.ts";
import { drawn, mac, otherIdentity } from "../support/vetting-orchestrator/runs.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const message = async (promise: Promise<unknown>) => (await rejectionOf(promise)).message;

async function claimed(orchestrator: DurableOrchestrator, run: number): Promise<WireAgent> {
  const agent = await orchestrator.agent(run, await orchestrator.mint(run));
  await agent.claim();
  return agent;
}

async function chainHolds(orchestrator: DurableOrchestrator, run: number): Promise<number> {
  const { view, spec, results } = await orchestrator.call(vettingApi.dossier, { run });
  const { created, spec_revision } = view;
  const subject = { run, mac, created, spec_revision, spec };
  expect(brokenLink(subject, results, hashOf)).toBeUndefined();
  return results.length;
}

async function firstLine(port: number, hello: unknown): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = "";
  const socket = await Bun.connect({
    ...{ hostname: "127.0.0.1", port },
    socket: {
      open: (opened) => {
        opened.write(`${JSON.stringify(hello)}\n`);
      },
      data: (_socket, bytes) => {
        text += bytes.toString("latin1");
        if (text.includes("\n")) resolve(text.slice(0, text.indexOf("\n")));
      },
      close: () => reject(new Error(`It closed after ${JSON.stringify(text)}`)),
    },
  });
  try {
    return await promise;
  } finally {
    socket.end();
  }
}

describe("an orchestrator and its agents", () => {
  test("a healthy host walks all stages; its dossier has all of it", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const agent = await claimed(orchestrator, run);
    await agent.log(1, ["first", "second"]);
    await agent.log(2, ["second", "third"]);
    const way: readonly Stage[] = ["Inventory", "SMART", "CPUStress", "Storage", "Network", "GPU"];
    for (const stage of way) await agent.walks(stage);
    expect(await agent.walks("PSU")).toBe("Completed");
    const dossier = await orchestrator.call(vettingApi.dossier, { run });
    expect(dossier.view).toMatchObject({ state: "Completed", verdict: "passed" });
    expect(dossier.inventory?.system.uuid).toBe(agent.identity.uuid);
    expect(dossier.log.map(({ text }) => text)).toEqual(["first", "second", "third"]);
    expect(await chainHolds(orchestrator, run)).toBe(7);
    const { hosts } = await orchestrator.call(vettingApi.hosts, {});
    expect(hosts[0]?.verdict).toMatchObject({ verdict: "passed", run });
  });

  test("tokens: one claim each, no other call, no other run, ended by the next", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const token = await orchestrator.mint(run);
    const unclaimed = await orchestrator.agent(run, token);
    expect(await message(unclaimed.beat())).toContain("good for a claim alone");
    await unclaimed.claim();
    // The answer was lost: the same process asks again. Another one is refused, and told of.
    const again = await orchestrator.agent(run, token);
    await again.claim();
    expect(await message(unclaimed.beat())).toContain("does not count");
    const thief = await orchestrator.agent(run, token, drawn(7));
    expect(await message(thief.claim())).toContain("used already, by another process");
    const { events } = await orchestrator.call(vettingApi.dossier, { run });
    expect(events.map(({ message: said }) => said).join()).toContain("used a second time");
    expect(await message(again.beat(run + 1))).toContain("is of another run");
    expect(await message(again.trespasses())).toContain(`run ${run} lacks the permission view`);
    const unasked = await message(orchestrator.mint(run, { replace: false }));
    expect(unasked).toContain("Another token would end the session of run");
    expect(unasked).toContain("hostler 1.0.0 at 127.0.0.1, in InventoryCheck, heard 0 s ago");
    await again.beat();
    await orchestrator.mint(run);
    expect(await message(again.beat())).toContain("does not count");
    const made = await orchestrator.agent(run, `hostler-run-s-${run}-${"A".repeat(43)}`);
    expect(await message(made.beat())).toContain("does not count");
    const operator = await orchestrator.agent(run, "no-token-at-all");
    expect(await message(operator.beat())).toContain("counts for nobody");
  });

  test("a window that is closed mints nothing", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    await orchestrator.call(vettingApi.hostWindow, { mac, for_ms: 0 });
    expect(await message(orchestrator.mint(run))).toContain("may not boot now");
  });

  test("another machine holds, and the run says what is different", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    await (await claimed(orchestrator, run)).walks("Inventory");
    const other = await orchestrator.agent(run, await orchestrator.mint(run), drawn(2));
    other.identity = otherIdentity;
    other.bootId = "boot-2";
    expect((await other.claim()).current_state).toBe("FailedHolding");
    const view = await orchestrator.call(vettingApi.run, { run });
    expect(view.reason).toContain("identity changed: serial of the board");
    expect(await message(orchestrator.call(vettingApi.retry, { run }))).toContain(
      "override identity",
    );
  });

  test("a token on another host than the run's is of nobody's verdict", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const other = await orchestrator.agent(run, await orchestrator.mint(run));
    // As QEMU's hosts, and many real ones: SMBIOS says nothing, and the loader's word is copied.
    other.identity = { uuid: null, system_serial: null, board_serial: null };
    other.macs = ["52:54:00:ee:ee:01"];
    expect((await other.claim()).current_state).toBe("FailedHolding");
    const { view } = await orchestrator.call(vettingApi.dossier, { run });
    expect(view.reason).toContain(`the run is of card ${mac}, this host has 52:54:00:ee:ee:01`);
    const { hosts } = await orchestrator.call(vettingApi.hosts, {});
    expect(hosts[0]).toMatchObject({ verdict: null, identity: null });
  });

  test("an agent of another protocol is told so, and how that is mended", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const older = await orchestrator.agent(run, await orchestrator.mint(run));
    older.protocol = 1;
    older.macs = [];
    expect(await message(older.claim())).toContain("Make the live image of the same hostler");
  });

  test("a hold: the key for so long, its host's fingerprint, and a release", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const agent = await claimed(orchestrator, run);
    expect(await agent.walks("Inventory", "FAIL")).toBe("FailedHolding");
    expect(await agent.hold("256 SHA256:abc root@live (ED25519)")).toMatchObject({
      authorized_key: null,
    });
    const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA alice";
    const held = await orchestrator.call(vettingApi.hold, { run, key, for_ms: 60_000 });
    expect(held.hold?.host_key).toContain("SHA256:abc");
    const given = await agent.hold("256 SHA256:abc root@live (ED25519)");
    expect(given.authorized_key).toBe(key);
    expect(given.expires_in_ms).toBeLessThanOrEqual(60_000);
    await orchestrator.call(vettingApi.release, { run, after: "reboot" });
    const { directives } = await agent.beat();
    expect(directives.map(({ kind }) => kind)).toEqual(["revoke-hold", "reboot"]);
    const view = await orchestrator.call(vettingApi.run, { run });
    expect(view).toMatchObject({ verdict: "failed", ended: expect.any(String) });
    const wrong = orchestrator.call(vettingApi.hold, { run, key: "none", for_ms: 1 });
    expect(await message(wrong)).toContain("public key");
  });

  test("a test of links is told to the run that claims, and is for no other", async () => {
    await using orchestrator = new DurableOrchestrator();
    orchestrator.flags = ["--throughput", "127.0.0.1:0"];
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const agent = await orchestrator.agent(run, await orchestrator.mint(run));
    const told = (await agent.claim()).network_test;
    expect(told).toMatchObject({ host: "127.0.0.1", run });
    const hello = { protocol: 1, run, direction: "down", seconds: 0.001 };
    const port = told?.port ?? 0;
    const other = await firstLine(port, { ...hello, key: drawn(1) });
    expect(JSON.parse(other)).toMatchObject({ say: "refused" });
    const own = await firstLine(port, { ...hello, key: told?.key ?? "" });
    expect(JSON.parse(own)).toEqual({ say: "wait" });
  });

  test("a batch that is too large, and a clock that is wrong", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const agent = await claimed(orchestrator, run);
    const many = Array.from({ length: 513 }, () => "line");
    expect(await message(agent.log(1, many))).toContain("512");
    const body = new ReadableStream<Uint8Array>({
      // More than there is memory for, if somebody kept it.
      pull: (controller) => controller.enqueue(new Uint8Array(1024 ** 2)),
    });
    const answer = await fetch(`${orchestrator.url}/v1/vetting/runs/${run}/log`, {
      ...{ method: "POST", body, duplex: "half" },
      headers: { authorization: `Bearer ${agent.session}`, "content-type": "application/json" },
      tls: { rejectUnauthorized: false, checkServerIdentity: () => undefined },
    } as RequestInit).catch((error: Error) => error);
    // The refusal is there, or the connection was closed before it was read.
    if (answer instanceof Response) expect(answer.status).toBe(413);
    await agent.log(1, ["from the past"], "1970-01-01T00:00:00.000Z");
    await agent.log(2, ["from the future"], "2099-01-01T00:00:00.000Z");
    const { log, view } = await orchestrator.call(vettingApi.dossier, { run });
    expect(log.map(({ text }) => text)).toEqual(["from the past", "from the future"]);
    expect(view.state).toBe("InventoryCheck");
  });

  test("who follows is told what is, then what happens; a log goes on at its place", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const agent = await claimed(orchestrator, run);
    await agent.log(1, ["one", "two"]);
    const client = await orchestrator.client();
    const stop = new AbortController();
    const lines: string[] = [];
    let after: string | undefined;
    for await (const { id, data } of client.stream(
      vettingStreams.logs,
      { run },
      {
        signal: stop.signal,
      },
    )) {
      lines.push(data.text);
      after = id;
      if (lines.length === 2) await agent.log(3, ["three"]);
      if (lines.length === 3) break;
    }
    expect(lines).toEqual(["one", "two", "three"]);
    await agent.log(4, ["four"]);
    for await (const { data } of client.stream(
      vettingStreams.logs,
      { run },
      {
        ...{ after, signal: stop.signal },
      },
    )) {
      expect(data.text).toBe("four");
      break;
    }
    const kinds: string[] = [];
    for await (const { data } of client.stream(
      vettingStreams.runEvents,
      { run },
      {
        signal: stop.signal,
      },
    )) {
      kinds.push(data.kind);
      if (kinds.length === 1) await agent.walks("Inventory", "FAIL");
      if (data.kind === "result") break;
    }
    expect(kinds[0]).toBe("run");
    expect(kinds).toContain("event");
  });
});

describe("an orchestrator that is killed", () => {
  for (const when of ["before", "after"] as const) {
    test(`${when} a commit: what was answered is there, the rest is told again`, async () => {
      await using orchestrator = new DurableOrchestrator();
      await orchestrator.start();
      const run = await orchestrator.prepare();
      const agent = await claimed(orchestrator, run);
      const { attempt } = await agent.attempt("Inventory");
      const result = agent.draw();
      await orchestrator.stop();
      await orchestrator.start(`vetting-orchestrator:commit:${when}`);
      expect(await rejectionOf(agent.result("Inventory", attempt, "PASS", result))).toBeDefined();
      await orchestrator.program?.ended();
      await orchestrator.start();
      expect(await agent.result("Inventory", attempt, "PASS", result)).toBe("SMART");
      expect(await chainHolds(orchestrator, run)).toBe(1);
      // The session outlives the process, and so does the attempt of the next stage.
      const asked = await agent.attempt("SMART");
      await orchestrator.kill();
      await orchestrator.start();
      const told = await agent.attempt("SMART", asked.attempt);
      expect(told.answer).toMatchObject({ decision: "start", number: 1 });
    });
  }

  for (const when of ["before", "after"] as const) {
    test(`${when} its tables are made: the next start goes on`, async () => {
      await using orchestrator = new DurableOrchestrator();
      expect(await orchestrator.start(`vetting-orchestrator:create:${when}`)).toBe(false);
      await orchestrator.start();
      expect(await orchestrator.prepare()).toBe(1);
    });
  }
});

describe("an orchestrator's database", () => {
  test("a damaged one is refused with the way back, which leads back", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    await orchestrator.prepare();
    await orchestrator.stop();
    copyFileSync(orchestrator.database, `${orchestrator.database}.copy`);
    const bytes = readFileSync(orchestrator.database);
    bytes.fill(0xff, 4_096, 3 * 4_096);
    writeFileSync(orchestrator.database, bytes);
    const { exitCode, stderr } = await orchestrator.refused();
    expect([exitCode, stderr]).toEqual([111, expect.stringContaining("it is damaged")]);
    expect(stderr).toContain(`Put a copy of it back, without ${orchestrator.database}-wal`);
    copyFileSync(`${orchestrator.database}.copy`, orchestrator.database);
    for (const suffix of ["-wal", "-shm"]) rmSync(orchestrator.database + suffix, { force: true });
    await orchestrator.start();
    expect((await orchestrator.call(vettingApi.runs, {})).total).toBe(1);
    await orchestrator.stop();
    for (const suffix of ["", "-wal", "-shm"]) {
      rmSync(orchestrator.database + suffix, { force: true });
    }
    await orchestrator.start();
    expect((await orchestrator.call(vettingApi.runs, {})).total).toBe(0);
  });

  test("what is no database, and a folder that others may read, are refused", async () => {
    await using orchestrator = new DurableOrchestrator();
    await orchestrator.start();
    await orchestrator.stop();
    const folder = dirname(orchestrator.database);
    chmodSync(folder, 0o755);
    expect((await orchestrator.refused()).stderr).toContain(`Say chmod 700 ${folder}`);
    chmodSync(folder, 0o700);
    writeFileSync(
      orchestrator.database,
      "this is no database at all, and never was one. ".repeat(99),
    );
    expect((await orchestrator.refused()).stderr).toContain("it is damaged");
  });
});

skipUnless("a full disk of an orchestrator", root, () => {
  test("507 with the mend, nothing half-done; with room it goes on", async () => {
    await using orchestrator = new DurableOrchestrator();
    using disk = new SmallDisk(orchestrator.state, "32m");
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const agent = await claimed(orchestrator, run);
    const { attempt } = await agent.attempt("Inventory");
    const result = agent.draw();
    disk.fill();
    const text = "x".repeat(2_000);
    const lines = Array.from({ length: 500 }, () => text);
    let said = "";
    // SQLite may have some pages of its log left.
    for (let sequence = 1; said === "" && sequence < 20_000; sequence += 500) {
      said = await agent.log(sequence, lines).then(
        () => "",
        (error: Error) => error.message,
      );
    }
    expect(said).toContain("disk is full");
    expect(said).toContain("--retain");
    const refused = await message(agent.result("Inventory", attempt, "PASS", result));
    expect(refused).toContain("disk is full");
    const view = await orchestrator.call(vettingApi.run, { run });
    expect(view.state).toBe("InventoryCheck");
    expect((await agent.beat()).state).toBe("InventoryCheck");
    disk.clear();
    expect(await agent.result("Inventory", attempt, "PASS", result)).toBe("SMART");
    expect(await chainHolds(orchestrator, run)).toBe(1);
  });
});
