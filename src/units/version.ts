declare const HOSTLER_VERSION: string | undefined;
declare const HOSTLER_COMMIT: string | undefined;

/** The version of this build, as package.json says; "source" when run without building. */
export const hostlerVersion: string =
  typeof HOSTLER_VERSION === "undefined" ? "source" : HOSTLER_VERSION;

/** The commit that this build was made from, with "+dirty" when the tree had changes. */
export const hostlerCommit: string =
  typeof HOSTLER_COMMIT === "undefined" ? "unknown" : HOSTLER_COMMIT;
