/** A thread that makes as many failing calls as it is told, and tells how many errno was wrong. */
import { countWrongErrors } from "./errors.ts";

declare const self: Worker;

self.onmessage = (event: MessageEvent<number>) => {
  self.postMessage(countWrongErrors(event.data));
};
