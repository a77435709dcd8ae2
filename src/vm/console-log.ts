import { join } from "node:path";

/** Where a machine's folder has what its console said; what was said before is beside it. */
export const consoleLogOf = (folder: string): string => join(folder, "console.log");
