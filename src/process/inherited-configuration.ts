import { type ConfigurationOutcome, parseConfiguration } from "./configuration.ts";
import { type OrchestratorState, refuseState, type StateRefusal } from "./protocol-state.ts";

/** The configuration that the program before this one ran by; undefined: the command line's. */
export function inheritedConfiguration(state: OrchestratorState): ConfigurationOutcome | undefined {
  const { configuration } = state;
  if (configuration === undefined) return undefined;
  return parseConfiguration(configuration.file, configuration.text);
}

/** Why this program cannot go on with a state, by the configuration that stands in it. */
export function refuseConfiguredState(state: OrchestratorState): StateRefusal | undefined {
  const outcome = inheritedConfiguration(state);
  if (outcome?.kind === "refused") {
    const [first] = outcome.errors;
    const received = first?.received ?? "another one";
    const where = `${first?.file ?? "the configuration"}, line ${first?.line ?? 1}`;
    return {
      expected: `${first?.expected ?? "a configuration that it takes"} in ${where}`,
      received,
    };
  }
  const nameOf = ({ name }: { readonly name: string }) => name;
  const processes = outcome?.configuration.processes ?? state.processes;
  const partitions = outcome?.configuration.partitions ?? [...state.partitions, ...state.holden];
  return refuseState(state, {
    processes: processes.map(nameOf),
    partitions: partitions.map(nameOf),
  });
}
