import { ArtifactRefused } from "../../artifact/artifact-refused.ts";
import { headOf } from "../../artifact/installed.ts";
import type { DeviceFacts } from "../../artifact/lifecycle-verify.ts";
import { artifactLimits } from "../../artifact/protocol.ts";
import { lookAtExecutable } from "../../artifact/protocol-executable.ts";
import { readWhole, type Source } from "../../artifact/source.ts";
import type { Published, PublishedTexts } from "../../artifact/trust-folder.ts";

/** The small files of several sources: the first that has one gives it. */
export function publishedTexts(sources: readonly Source[], signal: AbortSignal): PublishedTexts {
  return {
    read: async (name, most): Promise<Published> => {
      let failed: Published | undefined;
      for (const source of sources) {
        const read = await readWhole(source, name, { most, signal });
        if (read.kind === "bytes") {
          return { kind: "text", text: new TextDecoder().decode(read.bytes) };
        }
        if (read.kind === "absent") continue;
        failed ??= {
          kind: "failed",
          why: "why" in read ? read.why : `${source.address}: it asks for patience`,
        };
      }
      return failed ?? { kind: "absent" };
    },
  };
}

/** @throws ArtifactRefused where no source has it */
export async function readManifestText(texts: PublishedTexts, name: string): Promise<string> {
  const read = await texts.read(name, artifactLimits.manifestBytes);
  if (read.kind === "text") return read.text;
  throw new ArtifactRefused(`read ${name}`, {
    refusal: "unreachable",
    expected: "it in one of the sources",
    received: read.kind === "failed" ? read.why : "nothing of that name",
    mend: "Look at the version and at the addresses",
  });
}

/** What this program was built for, and no floor: this is no device. */
export function ownFacts(): DeviceFacts {
  const found = lookAtExecutable(headOf("/proc/self/exe"));
  if (found.kind !== "executable") throw new Error(`Bug: this program is ${found.received}`);
  const { architecture, libc } = found;
  return { architecture, libc, floor: null, channels: null };
}
