import * as v from "valibot";
import { describeIssues } from "../../messaging/describe-issues.ts";

/** Letters of what a tool printed that a refusal repeats. */
const REPEATED = 80;

export type ToolJson<Schema extends v.GenericSchema> =
  | { readonly kind: "json"; readonly value: v.InferOutput<Schema> }
  /** What was expected, and what was received. */
  | { readonly kind: "none"; readonly reason: string };

/**
 * The object that a tool prints, from its first line that begins with a brace on: before it some
 * tools say in words what happened. Pure.
 */
export function readToolJson<Schema extends v.GenericSchema>(
  schema: Schema,
  output: string,
): ToolJson<Schema> {
  const begin = output.startsWith("{") ? 0 : output.indexOf("\n{") + 1;
  let value: unknown;
  try {
    value = JSON.parse(output.slice(begin));
  } catch {
    return { kind: "none", reason: `expected a JSON object, received ${repeated(output)}` };
  }
  const checked = v.safeParse(schema, value);
  if (checked.success) return { kind: "json", value: checked.output };
  return { kind: "none", reason: describeIssues(checked.issues) };
}

function repeated(output: string): string {
  const text = output.trim();
  if (text === "") return "nothing";
  return JSON.stringify(text.length > REPEATED ? `${text.slice(0, REPEATED)}…` : text);
}
