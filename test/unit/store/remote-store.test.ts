/** A store over the wire, with one in memory behind it, does what every store does. */
import { afterAll } from "bun:test";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { RemoteStore } from "../../../src/store/wire/remote-store.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { describeStore } from "../../support/store-conformance.ts";
import { serveStore } from "../../support/store-server.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { withDeadline } from "../../support/wait-for.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

describeStore(
  "the store over the wire",
  async (buckets) => {
    await using stack = new AsyncDisposableStack();
    const folder = stack.use(temporaryFolder());
    const memory = stack.use(new MemoryStore({ buckets }));
    const server = stack.use(serveStore({ loop, store: memory, unix: folder.file("store") }));
    const connect = async () => {
      const store = new RemoteStore(loop, { address: server.address });
      await up(store);
      return store;
    };
    const store = stack.use(await connect());
    const owned = stack.move();
    return { store, another: connect, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  },
  { another: true, countsBytes: true },
);

async function up(store: RemoteStore): Promise<void> {
  const end = new AbortController();
  const reached = (async () => {
    for await (const state of store.link(end.signal)) if (state === "up") return;
  })();
  await withDeadline("the link to be up", reached);
  end.abort();
}
