import type { ExpectedDaemon } from "../../authority/client.ts";

/** Who is expected at the control socket: an authority alone has no fleet. */
export const expectedOperator: ExpectedDaemon = {
  name: "operator",
  start: "hostler fleet operator",
  flag: "--control-socket",
};
