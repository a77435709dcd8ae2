import {
  checkNatsPairs,
  makeShared,
  readNatsOwner,
  type SharedStoreConfiguration,
} from "../../store/nats/configuration.ts";
import {
  type Refused,
  readConfigurationText,
  validateText,
} from "../../toml/configuration-file.ts";
import { table } from "../../toml/configuration-reader.ts";

/** What `hostler fleet operator --config FILE` says. */
export interface OperatorConfiguration {
  /** undefined: the fleet is in this authority's own store, and this operator is alone. */
  readonly shared: SharedStoreConfiguration | undefined;
}

/** Bytes of the file; over it, it is refused. */
export const longestOperatorFile = 64 * 1024;

export const operatorDefaults: OperatorConfiguration = { shared: undefined };

const readOperator = table({ store: readNatsOwner }, { expected: "[store]" });

export type OperatorOutcome =
  | { readonly kind: "ok"; readonly configuration: OperatorConfiguration }
  | Refused;

/** Reads and validates a file. What keeps it from being read is an error of the file as well. */
export function readOperatorConfiguration(file: string): OperatorOutcome {
  const read = readConfigurationText(file, longestOperatorFile);
  return read.kind === "text" ? parseOperatorConfiguration(file, read.text) : read;
}

/** Validates a whole text; all its mistakes are reported at once. Pure. */
export function parseOperatorConfiguration(file: string, text: string): OperatorOutcome {
  const outcome = validateText(file, text, {
    limit: longestOperatorFile,
    reader: readOperator,
    relations: (root, { store }, report) => checkNatsPairs(root, store, report),
  });
  if (outcome.kind === "refused") return outcome;
  const { store } = outcome.read;
  return { kind: "ok", configuration: { shared: store && makeShared(store) } };
}
