/** A host that says nothing: who follows is told when that is worth a word, and when it is over. */
import { expect, spyOn, test } from "bun:test";
import { exampleInventory } from "../../support/vetting-inventory.ts";
import { startVettingServer } from "../../support/vetting-server.ts";

test("a run is told once as silent, and once as heard again", async () => {
  let ahead = 0;
  await using server = startVettingServer(() => 1_800_000_000_000 + ahead);
  const { orchestrator } = server;
  await server.putSpec({ name: "r1" });
  const agent = await server.bootHost({
    ...{ mac: "52:54:00:00:02:01", name: "node-1", spec: "r1", inventory: exampleInventory() },
  });
  const told = spyOn(orchestrator.book, "add");
  /** How silent the run was in what two looks have told. */
  const look = () => {
    told.mockClear();
    orchestrator.tick();
    orchestrator.tick();
    const events = told.mock.calls.flatMap(([those]) => those);
    return events.map((event) => event.kind === "run" && event.view.silent_ms);
  };
  ahead = 29_999;
  expect(look()).toEqual([]);
  ahead = 30_000;
  expect(look()).toEqual([30_000]);
  ahead = 40_000;
  expect(look()).toEqual([]);
  await agent.heartbeat(null);
  expect(look()).toEqual([0]);
  expect(look()).toEqual([]);
}, 30_000);
