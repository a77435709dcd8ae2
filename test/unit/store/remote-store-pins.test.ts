/** A store over wss://: the pin decides, and nothing else. */
import { afterAll, expect, test } from "bun:test";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { limits, storePath } from "../../../src/store/wire/protocol.ts";
import { RemoteStore } from "../../../src/store/wire/remote-store.ts";
import { StoreConnection } from "../../../src/store/wire/store-connection.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { program, skipUnless } from "../../support/skips.ts";
import { conformanceBuckets } from "../../support/store-buckets.ts";
import { freshWriteId, problemOf } from "../../support/store-conformance.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { waitFor } from "../../support/wait-for.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

async function certificate(folder: TemporaryFolder, name: string) {
  const [key, file] = [folder.file(`${name}.key`), folder.file(`${name}.pem`)];
  const words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key];
  const more = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-out", file];
  expect(Bun.spawnSync(["openssl", "req", "-x509", ...words, ...more]).exitCode).toBe(0);
  return { key: await Bun.file(key).text(), certificate: await Bun.file(file).text() };
}

function serve(pair: { readonly key: string; readonly certificate: string }) {
  const store = new MemoryStore({ buckets: conformanceBuckets });
  return Bun.serve<{ connection: StoreConnection | undefined }>({
    hostname: "127.0.0.1",
    port: 0,
    tls: { key: pair.key, cert: pair.certificate },
    fetch: (request, self) =>
      self.upgrade(request, { data: { connection: undefined } })
        ? undefined
        : new Response("", { status: 400 }),
    websocket: {
      maxPayloadLength: limits.messageBytes,
      open(socket) {
        socket.data.connection = new StoreConnection({
          store,
          loop,
          socket: {
            send: (text) => {
              socket.send(text);
            },
            bufferedAmount: () => socket.getBufferedAmount(),
            close: (code, reason) => socket.close(code, reason),
          },
          incarnation: "first",
          permits: () => true,
          onFailure: (failure) => {
            throw failure;
          },
        });
      },
      message: (socket, message) => socket.data.connection?.receive(message),
      close: (socket) => socket.data.connection?.closed(),
    },
  });
}

skipUnless("the pins of a store's server", program("openssl", "openssl"), () => {
  test("the right one is let in; another, and a check that says no, are not", async () => {
    using folder = temporaryFolder();
    const [own, other] = [await certificate(folder, "own"), await certificate(folder, "other")];
    const server = serve(own);
    await using stack = new AsyncDisposableStack();
    stack.defer(() => server.stop(true));
    const reasons: string[] = [];
    const connect = (tls: ConstructorParameters<typeof RemoteStore>[1]["tls"]) =>
      stack.use(
        new RemoteStore(loop, {
          address: `wss://127.0.0.1:${server.port}${storePath}`,
          deadline: 2_000,
          onFailure: (reason) => reasons.push(reason),
          ...(tls !== undefined && { tls }),
        }),
      );
    let checked = 0;
    const good = connect({
      ca: [other.certificate, own.certificate],
      checkServerIdentity: () => {
        checked += 1;
        return undefined;
      },
    });
    await good.put("facts", "a", "1", { writeId: freshWriteId() });
    expect(checked).toBe(1);
    expect(reasons).toEqual([]);
    for (const tls of [
      undefined,
      { ca: [other.certificate] },
      { ca: [own.certificate], checkServerIdentity: () => new Error("another pin") },
    ]) {
      reasons.length = 0;
      const bad = connect(tls);
      await waitFor("a refusal", () => reasons.length > 0);
      await bad[Symbol.asyncDispose]();
      expect((await problemOf(bad.get("facts", "a"))).kind).toBe("unavailable");
    }
  });
});
