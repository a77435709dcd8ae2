/** One key in two boots: reported as a clone. One host that was rebooted: not reported. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync } from "node:fs";
import type { HostView, SessionView } from "../../src/identity/api.ts";
import { inBoot, present, TestAuthority, TestHost } from "../support/authority.ts";
import { ownBoot, RawHost, RawLink } from "../support/raw-host.ts";
import { onlyInAll } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";

setDefaultTimeout(90_000);

const otherBoot = "11111111-2222-4333-8444-555555555555";
const thirdBoot = "22222222-3333-4444-8555-666666666666";

type Shown = HostView & { readonly open: readonly SessionView[] };

const shown = async (authority: TestAuthority) =>
  await authority.askJson<Shown>("host", "show", "web-1");

/** All that the host has on its disk, in another place. */
function copyOf(host: TestHost, authority: TestAuthority): TestHost {
  const directory = authority.folder.file("copy");
  cpSync(host.directory, directory, { recursive: true });
  return new TestHost(directory);
}

skipUnless("a host's folder that was copied", root, () => {
  test("both speak: it is in the list, the host, the events, the log, until seen to", async () => {
    await using authority = await TestAuthority.start();
    const host = await authority.enrolled("web-1");
    const session = await authority.session(host);
    await present(authority, "web-1");
    const copy = copyOf(host, authority);
    const clone = await authority.session(copy, { before: inBoot(authority.folder, otherBoot) });
    const found = { boots: [ownBoot, otherBoot], how: "answers" as const };
    const { clones, boot, open } = await shown(authority);
    expect({ clones, boot }).toEqual({ clones: [found], boot: otherBoot });
    expect(new Set(open.map((one) => one.boot))).toEqual(new Set([ownBoot, otherBoot]));
    expect(await authority.ask("host", "list")).toMatch(/^web-1 .* 1, see host show /m);
    expect(await authority.ask("host", "show", "web-1")).toContain(
      `clone     boots ${ownBoot} and ${otherBoot} (answers)`,
    );
    expect(await authority.eventsOf("host-clone")).toMatchObject([{ host: "web-1", ...found }]);
    await authority.daemon.said(/host-clone: host web-1, boots /);
    // Told once; and both go on until somebody says which one is right.
    await copy.openOnce({ before: inBoot(authority.folder, otherBoot) });
    await host.openOnce();
    expect(await authority.eventsOf("host-clone")).toHaveLength(1);
    for (const one of [session, clone]) expect(one.output.stdout).toMatch(/link is up\n$/);
    // The latest boot stays; the other one's sessions end, and when it comes back it is reported.
    expect(await authority.ask("host", "acknowledge", "web-1")).toContain("are acknowledged");
    await session.said(/closed: the session was ended \(1008\)[\s\S]*link is up/);
    expect(await authority.eventsOf("host-clone")).toMatchObject([
      found,
      { boots: [ownBoot, otherBoot], how: "returned" },
    ]);
    expect((await shown(authority)).clones).toMatchObject([{ how: "returned" }]);
    // What helps: another key for the right one. The copy has the old one, and is out.
    await host.does("rotate");
    expect((await clone.ended()).exitCode).toBe(111);
    expect(await copy.refuses("session --once")).toContain("refuses");
    await host.openOnce();
  });

  test("another name: the key is the first one's, and no second host", async () => {
    await using authority = await TestAuthority.start();
    const host = await authority.enrolled("web-1");
    const copy = copyOf(host, authority);
    const token = await authority.token("web-2");
    expect(await copy.refusesToEnrol(token)).toContain("The key is another host's");
    // The token was not spent by it.
    await authority.host("web-2").enrol(token);
  });
});

skipUnless("a host that was rebooted", root, () => {
  test("is no clone, and its former session ends", async () => {
    await using authority = await TestAuthority.start();
    const host = await authority.enrolled("web-1");
    for (const boot of [ownBoot, otherBoot, thirdBoot]) {
      const before = inBoot(authority.folder, boot);
      const session = await authority.session(host, { before });
      expect(await shown(authority)).toMatchObject({ boot, clones: [] });
      session.kill("SIGKILL");
      await session.ended();
    }
    await host.openOnce({ before: inBoot(authority.folder, otherBoot) });
    // Back in a boot that a later one had followed: there is no such thing with one machine.
    expect((await shown(authority)).clones).toEqual([
      { boots: [otherBoot, thirdBoot], how: "returned" },
    ]);
  });

  test("a session that a new boot has followed is a clone's when it speaks", async () => {
    await using authority = await TestAuthority.start();
    const host = new RawHost(await authority.token("web-1"));
    await host.enrol();
    const bearer = await host.bearer("web-1");
    expect((await host.open("web-1", { boot: otherBoot })).status).toBe(200);
    expect((await shown(authority)).open.map(({ phase }) => phase).toSorted()).toEqual([
      "live",
      "superseded",
    ]);
    expect((await host.ask("/v1/whoami", { bearer })).status).toBe(401);
    expect(await authority.eventsOf("host-clone", "session-ended")).toMatchObject([
      { kind: "session-ended", reason: "superseded" },
      { kind: "host-clone", boots: [ownBoot, otherBoot], how: "spoke" },
    ]);
  });

  // Each waits ten seconds for somebody who does not answer.
  onlyInAll(() => {
    describe("whose power was cut", () => {
      test("nobody closes its link, nobody answers on it: no clone", async () => {
        await using authority = await TestAuthority.start();
        const host = await authority.enrolled("web-1");
        const session = await authority.session(host);
        session.kill("SIGSTOP");
        await host.openOnce({ before: inBoot(authority.folder, otherBoot) });
        expect((await shown(authority)).clones).toEqual([]);
        // It was a machine that was resumed, and not one that was off.
        session.kill("SIGCONT");
        await session.said(/closed: the session was ended/);
        expect((await shown(authority)).clones).toMatchObject([{ how: "spoke" }]);
      });

      test("a link that says nothing by itself does not keep the new boot out", async () => {
        await using authority = await TestAuthority.start();
        const host = new RawHost(await authority.token("web-1"));
        await host.enrol();
        const link = new RawLink(authority.address, await host.bearer("web-1"));
        await link.heard("welcome");
        expect((await host.open("web-1", { boot: otherBoot })).status).toBe(200);
        expect((await shown(authority)).clones).toEqual([]);
        link.close();
      });
    });
  });
});
