import { randomBytes } from "node:crypto";

/** The id of a start: 128 random bits in hexadecimal, never the same twice. */
export const newInvocation = () => randomBytes(16).toString("hex");
