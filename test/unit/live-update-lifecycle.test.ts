/** luod's decisions: every event in every phase, and what follows over time. */
import { describe, expect, test } from "bun:test";
import { handlers, nextDeadline } from "../../src/live-update/lifecycle.ts";
import {
  preservedBy,
  restoredEvent,
  savedDecisions,
} from "../../src/live-update/lifecycle-saved.ts";
import type { DaemonEvent } from "../../src/live-update/lifecycle-state.ts";
import { CREATION_LIMIT, refuseUpdate } from "../../src/live-update/lifecycle-update.ts";
import { limits, OWN_SESSION, refuseName } from "../../src/live-update/protocol.ts";
import {
  bare,
  events,
  greeted,
  type Kind,
  LiveUpdateLife,
  lives,
  order,
  outcomeOf,
  type Phase,
  phases,
} from "../support/live-update-life.ts";

/** A cell that does nothing says why. */
type Cell = string | { readonly ignored: string };
type Row = { readonly otherwise: Cell } & { readonly [P in Phase]?: Cell };

/** "=" stays in its phase; behind it, or behind another phase, what is to be done but records. */
const decisions: { readonly [K in Kind]: Row } = {
  subscribe: {
    otherwise: "= OK",
  },
  unsubscribe: {
    otherwise: "= OK",
    preserving: "aborting: OK",
    barrier: "aborting: OK ABORTED hang-up drop-session drop-session",
  },
  disconnected: {
    otherwise: "=",
    preserving: "aborting:",
    barrier: "aborting: ABORTED hang-up drop-session drop-session",
  },
  ready: {
    otherwise: "= ERROR",
    barrier: "= OK",
    registry: "= OK",
    preparation: "= OK",
    kernel: "= OK",
    aborting: "= OK",
  },
  progress: {
    otherwise: "= ERROR",
    barrier: "=",
    registry: { ignored: "it is ready: its word comes late" },
    preparation: { ignored: "it is ready: its word comes late" },
    kernel: { ignored: "it is ready: its word comes late" },
    aborting: { ignored: "it crossed our word, that the update is aborted" },
  },
  "client-aborts": {
    otherwise: "= ERROR",
    registry: "= OK",
    preparation: "= OK",
    kernel: "= OK",
    aborting: "= OK",
    preserving: "aborting: OK",
    barrier: "aborting: OK ABORTED hang-up drop-session drop-session",
  },
  claim: {
    otherwise: "= ERROR",
    unclaimed: "restoring retrieving: retrieve-session",
    retrieving: "=",
    claimed: "= CLAIMED",
  },
  "client-finished": {
    otherwise: "= ERROR",
    claimed: "restoring finishing: OK finish-session",
  },
  kernel: {
    otherwise: "=",
    idle: { ignored: "it was known that none is loaded" },
    loaded: "idle:",
    unclaimed: { ignored: "it was known that none is loaded" },
    retrieving: { ignored: "it was known that none is loaded" },
    claimed: { ignored: "it was known that none is loaded" },
    finishing: { ignored: "it was known that none is loaded" },
  },
  "state-file": {
    otherwise: "=",
    preserving: "aborting:",
    barrier: "aborting: ABORTED hang-up drop-session drop-session",
    registry: "aborting: ABORTED hang-up drop-session drop-session",
    preparation: "aborting: ABORTED hang-up drop-session drop-session drop-session",
  },
  update: {
    otherwise: { ignored: "refused before: another is under way, or no kernel is loaded" },
    loaded: "preserving: create-session create-session",
  },
  "operator-aborts": {
    otherwise: {
      ignored: "no update is under way, it is being taken back, or the kernel is being entered",
    },
    preserving: "aborting:",
    barrier: "aborting: ABORTED hang-up drop-session drop-session",
    registry: "aborting: ABORTED hang-up drop-session drop-session",
    preparation: "aborting: ABORTED hang-up drop-session drop-session drop-session",
  },
  "operator-finishes": {
    otherwise: { ignored: "nothing came for that client, or it is being finished" },
    unclaimed: "restoring finishing: finish-session",
    retrieving: "restoring finishing: ERROR finish-session",
    claimed: "restoring finishing: finish-session",
  },
  "session-created": {
    otherwise: "= drop-session",
    preserving: "= START_PRESERVATION",
    barrier: { ignored: "it is open: said twice, and its client works with it" },
    registry: { ignored: "it is open: said twice, and its client works with it" },
    preparation: { ignored: "it is open: said twice, and its client works with it" },
    kernel: { ignored: "it is open: said twice, and its client works with it" },
  },
  "session-refused": {
    otherwise: { ignored: "nobody waits for it: it was made, or given up" },
    preserving: "aborting:",
  },
  "session-dropped": {
    otherwise: { ignored: "it is not being closed" },
    aborting: "=",
  },
  "registry-preserved": {
    otherwise: { ignored: "the commit is not at this step, or there is none" },
    registry: "committing preparation: prepare-kexec",
  },
  "registry-refused": {
    otherwise: { ignored: "the commit is not at this step, or there is none" },
    registry: "aborting: ABORTED hang-up drop-session drop-session",
  },
  prepared: {
    otherwise: { ignored: "the commit is not at this step, or the hooks were of another update" },
    preparation: "committing kernel: enter-kernel",
  },
  "preparation-failed": {
    otherwise: { ignored: "the commit is not at this step, or the hooks were of another update" },
    preparation: "aborting: ABORTED hang-up drop-session drop-session drop-session",
  },
  "kernel-refused": {
    otherwise: { ignored: "the commit is not at this step, or there is none" },
    kernel: "aborting: ABORTED hang-up drop-session drop-session drop-session",
  },
  restored: {
    otherwise: "= release-registry",
    unclaimed: "idle: release-registry",
    retrieving: "idle: release-registry",
    claimed: "idle: release-registry",
    finishing: "idle: release-registry",
  },
  "left-behind": {
    otherwise: "aborting: drop-session",
    preserving: { ignored: "an update of its own is under way" },
    barrier: { ignored: "an update of its own is under way" },
    registry: { ignored: "an update of its own is under way" },
    preparation: { ignored: "an update of its own is under way" },
    kernel: { ignored: "an update of its own is under way" },
    aborting: { ignored: "an update of its own is under way" },
  },
  retrieved: {
    otherwise: { ignored: "nobody waits for it: it came before, or is being finished" },
    retrieving: "restoring claimed: CLAIMED",
  },
  "retrieve-refused": {
    otherwise: { ignored: "nobody waits for it: it came before, or is being finished" },
    retrieving: "restoring unclaimed: ERROR",
  },
  "session-finished": {
    otherwise: { ignored: "it is not being finished" },
    finishing: "idle: FINISHED release-registry",
  },
  time: {
    otherwise: { ignored: "no deadline has passed" },
  },
};

