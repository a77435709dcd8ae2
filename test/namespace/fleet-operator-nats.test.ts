/** Operators over one NATS: an upgrade goes on whatever becomes of servers, links and operators. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { connect } from "@nats-io/transport-node";
import { type NatsRelease, natsReleases } from "../../scripts/nats-server.ts";
import { fleetBuckets } from "../../src/fleet/protocol.ts";
import { saysDone } from "../support/authority.ts";
import { hostler } from "../support/binary.ts";
import { type CuttingProxy, startCuttingProxy } from "../support/cutting-proxy.ts";
import { builds } from "../support/fleet-operator/device-life.ts";
import {
  type ScriptedDevice,
  type ShownMarker,
  TestFleet,
} from "../support/fleet-operator/test-fleet.ts";
import { buildVersion } from "../support/fleet-releases.ts";
import { type NatsServer, natsServer, startNatsServer } from "../support/nats-server.ts";
import { startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(240_000);

const [oldest, middle, newest] = natsReleases;
/** A term, and for a busy machine. */
const takeoverMilliseconds = 90_000;

/** The test's servers have less room than the fleets that the usual sizes are for. */
const sizes = Object.values(fleetBuckets).flatMap((name) => {
  const age = name === fleetBuckets.heartbeats ? "24h" : "forever";
  return ["--retain", `${name}=${age},1MiB`];
});

let stack: AsyncDisposableStack;
let folder: TemporaryFolder;
let files = 0;
beforeEach(() => {
  stack = new AsyncDisposableStack();
  folder = stack.use(temporaryFolder());
});
afterEach(() => stack.disposeAsync());

const serve = async (release: NatsRelease) =>
  stack.use(
    await startNatsServer({ release, folder: folder.path, syncs: release.version !== "2.9" }),
  );

interface Where {
  readonly address: string;
  readonly name?: string;
  /** A line of `[store]`. */
  readonly proof: string;
}

const over = (nats: NatsServer, name = "host-1"): Where => ({
  ...{ address: nats.address, name },
  proof: `monitoring = "${nats.monitoring}"`,
});

/** Flags of an operator. */
async function flagsOf({ address, name = "host-1", proof }: Where): Promise<string[]> {
  files += 1;
  const file = folder.file(`operator-${files}.toml`);
  await Bun.write(file, `[store]\nservers = ["${address}"]\nname = "${name}"\n${proof}\n`);
  return ["--config", file, "--retain", "meta=forever,1MiB", ...sizes];
}

async function startFleet(where: Where): Promise<TestFleet> {
  const fleet = stack.use(new TestFleet());
  await fleet.start({ flags: await flagsOf(where) });
  return fleet;
}

const acts = (fleet: TestFleet) =>
  waitFor(
    "an operator to act",
    async () => ((await fleet.tries("devices")).exitCode === 0 ? true : undefined),
    takeoverMilliseconds,
  );

/** Until the store has taken it: it may be away. */
const insists = (device: ScriptedDevice, say: () => Promise<string>) =>
  waitFor(
    `${device.name} is heard`,
    async () => ((await say()) === "written" ? true : undefined),
    takeoverMilliseconds,
  );

async function toldBy(fleet: TestFleet, name: string, rollout: string): Promise<ShownMarker> {
  return await waitFor(
    `${name} is told by ${rollout}`,
    async () => {
      const { marker } = await fleet.show(name);
      return marker?.rollout?.name === rollout ? marker : undefined;
    },
    takeoverMilliseconds,
  );
}

async function committed(fleet: TestFleet, device: ScriptedDevice, marker: ShownMarker) {
  return await waitFor(
    `${device.name} is committed`,
    async () => {
      await device.candidateBeats(marker);
      const { stdout, exitCode } = await fleet.tries("show", device.name, "--json");
      if (exitCode !== 0) return undefined;
      return (JSON.parse(stdout) as { marker: ShownMarker | null }).marker?.commit ?? undefined;
    },
    takeoverMilliseconds,
  );
}

/** A device that was told by a rollout, and whose candidate is ready. */
async function begun(fleet: TestFleet) {
  await acts(fleet);
  const device = await fleet.device("a");
  await insists(device, () => device.says());
  await insists(device, () => device.beats());
  await fleet.ask(...fleet.rollout("--name", "spring"));
  const marker = await toldBy(fleet, "a", "spring");
  await device.isReady(marker);
  return { device, marker };
}

async function finished(fleet: TestFleet, device: ScriptedDevice, marker: ShownMarker) {
  const commit = await committed(fleet, device, marker);
  expect(commit.transaction).toBe(marker.transaction);
  const done = { transaction: marker.transaction, phase: "done", current: builds.new } as const;
  await insists(device, () => device.says(done));
  await waitFor("the rollout is complete", async () => {
    const { phase } = await fleet.history("spring");
    return phase === "complete" ? true : undefined;
  });
}

