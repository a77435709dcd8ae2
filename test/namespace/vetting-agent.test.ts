/** The compiled agent against a real orchestrator over TLS, killed at each of its effects. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { agentEffects } from "../../src/vetting/perform/agent-steps.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { makeCertificate } from "../support/certificate.ts";
import { type Program, startProgram } from "../support/program.ts";
import { rotating } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import {
  problem,
  startVettingHost,
  testMac,
  type VettingHost,
  withCards,
} from "../support/vetting/vetting-host.ts";
import { waitFor } from "../support/wait-for.ts";

const off = { enabled: false };
const inventoryAlone = {
  ...{ SMART: off, CPUStress: off, Storage: off, Network: off, GPU: off, PSU: off },
};
const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVzZWQgYnkgYSB0ZXN0IGFuZCBub2JvZHkgZWxzZQ==";
/** Of a story on a machine that is busy with others. */
const usual = 60_000;

function startAgent(
  host: VettingHost,
  folder: TemporaryFolder,
  options: {
    readonly file?: string;
    readonly url?: string;
    readonly pin?: string;
    readonly token?: string;
    readonly cards?: readonly string[];
    readonly environment?: Readonly<Record<string, string>>;
    /** What the agent is started by, in place of itself. */
    readonly by?: readonly string[];
  } = {},
): Program {
  writeFileSync(folder.file("token"), options.token ?? host.token);
  return startProgram(
    [
      ...(options.by ?? []),
      ...withCards(options.cards ?? [testMac]),
      ...[options.file ?? hostler(), "vetting", "agent"],
      ...["--orchestrator", options.url ?? host.url],
      ...["--run", `${host.number}`, "--pin", options.pin ?? host.pin, "--mac", testMac],
      ...["--token-file", folder.file("token"), "--folder", folder.file("run"), "--no-power"],
      ...["--authorized-keys", folder.file("ssh/authorized_keys")],
    ],
    { environment: options.environment ?? {} },
  );
}

const who = "operator alice";
const release = (host: VettingHost) =>
  host.order({ kind: "release", who, after: "shutdown", reason: "" });
const own = (host: VettingHost) => host.results.filter(({ source }) => source === "agent");
const inState = (host: VettingHost, state: string) =>
  waitFor(`the run to be ${state}`, () => host.run.state === state, usual);

describe("the compiled agent", () => {
  test("claims, does what there is to do, and leaves when it is told to", async () => {
    await using host = await startVettingHost(inventoryAlone);
    using folder = temporaryFolder();
    await using agent = startAgent(host, folder);
    await inState(host, "Completed");
    // The state is in memory before its result is on the disk.
    await waitFor("its result", () => own(host).length > 0);
    expect(own(host)).toMatchObject([{ stage: "Inventory", cancelled: false }]);
    await waitFor("its log", () =>
      host.lines("info").some((line) => line.includes("Inventory is")),
    );
    await waitFor("readings", () => host.calls.some(({ call }) => call === "sensors"));
    const [claim] = host.calls.filter(({ call }) => call === "claim");
    const told = { mac: testMac, macs: [testMac], address: "127.0.0.1" };
    expect(claim?.input).toMatchObject(told);
    await release(host);
    const { exitCode, stderr } = await agent.ended(usual);
    expect(exitCode).toBe(0);
    expect(stderr).toContain("the host would power-off now");
    expect(host.run.directives).toEqual([]);
  });

  test("a stage waits for no reading of the sampler's own time", async () => {
    // The next one comes in an hour: what the stage is judged by was read when it was asked for.
    await using host = await startVettingHost(inventoryAlone, { sensors: 3_600_000 });
    using folder = temporaryFolder();
    await using _agent = startAgent(host, folder);
    await inState(host, "Completed");
    await waitFor("its result", () => own(host).length > 0);
    const findings = own(host).flatMap(({ report }) => report.findings);
    expect(findings.filter(({ component }) => component === "sampler")).toEqual([]);
  });

  test("a token that came to another host has it hold, also by the flag --mac", async () => {
    await using host = await startVettingHost(inventoryAlone);
    using folder = temporaryFolder();
    await using _agent = startAgent(host, folder, { cards: ["52:54:00:ee:ee:01"] });
    await inState(host, "FailedHolding");
    expect(host.run.reason).toContain(
      `identity changed: the run is of card ${testMac}, this host has 52:54:00:ee:ee:01`,
    );
    expect([own(host), host.orchestrator.host(testMac).identity]).toEqual([[], null]);
  });

  test("another certificate is not spoken to", async () => {
    await using host = await startVettingHost(inventoryAlone);
    using folder = temporaryFolder();
    await using agent = startAgent(host, folder, { pin: "ab".repeat(32) });
    await agent.said(/expected a certificate with the pin/, usual);
    expect(host.calls).toEqual([]);
  });

  test("a token that is wrong is asked with again and again, and said so", async () => {
    await using host = await startVettingHost(inventoryAlone);
    using folder = temporaryFolder();
    await using agent = startAgent(host, folder, { token: "hostler-run-b-1-wrong-token" });
    await agent.said(/the claim failed 2 times, again in 4 s/, usual);
    expect(host.run.session).toBeNull();
  });

  test("429, 500 and lost answers cost time and nothing else", async () => {
    await using host = await startVettingHost(inventoryAlone);
    const seen = new Map<string, number>();
    const first = (call: string, most: number) => {
      seen.set(call, (seen.get(call) ?? 0) + 1);
      return (seen.get(call) ?? 0) <= most;
    };
    host.interfere = (call) => {
      if (call === "claim" && first("claim", 1)) return problem("too-many", 1_000);
      return call === "log" && first("log", 2) ? problem("unavailable") : undefined;
    };
    // It was done, and the answer is lost.
    host.interfereAfter = (call) =>
      ["attempt", "result"].includes(call) && first(call, 1) ? problem("bug") : undefined;
    using folder = temporaryFolder();
    await using _agent = startAgent(host, folder);
    await inState(host, "Completed");
    await waitFor("its result", () => own(host).length > 0);
    expect(own(host)).toHaveLength(1);
    expect(host.run.stages.Inventory?.begun).toBe(1);
    await waitFor("its log", () => host.lines().some((line) => line.includes("for run")));
  });
});