describe("every phase × every event", () => {
  for (const kind of Object.keys(decisions) as Kind[]) {
    test(kind, () => {
      const { otherwise, ...others } = decisions[kind];
      const expected = phases.map((phase) => [phase, others[phase] ?? otherwise] as const);
      const found = phases.map((phase) => [phase, outcomeOf(phase, kind)]);
      expect(found).toEqual(
        expected.map(([phase, cell]) => [phase, typeof cell === "string" ? cell : "-"]),
      );
      for (const [, cell] of expected) {
        if (typeof cell === "object") expect(cell.ignored).toMatch(/^\w+( \S+)+$/);
      }
    });
  }

  test("there is a row for every event that is handled", () => {
    expect(Object.keys(decisions).sort()).toEqual(Object.keys(handlers).sort());
  });
});

const ready = (subscription = greeted, update?: string): DaemonEvent => ({
  kind: "ready",
  connection: subscription.connection,
  id: subscription.bare ? undefined : subscription.id,
  ...{ request: 5, bytes: undefined, update },
});
const created = (session: string): DaemonEvent => ({ kind: "session-created", session });
const dropped = (session: string): DaemonEvent => ({ kind: "session-dropped", session });

describe("deadlines", () => {
  test("begin with the sessions; whoever is not ready then has failed", () => {
    const life = lives.preserving();
    expect(nextDeadline(life.state)).toBe(life.now + CREATION_LIMIT);
    life.pass(300).tell(created("vm"));
    expect(nextDeadline(life.state)).toBe(life.now + greeted.deadline);
    life.pass(greeted.deadline - 1);
    expect(life.phase).toBe("preserving");
    life.pass(1);
    expect(life.phase).toBe("aborting");
    expect(life.said(greeted.connection)).toEqual(["ABORTED"]);
    // The bare one was given nothing: there is nothing to take back.
    expect(life.done("hang-up")).toEqual([]);
  });

  test("sessions that are never made end it as well", () => {
    const life = lives.preserving().pass(CREATION_LIMIT);
    expect(life.state.update?.end?.reason).toBe(
      "vm is required: its sessions were not made within 30.00 s",
    );
  });

  test("the registry's session that is never made ends it; one that comes late is closed", () => {
    const life = lives.registry();
    expect(nextDeadline(life.state)).toBe(life.now + CREATION_LIMIT);
    life.pass(CREATION_LIMIT);
    expect(life.phase).toBe("aborting");
    expect(life.said(greeted.connection)).toEqual(["ABORTED"]);
    life.tell(dropped("vm"), dropped("db"));
    expect(life.phase).toBe("aborting");
    life.tell(created(OWN_SESSION));
    expect(life.done("drop-session")).toEqual([OWN_SESSION]);
    life.tell(dropped(OWN_SESSION));
    expect(life.phase).toBe("loaded");
  });

  test("of a client that is optional: it goes without, once its sessions are closed", () => {
    const optional = { ...greeted, required: false, sessions: ["vm", "vm/log"] };
    const life = new LiveUpdateLife()
      .subscribe(optional, bare)
      .tell(
        { kind: "kernel", loaded: true, device: true },
        events.update,
        ...["vm", "vm/log", "db"].map(created),
        ready(bare),
      );
    life.pass(greeted.deadline);
    expect(life.done("drop-session")).toEqual(["vm", "vm/log"]);
    expect(life.phase).toBe("barrier");
    life.tell(dropped("vm"));
    expect(life.phase).toBe("barrier");
    life.tell(dropped("vm/log"));
    expect(life.phase).toBe("committing registry");
    const { update } = life.state;
    if (update === undefined) throw new Error("there is no update");
    expect(preservedBy(update, ["db", "old"])).toEqual({
      sessions: [{ name: "db", id: "db", part: "", user: 70 }],
      left_out: ["vm", "vm/log", "old"],
    });
    // What was given for an update that is over may be open still, wherever its client is.
    expect(lives.aborting().tell(dropped("vm"), dropped("db")).state.given).toEqual(["vm", "db"]);
  });
});