skipUnless("operators over one NATS", [natsServer(middle)], () => {
  test("a rollout goes through, and goes on at another operator when this one ends", async () => {
    const nats = await serve(middle);
    const fleet = await startFleet(over(nats));
    const { device, marker } = await begun(fleet);
    const second = await startFleet(over(nats, "host-2"));
    const refused = await waitFor("it to know who acts", async () => {
      const { exitCode, stderr } = await second.tries("devices");
      return exitCode === 111 && stderr.includes("host-1 acts") ? stderr : undefined;
    });
    expect(refused).toContain("This operator stands by");
    expect((await fleet.authority.stop()).exitCode).toBe(0);
    await acts(second);
    expect((await second.show("a")).marker).toEqual(marker);
    expect((await second.history("spring")).counts).toMatchObject({ members: 1, flight: 1 });
    // It speaks to the one that stood by, which has the same fleet.
    const same = await second.device("a");
    await insists(same, () => same.beats());
    // Its steps rise above those of the former connection's.
    for (const _step of [1, 2]) await same.isReady(marker);
    await finished(second, same, marker);
    device.close();
  });

  test("a device writes its own keys alone, at one that stands by too", async () => {
    const nats = await serve(middle);
    const fleet = await startFleet(over(nats));
    await acts(fleet);
    const second = await startFleet(over(nats, "host-2"));
    for (const one of [fleet, second]) {
      const a = await one.device("a");
      await insists(a, () => a.says());
      await insists(a, () => a.beats());
      expect(await a.put(fleetBuckets.markers, "a", {})).toBe("denied");
      expect(await a.put(fleetBuckets.markers, "b", {})).toBe("denied");
      expect(await a.put(fleetBuckets.statuses, "b", {})).toBe("denied");
      expect(await a.put(fleetBuckets.heartbeats, "b.candidate", {})).toBe("denied");
      expect(await a.put(fleetBuckets.rollouts, "spring", {})).toBe("denied");
      expect(await a.put(fleetBuckets.operator, "acting", {})).toBe("denied");
    }
    await waitFor("it is heard", async () => {
      const { device } = await fleet.show("a");
      return device.standing === "alive" ? true : undefined;
    });
  });

  test("a server that acknowledges what it may lose is refused, with what to do", async () => {
    const loose = stack.use(await startNatsServer({ release: middle, folder: folder.path }));
    const fleet = await startFleet(over(loose));
    const { exitCode, stderr } = await fleet.authority.daemon.ended();
    expect(exitCode).toBe(111);
    expect(stderr).toContain("sync_interval: always");
  });

  onlyInAll(() => describe("in trouble", troubles));
  onlyInAll(wholeDevices);
});

onlyInAll(otherServers);

skipUnless("an operator over a NATS that has nonsense", natsServer(middle), () => {
  test.each([
    [fleetBuckets.operator, "acting", "fleet-operator/acting is a record of another version"],
    [fleetBuckets.markers, "box", "agent-upgrade/box is a marker of another version"],
  ])("in %s/%s ends, says which, and leaves it", async (bucket, key, said) => {
    const nats = await serve(middle);
    const flags = await flagsOf(over(nats));
    const fleet = stack.use(new TestFleet());
    await fleet.start({ flags });
    await acts(fleet);
    await fleet.authority.stop();
    const connection = await connect({ servers: nats.address, tls: null });
    await connection.request(`$KV.${bucket}.${key}`, '{"protocol":99,"from":"the future"}');
    await fleet.start({ flags });
    const { exitCode, stderr } = await fleet.authority.daemon.ended(60_000);
    expect(exitCode).toBe(111);
    expect(stderr).toContain(said);
    expect(stderr).toContain("It is left as it is");
    const subject = `$JS.API.DIRECT.GET.KV_${bucket}.$KV.${bucket}.${key}`;
    expect((await connection.request(subject, "")).string()).toContain("the future");
    await connection.close();
  });
});

/** A release of the build with kill points, and a root set that leads to it. */
async function publish(): Promise<{ readonly root: string; readonly words: readonly string[] }> {
  const site = folder.file("site");
  mkdirSync(site);
  const file = (name: string) => folder.file(name);
  for (const name of ["root", "release"]) {
    await saysDone(["fleet", "key", "generate", file(name)]);
  }
  const [root, metadata] = [join(site, "root-1.json"), join(site, "metadata.json")];
  await saysDone(["fleet", "root", "init", "--key", file("root.pub"), "--out", root]);
  await saysDone(["fleet", "root", "sign", root, "--key", file("root")]);
  await saysDone(["fleet", "root", "metadata", metadata, "--signer", file("release.pub")]);
  await saysDone(["fleet", "root", "sign", metadata, "--key", file("root")]);
  const { program } = await buildVersion("7.0.0", { faults: true });
  const build = ["fleet", "artifact", "build", "7.0.0", program, "--folder", site];
  await saysDone([...build, "--floor", "0.0.1", "--level", "1"]);
  const manifest = join(site, "hostler-7.0.0.manifest.json");
  await saysDone(["fleet", "artifact", "sign", manifest, "--key", file("release")]);
  return { root, words: ["rollout", manifest, "--source", `file://${site}`, "--root", root] };
}

