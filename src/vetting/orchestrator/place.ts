import { join } from "node:path";

/** Of the database, below the state directory. */
export const databasePlace = join("vetting", "vetting.db");
