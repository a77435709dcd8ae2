/** One device as its operator sees it: stories, every phase × every event, and mutants. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import {
  type DeviceOutcome,
  type DeviceTable,
  deviceTable,
  stepDevice,
} from "../../../src/fleet/operator/lifecycle-device.ts";
import type { DeviceEventKind, DeviceState } from "../../../src/fleet/operator/lifecycle-state.ts";
import { type DevicePhase, devicePhases } from "../../../src/fleet/protocol-operator.ts";
import { repositoryRoot } from "../../support/binary.ts";
import {
  makeDeviceEvents,
  makeDeviceLives,
  type StepDevice,
} from "../../support/fleet-operator/device-life.ts";
import { deviceStories } from "../../support/fleet-operator/device-stories.ts";
import {
  keyOf,
  makeCases,
  observe,
  writeCell,
  writeTableDocument,
} from "../../support/fleet-operator/observe.ts";

const lives = makeDeviceLives(stepDevice);
const cases = makeCases();
const observed = observe(cases);

describe("stories", () => {
  for (const { name, run } of deviceStories) test(name, () => run(stepDevice));
});

describe("every phase × every event", () => {
  test("there is a life in each phase, which is called so", () => {
    expect(new Set(lives.map(({ life }) => life.phase))).toEqual(new Set(devicePhases));
    // The sight of a candidate counts from when it is decided; and what is taken back, once more
    // from when that is written.
    const named = lives.filter(({ name }) => !/the sight of it|never taken up/.test(name));
    for (const { name, life } of named) {
      expect([name, name.split(/[ ,]/)[0]]).toEqual([name, life.phase]);
    }
  });

  test("a cell that does nothing says why", () => {
    const [{ life }] = lives as [(typeof lives)[number]];
    const kinds = Object.keys(makeDeviceEvents(life)).sort();
    for (const phase of devicePhases) {
      expect(Object.keys(deviceTable[phase]).sort()).toEqual(kinds);
      for (const cell of Object.values(deviceTable[phase])) {
        if (typeof cell === "object") expect(cell.ignored).toMatch(/^\w+( \S+)+$/);
      }
    }
  });

  test("the table for people is the table", async () => {
    const file = Bun.file(join(repositoryRoot, "src/fleet/operator/lifecycle-table.md"));
    const written = writeTableDocument(observed);
    if (process.env["UPDATE_TABLES"] === "1") await file.write(written);
    expect(await file.text()).toBe(written);
  });
});

type Cell = (device: DeviceState, event: unknown, context: unknown) => DeviceOutcome;

interface Mutant {
  readonly name: string;
  readonly phase: DevicePhase;
  readonly event: DeviceEventKind;
  readonly table: DeviceTable;
}

/** Tables from which one thing is taken away. */
function makeMutants(): Mutant[] {
  return [...observed].flatMap(([key, { phase, event, writes, changes }]) => {
    const handler = deviceTable[phase][event] as Cell | { readonly ignored: string };
    if (typeof handler !== "function") return [];
    const mutant = (what: string, cell: Cell | { readonly ignored: string }): Mutant => ({
      ...{ name: `${key}: ${what}`, phase, event },
      table: { ...deviceTable, [phase]: { ...deviceTable[phase], [event]: cell } } as DeviceTable,
    });
    const parts = [...changes].map((part) =>
      mutant(`${part} stays`, (before, ...rest) => {
        const { device, ...others } = handler(before, ...rest);
        return { ...others, device: { ...device, [part]: Reflect.get(before, part) } };
      }),
    );
    const unwritten = mutant("without the write", (...given) => ({
      device: handler(...given).device,
    }));
    const ignored = mutant("ignored", { ignored: "a mutation" });
    return [ignored, ...parts, ...(writes.size > 0 ? [unwritten] : [])];
  });
}

function isCaughtByStory({ table }: Mutant): boolean {
  const mutated: StepDevice = (device, event, context) => stepDevice(device, event, context, table);
  return deviceStories.some(({ run }) => {
    try {
      run(mutated);
      return false;
    } catch {
      return true;
    }
  });
}

function isCaughtByDocument({ phase, event, table }: Mutant): boolean {
  const own = cases.filter((one) => one.phase === phase && one.kind === event);
  const seen = observe(own, table).get(keyOf(phase, event));
  return (
    writeCell(phase, event, seen) !== writeCell(phase, event, observed.get(keyOf(phase, event)))
  );
}

test("what is taken away from the table is missed", () => {
  // A story that fails anyhow would catch everything.
  for (const { run } of deviceStories) run(stepDevice);
  const mutants = makeMutants();
  const missed = mutants.filter((mutant) => !isCaughtByStory(mutant));
  const survivors = missed.filter((mutant) => !isCaughtByDocument(mutant));
  const byStories = mutants.length - missed.length;
  console.log(`${mutants.length} mutants: ${byStories} by stories, ${survivors.length} survived`);
  for (const { name } of missed) console.log(`no story misses ${name}`);
  expect(mutants.length).toBeGreaterThan(180);
  expect(survivors.map(({ name }) => name)).toEqual([]);
  expect((100 * byStories) / mutants.length).toBeGreaterThanOrEqual(90);
}, 120_000);
