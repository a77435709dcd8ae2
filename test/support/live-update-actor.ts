/** Simulated clients: some say hello, some do not; some are late, die, abort, or say nothing. */
import type { DaemonEffect, Update } from "../../src/live-update/lifecycle-state.ts";
import { type ClientEvent, sessionNameOf } from "../../src/live-update/protocol.ts";
import type { Simulation } from "./live-update-simulation.ts";
import type { WorldClient, WorldConnection } from "./live-update-world.ts";

const DEADLINE = 2_000;

export class ClientActor {
  readonly #world: Simulation;
  #connections = 0;
  #requests = 0;

  constructor(world: Simulation) {
    this.#world = world;
  }

  make(): WorldClient[] {
    const { chance } = this.#world;
    return Array.from({ length: 1 + chance.below(4) }, (_value, index) => {
      const id = `client-${index}`;
      const bare = chance.happens(0.3);
      const sessions = !bare && chance.happens(0.3) ? [id, `${id}/log`] : [id];
      return {
        id,
        user: 100 + index,
        bare,
        required: bare || chance.happens(0.5),
        sessions,
        connection: undefined,
        known: undefined,
        given: new Set<string>(),
        isReady: false,
        owed: new Map<string, string>(),
        claimed: new Set<string>(),
      };
    });
  }

  /** A daemon listens: whoever has no connection comes. */
  begin(): void {
    for (const client of this.#world.clients) this.#comeLater(client);
  }

  #after(client: WorldClient, most: number, act: (connection: WorldConnection) => void): void {
    const { agenda, chance } = this.#world;
    const { connection } = client;
    agenda.after(1 + chance.below(most), () => {
      if (connection !== undefined && client.connection === connection) act(connection);
    });
  }

