import { refusalCode } from "../../journal/file-refused.ts";
import type { Refusal } from "../lifecycle-state.ts";
import { DisksRefused } from "./disk-ownership.ts";

/** Characters of a reason that is kept and shown. */
const MOST_REASON_LENGTH = 1024;

/** What was refused, in words; what the kernel refuses may pass. */
export function refusalOf(error: unknown): Refusal {
  const message = error instanceof Error ? error.message : String(error);
  return { message: message.slice(0, MOST_REASON_LENGTH), code: refusalCode(error), lasts: false };
}

/** An image that is not what it should be stays so until somebody mends it; a full disk may not. */
export function lastingRefusal(error: unknown): Refusal {
  const refusal = refusalOf(error);
  if (error instanceof DisksRefused) return { ...refusal, lasts: error.lasts };
  return { ...refusal, lasts: refusal.code === undefined };
}
