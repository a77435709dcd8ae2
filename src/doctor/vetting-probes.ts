/** Looks at this host as one that vets others, or is vetted. Nothing is changed. */
import { constants, existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { codeOf, probeOwnStatus, readText } from "./probes.ts";
import type { LiveImageFindings, OrchestratorFindings, VettingPlace } from "./vetting-findings.ts";
import { probeFolder, tryOpening } from "./vm-probes.ts";

/** What is absent, or not ours to use, is a finding and no error. */
export async function probeOrchestrator(place: VettingPlace): Promise<OrchestratorFindings> {
  const { bootInterface, bootDirectory } = place;
  return {
    ...{ place, ownStatus: probeOwnStatus(), clock: Date.now() },
    state: probeFolder(place.stateDirectory),
    listenRefusal: await tryListening(place.listen),
    boot:
      bootInterface === undefined
        ? undefined
        : {
            addresses: networkInterfaces()
              [bootInterface]?.filter(({ family }) => family === "IPv4")
              .map(({ address }) => address),
            files: ["vmlinuz", "initramfs"].map((name) => fileAt(join(bootDirectory, name))),
          },
  };
}

function fileAt(path: string) {
  try {
    const { size } = statSync(path);
    const opening = tryOpening(path, constants.O_RDONLY);
    return { path, size: opening.outcome === "opened" ? size : opening.code };
  } catch (error) {
    return { path, size: codeOf(error) };
  }
}

/** A socket listens for a moment, and nobody is answered. */
async function tryListening(place: string): Promise<string | undefined> {
  const at = place.lastIndexOf(":");
  const host = place.slice(0, at).replace(/^\[|\]$/g, "");
  const port = Number(place.slice(at + 1));
  const found = Promise.withResolvers<string | undefined>();
  const server = createServer();
  server.once("error", (error) => found.resolve(codeOf(error)));
  server.listen({ host, port, exclusive: true }, () =>
    server.close(() => found.resolve(undefined)),
  );
  return await found.promise;
}

export function probeLiveImage(): LiveImageFindings {
  return {
    ...{ ownStatus: probeOwnStatus(), clock: Date.now() },
    kernelLog: tryOpening("/dev/kmsg", constants.O_RDONLY),
    serviceProcessor: tryOpening("/dev/ipmi0", constants.O_RDWR),
    disks: physicalDisks().map((name) => ({
      name,
      opening: tryOpening(`/dev/${name}`, constants.O_RDONLY),
    })),
    memoryControllers: namesIn("/sys/devices/system/edac/mc").filter((name) =>
      /^mc\d+$/.test(name),
    ),
    hasMachineChecks: existsSync("/sys/devices/system/machinecheck"),
    mounts: readMounts(readText("/proc/self/mountinfo") ?? ""),
  };
}

function physicalDisks(): string[] {
  return namesIn("/sys/block").filter((name) => {
    try {
      return !realpathSync(`/sys/block/${name}`).includes("/devices/virtual/");
    } catch {
      return false;
    }
  });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

/** @param text of /proc/self/mountinfo: proc_pid_mountinfo(5) */
export function readMounts(text: string): LiveImageFindings["mounts"] {
  const kinds = new Map<string, string>();
  for (const line of text.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const place = before.split(" ")[4];
    const kind = after.split(" ")[0];
    if (place !== undefined && kind !== undefined && kind !== "") kinds.set(place, kind);
  }
  return { run: kinds.get("/run") ?? kinds.get("/"), pstore: kinds.get("/sys/fs/pstore") };
}
