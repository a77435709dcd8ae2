/** Who has to go when there is no room. */
import { describe, expect, test } from "bun:test";
import { HalfOpenConnections } from "../../../src/http/half-open.ts";

/** The plain way to say it: all of them, in the order in which they came. */
class Model {
  readonly all: { address: string; connection: number }[] = [];

  countOf(address: string): number {
    return this.all.filter((one) => one.address === address).length;
  }

  oldestOf(address: string): number | undefined {
    return this.all.find((one) => one.address === address)?.connection;
  }

  most(): number {
    return Math.max(0, ...this.all.map(({ address }) => this.countOf(address)));
  }
}

describe("half-open connections", () => {
  test("nobody is there at the beginning, and at the end", () => {
    const book = new HalfOpenConnections<number>();
    expect(book.oldestOfMost()).toBeUndefined();
    book.add("a", 1);
    book.delete("a", 2);
    book.delete("b", 1);
    expect(book.oldestOfMost()).toBe(1);
    book.delete("a", 1);
    book.delete("a", 1);
    expect(book.oldestOfMost()).toBeUndefined();
    expect(book.countOf("a")).toBe(0);
  });

  test("the oldest of who has the most goes; among equals, who has had so many for longest", () => {
    const book = new HalfOpenConnections<number>();
    book.add("alone", 1);
    for (let number = 2; number <= 11; number += 1) book.add("many", number);
    for (let number = 2; number <= 10; number += 1) {
      expect(book.oldestOfMost()).toBe(number);
      book.delete("many", number);
    }
    expect(book.oldestOfMost()).toBe(1);
    book.add("third", 12);
    expect(book.oldestOfMost()).toBe(1);
  });

  test("whatever comes and goes, it is one of those with the most", () => {
    const book = new HalfOpenConnections<number>();
    const model = new Model();
    // A sequence that visits many states, the same in each run.
    let turn = 12_345;
    for (let number = 0; number < 5_000; number += 1) {
      turn = (turn * 1_103_515_245 + 12_345) % 2 ** 31;
      const address = `address ${(turn >> 8) % 7}`;
      const isAdded = model.all.length < 3 || (turn >> 16) % 2 === 0;
      if (isAdded) {
        book.add(address, number);
        model.all.push({ address, connection: number });
      } else {
        const [gone] = model.all.splice((turn >> 4) % model.all.length, 1);
        book.delete(gone?.address ?? "", gone?.connection ?? -1);
      }
      const chosen = book.oldestOfMost();
      const of = model.all.find(({ connection }) => connection === chosen)?.address ?? "";
      expect(model.countOf(of)).toBe(model.most());
      expect(model.oldestOf(of)).toBe(chosen);
      expect(book.countOf(of)).toBe(model.countOf(of));
    }
  });
});