describe("words that come late", () => {
  test("READY for an update that is over is not one for the next", () => {
    const life = lives.barrier().tell(events["operator-aborts"], dropped("vm"), dropped("db"));
    expect(life.state.last?.id).toBe("u1");
    life.tell(events.update, created("vm"), ready(greeted, "u1"));
    expect(life.said(1)).toEqual(["OK"]);
    expect(life.state.update?.participants.get("vm")?.stage).toBe("preserving");
    life.tell(ready(greeted, "u2"));
    expect(life.state.update?.participants.get("vm")?.stage).toBe("ready");
  });

  test("READY of one of several ids has to say which", () => {
    const both = [greeted, { ...greeted, id: "vm2", sessions: ["vm2"] }];
    const life = new LiveUpdateLife()
      .subscribe(...both)
      .tell(
        { kind: "kernel", loaded: true, device: true },
        events.update,
        created("vm"),
        created("vm2"),
        {
          ...events.ready,
          id: undefined,
        },
      );
    expect(life.said(1)).toEqual(["ERROR"]);
  });

  test("hooks of an update that is over move nothing", () => {
    const life = lives.preparation().tell({ kind: "prepared", update: "u0" });
    expect(life.effects).toEqual([]);
    life.tell({ kind: "preparation-failed", update: "u0", reason: "x" });
    expect(life.phase).toBe("committing preparation");
  });
});

