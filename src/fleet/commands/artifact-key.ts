import { makeSigningKey } from "../../artifact/signing-key.ts";
import { printJson, printText } from "../../command-line/output.ts";
import { ExitCode } from "../../units/exit-code.ts";

/** Makes a pair of keys: the secret one in a new file, 0600, and the public one beside it. */
export async function runKeyGenerate(options: {
  readonly file: string;
  readonly json: boolean;
}): Promise<number> {
  const { file, json } = options;
  const { publicFile, key } = makeSigningKey(file);
  if (json) await printJson({ secret: file, public: publicFile, public_key: key });
  else await printText(`${file}: the secret key\n${publicFile}: the public key, ${key}\n`);
  return ExitCode.done;
}
