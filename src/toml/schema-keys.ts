import type { Path } from "./configuration-reader.ts";

/** What of a schema of valibot says which keys it has. */
export interface Shape {
  readonly entries?: Readonly<Record<string, Shape>>;
  readonly item?: Shape;
  readonly wrapped?: Shape;
}

/** The keys that a schema knows at this path; none where it has no object there. Pure. */
export function keysAt(schema: Shape, path: Path): readonly string[] {
  let shape: Shape | undefined = schema;
  for (const segment of [...path, undefined]) {
    while (shape?.wrapped !== undefined) shape = shape.wrapped;
    if (segment === undefined) break;
    shape = typeof segment === "number" ? shape?.item : shape?.entries?.[segment];
  }
  return Object.keys(shape?.entries ?? {});
}