describe("a client that comes again", () => {
  const again = (update: string): DaemonEvent => ({
    ...events.subscribe,
    subscription: { ...greeted, connection: 7 },
    update,
  });

  test("is told that its update is aborted, and why", () => {
    const life = lives.barrier().tell(events.disconnected, dropped("vm"), again("u1"));
    expect(life.said(7)).toEqual(["OK", "ABORTED"]);
    expect(JSON.stringify(life.effects)).toContain("vm is required: its connection ended");
  });

  test("with an update that is not known is told so, and that nothing is kept of it", () => {
    const life = lives.loaded().tell(events.disconnected, again("never"));
    expect(life.said(7)).toEqual(["OK", "ABORTED"]);
    expect(JSON.stringify(life.effects)).toContain("no such update is known");
  });

  test("while it is committed: is part of it, and told when the kernel refuses", () => {
    const life = lives.kernel().tell(events.disconnected, again("u1"));
    expect(life.said(7)).toEqual(["OK"]);
    life.tell(events["kernel-refused"]);
    expect(life.said(7)).toEqual(["ABORTED"]);
    expect(life.said(1)).toEqual([]);
  });

  test("after the kexec: is told nothing, and may claim", () => {
    const life = lives.unclaimed().tell(events.disconnected, again("u0"));
    expect(life.said(7)).toEqual(["OK"]);
  });
});

describe("an update that cannot be", () => {
  test("because there is no device: a dry run is refused as well, with the mend", () => {
    const life = new LiveUpdateLife().tell({ kind: "kernel", loaded: true, device: false });
    for (const dryRun of [true, false]) {
      expect(refuseUpdate(life.state, { ...order, dryRun })).toMatchObject({
        ...{ kind: "no-device", hint: expect.stringContaining("hostler doctor live-update") },
      });
    }
    expect(life.tell({ kind: "update", order: { ...order, dryRun: true } }).effects).toEqual([]);
  });
});

describe("a state file that cannot be written", () => {
  test("nothing begins until it can, and a commit does not reach the kernel", () => {
    const life = lives.loaded().tell(events["state-file"]);
    expect(refuseUpdate(life.state, order)).toMatchObject({ kind: "unsaved", hint: "no room" });
    expect(refuseUpdate(life.state, { ...order, dryRun: true })?.kind).toBe("unsaved");
    life.tell({ kind: "state-file", problem: undefined });
    expect(refuseUpdate(life.state, order)).toBeUndefined();
    // The daemon decides again what it could not write, with this before it.
    const late = lives.preparation().tell(events["state-file"], events.prepared);
    expect(late.done("enter-kernel")).toEqual([]);
    expect(late.phase).toBe("aborting");
  });
});

describe("what came", () => {
  const policy = (life: LiveUpdateLife) => {
    life.unclaimedTime = 500;
    return life;
  };

  test("is finished by the policy when nobody has it, and not while a client has", () => {
    const life = policy(lives.claimed());
    expect(nextDeadline(life.state)).toBeUndefined();
    life.tell(events.disconnected);
    expect(nextDeadline(life.state)).toBe(life.now + 500);
    life.pass(500);
    expect(life.done("finish-session")).toEqual(["vm"]);
  });

  test("has the policy's time from its first offer, whatever daemon made that", () => {
    const life = policy(new LiveUpdateLife());
    const names = ["old", "claimed"] as const;
    const sessions = names.map((id) => ({
      ...{ name: id, id, part: "", user: 107 },
      stage: id === "old" ? ("unclaimed" as const) : ("claimed" as const),
    }));
    life.tell({ ...events.restored, sessions, offeredAt: life.now - 400 });
    life.pass(99);
    expect(life.done("finish-session")).toEqual([]);
    life.pass(1);
    expect(life.done("finish-session")).toEqual(["old"]);
    // Its client lost the connection with the daemon before this one, and may come again.
    life.pass(400);
    expect(life.done("finish-session")).toEqual(["claimed"]);
  });

  test("hinders a kexec when its client is gone without FINISHED; a bare one's does not", () => {
    const refusal = (bareClaim: boolean) => {
      const claimer = { connection: 1, request: 9, bare: bareClaim };
      const life = lives.unclaimed();
      life.tell({ ...events.claim, claimer }, events.retrieved, events.disconnected);
      return refuseUpdate(life.tell({ kind: "kernel", loaded: true, device: true }).state, order)
        ?.kind;
    };
    expect(refusal(false)).toBe("unclaimed");
    expect(refusal(true)).toBeUndefined();
  });

  test("lost with its holder, or never preserved: told so, and no longer waited for", () => {
    for (const code of ["ENOENT", "ESTALE"]) {
      const refusal = { code, message: "gone" };
      const life = lives.retrieving().tell({ ...events["retrieve-refused"], refusal });
      expect(life.said(1)).toEqual(["ERROR"]);
      expect(life.done("release-registry")).toHaveLength(1);
    }
  });

  test("is another's: refused; root's: given; by an id that has none of that name: unknown", () => {
    const kindOf = (change: object) => {
      const life = lives.unclaimed().tell({ ...events.claim, ...change });
      return /"kind":"(\w+)","message"/.exec(JSON.stringify(life.effects))?.[1];
    };
    expect(kindOf({ user: 108 })).toBe("refused");
    expect(kindOf({ user: 0 })).toBeUndefined();
    expect(kindOf({ id: "other" })).toBe("unknown");
  });

  test("without a registry: root may claim by name, and a kexec is refused", () => {
    const unreadable = "version: expected 1";
    const life = new LiveUpdateLife().tell({ ...events.restored, unreadable });
    expect(life.done("release-registry")).toEqual([]);
    expect(refuseUpdate({ ...life.state, loaded: true }, order)?.message).toContain(unreadable);
    life.tell(events.claim);
    expect(life.said(1)).toEqual(["ERROR"]);
    life.tell({ ...events.claim, user: 0 });
    expect(life.done("retrieve-session")).toEqual(["vm"]);
  });
});

