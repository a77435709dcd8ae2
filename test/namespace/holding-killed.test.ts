/** The holder killed between any two of its steps, with a kernel of the test's own behind it. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import {
  type HolderStep,
  holderSocketOf,
  holderSteps,
  limits,
  type RequestKind,
} from "../../src/holding/protocol.ts";
import { encodeFrame } from "../../src/messaging/frame.ts";
import { RawClient } from "../support/agent-client.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { FakeKernel } from "../support/fake-kernel.ts";
import { endHolders, holderOf, noHolder, openFile, TestDaemon } from "../support/holding.ts";
import { type Program, startProgram } from "../support/program.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let folder: TemporaryFolder;
let control: string;
let kernel: FakeKernel;

beforeEach(() => {
  folder = temporaryFolder();
  control = folder.file("control.sock");
  kernel = new FakeKernel(folder.file("kernel.sock"));
});

afterEach(() => {
  endHolders(control);
  kernel[Symbol.dispose]();
  folder[Symbol.dispose]();
});

/** A holder that a daemon of this process will find, with this environment. */
async function startHolder(environment: Readonly<Record<string, string>> = {}): Promise<Program> {
  const words = [hostlerWithFaults(), "--hold", control];
  const holder = startProgram(words, { environment: { ...kernel.environment, ...environment } });
  await waitFor("the holder's socket", () => existsSync(holderSocketOf(control)));
  return holder;
}

/** A daemon whose own holders ask this test's kernel: they are started without an environment. */
function startDaemon(): TestDaemon {
  const [assignment = ""] = Object.entries(kernel.environment).map(([name, value]) => {
    return `${name}=${value}`;
  });
  return new TestDaemon(control, ["/usr/bin/env", assignment, hostlerWithFaults(), "--hold"]);
}

const outgoing = () => kernel.outgoing.map(({ name }) => name);
const isOpen = (name: string) => kernel.incoming.find((session) => session.name === name)?.open;

/** What is asked, and what must be true whenever the holder died meanwhile. */
const cases: Record<RequestKind, (daemon: TestDaemon, step: HolderStep) => Promise<void>> = {
  put: async (daemon) => {
    const inode = await daemon.putFile("it", folder.file("it"));
    expect(await daemon.get("it")).toBe(inode);
  },
  get: async (daemon) => {
    const inode = await daemon.putFile("it", folder.file("it"));
    expect(await daemon.get("it")).toBe(inode);
  },
  drop: async (daemon) => {
    await daemon.putFile("it", folder.file("it"));
    expect(await daemon.drop("it")).toBeUndefined();
    expect(await daemon.get("it")).toBeUndefined();
    expect(await daemon.list()).toEqual(["before"]);
  },
  list: async (daemon) => {
    expect(await daemon.list()).toEqual(["before"]);
  },
  "create-session": async (daemon) => {
    const made = await daemon.session("createSession", "it");
    if (!(made instanceof OwnedDescriptor)) throw new Error(made.message);
    expect(outgoing()).toEqual(["it"]);
    made.close();
    // It is in the holder, and not in the daemon alone.
    expect(await daemon.get("it")).toBeDefined();
    expect(outgoing()).toEqual(["it"]);
    await daemon.drop("it");
    expect(outgoing()).toEqual([]);
  },
  "retrieve-session": async (daemon, step) => {
    kernel.bring("it");
    const found = await daemon.session("retrieveSession", "it");
    if (step === "holder:retrieve-session:performed") {
      expect(found).toMatchObject({ code: "ESTALE" });
      expect((found as { message: string }).message).toContain("was lost with the holder");
      expect(kernel.incoming).toEqual([]);
      return;
    }
    if (!(found instanceof OwnedDescriptor)) throw new Error(found.message);
    found.close();
    expect(isOpen("it")).toBe(true);
    expect(await daemon.get("it")).toBeDefined();
    await daemon.drop("it");
    expect(kernel.incoming).toEqual([]);
  },
};

