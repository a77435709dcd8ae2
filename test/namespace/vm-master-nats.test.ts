/** Masters over one NATS: one acts, another takes over, and all that was declared is there. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { natsReleases } from "../../scripts/nats-server.ts";
import { type NatsServer, natsServer, startNatsServer } from "../support/nats-server.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { declaration, TestMaster } from "../support/vm-master/cluster.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(240_000);

/** A term, and for a busy machine. */
const takeoverMilliseconds = 90_000;
const two = declaration({ db: "cpu = 2\nmemoryMb = 1024", web: "placement = { movable = true }" });
const [, middle] = natsReleases;

let stack: AsyncDisposableStack;
let nats: NatsServer;
beforeEach(async () => {
  stack = new AsyncDisposableStack();
  const folder = stack.use(temporaryFolder()).path;
  nats = stack.use(await startNatsServer({ release: middle, folder, syncs: true }));
});
afterEach(() => stack.disposeAsync());

const store = (more = `monitoring = "${nats.monitoring}"`) =>
  `[store]\nservers = ["${nats.address}"]\n${more}\n`;

async function startMaster(name: string): Promise<TestMaster> {
  const master = stack.use(new TestMaster());
  await startAgain(master, name);
  return master;
}

async function startAgain(master: TestMaster, name: string): Promise<void> {
  const config = master.file(store(`name = "${name}"\nmonitoring = "${nats.monitoring}"`));
  await master.start({ flags: ["--config", config] });
}

async function acts(master: TestMaster): Promise<void> {
  const probe = async () => (await master.tries("cluster", "--json")).exitCode === 0;
  await waitFor("a master to act", probe, takeoverMilliseconds);
}

const ownersOf = async (master: TestMaster) =>
  (await master.status()).machines.map(({ name, worker, owner_generation }) => ({
    ...{ name, worker, owner_generation },
  }));

/** What the first one has given is given by the second: nothing is made anew. */
async function expectSame(first: Awaited<ReturnType<typeof ownersOf>>, second: TestMaster) {
  expect((await second.status()).generation).toBe(1);
  expect(await ownersOf(second)).toEqual(first);
}

skipUnless("masters over one NATS", [natsServer(middle)], () => {
  test("one acts, and one that stands by says who; it takes over when that one ends", async () => {
    const first = await startMaster("host-1");
    await acts(first);
    await first.apply(two);
    const worker = await first.worker("rack-1");
    await worker.follow();
    await worker.follow();
    const owners = await ownersOf(first);
    expect(owners.map((machine) => machine.worker)).toEqual(["rack-1", "rack-1"]);
    const second = await startMaster("host-2");
    const refused = await waitFor("it to know who acts", async () => {
      const answer = await second.tries("cluster");
      if (answer.stderr.includes("host-1 acts")) return answer;
      throw new Error(answer.stderr);
    });
    expect(refused.exitCode).toBe(111);
    expect(refused.stderr).toContain("This master stands by");
    expect((await first.authority.stop()).exitCode).toBe(0);
    await acts(second);
    await expectSame(owners, second);
    const same = await second.worker("rack-1");
    Object.assign(same, { observed: worker.observed, machines: worker.machines });
    await same.report();
    expect((await same.assignment()).kind).toBe("unchanged");
    expect((await second.status()).convergence_percent).toBe(100);
  });

  test("a server that acknowledges what it may lose is refused, with what to do", async () => {
    const folder = stack.use(temporaryFolder()).path;
    const loose = stack.use(await startNatsServer({ release: middle, folder }));
    const master = stack.use(new TestMaster());
    const text = `[store]\nservers = ["${loose.address}"]\nmonitoring = "${loose.monitoring}"\n`;
    await master.start({ flags: ["--config", master.file(text)] });
    const { exitCode, stderr } = await master.authority.daemon.ended();
    expect(exitCode).toBe(111);
    expect(stderr).toContain("sync_interval: always");
  });

  onlyInAll(() => describe("in trouble", troubles));
});

function troubles(): void {
  test("one that is killed is followed by another, with all that it had given", async () => {
    const first = await startMaster("host-1");
    await acts(first);
    await first.apply(two);
    await (await first.worker("rack-1")).follow();
    const owners = await ownersOf(first);
    const second = await startMaster("host-2");
    await first.authority.stop("SIGKILL");
    await acts(second);
    await expectSame(owners, second);
  });

  test("one that stood still for longer than its term changes nothing, and ends", async () => {
    const first = await startMaster("host-1");
    await acts(first);
    await first.apply(two);
    const second = await startMaster("host-2");
    suspend(first.authority.daemon.processId);
    await acts(second);
    await second.apply(declaration({ db: "cpu = 1" }));
    process.kill(first.authority.daemon.processId, "SIGCONT");
    const { exitCode, stderr } = await first.authority.daemon.ended();
    expect(exitCode).toBe(111);
    expect(stderr).toContain("this master acts no more");
    expect((await second.status()).machines.map(({ name }) => name)).toEqual(["db"]);
    expect((await second.status()).generation).toBe(2);
  });

  test("while NATS is away nobody acts; when it is back one does, with all that was", async () => {
    const first = await startMaster("host-1");
    await acts(first);
    await first.apply(two);
    await (await first.worker("rack-1")).follow();
    const owners = await ownersOf(first);
    await nats.stop();
    // Its term is over after 15 s; and it asks a server that is away to let it go.
    const { exitCode, stderr } = await first.authority.daemon.ended(60_000);
    expect(exitCode).toBe(111);
    expect(stderr).toContain("could not be renewed in time");
    await startAgain(first, "host-1");
    expect((await first.tries("cluster")).stderr).toContain(
      `This master stands by: NATS is not reached at ${nats.address}`,
    );
    await first.authority.daemon.said(/NATS is not reached at/);
    await nats.start();
    await acts(first);
    await expectSame(owners, first);
  });
}
