/** What the driver of a card says, as JSON. Words: its name. */
import { writeSync } from "node:fs";
import { askCard } from "../../../src/hardware/ask-card.ts";

writeSync(1, `${JSON.stringify(askCard(process.argv[2] ?? ""))}\n`);
