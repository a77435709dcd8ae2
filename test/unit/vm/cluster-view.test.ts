/** What operators of a master are shown. */
import { expect, test } from "bun:test";
import { renderWorker } from "../../../src/vm/commands/cluster.ts";
import { machinesOf, workersOf } from "../../../src/vm/master/lifecycle-view.ts";
import { declare, machine, reported, SteppedMaster } from "../../support/vm-master/reports.ts";

function shown(master: SteppedMaster, name: string) {
  const context = { now: master.now, hasHook: master.settings.hasHook };
  const worker = workersOf(master.state, context).find((one) => one.name === name);
  if (worker === undefined) throw new Error(`There is no ${name}`);
  return {
    worker,
    machines: machinesOf(master.state).filter((one) => one.worker === name),
    reported: [...(master.state.workers.get(name)?.heard?.report.machines ?? [])],
  };
}

test("a worker is shown with all that it has, whoever gave it", () => {
  const master = new SteppedMaster();
  master.report("a");
  expect(renderWorker(shown(master, "a"))).toContain("nothing is given to it");
  master.take(declare([machine("one")]));
  const left = { phase: "off", reason: "it is another worker's" } as const;
  master.report("a", {
    machines: [
      reported("one", master.owner("one")),
      reported("by-hand", null),
      reported("moved", 7, left),
    ],
  });
  const text = renderWorker(shown(master, "a"));
  const [, others = ""] = text.split("ALSO THERE");
  expect(others).toMatch(/by-hand +running +- +made there, by no master\n/);
  expect(others).toMatch(/moved +off +7 +it is another worker's\n/);
  expect(others).not.toContain("one ");
});
