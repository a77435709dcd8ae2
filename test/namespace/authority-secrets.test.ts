/** Where secrets are not: whatever is printed, logged, listed, kept beside their files, or sent. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { COOKIE_NAME } from "../../src/http/credentials.ts";
import {
  runHostler,
  saysDone,
  saysRefused,
  TestAuthority,
  type TestHost,
  type TestOperator,
} from "../support/authority.ts";
import { hostler } from "../support/binary.ts";
import { childrenOf } from "../support/partition.ts";
import { type Program, startProgram } from "../support/program.ts";
import { askRaw, RawHost } from "../support/raw-host.ts";
import { root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** All files below a folder. */
function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}

/** The secret part of keys as PEM: what stands between the lines, without the ends of lines. */
function keysIn(path: string): string[] {
  const text = readFileSync(path, "utf8").replaceAll("\\n", "\n");
  const keys = text.matchAll(/BEGIN PRIVATE KEY-----([\s\S]*?)-----END/g);
  return [...keys].map(([, body = ""]) => body.replace(/\s/g, ""));
}

/** How a secret could be told: as its letters, or as the bytes that those stand for. */
const formsOf = (secret: string): Buffer[] => {
  const bytes = Buffer.from(secret.replace(/^hostler-\w+-/, ""), "base64url");
  return [Buffer.from(secret), ...(bytes.length >= 16 ? [bytes] : [])];
};

/** What a process shows of itself to who may look: proc_pid_cmdline(5), proc_pid_environ(5). */
const shownBy = (processId: number) => ({
  argv: readFileSync(`/proc/${processId}/cmdline`),
  environment: readFileSync(`/proc/${processId}/environ`),
});

/** Everybody's life with refusals in it, the secrets of it, and all places where one looks. */
class Search {
  readonly authority: TestAuthority;
  readonly secrets = new Map<string, string>();
  readonly places = new Map<string, string | Uint8Array>();
  readonly host: TestHost;

  constructor(authority: TestAuthority) {
    this.authority = authority;
    this.host = authority.host("web-1");
  }

