/** Reads unit files and quadlets of systemd, as far as these tests need it: systemd.syntax(7). */

/** "Section.Key" to its values, in the order in which they stand. */
export type UnitFile = ReadonlyMap<string, readonly string[]>;

export function parseUnitFile(text: string): UnitFile {
  const values = new Map<string, string[]>();
  let section = "";
  // A line that ends with a backslash goes on with the next one.
  for (const line of text.replaceAll("\\\n", " ").split("\n")) {
    if (/^\s*([#;]|$)/.test(line)) continue;
    const heading = /^\[(.+)\]$/.exec(line);
    const assignment = /^([A-Za-z]+)=(.*)$/.exec(line);
    if (heading !== null) section = heading[1] ?? "";
    else if (assignment !== null && section !== "") {
      const key = `${section}.${assignment[1]}`;
      values.set(key, [...(values.get(key) ?? []), assignment[2] ?? ""]);
    } else throw new Error(`Neither a section, an assignment nor a comment: ${line}`);
  }
  return values;
}
