/** Wall clocks of hosts and of the authority that stand at 1970 and at 2045: all of it goes on. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { releaseTime } from "../../src/identity/trusted-time.ts";
import {
  faketime,
  inBoot,
  present,
  saysDone,
  TestAuthority,
  type TestHost,
  type TestOperator,
  wallClockAt,
} from "../support/authority.ts";
import { root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(90_000);

const clocks = ["@1970-01-02 00:00:00", "@2045-01-01 00:00:00"] as const;
const HOUR = 3_600_000;

interface TokenLine {
  readonly host: string;
  readonly phase: string;
}

/** Every turn of a host's life, to its end. */
async function live(
  authority: TestAuthority,
  clock: Readonly<Record<string, string>> = {},
): Promise<TestHost> {
  const options = { environment: clock };
  const host = await authority.enrolled("web-1", options);
  const session = await authority.session(host, options);
  await present(authority, "web-1");
  await authority.ask("certificate", "rotate");
  // The session that is open asks every five minutes; another one learns of it at once.
  await host.openOnce(options);
  await authority.ask("certificate", "finish");
  await host.openOnce(options);
  expect(await host.does("rotate", options)).toContain("in place of");
  await session.said(/closed: the session was ended[\s\S]*link is up/);
  expect(await host.does("show", options)).toContain("host       web-1\n");
  await authority.ask("host", "revoke", "web-1");
  expect((await session.ended()).stderr).toContain("The host was revoked");
  expect(await host.refuses("session --once", options)).toContain("The host was revoked");
  return host;
}

skipUnless("clocks of hosts and of an authority", [root, faketime], () => {
  describe.each(clocks)("%s", (time) => {
    test("of a host: it is let in, speaks, rotates, and is revoked", async () => {
      await using authority = await TestAuthority.start();
      const host = await live(authority, wallClockAt(time));
      // The time that it goes by is the authority's and the release's.
      const { time: trusted } = host.journal;
      expect(trusted).toBeGreaterThanOrEqual(releaseTime);
      expect(trusted).toBeLessThanOrEqual(Date.now() + HOUR);
      expect(await authority.eventsOf("host-clone", "token-stolen")).toEqual([]);
    });

    test("of an operator's machine: it is let in, and out when it is revoked", async () => {
      await using authority = await TestAuthority.start();
      const alice = await authority.operator("alice", "--role", "operate");
      alice.options = { environment: wallClockAt(time) };
      expect(await alice.ask("whoami")).toContain("operator alice");
      await authority.host("web-1").enrol((await alice.ask("token", "create", "web-1")).trim());
      expect(await alice.ask("host", "list")).toMatch(/^web-1 +enrolled /m);
      await authority.ask("operator", "revoke", "alice");
      expect(await alice.refuses("whoami")).toContain("counts for nobody");
    });

    test("of the authority: the same, and operators, the store and the log go on", async () => {
      await using authority = await TestAuthority.start({ environment: wallClockAt(time) });
      const alice: TestOperator = await authority.operator("alice", "--role", "operate");
      await live(authority);
      alice.pin = await authority.pin();
      expect(await alice.ask("whoami")).toContain("operator alice");
      const rotated = await authority.ask("operator", "rotate", "alice", "--overlap", "1h");
      expect(rotated).toStartWith("hostler-operator-");
      expect(await alice.ask("whoami")).toContain("operator alice");
      await authority.ask("operator", "revoke", "alice");
      expect(await alice.refuses("whoami")).toContain("counts for nobody");
      const socket = ["--control-socket", authority.controlSocket];
      expect(await saysDone(["store", "storage", ...socket])).toContain("identity-hosts");
      await authority.auditVerifies();
      const year = new Date(Date.parse(`${time.slice(1, 11)}T00:00:00Z`)).getUTCFullYear();
      const [first] = await authority.events();
      expect(new Date(first?.time ?? 0).getUTCFullYear()).toBe(year);
    });
  });

  test("what began in 2045 goes on after a start at 1970, and back", async () => {
    await using authority = await TestAuthority.start({ environment: wallClockAt(clocks[1]) });
    const host = await authority.enrolled("web-1");
    const session = await authority.session(host);
    const { time: before } = host.journal;
    expect(before).toBeGreaterThan(Date.parse("2044-12-31T00:00:00Z"));
    const alice = await authority.operator("alice");
    for (const time of [clocks[0], clocks[1], clocks[0]]) {
      const links = () => session.output.stdout.split("link is up").length;
      const had = links();
      await authority.restart({ environment: wallClockAt(time) });
      await waitFor("the link to be up again", () => links() > had);
      await host.openOnce();
      expect(await alice.ask("whoami")).toContain("operator alice");
      await authority.auditVerifies();
    }
    // Neither has gone back, nor has a certificate rotation been refused for its time.
    await authority.ask("certificate", "rotate");
    await host.openOnce();
    await authority.ask("certificate", "finish");
    await host.openOnce();
    expect(host.journal.time).toBeGreaterThanOrEqual(before);
    session.kill("SIGTERM");
    expect((await session.ended()).exitCode).toBe(0);
  });

  test("a clock that stands still makes no token immortal", async () => {
    const frozen = { environment: wallClockAt("2045-01-01 00:00:00") };
    await using authority = await TestAuthority.start(frozen);
    const token = await authority.token("web-1", "--expires", "500ms");
    const overlapped = await authority.operator("alice");
    await authority.ask("operator", "rotate", "alice", "--overlap", "500ms");
    await waitFor("the end of both", async () => {
      const [line] = await authority.askJson<TokenLine[]>("token", "list");
      return line?.phase === "expired";
    });
    expect(await authority.host("web-1").refusesToEnrol(token)).toContain("has expired");
    await waitFor("the end of the old token", async () => {
      const operators = await authority.askJson<{ tokens: number }[]>("operator", "list");
      return operators[0]?.tokens === 1;
    });
    expect(await overlapped.refuses("whoami")).toContain("counts for nobody");
  });

  test("a token lives by the clock of its boot, or by the wall clock that says more", async () => {
    await using authority = await TestAuthority.start({ environment: wallClockAt(clocks[1]) });
    const [first, second, third] = [
      await authority.token("web-1"),
      await authority.token("web-2"),
      await authority.token("web-3"),
    ];
    const phases = async () => {
      const lines = await authority.askJson<TokenLine[]>("token", "list");
      return Object.fromEntries(lines.map(({ host, phase }) => [host, phase]));
    };
    // The clock was set back within the boot: an hour is an hour.
    await authority.restart({ environment: wallClockAt(clocks[0]) });
    await authority.host("web-1").enrol(first);
    expect(await phases()).toEqual({ "web-1": "used", "web-2": "unused", "web-3": "unused" });
    // It stands before the token's making, in another boot: nobody knows how long ago that was.
    const elsewhere = inBoot(authority.folder, "11111111-2222-4333-8444-555555555555");
    const late = { before: elsewhere, environment: wallClockAt(clocks[0]) };
    await authority.restart(late);
    expect(await phases()).toEqual({ "web-1": "used", "web-2": "expired", "web-3": "expired" });
    expect(await authority.host("web-2").refusesToEnrol(second)).toContain("has expired");
    // In the boot of its making it counts again, with the clock that is right.
    await authority.restart({ environment: wallClockAt(clocks[1]) });
    await authority.host("web-2").enrol(second);
    // And two hours later it is over.
    await authority.restart({ environment: wallClockAt("@2045-01-01 02:00:00") });
    expect(await phases()).toMatchObject({ "web-3": "expired" });
    expect(await authority.host("web-3").refusesToEnrol(third)).toContain("has expired");
  });
});
