/** Hosts and an authority under deaths, lost answers, restored backups and clocks from a seed. */
import { readFileSync } from "node:fs";
import { authoritySteps } from "../../src/identity/authority-core.ts";
import { HostRefused, hostSteps } from "../../src/identity/host.ts";
import { SeededChance } from "./chance.ts";
import { TestHost } from "./identity-host.ts";
import { IdentityWorld, Killed, type StoreFault } from "./identity-world.ts";

export interface IdentitySimulationResult {
  deaths: number;
  lost: number;
  refused: number;
  sessions: number;
  restores: number;
  thefts: number;
}

interface Actor {
  readonly name: string;
  readonly host: TestHost;
  token: string | undefined;
  /** The host was let in by this token, and knows that. */
  used: string | undefined;
  isEnrolled: boolean;
  isRevoked: boolean;
  boots: number;
  /** It may not be let in: a backup or half a revocation is in the way. People enrol it again. */
  isForgotten: boolean;
  time: number;
  serial: number;
}

const names = ["a", "b", "c"];

class Simulation {
  readonly chance: SeededChance;
  readonly world: IdentityWorld;
  readonly actors: Actor[];
  readonly result: IdentitySimulationResult = {
    deaths: 0,
    lost: 0,
    refused: 0,
    sessions: 0,
    restores: 0,
    thefts: 0,
  };
  readonly #seed: number;
  #backup: ReturnType<IdentityWorld["store"]["backup"]> | undefined;

  constructor(world: IdentityWorld, seed: number) {
    this.world = world;
    this.#seed = seed;
    this.chance = new SeededChance(seed + 1_000_000);
    this.actors = names.map((name) => ({
      name,
      host: new TestHost(world),
      token: undefined,
      used: undefined,
      isEnrolled: false,
      isRevoked: false,
      boots: 0,
      isForgotten: false,
      time: 0,
      serial: 0,
    }));
  }

  fail(message: string): never {
    throw new Error(`${message}; HOSTLER_SIMULATION_SEED=${this.#seed} replays it`);
  }

  /** A host's act, which may die, lose its answer, or be refused. */
  async try(actor: Actor, act: () => Promise<unknown>): Promise<"done" | "not"> {
    const { chance, world } = this;
    const { host } = actor;
    host.killAt = chance.happens(0.15) ? chance.pick(hostSteps) : undefined;
    world.killAt = chance.happens(0.15) ? chance.pick(authoritySteps) : undefined;
    host.loseAnswer = chance.happens(0.15) ? () => chance.happens(0.3) : undefined;
    const faults: StoreFault[] = [
      "unavailable",
      "ambiguous-absent",
      "ambiguous-landed",
      "conflict",
    ];
    if (chance.happens(0.2)) world.store.faults.push(chance.pick(faults));
    try {
      await act();
      return "done";
    } catch (error) {
      if (error instanceof Killed) {
        this.result.deaths += 1;
        world.store.faults.length = 0;
        if ((authoritySteps as readonly string[]).includes(error.message)) await world.restart();
      } else if (error instanceof HostRefused) this.result.refused += 1;
      else if (/The answer was lost/.test((error as Error).message)) this.result.lost += 1;
      else if (!/^identity\./.test((error as Error).message)) throw error;
      return "not";
    } finally {
      this.calm(actor);
    }
  }

  calm({ host }: Actor): void {
    host.killAt = undefined;
    host.loseAnswer = undefined;
    this.world.killAt = undefined;
    this.world.store.faults.length = 0;
  }

  async step(): Promise<void> {
    const { chance, world } = this;
    const actor = chance.pick(this.actors);
    const { host, name } = actor;
    const acts: (() => Promise<unknown>)[] = [
      () => this.enrol(actor),
      () => this.enrol(actor),
      () => this.speak(actor),
      () => this.speak(actor),
      () => this.try(actor, () => host.identity().rotateKey()),
      () => this.try(actor, () => host.identity().rotateKey()),
      () => this.steal(actor),
      () => this.try(actor, () => world.done("identity.certificates.rotate")),
      () => this.try(actor, () => world.done("identity.certificates.finish", { force: true })),
      () => world.restart(),
      async () => {
        actor.boots += 1;
        host.reboot((actor.boots % 16).toString(16));
      },
      async () => world.clock.setWall(chance.pick([0, 1_795_000_000_000, Date.UTC(2045, 0, 1)])),
      async () => world.clock.pass(chance.below(1_000_000)),
      async () => {
        if (!actor.isEnrolled || chance.happens(0.7)) return;
        const revoked = await this.try(actor, () => world.done("identity.hosts.revoke", { name }));
        if (revoked === "done") actor.isRevoked = true;
        // Its key may be spent already, and the operator has to say it again.
        else actor.isForgotten = true;
      },
      () => this.backUpOrRestore(),
    ];
    await chance.pick(acts)();
    this.check(actor);
  }

