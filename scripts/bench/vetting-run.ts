/** One healthy host in QEMU that boots the live image, from its switch to the end of its run. */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { Prover } from "../../src/vetting/prove/prover.ts";
import { type LiveImage, makeLiveImage } from "../live-image.ts";
import { cacheFolder, repositoryRoot } from "../setup.ts";
import { ScriptError } from "../terminal.ts";

/** An emulated processor, beside whatever else the machine has to do. */
const PATIENCE = 15 * 60_000;

/** Seconds from the moment at which the host's token was minted, just before it was switched on. */
export interface HealthyRun {
  readonly claimed: number;
  readonly ended: number;
}

export interface ImageSizes {
  readonly packing: "small" | "fast";
  readonly release: string;
  /** Bytes. */
  readonly kernel: number;
  readonly initramfs: number;
  readonly unpacked: number;
}

/** Not packed: an emulated processor takes longer to unpack it than it takes to be read. */
export async function measureHealthyRun(hostler: string, qemu: string): Promise<HealthyRun> {
  const image = await makeLiveImage({
    folder: cacheFolder("vetting-laboratory"),
    program: hostler,
    packing: "none",
  });
  const folder = mkdtempSync(join(tmpdir(), "hostler-bench-"));
  try {
    using loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
    await using prover = await Prover.start(loop, {
      ...{ folder: join(folder, "prove"), image, qemu, program: hostler },
      ...{ memoryMebibytes: 1_536, patience: PATIENCE },
      signal: new AbortController().signal,
      onProgress: () => {},
    });
    const { proof, dossier } = await prover.proveHealthy();
    if (proof.kind !== "proven" || dossier === undefined) {
      throw new ScriptError(`The healthy host is ${JSON.stringify(proof)}`, { exitCode: 1 });
    }
    return timesOf(dossier);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @throws ScriptError for a run that did not come to its end */
export function timesOf(dossier: {
  readonly events: readonly { readonly what: string; readonly at: string }[];
  readonly view: { readonly ended: string | null };
}): HealthyRun {
  const moment = (what: string) => dossier.events.find((event) => event.what === what)?.at;
  const [booted, claimed] = [moment("booted"), moment("claimed")];
  const { ended } = dossier.view;
  if (booted === undefined || claimed === undefined || ended === null) {
    throw new ScriptError("Expected a run that was booted, claimed and ended", { exitCode: 1 });
  }
  const since = (at: string) => (Date.parse(at) - Date.parse(booted)) / 1_000;
  return { claimed: since(claimed), ended: since(ended) };
}

/** @param packing "small" is what is handed out, and takes minutes */
export async function measureImage(
  hostler: string,
  packing: ImageSizes["packing"],
): Promise<ImageSizes> {
  const image: LiveImage = await makeLiveImage({
    ...{ folder: cacheFolder(`vetting-bench-${packing}`), program: hostler, packing },
  });
  const { release, unpacked } = image;
  const size = (path: string) => statSync(path).size;
  const sizes = { kernel: size(image.kernel), initramfs: size(image.initramfs) };
  return { packing, release, ...sizes, unpacked };
}
