/** The store in NATS JetStream does what every store does, on real servers of several releases. */
import { afterAll } from "bun:test";
import { natsReleases } from "../../scripts/nats-server.ts";
import { NatsStore } from "../../src/store/nats/nats-store.ts";
import type { BucketDefinition } from "../../src/store/store.ts";
import { startCuttingProxy } from "../support/cutting-proxy.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { natsServer, startNatsServer } from "../support/nats-server.ts";
import { skipUnless } from "../support/skips.ts";
import { describeStore, type StoreHarness } from "../support/store-conformance.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

async function makeHarness(
  release: (typeof natsReleases)[number],
  buckets: readonly BucketDefinition[],
): Promise<StoreHarness> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(temporaryFolder());
  const server = stack.use(await startNatsServer({ release, folder: folder.path }));
  const proxy = await startCuttingProxy({ listen: 0, target: () => server.port });
  stack.use(proxy);
  const connect = async () => {
    const store = new NatsStore(loop, {
      servers: [`nats://127.0.0.1:${proxy.place}`],
      credentials: { kind: "none" },
      buckets,
      role: "owner",
      proof: { kind: "operator" },
      staleAfter: 900,
      deadline: 2_000,
    });
    await store.ready();
    return store;
  };
  const store = stack.use(await connect());
  const owned = stack.move();
  return {
    store,
    another: connect,
    restart: async () => {
      await server.stop();
      await server.start();
      return store;
    },
    away: [
      {
        name: "SIGSTOP",
        leave: async () => server.kill("SIGSTOP"),
        comeBack: async () => server.kill("SIGCONT"),
      },
      {
        name: "partition",
        leave: async () => proxy.cut(),
        comeBack: async () => proxy.mend(),
      },
    ],
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

for (const release of natsReleases) {
  const name = `the store in nats-server ${release.version}`;
  skipUnless(name, natsServer(release), () => {
    describeStore("conformance", (buckets) => makeHarness(release, buckets), {
      another: true,
      restart: true,
      away: ["SIGSTOP", "partition"],
    });
  });
}
