import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { table } from "../../../src/vetting/agent/lifecycle.ts";
import type { EventKind, PhaseKind } from "../../../src/vetting/agent/lifecycle-state.ts";
import { repositoryRoot } from "../../support/binary.ts";
import {
  claimAnswer,
  directive,
  eventsFor,
  failure,
  id,
  Life,
  lives,
  newKept,
} from "../../support/vetting/agent-life.ts";

const phases = Object.keys(lives).sort() as PhaseKind[];
const kinds = [...new Set(eventsFor(new Life()).map(({ kind }) => kind))].sort();

describe("every phase × every event", () => {
  test("there is a life in each phase", () => {
    for (const phase of phases) expect(lives[phase]().phase).toBe(phase);
    expect(Object.keys(table).sort()).toEqual(phases);
  });

  test("a cell that does nothing says why", () => {
    for (const phase of phases) {
      expect(Object.keys(table[phase]).sort()).toEqual(kinds);
      for (const cell of Object.values(table[phase])) {
        if (typeof cell === "object") expect(cell.ignored).toMatch(/^\w+( \S+)+$/);
      }
    }
  });

  test("an ignored event changes nothing and does nothing", () => {
    for (const phase of phases) {
      for (const event of eventsFor(lives[phase]())) {
        const life = lives[phase]();
        const before = life.state;
        if (typeof table[phase][event.kind] !== "object") continue;
        life.tell(event);
        expect(life.state).toBe(before);
        expect(life.effects).toEqual([]);
      }
    }
  });

  test("what was asked before is answered to nobody", () => {
    for (const phase of phases) {
      for (const event of eventsFor(lives[phase]())) {
        if (!("ticket" in event)) continue;
        const life = lives[phase]();
        const before = life.state;
        life.tell({ ...event, ticket: event.ticket - 1 });
        expect(life.state).toBe(before);
      }
    }
  });

  test("the table for people is the table", async () => {
    const file = Bun.file(join(repositoryRoot, "src/vetting/agent/lifecycle-table.md"));
    const written = writeTable();
    if (process.env["UPDATE_TABLES"] === "1") await file.write(written);
    expect(await file.text()).toBe(written);
  });
});

/** What is in no cell of any phase: never two stages, and nothing that was kept is lost. */
describe("whatever comes", () => {
  test("a stage is begun by nothing but the answer to its attempt", () => {
    for (const phase of phases) {
      for (const event of eventsFor(lives[phase]())) {
        const life = lives[phase]().tell(event);
        const isBegun = life.did.includes("start-stage");
        expect(isBegun).toBe(phase === "asking" && isStart(event));
      }
    }
  });

  test("a result is dropped when it was answered, by an abort, and with its run alone", () => {
    for (const event of eventsFor(lives.delivering())) {
      const life = lives.delivering().tell(event);
      const isAbort = event.kind === "heard" && event.directives[0]?.kind === "abort";
      const isDropped = life.did.includes("drop-result");
      expect(isDropped).toBe(event.kind === "result-answered" || isAbort);
    }
  });

  test("a stage that is left is ended", () => {
    for (const event of eventsFor(lives.running())) {
      const life = lives.running().tell(event);
      const { phase } = life.state;
      const isLeft = phase.kind !== "running" || phase.isEnding;
      if (!isLeft || event.kind === "stage-ended") continue;
      expect(life.did).toContain("end-stage");
    }
  });

  test("who leaves a hold leaves no key", () => {
    for (const event of eventsFor(lives.holding())) {
      const life = withKey().tell(event);
      if (life.phase === "holding" || life.phase === "claiming") continue;
      expect(life.state.kept.hold).toBeNull();
      expect(life.did).toContain("remove-key");
    }
  });
});

const isStart = (event: ReturnType<typeof eventsFor>[number]) =>
  event.kind === "attempt-answered" && event.answer.decision === "start";

function withKey(lasts: number | null = 60_000): Life {
  const life = lives.holding();
  return life.tell({ kind: "hold-answered", ticket: life.ticket, key: "ssh-ed25519 A", lasts });
}