  async enrol(actor: Actor): Promise<void> {
    const { world } = this;
    if (actor.isRevoked || (actor.isEnrolled && !actor.isForgotten)) return;
    actor.token ??= await world.token(actor.name, { replace: true });
    const { token } = actor;
    if ((await this.try(actor, () => actor.host.identity().enrol({ token }))) === "not") {
      // An expired one, or one that a backup has taken back: people make another.
      if (this.chance.happens(0.3)) actor.token = undefined;
      return;
    }
    actor.used = token;
    actor.isEnrolled = true;
    actor.isForgotten = false;
  }

  async speak(actor: Actor): Promise<void> {
    const { host, isRevoked } = actor;
    const outcome = await this.try(actor, () => host.identity().openSession());
    if (outcome === "done") this.result.sessions += 1;
    if (outcome === "done" && isRevoked) this.fail(`${actor.name} is revoked, and speaks`);
  }

  /** Somebody else has the token of a host that was let in by it. */
  async steal(actor: Actor): Promise<void> {
    const { used: token } = actor;
    if (token === undefined) return;
    using thief = new TestHost(this.world);
    const outcome = await thief
      .identity()
      .enrol({ token })
      .catch((error: unknown) => error);
    if (!(outcome instanceof HostRefused)) {
      const why = outcome instanceof Error ? outcome.stack : JSON.stringify(outcome);
      this.fail(`the token of ${actor.name} counts twice: ${why}`);
    }
    this.result.thefts += 1;
  }

  async backUpOrRestore(): Promise<void> {
    const { world, chance } = this;
    if (this.#backup === undefined || chance.happens(0.5)) {
      this.#backup = world.store.backup();
      return;
    }
    world.store.restore(this.#backup);
    this.#backup = undefined;
    await world.restart();
    this.result.restores += 1;
    for (const actor of this.actors) actor.isForgotten = true;
  }

  check(actor: Actor): void {
    const journal = actor.host.identity().journal();
    if (journal === undefined) return;
    if (journal.time < actor.time) this.fail(`the time of ${actor.name} went back`);
    if (journal.serial < actor.serial) this.fail(`the serial of ${actor.name} went back`);
    actor.time = journal.time;
    actor.serial = journal.serial;
  }

  /** Without troubles, everybody who was not revoked or forgotten gets in. */
  async end(): Promise<void> {
    for (const actor of this.actors) {
      this.calm(actor);
      const opened = await actor.host
        .identity()
        .openSession()
        .catch((error: unknown) => error);
      const isIn = !(opened instanceof Error);
      const shouldBe = actor.isEnrolled && !actor.isRevoked && !actor.isForgotten;
      if (shouldBe && !isIn) this.fail(`${actor.name} cannot get in: ${opened.message}`);
      if (isIn && actor.isRevoked) this.fail(`${actor.name} is revoked, and speaks`);
    }
    this.checkSecrets();
  }

  checkSecrets(): void {
    const told = `${this.world.store.text()}${JSON.stringify(this.world.events)}`;
    for (const { host, name } of this.actors) {
      const path = `${host.identityFolder}/key.pem`;
      const pem = host.identity().fingerprint() === undefined ? "" : readFileSync(path, "utf8");
      const middle = pem.split("\n")[1];
      if (middle !== undefined && told.includes(middle)) this.fail(`the key of ${name} was told`);
    }
  }
}

export async function simulateIdentity(options: {
  readonly seed: number;
  readonly steps: number;
}): Promise<IdentitySimulationResult> {
  await using world = await IdentityWorld.open({ seed: options.seed });
  const simulation = new Simulation(world, options.seed);
  try {
    for (let step = 0; step < options.steps; step += 1) await simulation.step();
    await simulation.end();
    return simulation.result;
  } finally {
    for (const { host } of simulation.actors) host[Symbol.dispose]();
  }
}
