/** The validator refuses what it must, or a manifest would be valid because nobody looked. */
import { describe, expect, test } from "bun:test";
import { validate } from "../../support/json-schema.ts";

describe("the validator of JSON schemas", () => {
  test.each([
    [{ type: "string" }, "x", 1],
    [{ type: ["string", "null"] }, null, 1],
    [{ type: "integer" }, 1, 1.5],
    [{ type: "array", items: { type: "string" } }, ["x"], ["x", 1]],
    [{ enum: ["a", "b"] }, "a", "c"],
    [{ pattern: "^[0-9]+$" }, "12", "1a"],
    [{ minimum: 1, maximum: 3 }, 2, 4],
    [{ minimum: 1, maximum: 3 }, 2, 0],
    [{ required: ["name"] }, { name: 1 }, { nam: 1 }],
    [{ maxProperties: 1 }, { a: 1 }, { a: 1, b: 2 }],
    [{ properties: { a: { type: "number" } } }, { a: 1 }, { a: "1" }],
    [{ properties: { a: {} }, additionalProperties: false }, { a: 1 }, { b: 1 }],
    [{ additionalProperties: { type: "boolean" } }, { b: true }, { b: 1 }],
    [{ patternProperties: { "^x": { type: "number" } } }, { x1: 1 }, { x1: "1" }],
    [{ dependencies: { a: { required: ["b"] } } }, { a: 1, b: 1 }, { a: 1 }],
    [{ dependencies: { a: { not: { required: ["b"] } } } }, { a: 1 }, { a: 1, b: 1 }],
    [{ anyOf: [{ type: "string" }, { minimum: 5 }] }, 5, 4],
    [{ oneOf: [{ type: "number" }, { enum: [1] }] }, 2, 1],
    [{ const: 2 }, 2, 3],
    [{ format: "date-time" }, "2026-11-30T00:00:00Z", "2026-13-45T00:00:00Z"],
    [
      {
        properties: { a: {} },
        oneOf: [{ required: ["b"], properties: { b: {} } }],
        unevaluatedProperties: false,
      },
      { a: 1, b: 1 },
      { b: 1, c: 1 },
    ],
    [{ $ref: "#/$defs/name", $defs: { name: { type: "string" } } }, "x", 1],
  ])("%j takes %j and refuses %j", (schema, good, bad) => {
    expect(validate(good, schema)).toEqual([]);
    expect(validate(bad, schema)).toHaveLength(1);
  });

  test("finds another schema by the path of its id, and what that refers to in itself", () => {
    const other = { $ref: "#/$defs/name", $defs: { name: { type: "string" } } };
    const options = { documents: { "/house/other": other } };
    expect(validate("x", { $ref: "/house/other" }, options)).toEqual([]);
    expect(validate(1, { $ref: "/house/other" }, options)).toHaveLength(1);
  });

  test("says where, what was expected and what was received", () => {
    const schema = { properties: { a: { items: { type: "string" } } } };
    expect(validate({ a: ["x", 1] }, schema)).toEqual(["/a/1: expected string, received 1"]);
  });

  test("a keyword that it does not know is an error", () => {
    expect(() => validate("x", { format: "uri" })).toThrow("a format uri");
    expect(() => validate("x", { minLength: 3 })).toThrow("keyword minLength");
    expect(() => validate("x", { $ref: "/other" })).toThrow("no schema /other");
    expect(() => validate("x", { type: "text" })).toThrow("type text");
    expect(() => validate("x", { $ref: "#/$defs/none" })).toThrow("absent");
    expect(validate("x", { descrition: "x" }, { ignored: ["descrition"] })).toEqual([]);
  });
});
