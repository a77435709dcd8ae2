/** The task `sync` has no input and no report. */
export const SYNC_TASK = "sync";
