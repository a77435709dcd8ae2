/** The embedded store over the wire, in a process that is killed, stopped, cut off and rewound. */
import { afterAll } from "bun:test";
import { join } from "node:path";
import { restore } from "../../src/store/restore.ts";
import { RemoteStore } from "../../src/store/wire/remote-store.ts";
import { repositoryRoot } from "../support/binary.ts";
import { startCuttingProxy } from "../support/cutting-proxy.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { type Program, startProgram } from "../support/program.ts";
import { describeStore, type StoreHarness } from "../support/store-conformance.ts";
import { unixAddress } from "../support/store-server.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { withDeadline } from "../support/wait-for.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

const program = join(repositoryRoot, "test/support/programs/store-server.ts");

async function makeHarness(): Promise<StoreHarness> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(temporaryFolder());
  const [socket, data, backup] = [folder.file("s"), folder.file("data"), folder.file("backup")];
  let running: Program | undefined;
  const start = async () => {
    running = startProgram([process.execPath, program, socket, data, backup]);
    await running.said(/serving/);
  };
  const stop = async () => {
    await running?.[Symbol.asyncDispose]();
  };
  await start();
  stack.defer(stop);
  const proxy = await startCuttingProxy({ listen: folder.file("p"), target: () => socket });
  stack.use(proxy);
  const connect = async () => {
    const address = unixAddress(folder.file("p"));
    const store = new RemoteStore(loop, { address, staleAfter: 400, deadline: 2_000 });
    const end = new AbortController();
    const reached = (async () => {
      for await (const state of store.link(end.signal)) if (state === "up") return;
    })();
    await withDeadline("the link to be up", reached);
    end.abort();
    return store;
  };
  const store = stack.use(await connect());
  const owned = stack.move();
  return {
    store,
    another: connect,
    restart: async () => {
      await stop();
      await start();
      return store;
    },
    rewind: {
      mark: async () => {
        running?.kill("SIGUSR2");
        await running?.said(/backed up/);
      },
      back: async () => {
        await stop();
        restore({ folder: data, file: backup, withoutLedger: false });
        await start();
        return store;
      },
    },
    away: [
      {
        name: "SIGSTOP",
        leave: async () => running?.kill("SIGSTOP"),
        comeBack: async () => running?.kill("SIGCONT"),
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

describeStore("the embedded store over the wire", makeHarness, {
  another: true,
  restart: true,
  rewind: true,
  away: ["SIGSTOP", "partition"],
  countsBytes: true,
});
