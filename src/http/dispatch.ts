import * as v from "valibot";
import type { LimiterClock } from "../logging/limited-logger.ts";
import { describePrincipal, mayCall, type Permission, type Principal, roles } from "./principal.ts";
import { outputMismatch, type Problem, ProblemError, refuseIssues } from "./problem.ts";
import { RefusalWindows } from "./refusal-window.ts";
import type { Call, CallRecord, Route, StreamEvent, StreamRoute } from "./route.ts";

/** Who asks, before the route is known to allow it. */
export type Caller = Pick<Call, "principal" | "from" | "signal">;

export type Outcome =
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "refused"; readonly refusal: ProblemError };

export type StreamOutcome =
  | { readonly kind: "open"; readonly events: AsyncIterable<StreamEvent> }
  | { readonly kind: "refused"; readonly refusal: ProblemError };

/** Changes that one call can tell of; each is a record of its own. */
export const CHANGES_LIMIT = 256;
/** Letters of an object's name in a record. */
const LONGEST_OBJECT = 300;

export interface DispatcherOptions {
  /**
   * Whether a mutating call could be recorded, before it is carried out. What it throws is put
   * into our words by `translate`, and refuses the call.
   */
  readonly admit?: () => void;
  /**
   * Told of every mutating call, refused ones too. The answer waits for it: who is told "done"
   * can rely on the record.
   */
  readonly onRecord: (record: CallRecord) => Promise<void> | void;
  /** A handler broke its own schema, or threw what it should not have. */
  readonly onBug: (message: string, failure: unknown) => void;
  readonly clock: LimiterClock;
  /** Puts errors of other rooms (the store's, say) into our words; undefined: it is a bug. */
  readonly translate?: (failure: unknown) => ProblemError | undefined;
}

/**
 * The one way to a route, whatever socket the call came by: permission, both schemas, problems
 * as values, and the audit log.
 */
export class Dispatcher implements Disposable {
  readonly #options: DispatcherOptions;
  readonly #windows = new RefusalWindows();
  #wake: Disposable | undefined;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** @param input path parameters, query and body as one object; nobody has looked at it yet */
  async dispatch(route: Route, caller: Caller, input: unknown): Promise<Outcome> {
    const denied = refuseCaller(caller.principal, route.permission);
    if (denied !== undefined) return this.refuse(route, caller, { input, refusal: denied });
    const parsed = v.safeParse(route.input, input);
    if (!parsed.success) {
      return this.refuse(route, caller, { input, refusal: refuseIssues(parsed.issues) });
    }
    const unwritable = route.mutates ? this.#refuseUnwritable(route) : undefined;
    if (unwritable !== undefined) return { kind: "refused", refusal: unwritable };
    const changes: Parameters<Call["changed"]>[0][] = [];
    const call: Call = {
      ...caller,
      changed: (change) => {
        if (changes.length >= CHANGES_LIMIT) throw new Error(`More than ${CHANGES_LIMIT} changes`);
        changes.push(change);
      },
    };
    const outcome = await this.#run(route, call, parsed.output);
    if (!route.mutates) return outcome;
    if (changes.length === 0 && outcome.kind === "refused") {
      return this.refuse(route, caller, { input, refusal: outcome.refusal });
    }
    const told = changes.length === 0 ? [{ object: objectOf(route, input) }] : changes;
    const result = outcome.kind === "done" ? "done" : outcome.refusal.problem.title;
    const base = recordBase(route, caller);
    const records = told.map((change) => ({ ...base, ...change, result }));
    return (await this.#record(records)) ? outcome : unrecorded(outcome);
  }

  /** What cannot be recorded is not done; its refusal cannot be recorded either. */
  #refuseUnwritable(route: Route): ProblemError | undefined {
    try {
      this.#options.admit?.();
      return undefined;
    } catch (failure) {
      const detail = `${route.name} is refused: ${(failure as Error).message}`;
      return this.#options.translate?.(failure) ?? new ProblemError("unavailable", detail);
    }
  }

