import { randomBytes } from "node:crypto";

/** The id of a start, or of a capture: 128 random bits in hexadecimal, never the same twice. */
export const newInvocation = (): string => randomBytes(16).toString("hex");