/** Of these the first pass is the daemon's own, when it makes both sides equal. */
const passOf = (step: HolderStep) => (/^holder:(list|put):/.test(step) ? `${step}#2` : step);

describe("killed in a request", () => {
  for (const step of holderSteps) {
    test(`at ${step}`, async () => {
      await using holder = await startHolder({ HOSTLER_KILL_AT: passOf(step) });
      using daemon = startDaemon();
      const before = await daemon.putFile("before", folder.file("before"));
      const kind = step.split(":")[1] as RequestKind;
      await cases[kind](daemon, step);
      expect((await holder.ended()).signal).toBe("SIGKILL");
      await daemon.ready(2);
      expect(await daemon.get("before")).toBe(before);
      expect(await holderOf(control)).not.toBe(holder.processId);
    });
  }
});

describe("killed while both sides are made equal", () => {
  for (const step of ["received", "performed", "answered"] as const) {
    test(`at the list: ${step}`, async () => {
      await using holder = await startHolder({ HOSTLER_KILL_AT: `holder:list:${step}` });
      using daemon = startDaemon();
      await daemon.putFile("a", folder.file("a"));
      expect(await daemon.list()).toEqual(["a"]);
      expect((await holder.ended()).signal).toBe("SIGKILL");
    });
  }
});

describe("sessions", () => {
  test("the daemon dies: what it had made and retrieved is there for the next one", async () => {
    await using _holder = await startHolder();
    kernel.bring("came");
    {
      using daemon = startDaemon();
      for (const [call, name] of [
        ["createSession", "goes"],
        ["retrieveSession", "came"],
      ] as const) {
        const session = await daemon.session(call, name);
        if (!(session instanceof OwnedDescriptor)) throw new Error(session.message);
        session.close();
      }
    }
    expect(outgoing()).toEqual(["goes"]);
    expect(isOpen("came")).toBe(true);
    using next = startDaemon();
    expect(await next.list()).toEqual(["came", "goes"]);
    expect(await next.session("retrieveSession", "came")).toMatchObject({ code: "EEXIST" });
    expect(await next.session("createSession", "goes")).toMatchObject({ code: "EEXIST" });
    await next.drop("goes");
    expect(outgoing()).toEqual([]);
  });

  test("the holder dies: the daemon keeps them open, and the next holder has them", async () => {
    await using holder = await startHolder();
    kernel.bring("came");
    using daemon = startDaemon();
    for (const [call, name] of [
      ["createSession", "goes"],
      ["retrieveSession", "came"],
    ] as const) {
      const session = await daemon.session(call, name);
      if (session instanceof OwnedDescriptor) session.close();
    }
    holder.kill("SIGKILL");
    await daemon.ready(2);
    expect(outgoing()).toEqual(["goes"]);
    expect(isOpen("came")).toBe(true);
    daemon[Symbol.dispose]();
    expect(outgoing()).toEqual(["goes"]);
    expect(isOpen("came")).toBe(true);
  });

  test("both die: the kernel undoes what goes, and finishes what came", async () => {
    await using holder = await startHolder();
    kernel.bring("came");
    kernel.bring("waits");
    {
      using daemon = startDaemon();
      for (const [call, name] of [
        ["createSession", "goes"],
        ["retrieveSession", "came"],
      ] as const) {
        const session = await daemon.session(call, name);
        if (session instanceof OwnedDescriptor) session.close();
      }
      holder.kill("SIGKILL");
    }
    await noHolder(control);
    // Its other threads may hold them when the first one is dead already.
    await waitFor("the kernel to undo it", () => outgoing().length === 0);
    // Who was not retrieved is not touched.
    expect(kernel.incoming).toEqual([{ name: "waits", tokens: [], open: false }]);
  });

  test("one name in both directions, under two names of the daemon", async () => {
    await using _holder = await startHolder();
    kernel.bring("db");
    using daemon = startDaemon();
    for (const [call, name] of [
      ["createSession", "outgoing/db"],
      ["retrieveSession", "incoming/db"],
    ] as const) {
      const session = await daemon.session(call, "db", { name });
      if (!(session instanceof OwnedDescriptor)) throw new Error(session.message);
      session.close();
    }
    expect(await daemon.list()).toEqual(["incoming/db", "outgoing/db"]);
  });

  test("the kernel's refusals come through, with what was tried", async () => {
    await using _holder = await startHolder();
    using daemon = startDaemon();
    const absent = await daemon.session("retrieveSession", "never");
    expect(absent).toMatchObject({ code: "ENOENT" });
    expect((absent as { message: string }).message).toContain('retrieve session "never"');
    kernel.refuse("create", "ENOMEM");
    expect(await daemon.session("createSession", "a")).toMatchObject({ code: "ENOMEM" });
    expect(await daemon.list()).toEqual([]);
  });
});

