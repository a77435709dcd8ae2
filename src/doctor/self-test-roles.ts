/**
 * Every role that this file may be started as, by what it loads when it is. Loading runs nothing:
 * the modules of this house have no side effects.
 */
export const roles: Readonly<Record<string, () => Promise<unknown>>> = {
  "process orchestrator": () => import("../process/orchestrator.ts"),
  "process agent": () => import("../process/agent.ts"),
  launcher: () => import("../process/launcher.ts"),
  holder: () => import("../holding/holder.ts"),
  luod: () => import("../live-update/daemon.ts"),
  "live-update run": () => import("../live-update/run/run.ts"),
  "live-update hold": () => import("../live-update/hold/hold.ts"),
  authority: () => import("../authority/daemon.ts"),
  "vm worker": () => import("../vm/worker.ts"),
  "vm master": () => import("../vm/master/daemon.ts"),
  "vm master over NATS": () => import("../vm/master/shared-master.ts"),
  "vm guest agent": () => import("../vm/guest-agent/agent.ts"),
  confiner: () => import("../vm/confiner.ts"),
  "fleet operator": () => import("../fleet/operator/daemon.ts"),
  "fleet operator over NATS": () => import("../fleet/operator/shared-operator.ts"),
  "fleet agent": () => import("../fleet/agent.ts"),
  "fleet supervisor": () => import("../fleet/supervise.ts"),
  "fleet executors": () => import("../fleet/perform/choose-executor.ts"),
  "vetting orchestrator": () => import("../vetting/orchestrator/daemon.ts"),
  install: () => import("../install/install.ts"),
};
