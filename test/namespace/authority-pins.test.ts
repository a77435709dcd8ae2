/** Whom hosts and operators believe: pins, somebody in the middle, and certificates that change. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CertificatesView } from "../../src/identity/api.ts";
import { saysDone, saysRefused, TestAuthority, type TestHost } from "../support/authority.ts";
import { startCuttingProxy } from "../support/cutting-proxy.ts";
import { RawHost, RawLink } from "../support/raw-host.ts";
import { root, skipUnless } from "../support/skips.ts";
import { startTerminatingServer } from "../support/terminating-server.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** An authority, and the way to it, on which somebody may come to stand. */
async function standingBetween() {
  const owned = new AsyncDisposableStack();
  const way = { target: () => 0 };
  const proxy = owned.use(await startCuttingProxy({ listen: 0, target: () => way.target() }));
  const address = `https://127.0.0.1:${proxy.place}`;
  const authority = owned.use(await TestAuthority.start({ flags: ["--address", address] }));
  const middle = owned.use(await startTerminatingServer(() => authority.port));
  way.target = () => authority.port;
  return {
    authority,
    middle,
    address,
    intrude: () => {
      way.target = () => middle.port;
    },
    leave: () => {
      way.target = () => authority.port;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** What can be asked of anybody, because whoever answers is believed nothing but a signature. */
function expectNothingSecret(heard: string): void {
  const requests = heard.split("\r\n\r\n").filter(Boolean);
  for (const request of requests) {
    expect(request).toStartWith("GET /v1/statement HTTP/1.1\r\n");
    expect(request.toLowerCase()).not.toMatch(/authorization|cookie|bearer|hostler-/);
  }
}

skipUnless("somebody between the compiled hosts and their authority", root, () => {
  test("an enrolment is not begun: nothing at all is said", async () => {
    await using between = await standingBetween();
    const { authority, middle } = between;
    const token = await authority.token("web-1");
    between.intrude();
    const host = authority.host("web-1");
    expect(await host.refusesToEnrol(token)).toMatch(
      /Expected the certificate [0-9a-f ]{19} at .*, received [0-9a-f ]{19}\. .*stands in between/,
    );
    expect(middle.connections).toBeGreaterThan(0);
    expect(middle.heard).toBe("");
    between.leave();
    await host.enrol(token);
  });

  test("a host speaks to nobody but its authority, and goes on when that is back", async () => {
    await using between = await standingBetween();
    const { authority, middle } = between;
    const host = await authority.enrolled("web-1");
    const session = await authority.session(host);
    const before = host.journal;
    between.intrude();
    for (const command of ["session --once", "rotate"]) {
      expect(await host.refuses(command)).toContain("Expected the certificate");
    }
    // The link that stands is cut: it is not made anew over the one in the middle.
    const port = authority.port;
    await authority.stop("SIGKILL");
    await authority.start();
    expect(authority.port).toBe(port);
    await session.said(/Expected the certificate/);
    expect(middle.connections).toBeGreaterThan(0);
    expectNothingSecret(middle.heard);
    expect(host.journal).toEqual(before);
    expect(await authority.eventsOf("session-opened")).toEqual([]);
    const links = () => session.output.stdout.split("link is up").length;
    const had = links();
    between.leave();
    await waitFor("the link to be up again", () => links() > had);
    // What the rotation made meanwhile is used now.
    expect(await host.does("rotate")).toContain("in place of");
  });

  test("an operator's token is not shown to whoever has another certificate", async () => {
    await using between = await standingBetween();
    const { authority, middle, address } = between;
    const alice = await authority.operator("alice", "--role", "admin");
    const words = (...more: string[]) => [
      ...["identity", ...more, "--authority", address, "--token-file", alice.file],
    ];
    between.intrude();
    for (const command of [["whoami"], ["host", "list"], ["events", "--follow"]]) {
      const said = await saysRefused([...words(...command), "--pin", alice.pin]);
      expect(said).toContain(`expected a certificate with the pin ${alice.pin}`);
      expect(said).toContain(middle.pin);
    }
    expect(middle.heard).toBe("");
    // Whoever pins the one in the middle is told by it whatever it likes: the pin is all there is.
    await saysDone([...words("whoami"), "--pin", middle.pin]);
    expect(middle.heard).toContain(alice.token);
  });

  test("a wrong pin: of an operator, and in a host's journal", async () => {
    await using authority = await TestAuthority.start();
    const alice = await authority.operator("alice");
    alice.pin = "ab".repeat(32);
    expect(await alice.refuses("whoami")).toContain("expected a certificate with the pin abab");
    const host = await authority.enrolled("web-1");
    const path = join(host.directory, "authority.json");
    const journal = readFileSync(path, "utf8");
    writeFileSync(path, JSON.stringify({ ...JSON.parse(journal), pins: ["cd".repeat(32)] }));
    // The signed statement is no newer than what the journal says: it takes nothing back.
    expect(await host.refuses("session --once")).toContain("Expected a statement with a serial");
    expect(await authority.eventsOf("session-opened")).toEqual([]);
    writeFileSync(path, journal);
    await host.openOnce();
  });
});

const certificates = async (authority: TestAuthority) =>
  await authority.askJson<CertificatesView>("certificate", "list");

/** Sockets that a process listens at. */
function listeningSockets(processId: number): number {
  const inodes = new Set(
    readFileSync("/proc/net/tcp", "latin1")
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .filter(([, , , state]) => state === "0A")
      .map((fields) => `socket:[${fields[9]}]`),
  );
  const folder = `/proc/${processId}/fd`;
  return readdirSync(folder).filter((name) => {
    try {
      return inodes.has(readlinkSync(join(folder, name)));
    } catch {
      return false;
    }
  }).length;
}

const pinsOf = (host: TestHost) => host.journal.pins;

skipUnless("the certificate of a compiled authority", root, () => {
  test("rotated with a host away: old and new overlap, and finish waits for it", async () => {
    await using authority = await TestAuthority.start();
    const [here, away] = [await authority.enrolled("here"), await authority.enrolled("away")];
    const { shown: old } = await certificates(authority);
    const alice = await authority.operator("alice");
    // Before its first session: it got in by the certificate that is shown.
    expect(await authority.ask("host", "list")).toMatch(/^away .* confirmed /m);
    expect(await authority.refuses("certificate", "finish")).toContain("certificate list");
    const rotated = await authority.ask("certificate", "rotate");
    expect(await authority.refuses("certificate", "rotate")).toContain("certificate list");
    expect(rotated).toMatch(/^announced +[0-9a-f]{64}$/m);
    const { shown, announced, unconfirmed } = await certificates(authority);
    expect({ shown, unconfirmed }).toEqual({ shown: old, unconfirmed: ["away", "here"] });
    const next = announced ?? "";
    await here.openOnce();
    expect(pinsOf(here).toSorted()).toEqual([old, next].toSorted());
    expect(await authority.ask("certificate", "list")).toMatch(/^lacking it +away$/m);
    const confirmed = (await authority.audit()).filter(({ verb }) => verb.endsWith("pins.confirm"));
    expect(confirmed.at(-1)).toMatchObject({
      who: expect.stringMatching(/^host here/),
      object: "host here",
      after: [old, next],
      result: "done",
    });
    expect(await authority.ask("host", "list")).toMatch(/^away .* old /m);
    expect(await authority.refuses("certificate", "finish")).toMatch(/confirmed.* away/);
    // What was announced outlives the authority.
    await authority.restart();
    expect(await certificates(authority)).toMatchObject({ shown: old, announced: next });
    // Who comes now knows both.
    const late = await authority.enrolled("late");
    await late.openOnce();
    expect(pinsOf(late)).toHaveLength(2);
    await away.openOnce();
    await authority.ask("certificate", "finish");
    expect(await certificates(authority)).toMatchObject({ shown: next, announced: null });
    for (const host of [here, away, late]) {
      await host.openOnce();
      expect(pinsOf(host)).toEqual([next]);
    }
    expect(await alice.refuses("whoami")).toContain(`received one with ${next}`);
    const both = [...alice.words("whoami"), "--pin", next];
    expect(await saysDone(both)).toContain("operator alice");
    const kinds = (await authority.events()).map(({ kind }) => kind);
    expect(kinds).toContain("certificate-finished");
    await authority.restart();
    expect(await certificates(authority)).toMatchObject({ shown: next, announced: null });
  });

  test("forced on: open sessions survive, who was away gets in by the statement", async () => {
    await using authority = await TestAuthority.start();
    const away = await authority.enrolled("away");
    const journal = readFileSync(join(away.directory, "authority.json"), "utf8");
    const raw = new RawHost(await authority.token("raw"));
    await raw.enrol();
    const bearer = await raw.bearer("raw");
    const link = new RawLink(authority.address, bearer);
    await link.heard("welcome");
    const session = await authority.session(away);
    const opened = await authority.eventsOf("session-opened");
    for (let turn = 1; turn <= 2; turn += 1) {
      await authority.ask("certificate", "rotate");
      await authority.ask("certificate", "finish", "--force");
    }
    // The listeners with the old certificates take nobody any more: the front, and one behind it.
    const { processId } = authority.daemon;
    await waitFor("the old listeners' end", () => listeningSockets(processId) === 2);
    const word = link.put("host-presence", "raw", JSON.stringify({ boot: "after", version: "1" }));
    expect(await link.heard(word)).toMatchObject({ kind: "written" });
    expect((await raw.ask("/v1/whoami", { bearer })).body).toMatchObject({ who: "host raw" });
    expect(session.output.stdout).toMatch(/^away: .* is open\nthe link is down\nthe link is up\n$/);
    expect(await authority.eventsOf("session-ended")).toEqual([]);
    expect(await authority.eventsOf("session-opened")).toEqual(opened);
    // A host that has slept through both.
    const { shown } = await certificates(authority);
    expect(pinsOf(away)).not.toContain(shown);
    await away.openOnce();
    expect(pinsOf(away)).toEqual([shown]);
    // And one whose disk is of the day before gets in again.
    writeFileSync(join(away.directory, "authority.json"), journal);
    await away.openOnce();
    expect(pinsOf(away)).toEqual([shown]);
    // An old certificate is nothing any more to sign for.
    expect((await raw.open("raw")).kind).toBe("certificate-other");
    link.close();
  });

  test("a token from before a forced rotation is refused by its pin, and says so", async () => {
    await using authority = await TestAuthority.start();
    const token = await authority.token("web-1");
    await authority.ask("certificate", "rotate");
    await authority.ask("certificate", "finish", "--force");
    const host = authority.host("web-1");
    expect(await host.refusesToEnrol(token)).toContain("The token is older than a rotation");
    await host.enrol(await authority.token("web-1"));
  });
});
