/**
 * Validates a value by a JSON schema (draft 7 and 2020-12), as far as the published schemas use it.
 * A keyword that this file does not know is an error, so that nothing passes because it was not
 * looked at.
 */

type Schema = Readonly<Record<string, unknown>>;

/** Keywords that say something to people alone. */
const annotations = [
  "$schema",
  "$id",
  "$defs",
  "$comment",
  "title",
  "description",
  "default",
  "examples",
];

interface Place {
  /** The whole schema, in which references are looked up. */
  readonly root: Schema;
  /** Misspelt keywords of a published schema, which every validator leaves out. */
  readonly ignored: readonly string[];
  /** Other schemas, by the path of their `$id`. */
  readonly documents: Readonly<Record<string, unknown>>;
  readonly path: string;
}

type Keyword = (found: {
  readonly value: unknown;
  readonly argument: unknown;
  readonly schema: Schema;
  readonly place: Place;
}) => string[];

/**
 * @param options.ignored keywords that are known to be mistakes of the schema
 * @returns what is wrong, each with its path; nothing for a valid value
 */
export function validate(
  value: unknown,
  schema: unknown,
  options: {
    readonly ignored?: readonly string[];
    readonly documents?: Readonly<Record<string, unknown>>;
  } = {},
): string[] {
  const root = schema as Schema;
  const { ignored = [], documents = {} } = options;
  return check(value, root, { root, ignored, documents, path: "" });
}

function check(value: unknown, schema: Schema, place: Place): string[] {
  return Object.entries(schema).flatMap(([name, argument]) => {
    if (annotations.includes(name) || place.ignored.includes(name)) return [];
    const keyword = Object.hasOwn(keywords, name) ? keywords[name] : undefined;
    if (keyword === undefined) throw new Error(`The schema has a keyword ${name}, unknown here`);
    return keyword({ value, argument, schema, place });
  });
}

