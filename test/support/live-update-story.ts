/** Two clients, one with a hello and one without, that take an update as it comes. */
import { expect } from "bun:test";
import { type LineClient, type Machine, preserve, restore } from "./live-update-daemon.ts";
import { waitFor } from "./wait-for.ts";

/** What each of them has in memory. */
const contents = { greeted: "what greeted has", bare: "what bare has" } as const;

export interface Pair {
  readonly greeted: LineClient;
  readonly bare: LineClient;
}

/** Both subscribe; `update` is the one that the greeted one took part in before. */
export async function subscribe(machine: Machine, update?: string): Promise<Pair> {
  const greeted = await machine.client();
  const words = update === undefined ? {} : { update };
  await greeted.ask({ cmd: "SUBSCRIBE", id: "greeted", ...words });
  if (update !== undefined) expect((await greeted.heard("ABORTED")).update).toBe(update);
  const bare = await machine.bareClient();
  await bare.say({ cmd: "SUBSCRIBE", id: "bare" });
  const isThere = async () => (await machine.ask<unknown[]>("list")).length === 2;
  await waitFor("both", async () => !machine.isAlive || (await isThere()));
  return { greeted, bare };
}

/** It preserves what it has. @returns the update that it was told of */
export async function preserveOwn(
  machine: Machine,
  client: LineClient,
  name: keyof typeof contents,
): Promise<string | undefined> {
  const { line, session } = await client.given("START_PRESERVATION");
  using own = session;
  expect(await preserve(machine.kernel, own, contents[name])).toBe(0);
  return line.update;
}

/** From the subscription into the new kernel, whose luod is not started yet. */
export async function update(machine: Machine, known?: string): Promise<void> {
  const { greeted, bare } = await subscribe(machine, known);
  await machine.load();
  await machine.kexec();
  await preserveOwn(machine, greeted, "greeted");
  await preserveOwn(machine, bare, "bare");
  await bare.say({ cmd: "READY" });
  await greeted.ask({ cmd: "READY" });
  await machine.boot();
}

/** What it comes for, with a connection of its own. */
export async function claim(machine: Machine, name: keyof typeof contents): Promise<LineClient> {
  const client = name === "bare" ? await machine.bareClient() : await machine.client();
  await client.say({ cmd: "CLAIM", id: name });
  const { session } = await client.given("CLAIMED");
  using own = session;
  expect(await restore(machine.kernel, own)).toBe(contents[name]);
  return client;
}

/** Both claim and finish; then nothing of the update is anywhere. */
export async function restoreAll(machine: Machine): Promise<void> {
  const greeted = await claim(machine, "greeted");
  await claim(machine, "bare");
  await greeted.ask({ cmd: "FINISHED", id: "greeted" });
  await machine.ask("finish", { client: "bare" });
  await nothingIsOpen(machine);
  expect(await machine.status()).toMatchObject({ phase: "idle", update: null });
}

export async function nothingIsOpen(machine: Machine): Promise<void> {
  await waitFor("the end of every session", () => {
    const { incoming, outgoing } = machine.kernel;
    return incoming.length === 0 && outgoing.length === 0;
  });
}
