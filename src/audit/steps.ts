/** Every place at which a test kills the writer of the log, between two of its steps. */
export const auditSteps = [
  "segment-made",
  "half-written",
  "written",
  "synced",
  "before-cut",
  "cut",
  "segment-removed",
] as const;
export type AuditStep = (typeof auditSteps)[number];
