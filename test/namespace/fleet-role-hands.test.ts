/** What roles are asked before they are handed over, and how their answers are heard. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import type { JudgedRole, RoleKind } from "../../src/fleet/lifecycle-roles.ts";
import { findRoles } from "../../src/fleet/perform/find-roles.ts";
import { Installation } from "../../src/fleet/perform/installation.ts";
import { type AskedNow, handOverRole, lookAtRoles } from "../../src/fleet/perform/role-hands.ts";
import type { phases, Status } from "../../src/live-update/protocol.ts";
import type { ControlError } from "../../src/messaging/control-server.ts";
import { ControlServer, defaultControlLimits } from "../../src/messaging/control-server.ts";
import { allowUsers } from "../../src/messaging/peer.ts";
import { hostler } from "../support/binary.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { newBuild } from "../support/fleet-agent/life.ts";
import { startProgram } from "../support/program.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let folder: TemporaryFolder;
let loop: EventLoop;
beforeEach(() => {
  folder = temporaryFolder();
  loop = testEventLoop();
});
afterEach(() => {
  loop[Symbol.dispose]();
  folder[Symbol.dispose]();
});

const socket = () => folder.file("control.sock");

const role = (kind: RoleKind, changes: Partial<JudgedRole> = {}): JudgedRole => ({
  ...{ kind, unit: "no-such-unit-of-a-test.service", socket: socket(), asked: null },
  ...{ process: 7, way: "restart", counts: true },
  health: { role: kind, digest: null, healthy: true, reason: null },
  ...changes,
});

const to = () => ({ build: newBuild, program: "/new/hostler", supervisor: undefined });

type Request = { readonly id: number; readonly verb: string };
const schemaOf = (verb: string) =>
  v.looseObject({ id: v.number(), verb: v.literal(verb) }) as v.GenericSchema<unknown, Request>;

/** A daemon that knows one word. */
function serve(verb: string, answer: { readonly ok: unknown } | ControlError): Disposable {
  const heard: unknown[] = [];
  const server = new ControlServer<Request>(loop, {
    path: socket(),
    policy: allowUsers([process.getuid?.() ?? 0]),
    limits: defaultControlLimits,
    schema: schemaOf(verb),
    onRequest: (request, call) => {
      heard.push(request);
      if ("ok" in answer) call.done(answer.ok);
      else call.refuse(answer);
    },
    onTrouble: () => {},
  });
  return Object.assign(server, { heard });
}

const statusIn = (phase: (typeof phases)[number]): Status => ({
  ...{ phase, loaded: null, clients: 0, update: null, last: null, unclaimed: 0, claimed: 0 },
  ...{ unclaimed_policy: "keep", blackout: null, troubles: [] },
});

describe("luod", () => {
  const restart = (changes: Partial<JudgedRole> = {}) =>
    handOverRole(role("luod", changes), "restart-when-idle", to());

  test.each(["preserving", "barrier", "committing", "aborting", "restoring"] as const)(
    "that is %s is not started again, and that is said",
    async (phase) => {
      using _luod = serve("status", { ok: statusIn(phase) });
      const reason = `it is ${phase}: it is started again when all its clients have finished`;
      expect(await restart()).toEqual({ kind: "waits", reason });
    },
  );

  test.each(["idle", "loaded"] as const)("that is %s is", async (phase) => {
    using _luod = serve("status", { ok: statusIn(phase) });
    expect((await restart()).kind).toBe("refused");
  });

  test("that does not say is waited for; one that is gone is started", async () => {
    const asked = await restart();
    expect(asked.kind).toBe("waits");
    expect((asked as { reason: string }).reason).toContain("it does not say whether it is idle");
    expect((await restart({ process: null })).kind).toBe("refused");
  });
});

test("a unit that systemd does not start says why", async () => {
  const asked = await handOverRole(role("vm worker"), "restart", to());
  expect(asked).toMatchObject({ kind: "refused" });
  const said = "systemctl restart no-such-unit-of-a-test.service: exit ";
  expect((asked as { reason: string }).reason).toStartWith(said);
});

describe("an orchestrator", () => {
  const reexecute = (changes: Partial<JudgedRole> = {}): Promise<AskedNow> =>
    handOverRole(role("process orchestrator", changes), "reexecute", to());

  test("is told the file and its digest, and answers as the new one", async () => {
    using server = serve("reexecute", { ok: { digest: newBuild.digest, instance: "x" } });
    expect(await reexecute()).toEqual({ kind: "asked", process: 7 });
    const { heard } = server as unknown as { heard: unknown[] };
    expect(heard).toMatchObject([{ program: "/new/hostler", digest: newBuild.digest }]);
  });

  test("that refuses goes on as it is, and is asked again", async () => {
    using _server = serve("reexecute", { kind: "busy", message: "it is stopping" });
    expect(await reexecute()).toEqual({ kind: "refused", reason: "it is stopping" });
  });

  test("of a version that does not know how is left alone, with what to do", async () => {
    using _server = serve("list", { ok: [] });
    expect(await reexecute()).toEqual({
      kind: "unsupported",
      reason:
        "its version cannot go on as another file: systemctl restart " +
        "no-such-unit-of-a-test.service, which stops what it runs",
    });
    const byHand = await reexecute({ unit: null });
    expect((byHand as { reason: string }).reason).toContain("start it again by hand");
  });

  test("that nobody serves, or that answers nonsense, is asked again", async () => {
    expect((await reexecute()).kind).toBe("refused");
    using _server = serve("reexecute", { ok: 17 });
    expect(await reexecute()).toMatchObject({ kind: "refused" });
  });
});

test("the kernel says which daemons run, from which version, and where they listen", async () => {
  const place = folder.file("fleet");
  mkdirSync(place);
  using installation = Installation.open(place, { make: true });
  const { name } = installation.store(hostler(), "1.0.0");
  const program = join(place, "versions", name, "hostler");
  const words = ["fleet", "supervise", "--folder", place, "--volatile"];
  await using supervisor = startProgram([program, ...words, "--control-socket", socket()]);
  const own = () => findRoles(place).filter((one) => one.process === supervisor.processId);
  await waitFor("it to listen", () => own()[0]?.silence === null);
  expect(own()).toMatchObject([
    { kind: "fleet supervise", socket: socket(), build: { version: "1.0.0" }, program },
  ]);
  const looked = await lookAtRoles(place, null);
  expect(looked.filter((one) => one.process === supervisor.processId)).toEqual(own());
  const elsewhere = folder.file("elsewhere");
  mkdirSync(elsewhere);
  Installation.open(elsewhere, { make: true })[Symbol.dispose]();
  const foreign = findRoles(elsewhere).find((one) => one.process === supervisor.processId);
  expect(foreign).toMatchObject({ build: null, program });
});
