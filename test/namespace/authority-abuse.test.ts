/** Who means harm or speaks something else: the compiled authority stays small, and serves. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { defaultHttpLimits } from "../../src/http/limits.ts";
import { identityPaths } from "../../src/identity/protocol-paths.ts";
import { present, runHostler, TestAuthority } from "../support/authority.ts";
import { type Program, startProgram } from "../support/program.ts";
import { askRaw } from "../support/raw-host.ts";
import { ended, MEBIBYTE, openTls, pour } from "../support/raw-socket.ts";
import { rotating } from "../support/rotation.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(180_000);

const KIBIBYTE = 1024;

/** Bytes of memory that a process has had at most: proc_pid_status(5). */
function mostMemory(processId: number): number {
  const status = readFileSync(`/proc/${processId}/status`, "latin1");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) * KIBIBYTE;
}

const descriptorsOf = (processId: number) => readdirSync(`/proc/${processId}/fd`).length;

/** What /metrics counts under this name; asked again where that was too often. */
async function metric(authority: TestAuthority, token: string, name: string): Promise<number> {
  return await waitFor(`${name} in /metrics`, async () => {
    const response = await fetch(`${authority.address}/metrics`, {
      headers: { authorization: `Bearer ${token}` },
      tls: { rejectUnauthorized: false },
    });
    const [, count] = new RegExp(`^${name} (\\d+)$`, "m").exec(await response.text()) ?? [];
    return count === undefined ? undefined : Number(count);
  });
}

skipUnless("what the listener of a compiled authority does not speak", root, () => {
  test("plain HTTP, TLS 1.2, noise: it is cut off, and the next one is served", async () => {
    await using authority = await TestAuthority.start();
    const { port } = authority;
    const plain = connect(port, "127.0.0.1");
    plain.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(await ended(plain)).not.toContain("HTTP/1.1");
    const noise = connect(port, "127.0.0.1");
    noise.write(Buffer.alloc(4_096, 0x5a));
    await ended(noise);
    const failure = await openTls(port, "TLSv1.2").then(
      () => undefined,
      (reason: Error) => reason,
    );
    expect(failure).toBeInstanceOf(Error);
    const long = await openTls(port);
    long.write(`GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ${"x".repeat(64 * KIBIBYTE)}\r\n\r\n`);
    expect(await ended(long)).toContain("431");
    const health = await askRaw(`${authority.address}/healthz`);
    expect(health.body).toEqual({ status: "well", reasons: [] });
    expect(authority.daemon.output.stderr).not.toMatch(/bug|failed/);
  });

  test("plain HTTP at an address that is not loopback: there is no way to ask for it", async () => {
    await using authority = await TestAuthority.start({ listen: "0.0.0.0:0" });
    const plain = connect(authority.port, "127.0.0.1");
    plain.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    expect(await ended(plain)).not.toContain("HTTP/1.1");
    const { stdout } = await runHostler(["identity", "authority", "--help"]);
    expect(stdout).not.toMatch(/plain|insecure|no-tls/i);
  });
});

