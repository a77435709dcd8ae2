/** Something was that must never be. */
export class InvariantBroken extends Error {
  override readonly name = "InvariantBroken";
}
