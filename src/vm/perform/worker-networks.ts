import { monotonicNow, wallClock } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { AddressPool, macAddressOf, tapNameOf } from "../../network/addresses.ts";
import { readOwnership } from "../../network/desired.ts";
import {
  applyNetworkInTurns,
  observeNetwork,
  readLinkCounters,
} from "../../network/kernel-network.ts";
import { NetworkWatch } from "../../network/network-watch.ts";
import type { ObservedNetwork } from "../../network/observation.ts";
import {
  describeOperation,
  keyOfOperation,
  type NetworkOperation,
  planNetwork,
} from "../../network/plan.ts";
import type { LinkCounters } from "../../network/rtnetlink.ts";
import type {
  DesiredNetwork,
  DesiredNetworks,
  NetworkCard,
  PortForward,
} from "../../network/specification.ts";
import { formatIpv4, parseIpv4, parseSubnet } from "../../network/subnet.ts";
import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { Card } from "../cards.ts";
import type { MachineRecord } from "../machine-record.ts";
import type { VmSpec } from "../protocol.ts";
import { type CardRequest, cardRequestsOf, forwardsOf, hostPortOf } from "../protocol-network.ts";
import type { WorkerConfiguration } from "../worker-configuration.ts";
import { type NetworkConfiguration, networksOf } from "../worker-networks.ts";
import { listenerAt } from "./host-ports.ts";
import { passStep } from "./kill-points.ts";
import type { MachineNetwork } from "./machine-tools.ts";
import { allowListOf, NetworkServices, type ServedCard } from "./network-services.ts";

/** From a change of this host's network to the look whether it is about ours: others follow it. */
const LOOK_AFTER: Milliseconds = 500;
/** For so long `status` tells of what somebody else changed. */
const TOLD_FOR: Milliseconds = 3_600_000;
/** Of what was changed, so much is told. */
const MOST_TOLD = 5;

export type CardsChoice =
  | { readonly kind: "cards"; readonly cards: Card[] }
  | {
      readonly kind: "refused";
      /** limit: no address is left. network: what was asked for is not there, or another's. */
      readonly why: "limit" | "network";
      readonly message: string;
    };

export type ReceivedCards =
  | Extract<CardsChoice, { kind: "cards" }>
  | { readonly kind: "refused"; readonly message: string };

/** A machine of which nobody knows what it should have, and addresses that may be its own. */
interface LeftAlone {
  readonly name: string;
  readonly addresses: readonly string[];
}

/** What a machine has, or is to have, of the networks. */
interface Claim {
  readonly cards: readonly Card[];
  /** "tcp port 8080" */
  readonly hostPorts: readonly string[];
}

/** What was not done, and whom it is about: all of its network, where no machine is named. */
interface Problem {
  readonly bridge: string | undefined;
  readonly machine: string | undefined;
  readonly tap: string | undefined;
  readonly text: string;
}

interface Pass extends PromiseWithResolvers<readonly Problem[]> {
  /** Machines that asked for it. */
  readonly asking: Set<string>;
}

/** Links that a machine needs. */
interface Subjects {
  readonly taps: ReadonlySet<string>;
  readonly bridges: ReadonlySet<string>;
}

/** How one of the networks is, for people. */
export interface NetworkSummary {
  readonly configuration: NetworkConfiguration;
  readonly freeAddresses: number;
  readonly cards: number;
}

interface Place {
  readonly configuration: NetworkConfiguration;
  readonly pool: AddressPool;
  readonly services: NetworkServices;
}

/**
 * The networks of a worker: links and rules, addresses, DHCP and names of each. What is asked for
 * in one turn is done in one pass, and a pass lets others have their turn.
 */