  #ownKey(): string {
    return keysIn(join(this.host.directory, "key.pem"))[0] ?? "";
  }

  async #request(path: string, options: Parameters<typeof askRaw>[1]) {
    return await askRaw(`${this.authority.address}${path}`, options);
  }

  /** @returns the session of a host that was let in, and has another key since */
  async hosts(): Promise<Program> {
    const { authority, secrets, places, host } = this;
    const token = await authority.token("web-1");
    secrets.set("the token", token).set("its secret", new RawHost(token).token.secret);
    const unused = await authority.token("web-2");
    secrets.set("an unused token's", new RawHost(unused).token.secret);
    const enrolling = startProgram([hostler(), ...host.words("enrol")], { input: token });
    await authority.owns(enrolling).ended();
    places.set("enrol", JSON.stringify(enrolling.output));
    secrets.set("a host's key", this.#ownKey());
    places.set("a thief", await authority.host("thief").refusesToEnrol(token));
    const session = await authority.session(host);
    places.set("rotate", await host.does("rotate --json"));
    secrets.set("its next key", this.#ownKey());
    places.set("show", await host.does("show --json"));
    const raw = new RawHost(await authority.token("raw"));
    await raw.enrol();
    const bearer = await raw.bearer("raw");
    secrets.set("a session's token", bearer);
    const refused = await raw.ask("/v1/store/backup", { bearer, method: "POST", body: {} });
    places.set("a refusal", JSON.stringify(refused.body));
    return session;
  }

  /** @returns an operator with two tokens, and the later one */
  async operators(): Promise<{ readonly alice: TestOperator; readonly rotated: string }> {
    const { authority, secrets, places } = this;
    const alice = await authority.operator("alice", "--role", "admin");
    secrets.set("an operator's token", alice.token);
    const rotated = (await authority.ask("operator", "rotate", "alice", "--overlap", "1h")).trim();
    secrets.set("the token after it", rotated);
    const body = { token: rotated };
    const login = await this.#request("/v1/browser-session", { method: "POST", body });
    const cookie = (login.headers.get("set-cookie") ?? "").split(";")[0] ?? "";
    secrets.set("a cookie", cookie.slice(COOKIE_NAME.length + 1));
    secrets.set("its CSRF token", String(login.body["csrfToken"]));
    expect((await this.#request("/v1/whoami", { headers: { cookie } })).status).toBe(200);
    const wrong = await this.#request("/v1/whoami", { bearer: "x" });
    places.set("a wrong one", JSON.stringify(wrong));
    await authority.ask("certificate", "rotate");
    return { alice, rotated };
  }

  /** The authority's key, and those of its two certificates. */
  ownKeys(): void {
    const own = filesIn(join(this.authority.stateDirectory, "identity")).flatMap(keysIn);
    expect(own).toHaveLength(3);
    for (const [number, key] of own.entries()) this.secrets.set(`key ${number}`, key);
    const all = [...this.secrets.values()];
    expect(all.every((secret) => secret.length >= 40)).toBe(true);
    expect(new Set(all).size).toBe(all.length);
  }

  shown(name: string, processId: number): void {
    const { argv, environment } = shownBy(processId);
    this.places.set(`${name}'s argv`, argv).set(`${name}'s environment`, environment);
  }

  async lists(alice: TestOperator): Promise<void> {
    const { authority, places } = this;
    const lists = [
      ...[
        ["token", "list"],
        ["host", "list"],
        ["host", "show", "web-1"],
        ["operator", "list"],
      ],
      ...[["certificate", "list"], ["whoami"], ["events"]],
    ];
    for (const words of lists) {
      places.set(words.join(" "), await authority.ask(...words));
      places.set(`${words.join(" ")} --json`, await authority.ask(...words, "--json"));
      places.set(`alice's ${words.join(" ")}`, await alice.ask(...words, "--json"));
    }
    places.set("the audit log", JSON.stringify(await authority.audit()));
  }

  /** @returns the file of a backup */
  async store(): Promise<string> {
    const { authority, places } = this;
    const backup = authority.folder.file("backup");
    const socket = ["--control-socket", authority.controlSocket, "--json"];
    places.set("store backup", await saysDone(["store", "backup", backup, ...socket]));
    places.set("store storage", await saysDone(["store", "storage", ...socket]));
    return backup;
  }

  async pages(token: string): Promise<void> {
    for (const path of ["/metrics", "/healthz", "/openapi.json"]) {
      const tls = { rejectUnauthorized: false };
      const headers = { authorization: `Bearer ${token}` };
      const response = await fetch(`${this.authority.address}${path}`, { headers, tls });
      expect(response.status).toBe(200);
      this.places.set(path, await response.text());
    }
  }

  files(...paths: readonly string[]): void {
    for (const path of paths) this.places.set(path, readFileSync(path));
  }

  found(): string[] {
    return [...this.places].flatMap(([place, content]) => {
      const bytes = Buffer.from(content);
      return [...this.secrets]
        .filter(([, secret]) => formsOf(secret).some((form) => bytes.includes(form)))
        .map(([name]) => `${name} in ${place}`);
    });
  }
}

skipUnless("secrets of a compiled authority and its hosts", root, () => {
  test.each([[[]], [["--log-json"]]])("stand nowhere else, with %p", async (flags) => {
    await using authority = await TestAuthority.start({ flags });
    const search = new Search(authority);
    const session = await search.hosts();
    const { alice, rotated } = await search.operators();
    const words = alice.words("events", "-f", "--json");
    const follower = authority.owns(startProgram([hostler(), ...words]));
    await follower.said(/operator-rotated/);
    search.ownKeys();
    const { processId } = authority.daemon;
    expect(childrenOf(processId)).toEqual([]);
    search.shown("the authority", processId);
    search.shown("a session", session.processId);
    search.shown("a follower", follower.processId);
    await search.lists(alice);
    const backup = await search.store();
    await search.pages(rotated);
    await authority.ask("host", "revoke", "web-1");
    await session.ended();
    await authority.stop();
    for (const [name, { output }] of Object.entries({
      authority: authority.daemon,
      session,
      follower,
    })) {
      search.places.set(`what the ${name} says`, JSON.stringify(output));
    }
    const folders = ["store", "audit"].map((name) => join(authority.stateDirectory, name));
    search.files(backup, ...folders.flatMap(filesIn));
    expect(search.found()).toEqual([]);

    // A search that finds nothing has to be able to find, and to have looked at something.
    search.places.set("here", `x${alice.token}x`);
    expect(search.found()).toEqual(["an operator's token in here"]);
    expect(search.places.get("what the authority says")).toContain("token-stolen");

    // And what is on the disk is for its owner alone.
    const { host } = search;
    const all = [...filesIn(authority.stateDirectory), ...filesIn(host.directory), backup];
    expect(all.filter((path) => (statSync(path).mode & 0o077) !== 0)).toEqual([]);
    expect(statSync(authority.stateDirectory).mode & 0o777).toBe(0o700);
    expect(statSync(host.directory).mode & 0o777).toBe(0o700);
  });

  test("a token that waits on stdin is in nobody's list of processes", async () => {
    await using authority = await TestAuthority.start();
    const token = await authority.token("web-1");
    const words = [hostler(), ...authority.host("web-1").words("enrol")];
    // A shell hands it over, and lives on: its own words do not have it either.
    const script = 'cat "$0" - | "$@"';
    const file = authority.secretFile(token);
    const child = Bun.spawn(["sh", "-c", script, file, ...words], {
      stdin: "pipe",
      stdout: "pipe",
    });
    try {
      const { pid } = child;
      const waiting = await waitFor("enrol to wait for the rest", () => {
        const processes = childrenOf(pid);
        return processes.length === 2 && processes;
      });
      for (const processId of [pid, ...waiting]) {
        const { argv, environment } = shownBy(processId);
        expect(argv.includes(token)).toBe(false);
        expect(environment.includes(token)).toBe(false);
      }
      await child.stdin.end();
      expect(await child.exited).toBe(0);
    } finally {
      child.kill("SIGKILL");
    }
  });
});

skipUnless("files of secrets that others could read", root, () => {
  test("of a host: refused with the command that mends it, and left as they are", async () => {
    await using authority = await TestAuthority.start();
    const host = await authority.enrolled("web-1");
    const key = join(host.directory, "key.pem");
    const journal = join(host.directory, "authority.json");
    const cases = [
      [key, 0o644, 0o600],
      [key, 0o640, 0o600],
      [key, 0o602, 0o600],
      [journal, 0o644, 0o600],
      [host.directory, 0o755, 0o700],
      [host.directory, 0o770, 0o700],
    ] as const;
    for (const [path, wrong, right] of cases) {
      const before = readFileSync(key);
      chmodSync(path, wrong);
      for (const command of ["session --once", "rotate"]) {
        const said = await host.refuses(command);
        expect({ path, command, said }).toMatchObject({
          said: expect.stringContaining(`chmod ${right.toString(8)} ${path}`),
        });
      }
      chmodSync(path, right);
      expect(readFileSync(key)).toEqual(before);
    }
    await host.openOnce();
  });

  test("of the authority: it does not start", async () => {
    await using authority = await TestAuthority.start();
    await authority.enrolled("web-1");
    await authority.stop();
    const identity = join(authority.stateDirectory, "identity");
    const words = ["identity", "authority", "--listen", "127.0.0.1:0"];
    const start = [...words, "--state-directory", authority.stateDirectory];
    start.push("--control-socket", authority.controlSocket);
    const folders = ["identity", "store", "audit"].map((name) => {
      return [join(authority.stateDirectory, name), 0o700] as const;
    });
    const files = readdirSync(identity).map((name) => [join(identity, name), 0o600] as const);
    for (const [path, right] of [...files, ...folders]) {
      chmodSync(path, right | 0o044);
      expect(await saysRefused(start)).toContain(`chmod ${right.toString(8)} ${path}`);
      chmodSync(path, right);
    }
    await authority.start();
  });

  test("of an operator, or with an enrolment token: not read", async () => {
    await using authority = await TestAuthority.start();
    const alice = await authority.operator("alice");
    const token = authority.secretFile(await authority.token("web-1"));
    const host = authority.host("web-1");
    for (const mode of [0o644, 0o640, 0o604]) {
      chmodSync(alice.file, mode);
      chmodSync(token, mode);
      for (const [words, path] of [
        [alice.words("whoami"), alice.file],
        [host.words("enrol", "--token-file", token), token],
      ] as const) {
        const { exitCode, stderr } = await runHostler(words);
        expect(exitCode).toBe(100);
        expect(stderr).toContain(`Run chmod 600 ${path}`);
      }
    }
    chmodSync(alice.file, 0o600);
    expect(await alice.ask("whoami")).toContain("operator alice");
    chmodSync(token, 0o600);
    await saysDone(host.words("enrol", "--token-file", token));
    writeFileSync(alice.file, "x".repeat(5_000));
    const long = await runHostler(alice.words("whoami"));
    expect([long.exitCode, long.stderr]).toEqual([
      100,
      expect.stringContaining("at most 4096 bytes"),
    ]);
  });

  test("--out makes files that can be used as they are, whatever the umask", async () => {
    await using authority = await TestAuthority.start();
    const { folder } = authority;
    const before = ["sh", "-c", 'umask 0; exec "$@"', "sh"];
    const written = async (name: string, ...words: readonly string[]) => {
      const path = folder.file(name);
      expect(await saysDone(authority.local(...words, "--out", path), { before })).toBe("");
      expect(statSync(path).mode & 0o777).toBe(0o600);
      return path;
    };
    const token = await written("web-1.token", "token", "create", "web-1");
    await saysDone(authority.host("web-1").words("enrol", "--token-file", token));
    const remote = async (file: string) => {
      const place = ["--authority", authority.address, "--pin", await authority.pin()];
      return await runHostler(["identity", "whoami", ...place, "--token-file", file]);
    };
    const first = await written("alice.token", "operator", "add", "alice");
    expect((await remote(first)).exitCode).toBe(0);
    const second = await written("alice-2.token", "operator", "rotate", "alice");
    expect([(await remote(first)).exitCode, (await remote(second)).exitCode]).toEqual([111, 0]);
    // Nothing is overwritten, and then nothing was made either.
    const taken = await runHostler(authority.local("token", "create", "web-2", "--out", token));
    expect([taken.exitCode, taken.stderr]).toEqual([
      100,
      expect.stringContaining("Nothing is overwritten"),
    ]);
    expect(await authority.ask("token", "list")).not.toContain("web-2");
    // A refusal leaves no file.
    await authority.refuses("operator", "add", "alice", "--out", folder.file("again"));
    expect(existsSync(folder.file("again"))).toBe(false);
    const json = await written("json", "token", "create", "web-2", "--json");
    expect(JSON.parse(readFileSync(json, "utf8"))).toMatchObject({ token: { host: "web-2" } });
  });

  test("an operator's token goes by TLS to a pinned authority alone", async () => {
    await using authority = await TestAuthority.start();
    const alice = await authority.operator("alice");
    const { port } = authority;
    const heard: string[] = [];
    await using listener = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request) => {
        heard.push(request.headers.get("authorization") ?? "");
        return new Response("{}");
      },
    });
    for (const place of [
      `http://127.0.0.1:${listener.port}`,
      `http://127.0.0.1:${port}`,
      `unix:${authority.controlSocket}`,
      "https://127.0.0.1:0",
      "127.0.0.1:7443",
    ]) {
      const words = ["--authority", place, "--pin", alice.pin, "--token-file", alice.file];
      const { exitCode, stderr } = await runHostler(["identity", "whoami", ...words]);
      expect({ place, exitCode }).toEqual({ place, exitCode: 100 });
      expect(stderr).toContain(`Expected https://NAME:PORT after --authority`);
      expect(stderr).toContain(`received ${place}`);
      expect(stderr).not.toContain("verbose");
    }
    expect(heard).toEqual([]);
  });

  describe("who may command an authority", () => {
    test("is told by the control socket: its own user, and who was named", async () => {
      await using authority = await TestAuthority.start();
      chmodSync(authority.folder.path, 0o755);
      const as = (user: number) => ({
        before: ["setpriv", `--reuid=${user}`, `--regid=${user}`, "--clear-groups"],
      });
      const mode = () => statSync(authority.controlSocket).mode & 0o777;
      expect(mode()).toBe(0o600);
      const closed = await saysRefused(authority.local("whoami"), as(65534));
      expect(closed).toContain("is not for this user (EACCES). Run this as the authority's user");
      chmodSync(authority.controlSocket, 0o666);
      const said = await saysRefused(authority.local("whoami"), as(65534));
      expect(said).toContain("expected user 0, received user 65534, group 65534. Run this as the");
      await authority.restart({ flags: ["--command-uid", "0,65534"] });
      expect(mode()).toBe(0o666);
      expect(await saysDone(authority.local("whoami"), as(65534))).toBe("local uid 65534\n");
      expect(await saysDone(authority.local("whoami"))).toBe("local uid 0\n");
      // Everybody can reach the socket now: whoever is not named gets nothing, nor fills the log.
      for (let count = 0; count < 3; count += 1) {
        const other = await saysRefused(authority.local("whoami"), as(1234));
        expect(other).toContain("expected user 0, 65534, received user 1234");
      }
      const { stdout, stderr } = authority.daemon.output;
      expect(`${stdout}${stderr}`.match(/refused a client/g)).toHaveLength(1);
    });
  });
});