  #comeLater(client: WorldClient): void {
    const { agenda, chance } = this.#world;
    agenda.after(1 + chance.below(300), () => {
      if (client.connection !== undefined) return;
      this.#connections += 1;
      client.connection = {
        number: this.#connections,
        begun: undefined,
        heardAt: 0,
        aborted: new Set(),
        finishing: new Set(),
        mustEnd: false,
        unanswered: new Map(),
      };
      this.#subscribe(client, client.connection);
      this.#claimAll(client);
      this.#mayGo(client);
    });
  }

  #ask(client: WorldClient, connection: WorldConnection, kind: "claim" | "other") {
    if (client.bare) return undefined;
    this.#requests += 1;
    connection.unanswered.set(this.#requests, kind);
    return this.#requests;
  }

  #subscribe(client: WorldClient, connection: WorldConnection): void {
    const { id, user, bare, required, sessions, known } = client;
    const request = this.#ask(client, connection, "other");
    this.#world.handle({
      kind: "subscribe",
      request,
      update: bare ? undefined : known,
      subscription: {
        ...{ id, user, bare, required, sessions },
        connection: connection.number,
        processId: 1,
        deadline: DEADLINE,
      },
    });
  }

  /** Claims what it is owed; another user never gets it. */
  #claimAll(client: WorldClient): void {
    for (const name of client.owed.keys()) this.#claim(client, name);
    const { chance, clients } = this.#world;
    const other = chance.pick(clients);
    if (other === client || !chance.happens(0.2)) return;
    this.#after(client, 200, () => this.#sayClaim(client, other.id, ""));
  }

  #claim(client: WorldClient, name: string): void {
    this.#after(client, 500, () => {
      if (!client.owed.has(name)) return;
      this.#sayClaim(client, client.id, name.slice(client.id.length + 1));
    });
  }

  #sayClaim(client: WorldClient, id: string, part: string): void {
    const { connection, bare, user } = client;
    if (connection === undefined) return;
    const request = this.#ask(client, connection, "claim");
    const claimer = { connection: connection.number, request, bare };
    this.#world.handle({ kind: "claim", claimer, id, part, user });
  }

  /** From time to time its connection is lost, without its fault. */
  #mayGo(client: WorldClient): void {
    const { chance } = this.#world;
    this.#after(client, 8_000, () => {
      if (this.#world.trouble === 0) return;
      if (chance.happens(this.#world.trouble)) this.#cut(client, true);
      else if (!client.bare && chance.happens(0.1)) this.#unsubscribe(client);
      else this.#mayGo(client);
    });
  }

  #unsubscribe(client: WorldClient): void {
    const { connection, id } = client;
    if (connection === undefined) return;
    const request = this.#ask(client, connection, "other");
    this.#world.handle({ kind: "unsubscribe", connection: connection.number, id, request });
    if (this.#world.state.subscriptions.get(id)?.connection === connection.number) {
      throw new Error(`${id} is subscribed still`);
    }
    this.#after(client, 500, () => this.#subscribe(client, connection));
    this.#mayGo(client);
  }

  /** A bare one understands that all is over; the other keeps what it has until it is told. */
  #cut(client: WorldClient, isNoticed: boolean): void {
    const { connection } = client;
    client.connection = undefined;
    if (client.bare) this.#forget(client);
    client.claimed.clear();
    // What was on its way ends with the connection.
    const { kernel } = this.#world;
    for (const name of client.sessions) {
      if (!client.given.has(name)) kernel.close(kernel.outgoing, name, client.id);
    }
    if (isNoticed && connection !== undefined) {
      this.#world.note(`${client.id} loses connection ${connection.number}`);
      this.#world.handle({ kind: "disconnected", connection: connection.number });
    }
    this.#comeLater(client);
  }

  #forget(client: WorldClient): void {
    this.#world.kernel.closeAll(client.id);
    client.known = undefined;
    client.given = new Set();
    client.isReady = false;
  }

  allCut(): void {
    for (const client of this.#world.clients) this.#cut(client, false);
  }

  hungUp(number: number): void {
    const client = this.#of(number);
    if (client === undefined) return;
    this.#cut(client, true);
  }

  #of(number: number): WorldClient | undefined {
    return this.#world.clients.find(({ connection }) => connection?.number === number);
  }

  sent(effect: Extract<DaemonEffect, { kind: "send" }>): void {
    const { message, session } = effect;
    const client = this.#of(effect.connection);
    const connection = client?.connection;
    if (client === undefined || connection === undefined) return;
    this.#world.note(`  to ${client.id}: ${JSON.stringify(message)}`);
    const request = "request" in message ? message.request : undefined;
    if (request !== undefined && !connection.unanswered.delete(request)) {
      throw new Error(`${client.id} was answered twice`);
    }
    if (message.event === "START_PRESERVATION") connection.begun = this.#world.state.update?.id;
    if (message.event === "ABORTED") connection.aborted.add(message.update);
    if (message.event === "FINISHED")
      connection.finishing.delete(sessionNameOf(message.id, message.session));
    if (message.event === "ERROR") {
      connection.finishing.clear();
      connection.mustEnd = client.bare;
    }
    const { kernel } = this.#world;
    if (session !== undefined) {
      const side = session.direction === "outgoing" ? kernel.outgoing : kernel.incoming;
      const found = side.get(session.name);
      // It was dropped while this was decided.
      if (found === undefined) return;
      found.holders.add(client.id);
    }
    // In the order in which it was sent.
    const { agenda, chance } = this.#world;
    connection.heardAt = Math.max(connection.heardAt, agenda.now + 1 + chance.below(100));
    agenda.after(connection.heardAt - agenda.now, () => {
      if (client.connection === connection) this.#hear(client, message, session?.name);
    });
  }

  #hear(client: WorldClient, message: ClientEvent, session: string | undefined): void {
    switch (message.event) {
      case "START_PRESERVATION":
        this.#begin(client, session ?? "", message.update ?? this.#world.state.update?.id);
        break;
      case "ABORTED":
        if (client.known === message.update) this.#forget(client);
        break;
      case "CLAIMED":
        this.#restore(client, session ?? "");
        break;
      case "ERROR":
        this.#again(client, message.error.kind);
        break;
    }
  }

  #begin(client: WorldClient, session: string, update: string | undefined): void {
    client.known = update;
    client.isReady = false;
    client.given.add(session);
    if (client.given.size < client.sessions.length) return;
    const { chance, trouble } = this.#world;
    const { id } = client;
    const words = { id: client.bare ? undefined : id };
    if (chance.happens(trouble / 3)) return;
    this.#after(client, DEADLINE / 2, ({ number: connection }) => {
      if (client.known !== update) return;
      if (!client.bare && chance.happens(trouble / 2)) {
        const request = this.#askNow(client);
        this.#world.handle({
          ...{ kind: "client-aborts", connection, ...words, request, reason: "it cannot" },
        });
        return;
      }
      const bytes = undefined;
      this.#world.handle({
        kind: "progress",
        request: undefined,
        connection,
        ...words,
        bytes,
        detail: "half",
      });
      const { isDying, state } = this.#world;
      const { update: current } = state;
      const participant = current?.participants.get(id);
      const isUnderWay = current?.phase === "preserving" || current?.phase === "barrier";
      const isWanted = isUnderWay && !isDying;
      if (isWanted && participant?.stage === "preserving" && participant.detail !== "half") {
        throw new Error(`the progress of ${id} is not known`);
      }
      this.#ready(client, update);
    });
  }

  #askNow(client: WorldClient): number | undefined {
    const { connection } = client;
    return connection === undefined ? undefined : this.#ask(client, connection, "other");
  }

  #ready(client: WorldClient, update: string | undefined): void {
    const { kernel } = this.#world;
    for (const name of client.sessions) {
      const session = kernel.outgoing.get(name);
      if (session?.holders.has(client.id) === true) session.content = `${name} of ${update}`;
    }
    client.isReady = true;
    this.#after(client, 100, ({ number: connection }) => {
      const request = this.#askNow(client);
      const words = { id: client.bare ? undefined : client.id, bytes: 1 };
      const said = client.bare ? undefined : update;
      this.#world.handle({ kind: "ready", connection, request, ...words, update: said });
    });
  }

  #restore(client: WorldClient, name: string): void {
    const owner = this.#world.clients.find(({ sessions }) => sessions.includes(name));
    if (owner !== client) throw new Error(`${client.id} was given ${name}, which is another's`);
    const { kernel, result, chance, trouble } = this.#world;
    const wanted = client.owed.get(name);
    const found = kernel.incoming.get(name)?.content;
    if (wanted !== undefined && found !== wanted) throw new Error(`${name} is ${found}`);
    result.claims += 1;
    if (chance.happens(trouble)) {
      this.#cut(client, true);
      return;
    }
    client.owed.delete(name);
    kernel.close(kernel.incoming, name, client.id);
    if (client.bare) return;
    client.claimed.add(name);
    this.#after(client, 200, ({ number: connection }) => {
      if (!client.claimed.delete(name)) return;
      const request = this.#askNow(client);
      const part = name.slice(client.id.length + 1);
      client.connection?.finishing.add(name);
      this.#world.handle({ kind: "client-finished", connection, id: client.id, part, request });
    });
  }

  /** Its former connection is not noticed to be lost, or the kernel refused: it tries again. */
  #again(client: WorldClient, kind: string): void {
    const { connection } = client;
    if (connection === undefined) return;
    if (kind === "taken") this.#after(client, 300, () => this.#subscribe(client, connection));
    if (kind === "kernel") this.#claimAll(client);
    // The clock was faster.
    if (this.#world.forgets && (kind === "unknown" || kind === "finished")) client.owed.clear();
  }

  /** The new kernel comes: all end, and who was ready is owed what it has preserved. */
  promise(update: Update): void {
    for (const client of this.#world.clients) {
      client.connection = undefined;
      client.claimed.clear();
      client.owed.clear();
      const participant = update.participants.get(client.id);
      const isIn = participant?.stage === "ready";
      if (client.isReady && client.known === update.id && !isIn && participant !== undefined) {
        this.#requireExcuse(client, participant.detail);
      }
      if (isIn) {
        for (const name of client.sessions) client.owed.set(name, `${name} of ${update.id}`);
      }
      client.known = undefined;
      client.given = new Set();
      client.isReady = false;
    }
  }

  #requireExcuse(client: WorldClient, detail: string | undefined): void {
    if (detail === undefined) throw new Error(`${client.id} was ready, and is not in the update`);
  }
}