skipUnless("a body of 1 GB", root, () => {
  const host = "HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
  const announced = "Content-Length: 1000000000\r\n\r\n";
  const chunked = "Transfer-Encoding: chunked\r\n\r\n";

  test("of nobody and of an operator: refused, and the daemon stays as small", async () => {
    await using authority = await TestAuthority.start();
    const alice = await authority.operator("alice", "--role", "operate");
    const { processId } = authority.daemon;
    const before = mostMemory(processId);
    const bearer = `Authorization: Bearer ${alice.token}\r\n`;
    const cases = [
      ["nobody, announced", `POST ${identityPaths.enrolments} ${host}${announced}`, 413],
      ["nobody, in chunks", `POST ${identityPaths.enrolments} ${host}${chunked}`, 413],
      ["nobody, a challenge", `POST ${identityPaths.challenges} ${host}${chunked}`, 413],
      ["alice, announced", `POST /v1/identity/tokens ${host}${bearer}${announced}`, 413],
      ["alice, in chunks", `POST /v1/identity/tokens ${host}${bearer}${chunked}`, 413],
      ["unread", `POST /v1/identity/tokens ${host}${chunked}`, 401],
    ] as const;
    for (const [name, head, status] of cases) {
      const socket = await openTls(authority.port);
      const isChunked = head.endsWith(chunked);
      const poured = await pour(socket, { head, bytes: 1_000 * MEBIBYTE, chunked: isChunked });
      expect({ name, answer: poured.answer }).toMatchObject({
        answer: expect.stringContaining(`HTTP/1.1 ${status}`),
      });
      expect(poured.sent).toBeLessThan(64 * MEBIBYTE);
    }
    expect(mostMemory(processId) - before).toBeLessThan(96 * MEBIBYTE);
    const refused = (await authority.audit()).filter(({ verb }) => verb === "identity.enrol");
    expect(refused.map(({ result }) => result)).toEqual(Array(2).fill("The request is too large"));
    expect(await alice.ask("whoami")).toContain("operator alice");
  });
});

/** Begins to open 10,000 connections that ask nothing. */
function flood(authority: TestAuthority): Program {
  const file = authority.folder.file("half-open");
  const source = join(import.meta.dirname, "../support/programs/half-open.c");
  const compiler = spawnSync("gcc", ["-O1", "-Wall", "-o", file, source], { encoding: "utf8" });
  if (compiler.status !== 0) throw new Error(`Cannot compile ${source}:\n${compiler.stderr}`);
  return authority.owns(startProgram([file, String(authority.port), "10000"]));
}

skipUnless("10,000 half-open connections", [root, program("gcc", "gcc")], () => {
  const cases = [
    ["with descriptors enough", undefined],
    ["with 1,024 descriptors", 1_024],
  ] as const;
  const some = rotating("half-open connections", cases, { outOf: 2 });
  describe.each(some)("%s", (_name, descriptors) => {
    test("an operator is served all the while, and a host's link stays", async () => {
      const before =
        descriptors === undefined ? [] : ["prlimit", `--nofile=${descriptors}:${descriptors}`];
      await using authority = await TestAuthority.start({ before });
      const alice = await authority.operator("alice");
      const host = await authority.enrolled("web-1");
      const session = await authority.session(host);
      await present(authority, "web-1");
      const { processId } = authority.daemon;
      const had = mostMemory(processId);
      const flooding = flood(authority);
      for (const count of [1_000, 5_000, 10_000]) {
        expect(await alice.ask("whoami")).toContain("operator alice");
        await flooding.said(new RegExp(`^opened ${count}$`, "m"), 60_000);
      }
      // The kernel says that one is open before the daemon has taken it. Where the daemon's queue
      // is full the kernel tries again later and later, and at last forgets it: so not of all.
      const enough = 4 * defaultHttpLimits.unproven;
      await waitFor(
        `${enough} of them to be taken, and ended`,
        async () => {
          return (await metric(authority, alice.token, "hostler_http_connections_ended")) > enough;
        },
        60_000,
      );
      const open = await metric(authority, alice.token, "hostler_http_connections");
      const most = Math.min(defaultHttpLimits.unproven, (descriptors ?? 20_000) / 6);
      expect(open).toBeLessThanOrEqual(most + 16);
      expect(descriptorsOf(processId)).toBeLessThan(descriptors ?? 4 * most);
      expect(mostMemory(processId) - had).toBeLessThan(128 * MEBIBYTE);
      await host.openOnce();
      expect(session.output.stdout).toMatch(/link is up\n$/);
      expect(session.output.stdout.match(/link is up/g)).toHaveLength(1);
      flooding.kill("SIGKILL");
      await waitFor("those that are left to be gone", async () => {
        return (await metric(authority, alice.token, "hostler_http_connections")) < 16;
      });
    });
  });
});