describe("calls", () => {
  test("they are tried again as the seed says, and as Retry-After says", () => {
    const life = lives.claiming();
    const waits = Array.from({ length: 7 }, () => {
      const { wait } = life.fail("passing").effect("wait");
      life.tell({ kind: "retry-due", ticket: life.ticket });
      return wait / 1_000;
    });
    expect(waits).toEqual([2, 4, 8, 16, 32, 32, 32]);
    expect(life.fail("passing", 90_000).effect("wait").wait).toBe(90_000);
    life.tell({ kind: "retry-due", ticket: life.ticket });
    expect(life.fail("passing", 9_000_000).effect("wait").wait).toBe(300_000);
  });

  test("hello is given up, a claim never", () => {
    const life = lives.hello();
    for (let count = 1; count < 5; count++) {
      expect(life.fail("passing").phase).toBe("hello");
      life.tell({ kind: "retry-due", ticket: life.ticket });
    }
    expect(life.fail("passing").phase).toBe("claiming");
    for (const kind of ["passing", "displaced", "refused"] as const) {
      expect(life.fail(kind).phase).toBe("claiming");
      life.tell({ kind: "retry-due", ticket: life.ticket });
    }
    expect(lives.hello().fail("displaced").phase).toBe("claiming");
  });

  test("a result is told with the same id until it is answered", () => {
    const life = lives.delivering();
    const { body } = life.effect("call-result");
    expect(life.did).toEqual(["keep-result", "call-result"]);
    life.fail("passing").tell({ kind: "retry-due", ticket: life.ticket });
    expect(life.effect("call-result").body).toEqual(body);
    const next = life.restart().claim("InventoryCheck");
    expect(next.effect("call-result").body).toEqual(body);
    next.answerResult("SMART");
    expect(next.did).toEqual(["drop-result", "call-attempt"]);
    expect(next.state.kept.attempt?.stage).toBe("SMART");
  });

  test("one that is never taken is told as an ERROR in its place, once", () => {
    const life = lives.delivering();
    const { body } = life.effect("call-result");
    life.fail("refused");
    const again = life.effect("call-result").body;
    expect(again).toMatchObject({ attempt: body.attempt, report: { outcome: "ERROR" } });
    expect(again.result).not.toBe(body.result);
    expect(life.fail("refused").did).toEqual(["wait"]);
  });

  test("an attempt that is refused here is asked for again, and not at once", () => {
    const life = lives.asking();
    const answer = { decision: "go", next_state: "InventoryCheck" } as const;
    life.tell({ kind: "attempt-answered", ticket: life.ticket, answer });
    expect(life.did).toEqual(["wait"]);
    const before = life.state.failures;
    life.tell({ kind: "retry-due", ticket: life.ticket });
    expect(life.did).toEqual(["call-attempt"]);
    expect(life.state.failures).toBe(before);
  });
});

describe("a process that is killed", () => {
  test("before its claim is kept: the same instance claims again", () => {
    const life = lives.claiming();
    expect(life.restart().state.kept.instance).toBe(life.state.kept.instance);
    expect(lives.asking().restart().state.kept.instance).not.toBe(life.state.kept.instance);
  });

  test("before its attempt is answered: it is asked for again, and counted once", () => {
    const life = lives.asking();
    const next = life.restart().claim("InventoryCheck");
    expect(next.effect("call-attempt").attempt).toBe(life.effect("call-attempt").attempt);
  });

  test("in a stage: another attempt", () => {
    const life = lives.running();
    const next = life.restart().claim("InventoryCheck");
    expect(next.effect("call-attempt").attempt).not.toBe(life.state.kept.attempt?.id ?? "");
  });

  test("with an order to leave: the stage is told as cancelled, then it leaves", () => {
    const life = lives.running().hear("InventoryCheck", [directive("cancel")]);
    expect(life.did).toEqual(["end-stage", "wake-to-leave"]);
    const next = life.restart();
    expect(next.did).toContain("wake-to-leave");
    next.claim("InventoryCheck");
    expect(next.effect("call-result").body.cancelled).toBe(true);
    next.answerResult("Cancelled");
    expect(next.phase).toBe("leaving");
    expect(next.tell({ kind: "farewell-said" }).effect("change-power").how).toBe("power-off");
  });

  test("after an abort: it stays aborted", () => {
    expect(lives.aborted().restart().claim("Aborted").phase).toBe("aborted");
  });

  test("with a key: it is put in its place again; without one, none is left", () => {
    expect(withKey().restart().did).toEqual(["install-key", "wake-for-key", "call-hello"]);
    expect(lives.holding().restart().did).toEqual(["remove-key", "call-hello"]);
  });

  test("with a session that counts no more: it tries the token", () => {
    const life = new Life(newKept({ session: "old" }));
    life.tell({ kind: "hello-answered", ticket: life.ticket }).fail("displaced");
    expect(life.phase).toBe("claiming");
    expect(life.state.kept.session).toBeNull();
  });
});

