import { expect, test } from "bun:test";
import { DeadlineError, rejectionOf, waitFor, withDeadline } from "../../support/wait-for.ts";

test("waitFor returns what the probe gives at last", async () => {
  let looks = 0;
  const found = await waitFor("the third look", () => {
    looks += 1;
    return looks === 3 ? "here" : undefined;
  });
  expect(found).toBe("here");
});

test("waitFor names what it waited for, and carries the probe's last error", async () => {
  const waiting = waitFor(
    "a miracle",
    () => {
      throw new Error("not today");
    },
    1,
  );
  const error = await rejectionOf(waiting);
  expect(error).toBeInstanceOf(DeadlineError);
  expect(error.message).toBe("Waited 1 ms for a miracle");
  expect((error.cause as Error).message).toBe("not today");
});

test("withDeadline refuses an event that does not come", async () => {
  const never = new Promise<never>(() => {});
  const error = await rejectionOf(withDeadline("never", never, 1));
  expect(error.message).toBe("Waited 1 ms for never");
});
