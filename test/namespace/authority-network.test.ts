/** An authority, two hosts and an operator, each in a network of its own, by the commands alone. */
import { expect, setDefaultTimeout, test } from "bun:test";
import type { HostView } from "../../src/identity/api.ts";
import {
  inBoot,
  type RunOptions,
  saysDone,
  saysRefused,
  TestAuthority,
} from "../support/authority.ts";
import { hostler } from "../support/binary.ts";
import { makeNetworks, type Network } from "../support/networks.ts";
import { type Program, startProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(90_000);

const names = ["web-1", "web-2"] as const;
type Name = (typeof names)[number];
const boots: Readonly<Record<Name, string>> = {
  "web-1": "11111111-1111-4111-8111-111111111111",
  "web-2": "22222222-2222-4222-8222-222222222222",
};

type Networks = Readonly<Record<"control" | "desk" | Name, Network>>;
type Listed = HostView & { readonly presence: { readonly boot: string } | null };

/** Four machines, and what is typed on each. */
class Story implements AsyncDisposable {
  readonly #owned = new AsyncDisposableStack();
  readonly authority: TestAuthority;
  readonly networks: Networks;
  readonly sessions = new Map<Name, Program>();
  place: string[] = [];

  private constructor(authority: TestAuthority, networks: Networks) {
    this.authority = authority;
    this.networks = networks;
  }

  static async begin(): Promise<Story> {
    await using owned = new AsyncDisposableStack();
    const { networks } = owned.use(await makeNetworks(4));
    const [control, first, second, desk] = networks as [Network, Network, Network, Network];
    const authority = owned.use(
      await TestAuthority.start({
        before: control.enter,
        listen: "0.0.0.0:7443",
        flags: ["--address", `https://${control.address}:7443`],
      }),
    );
    const story = new Story(authority, { control, desk, "web-1": first, "web-2": second });
    story.#owned.use(owned.move());
    return story;
  }

  get address(): string {
    return `https://${this.networks.control.address}:7443`;
  }

  /** Root of the authority's machine lets the operator in, who does the rest from the desk. */
  async letOperatorIn(): Promise<void> {
    const { authority, address } = this;
    const token = (await authority.ask("operator", "add", "alice", "--role", "operate")).trim();
    const file = authority.secretFile(`${token}\n`);
    this.place = ["--authority", address, "--pin", await authority.pin(), "--token-file", file];
  }

  get desk(): RunOptions {
    return { before: this.networks.desk.enter };
  }

  async operator(...words: readonly string[]): Promise<string> {
    return await saysDone(["identity", ...words, ...this.place], this.desk);
  }

  async listed(): Promise<Listed[]> {
    return JSON.parse(await this.operator("host", "list", "--json")) as Listed[];
  }

  follow(): Program {
    const words = ["identity", "events", "-f", "--json", ...this.place];
    return this.authority.owns(startProgram([...this.networks.desk.enter, hostler(), ...words]));
  }

  /** A host's network, and its boot. */
  machine(name: Name): RunOptions {
    const { enter } = this.networks[name];
    return { before: [...enter, ...inBoot(this.authority.folder, boots[name])] };
  }

  async enrol(name: Name): Promise<void> {
    const host = this.authority.host(name);
    const token = await this.operator("token", "create", name);
    const said = await host.enrol(token, this.machine(name));
    expect(said).toStartWith(`enrolled as ${name} at ${this.address}`);
    this.sessions.set(name, await this.authority.session(host, this.machine(name)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

/** They speak: each from its own address, in its own boot. */
async function expectWords(story: Story): Promise<void> {
  await waitFor("a word of both", async () => {
    return (await story.listed()).every(({ presence }) => presence !== null);
  });
  const told = (await story.listed()).map(({ name, presence, sessions, clones }) => {
    return { name, boot: presence?.boot, sessions, clones };
  });
  expect(told).toEqual(names.map((name) => ({ name, boot: boots[name], sessions: 1, clones: [] })));
  const { address } = story.networks["web-2"];
  const from = new RegExp(` live +${address.replaceAll(".", "\\.")}:\\d+ `);
  expect(await story.operator("host", "show", "web-2")).toMatch(from);
}

/** A host's key, and the authority's certificate, change under way. */
async function rotate(story: Story): Promise<void> {
  const { authority } = story;
  const keys = async () => (await story.listed()).map((host) => host.keys.join());
  const before = await keys();
  const said = await authority.host("web-1").does("rotate", story.machine("web-1"));
  expect(said).toContain("in place of");
  await story.sessions.get("web-1")?.said(/closed: the session was ended[\s\S]*link is up/);
  const after = await keys();
  expect(after[0]).not.toBe(before[0]);
  expect(after[1]).toBe(before[1]);
  await authority.ask("certificate", "rotate");
  for (const name of names) await authority.host(name).openOnce(story.machine(name));
  await authority.ask("certificate", "finish");
  const pin = await authority.pin();
  const refused = await saysRefused(["identity", "whoami", ...story.place], story.desk);
  expect(refused).toContain(`received one with ${pin}`);
  story.place.push("--pin", pin);
  expect(await story.operator("whoami")).toContain("operator alice");
}

/** One is revoked from the desk; the other one does not notice. Then the operator is. */
async function revoke(story: Story, follower: Program): Promise<void> {
  const { authority } = story;
  await story.operator("host", "revoke", "web-2");
  const ended = await story.sessions.get("web-2")?.ended();
  expect(ended).toMatchObject({
    exitCode: 111,
    stderr: expect.stringContaining("The host was revoked"),
  });
  const said = await authority.host("web-2").refuses("session --once", story.machine("web-2"));
  expect(said).toContain("The host was revoked");
  await authority.host("web-1").openOnce(story.machine("web-1"));
  const phases = (await story.listed()).map(({ name, phase }) => `${name} ${phase}`);
  expect(phases).toEqual(["web-1 enrolled", "web-2 revoked"]);
  await follower.said(/host-revoked/);
  await authority.ask("operator", "revoke", "alice");
  expect((await follower.ended()).exitCode).toBe(111);
  const list = ["identity", "host", "list", ...story.place];
  expect(await saysRefused(list, story.desk)).toContain("counts for nobody");
}

skipUnless("two hosts and an operator over a network", [root, program("ip", "iproute2")], () => {
  test("enrol, speak, rotate, and are revoked", async () => {
    await using story = await Story.begin();
    const { authority, networks } = story;
    await story.letOperatorIn();
    const follower = story.follow();
    await follower.said(/operator-added/);
    for (const name of names) await story.enrol(name);
    await expectWords(story);
    await rotate(story);
    await revoke(story, follower);

    // Who did what, from where.
    const done = (await authority.audit()).filter(({ result }) => result === "done");
    const told = done.map(({ who, verb, from }) => `${who} ${verb} ${from.replace(/:\d+$/, "")}`);
    expect(told).toContain(`operator alice identity.tokens.create ${networks.desk.address}`);
    expect(told).toContain(`anonymous identity.enrol ${networks["web-1"].address}`);
    expect(told).toContain(`host web-1 identity.key.rotate ${networks["web-1"].address}`);
    expect(told).toContain(`operator alice identity.hosts.revoke ${networks.desk.address}`);
    expect(told).toContain("local uid 0 identity.operators.revoke control socket");
    await authority.auditVerifies();
  });
});