describe("directives", () => {
  test("each once by its id, however often it is told", () => {
    const life = lives.holding();
    const retry = directive("retry");
    life.hear("SMART", [retry, retry]);
    expect(life.state.kept.acknowledgements).toHaveLength(1);
    life.begin().endStage().answerResult("FailedHolding");
    life.hear("FailedHolding", [retry]);
    expect(life.phase).toBe("holding");
    expect(life.did).not.toContain("call-attempt");
  });

  test("told until that is answered", () => {
    const life = lives.holding().hear("SMART", [directive("retry")]);
    const [told] = life.state.kept.acknowledgements;
    expect(told).toMatchObject({ id: id(0xd), result: "done" });
    expect(life.hear("SMART", [], [id(0xd)]).state.kept.acknowledgements).toEqual([]);
  });

  test("one that is late is expired by the monotonic clock", () => {
    const life = lives.holding();
    const asked = life.now;
    life.now += 60_000;
    life.tell({ kind: "heard", run: "SMART", directives: [directive("retry")], told: [], asked });
    expect(life.state.kept.acknowledgements).toMatchObject([{ result: "expired" }]);
    expect(life.phase).toBe("holding");
  });

  test.each([
    ["retry", "running"],
    ["retry", "delivering"],
    ["retry", "aborted"],
    ["cancel", "holding"],
    ["cancel", "aborted"],
  ] as const)("%s means nothing while %s", (kind, phase) => {
    const life = lives[phase]();
    life.hear("SMART", [directive(kind, 0xe)]);
    expect(life.phase).toBe(phase);
    const told = life.state.kept.acknowledgements.find(({ id: one }) => one === id(0xe));
    expect(told?.result).toBe("refused");
  });

  test("an override goes where the run is by then", () => {
    const life = lives.holding().hear("Completed", [directive("retry")]);
    expect(life.phase).toBe("parked");
  });

  test("cancel while a result waits: it is told first", () => {
    const life = lives.delivering().hear("SMART", [directive("cancel")]);
    expect(life.phase).toBe("delivering");
    expect(life.answerResult("Cancelled").phase).toBe("leaving");
    expect(life.state.kept.acknowledgements).toMatchObject([{ result: "done" }]);
  });

  test("a host that cannot tell leaves all the same", () => {
    const life = lives.delivering().hear("SMART", [directive("shutdown")]);
    expect(life.tell({ kind: "leave-due" }).phase).toBe("leaving");
  });

  test("reboot reboots; a kernel that refuses is asked again", () => {
    const life = lives.parked().hear("Completed", [directive("reboot")]);
    expect(life.did).toEqual(["say-farewell"]);
    expect(life.tell({ kind: "farewell-said" }).effect("change-power").how).toBe("reboot");
    expect(life.tell({ kind: "power-refused", reason: "EPERM" }).did).toEqual(["wait"]);
    expect(life.tell({ kind: "retry-due", ticket: life.ticket }).did).toEqual(["change-power"]);
  });

  test("abort ends the stage and drops what waits", () => {
    expect(lives.running().hear("Aborted", [directive("abort")]).did).toEqual([
      "end-stage",
      "beat",
    ]);
    const life = lives.delivering().hear("Aborted", [directive("abort")]);
    expect(life.did).toEqual(["drop-result", "beat"]);
    expect(life.state.body).toBeUndefined();
  });

  test("the newest 256 are remembered", () => {
    const life = lives.holding();
    for (let number = 1; number <= 300; number++) {
      life.hear("FailedHolding", [directive("revoke-hold", 0x1000 + number)]);
    }
    expect(life.state.kept.taken).toHaveLength(256);
    expect(life.state.kept.taken.at(-1)).toBe(id(0x1000 + 300));
  });
});