  /**
   * Refuses a call that did not come as far as its handler; all that is refused on the way
   * (credentials, limits, a wrong body) passes here, for the audit log.
   */
  async refuse(
    route: Route | StreamRoute,
    caller: Caller,
    what: { readonly input: unknown; readonly refusal: ProblemError },
  ): Promise<Outcome> {
    const { input, refusal } = what;
    if (route.mutates) {
      const result = refusal.problem.title;
      const record = { ...recordBase(route, caller), object: objectOf(route, input), result };
      const now = this.#options.clock.now();
      const due = this.#windows.ended(now);
      if (this.#windows.take(record, now)) due.push(record);
      this.#wakeAtEnd();
      await this.#record(due);
    }
    return { kind: "refused", refusal };
  }

  /** Opens a stream; what its handler throws later, `events` throws as a ProblemError. */
  async openStream(
    route: StreamRoute,
    caller: Caller,
    asked: { readonly input: unknown; readonly after: string | undefined },
  ): Promise<StreamOutcome> {
    const denied = refuseCaller(caller.principal, route.permission);
    if (denied !== undefined) return { kind: "refused", refusal: denied };
    const parsed = v.safeParse(route.input, asked.input);
    if (!parsed.success) return { kind: "refused", refusal: refuseIssues(parsed.issues) };
    const call: Call = { ...caller, changed: () => {} };
    return { kind: "open", events: this.#events(route, call, parsed.output, asked.after) };
  }

  /** @throws ProblemError request, for what this schema does not take */
  parseInput(schema: v.GenericSchema, input: unknown): unknown {
    const parsed = v.safeParse(schema, input);
    if (parsed.success) return parsed.output;
    throw refuseIssues(parsed.issues);
  }

  async *#events(
    route: StreamRoute,
    call: Call,
    input: unknown,
    after: string | undefined,
  ): AsyncGenerator<StreamEvent> {
    try {
      for await (const event of route.stream(call, input, after)) {
        const checked = v.safeParse(route.output, event.data);
        if (!checked.success) throw outputMismatch(route.name, checked.issues);
        yield { ...event, data: checked.output };
      }
    } catch (failure) {
      throw this.#problemOf(route, call, failure);
    }
  }

  async #run(route: Route, call: Call, input: unknown): Promise<Outcome> {
    try {
      const result = await route.run(call, input);
      const checked = v.safeParse(route.output, result);
      if (!checked.success) throw outputMismatch(route.name, checked.issues);
      return { kind: "done", result: checked.output };
    } catch (failure) {
      return { kind: "refused", refusal: this.#problemOf(route, call, failure) };
    }
  }

  /** What a handler threw, in our words; what it should not have thrown is logged, not told. */
  #problemOf(route: Route | StreamRoute, call: Call, failure: unknown): ProblemError {
    if (failure instanceof ProblemError) return failure;
    const translated = this.#options.translate?.(failure);
    if (translated !== undefined) return translated;
    if (call.signal.aborted) {
      const detail = `${route.name} was ended: its client went away, or its session was ended`;
      return new ProblemError("ended", detail, { cause: failure });
    }
    this.#options.onBug(`${route.name} failed`, failure);
    const hint = "The server's log has the reason";
    return new ProblemError("bug", `${route.name} failed by a bug`, { hint, cause: failure });
  }

  /** @returns whether all of them were taken */
  async #record(records: readonly CallRecord[]): Promise<boolean> {
    try {
      for (const record of records) await this.#options.onRecord(record);
      return true;
    } catch (failure) {
      this.#options.onBug("A call could not be written into the audit log", failure);
      return false;
    }
  }

  #wakeAtEnd(): void {
    const end = this.#windows.nextEnd;
    if (this.#wake !== undefined || end === undefined) return;
    const { clock } = this.#options;
    this.#wake = clock.wakeAfter(Math.max(0, end - clock.now()), () => {
      this.#wake = undefined;
      void this.#record(this.#windows.ended(clock.now()));
      this.#wakeAtEnd();
    });
  }

  /** Records what was held back, and waits until that is written. */
  async finish(): Promise<void> {
    this[Symbol.dispose]();
    await this.#record(this.#windows.ended(Number.POSITIVE_INFINITY));
  }

  [Symbol.dispose](): void {
    this.#wake?.[Symbol.dispose]();
    this.#wake = undefined;
  }
}

/** @returns why this principal may not call what asks for this permission */
export function refuseCaller(
  principal: Principal,
  permission: Permission,
): ProblemError | undefined {
  if (mayCall(principal, permission)) return undefined;
  const expected = `the permission ${permission}`;
  const received = describePrincipal(principal);
  if (principal.kind === "anonymous") {
    const hint = "Send a token as Authorization: Bearer TOKEN, or log in";
    return new ProblemError("unauthenticated", "This asks for credentials, and none came", {
      expected,
      received,
      hint,
    });
  }
  const hint = principal.kind === "operator" ? { hint: whoMay(permission) } : {};
  const message = `${received} lacks ${expected}`;
  return new ProblemError("forbidden", message, { expected, received, ...hint });
}

/** What an operator may is said when it is made, and a name is given once. */
function whoMay(permission: Permission): string {
  const isRole = roles.some((role) => role === permission);
  const may = isRole ? `--role ${permission}` : `--permit ${permission}`;
  return (
    "One who has it, or root beside the authority, adds an operator under a new name: " +
    `hostler identity operator add NAME ${may}; and revokes this one`
  );
}

/** What a refusal tells over the wire. */
export function problemAt(refusal: ProblemError, path: string): Problem {
  return { ...refusal.problem, instance: path };
}

function unrecorded(outcome: Outcome): Outcome {
  if (outcome.kind === "refused") return outcome;
  const detail = "It was done, but could not be written into the audit log";
  return { kind: "refused", refusal: new ProblemError("unrecorded", detail) };
}

function recordBase(
  route: Route | StreamRoute,
  caller: Caller,
): Pick<CallRecord, "who" | "from" | "verb"> {
  return { who: describePrincipal(caller.principal), from: caller.from, verb: route.name };
}

/** The path with the parameters that were asked for: what a call is about that tells nothing. */
function objectOf(route: Route | StreamRoute, input: unknown): string {
  const given = (typeof input === "object" && input !== null ? input : {}) as Record<
    string,
    unknown
  >;
  const path = route.path.replaceAll(/:(\w+)/g, (word, name: string) => {
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    return typeof value === "string" || typeof value === "number" ? String(value) : word;
  });
  return path.slice(0, LONGEST_OBJECT);
}
