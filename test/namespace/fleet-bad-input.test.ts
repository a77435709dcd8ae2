/** What a fleet's commands and its operator are given that is no good, on the compiled file. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runHostler, saysDone, saysRefused } from "../support/authority.ts";
import { TestFleet } from "../support/fleet-operator/test-fleet.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(120_000);

const GIBIBYTE = 2 ** 30;

let folder: TemporaryFolder;
let stack: AsyncDisposableStack;
beforeEach(() => {
  stack = new AsyncDisposableStack();
  folder = stack.use(temporaryFolder());
});
afterEach(() => stack.disposeAsync());

describe("a source", () => {
  /** A root set, and words that have a release looked at there. */
  async function looking(address: string): Promise<string[]> {
    mkdirSync(folder.file("site"));
    const first = join(folder.file("site"), "root-1.json");
    await saysDone(["fleet", "key", "generate", folder.file("root")]);
    await saysDone(["fleet", "root", "init", "--key", folder.file("root.pub"), "--out", first]);
    await saysDone(["fleet", "root", "sign", first, "--key", folder.file("root")]);
    return ["fleet", "artifact", "verify", "1.5.0", "--at", address, "--root", first];
  }

  test("that redirects to a file of this host is not followed", async () => {
    const secret = folder.file("secret");
    writeFileSync(secret, "nobody else's");
    const headers = { location: `file://${secret}` };
    using server = Bun.serve({
      ...{ port: 0, hostname: "127.0.0.1" },
      fetch: () => new Response(null, { status: 302, headers }),
    });
    const refused = await saysRefused(await looking(`http://127.0.0.1:${server.port}`));
    expect(refused).toContain("expected a redirect to https: or http:, received one to file:");
    expect(refused).not.toContain("nobody else's");
  });

  test("whose files have no end is read no further than they may be long", async () => {
    let sent = 0;
    using server = Bun.serve({
      ...{ port: 0, hostname: "127.0.0.1" },
      fetch: () =>
        new Response(
          new ReadableStream({
            pull: (controller) => {
              sent += 65_536;
              if (sent > GIBIBYTE) controller.close();
              else controller.enqueue(new Uint8Array(65_536));
            },
          }),
        ),
    });
    expect(await saysRefused(await looking(`http://127.0.0.1:${server.port}`))).not.toBe("");
    expect(sent).toBeLessThan(GIBIBYTE / 4);
  });
});

describe("an operator", () => {
  test("is sent no manifest of a gigabyte, and none that is no manifest", async () => {
    await using fleet = await TestFleet.start();
    const large = folder.file("large.manifest.json");
    writeFileSync(large, "");
    truncateSync(large, GIBIBYTE);
    const source = ["--source", "https://files.example/hostler"];
    const refused = await runHostler(fleet.words("rollout", large, ...source));
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toContain(`received ${GIBIBYTE}`);
    writeFileSync(large, "nonsense");
    const nonsense = await runHostler(fleet.words("rollout", large, ...source));
    expect(nonsense.stderr).toContain("expected a signed manifest with a version and builds");
    expect(await fleet.ask("history")).toContain("nothing was rolled out yet");
  });

  test("told wrongly where its fleet is kept says all of it, each in its place", async () => {
    const file = folder.file("operator.toml");
    const lines = ["servers = []", 'credentials = "password"', 'certificate_file = "/c.pem"'];
    writeFileSync(file, `[store]\n${lines.join("\n")}\nreplicas = 2\nmore = 1\n`);
    const { exitCode, stderr } = await runHostler(["fleet", "operator", "--config", file]);
    expect(exitCode).toBe(100);
    for (const word of ["servers", "credentials", "replicas", "more", "key_file"]) {
      expect(stderr).toContain(word);
    }
    writeFileSync(file, '[store]\nservers = ["nats://10.0.0.1:4222"]\n');
    const plain = await runHostler(["fleet", "operator", "--config", file]);
    expect(plain.exitCode).toBe(100);
    expect(plain.stderr).toContain("store.servers[0]");
  });
});
