import agentService from "../../images/systemd/hostler-fleet-agent.service" with { type: "text" };

/** The canonical agent's unit. */
export const agentUnit = "hostler-fleet-agent.service";

/** Where an installation lies in the texts of images/systemd. */
const FOLDER = "/opt/hostler";

const texts = { [agentUnit]: agentService };

/** What the units of an installation in this folder say, by their names. */
export function fleetUnits(folder: string): readonly { name: string; text: string }[] {
  return Object.entries(texts).map(([name, text]) => ({
    name,
    text: text
      .replaceAll(`${FOLDER}/`, `${folder}/`)
      .replaceAll(`--folder ${FOLDER}`, `--folder ${folder}`),
  }));
}
