import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { makePipe } from "../../ffi/descriptor.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import { testEventLoop } from "../support/event-loop.ts";

let loop: EventLoop;

beforeAll(() => {
  loop = testEventLoop();
});

afterAll(() => loop[Symbol.dispose]());

describe("long work that lets others have their turn", () => {
  test("what is ready is told while it goes on, however long it is", async () => {
    const { read, write } = makePipe();
    using reader = read;
    let isTold = false;
    using watch = loop.watch(reader, "hangup", () => {
      isTold = true;
      watch.pause();
    });
    write.close();
    while (!isTold) await loop.letOthers();
    expect(isTold as boolean).toBe(true);
  });

  test("so is a timer whose time has come", async () => {
    let isTold = false;
    using _timer = loop.wakeAfter(1, () => {
      isTold = true;
    });
    while (!isTold) await loop.letOthers();
    expect(isTold as boolean).toBe(true);
  });

  test("two that do it at once go on in turn", async () => {
    const steps: string[] = [];
    const work = async (name: string) => {
      for (let step = 0; step < 3; step += 1) {
        steps.push(`${name}${step}`);
        await loop.letOthers();
      }
    };
    await Promise.all([work("a"), work("b")]);
    expect(steps).toEqual(["a0", "b0", "a1", "b1", "a2", "b2"]);
  });
});
