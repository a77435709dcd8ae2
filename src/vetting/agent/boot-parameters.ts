import * as v from "valibot";
import { macSchema } from "../../hardware/inventory.ts";
import { wantedBy } from "../../units/wanted-by.ts";
import { bootParameters } from "../protocol.ts";

/** What an agent is told by whoever booted it: the kernel's command line, or flags in its place. */
export interface BootParameters {
  readonly orchestrator: string;
  readonly run: number;
  /** null: a session that an earlier process left has to do. */
  readonly token: string | null;
  readonly mac: string | null;
  readonly pins: readonly string[];
}

export type GivenParameters = Partial<Readonly<Record<keyof typeof bootParameters, string>>>;

const url = v.pipe(
  v.string(),
  v.maxLength(512),
  v.regex(/^https:\/\/[^\s/?#@]+\/?$/, "https://HOST:PORT"),
);
const run = v.pipe(
  v.string(),
  v.regex(/^[1-9]\d{0,14}$/, "the number of a run"),
  v.transform(Number),
);
const token = v.pipe(v.string(), v.regex(/^[A-Za-z0-9._~+/=-]{16,256}$/, "the token of a run"));
const pins = v.pipe(
  v.string(),
  v.regex(
    /^[0-9A-Fa-f:]{64,95}(,[0-9A-Fa-f:]{64,95}){0,7}$/,
    "SHA-256 of a certificate in hexadecimal, several with commas",
  ),
);
const schemas = { orchestrator: url, run, token, mac: macSchema, pin: pins } as const;

/**
 * @param commandLine of the kernel: proc_cmdline(5)
 * @returns every value that is missing or wrong: what was expected, received, and where it stands
 */
export function readBootParameters(
  commandLine: string,
  flags: GivenParameters,
): BootParameters | { readonly refusals: readonly string[] } {
  const given = { ...fromCommandLine(commandLine), ...flags };
  const refusals: string[] = [];
  const read = <Schema extends v.GenericSchema>(
    name: keyof typeof schemas,
    schema: Schema,
    isNeeded: boolean,
  ): v.InferOutput<Schema> | null => {
    const value = given[name];
    const place = `${bootParameters[name]}= on the kernel's command line, or ${flagOf[name]}`;
    if (value === undefined) {
      if (isNeeded) refusals.push(`Expected ${place}, received none`);
      return null;
    }
    const checked = v.safeParse(schema, value);
    if (checked.success) return checked.output;
    const shown = name === "token" ? `${value.length} other characters` : JSON.stringify(value);
    refusals.push(
      `Expected ${wantedBy(checked.issues[0])} for ${name}, received ${shown.slice(0, 200)}. ` +
        `It is given by ${place}`,
    );
    return null;
  };
  const found = {
    orchestrator: read("orchestrator", schemas.orchestrator, true) ?? "",
    run: read("run", schemas.run, true) ?? 0,
    token: read("token", schemas.token, false),
    mac: read("mac", schemas.mac, false),
    pins: (read("pin", schemas.pin, true) ?? "").split(","),
  };
  return refusals.length === 0 ? found : { refusals };
}

const flagOf: Readonly<Record<keyof typeof bootParameters, string>> = {
  orchestrator: "--orchestrator",
  run: "--run",
  token: "--token-file",
  mac: "--mac",
  pin: "--pin",
};

/** The last of several counts, as it does for the kernel; a value with spaces is in quotes. */
function fromCommandLine(text: string): GivenParameters {
  const given: Record<string, string> = {};
  for (const [, name = "", quoted, plain] of text.matchAll(/(\S+?)=(?:"([^"]*)"|(\S*))/g)) {
    given[name] = quoted ?? plain ?? "";
  }
  const found = Object.entries(bootParameters).flatMap(([key, name]) => {
    const value = given[name];
    return value === undefined || value === "" ? [] : [[key, value] as const];
  });
  return Object.fromEntries(found);
}