/** What may stand between an agent and its orchestrator, or in its place. */
const strangeAnswers: Readonly<Record<string, () => Response | Promise<Response>>> = {
  claim: () => new Response("<html>Sign in to the guest network</html>", html),
  attempt: () => new Response('{"decision":', json),
  result: () => new Response('{"surprise":true}', json),
  heartbeat: () => new Response("a".repeat(5 * 1024 ** 2), json),
  log: () => new Response(null, { status: 302, headers: { location: "file:///etc/passwd" } }),
  sensor: () => new Response("null", { ...json, status: 418 }),
};
const html = { headers: { "content-type": "text/html" } };
const json = { headers: { "content-type": "application/json" } };

/** Answers the first of each call strangely, the second claim never, and passes on the rest. */
function startStrangeFront(host: VettingHost) {
  const certificate = makeCertificate();
  const asked = new Map<string, number>();
  const server = Bun.serve({
    ...{ hostname: "127.0.0.1", port: 0 },
    tls: { cert: certificate.certificate, key: certificate.key },
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      const call = pathname.split("/").at(-1) ?? "";
      const count = (asked.get(call) ?? 0) + 1;
      asked.set(call, count);
      const strange = strangeAnswers[call];
      if (strange !== undefined && count === 1) return await strange();
      if (call === "claim" && count === 2) return await new Promise<Response>(() => {});
      return await fetch(`${host.url}${pathname}${search}`, {
        ...{ method: request.method, headers: request.headers, body: await request.bytes() },
        tls: { rejectUnauthorized: false },
      });
    },
  });
  const url = `https://127.0.0.1:${server.port}`;
  return { url, pin: certificate.pin, asked, [Symbol.dispose]: () => void server.stop(true) };
}

test("answers that are none, and none at all, cost time and nothing else", async () => {
  await using host = await startVettingHost(inventoryAlone);
  using front = startStrangeFront(host);
  using folder = temporaryFolder();
  await using agent = startAgent(host, folder, { url: front.url, pin: front.pin });
  // A claim that nobody answers is given up after a minute.
  await waitFor("the run to be Completed", () => host.run.state === "Completed", 2 * usual);
  await waitFor("its result", () => own(host).length > 0);
  expect(own(host)).toHaveLength(1);
  expect(host.run.stages.Inventory?.begun).toBe(1);
  for (const call of Object.keys(strangeAnswers)) {
    await waitFor(`a further ${call}`, () => (front.asked.get(call) ?? 0) > 1);
  }
  await waitFor("its log", () => host.lines().some((line) => line.includes("Inventory is")));
  await release(host);
  const { exitCode, stderr } = await agent.ended(usual);
  expect(exitCode).toBe(0);
  expect(stderr).toContain("answered what is no answer");
}, 180_000);