const keywords: Readonly<Record<string, Keyword>> = {
  $ref: ({ value, argument, place }) => {
    if (String(argument).startsWith("/")) {
      const root = place.documents[String(argument)] as Schema | undefined;
      if (root === undefined) throw new Error(`There is no schema ${argument}`);
      return check(value, root, { ...place, root });
    }
    let target: unknown = place.root;
    for (const part of String(argument).replace(/^#\//, "").split("/")) {
      target = (target as Schema | undefined)?.[part];
    }
    if (target === undefined) throw new Error(`The schema refers to ${argument}, which is absent`);
    return check(value, target as Schema, place);
  },
  type: ({ value, argument, place }) => {
    const types = [argument].flat() as string[];
    return types.some((type) => isOfType(value, type))
      ? []
      : [refuse(place, types.join(" or "), value)];
  },
  enum: ({ value, argument, place }) =>
    (argument as unknown[]).includes(value) ? [] : [refuse(place, `one of ${argument}`, value)],
  const: ({ value, argument, place }) =>
    JSON.stringify(value) === JSON.stringify(argument)
      ? []
      : [refuse(place, JSON.stringify(argument), value)],
  format: ({ value, argument, place }) => {
    if (argument !== "date-time") throw new Error(`The schema has a format ${argument}`);
    const isTime = typeof value === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(value);
    return isTime && !Number.isNaN(Date.parse(value)) ? [] : [refuse(place, "a time", value)];
  },
  pattern: ({ value, argument, place }) =>
    typeof value !== "string" || new RegExp(String(argument)).test(value)
      ? []
      : [refuse(place, `text like ${argument}`, value)],
  minimum: ({ value, argument, place }) =>
    typeof value !== "number" || value >= Number(argument)
      ? []
      : [refuse(place, `at least ${argument}`, value)],
  maximum: ({ value, argument, place }) =>
    typeof value !== "number" || value <= Number(argument)
      ? []
      : [refuse(place, `at most ${argument}`, value)],
  required: ({ value, argument, place }) =>
    !isTable(value)
      ? []
      : (argument as string[])
          .filter((name) => !Object.hasOwn(value, name))
          .map((name) => refuse(place, `the key ${name}`, Object.keys(value))),
  maxProperties: ({ value, argument, place }) =>
    !isTable(value) || Object.keys(value).length <= Number(argument)
      ? []
      : [refuse(place, `at most ${argument} keys`, Object.keys(value))],
  items: ({ value, argument, place }) =>
    !Array.isArray(value)
      ? []
      : value.flatMap((item, index) => check(item, argument as Schema, below(place, index))),
  properties: ({ value, argument, place }) =>
    !isTable(value)
      ? []
      : Object.entries(argument as Record<string, Schema>).flatMap(([name, schema]) =>
          Object.hasOwn(value, name) ? check(value[name], schema, below(place, name)) : [],
        ),
  patternProperties: ({ value, argument, place }) =>
    !isTable(value)
      ? []
      : Object.entries(argument as Record<string, Schema>).flatMap(([pattern, schema]) =>
          Object.keys(value)
            .filter((name) => new RegExp(pattern).test(name))
            .flatMap((name) => check(value[name], schema, below(place, name))),
        ),
  additionalProperties: ({ value, argument, schema, place }) => {
    if (!isTable(value) || argument === true) return [];
    const others = Object.keys(value).filter((name) => !isNamed(schema, name));
    if (argument === false) return others.map((name) => `${place.path}/${name}: no such key`);
    return others.flatMap((name) => check(value[name], argument as Schema, below(place, name)));
  },
  unevaluatedProperties: ({ value, argument, schema, place }) => {
    if (!isTable(value) || argument !== false) return [];
    const branches = ((schema["oneOf"] ?? []) as Schema[]).filter(
      (branch) => check(value, branch, place).length === 0,
    );
    const others = Object.keys(value).filter(
      (name) => ![schema, ...branches].some((one) => isNamed(one, name)),
    );
    return others.map((name) => `${place.path}/${name}: no such key`);
  },
  dependencies: ({ value, argument, place }) =>
    !isTable(value)
      ? []
      : Object.entries(argument as Record<string, Schema>).flatMap(([name, schema]) =>
          Object.hasOwn(value, name) ? check(value, schema, place) : [],
        ),
  not: ({ value, argument, place }) =>
    check(value, argument as Schema, place).length > 0
      ? []
      : [refuse(place, `not ${JSON.stringify(argument)}`, value)],
  anyOf: ({ value, argument, place }) => matching(value, argument, place, (count) => count > 0),
  oneOf: ({ value, argument, place }) => matching(value, argument, place, (count) => count === 1),
};

function matching(
  value: unknown,
  argument: unknown,
  place: Place,
  isFine: (count: number) => boolean,
): string[] {
  const refusals = (argument as Schema[]).map((schema) => check(value, schema, place));
  const count = refusals.filter((refusal) => refusal.length === 0).length;
  if (isFine(count)) return [];
  if (count > 0) return [refuse(place, "one of the alternatives alone", value)];
  return [`${place.path}: none of the alternatives (${refusals.flat().join("; ")})`];
}

function isNamed(schema: Schema, name: string): boolean {
  const patterns = Object.keys((schema["patternProperties"] as Schema | undefined) ?? {});
  return (
    Object.hasOwn((schema["properties"] as Schema | undefined) ?? {}, name) ||
    patterns.some((pattern) => new RegExp(pattern).test(name))
  );
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case "null":
      return value === null;
    case "array":
      return Array.isArray(value);
    case "object":
      return isTable(value);
    case "integer":
      return Number.isInteger(value);
    case "string":
    case "number":
    case "boolean":
      return typeof value === type;
    default:
      throw new Error(`The schema has a type ${type}, unknown here`);
  }
}

function below(place: Place, name: string | number): Place {
  return { ...place, path: `${place.path}/${name}` };
}

function refuse(place: Place, expected: string, received: unknown): string {
  return `${place.path}: expected ${expected}, received ${JSON.stringify(received)}`;
}