describe("a device that another has open", () => {
  test("is tried again, and others are served meanwhile", async () => {
    await using _holder = await startHolder();
    using daemon = startDaemon();
    kernel.refuse("open", "EBUSY", 5);
    const made = daemon.session("createSession", "it");
    using file = openFile(folder.file("other")).file;
    const answers: string[] = [];
    daemon.client.get("it", (found) => {
      answers.push(found === undefined ? "nothing" : "it");
      found?.close();
    });
    daemon.client.put("other", file, () => answers.push("other"));
    const session = await made;
    if (!(session instanceof OwnedDescriptor)) throw new Error(session.message);
    session.close();
    await daemon.list();
    expect(answers).toEqual(["other", "it"]);
    expect(kernel.calls).toHaveLength(6);
  });

  test("for 5 s: EBUSY, and who may have it; what waits goes with its daemon", async () => {
    await using _holder = await startHolder();
    kernel.refuse("open", "EBUSY", Number.POSITIVE_INFINITY);
    using daemon = startDaemon();
    const begin = performance.now();
    const refused = daemon.session("createSession", "it");
    expect(await daemon.session("retrieveSession", "other")).toMatchObject({ code: "EBUSY" });
    expect(performance.now() - begin).toBeGreaterThan(4_900);
    const refusal = await refused;
    expect(refusal).toMatchObject({ code: "EBUSY" });
    expect((refusal as { message: string }).message).toMatch(
      /\/dev\/liveupdate was held open by another for 5000 ms: .*systemd.*another orchestrator/,
    );
    await daemon.putFile("a", folder.file("a"));
    daemon.client.createSession("late", () => {});
    await daemon.list();
    daemon[Symbol.dispose]();
    kernel.refuse("open", "EBUSY", 0);
    using next = startDaemon();
    // Behind what waited, if that still waited.
    const mine = await next.session("createSession", "mine");
    if (mine instanceof OwnedDescriptor) mine.close();
    expect(await next.list()).toEqual(["a", "mine"]);
    expect(outgoing()).toEqual(["mine"]);
  });

  test("at most 64 wait", async () => {
    await using _holder = await startHolder();
    using raw = await RawClient.connect(holderSocketOf(control));
    kernel.refuse("open", "EBUSY", Number.POSITIVE_INFINITY);
    await raw.sendBytes(encodeFrame({ kind: "hello", protocol: 1, version: "test" }));
    for (let id = 1; id <= limits.openRequests + 1; id++) {
      const request = { kind: "create-session", id, session: `${id}`, name: `${id}` };
      await raw.sendBytes(encodeFrame(request));
    }
    const answer = await waitFor("the refusal", () => {
      raw.look();
      return /"id":65.*\n/.exec(new TextDecoder().decode(raw.received)) ?? undefined;
    });
    expect(answer[0]).toContain('"code":"EAGAIN"');
    expect(answer[0]).toContain("at most 64 open requests");
  });
});