skipUnless("an agent whose folder is full", [root], () => {
  test("goes on, and says so", async () => {
    await using host = await startVettingHost(inventoryAlone);
    using folder = temporaryFolder();
    mkdirSync(folder.file("run"));
    // Two pages: who has the lock, and what was kept first. What follows finds no room.
    const mount = `mount -t tmpfs -o size=8k,mode=0700 tmpfs ${folder.file("run")}`;
    const by = ["unshare", "--mount", "sh", "-c", `${mount} && exec "$0" "$@"`];
    await using agent = startAgent(host, folder, { by });
    await inState(host, "Completed");
    await waitFor("its result", () => own(host).length > 0);
    expect(own(host)).toMatchObject([{ stage: "Inventory", cancelled: false }]);
    expect(agent.output.stderr).toMatch(/cannot keep .*, ignoring: .*(ENOSPC|No space)/);
  });
});

describe("a key of a hold", () => {
  test("is put in its place when it is given, and goes when it is taken back", async () => {
    await using host = await startVettingHost({ ...inventoryAlone, ...failing });
    using folder = temporaryFolder();
    await using _agent = startAgent(host, folder);
    await inState(host, "FailedHolding");
    const lasts = 3_600_000;
    await host.order({ kind: "hold", who, key, lasts, untilTime: "2099-01-01T00:00:00Z" });
    const keys = () => readFileSync(folder.file("ssh/authorized_keys"), "utf8");
    await waitFor("the key", () => keys().includes("hostler-vetting-hold"), usual);
    await host.order({ kind: "release", who, after: "stay", reason: "" });
    await waitFor("its end", () => !keys().includes("hostler-vetting-hold"), usual);
  });

  test("a retry does the stage again", async () => {
    await using host = await startVettingHost({ ...inventoryAlone, ...failing });
    using folder = temporaryFolder();
    await using _agent = startAgent(host, folder);
    await inState(host, "FailedHolding");
    await host.order({ kind: "retry", who, stage: null, wipe: [], mayWipe: false, reason: "" });
    await waitFor("a second result", () => own(host).length >= 3, usual);
    await inState(host, "FailedHolding");
  });
});

/** A stage that fails on every machine: more power supplies than there are. */
const failing = { PSU: { enabled: true, expected: 31 } };

const kills = [
  ...agentEffects.flatMap((effect) => [`${effect}:before`, `${effect}:after`]),
  ...["keep:before", "keep:after", "call-result:before#2", "keep:after#3"],
];

describe("killed", () => {
  test.each(rotating("kills of a vetting agent", kills, { outOf: 10 }))(
    "at %s, and started again: no result is lost, and none is told twice",
    async (place) => {
      await using host = await startVettingHost({ ...inventoryAlone, ...failing });
      using folder = temporaryFolder();
      writeFileSync(folder.file("once"), "");
      const environment = {
        HOSTLER_KILL_AT: `vetting-agent:${place}`,
        HOSTLER_KILL_ONCE: folder.file("once"),
      };
      const story = new AbortController();
      const running = keepRunning(host, folder, environment, story.signal);
      try {
        await inState(host, "FailedHolding");
        const lasts = 3_600_000;
        await host.order({ kind: "hold", who, key, lasts, untilTime: "2099-01-01T00:00:00Z" });
        await waitFor("the key to be asked for", () => host.calls.some(isHold), usual);
        await host.order({ kind: "retry", who, stage: null, wipe: [], mayWipe: false, reason: "" });
        await waitFor("a second result of PSU", () => own(host).filter(isPsu).length >= 2, usual);
        await inState(host, "FailedHolding");
        await release(host);
        await waitFor("its farewell", () => host.run.directives.length === 0, usual);
      } finally {
        story.abort();
        await running;
      }
      // Each attempt has one result at most; one that was killed in the middle has none.
      const attempts = own(host).map(({ stage, attempt }) => `${stage} ${attempt}`);
      expect(new Set(attempts).size).toBe(attempts.length);
      expect(host.run.verdict).toBe("failed");
    },
    180_000,
  );
});

const isHold = ({ call }: { readonly call: string }) => call === "hold";
const isPsu = ({ stage }: { readonly stage: string }) => stage === "PSU";

/** As the live image's init: whatever ends it, it is started again. */
async function keepRunning(
  host: VettingHost,
  folder: TemporaryFolder,
  environment: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  const aborted = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => aborted.resolve());
  while (!signal.aborted) {
    await using agent = startAgent(host, folder, { file: hostlerWithFaults(), environment });
    await Promise.race([agent.ended(170_000), aborted.promise]);
  }
}
