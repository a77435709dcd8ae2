import authorityService from "../../images/systemd/hostler-authority.service" with { type: "text" };
import fleetOperatorService from "../../images/systemd/hostler-fleet-operator.service" with {
  type: "text",
};
import agentService from "../../images/systemd/hostler-process-agent.service" with { type: "text" };
import agentSocket from "../../images/systemd/hostler-process-agent.socket" with { type: "text" };
import orchestratorService from "../../images/systemd/hostler-process-orchestrator.service" with {
  type: "text",
};
import vettingService from "../../images/systemd/hostler-vetting-orchestrator.service" with {
  type: "text",
};
import vmMasterService from "../../images/systemd/hostler-vm-master.service" with { type: "text" };
import vmWorkerService from "../../images/systemd/hostler-vm-worker.service" with { type: "text" };
import luodService from "../../images/systemd/luod.service" with { type: "text" };

/** Where in the prefix a name of the program lies. */
interface LinkPlace {
  readonly folder: "bin" | "sbin";
  readonly name: string;
}

interface Role {
  readonly links: readonly LinkPlace[];
  readonly units: readonly string[];
}

/** The texts of images/systemd, by their names. */
export const unitTexts: Readonly<Record<string, string>> = {
  "hostler-authority.service": authorityService,
  "hostler-fleet-operator.service": fleetOperatorService,
  "hostler-process-agent.service": agentService,
  "hostler-process-agent.socket": agentSocket,
  "hostler-process-orchestrator.service": orchestratorService,
  "hostler-vetting-orchestrator.service": vettingService,
  "hostler-vm-master.service": vmMasterService,
  "hostler-vm-worker.service": vmWorkerService,
  "luod.service": luodService,
};

const luoctl: LinkPlace = { folder: "bin", name: "luoctl" };
const agentUnits = ["hostler-process-agent.socket", "hostler-process-agent.service"];
const orchestratorUnits = ["hostler-process-orchestrator.service"];

const roles = {
  luod: { links: [{ folder: "sbin", name: "luod" }, luoctl], units: ["luod.service"] },
  luoctl: { links: [luoctl], units: [] },
  authority: { links: [], units: ["hostler-authority.service"] },
  process: { links: [], units: [...orchestratorUnits, ...agentUnits] },
  "process-orchestrator": { links: [], units: orchestratorUnits },
  "process-agent": { links: [], units: agentUnits },
  "fleet-operator": { links: [], units: ["hostler-fleet-operator.service"] },
  "vetting-orchestrator": { links: [], units: ["hostler-vetting-orchestrator.service"] },
  "vm-master": { links: [], units: ["hostler-vm-master.service"] },
  "vm-worker": { links: [], units: ["hostler-vm-worker.service"] },
  "holden-agent": { links: [{ folder: "bin", name: "holden-agent" }], units: [] },
  "holden-orchestrator": { links: [{ folder: "bin", name: "holden-orchestrator" }], units: [] },
} as const satisfies Readonly<Record<string, Role>>;

/** What may stand after --role. */
export const roleNames = ["all", ...Object.keys(roles)] as const;

/** What several roles need together, each part once. */
export function partsOf(names: readonly string[]): Role {
  const every: Readonly<Record<string, Role>> = roles;
  const asked = Object.entries(every)
    .filter(([name]) => names.includes("all") || names.includes(name))
    .map(([, role]) => role);
  return {
    links: [...new Set(asked.flatMap(({ links }) => links))],
    units: [...new Set(asked.flatMap(({ units }) => units))],
  };
}
