import * as v from "valibot";
import { firstFinding } from "../messaging/describe-issues.ts";
import { type Refused, refuse } from "../toml/configuration-file.ts";
import type { ConfigurationError, Mistake } from "../toml/configuration-reader.ts";
import { parseToml, type TextPosition, type TomlNode } from "../toml/toml-tree.ts";
import { type DesiredRequest, desiredSchema, limits } from "./protocol.ts";
import type { Desired } from "./reconcile.ts";

/**
 * The file that declares machines, as TOML or JSON: an optional generation, and machines with the
 * names of VmSpec and the power state that they are to be in. Pure.
 */

/** Bytes of the file. */
export const declarationBytes = 4 * 1024 * 1024;

export type DeclarationOutcome =
  | { readonly kind: "ok"; readonly desired: DesiredRequest }
  | { readonly kind: "refused"; readonly errors: readonly ConfigurationError[] };

/** Validates a whole text; all its mistakes are reported at once, each in its place. */
export function parseDeclaration(file: string, text: string): DeclarationOutcome {
  const begin = text.trimStart()[0];
  return begin === "{" ? parseJson(file, text) : parseTomlText(file, text);
}

const nowhere: TextPosition = { line: 0, column: 0 };

function parseJson(file: string, text: string): DeclarationOutcome {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    const received = error instanceof Error ? error.message : String(error);
    return refuse(file, [{ at: nowhere, path: [], expected: "JSON", received }]);
  }
  return validate(file, json, () => nowhere);
}

function parseTomlText(file: string, text: string): DeclarationOutcome {
  const { root, refusals } = parseToml(text);
  if (refusals.length > 0 || root === undefined) {
    return refuse(
      file,
      refusals.map((refusal) => ({ ...refusal, path: [] })),
    );
  }
  return validate(file, plainOf(root), (path) => positionOf(root, path));
}

function validate(
  file: string,
  input: unknown,
  place: (path: readonly (string | number)[]) => TextPosition,
): DeclarationOutcome {
  const parsed = v.safeParse(desiredSchema, input);
  if (!parsed.success) {
    const mistakes = parsed.issues.map((issue): Mistake => {
      const path = (issue.path ?? []).map((item) => item.key as string | number);
      return { at: place(path), path, ...firstFinding([issue]) };
    });
    return refuse(file, mistakes) satisfies Refused;
  }
  const twice = findTwice(parsed.output);
  if (twice === undefined) return { kind: "ok", desired: parsed.output };
  const path = ["machine", twice, "name"];
  const received = parsed.output.machine[twice]?.name ?? "";
  return refuse(file, [
    { at: place(path), path, expected: "a name that no other machine has", received },
  ]);
}

/** The index of the first machine whose name another has already. */
function findTwice({ machine }: DesiredRequest): number | undefined {
  const seen = new Set<string>();
  for (const [index, { name }] of machine.entries()) {
    if (seen.has(name)) return index;
    seen.add(name);
  }
  return undefined;
}

/** The values alone. */
function plainOf(node: TomlNode): unknown {
  switch (node.kind) {
    case "table":
      return Object.fromEntries(
        [...node.entries].map(([key, { node: one }]) => [key, plainOf(one)]),
      );
    case "array":
      return node.items.map(plainOf);
    default:
      return node.value;
  }
}

/** Where a key stands, or the nearest table above it. */
function positionOf(root: TomlNode, path: readonly (string | number)[]): TextPosition {
  let node: TomlNode = root;
  let at = node.at;
  for (const segment of path) {
    if (node.kind === "table") {
      const entry = node.entries.get(String(segment));
      if (entry === undefined) return at;
      at = entry.keyAt;
      node = entry.node;
    } else if (node.kind === "array") {
      const item = node.items[Number(segment)];
      if (item === undefined) return at;
      node = item;
      at = item.at;
    } else return at;
  }
  return at;
}

/** As the reconciler takes it. */
export function desiredOf(request: DesiredRequest, generation: number): Desired {
  const machines = request.machine.map(({ power = "running", ...spec }) => ({ spec, power }));
  return { generation, machines: machines.slice(0, limits.machines) };
}