describe("what is saved", () => {
  test("is what the next daemon begins with", () => {
    const registry = {
      update: "u0",
      sessions: ["a", "b", "c"].map((id) => ({ name: id, id, part: "", user: 1 })),
      left_out: ["d"],
    };
    const found = { registryHeld: true, offeredAt: undefined, unreadable: undefined };
    const first = restoredEvent(registry, {
      ...{ ...found, saved: { settled: [], finishing: [] }, retrieved: new Set(["b"]) },
    });
    const life = new LiveUpdateLife().tell(first, { kind: "session-finished", session: "d" });
    life.tell({ kind: "operator-finishes", id: "c" });
    const saved = savedDecisions(life.state, registry);
    expect(saved).toMatchObject({ settled: ["d"], finishing: ["c"], update: null });
    const next = restoredEvent(registry, { ...found, saved, retrieved: new Set(["b"]) });
    expect(next.sessions.map(({ name, stage }) => [name, stage])).toEqual([
      ["a", "unclaimed"],
      ["b", "claimed"],
      ["c", "finishing"],
    ]);
    expect(savedDecisions(lives.kernel().state, undefined)).toMatchObject({
      ...{ update: "u1", entering: true },
    });
  });
});

describe("names", () => {
  test("that cannot be", () => {
    for (const name of ["", "x".repeat(64), "a\0", "\u0085", "\ud800", "systemd", "hostler/a"]) {
      expect([name, refuseName(name)]).not.toEqual([name, undefined]);
    }
    for (const name of ["x".repeat(63), "a/b", "ü", "hostlery"]) {
      expect([name, refuseName(name)]).toEqual([name, undefined]);
    }
  });

  test("of sessions are one client's, from either side; too many are refused", () => {
    const life = new LiveUpdateLife().subscribe({ ...greeted, sessions: ["vm", "vm/a/b"] });
    const other = { ...bare, bare: false, id: "vm/a/b", sessions: ["vm/a/b"] };
    expect(life.subscribe(other).said(2)).toEqual(["ERROR"]);
    expect(life.state.subscriptions.size).toBe(1);
    const turned = new LiveUpdateLife().subscribe(other);
    expect(turned.subscribe({ ...greeted, sessions: ["vm", "vm/a/b"] }).said(1)).toEqual(["ERROR"]);
    const full = new LiveUpdateLife();
    for (let index = 0; index <= limits.subscriptions; index += 1) {
      full.subscribe({ ...greeted, id: `${index}`, sessions: [`${index}`] });
    }
    expect(full.said(1)).toEqual(["ERROR"]);
    expect(full.state.subscriptions.size).toBe(limits.subscriptions);
  });
});
