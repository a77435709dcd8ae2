import type { ControlCall } from "../messaging/control-server.ts";
import { whyRefused } from "./lifecycle.ts";
import type { HistoryEntry } from "./lifecycle-state.ts";
import { MigrationRefused } from "./perform/migration-dial.ts";
import type { GiverProgress, MigrationGiver } from "./perform/migration-giver.ts";
import type { ControlRequest, ErrorKind, MigrationResultRecord } from "./protocol.ts";
import { migrationLimits } from "./protocol-migration.ts";
import { cardRequestsOf } from "./protocol-network.ts";
import type { Entry, MachineWorker } from "./worker.ts";

type Of<Verb extends ControlRequest["verb"]> = Extract<ControlRequest, { verb: Verb }>;

/** Opens a ticket, and takes one back. */
export async function answerReceive(
  worker: MachineWorker,
  request: Of<"receive" | "cancel-receive">,
  call: ControlCall,
): Promise<void> {
  const { name } = request;
  if (request.verb === "cancel-receive") {
    if (worker.migrations.cancelTicket(name)) call.done(null);
    else refuse(call, new MigrationRefused(`There is no ticket for ${name} that nobody has used`));
    return;
  }
  const { host, port, time_ms: time = migrationLimits.ticketTime } = request;
  const networks = request.networks === undefined ? [] : cardRequestsOf(request);
  try {
    call.done(await worker.migrationDesk.openTicket({ name, host, port, time, networks }));
  } catch (error) {
    refuse(call, error);
  }
}

function refuse(call: ControlCall, error: unknown, kind?: ErrorKind): void {
  const message = error instanceof Error ? error.message : String(error);
  const known: ErrorKind = error instanceof MigrationRefused ? "migration" : "system";
  call.refuse({ kind: kind ?? known, message });
}

/** A declared machine that went to another host may be made anew here. */
export function answerForgetMigrated(
  worker: MachineWorker,
  { name }: Of<"forget-migrated">,
  call: ControlCall,
): void {
  try {
    if (worker.desired.forgetGiven(name)) call.done(null);
    else {
      const message =
        `Expected a declared machine that was given to another host, received ${name}: ` +
        "hostler vm diff FILE names those";
      refuse(call, new MigrationRefused(message));
    }
  } catch (error) {
    refuse(call, error);
  }
}

/**
 * Gives a machine to another host: answered when that has it, or when it goes on here. Whoever
 * leaves before it is given calls it off.
 */
export async function answerMigrate(
  worker: MachineWorker,
  entry: Entry,
  request: Of<"migrate">,
  call: ControlCall,
): Promise<void> {
  const { name } = request;
  const why = whyRefused(entry.state, "migrate");
  if (why !== undefined) {
    const kind: ErrorKind = "wrong-phase";
    call.refuse({ kind, message: `${name} is ${entry.state.phase}: ${why}` });
    return;
  }
  const gone = new AbortController();
  let giver: MigrationGiver | undefined;
  call.onGone(() => {
    gone.abort();
    giver?.abort("whoever asked for it has left");
  });
  try {
    const { signal } = gone;
    const onProgress = progressTo(call);
    const offered = await worker.migrationDesk.offer(entry, request.ticket, { signal, onProgress });
    ({ giver } = offered);
    const later = whyRefused(entry.state, "migrate");
    if (later !== undefined || worker.machines.get(name) !== entry || gone.signal.aborted) {
      giver.abort(later ?? "it is gone");
      worker.migrations.forget(giver);
      throw new MigrationRefused(`${name} is ${entry.state.phase}: ${later ?? "it is gone"}`);
    }
    follow(worker, { entry, name, call }, giver);
  } catch (error) {
    refuse(call, error);
  }
}

/** Once for each hundredth of each stage, and round. */
function progressTo(call: ControlCall): (progress: GiverProgress) => void {
  let last = "";
  return ({ stage, done, of, rounds }) => {
    const key = `${stage} ${rounds} ${of === 0 ? 100 : Math.floor((done / of) * 100)}`;
    if (key === last || call.isBehind) return;
    last = key;
    call.item({ stage, done_bytes: done, all_bytes: of, rounds });
  };
}

/** Waits for what the machine's own events tell of it. */
function follow(
  worker: MachineWorker,
  {
    entry,
    name,
    call,
  }: { readonly entry: Entry; readonly name: string; readonly call: ControlCall },
  giver: MigrationGiver,
): void {
  const { migration } = giver;
  let heard = worker.events.newest;
  const ends = new DisposableStack();
  const end = (answer: () => void) => {
    ends.dispose();
    answer();
  };
  const look = () => {
    const events = worker.events.after(heard).filter((event) => event.name === name);
    heard = worker.events.newest;
    for (const { entry: told } of events) {
      const answer = answerOf(told);
      if (answer === undefined) continue;
      end(answer);
      return;
    }
    const { phase, reason } = entry.state;
    if (phase === "sending" || phase === "given" || giver.result !== undefined) return;
    const message = `${name} was not given away, and is ${phase}: ${reason ?? "it went elsewhere"}`;
    end(() => refuse(call, new MigrationRefused(message)));
  };
  const answerOf = (told: HistoryEntry): (() => void) | undefined => {
    if (told.what === "given-away") {
      return () => call.done(resultOf(name, giver));
    }
    if (told.what === "taken-back") {
      const message = `It was not given away: ${told.reason}. ${name} goes on here`;
      return () => refuse(call, new MigrationRefused(message));
    }
    if (told.what === "undecided") {
      return () => refuse(call, new Error(`${name}: ${entry.state.reason}`), "undecided");
    }
    if (told.what === "call-refused" && told.call === "send") {
      const message = `${told.refusal.message}. ${name} goes on here`;
      return () => refuse(call, new MigrationRefused(message));
    }
    return undefined;
  };
  ends.use(worker.onTurn(look));
  worker.handle(name, { kind: "migrate", migration });
  call.onGone(() => {
    ends.dispose();
    giver.abort("whoever asked for it has left");
  });
}

function resultOf(name: string, giver: MigrationGiver): MigrationResultRecord {
  const { migration, destination: to } = giver;
  const { bytes, rounds, pause, time } = giver.result ?? { bytes: 0, rounds: 0, pause: 0, time: 0 };
  return { name, migration, to, bytes, rounds, pause_ms: pause, time_ms: time };
}
