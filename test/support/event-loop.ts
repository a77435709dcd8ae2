/** An event loop for tests of what takes one. */
import { join } from "node:path";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { repositoryRoot } from "./binary.ts";

export function testEventLoop(): EventLoop {
  return new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
}
