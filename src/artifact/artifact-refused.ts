import { ExitCode } from "../units/exit-code.ts";
import type { NotBelieved, VerifyRefusal } from "./lifecycle-verify.ts";

/** Why a release could not be made, fetched or kept, beside what verification refuses. */
export type ArtifactRefusal =
  | VerifyRefusal
  | "bad-source"
  | "unreachable"
  | "too-large"
  | "wrong-bytes"
  | "map-malformed"
  | "disk-full"
  | "digest-after-write"
  | "not-executable"
  | "not-installed"
  | "not-verified"
  | "already-published"
  | "push-refused";

/** A release that is not believed, or cannot be had: what was expected, what received, the mend. */
export class ArtifactRefused extends Error {
  override readonly name = "ArtifactRefused";
  readonly exitCode: ExitCode = ExitCode.refused;
  readonly refusal: ArtifactRefusal;

  /** @param what such as "use the manifest hostler-1.5.0.manifest.json" */
  constructor(
    what: string,
    why: {
      readonly refusal: ArtifactRefusal;
      readonly expected: string;
      readonly received: string;
      readonly mend: string;
    },
  ) {
    const { expected, received, mend } = why;
    super(`Cannot ${what}: expected ${expected}, received ${received}. ${mend}.`);
    this.refusal = why.refusal;
  }
}

/** What is believed, or the refusal as an error. @throws ArtifactRefused */
export function believed<T>(
  what: string,
  outcome: { readonly kind: "ok"; readonly value: T } | NotBelieved,
): T {
  if (outcome.kind === "ok") return outcome.value;
  throw new ArtifactRefused(what, outcome);
}
