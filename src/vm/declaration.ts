import * as v from "valibot";
import { type Refused, refuse } from "../toml/configuration-file.ts";
import type { ConfigurationError, Mistake } from "../toml/configuration-reader.ts";
import { doubledKeys } from "../toml/json-keys.ts";
import { keysAt, type Shape } from "../toml/schema-keys.ts";
import type { TextPosition } from "../toml/toml-tree.ts";
import { parseTomlValues } from "../toml/toml-values.ts";
import { nearest } from "../units/nearest.ts";
import { receivedBy, wantedBy } from "../units/wanted-by.ts";
import type { Given } from "./machine-record.ts";
import { type DesiredRequest, desiredSchema, limits } from "./protocol.ts";
import { type ClusterRequest, clusterSchema } from "./protocol-master.ts";
import { findShared } from "./protocol-network.ts";
import type { Desired } from "./reconcile.ts";

/**
 * The file that declares machines, as TOML or JSON: an optional generation, and machines with the
 * names of VmSpec and the power state that they are to be in. Pure.
 */

/** Letters of what is told of a value. */
const LONGEST_RECEIVED = 200;
/** Bytes of the file. */
export const declarationBytes = 4 * 1024 * 1024;

type Outcome<Declared> =
  | { readonly kind: "ok"; readonly desired: Declared }
  | { readonly kind: "refused"; readonly errors: readonly ConfigurationError[] };
export type DeclarationOutcome = Outcome<DesiredRequest>;
export type ClusterDeclarationOutcome = Outcome<ClusterRequest>;

type Schema<Declared> = v.GenericSchema<unknown, Declared>;
/** Whether all machines of a text are to be on one host. */
interface Scope {
  readonly isForOneHost: boolean;
}
type WithNames = { readonly machine: readonly { readonly name: string }[] };

/**
 * Validates a whole text, as it is applied to a worker; all its mistakes are reported at once, each
 * in its place.
 */
export function parseDeclaration(file: string, text: string): DeclarationOutcome {
  return parse(file, text, desiredSchema, { isForOneHost: true });
}

/**
 * The same of a text that is applied to a master: it gives machines that want one port of the host,
 * or one address, to different workers.
 */
export function parseClusterDeclaration(file: string, text: string): ClusterDeclarationOutcome {
  return parse(file, text, clusterSchema, { isForOneHost: false });
}

function parse<Declared extends WithNames>(
  file: string,
  text: string,
  schema: Schema<Declared>,
  scope: Scope,
): Outcome<Declared> {
  const begin = text.trimStart()[0];
  return begin === "{"
    ? parseJson(file, text, schema, scope)
    : parseTomlText(file, text, schema, scope);
}

const nowhere: TextPosition = { line: 0, column: 0 };

function parseJson<Declared extends WithNames>(
  file: string,
  text: string,
  schema: Schema<Declared>,
  scope: Scope,
): Outcome<Declared> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    const received = error instanceof Error ? error.message : String(error);
    return refuse(file, [{ at: nowhere, path: [], expected: "JSON", received }]);
  }
  const doubled = doubledKeys(text);
  if (doubled.length > 0) return refuse(file, doubled);
  return validate(file, { input: json, schema, scope, place: () => nowhere });
}

function parseTomlText<Declared extends WithNames>(
  file: string,
  text: string,
  schema: Schema<Declared>,
  scope: Scope,
): Outcome<Declared> {
  const { value, refusals, placeOf } = parseTomlValues(text);
  if (refusals.length > 0) {
    return refuse(
      file,
      refusals.map((refusal) => ({ ...refusal, path: [] })),
    );
  }
  return validate(file, { input: value, schema, scope, place: placeOf });
}

function validate<Declared extends WithNames>(
  file: string,
  given: {
    readonly input: unknown;
    readonly schema: Schema<Declared>;
    readonly scope: Scope;
    readonly place: (path: readonly (string | number)[]) => TextPosition;
  },
): Outcome<Declared> {
  const { input, schema, scope, place } = given;
  const parsed = v.safeParse(schema, input);
  const twice = namesTwice(input).map(({ path, name }) => ({
    at: place(path),
    path,
    expected: "a name that no other machine has",
    received: name,
  }));
  if (!parsed.success) {
    const mistakes = parsed.issues.map((issue) =>
      mistakeOf(issue, schema as object as Shape, place),
    );
    return refuse(file, [...mistakes, ...twice]) satisfies Refused;
  }
  if (twice.length > 0) return refuse(file, twice);
  const shared = scope.isForOneHost ? findShared(parsed.output.machine) : [];
  if (shared.length === 0) return { kind: "ok", desired: parsed.output };
  return refuse(
    file,
    shared.map(({ index, key, what, other }) => {
      const shown = parsed.output.machine[index]?.name ?? "";
      const path = ["machine", index, key];
      const expected = "ports of the host and addresses that no other machine has";
      return {
        at: place(path),
        path,
        expected,
        received: `${what} of ${shown}, which ${other} has`,
      };
    }),
  );
}

/** One of them, in words for whoever writes such files. */
function mistakeOf(
  issue: v.BaseIssue<unknown>,
  schema: Shape,
  place: (path: readonly (string | number)[]) => TextPosition,
): Mistake {
  const path = (issue.path ?? []).map((item) => item.key as string | number);
  const [key, at] = [path.at(-1), place(path)];
  const received = receivedBy(issue, LONGEST_RECEIVED);
  if (issue.expected === "never" && typeof key === "string") {
    const expected = "a key that is known here";
    return { at, path, expected, received: key, ...mendOf(key, schema, path) };
  }
  if (issue.received !== "undefined") return { at, path, expected: wantedBy(issue), received };
  const isAll = path.length === 1 && key === "machine";
  const expected = isAll ? "[[machine]] for each, or machine = [] for none" : wantedBy(issue);
  return { at, path, expected, received: "nothing" };
}

function mendOf(
  key: string,
  schema: Shape,
  path: readonly (string | number)[],
): { readonly mend?: string } {
  if (key === "placement") return { mend: "where it may run is a master's: apply it by --master" };
  const meant = nearest(key, keysAt(schema, path.slice(0, -1)));
  return meant === undefined ? {} : { mend: `did you mean ${meant}?` };
}

/** Machines whose name another before them has, whatever else is wrong with the file. */
function namesTwice(input: unknown): { path: (string | number)[]; name: string }[] {
  const { success, output } = v.safeParse(v.object({ machine: v.array(v.unknown()) }), input);
  if (!success) return [];
  const seen = new Set<string>();
  return output.machine.flatMap((machine, index) => {
    const named = v.safeParse(v.object({ name: v.string() }), machine);
    if (!named.success) return [];
    const { name } = named.output;
    const isTwice = seen.has(name);
    seen.add(name);
    return isTwice ? [{ path: ["machine", index, "name"], name }] : [];
  });
}

/** A machine that was given to another host while it was declared here. */
export type GivenMachine = Given & { readonly name: string };

/** As the reconciler takes it. */
export function desiredOf(
  request: DesiredRequest,
  generation: number,
  given: readonly GivenMachine[] = [],
): Desired {
  const machines = request.machine.map(({ power = "running", ...spec }) => ({ spec, power }));
  return {
    generation,
    machines: machines.slice(0, limits.machines),
    given: new Map(given.map(({ name, ...one }) => [name, one])),
  };
}
