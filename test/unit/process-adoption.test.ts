/** What becomes of what an orchestrator that was killed has left, in every combination. */
import { describe, expect, test } from "bun:test";
import { type ProcessState, step } from "../../src/process/lifecycle.ts";
import { type Adoption, adopt, type LeftProcess } from "../../src/process/lifecycle-adoption.ts";
import { makeSpecification } from "../support/lifecycle/life.ts";
import { lifeIn, phases } from "../support/lifecycle/phases.ts";
import { invocationOf, withInvocations } from "../support/orchestrator-state.ts";

const NOW = 1_000_000;
const terms = { now: NOW, readyTimeout: 30_000 };
const successor = invocationOf("i8");

const stateIn = (phase: (typeof phases)[number]): ProcessState =>
  withInvocations(lifeIn[phase](step).state);

function namedIn(state: ProcessState): string | undefined {
  if ("invocation" in state) return state.invocation;
  return "instance" in state ? state.instance.invocation : undefined;
}

interface Combination {
  readonly title: string;
  readonly left: LeftProcess;
  readonly named: string | undefined;
}

/** Every phase × what is found of its instance, and of a later start × what may be lacking. */
const combinations: Combination[] = phases.flatMap((phase) => {
  const state = stateIn(phase);
  const named = namedIn(state);
  const lives = named === undefined ? (["none"] as const) : (["none", "alive", "dead"] as const);
  return lives.flatMap((life) =>
    (["none", "alive", "dead"] as const).flatMap((later) =>
      (["same", "changed"] as const).flatMap((launch) =>
        (["there", "lost"] as const).flatMap((output) =>
          (["there", "lost"] as const).map((notices): Combination => {
            const found = new Map<string, { processId: number; life: "alive" | "dead" }>();
            if (named !== undefined && life !== "none") found.set(named, { processId: 7, life });
            if (later !== "none") found.set(successor, { processId: 8, life: later });
            const starts = [...(named === undefined ? [] : [named]), successor];
            const words = [life, `later ${later}`, launch, `output ${output}`, notices];
            return {
              title: `${phase}: ${words.join(", ")}`,
              left: { state, launch, output, notices, heartbeats: "there", starts, found },
              named,
            };
          }),
        ),
      ),
    ),
  );
});

const of = (adoption: Adoption, kind: Adoption["verdicts"][number]["kind"]) =>
  adoption.verdicts.flatMap((verdict) => (verdict.kind === kind ? [verdict.invocation] : []));

/** The state when all that happened meanwhile has been decided. */
function settled({ state, events }: Adoption): ProcessState | undefined {
  const context = {
    specification: makeSpecification({ readiness: { kind: "notify" } }),
    now: NOW,
    random: 0,
    nextInvocation: invocationOf("i9"),
    reachable: true,
    dependenciesReady: true,
  };
  return events.reduce<ProcessState | undefined>(
    (before, event) => before && step(before, event, context).state,
    state,
  );
}

