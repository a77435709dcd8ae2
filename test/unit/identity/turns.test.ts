/** Changes of an authority wait for each other: of one host, and those that concern all. */
import { expect, test } from "bun:test";
import { AuthorityCore, type AuthorityOptions } from "../../../src/identity/authority-core.ts";
import { limits } from "../../../src/identity/protocol.ts";
import { rejectionOf } from "../../support/wait-for.ts";

/** Of an authority's options its turns ask for chance and a clock alone. */
const options = {
  random: (bytes: number) => new Uint8Array(bytes),
  clock: { boot: "", monotonic: () => 0, wall: () => 0 },
} as unknown as AuthorityOptions;

class Turns {
  readonly core = new AuthorityCore(options, {} as never);
  readonly begun: string[] = [];
  readonly #ends = new Map<string, () => void>();

  /** Begins an act that goes on until it is ended by its name. */
  begin(name: string, host?: string): Promise<void> {
    const act = async () => {
      this.begun.push(name);
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#ends.set(name, resolve);
      await promise;
    };
    return host === undefined ? this.core.inTurn(act) : this.core.inTurnOf(host, act);
  }

  /** @returns what has begun by then */
  async end(name: string): Promise<string[]> {
    this.#ends.get(name)?.();
    return await this.settled();
  }

  async settled(): Promise<string[]> {
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
    return this.begun;
  }
}

test("of different hosts side by side, of one host one after the other", async () => {
  const turns = new Turns();
  const all = [turns.begin("a-1", "a"), turns.begin("a-2", "a"), turns.begin("b-1", "b")];
  expect(await turns.settled()).toEqual(["a-1", "b-1"]);
  expect(await turns.end("b-1")).toEqual(["a-1", "b-1"]);
  expect(await turns.end("a-1")).toEqual(["a-1", "b-1", "a-2"]);
  await turns.end("a-2");
  await Promise.all(all);
});

test("what concerns all goes on beside nothing", async () => {
  const turns = new Turns();
  const all = [
    ...[turns.begin("a-1", "a"), turns.begin("b-1", "b"), turns.begin("all-1")],
    ...[turns.begin("c-1", "c"), turns.begin("all-2"), turns.begin("a-2", "a")],
  ];
  expect(await turns.settled()).toEqual(["a-1", "b-1"]);
  expect(await turns.end("a-1")).toEqual(["a-1", "b-1"]);
  expect(await turns.end("b-1")).toEqual(["a-1", "b-1", "all-1"]);
  expect(await turns.end("all-1")).toEqual(["a-1", "b-1", "all-1", "c-1"]);
  expect(await turns.end("c-1")).toEqual(["a-1", "b-1", "all-1", "c-1", "all-2"]);
  expect((await turns.end("all-2")).at(-1)).toBe("a-2");
  await turns.end("a-2");
  await Promise.all(all);
});

test("one that fails is waited for as one that is done", async () => {
  const turns = new Turns();
  const failing = turns.core.inTurnOf("a", () => Promise.reject(new Error("no")));
  const next = turns.begin("a-2", "a");
  expect((await rejectionOf(failing)).message).toBe("no");
  expect(await turns.settled()).toEqual(["a-2"]);
  await turns.end("a-2");
  await next;
});

test(`over ${limits.changes} that wait one more is refused`, async () => {
  const turns = new Turns();
  const all = Array.from({ length: limits.changes }, (_value, index) =>
    turns.begin(`${index}`, `${index}`),
  );
  await turns.settled();
  expect((await rejectionOf(turns.begin("more", "more"))).message).toContain("changes that wait");
  await Promise.all(
    Array.from({ length: limits.changes }, (_value, index) => turns.end(`${index}`)),
  );
  await Promise.all(all);
});
