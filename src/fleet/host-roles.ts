import type { Milliseconds } from "../units/units.ts";
import {
  type Asked,
  agentRole,
  type ExpectedRole,
  type FoundRole,
  goneRoles,
  type HandOverWay,
  type JudgedRole,
  judgeRoles,
  nextHandOver,
  roleKey,
  toldRoles,
  type UnitState,
} from "./lifecycle-roles.ts";
import type { AskedNow } from "./perform/role-hands.ts";
import type { Build, RoleHealth } from "./protocol.ts";
import type { AgentRoles } from "./upgrade-agent.ts";

export interface HostRolesParts {
  /** The file that this agent runs. */
  readonly self: Build;
  readonly folder: string;
  /** The control socket of the supervisor that is its parent. */
  readonly supervisor: string | null;
  look(): Promise<readonly FoundRole[]>;
  askUnit(unit: string): Promise<UnitState | undefined>;
  handOver(role: JudgedRole, way: HandOverWay, build: Build): Promise<AskedNow>;
  readBook(): readonly ExpectedRole[];
  /** @throws Error */
  writeBook(roles: readonly ExpectedRole[]): void;
  now(): number;
  wakeAfter(wait: Milliseconds, call: () => void): Disposable;
  /** Survived. */
  onTrouble(message: string, cause: unknown): void;
}

/** How often roles are looked at: as often as they are told; while an upgrade waits, oftener. */
const LOOK_EVERY: Milliseconds = 10_000;
const LOOK_IN_HAND_OVER: Milliseconds = 1_000;

interface HandOver {
  readonly build: Build;
  readonly asked: Map<string, Asked>;
  readonly onLook: (roles: readonly RoleHealth[]) => void;
}

/**
 * The roles of this host: looked at for as long as the agent lives, and handed over, one after the
 * other, while an upgrade says so. One turn after the other; what is known lasts to the next one.
 */
export class HostRoles implements AgentRoles, Disposable {
  readonly #parts: HostRolesParts;
  #book: readonly ExpectedRole[];
  #roles: readonly JudgedRole[] = [];
  #handOver: HandOver | undefined;
  #wake: Disposable | undefined;
  #isTurning = false;
  #isStopped = false;

  constructor(parts: HostRolesParts) {
    this.#parts = parts;
    this.#book = parts.readBook();
    this.#again(0);
  }

  /** As they were looked at last; the agent itself is the first. */
  get health(): RoleHealth[] {
    return toldRoles(this.#own, this.#roles);
  }

  get #own(): RoleHealth {
    return agentRole(this.#parts.self);
  }

  handOver(build: Build, onLook: HandOver["onLook"]): Disposable {
    const handOver = { build, asked: new Map<string, Asked>(), onLook };
    this.#handOver = handOver;
    this.#again(0);
    return {
      [Symbol.dispose]: () => {
        if (this.#handOver === handOver) this.#handOver = undefined;
      },
    };
  }

  [Symbol.dispose](): void {
    this.#isStopped = true;
    this.#handOver = undefined;
    this.#wake?.[Symbol.dispose]();
  }

  #again(wait: Milliseconds): void {
    // Whoever turns now looks again by itself, and soon where a hand-over has begun.
    if (this.#isTurning || this.#isStopped) return;
    this.#wake?.[Symbol.dispose]();
    this.#wake = this.#parts.wakeAfter(wait, () => void this.#turn());
  }

  async #turn(): Promise<void> {
    const handOver = this.#handOver;
    this.#isTurning = true;
    try {
      await this.#look(handOver);
      if (handOver !== undefined) await this.#goOn(handOver);
    } catch (error) {
      this.#parts.onTrouble("the roles of this host cannot be looked at, ignoring", error);
    } finally {
      this.#isTurning = false;
    }
    if (this.#handOver === undefined) this.#again(LOOK_EVERY);
    else this.#again(this.#handOver === handOver ? LOOK_IN_HAND_OVER : 0);
  }

  async #look(handOver: HandOver | undefined): Promise<void> {
    const { self, folder, supervisor, look, askUnit } = this.#parts;
    const found = await look();
    const units = new Map<string, UnitState>();
    for (const { unit } of goneRoles({ found, book: this.#book })) {
      const state = unit === null ? undefined : await askUnit(unit);
      if (unit !== null && state !== undefined) units.set(unit, state);
    }
    const { roles, book } = judgeRoles({
      ...{ found, units, self, folder, supervisor },
      book: this.#book,
      handingOver: handOver,
    });
    this.#roles = roles;
    this.#note(book);
  }

  /** Tells what was seen, and has the next one go on from the new file. */
  async #goOn(handOver: HandOver): Promise<void> {
    if (this.#handOver !== handOver) return;
    const { build, asked, onLook } = handOver;
    onLook([this.#own, ...this.#roles.filter((one) => one.counts).map((one) => one.health)]);
    // What was told may have ended the hand-over.
    if (this.#handOver !== handOver) return;
    const next = nextHandOver(this.#roles, { build, asked }, this.#parts.now());
    if (next === undefined || next.way === null) return;
    const key = roleKey(next);
    this.#noteAsked(next, build);
    asked.set(key, timed(await this.#parts.handOver(next, next.way, build), this.#parts.now()));
  }

  /** Before it is told: if it does not come up again, it was this that it did not survive. */
  #noteAsked({ kind, unit, socket }: JudgedRole, { digest }: Build): void {
    const own: ExpectedRole = { kind, unit, socket, asked: digest };
    const others = this.#book.filter((one) => roleKey(one) !== roleKey(own));
    this.#note([...others, own]);
  }

  #note(book: readonly ExpectedRole[]): void {
    this.#book = book;
    try {
      this.#parts.writeBook(book);
    } catch (error) {
      this.#parts.onTrouble("the roles of this host cannot be noted, ignoring", error);
    }
  }
}

const timed = (asked: AskedNow, at: number): Asked =>
  asked.kind === "refused" ? { ...asked, at } : asked;