describe(`in ${combinations.length} combinations`, () => {
  test("nobody who lives is left alone, and two are never gone on with", () => {
    for (const { title, left } of combinations) {
      const adoption = adopt(left, terms);
      const living = [...left.found].flatMap(([id, { life }]) => (life === "alive" ? [id] : []));
      const adopted = of(adoption, "adopt");
      const goOn = living.filter((id) => adopted.includes(id));
      expect({ title, goOn: goOn.length <= 1 }).toEqual({ title, goOn: true });
      const judged = [...adopted, ...of(adoption, "end")];
      expect({ title, judged: living.filter((id) => !judged.includes(id)) }).toEqual({
        title,
        judged: [],
      });
      expect(new Set(judged).size).toBe(judged.length);
    }
  });

  test("who is gone on with is what the state then has, and nobody else is", () => {
    for (const { title, left } of combinations) {
      const adoption = adopt(left, terms);
      const state = settled(adoption);
      const goOn = of(adoption, "adopt").find((id) => left.found.get(id)?.life === "alive");
      const has =
        state !== undefined && "instance" in state && state.phase !== "clearing"
          ? state.instance.invocation
          : undefined;
      if (goOn !== undefined) expect({ title, has }).toEqual({ title, has: goOn });
      // One that is dead is told so by its pidfd, a moment later.
      else if (has !== undefined) {
        expect({ title, dead: of(adoption, "adopt").includes(has) }).toEqual({ title, dead: true });
      }
    }
  });

  test("with another launch, or without its output, nobody is gone on with", () => {
    for (const { title, left } of combinations) {
      if (left.launch === "same" && left.output === "there") continue;
      expect({ title, adopted: of(adopt(left, terms), "adopt") }).toEqual({ title, adopted: [] });
    }
  });

  test("no exit is lost: it is told, will be told by the pidfd, or is said to be lost", () => {
    for (const { title, left, named } of combinations) {
      const { state } = left;
      const isThere = state !== undefined && ["running", "ready", "stopping"].includes(state.phase);
      if (named === undefined || !isThere || left.found.get(named)?.life === "alive") continue;
      const adoption = adopt(left, terms);
      const told = adoption.events.some(
        (event) =>
          (event.kind === "died" || event.kind === "ending-known") && event.invocation === named,
      );
      const said = adoption.verdicts.some(
        ({ kind, invocation }) => kind !== "end" && invocation === named,
      );
      expect({ title, said: told || said }).toEqual({ title, said: true });
    }
  });

  test("what is wanted stays wanted, and what is not wanted is not started", () => {
    for (const { title, left, named } of combinations) {
      const state = settled(adopt(left, terms));
      const isFollowed = left.found.get(successor)?.life === "alive";
      // Two at the same time there never are.
      if (isFollowed && left.found.get(named ?? "")?.life === "alive") continue;
      const wanted = left.state?.wanted === true || isFollowed;
      expect({ title, wanted: state?.wanted }).toEqual({ title, wanted });
    }
  });

  test("counts are carried", () => {
    for (const { title, left } of combinations) {
      const { state } = adopt(left, terms);
      const { restarts, failures } = left.state ?? {};
      const carried = { restarts: state?.restarts, failures: state?.failures };
      expect({ title, ...carried }).toEqual({ title, restarts, failures });
    }
  });
});

describe("without a journal that can be read", () => {
  test("whoever lives is ended, and nothing is gone on with", () => {
    const found = new Map([[successor, { processId: 8, life: "alive" as const }]]);
    const sockets = { notices: "there", heartbeats: "there" } as const;
    const left = { launch: "same", output: "there", ...sockets } as const;
    const adoption = adopt({ ...left, state: undefined, starts: [successor], found }, terms);
    expect(adoption).toEqual({
      state: undefined,
      verdicts: [{ kind: "end", invocation: successor, reason: "nothing was kept of it" }],
      events: [],
    });
  });
});

/** As it was: nothing of it is found, and nothing is lacking. */
const gone = (state: ProcessState): LeftProcess => ({
  state,
  launch: "same",
  output: "there",
  notices: "there",
  heartbeats: "there",
  starts: [],
  found: new Map(),
});

describe("a phase", () => {
  test.each(["idle", "waiting", "backing-off", "finished", "failed"] as const)(
    "%s goes on as it is",
    (phase) => {
      const state = stateIn(phase);
      expect(adopt(gone(state), terms).state).toEqual(state);
    },
  );

  test("running has all of its time to become ready: what it said is still to be heard", () => {
    const state = stateIn("running");
    const invocation = namedIn(state) ?? "";
    const found = new Map([[invocation, { processId: 7, life: "alive" as const }]]);
    const adoption = adopt({ ...gone(state), found }, terms);
    expect(adoption.state).toEqual({ ...state, readyBy: NOW + 30_000 } as ProcessState);
    expect(adoption.verdicts).toEqual([{ kind: "adopt", invocation }]);
  });

  test("ready, and gone without its pidfd: it died, nobody knows how, and that is said", () => {
    const state = stateIn("ready");
    const { events, verdicts } = adopt(gone(state), terms);
    const invocation = namedIn(state) ?? "";
    expect(events[0]).toMatchObject({ kind: "died", invocation, ending: { kind: "unknown" } });
    expect(verdicts).toMatchObject([{ kind: "lost", invocation }]);
  });

  test("running, without the socket of its notices: ended, for it could never be ready", () => {
    const state = stateIn("running");
    const invocation = namedIn(state) ?? "";
    const found = new Map([[invocation, { processId: 7, life: "alive" as const }]]);
    const adoption = adopt({ ...gone(state), notices: "lost", found }, terms);
    expect(adoption.verdicts).toMatchObject([{ kind: "end", invocation }]);
    expect(adoption.state?.phase).toBe("waiting");
  });

  test("starting, and nothing is found: it is begun again, under another invocation", () => {
    const state = stateIn("starting");
    const after = settled(adopt(gone(state), terms));
    expect(after).toMatchObject({ phase: "starting", invocation: invocationOf("i9") });
  });
});