function troubles(): void {
  let nats: NatsServer;
  beforeEach(async () => {
    nats = await serve(middle);
  });

  test("a server that is killed in the middle of an upgrade loses nothing of it", async () => {
    const fleet = await startFleet(over(nats));
    const { device, marker } = await begun(fleet);
    await nats.stop();
    await nats.start();
    await insists(device, () => device.beats());
    expect((await fleet.show("a")).marker?.transaction).toBe(marker.transaction);
    await finished(fleet, device, marker);
  });

  test("a server that stands still for a while holds an upgrade up, and no more", async () => {
    const fleet = await startFleet(over(nats));
    const { device, marker } = await begun(fleet);
    suspend(nats.processId);
    expect(await device.beats()).not.toBe("written");
    nats.kill("SIGCONT");
    await insists(device, () => device.beats());
    await finished(fleet, device, marker);
  });

  test("one that is cut off acts no more, and goes on when it was started anew", async () => {
    const proxy: CuttingProxy & { readonly place: string | number } = stack.use(
      await startCuttingProxy({ listen: 0, target: () => nats.port }),
    );
    const where = { ...over(nats), address: `nats://127.0.0.1:${proxy.place}` };
    const fleet = await startFleet(where);
    const { marker } = await begun(fleet);
    proxy.cut();
    const { exitCode, stderr } = await fleet.authority.daemon.ended(90_000);
    expect(exitCode).toBe(111);
    expect(stderr).toContain("this operator acts no more");
    proxy.mend();
    await fleet.start({ flags: await flagsOf(over(nats)) });
    await acts(fleet);
    const [device] = fleet.devices;
    if (device === undefined) throw new Error("There is no device");
    await device.connect();
    await insists(device, () => device.beats());
    await finished(fleet, device, marker);
  });

  test("one that is killed is followed by itself, with all that it had written", async () => {
    const fleet = await startFleet(over(nats));
    const { device, marker } = await begun(fleet);
    await fleet.authority.stop("SIGKILL");
    await fleet.start({ flags: await flagsOf(over(nats)) });
    await acts(fleet);
    await device.connect();
    await insists(device, () => device.beats());
    await finished(fleet, device, marker);
  });
}

function otherServers(): void {
  for (const release of [oldest, newest]) {
    skipUnless(`an operator over nats-server ${release.version}`, natsServer(release), () => {
      test("rolls out", async () => {
        const nats = await serve(release);
        // 2.9 has no sync_interval that would write through: somebody has seen to its disk.
        const checked = { proof: 'durable_acknowledgements = "checked"' };
        const fleet = await startFleet({ ...over(nats), ...(release === oldest && checked) });
        const { device, marker } = await begun(fleet);
        await finished(fleet, device, marker);
      });
    });
  }
}

function wholeDevices(): void {
  skipUnless("a whole device by way of NATS", root, () => {
    test("is upgraded by an operator, though it speaks to one that stands by", async () => {
      const nats = await serve(middle);
      const fleet = await startFleet(over(nats));
      await acts(fleet);
      const second = await startFleet(over(nats, "host-2"));
      const release = await publish();
      const host = await second.authority.enrolled("box");
      const places = ["--folder", folder.file("fleet"), "--volatile"];
      const more = ["--prefix", folder.file("usr"), "--without-units", "--root", release.root];
      await saysDone(["fleet", "install", ...places, ...more]);
      const socket = ["--control-socket", folder.file("supervise.sock")];
      const words = [
        "fleet",
        "supervise",
        ...places,
        ...socket,
        "--",
        "--identity",
        host.directory,
      ];
      const supervisor = startProgram([hostler(), ...words]);
      stack.defer(async () => {
        supervisor.kill("SIGTERM");
        await supervisor.ended();
      });
      await waitFor("box is there", async () => {
        const { device } = await fleet.show("box");
        return device.executor === "supervise" ? true : undefined;
      });
      const followed = startProgram([hostler(), ...fleet.words(...release.words, "--follow")]);
      expect(await followed.ended(180_000)).toMatchObject({ exitCode: 0 });
      const { device } = await fleet.show("box");
      expect(device).toMatchObject({ upgrade: "done", current_version: "7.0.0", healthy: true });
    });
  });
}