export class WorkerNetworks implements MachineNetwork, Disposable {
  readonly #loop: EventLoop;
  readonly #onTrouble: (message: string) => void;
  /** Machines of which nobody knows what they should have: nothing of theirs is removed. */
  readonly #leftAlone: Set<string>;
  /** What such a machine may have as its own. */
  readonly #withheld: readonly LeftAlone[];
  readonly #owner: string;
  readonly #places: ReadonlyMap<string, Place>;
  /** Of machines whose cards are to be there. */
  readonly #records = new Map<string, MachineRecord>();
  /** Of all machines, whether their cards were made yet or not. */
  readonly #claims = new Map<string, Claim>();
  /** What the last pass has made; undefined until one has, and while one does. */
  #made: DesiredNetworks | undefined;
  /** What of it was refused, as it is told. */
  #undone: ReadonlySet<string> = new Set();
  #watch: NetworkWatch | undefined;
  #look: Disposable | undefined;
  #changed: { readonly at: MonotonicTime; readonly text: string } | undefined;
  readonly #onCutOff: (machine: string) => void;
  #next: Pass | undefined;
  #isPassing = false;
  #isDisposed = false;

  constructor(
    loop: EventLoop,
    configuration: WorkerConfiguration,
    options: {
      readonly leftAlone: readonly LeftAlone[];
      readonly onTrouble: (message: string) => void;
      /** Its TAP was removed under its VMM, which has no card any more. */
      readonly onCutOff: (machine: string) => void;
    },
  ) {
    const { onTrouble } = options;
    this.#loop = loop;
    this.#onCutOff = options.onCutOff;
    this.#onTrouble = onTrouble;
    this.#leftAlone = new Set(options.leftAlone.map(({ name }) => name));
    this.#withheld = options.leftAlone;
    this.#owner = configuration.networkBridge;
    const places = networksOf(configuration).map((network): [string, Place] => {
      const { subnet, gateway } = network.specification;
      const directory = {
        cards: () => this.#servedOf(network),
        namesFor: (served: ServedCard) => this.#namesFor(served),
      };
      const place = {
        configuration: network,
        pool: new AddressPool(parseSubnet(subnet) ?? { network: 0, prefix: 32 }, [
          parseIpv4(gateway) ?? 0,
        ]),
        services: new NetworkServices(loop, network, { directory, onTrouble }),
      };
      return [network.name, place];
    });
    this.#places = new Map(places);
  }

