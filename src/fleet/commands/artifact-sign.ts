import { ArtifactRefused } from "../../artifact/artifact-refused.ts";
import { readUnverified, type SignedKind } from "../../artifact/lifecycle-verify.ts";
import { artifactLimits, type Envelope } from "../../artifact/protocol.ts";
import { addSignature, readSigningKey, writeEnvelope } from "../../artifact/signing-key.ts";
import { printJson, printText, tellText } from "../../command-line/output.ts";
import { writeDurably } from "../../journal/append-journal.ts";
import { withFile } from "../../journal/file-refused.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { readNamed } from "./artifact-words.ts";
import { doubtAbout } from "./signing-doubts.ts";

interface SignFlags {
  readonly file: string;
  /** "root": a root set or metadata, whichever it is. */
  readonly of: "manifest" | "root";
  readonly key: readonly string[];
  readonly json: boolean;
}

/** Signs a file in its place, and shows what was signed: a key is not used on what nobody saw. */
export async function runSign({ file, of, key: paths, json }: SignFlags): Promise<number> {
  const text = readNamed(file, "sign", artifactLimits.metadataBytes);
  const kinds: readonly SignedKind[] = of === "manifest" ? ["manifest"] : ["root", "metadata"];
  const { kind, envelope, value } = readOne(file, text, kinds);
  const keys = paths.map((path) => ({ path, key: readSigningKey(path) }));
  const doubts = keys
    .map(({ path, key }) => doubtAbout({ file, kind, value, path, key: key.publicKey }))
    .filter((doubt) => doubt !== undefined);
  const signed = keys.reduce<Envelope>(
    (before, { key }) => addSignature(kind, before, key),
    envelope,
  );
  if (signed.signatures.length > artifactLimits.signatures) {
    throw new ArtifactRefused(`sign ${file}`, {
      refusal: `${kind}-malformed`,
      expected: `at most ${artifactLimits.signatures} signatures`,
      received: `${signed.signatures.length}`,
      mend: "Make the file anew, and sign it with fewer keys",
    });
  }
  withFile({ what: "write", path: file, otherwise: "copy it to another folder" }, () =>
    writeDurably(file, writeEnvelope(signed), 0o644),
  );
  const signatures = signed.signatures.map((one) => one.key);
  if (json) await printJson({ file, kind, ...value, signatures });
  else {
    const says = JSON.stringify(value, null, 2);
    await printText(`${says}\n${file}: signed by ${signatures.join(", ")}\n`);
  }
  for (const doubt of doubts) tellText(`hostler: ${doubt}\n`);
  return ExitCode.done;
}

function readOne(file: string, text: string, kinds: readonly SignedKind[]) {
  let refusal: ArtifactRefused | undefined;
  for (const kind of kinds) {
    const read = readUnverified(kind, text);
    if (read.kind === "ok") return { kind, ...read.value };
    refusal ??= new ArtifactRefused(`sign ${file}`, read);
  }
  throw refusal ?? new Error("Bug: nothing to read it as");
}
