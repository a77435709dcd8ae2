import { type ConversionConfig, toJsonSchema } from "@valibot/to-json-schema";
import type * as v from "valibot";
import { PROBLEM_TYPE, problemSchema } from "./problem.ts";
import type { Place } from "./router.ts";

/** What the document needs to know of a place, whatever kind it is. */
export interface DescribedPlace extends Place {
  readonly input?: v.GenericSchema;
  /** `mediaType`: what an answer is; JSON by `output` unless it is told. */
  readonly output?: v.GenericSchema;
  readonly mediaType?: string;
  /** 101 for a WebSocket; 200 unless it is told. */
  readonly status?: number;
}

type Json = Readonly<Record<string, unknown>>;

const SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema";

/**
 * The OpenAPI 3.1 document of a server (https://spec.openapis.org/oas/v3.1.1), from the schemas
 * that check its calls. What a JSON schema cannot say, such as a check by code, is left out: the
 * document allows more there than the server does.
 */
export function openApiDocument(options: {
  readonly title: string;
  readonly version: string;
  readonly places: readonly DescribedPlace[];
}): Json {
  const { title, version, places } = options;
  const paths: Record<string, Record<string, unknown>> = {};
  for (const place of places) {
    const path = place.path.replaceAll(/:(\w+)/g, "{$1}");
    paths[path] = { ...paths[path], [place.method.toLowerCase()]: operationOf(place) };
  }
  return {
    openapi: "3.1.1",
    jsonSchemaDialect: SCHEMA_DIALECT,
    info: { title, version, description: "Generated from the schemas that check each call." },
    paths,
    components: {
      schemas: { Problem: schemaOf(problemSchema, "output") },
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer" },
        cookie: { type: "apiKey", in: "cookie", name: "__Host-hostler" },
      },
    },
  };
}

function operationOf(place: DescribedPlace): Json {
  const { name, summary, permission } = place;
  const isOpen = permission === "anyone";
  return {
    operationId: name,
    summary,
    tags: [name.split(".")[0]],
    "x-permission": permission,
    security: isOpen ? [] : [{ bearer: [] }, { cookie: [] }],
    ...inputOf(place),
    responses: {
      [String(place.status ?? 200)]: answerOf(place),
      default: {
        description: "Refused",
        content: { [PROBLEM_TYPE]: { schema: { $ref: "#/components/schemas/Problem" } } },
      },
    },
  };
}

function answerOf({ output, mediaType = "application/json", status }: DescribedPlace): Json {
  if (status === 101) return { description: "The protocol is a WebSocket from here on" };
  const schema = output === undefined ? {} : { schema: schemaOf(output, "output") };
  return { description: "Done", content: { [mediaType]: schema } };
}

/** Path parameters and query as parameters; for other methods than GET the rest is the body. */
function inputOf(place: DescribedPlace): Json {
  const inPath = [...place.path.matchAll(/:(\w+)/g)].map(([, name = ""]) => name);
  const schema = place.input === undefined ? {} : schemaOf(place.input, "input");
  const properties = (schema["properties"] ?? {}) as Readonly<Record<string, unknown>>;
  const required = (schema["required"] ?? []) as readonly string[];
  const rest = Object.keys(properties).filter((name) => !inPath.includes(name));
  const parameters: Json[] = inPath.map((name) => ({
    name,
    in: "path",
    required: true,
    schema: properties[name] ?? { type: "string" },
  }));
  if (place.method === "GET") {
    for (const name of rest) {
      const isRequired = required.includes(name);
      parameters.push({ name, in: "query", required: isRequired, schema: properties[name] });
    }
  }
  const body = place.method === "GET" ? undefined : bodyOf({ schema, rest, required, inPath });
  return {
    ...(parameters.length > 0 && { parameters }),
    ...(body !== undefined && { requestBody: body }),
  };
}

function bodyOf(parts: {
  readonly schema: Json;
  readonly rest: readonly string[];
  readonly required: readonly string[];
  readonly inPath: readonly string[];
}): Json | undefined {
  const { schema, rest, required, inPath } = parts;
  const isObject = schema["properties"] !== undefined;
  if (isObject && rest.length === 0) return undefined;
  const all = schema["properties"] as Readonly<Record<string, unknown>> | undefined;
  const wanted = required.filter((name) => !inPath.includes(name));
  // A union of objects has no properties of its own, and stands as it is.
  const body = isObject
    ? {
        ...schema,
        properties: Object.fromEntries(rest.map((name) => [name, all?.[name]])),
        required: wanted,
      }
    : schema;
  const isRequired = !isObject || wanted.length > 0;
  return { required: isRequired, content: { "application/json": { schema: body } } };
}

function schemaOf(schema: v.GenericSchema, typeMode: "input" | "output"): Json {
  const configuration: ConversionConfig = {
    target: "draft-2020-12",
    typeMode,
    errorMode: "ignore",
  };
  const { $schema: _dialect, ...rest } = toJsonSchema(schema, configuration);
  return rest as Json;
}