  /** The default one first. */
  summaries(): NetworkSummary[] {
    return [...this.#places.values()].map(({ configuration, pool }) => ({
      configuration,
      freeAddresses: pool.size - pool.taken,
      cards: pool.taken,
    }));
  }

  /** Takes up what machines have, and makes the networks what they should be. */
  async start(records: readonly MachineRecord[]): Promise<void> {
    for (const record of records) this.#keep(record);
    for (const one of this.#withheld) this.#withhold(one);
    this.#begin();
    // Without a machine nothing of a network is made, nor anybody else's touched.
    if (records.length === 0) return;
    try {
      await this.#pass(undefined);
    } catch (error) {
      this.#onTrouble(`the network is not as it should be: ${messageOf(error)}`);
    }
  }

  #begin(): void {
    try {
      this.#watch = new NetworkWatch(this.#loop, () => this.#lookLater());
    } catch (error) {
      this.#onTrouble(`what others change of the network is not noticed: ${messageOf(error)}`);
    }
  }

  /** Our own changes are told as well: after them nothing is found. */
  #lookLater(): void {
    if (this.#isDisposed) return;
    this.#look ??= this.#loop.wakeAfter(LOOK_AFTER, () => {
      this.#look = undefined;
      // A pass that had seen the network before the change does not see it.
      if (this.#isPassing) this.#lookLater();
      else void this.#mend();
    });
  }

  async #mend(): Promise<void> {
    try {
      if (this.#changedOf(observeNetwork()).length > 0) await this.#pass(undefined);
    } catch (error) {
      this.#onTrouble(`the network is not as it should be: ${messageOf(error)}`);
    }
  }

  /** What is not as the last pass made it. */
  #changedOf(observed: ObservedNetwork): NetworkOperation[] {
    if (this.#made === undefined) return [];
    const { operations } = planNetwork(this.#made, observed);
    return operations.filter((one) => !this.#undone.has(keyOfOperation(one)));
  }

  /** After something was refused: what follows from it was left out, of the rules as well. */
  #leftOf(desired: DesiredNetworks): ReadonlySet<string> {
    return new Set(planNetwork(desired, observeNetwork()).operations.map(keyOfOperation));
  }

  #tellChanged(observed: ObservedNetwork): void {
    const changed = this.#changedOf(observed);
    if (changed.length === 0) return;
    const words = changed.slice(0, MOST_TOLD).map(describeOperation);
    const more = changed.length > MOST_TOLD ? `, and ${changed.length - MOST_TOLD} more` : "";
    const text =
      "somebody else changed the network of the machines, which is made as it was: " +
      `${words.join("; ")}${more}`;
    this.#onTrouble(text);
    this.#changed = { at: monotonicNow(), text: `${wallClock()}: ${text}` };
    const taps = new Set(changed.flatMap((one) => (one.kind === "make-tap" ? one.name : [])));
    for (const [machine, { cards }] of this.#claims) {
      if (cards.some(({ tap }) => taps.has(tap))) this.#onCutOff(machine);
    }
  }

  /** What everybody who looks at this host should know of its networks. */
  get warnings(): readonly string[] {
    if (this.#changed === undefined || monotonicNow() - this.#changed.at > TOLD_FOR) return [];
    return [this.#changed.text];
  }

  /** Why a machine cannot have what it declares, whatever others have. */
  refuse(spec: VmSpec): string | undefined {
    for (const { network, address } of cardRequestsOf(spec)) {
      const place = this.#places.get(network);
      if (place === undefined) return this.#unknown(spec.name, network);
      const number = parseIpv4(address ?? "");
      const found = number === undefined ? undefined : place.pool.refusalOf(number);
      if (found !== undefined) return `${spec.name}: ${found.reason}. ${sentence(found.mend)}`;
    }
    return undefined;
  }

  #unknown(machine: string, network: string): string {
    const known = [...this.#places.keys()].join(", ");
    return (
      `${machine}: expected a network of this worker (${known}), received ${network}. ` +
      `Name one of them, or add [network.${network}] to its configuration.`
    );
  }

  /** Addresses, MAC addresses and TAPs' names for a new machine. */
  allocate(spec: VmSpec): CardsChoice {
    const refusal = this.refuse(spec) ?? this.#refuseLed(spec) ?? refuseHeard(spec);
    if (refusal !== undefined) return { kind: "refused", why: "network", message: refusal };
    const cards: Card[] = [];
    for (const [index, { network, address }] of cardRequestsOf(spec).entries()) {
      const made = this.#allocateCard(spec.name, { network, address, index }, cards);
      if ("tap" in made) {
        cards.push(made);
        continue;
      }
      this.#release(spec.name, cards);
      return made;
    }
    this.#claims.set(spec.name, claimOf(spec, cards));
    return { kind: "cards", cards };
  }

  #allocateCard(
    machine: string,
    wish: {
      readonly network: string;
      readonly address: string | undefined;
      readonly index: number;
    },
    before: readonly Card[],
  ): Card | Extract<CardsChoice, { kind: "refused" }> {
    const place = this.#places.get(wish.network);
    if (place === undefined) throw new Error(`Bug: the network ${wish.network} was there`);
    const wanted = parseIpv4(wish.address ?? "");
    const found =
      wanted === undefined ? place.pool.allocate(machine) : place.pool.reserve(wanted, machine);
    if ("refusal" in found) {
      const { kind, reason, mend } = found.refusal;
      const message = `${machine}: ${reason}. ${sentence(mend)}`;
      return { kind: "refused", why: kind === "exhausted" ? "limit" : "network", message };
    }
    const identity = { worker: this.#owner, machine, card: String(wish.index) };
    const taken = new Set([...this.#taps(), ...before.map(({ tap }) => tap)]);
    const tap = tapNameOf(identity, (one) => taken.has(one));
    if (tap === undefined) {
      place.pool.release(found.address);
      return { kind: "refused", why: "limit", message: `No name is left for a TAP of ${machine}` };
    }
    const address = formatIpv4(found.address);
    return { network: wish.network, tap, mac: macAddressOf(identity), address };
  }

  #taps(): string[] {
    return [...this.#claims.values()].flatMap(({ cards }) => cards.map(({ tap }) => tap));
  }

  /** Each port of the host leads to one machine. */
  #refuseLed(spec: VmSpec): string | undefined {
    for (const forward of forwardsOf(spec)) {
      const port = hostPortOf(forward);
      const other = [...this.#claims].find(([name, { hostPorts }]) => {
        return name !== spec.name && hostPorts.includes(port);
      });
      if (other !== undefined) {
        return `${spec.name}: ${port} of the host leads to ${other[0]} already. Take another one.`;
      }
    }
    return undefined;
  }

  /**
   * What a machine had before is its own again.
   * @returns why it cannot be: something of it is another's, or no longer of these networks
   */
  reserve(spec: VmSpec, cards: readonly Card[]): string | undefined {
    const refusal = this.#refuseLed(spec);
    if (refusal !== undefined) return refusal;
    const kept: Card[] = [];
    for (const card of cards) {
      const why = this.#reserveCard(spec.name, card);
      if (why === undefined) {
        kept.push(card);
        continue;
      }
      this.#release(spec.name, kept);
      return `${spec.name}: ${why}`;
    }
    this.#claims.set(spec.name, claimOf(spec, cards));
    return undefined;
  }

  /**
   * The cards of a machine that comes from another host, with other addresses where it is wished
   * for and its own are not to be had.
   */
  receive(spec: VmSpec, cards: readonly Card[], wishes: readonly CardRequest[]): ReceivedCards {
    const strange = wishes.find((wish) => cards.every(({ network }) => network !== wish.network));
    if (strange !== undefined) {
      const its = cards.map(({ network }) => network).join(", ") || "none";
      const message = `${spec.name}: expected networks of its cards (${its}) after --network`;
      return { kind: "refused", message: `${message}, received ${strange.network}` };
    }
    const kept: Card[] = [];
    for (const card of cards) {
      const wish = wishes.find(({ network }) => network === card.network);
      const address = this.#addressFor(spec.name, card, wish);
      if ("given" in address) {
        kept.push({ ...card, address: address.given });
        continue;
      }
      this.#release(spec.name, kept);
      return { kind: "refused", message: address.refused };
    }
    const refusal = this.reserve(spec, kept);
    if (refusal === undefined) return { kind: "cards", cards: kept };
    this.#release(spec.name, kept);
    return { kind: "refused", message: refusal };
  }

  #addressFor(
    name: string,
    { network, address }: Card,
    wish: CardRequest | undefined,
  ): { readonly given: string } | { readonly refused: string } {
    const pool = this.#places.get(network)?.pool;
    if (pool === undefined) return { refused: this.#unknown(name, network) };
    const wanted = parseIpv4(wish?.address ?? address);
    const own = wanted === undefined ? undefined : pool.reserve(wanted, name);
    if (own !== undefined && "address" in own) return { given: formatIpv4(own.address) };
    const isAnyGood = wish !== undefined && wish.address === undefined;
    const found = isAnyGood || own === undefined ? pool.allocate(name) : own;
    if ("address" in found) return { given: formatIpv4(found.address) };
    const { reason, mend } = found.refusal;
    const other =
      wish === undefined
        ? `Make the ticket with --network ${network}, and it has a free one here, or with ` +
          `--network ${network}=ADDRESS`
        : sentence(mend);
    return { refused: `${name}: ${reason}. ${other}` };
  }

  #reserveCard(name: string, { network, tap, address }: Card): string | undefined {
    const place = this.#places.get(network);
    if (place === undefined) return this.#unknown(name, network);
    const [owner] =
      [...this.#claims].find(([other, claim]) => {
        return other !== name && claim.cards.some((card) => card.tap === tap);
      }) ?? [];
    if (owner !== undefined) return `the TAP ${tap} is that of ${owner}`;
    const number = parseIpv4(address);
    if (number === undefined) return `${address} is no address`;
    const kept = place.pool.reserve(number, name);
    return "refusal" in kept ? kept.refusal.reason : undefined;
  }

  /** Gives back what was reserved for a machine that did not come to be. */
  unreserve(name: string): void {
    this.#release(name, this.#claims.get(name)?.cards ?? []);
    this.#claims.delete(name);
  }

  #release(name: string, cards: readonly Card[]): void {
    for (const { network, address } of cards) {
      const number = parseIpv4(address);
      const pool = this.#places.get(network)?.pool;
      // One that it could not be given is another's.
      if (number !== undefined && pool?.holderOf(number) === name) pool.release(number);
    }
  }

  async connect(record: MachineRecord): Promise<void> {
    const { name } = record.spec;
    this.#keep(record);
    const { cards } = record.allocation;
    const lost = cards.find(({ network }) => !this.#places.has(network));
    if (lost !== undefined) throw new Error(this.#unknown(name, lost.network));
    throwOwn(await this.#pass(name), name, this.#subjectsOf(cards));
  }

  async disconnect(name: string): Promise<void> {
    const cards = this.#claims.get(name)?.cards ?? [];
    const wasThere = this.#records.delete(name);
    this.#leftAlone.delete(name);
    this.unreserve(name);
    if (wasThere) throwOwn(await this.#pass(name), name, this.#subjectsOf(cards));
  }

  /** Users of the TAPs that carry a machine's name. @throws NetlinkError */
  ownersOf(name: string): number[] {
    return observeNetwork().links.flatMap(({ alias, tap }) => {
      const ownership = readOwnership(alias);
      const isOwn = ownership?.owner === this.#owner && ownership.machine === name;
      return isOwn && tap?.owner !== undefined ? [tap.owner] : [];
    });
  }

  /** What a machine has of which nobody knows what it should have: nobody has it any more. */
  async abandon(name: string): Promise<void> {
    this.#leftAlone.delete(name);
    for (const { addresses } of this.#withheld.filter((one) => one.name === name)) {
      for (const address of addresses.flatMap((text) => parseIpv4(text) ?? [])) {
        for (const { pool } of this.#places.values()) {
          if (pool.holderOf(address) === name) pool.release(address);
        }
      }
    }
    await this.#pass(name);
  }

  #subjectsOf(cards: readonly Card[]): Subjects {
    const bridges = cards.flatMap(({ network }) => {
      return this.#places.get(network)?.configuration.specification.bridge ?? [];
    });
    return { taps: new Set(cards.map(({ tap }) => tap)), bridges: new Set(bridges) };
  }

  /** What went through the TAPs, by their names. */
  counters(): ReadonlyMap<string, LinkCounters> {
    return readLinkCounters(new Set(this.#taps()));
  }

  #keep(record: MachineRecord): void {
    const { spec, allocation } = record;
    this.#records.set(spec.name, record);
    this.#claims.set(spec.name, claimOf(spec, allocation.cards));
    for (const card of allocation.cards) {
      const why = this.#reserveCard(spec.name, card);
      if (why === undefined) continue;
      this.#onTrouble(`${spec.name}: its card ${card.tap}: ${why}`);
      // Its machine may run: what it has stays as it is.
      if (!this.#places.has(card.network)) this.#leftAlone.add(spec.name);
    }
  }

  /** Of whichever network an address is; one that a machine is known to have stays that one's. */
  #withhold({ name, addresses }: LeftAlone): void {
    for (const address of addresses.flatMap((text) => parseIpv4(text) ?? [])) {
      for (const { pool } of this.#places.values()) pool.reserve(address, name);
    }
  }

  /**
   * A pass that begins from now on, for a machine or for all.
   * @returns what it did not do; what is about no machine that asked is told @throws Error
   */
  #pass(name: string | undefined): Promise<readonly Problem[]> {
    this.#next ??= { asking: new Set(), ...Promise.withResolvers<readonly Problem[]>() };
    const { promise, asking } = this.#next;
    if (name !== undefined) asking.add(name);
    if (!this.#isPassing) void this.#work();
    return promise;
  }

  async #work(): Promise<void> {
    this.#isPassing = true;
    // Who asks in the same turn shares the pass.
    await new Promise<void>((resolve) => this.#loop.afterTurn(resolve));
    for (let pass = this.#next; pass !== undefined; pass = this.#next) {
      this.#next = undefined;
      try {
        const problems = await this.#apply();
        passStep("network:applied");
        problems.push(...this.#serve());
        this.#tellOthers(problems, pass.asking);
        pass.resolve(problems);
      } catch (error) {
        pass.reject(error);
      }
    }
    this.#isPassing = false;
  }

  #tellOthers(problems: readonly Problem[], asking: ReadonlySet<string>): void {
    const subjects = [...asking].map((name) => ({
      name,
      // Of one that was removed just now the claim is gone: its TAPs are nobody else's.
      ...this.#subjectsOf(this.#claims.get(name)?.cards ?? []),
    }));
    for (const problem of problems) {
      const isOwn = subjects.some((one) => isAbout(problem, one.name, one));
      if (!isOwn) this.#onTrouble(problem.text);
    }
  }

  async #apply(): Promise<Problem[]> {
    const observed = observeNetwork();
    const kept = this.#bridgesWithUnknown(observed);
    const networks = [...this.#places.values()].flatMap((place) => this.#desiredOf(place, kept));
    const wanted = new Set(networks.map(({ specification }) => specification.bridge));
    for (const { configuration, services } of this.#places.values()) {
      // A bridge goes with its last machine, and nobody is there to be served.
      if (!wanted.has(configuration.specification.bridge)) services[Symbol.dispose]();
    }
    this.#tellChanged(observed);
    this.#made = undefined;
    const desired = { owner: this.#owner, networks, leftAlone: [...this.#leftAlone] };
    const { operations, refusals } = planNetwork(desired, observed);
    const refused = await applyNetworkInTurns(operations, async () => {
      await this.#loop.letOthers();
      if (this.#isDisposed) throw new Error("The worker ends");
    });
    this.#made = desired;
    this.#undone = refused.length === 0 ? new Set() : this.#leftOf(desired);
    return [
      ...refusals.map(({ machine, bridge, reason, mend }) => {
        const text = `${machine ?? bridge}: ${reason}. ${sentence(mend)}`;
        return { bridge, machine, tap: undefined, text };
      }),
      ...refused.map(({ operation, reason }) => ({
        ...subjectOf(operation, wanted),
        machine: undefined,
        text: `${describeOperation(operation)}: ${reason}`,
      })),
    ];
  }

  /** Where machines may have cards of which nobody knows: with them a bridge stays. */
  #bridgesWithUnknown({ links }: ObservedNetwork): ReadonlySet<string> {
    const bridges = links.flatMap(({ alias }) => {
      const ownership = readOwnership(alias);
      const isOurs = ownership?.owner === this.#owner && ownership.kind === "card";
      return isOurs && this.#leftAlone.has(ownership.machine ?? "") ? [ownership.bridge] : [];
    });
    return new Set(bridges);
  }

  #desiredOf({ configuration }: Place, kept: ReadonlySet<string>): DesiredNetwork[] {
    const { specification } = configuration;
    const served = this.#servedOf(configuration);
    if (served.length === 0 && !kept.has(specification.bridge)) return [];
    const cards = served.map((one): NetworkCard => {
      const { machine, card } = one;
      return {
        ...{ machine, tap: card.tap, macAddress: card.mac, address: card.address },
        ipv6Address: undefined,
        ownerUser: this.#records.get(machine)?.allocation.user ?? 0,
        vlan: specification.vlan,
        pin: true,
        allowList: allowListOf(one),
      };
    });
    const portForwards = served.flatMap(({ machine, card: { address }, isFirst }): PortForward[] =>
      isFirst
        ? forwardsOf(this.#records.get(machine)?.spec ?? {}).map((one) => ({ ...one, address }))
        : [],
    );
    return [{ specification: { ...specification, portForwards }, cards }];
  }

  /** Cards of this network that are to be there. */
  #servedOf({ name, allowedDomains }: NetworkConfiguration): ServedCard[] {
    return [...this.#records.values()].flatMap(({ spec, allocation: { cards } }) => {
      const domains = spec.networkAllowedDomains ?? allowedDomains;
      return cards.flatMap((card, index) =>
        card.network === name ? [{ machine: spec.name, card, isFirst: index === 0, domains }] : [],
      );
    });
  }

  /**
   * Of the machines that are in a network with this one, by the address in the first such network.
   * Machines that are kept from each other do not hear of each other either.
   */
  #namesFor({ machine }: ServedCard): ReadonlyMap<string, string> {
    const names = new Map<string, string>();
    const own = this.#records.get(machine)?.allocation.cards ?? [];
    for (const { network } of own) {
      const configuration = this.#places.get(network)?.configuration;
      if (configuration === undefined) continue;
      const { isolation } = configuration.specification;
      for (const { machine: other, card } of this.#servedOf(configuration)) {
        const isHidden = isolation && other !== machine;
        if (!isHidden && !names.has(other)) names.set(other, card.address);
      }
    }
    return names;
  }

  #serve(): Problem[] {
    return [...this.#places.values()].flatMap(({ configuration, services }): Problem[] => {
      if (this.#isDisposed || this.#servedOf(configuration).length === 0) return [];
      try {
        services.serve();
        return [];
      } catch (error) {
        const { bridge } = configuration.specification;
        const text = `DHCP and names on ${bridge}: ${messageOf(error)}`;
        return [{ bridge, machine: undefined, tap: undefined, text }];
      }
    });
  }

  /** Links and rules stay: the machines need them. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#watch?.[Symbol.dispose]();
    this.#look?.[Symbol.dispose]();
    for (const { services } of this.#places.values()) services[Symbol.dispose]();
  }
}

function claimOf(spec: VmSpec, cards: readonly Card[]): Claim {
  return { cards, hostPorts: forwardsOf(spec).map(hostPortOf) };
}

/** A program of the host would not hear from others any more. */
function refuseHeard(spec: VmSpec): string | undefined {
  for (const forward of forwardsOf(spec)) {
    const listener = listenerAt(forward);
    if (listener === undefined) continue;
    return (
      `${spec.name}: ${hostPortOf(forward)} is that of a program of this host (${listener}), ` +
      "which would not hear from others any more. Take another one, or end that program."
    );
  }
  return undefined;
}

function isAbout(
  { bridge, machine, tap }: Problem,
  name: string,
  { taps, bridges }: Subjects,
): boolean {
  if (tap !== undefined) return taps.has(tap);
  if (machine !== undefined) return machine === name;
  return bridge === undefined || bridges.has(bridge);
}

/** What is about this machine is its own failure. @throws Error */
function throwOwn(problems: readonly Problem[], name: string, subjects: Subjects): void {
  const own = problems.find((problem) => isAbout(problem, name, subjects));
  if (own !== undefined) throw new Error(own.text);
}

/** @param bridges all that are wanted: another link is a card */
function subjectOf(
  operation: NetworkOperation,
  bridges: ReadonlySet<string>,
): Pick<Problem, "bridge" | "tap"> {
  if ("tap" in operation) return { bridge: undefined, tap: operation.tap };
  if ("name" in operation) {
    const isBridge = bridges.has(operation.name);
    return isBridge
      ? { bridge: operation.name, tap: undefined }
      : { bridge: undefined, tap: operation.name };
  }
  return { bridge: "bridge" in operation ? operation.bridge : undefined, tap: undefined };
}

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
