/** What an operator is told while the audit log takes nothing. */
import { expect, test } from "bun:test";
import { AuditError } from "../../../src/audit/audit-error.ts";
import { AuditAdmission } from "../../../src/authority/audit-admission.ts";

test("a log that is full is told of once, and again when it takes records", () => {
  let problem: "full" | "busy" | undefined;
  const lines: string[] = [];
  const log = {
    admit() {
      if (problem !== undefined) throw new AuditError(`it is ${problem}`, { problem });
    },
  };
  const logger = {
    warn: (line: string) => void lines.push(`warn: ${line}`),
    info: (line: string) => void lines.push(`info: ${line}`),
  };
  const admission = new AuditAdmission(log, logger);
  const refused = "warn: what changes something is refused: it is full";
  const again = "info: what changes something is taken again";
  const asked: [typeof problem, readonly string[]][] = [
    [undefined, []],
    ["busy", []],
    ["full", [refused]],
    ["full", [refused]],
    ["busy", [refused]],
    [undefined, [refused, again]],
    [undefined, [refused, again]],
    ["full", [refused, again, refused]],
  ];
  for (const [state, expected] of asked) {
    problem = state;
    if (state === undefined) admission.admit();
    else expect(() => admission.admit()).toThrow(`it is ${state}`);
    expect(lines).toEqual([...expected]);
  }
});
