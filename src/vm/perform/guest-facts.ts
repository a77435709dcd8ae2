import { readFileSync } from "node:fs";
import { hostname, release } from "node:os";
import { hostlerVersion } from "../../units/version.ts";
import type { GuestInformation, GuestMemory } from "../guest-agent/protocol.ts";

/** Names of proc_meminfo(5). */
const memoryNames: Readonly<Record<keyof GuestMemory, string>> = {
  total: "MemTotal",
  free: "MemFree",
  available: "MemAvailable",
  buffers: "Buffers",
  cached: "Cached",
  swap_total: "SwapTotal",
  swap_free: "SwapFree",
};

/** What /proc/meminfo says, in bytes; what it does not say is 0. */
export function parseMemory(text: string): GuestMemory {
  const KIBIBYTE = 1024;
  const bytesOf = (name: string) => {
    const [, kibibytes = "0"] = new RegExp(`^${name}:\\s*(\\d+) kB$`, "m").exec(text) ?? [];
    return Number(kibibytes) * KIBIBYTE;
  };
  const entries = Object.entries(memoryNames).map(([key, name]) => [key, bytesOf(name)]);
  return Object.fromEntries(entries) as GuestMemory;
}

/** What a guest is asked about itself. */
export interface GuestFacts {
  memory(): GuestMemory;
  information(): GuestInformation;
}

/** This machine's. */
export const machineFacts: GuestFacts = {
  memory: () => parseMemory(readFileSync("/proc/meminfo", "utf8")),
  information: () => ({
    kernel: release(),
    boot_id: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    agent: hostlerVersion,
    host_name: hostname(),
    architecture: process.arch,
  }),
};
