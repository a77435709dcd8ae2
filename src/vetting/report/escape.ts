/** Text in HTML and SVG. What a host tells may be anything; nothing of it is ever markup. Pure. */

/** Markup that was made here; only `html` makes it, so that no text gets in unescaped. */
export interface Markup {
  readonly markup: string;
}

export type Part = string | number | Markup | readonly Markup[] | undefined;

/** Each text between the words of the template is escaped, in elements and in quoted attributes. */
export function html(words: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  const markup = words.map((word, index) => word + write(parts[index])).join("");
  return { markup };
}

function write(part: Part): string {
  if (part === undefined) return "";
  if (typeof part === "string") return escapeText(part);
  if (typeof part === "number") return escapeText(String(part));
  if ("markup" in part) return part.markup;
  return part.map(({ markup }) => markup).join("");
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/**
 * Beside markup: letters that XML does not have, and those that turn the direction of what follows,
 * by which a serial could be shown as another one; each as a box with its number.
 */
export function escapeText(text: string): string {
  return text
    .replaceAll(/[&<>"']/g, (letter) => entities[letter] ?? "")
    .replaceAll(/[\p{Cc}\p{Bidi_C}\p{Cs}]/gu, (letter) =>
      letter === "\n" || letter === "\t" ? letter : `⟦${hexOf(letter)}⟧`,
    );
}

const hexOf = (letter: string) => (letter.codePointAt(0) ?? 0).toString(16).padStart(4, "0");
