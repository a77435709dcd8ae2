/** What on a host stands in the way of its machines' network. */
import { describe, expect, test } from "bun:test";
import { type JudgedNetwork, judgeNetwork } from "../../src/network/judge.ts";
import type { ChainSummary } from "../../src/network/nftables.ts";
import type { ObservedNetwork } from "../../src/network/observation.ts";
import { planNetwork } from "../../src/network/plan.ts";
import { parseSubnet } from "../../src/network/subnet.ts";
import { defaultSpecification, desiredOf, linkOf, NetworkWorld } from "../support/network-world.ts";

type Changes = Partial<Omit<ObservedNetwork, "settings">> & {
  readonly settings?: Partial<ObservedNetwork["settings"]>;
};

function judge(changes: Changes = {}, specification: Partial<JudgedNetwork> = {}) {
  const usual = new NetworkWorld().observe();
  const settings = { ...usual.settings, ...changes.settings };
  const observed = { ...usual, ...changes, settings };
  return judgeNetwork(observed, [{ ...defaultSpecification, ...specification }]);
}

const names = (findings: readonly { readonly name: string }[]) => findings.map(({ name }) => name);

function forwardChain(changes: Partial<ChainSummary> & { policy: "accept" | "drop" }) {
  const { policy, ...rest } = changes;
  const base = { type: "filter", hook: "forward", priority: 0, policy, devices: [] } as const;
  return { family: "ip", table: "filter", name: "FORWARD", base, ...rest } as const;
}

function routeTo(text: string, index: number) {
  const destination = parseSubnet(text);
  if (destination === undefined) throw new Error(text);
  return { destination, index, gateway: undefined, table: 254 };
}

describe("what a network needs", () => {
  test("a host that has all of it: nothing", () => expect(judge()).toEqual([]));

  test("our own network on it: nothing", () => {
    const world = new NetworkWorld();
    world.apply(planNetwork(desiredOf([]), world.observe()).operations);
    const bridge = world.links.find(({ name }) => name === "br-procurator")?.index ?? 0;
    const routes = [routeTo("10.100.0.0/16", bridge)];
    expect(judgeNetwork({ ...world.observe(), routes }, [defaultSpecification])).toEqual([]);
  });

  test.each<[string, Changes, Partial<JudgedNetwork>]>([
    ["no-tun", { settings: { hasTunDevice: false } }, {}],
    ["no-forwarding", { settings: { forwarding: false } }, {}],
    ["no-ipv6-forwarding", {}, { ipv6: "route" }],
    ["forward-drop", { chains: [forwardChain({ policy: "drop" })] }, {}],
    ["firewalld", { chains: [forwardChain({ table: "firewalld", policy: "accept" })] }, {}],
    ["legacy-iptables", { settings: { hasLegacyFilter: true } }, {}],
    ["bridge-taken", { links: [linkOf({ name: "br-procurator", index: 9 })] }, {}],
    ["bridge-taken", {}, { otherUser: "/var/lib/procurator/other" }],
    ["subnet-overlap", { routes: [routeTo("10.100.7.0/24", 1)] }, {}],
    ["subnet-overlap", { routes: [routeTo("10.0.0.0/8", 1)] }, {}],
  ])("%s", (name, changes, specification) => {
    const findings = judge(changes, specification);
    expect(names(findings)).toEqual([name as (typeof findings)[number]["name"]]);
    expect(findings[0]?.found).not.toBe("");
    expect(findings[0]?.mend).not.toBe("");
  });

  test("Docker's chain is named, and mended in its own", () => {
    const user = { family: "ip", table: "filter", name: "DOCKER-USER", base: undefined };
    const [finding] = judge({ chains: [forwardChain({ policy: "drop" }), user] });
    expect(finding?.found).toContain("Docker's chain ip filter FORWARD");
    expect(finding?.mend).toContain("iptables -I DOCKER-USER -i br-procurator -j ACCEPT");
  });

  test("bridge-nf-call-iptables matters where something drops, and not alone", () => {
    const settings = { bridgeCallsRules: true };
    expect(judge({ settings })).toEqual([]);
    const chains = [forwardChain({ policy: "drop" })];
    expect(names(judge({ settings, chains }))).toEqual(["forward-drop", "bridge-calls-rules"]);
  });

  test("a default route, and one beside the subnet, are in nobody's way", () => {
    const routes = [routeTo("0.0.0.0/0", 1), routeTo("10.101.0.0/16", 1)];
    expect(judge({ routes })).toEqual([]);
  });

  test("a chain of ingress has no forward of its own", () => {
    const chain = forwardChain({ family: "netdev", policy: "drop" });
    expect(judge({ chains: [chain] })).toEqual([]);
  });
});