describe("a hold", () => {
  test("its key is put in its place once, replaced by another, and asked for again", () => {
    const life = withKey();
    expect(life.did).toEqual(["install-key", "wake-for-key", "wait"]);
    const answer = (key: string | null) => {
      life.tell({ kind: "retry-due", ticket: life.ticket });
      return life.tell({ kind: "hold-answered", ticket: life.ticket, key, lasts: 60_000 }).did;
    };
    expect(answer("ssh-ed25519 A")).toEqual(["wake-for-key", "wait"]);
    expect(answer("ssh-ed25519 B")).toEqual(["remove-key", "install-key", "wake-for-key", "wait"]);
    expect(answer(null)).toEqual(["remove-key", "wait"]);
    expect(answer(null)).toEqual(["wait"]);
  });

  test("it expires by the monotonic clock, and not before", () => {
    const life = withKey();
    life.now += 59_999;
    expect(life.tell({ kind: "key-due" }).did).toEqual([]);
    life.now += 1;
    expect(life.tell({ kind: "key-due" }).did).toEqual(["remove-key"]);
    expect(withKey(null).tell({ kind: "key-due" }).did).toEqual([]);
  });

  test("it is revoked", () => {
    const life = withKey().hear("FailedHolding", [directive("revoke-hold")]);
    expect(life.did).toEqual(["remove-key", "beat"]);
    expect(life.phase).toBe("holding");
  });
});

describe("a session that is refused", () => {
  const refuse = (life: Life) => life.tell({ kind: "unheard", failure: failure("displaced") });

  test("one refusal costs nothing; two have it claim again, and refused claims are its end", () => {
    const life = refuse(lives.running());
    expect(life.phase).toBe("running");
    expect(refuse(life).did).toEqual(["end-stage", "call-claim"]);
    // By the token then: a claim that came twice gave two sessions.
    expect(life.fail("displaced").did).toEqual(["wait"]);
    life.tell({ kind: "retry-due", ticket: life.ticket });
    expect(life.fail("displaced").effect("end").how).toBe("refused");
    expect(life.state.kept.session).toBeNull();
  });

  test("a heartbeat that is heard between them starts the count anew", () => {
    const life = refuse(refuse(lives.running()).hear("InventoryCheck"));
    expect(life.phase).toBe("running");
  });

  test("after all was done, it is done", () => {
    const life = refuse(refuse(lives.parked())).fail("displaced");
    life.tell({ kind: "retry-due", ticket: life.ticket }).fail("displaced");
    expect(life.effect("end").how).toBe("done");
  });

  test("a claim that is taken goes on with the run", () => {
    const life = refuse(refuse(lives.running()));
    life.tell({ kind: "claimed", ticket: life.ticket, answer: claimAnswer("SMART") });
    expect(life.phase).toBe("asking");
  });
});

/** What stands in src/vetting/agent/lifecycle-table.md. */
function writeTable(): string {
  const parts = phases.map((phase) => {
    const rows: string[] = [];
    const ignored = new Map<string, EventKind[]>();
    for (const kind of kinds) {
      const cell = table[phase][kind];
      if (typeof cell === "object") {
        ignored.set(cell.ignored, [...(ignored.get(cell.ignored) ?? []), kind]);
        continue;
      }
      const events = eventsFor(lives[phase]()).filter((event) => event.kind === kind);
      const told = events.map((event) => lives[phase]().tell(event));
      const to = [...new Set(told.map((life) => life.phase))].filter((one) => one !== phase).sort();
      const stays = told.some((life) => life.phase === phase) ? "= " : "";
      const does = [...new Set(told.flatMap(({ did }) => did))].sort().join(", ");
      const leads = to.length === 0 ? "=" : `${stays}→ ${to.join(", ")}`;
      rows.push(`| ${kind} | ${leads} | ${does} |`);
    }
    const reasons = [...ignored].map(([reason, list]) => `${list.join(", ")} (${reason})`);
    return [
      `## ${phase}\n`,
      ...(rows.length === 0 ? [] : ["| event | leads to | does |", "|---|---|---|", ...rows, ""]),
      ...(reasons.length === 0 ? [] : [`Ignored: ${reasons.join("; ")}.`, ""]),
    ].join("\n");
  });
  return `${HEAD}\n${parts.join("\n")}`;
}

const HEAD = `# The life of an agent: every phase × every event

Made from the table in \`lifecycle.ts\` and from what a test's lives see it do; the test compares.
Written anew by \`UPDATE_TABLES=1 bun test test/unit/vetting/agent-lifecycle.test.ts\`.

→ leads to these phases; = stays. Then what it does, in any of its cases. An answer to an earlier
call is ignored in every phase.
`;
