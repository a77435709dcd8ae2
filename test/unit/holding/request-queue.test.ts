/** The order in which a holder serves, with a device that another has open. */
import { describe, expect, test } from "bun:test";
import { type QueuedRequest, RequestQueue } from "../../../src/holding/request-queue.ts";

/** A queue, a device that is open elsewhere or not, and what was served. */
class Scene {
  readonly queue = new RequestQueue();
  readonly served: string[] = [];
  isBusy = false;
  tries = 0;

  #add(what: string, name: string | undefined, until: number | undefined): void {
    const serve: QueuedRequest["serve"] = (isLast) => {
      if (until !== undefined) this.tries += 1;
      if (until !== undefined && this.isBusy && !isLast) return "busy";
      this.served.push(this.isBusy && until !== undefined ? `${what} refused` : what);
      return "served";
    };
    const abandon = () => this.served.push(`${what} abandoned`);
    this.queue.add({ name, until, serve, abandon });
  }

  plain(what: string, name?: string): void {
    this.#add(what, name, undefined);
  }

  device(what: string, name: string, until: number): void {
    this.#add(what, name, until);
  }
}

describe("order", () => {
  test("nothing waits for a free device", () => {
    const scene = new Scene();
    scene.device("create a", "a", 5_000);
    scene.plain("get a", "a");
    scene.plain("list");
    expect(scene.queue.run(0)).toBeUndefined();
    expect(scene.served).toEqual(["create a", "get a", "list"]);
  });

  test("a busy device holds up its own name, and no other", () => {
    const scene = new Scene();
    scene.isBusy = true;
    scene.device("create a", "a", 5_000);
    scene.plain("drop a", "a");
    scene.plain("get a", "a");
    scene.plain("get b", "b");
    scene.plain("list");
    expect(scene.queue.run(0)).toBeGreaterThan(0);
    expect(scene.served).toEqual(["get b", "list"]);
    scene.isBusy = false;
    expect(scene.queue.run(1_000)).toBeUndefined();
    expect(scene.served.slice(2)).toEqual(["create a", "drop a", "get a"]);
  });

  test("the device is tried once a turn, by the first that wants it", () => {
    const scene = new Scene();
    scene.isBusy = true;
    for (const name of ["a", "b", "c"]) scene.device(`create ${name}`, name, 5_000);
    scene.queue.run(0);
    expect(scene.tries).toBe(1);
    scene.isBusy = false;
    scene.queue.run(1_000);
    expect(scene.served).toEqual(["create a", "create b", "create c"]);
  });
});

describe("time", () => {
  test("the wait is bounded, and a request that comes meanwhile does not shorten it", () => {
    const scene = new Scene();
    scene.isBusy = true;
    scene.device("create a", "a", 5_000);
    let now = 0;
    const waits: number[] = [];
    for (;;) {
      const next = scene.queue.run(now);
      if (next === undefined) break;
      scene.queue.run(now);
      waits.push(next - now);
      now = next;
    }
    expect(scene.served).toEqual(["create a refused"]);
    expect(now).toBe(5_000);
    expect(Math.max(...waits)).toBe(200);
    expect(waits.slice(0, 6)).toEqual([5, 10, 20, 40, 80, 160]);
    expect(scene.tries).toBe(waits.length + 1);
  });

  test("each has its own last try; who came later goes on", () => {
    const scene = new Scene();
    scene.isBusy = true;
    scene.device("create a", "a", 100);
    scene.device("create b", "b", 200);
    scene.queue.run(0);
    scene.queue.run(100);
    expect(scene.served).toEqual(["create a refused"]);
    scene.isBusy = false;
    scene.queue.run(1_000);
    expect(scene.served).toEqual(["create a refused", "create b"]);
  });
});

describe("the end of the connection", () => {
  test("what waits is abandoned, once", () => {
    const scene = new Scene();
    scene.isBusy = true;
    scene.device("create a", "a", 100);
    scene.plain("put a", "a");
    scene.queue.run(0);
    scene.queue.clear();
    scene.queue.clear();
    expect(scene.served).toEqual(["create a abandoned", "put a abandoned"]);
    expect(scene.queue.length).toBe(0);
    expect(scene.queue.run(1_000)).toBeUndefined();
  });

  test("in the middle of a turn: what was served is left alone, what was not is abandoned", () => {
    const scene = new Scene();
    const { queue, served } = scene;
    scene.isBusy = true;
    scene.device("create a", "a", 100);
    scene.plain("put b", "b");
    const end = () => {
      queue.clear();
      return "served" as const;
    };
    const abandon = () => served.push("the end abandoned");
    queue.add({ name: "c", until: undefined, serve: end, abandon });
    scene.plain("put d", "d");
    expect(queue.run(0)).toBeUndefined();
    expect(served).toEqual(["put b", "create a abandoned", "put d abandoned"]);
    expect(queue.length).toBe(0);
    scene.plain("put e", "e");
    queue.run(1_000);
    expect(served.at(-1)).toBe("put e");
  });
});
